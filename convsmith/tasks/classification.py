"""Image classification: one class per image."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from convsmith import evaluation
from convsmith.batches import Batch
from convsmith.tasks.task import Arrays, Losses, Task


def classification(label_smoothing: float = 0.0) -> Task:
    """Cross-entropy over the classes.

    Args:
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).

    Source: label smoothing, Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """

    def losses(model: nn.Module, batch: Batch) -> Losses:
        logits = model(batch.images).float()
        loss = F.cross_entropy(logits, batch.targets, label_smoothing=label_smoothing, reduction="sum")
        yield "model", loss, len(batch.targets)

    return Task("classification", losses, predict, evaluation.score_classification, monitor)


def predict(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """The logits, `[N, K]` float32."""
    return {"logits": model(batch.images).float()}


def monitor(arrays: Arrays) -> dict[str, float]:
    """Accuracy and log loss, without intervals."""
    return evaluation.quick(arrays["logits"], arrays["targets"])
