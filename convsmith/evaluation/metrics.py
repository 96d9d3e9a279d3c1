"""Figures of a classifier, each with its interval: pure functions of targets, predictions and logits.

Proportions (accuracy, recall, precision, top-k) carry Wilson intervals; means and ratios of several proportions a
bootstrap stratified by true class. What cannot be computed is undefined with a reason, never 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convsmith.errors import DataError
from convsmith.evaluation.intervals import (
    Floats,
    Groups,
    Integers,
    bootstrap,
    paired_difference,
    proportion,
    rescale,
    wilson,
)
from convsmith.records import Estimate


@dataclass(frozen=True)
class ClassScores:
    """One class: `n` images are of it, `predicted` were called it."""

    n: int
    predicted: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True)
class Baseline:
    """What one gets without looking: always the commonest class of the training images.

    `gain` is the network's accuracy less this one, on the same images.
    """

    accuracy: Estimate
    gain: Estimate


def log_softmax(logits: NDArray[np.floating]) -> Floats:
    """Logarithms of the probabilities, float64 [N, K], from logits [N, K]; exact where probabilities underflow."""
    shifted = logits - logits.max(axis=1, keepdims=True).astype(np.float64)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Probabilities, float64 [N, K], from logits [N, K]."""
    return np.exp(log_softmax(logits))


def losses(logits: NDArray[np.floating], targets: Integers) -> Floats:
    """Cross-entropy of each image in nats, float64 [N]."""
    return -log_softmax(logits)[np.arange(len(targets)), targets]


def confusion_matrix(targets: Integers, predicted: Integers, classes: int) -> Integers:
    """Counts [K, K]; a row is a true class, a column what it was called."""
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def accuracy(targets: Integers, predicted: Integers, *, groups: Groups = None) -> Estimate:
    """The share of images named rightly."""
    return proportion(targets == predicted, groups)


def top_k(logits: NDArray[np.floating], targets: Integers, k: int, *, groups: Groups = None) -> Estimate:
    """The share of images whose true class is among the `k` likeliest; equal logits rank by class, as `argmax` does."""
    if not 1 <= k <= logits.shape[1]:
        raise DataError(f"top_k: k is {k}, but there are {logits.shape[1]} classes.", mend="Use 1 to that number.")
    own = logits[np.arange(len(targets)), targets][:, None]
    before = np.arange(logits.shape[1]) < targets[:, None]
    rank = np.count_nonzero((logits > own) | ((logits == own) & before), axis=1)
    return proportion(rank < k, groups)


def log_loss(
    logits: NDArray[np.floating], targets: Integers, *, groups: Groups = None, repeats: int = 1000, seed: int = 0
) -> Estimate:
    """The mean cross-entropy in nats."""
    loss = losses(logits, targets)
    return bootstrap(lambda w: w @ loss / len(loss), targets, groups=groups, repeats=repeats, seed=seed)


def balanced_accuracy(
    targets: Integers, predicted: Integers, classes: int, *, groups: Groups = None, repeats: int = 1000, seed: int = 0
) -> Estimate:
    """The mean recall of the classes that have images, so that a rare class counts as much as a common one."""
    return _bootstrap_table(_mean_recall, targets, predicted, classes, groups, repeats, seed)


def macro_f1(
    targets: Integers, predicted: Integers, classes: int, *, groups: Groups = None, repeats: int = 1000, seed: int = 0
) -> Estimate:
    """The mean F1 of the classes that have images or were predicted."""
    return _bootstrap_table(_mean_f1, targets, predicted, classes, groups, repeats, seed)


def per_class(targets: Integers, predicted: Integers, classes: int, *, groups: Groups = None) -> list[ClassScores]:
    """Precision, recall and F1 of each class.

    F1 is an increasing function of one proportion: with J the share of true positives among the images that are of
    the class or were called so (Jaccard's index), F1 = 2 J / (1 + J). So it has a Wilson interval too, which holds its
    width for a class without mistakes, where a bootstrap has none.
    """
    right = targets == predicted
    if groups is None:
        table = confusion_matrix(targets, predicted, classes)
        rows = zip(table.diagonal().tolist(), table.sum(1).tolist(), table.sum(0).tolist(), strict=True)
        return [_class_scores(n, p, wilson(k, p), wilson(k, n), wilson(k, n + p - k)) for k, n, p in rows]
    names = np.asarray(groups, dtype=np.str_)
    scores = []
    for label in range(classes):
        own, called = targets == label, predicted == label
        shares = (proportion(right[mask], names[mask]) for mask in (called, own, own | called))
        scores.append(_class_scores(int(own.sum()), int(called.sum()), *shares))
    return scores


