"""From weights that know other images to a network for these: a linear head, stage-wise rates, frozen parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ITERATIONS = 100
"""Of L-BFGS for one decay. Warm starts need fewer: on 1,002 features of 1,280 numbers it stops after 10 to 40."""
TOLERANCE = 1e-5


@dataclass(frozen=True)
class LinearHead:
    """A multinomial logistic regression, ready to be put into a linear layer.

    Args:
        weight: float32 `[K, D]`, for features as they come (their scaling is folded in).
        bias: float32 `[K]`.
        decay: the weight decay it was fitted with.
        losses: log loss on the tune features for each decay tried.
    """

    weight: Tensor
    bias: Tensor
    decay: float
    losses: Mapping[float, float]

    def __call__(self, features: Tensor) -> Tensor:
        """Logits `[N, K]` of features `[N, D]`."""
        return F.linear(features, self.weight, self.bias)


def fit_head(
    features: Tensor,
    targets: Tensor,
    classes: int,
    *,
    decays: Sequence[float],
    tune: tuple[Tensor, Tensor] | None = None,
    weights: Tensor | None = None,
) -> LinearHead:
    """Fit a linear head by L-BFGS, once for each decay, and keep the one with the least log loss on tune.

    The loss is the mean cross-entropy plus `decay / 2` times the squared weights, of features brought to mean 0 and,
    all by one factor, to a mean square of 1; so a decay means the same for every backbone. One factor for all,
    because features that vary more also tell more: bringing each to deviation 1 cost 2 to 3 points of accuracy on 5
    classes of flowers, and 0.04 to 0.07 of log loss (LOG.md). The bias does not decay. Decays are tried from strong
    to weak, each from the last one's solution.

    Args:
        features: float32 `[N, D]`.
        targets: int64 `[N]`.
        classes: K.
        decays: candidates, each above 0.
        tune: features and targets that choose; without them the strongest decay is taken.
        weights: float32 `[N]`, what each example weighs in the mean.

    Source: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
    section 4, which begins fine-tuning from such a head; L-BFGS: Liu & Nocedal 1989.
    """
    mean = features.mean(0)
    scaled = features - mean
    scale = 1 / scaled.square().mean().sqrt().clamp_min(1e-12)
    scaled = scaled * scale
    weight = torch.zeros(classes, features.shape[1], device=features.device)
    bias = torch.zeros(classes, device=features.device)
    best: tuple[float, float, Tensor, Tensor] | None = None
    losses: dict[float, float] = {}
    for decay in sorted(decays, reverse=True):
        _minimise(weight, bias, scaled, targets, decay, weights)
        own, offset = weight * scale, bias - (weight * scale) @ mean
        if tune is None:
            best = (0.0, decay, own, offset)
            break
        losses[decay] = F.cross_entropy(F.linear(tune[0], own, offset), tune[1]).item()
        if best is None or losses[decay] < best[0]:
            best = (losses[decay], decay, own, offset)
    assert best is not None
    return LinearHead(best[2], best[3], best[1], losses)


def scale_rates(optimizer: torch.optim.Optimizer, factors: Mapping[nn.Parameter, float]) -> None:
    """Give parameters their share of the optimiser's rate, before its first step; the highest rate comes first."""
    groups: list[dict[str, object]] = []
    for group in optimizer.param_groups:
        members: dict[float, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            members[factors.get(parameter, 1.0)].append(parameter)
        groups += [{**group, "params": own, "lr": group["lr"] * factor} for factor, own in members.items()]
    groups.sort(key=lambda group: -float(group["lr"]))  # type: ignore[arg-type]
    optimizer.param_groups[:] = groups


def norms(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules that keep running statistics, which frozen parts must not update."""
    return [module for module in modules if isinstance(module, nn.modules.batchnorm._NormBase)]


def _minimise(
    weight: Tensor, bias: Tensor, features: Tensor, targets: Tensor, decay: float, weights: Tensor | None
) -> None:
    """Move `weight` and `bias` in place to the minimum of the regularised loss."""
    weight.requires_grad_(True)
    bias.requires_grad_(True)
    total = weights.sum() if weights is not None else len(features)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, tolerance_grad=TOLERANCE, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        each = F.cross_entropy(F.linear(features, weight, bias), targets, reduction="none")
        value = (each if weights is None else each * weights).sum() / total + decay / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    weight.requires_grad_(False)
    bias.requires_grad_(False)
    weight.grad = bias.grad = None
