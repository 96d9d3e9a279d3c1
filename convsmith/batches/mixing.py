"""Operations that put part of another image into an image, and the same part of its label into its label.

The other image stands within the same group of eight consecutive positions of the epoch's order (see `order`), so
that whichever process holds the one holds the other, and results do not depend on how many processes share a batch.
An image whose partner is not there, because the last group is short, stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from convsmith.batches.operation import Parameters, beside, check_number, in_float
from convsmith.batches.order import GROUP
from convsmith.batches.philox import Keys
from convsmith.errors import UsageError

STRONGEST = 10.0  # of alpha: from there on nearly all shares are one half


@dataclass(frozen=True)
class MixUp:
    """Blends each image with its partner, and their labels alike: `(1 - s) x + s x'`, `(1 - s) y + s y'`.

    The share s is drawn from Beta(alpha, alpha) for each image, and 1 - s taken in place of an s above one half: the
    two come up equally often, and an image stays the larger part of itself.

    Args:
        alpha: in (0, 10]; 0.2 makes most shares small, 1 all equally likely.
        p: the share of images that are blended at all.

    Source: Zhang et al. 2018, "mixup: Beyond empirical risk minimization", equation 1. There one share holds for a
    whole batch; here each image has its own, which needs no more time.
    """

    name: ClassVar[str] = "mixup"
    mixes: ClassVar[bool] = True
    alpha: float = 0.2
    p: float = 1.0

    def __post_init__(self) -> None:
        _check(self.name, self.alpha, self.p)

    def draw(self, keys: Keys) -> Parameters:
        """Return `share` of the partner, in [0, 0.5], and `partner`, see `_partners`."""
        draws = keys.uniform(self.name, 2)
        share = _beta(self.alpha, draws[:, 1])
        return {"share": np.minimum(share, 1 - share) * (draws[:, 0] < self.p), **_partners(keys, self.name)}

    def apply(self, images: Tensor, targets: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Return float32 images and the blended shares of classes.

        Raises:
            UsageError: targets are masks, whose classes cannot be blended.
        """
        if targets.ndim > 2:
            raise UsageError("MixUp blends labels, but these targets are masks.", mend="Use CutMix, or leave it out.")
        other, alone = _others(parameters, len(images))
        images = in_float(images)
        share = beside(np.where(alone, 0.0, parameters["share"]), images).to(images.dtype)
        index = beside(other, images)
        blended = torch.lerp(images, images[index], share.view(-1, 1, 1, 1))
        return blended, torch.lerp(targets, targets[index.to(targets.device)], share.to(targets)[:, None])


@dataclass(frozen=True)
class CutMix:
    """Covers a rectangle of each image with the same rectangle of its partner; labels mix by the area covered.

    The rectangle has the image's proportions and an area drawn from Beta(alpha, alpha); its centre is anywhere in the
    image, and what lies outside is cut off. Masks are covered as the images are.

    Args:
        alpha: in (0, 10]; at 1 all areas are equally likely.
        p: the share of images that are covered at all.

    Source: Yun et al. 2019, "CutMix: Regularization strategy to train strong classifiers with localizable features",
    equations 1 and 2. There one rectangle holds for a whole batch; here each image has its own.
    """

    name: ClassVar[str] = "cutmix"
    mixes: ClassVar[bool] = True
    alpha: float = 1.0
    p: float = 0.5

    def __post_init__(self) -> None:
        _check(self.name, self.alpha, self.p)

    def draw(self, keys: Keys) -> Parameters:
        """Return `box` `[N, 4]` (top, left, bottom, right as shares of the sides) and `partner`, see `_partners`."""
        draws = keys.uniform(self.name, 4)
        half = np.sqrt(_beta(self.alpha, draws[:, 1]))[:, None] / 2
        box = np.clip(np.concatenate([draws[:, 2:4] - half, draws[:, 2:4] + half], axis=1), 0, 1)
        return {"box": box * (draws[:, :1] < self.p), **_partners(keys, self.name)}

    def apply(self, images: Tensor, targets: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Return images of the type given, and shares of classes or masks."""
        other, alone = _others(parameters, len(images))
        height, width = images.shape[-2:]
        box = np.rint(parameters["box"] * [height, width, height, width])
        box[alone] = 0
        rows, columns = (
            (np.arange(side) >= box[:, axis, None]) & (np.arange(side) < box[:, axis + 2, None])
            for axis, side in enumerate((height, width))
        )
        index = beside(other, images)
        covered = beside(rows, images)[:, :, None] & beside(columns, images)[:, None, :]
        mixed = torch.where(covered[:, None], images[index], images)
        if targets.ndim > 2:
            return mixed, torch.where(covered.to(targets.device), targets[index.to(targets.device)], targets)
        share = beside((rows.mean(1) * columns.mean(1)).astype(np.float32), targets)[:, None].to(targets)
        return mixed, torch.lerp(targets, targets[index.to(targets.device)], share)


def shares(targets: Tensor, classes: int) -> Tensor:
    """Labels int64 `[N]` as shares of classes, float32 `[N, K]`, one of which is 1."""
    return torch.nn.functional.one_hot(targets, classes).to(torch.float32)


def _check(name: str, alpha: float, p: float) -> None:
    check_number(name, "p", p, 0, 1)
    if not 0 < alpha <= STRONGEST:
        raise UsageError(f"{name}: alpha is {alpha}, but must be above 0 and at most {STRONGEST:g}.")


def _beta(alpha: float, draws: np.ndarray) -> np.ndarray:
    """Turn draws from [0, 1) into ones from Beta(alpha, alpha)."""
    from scipy.special import betaincinv  # which looking at data need not wait for

    return betaincinv(alpha, alpha, draws)


def _partners(keys: Keys, name: str) -> Parameters:
    """Return `partner` int64 `[N, 2]`: the image's place within its group, and its partner's.

    All images of a group exchange by one number of 1 to 7, drawn for the group, that is added bit by bit to their
    places: the partner of an image's partner is the image, and each other place comes up equally often.
    """
    place = keys.values[:, 1] % GROUP
    groups = np.stack([keys.values[:, 0], keys.values[:, 1] - place], axis=1)
    exchange = 1 + np.floor(Keys(groups, keys.seed).uniform(f"{name} partner", 1)[:, 0] * (GROUP - 1)).astype(np.int64)
    return {"partner": np.stack([place, place ^ exchange], axis=1)}


def _others(parameters: Parameters, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's partner as an index into the batch, its own where there is none, and which have none."""
    place, partner = parameters["partner"].T
    index = np.arange(n)
    other = index - place + partner
    alone = (other < 0) | (other >= n)
    return np.where(alone, index, other), alone
