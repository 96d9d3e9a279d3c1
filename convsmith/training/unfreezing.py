"""Parts of a network that wait before they learn: thawed one after another as training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class Thaw:
    """A part of a network that is not trained before its time.

    Args:
        at: the share of all steps from which on it is trained, in [0, 1).
        parameters: those that wait. They cost no gradient work while nothing nearer to the image is trained.
        norms: modules that keep their running statistics meanwhile, and gather them afterwards.

    Source: gradual unfreezing, Howard & Ruder 2018, "Universal language model fine-tuning for text classification",
    section 3.3: from the last layers to the first, so that what the early ones know is not lost to a head that knows
    nothing yet.
    """

    at: float
    parameters: tuple[nn.Parameter, ...]
    norms: tuple[nn.Module, ...] = ()


def thaw(parts: Sequence[Thaw], step: int, total: int) -> None:
    """Freeze each part whose time has not come at `step` of `total`, and thaw the others; a function of these alone.

    A gradient from before is dropped, so that an optimiser passes over what is frozen, decay included.
    """
    for part in parts:
        trained = step >= part.at * total
        for parameter in part.parameters:
            if parameter.requires_grad != trained:
                parameter.requires_grad_(trained)
                parameter.grad = None
        for norm in part.norms:
            if norm.training != trained:
                norm.train(trained)


def separate(optimizer: torch.optim.Optimizer, parts: Sequence[Thaw]) -> None:
    """Give what thaws together groups of its own, before the optimiser's first step.

    torch's fused SGD cannot begin the momentum of one parameter beside that of others of its group (2.14).
    """
    part_of = {parameter: number for number, part in enumerate(parts) for parameter in part.parameters}
    groups = []
    for group in optimizer.param_groups:
        for number in (None, *range(len(parts))):
            own = [parameter for parameter in group["params"] if part_of.get(parameter) == number]
            groups += [{**group, "params": own}] if own else []
    optimizer.param_groups[:] = groups
