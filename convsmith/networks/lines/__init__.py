"""Networks written as a line of layers, the sizes of what layers give, and why sizes do not fit."""
