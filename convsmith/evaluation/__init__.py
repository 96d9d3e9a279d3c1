"""How good a network is and how sure that is, from the records of its predictions alone (no torch, no model)."""

from convsmith.evaluation.intervals import bootstrap, paired_difference, proportion, wilson
from convsmith.evaluation.metrics import softmax
from convsmith.evaluation.predictions import Predictions
from convsmith.evaluation.score import evaluate, quick

__all__ = ["Predictions", "bootstrap", "evaluate", "paired_difference", "proportion", "quick", "softmax", "wilson"]
