"""From predictions to the results of a split, as they stand in results.json."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convsmith.errors import DataError
from convsmith.evaluation import calibration, metrics, mistakes
from convsmith.evaluation.answers import Answers
from convsmith.evaluation.intervals import Groups, Integers
from convsmith.evaluation.predictions import Predictions
from convsmith.records import Estimate, Record


def evaluate(
    predictions: Predictions, *, majority: int | None = None, groups: Groups = None, seed: int = 0
) -> dict[str, Any]:
    """Measure one split: every figure with its interval, ready for JSON.

    Args:
        predictions: of N images and K classes.
        majority: the commonest class of the TRAINING images, for the baseline; `None` where it is not known.
        groups: one name for each image ("" for none), where images of one subject are not independent.
        seed: of the bootstraps.

    Returns:
        `n`, `classes`, `metrics` (accuracy, balanced_accuracy, macro_f1, log_loss, top_5 or top_2, ece), `per_class`,
        `confusion` (row = true), `reliability`, `baseline`, `pairs` and `mistakes`; classes go by name.

    Raises:
        DataError: a logit is not finite, groups are not as many as images, or `majority` is no class.
    """
    targets, predicted, classes = predictions.targets, predictions.predicted, predictions.classes
    _check(predictions, majority, groups)
    logits, k = predictions.logits.astype(np.float64), len(classes)
    confidence = metrics.softmax(logits).max(axis=1)
    figures = {
        "accuracy": metrics.accuracy(targets, predicted, groups=groups),
        "balanced_accuracy": metrics.balanced_accuracy(targets, predicted, k, groups=groups, seed=seed),
        "macro_f1": metrics.macro_f1(targets, predicted, k, groups=groups, seed=seed),
        **confidence_figures(logits, targets, groups, seed=seed),
    }
    if k >= 3:
        top = 5 if k > 5 else 2  # the five likeliest of five are all
        figures[f"top_{top}"] = metrics.top_k(logits, targets, top, groups=groups)
    table = metrics.confusion_matrix(targets, predicted, k)
    blind = metrics.baseline(targets, predicted, majority, groups=groups)
    scores = metrics.per_class(targets, predicted, k, groups=groups)
    return {
        "n": len(predictions),
        "classes": list(classes),
        "metrics": {name: estimate.to_json() for name, estimate in figures.items()},
        "per_class": [{"name": name, **_plain(score)} for name, score in zip(classes, scores, strict=True)],
        "confusion": table.tolist(),
        "reliability": [
            _plain(row) for row in calibration.reliability(confidence, targets == predicted, groups=groups)
        ],
        "baseline": {"class": None if majority is None else classes[majority], **_plain(blind)},
        "pairs": [_plain(pair) for pair in mistakes.confused_pairs(table, classes)],
        "mistakes": [_plain(mistake) for mistake in mistakes.worst_mistakes(predictions)],
    }


def confidence_figures(
    logits: NDArray[np.floating], targets: Integers, groups: Groups, *, seed: int = 0
) -> dict[str, Estimate]:
    """`log_loss` and `ece`, the figures that a temperature changes, of logits [N, K]."""
    sure, right = metrics.softmax(logits).max(axis=1), logits.argmax(axis=1) == targets
    return {
        "log_loss": metrics.log_loss(logits, targets, groups=groups, seed=seed),
        "ece": calibration.expected_calibration_error(sure, right, groups=groups, seed=seed),
    }


def uncalibrated(answers: Answers) -> dict[str, Any]:
    """`confidence_figures` of answers as the network gave them, without their temperature, for JSON."""
    raw = {name: values for name, values in answers.arrays.items() if name != "temperature"}
    plain = Predictions.of(dataclasses.replace(answers, arrays=raw))
    found = confidence_figures(plain.logits, plain.targets, answers.groups)
    return {name: estimate.to_json() for name, estimate in found.items()}


def quick(logits: NDArray[np.floating], targets: Integers) -> dict[str, float]:
    """Accuracy and log loss without intervals, for a look during training.

    A row that is not finite counts as wrong and makes the loss NaN: nothing is raised, because judging a diverged
    training is the loop's business.

    Args:
        logits: [N, K], N > 0.
        targets: int [N].
    """
    finite = np.isfinite(logits).all(axis=1)
    loss = metrics.losses(logits, targets).mean() if finite.all() else np.nan
    return {"accuracy": float(np.mean(finite & (logits.argmax(axis=1) == targets))), "log_loss": float(loss)}


def _check(predictions: Predictions, majority: int | None, groups: Groups) -> None:
    broken = np.flatnonzero(~np.isfinite(predictions.logits).all(axis=1))
    if len(broken):
        raise DataError(
            f"{len(broken)} of {len(predictions)} images of split {predictions.split!r} have logits that are not "
            f"finite, first {str(predictions.ids[broken[0]])!r}: the network's weights are broken.",
            mend="Train again with a lower learning rate.",
        )
    if groups is not None and len(groups) != len(predictions):
        raise DataError(f"{len(groups)} groups were given for {len(predictions)} images; one for each is needed.")
    if majority is not None and not 0 <= majority < len(predictions.classes):
        raise DataError(f"The baseline's class is {majority}, but classes are 0 to {len(predictions.classes) - 1}.")


def _plain(record: Any) -> dict[str, Any]:
    """A dataclass as a dictionary of plain values, estimates included."""
    values = {item.name: getattr(record, item.name) for item in dataclasses.fields(record)}
    return {name: value.to_json() if isinstance(value, Record) else value for name, value in values.items()}
