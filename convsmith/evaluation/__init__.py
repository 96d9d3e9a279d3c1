"""How good a network is and how sure that is, from the records of its predictions alone (no torch, no model)."""

from convsmith.evaluation.answers import Answers
from convsmith.evaluation.intervals import bootstrap, paired_difference, proportion, wilson
from convsmith.evaluation.metrics import softmax
from convsmith.evaluation.predictions import Predictions
from convsmith.evaluation.score import evaluate, quick
from convsmith.evaluation.scorers import SCORERS, commonest_class, rescore, score_classification

__all__ = [
    "SCORERS",
    "Answers",
    "Predictions",
    "bootstrap",
    "commonest_class",
    "evaluate",
    "paired_difference",
    "proportion",
    "quick",
    "rescore",
    "score_classification",
    "softmax",
    "wilson",
]
