"""Which images went wrong, and which classes are taken for one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convsmith.evaluation.intervals import Integers
from convsmith.evaluation.metrics import log_softmax
from convsmith.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Mistake:
    """An image named wrongly: by what name, how sure of it, and what was left for the right one."""

    id: str
    true: str
    predicted: str
    probability: float
    true_probability: float
    loss: float


@dataclass(frozen=True)
class Pair:
    """Images of class `true` that were called `predicted`: how many, and which share of that class's images."""

    true: str
    predicted: str
    count: int
    share: float


def worst_mistakes(predictions: Predictions, count: int = 24) -> list[Mistake]:
    """The mistakes with the largest loss: those where least probability was left for the true class."""
    predicted, targets = predictions.predicted, predictions.targets
    wrong = np.flatnonzero(predicted != targets)
    scores = log_softmax(predictions.logits[wrong])
    rows = np.arange(len(wrong))
    own, called = scores[rows, targets[wrong]], scores[rows, predicted[wrong]]
    order = np.lexsort((predictions.ids[wrong], own))[:count]
    return [
        Mistake(
            id=str(predictions.ids[wrong[i]]),
            true=predictions.classes[targets[wrong[i]]],
            predicted=predictions.classes[predicted[wrong[i]]],
            probability=float(np.exp(called[i])),
            true_probability=float(np.exp(own[i])),
            loss=float(-own[i]),
        )
        for i in order
    ]


def confused_pairs(confusion: Integers, classes: tuple[str, ...], count: int = 20) -> list[Pair]:
    """The commonest mistakes by class, from a confusion matrix [K, K]; ties in the order of the classes."""
    true, predicted = np.nonzero(confusion * ~np.eye(len(confusion), dtype=bool))
    totals = confusion.sum(axis=1)
    order = np.argsort(-confusion[true, predicted], kind="stable")[:count]
    return [
        Pair(classes[t], classes[p], int(confusion[t, p]), float(confusion[t, p] / totals[t]))
        for t, p in zip(true[order], predicted[order], strict=True)
    ]