def baseline(targets: Integers, predicted: Integers, majority: int | None, *, groups: Groups = None) -> Baseline:
    """Compare with always answering `majority`, the commonest class of the training images (never of these)."""
    if majority is None:
        unknown = Estimate.undefined("the commonest class of the training images is not known", n=len(targets))
        return Baseline(unknown, unknown)
    blind = targets == majority
    return Baseline(proportion(blind, groups), paired_difference(targets == predicted, blind, groups))


def _class_scores(n: int, predicted: int, precision: Estimate, recall: Estimate, jaccard: Estimate) -> ClassScores:
    def f1(share: float) -> float:
        return 2 * share / (1 + share)

    absent = Estimate.undefined("no image of this class")
    return ClassScores(
        n=n,
        predicted=predicted,
        precision=precision if predicted else Estimate.undefined("this class was never predicted"),
        recall=recall if n else absent,
        f1=rescale(jaccard, f1, f"{jaccard.method}, of Jaccard's index") if n or predicted else absent,
    )


class _Cells:
    """The non-empty cells of a confusion matrix, and the sums over them that recall and F1 are made of."""

    def __init__(self, true: Integers, predicted: Integers, classes: int) -> None:
        self.true, self.predicted, self.classes = true, predicted, classes
        self.right = np.flatnonzero(true == predicted)

    def totals(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Images of each class, called each class, and both: three [R, K] from cell weights [R, U]."""
        right = self._sums(weights[:, self.right], self.true[self.right])
        return self._sums(weights, self.true), self._sums(weights, self.predicted), right

    def _sums(self, weights: Floats, labels: Integers) -> Floats:
        sums = np.zeros((len(weights), self.classes))
        if len(labels):
            order = np.argsort(labels, kind="stable")
            starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
            sums[:, labels[order][starts]] = np.add.reduceat(weights[:, order], starts, axis=1)
        return sums


def _mean_recall(true: Floats, predicted: Floats, right: Floats) -> Floats:
    return _mean_ratio(right, true)


def _mean_f1(true: Floats, predicted: Floats, right: Floats) -> Floats:
    return _mean_ratio(2 * right, true + predicted)


def _mean_ratio(above: Floats, below: Floats) -> Floats:
    ratios = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return ratios.sum(axis=1) / np.count_nonzero(below, axis=1)


def _bootstrap_table(
    figure: Callable[[Floats, Floats, Floats], Floats],
    targets: Integers,
    predicted: Integers,
    classes: int,
    groups: Groups,
    repeats: int,
    seed: int,
) -> Estimate:
    """Bootstrap a function of the confusion matrix.

    Two right and two mistaken images, spread over the classes as the images are, are added to what is drawn from: the
    "plus four" of Agresti & Coull 1998 for proportions, so that a matrix without mistakes still varies. A class's
    imagined mistake goes to the next class of those present, which gives every class as many as it takes.
    """
    if groups is not None:
        cells = _Cells(targets, predicted, classes)
        return bootstrap(
            lambda w: figure(*cells.totals(w)), targets, groups=groups, repeats=repeats, seed=seed, bounds=(0.0, 1.0)
        )
    images = np.bincount(targets, minlength=classes)
    present = np.flatnonzero(images)
    share = 2 * images[present] / max(1, len(targets))
    seen, counts = np.unique(targets * classes + predicted, return_counts=True)
    imagined = np.concatenate([present * classes + present, present * classes + np.roll(present, -1)])
    keys = np.union1d(seen, imagined)
    observed, prior = np.zeros(len(keys), np.int64), np.zeros(len(keys))
    observed[np.searchsorted(keys, seen)] = counts
    np.add.at(prior, np.searchsorted(keys, imagined), np.tile(share, 2))
    true, called = (part.astype(np.int64) for part in np.divmod(keys, classes))
    cells = _Cells(true, called, classes)
    return bootstrap(
        lambda w: figure(*cells.totals(w)),
        cells.true,
        counts=observed,
        prior=prior,
        repeats=repeats,
        seed=seed,
        bounds=(0.0, 1.0),
    )
