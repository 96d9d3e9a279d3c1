"""Optimisers by name. Weight decay is never applied to norms and biases, which are the parameters of one dimension."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from convsmith.registry import Entry, Registry

NamedParameters = Iterable[tuple[str, nn.Parameter]]


def sgd(
    named_parameters: NamedParameters,
    rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    nesterov: bool = True,
) -> torch.optim.SGD:
    """Stochastic gradient descent with Nesterov momentum.

    Args:
        rate: peak learning rate.
        momentum: share of the last update kept, in [0, 1).
        weight_decay: L2 penalty added to the gradient of weights (coupled to the rate, as in the papers that use SGD).

    Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning".
    """
    groups = decay_groups(named_parameters, weight_decay)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=nesterov and momentum > 0, fused=True)


def adamw(
    named_parameters: NamedParameters,
    rate: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    weight_decay: float = 0.05,
) -> torch.optim.AdamW:
    """Adam with decoupled weight decay.

    Args:
        rate: peak learning rate.
        beta1, beta2: decay of the running means of the gradient and of its square, in [0, 1).
        weight_decay: share of the weight removed a step, times the rate.

    Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".
    """
    return torch.optim.AdamW(decay_groups(named_parameters, weight_decay), lr=rate, betas=(beta1, beta2), fused=True)


OPTIMIZERS = Registry(
    "optimiser",
    [
        Entry("sgd", sgd, "momentum SGD, Nesterov's form", "Sutskever et al. 2013"),
        Entry("adamw", adamw, "Adam with decoupled weight decay", "Loshchilov & Hutter 2019"),
    ],
)


def decay_groups(named_parameters: NamedParameters, weight_decay: float) -> list[dict[str, object]]:
    """Split trainable parameters into those that decay (two dimensions and more) and those that do not."""
    parameters = [parameter for _, parameter in named_parameters if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
