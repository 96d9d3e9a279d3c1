"""Other networks made from a given one: designs rewritten, trained ones grown and changed, savings proposed."""
