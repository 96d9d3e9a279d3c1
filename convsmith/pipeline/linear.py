"""A linear head on features of the data set's images: fitted to some of them, asked about others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convsmith.evaluation import Answers, Predictions, metrics
from convsmith.images import Dataset
from convsmith.recipe import Recipe
from convsmith.tasks import class_weights
from convsmith.training import LinearHead, fit_head


@dataclass(frozen=True)
class Features:
    """What a linear head is fitted on.

    Args:
        views: float32 `[V, N, D]`; the first view is the image as it is.
        names: of the views.
        says: what they are, in words.
        seconds: they took.
        rows: which of the data set's images these are, int64 `[N]`, rising; all of them where it is not given.
    """

    views: Tensor
    names: tuple[str, ...]
    says: str
    seconds: float
    rows: np.ndarray | None = None

    def known(self, indices: np.ndarray) -> np.ndarray:
        """Those of some images of the data set that have features."""
        return indices if self.rows is None else indices[np.isin(indices, self.rows)]

    def of(self, indices: np.ndarray) -> Tensor:
        """Float32 `[V, n, D]` of some images of the data set, all of which must have features."""
        return self.views[:, indices if self.rows is None else np.searchsorted(self.rows, indices)]


def fit(features: Features, dataset: Dataset, train: np.ndarray, recipe: Recipe, decays: Sequence[float]) -> LinearHead:
    """Fit a head to the images `train` with the recipe's weights of classes; of several decays, tune chooses one."""
    views = len(features.views)
    targets = torch.from_numpy(dataset.targets)
    tune = dataset.indices("tune")
    weights = None
    if recipe.train.balance != "none":
        counts = np.bincount(dataset.targets[train], minlength=len(dataset.classes)).tolist()
        weights = torch.tensor(class_weights(counts))[targets[train]].repeat(views)
    return fit_head(
        features.of(train).flatten(0, 1),
        targets[train].repeat(views),
        len(dataset.classes),
        decays=decays,
        tune=(features.of(tune)[0], targets[tune]) if len(decays) > 1 else None,
        weights=weights,
    )


def ask(head: LinearHead, features: Features, dataset: Dataset, indices: np.ndarray, role: str) -> Answers:
    """The head's logits for images of one role, from the view that is no mirror."""
    assert dataset.hashes is not None
    arrays = {
        "logits": head(features.of(indices)[0]).numpy(),
        "ids": np.array([dataset.ids[index] for index in indices], np.str_),
        "targets": dataset.targets[indices],
        "pixels": dataset.hashes[indices],
    }
    groups = tuple(dataset.groups[index] for index in indices)
    return Answers(arrays, dataset.classes, role, None, groups if any(groups) else None)


def figures(answers: Answers) -> dict[str, Any]:
    """Accuracy and log loss with their intervals; the other figures would take longer than fitting the head."""
    given = Predictions.of(answers)
    return {
        "accuracy": metrics.accuracy(given.targets, given.predicted, groups=answers.groups).to_json(),
        "log_loss": metrics.log_loss(given.logits.astype(np.float64), given.targets, groups=answers.groups).to_json(),
    }
