"""From images in memory to batches ready for the network: order, draws, augmentation, normalisation."""

from convsmith.batches.augment import AUGMENTATIONS, Augment, build
from convsmith.batches.batches import Batch, Batches
from convsmith.batches.colour import Colour, Erasing, Normalize
from convsmith.batches.geometry import Crop, Flip, Geometry, Motion, QuarterTurn, Rotation, Shift, VerticalFlip, Zoom
from convsmith.batches.mixing import CutMix, MixUp
from convsmith.batches.operation import Operation, Parameters
from convsmith.batches.order import GROUP, balanced, permutation, rank_span, span, steps_per_epoch
from convsmith.batches.philox import Keys, keys_of, operation_id, philox, uniform
from convsmith.batches.presets import PRESETS, Symmetry, symmetric
from convsmith.batches.sequence import Sequence

__all__ = [
    "AUGMENTATIONS",
    "GROUP",
    "PRESETS",
    "Augment",
    "Batch",
    "Batches",
    "Colour",
    "Crop",
    "CutMix",
    "Erasing",
    "Flip",
    "Geometry",
    "Keys",
    "MixUp",
    "Motion",
    "Normalize",
    "Operation",
    "Parameters",
    "QuarterTurn",
    "Rotation",
    "Sequence",
    "Shift",
    "Symmetry",
    "VerticalFlip",
    "Zoom",
    "balanced",
    "build",
    "keys_of",
    "operation_id",
    "permutation",
    "philox",
    "rank_span",
    "span",
    "steps_per_epoch",
    "symmetric",
    "uniform",
]
