"""The recipe: all that makes a run, as frozen data.

Names come from tables, never from import paths, because a configuration that can name code is code execution. `auto`
is resolved by `pipeline.plan`, which says why; `None` means off. Layers: default < named < file < what was typed.
"""

from convsmith.recipe.layers import (
    RECIPES,
    layer,
    load_layer,
    nested,
    parse_assignments,
    parse_yaml,
    seconds,
    typed_layer,
)
from convsmith.recipe.section import Named, Scalar, Section, settled
from convsmith.recipe.sections import Augment, Data, Fit, Image, Recipe, Train, Transfer, Unfreeze, Weights

__all__ = [
    "RECIPES",
    "Augment",
    "Data",
    "Fit",
    "Image",
    "Named",
    "Recipe",
    "Scalar",
    "Section",
    "Train",
    "Transfer",
    "Unfreeze",
    "Weights",
    "layer",
    "load_layer",
    "nested",
    "parse_assignments",
    "parse_yaml",
    "seconds",
    "settled",
    "typed_layer",
]
