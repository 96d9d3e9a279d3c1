"""What a task is: how it loses, how it predicts, how its predictions are scored. The loop knows nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from convsmith.batches import Batch
from convsmith.evaluation import Answers

Losses = Iterator[tuple[str, Tensor, "int | Tensor"]]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """One kind of work for a network.

    Args:
        name: what the manifest stores.
        losses: `(model, batch)` yields `(parameter_group, loss_sum, true_count)` in the order of the updates. The loop
            updates that group before it asks for the next, so a second loss sees the new weights. `loss_sum` is a
            scalar tensor, summed over the examples (images, pixels, boxes) of which `true_count` were counted.
        predict: `(model, batch)` returns arrays by name, each with the image first. It runs in inference mode.
        score: `(answers)` returns the record of one split: at least `n` and `metrics`, estimates by name as JSON;
            the first of them leads the report.
        monitor: `(arrays)` returns plain numbers by name, cheap enough to be called during training.
    """

    name: str
    losses: Callable[[nn.Module, Batch], Losses]
    predict: Callable[[nn.Module, Batch], Mapping[str, Tensor]]
    score: Callable[[Answers], dict[str, Any]]
    monitor: Callable[[Arrays], dict[str, float]]
