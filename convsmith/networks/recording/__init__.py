"""A network as a graph of its operations, recorded on tensors without values."""
