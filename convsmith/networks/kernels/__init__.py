"""Kernels as small tables of numbers: classical ones, what they make of a picture, what learnt filters are like."""
