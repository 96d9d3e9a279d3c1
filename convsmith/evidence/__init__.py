"""What running a trained network leaves behind for those who only read."""

from convsmith.evidence.features import Frozen, View, frozen_features
from convsmith.evidence.fields import effective_fields
from convsmith.evidence.gradcam import grad_cam, leave_maps
from convsmith.evidence.predict import batch_for, inference_mode, predict
from convsmith.evidence.stage_ends import StageEnd, averages, stage_ends
from convsmith.evidence.thumbnails import leave_thumbnails, png

__all__ = [
    "Frozen",
    "StageEnd",
    "View",
    "averages",
    "batch_for",
    "effective_fields",
    "frozen_features",
    "grad_cam",
    "inference_mode",
    "leave_maps",
    "leave_thumbnails",
    "png",
    "predict",
    "stage_ends",
]
