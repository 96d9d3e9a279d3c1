"""How good a network is and how sure that is, from the records of its predictions alone (no torch, no model)."""

from convsmith.evaluation.answers import Answers
from convsmith.evaluation.comparison import paired_gain, scored_without
from convsmith.evaluation.cross_validation import is_cross_validation
from convsmith.evaluation.intervals import bootstrap, paired_difference, proportion, wilson
from convsmith.evaluation.learning_curve import judge
from convsmith.evaluation.metrics import softmax
from convsmith.evaluation.mistakes import cells
from convsmith.evaluation.predictions import Predictions
from convsmith.evaluation.score import evaluate, quick
from convsmith.evaluation.scorers import SCORERS, commonest_class, rescore, score_classification
from convsmith.evaluation.slices import slices
from convsmith.evaluation.temperature import Temperature, divided, fit_temperature

__all__ = [
    "SCORERS",
    "Answers",
    "Predictions",
    "Temperature",
    "bootstrap",
    "cells",
    "commonest_class",
    "divided",
    "evaluate",
    "fit_temperature",
    "is_cross_validation",
    "judge",
    "paired_difference",
    "paired_gain",
    "proportion",
    "quick",
    "rescore",
    "score_classification",
    "scored_without",
    "slices",
    "softmax",
    "wilson",
]
