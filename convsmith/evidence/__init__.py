"""What running a trained network leaves behind for those who only read."""

from convsmith.evidence.predict import inference_mode, predict
from convsmith.evidence.thumbnails import leave_thumbnails

__all__ = ["inference_mode", "leave_thumbnails", "predict"]
