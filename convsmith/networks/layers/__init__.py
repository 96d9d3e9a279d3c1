"""Layers: the table of all by name, and what each node of a design becomes."""

from convsmith.networks.layers.nodes import LAYERS
from convsmith.networks.layers.table import LAYER_KINDS, LayerKind, layer_parameters, layer_shape

__all__ = ["LAYERS", "LAYER_KINDS", "LayerKind", "layer_parameters", "layer_shape"]
