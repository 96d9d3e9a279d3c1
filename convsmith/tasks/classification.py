"""Image classification: one class per image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convsmith import evaluation
from convsmith.batches import Batch
from convsmith.errors import UsageError
from convsmith.tasks.task import Arrays, Losses, Task

STRONGEST_FOCUS = 5.0  # the largest gamma that Lin et al. tried


def classification(
    label_smoothing: float = 0.0, class_weights: tuple[float, ...] | None = None, focal: float | None = None
) -> Task:
    """Cross-entropy over the classes, for labels int64 `[N]` or, where images were mixed, shares of classes `[N, K]`.

    With `class_weights` each image's loss is multiplied by the weight of its class, and the mean is taken over the sum
    of these weights, as torch's own weighted mean does: weights say how much a class counts, not how fast is learnt.

    With `focal` each image's loss is multiplied by (1 - p)^focal, p being the probability given to its true class: what
    is already known well counts little. The mean stays one over images (or their class weights).

    Args:
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).
        class_weights: one for each class, 0 or more; see `class_weights` for those of unequal classes.
        focal: the focusing parameter gamma, in (0, 5]; 2 is the paper's. None is off.

    Raises:
        UsageError: an option out of range; and at the first batch, weights that are not as many as the logits.

    Source: label smoothing, Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7; focal loss, Lin et
    al. 2017, "Focal loss for dense object detection", equation 5 (for K classes, by the softmax in place of the
    sigmoid).
    """
    _check(label_smoothing, class_weights, focal)
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    held: dict[torch.device, Tensor] = {}

    def losses(model: nn.Module, batch: Batch) -> Losses:
        logits, targets = model(batch.images).float(), batch.targets
        weight = None
        if weights is not None:
            _check_count(len(weights), logits.shape[1])
            weight = held.setdefault(logits.device, weights.to(logits.device))
        if focal is None:
            loss = F.cross_entropy(logits, targets, weight, label_smoothing=label_smoothing, reduction="sum")
        else:
            each = F.cross_entropy(logits, targets, weight, label_smoothing=label_smoothing, reduction="none")
            loss = (each * _doubt(logits, targets) ** focal).sum()
        yield "model", loss, len(targets) if weight is None else _weighed(weight, targets)

    return Task("classification", losses, predict, evaluation.score_classification, monitor)


def class_weights(counts: Sequence[int], *, exponent: float = 1.0) -> tuple[float, ...]:
    """Return weights that let small classes count as much as large ones: n^-exponent, 1 in the mean over all images.

    With N images, n_k of them in class k, the weight of class k is `N n_k^-e / sum_j n_j^(1 - e)`. At e = 1 that is
    N / (K n_k): every class counts alike. At e = 0 every image does, and all weights are 1.

    Args:
        counts: training images of each class. A class without any has the weight 1, which nothing is multiplied by.
        exponent: e in [0, 1]; one half is the compromise of Mahajan et al. 2018, "Exploring the limits of weakly
            supervised pretraining", section 2.2.

    Returns:
        one weight a class.

    Raises:
        UsageError: no images at all, or an exponent out of range.
    """
    if not 0 <= exponent <= 1:
        raise UsageError(f"The exponent of class weights is {exponent}, but must be in [0, 1].")
    if min(counts, default=0) < 0 or not any(counts):
        raise UsageError(f"Class weights were asked for {list(counts)} images a class, but there must be some.")
    total = sum(counts) / sum(count ** (1 - exponent) for count in counts if count)
    return tuple(total * count**-exponent if count else 1.0 for count in counts)


def predict(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """The logits, `[N, K]` float32."""
    return {"logits": model(batch.images).float()}


def monitor(arrays: Arrays) -> dict[str, float]:
    """Accuracy and log loss, without intervals."""
    return evaluation.quick(arrays["logits"], arrays["targets"])


def _doubt(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - p of the true class, at least 1e-6: at 0 the gradient of a power below 1 is infinite.

    Of mixed images p is what their classes are given, each by its share.
    """
    if targets.ndim == 2:
        return 1 - (logits.softmax(1) * targets).sum(1).clamp_max(1 - 1e-6)
    surprise = F.cross_entropy(logits, targets, reduction="none")
    return -torch.expm1(-surprise).clamp_max(-1e-6)


def _weighed(weights: Tensor, targets: Tensor) -> Tensor:
    """What the images of a batch count together; of a mixed one each class by its share."""
    return weights[targets].sum() if targets.ndim == 1 else (targets * weights).sum()


def _check(label_smoothing: float, weights: tuple[float, ...] | None, focal: float | None) -> None:
    if not 0 <= label_smoothing < 1:
        raise UsageError(f"label_smoothing is {label_smoothing}, but must be in [0, 1).")
    if focal is not None and not 0 < focal <= STRONGEST_FOCUS:
        raise UsageError(
            f"focal is {focal:g}, but gamma must be above 0 and at most {STRONGEST_FOCUS:g}.",
            mend="Use 2, or leave it out for plain cross-entropy.",
        )
    if weights is not None and not (all(math.isfinite(w) and w >= 0 for w in weights) and any(weights)):
        raise UsageError(f"class_weights are {weights}, but each must be 0 or more, and not all may be 0.")


def _check_count(weights: int, classes: int) -> None:
    if weights != classes:
        raise UsageError(
            f"There are {weights} class weights, but the network gives {classes} logits.",
            mend="Give one weight for each class.",
        )
