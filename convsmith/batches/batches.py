"""Batches that can be asked for in any order: step 3,000 of epoch 7 costs as much as the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from convsmith.batches.order import GROUP, balanced, permutation, rank_span, span, steps_per_epoch
from convsmith.batches.philox import keys_of
from convsmith.errors import UsageError

Order = tuple[np.ndarray, Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images, what they should become, and where in the run they stand.

    Args:
        images: uint8 `[N, C, H, W]` as they come from the data; float32 once augmented and normalised.
        targets: `[N]` labels, `[N, H, W]` masks, or whatever the task takes, N first.
        keys: int64 `[N, 2]` on the CPU: epoch and position in the epoch's global order; all that draws depend on.
        indices: int64 `[N]` on the CPU: which images of the data these are.
        names: the ids of all images of the data, from which `ids` picks; they cost nothing until asked for.
        borrowed: whether these images belong to another process, and are here only so that one with none of its own
            can take part in the step; they must then weigh nothing.
    """

    images: Tensor
    targets: Tensor
    keys: np.ndarray
    indices: np.ndarray
    names: Sequence[str] = field(default=(), repr=False)
    borrowed: bool = False

    @classmethod
    def of_images(cls, images: Tensor, targets: Tensor | None = None, *, epoch: int = 0, start: int = 0) -> Self:
        """Wrap images that stand in no order of their own: `start` is the position of the first."""
        targets = targets if targets is not None else torch.empty(len(images), 0)
        return cls(images, targets, keys_of(epoch, start, start + len(images)), np.arange(start, start + len(images)))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of these images, gathered now."""
        return tuple([self.names[int(index)] for index in self.indices])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the batch with images and targets on `device`; keys and indices stay where draws are made."""
        if self.images.device == device and self.targets.device == device:
            return self
        images = self.images.to(device, non_blocking=non_blocking)
        return replace(self, images=images, targets=self.targets.to(device, non_blocking=non_blocking))


class Batches:
    """Shares images out into batches, as a pure function of (seed, epoch, step, rank, world).

    Why not a data loader: images that are decoded and cached need no workers, and a loader cannot be asked for step
    3,000, so resuming would replay 2,999. A memory-mapped cache is read from disk as batches are asked for.

    Args:
        images: uint8 `[N, C, H, W]`, a tensor or a numpy array (a memory map too). Tensors are gathered where they are:
            keep them on the GPU and batches come from there.
        targets: N first; a numpy array becomes a tensor that shares its memory.
        ids: one for each image, stable between runs.
        batch_size: images per step over all processes; a multiple of eight (see `order.steps_per_epoch`).
        seed: of the order; in [0, 2^64).
        shuffle: whether each epoch has an order of its own; otherwise all follow the data.
        rank, world: which process of how many this is.
        weights: float `[N]`, how often each image is to be seen in proportion to the others, for classes of unequal
            size (see `order.balanced`); an epoch keeps its N images. None sees each once.

    Raises:
        UsageError: lengths, types, batch size, rank or weights that do not fit.
    """

    def __init__(
        self,
        images: Tensor | np.ndarray,
        targets: Tensor | np.ndarray,
        ids: Sequence[str],
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        weights: np.ndarray | None = None,
    ) -> None:
        _check(images, targets, ids)
        if weights is not None:
            _check_weights(weights, len(images), shuffle)
        rank_span(0, 0, rank, world)
        self.images, self.ids = images, ids
        self.targets = torch.from_numpy(targets) if isinstance(targets, np.ndarray) else targets
        self.batch_size, self.seed, self.shuffle, self.rank, self.world = batch_size, seed, shuffle, rank, world
        self.weights = weights
        self._steps = steps_per_epoch(len(images), batch_size)
        self._order: tuple[int, Order] | None = None

    def __len__(self) -> int:
        """Steps per epoch."""
        return self._steps

    def at(self, epoch: int, step: int) -> Batch:
        """Return this process's share of a step; where it has none, it borrows the first group of another process.

        Args:
            epoch: from 0.
            step: within the epoch, in `[0, len(self))`.
        """
        begin, end = span(step, len(self.images), self.batch_size)
        start, stop = rank_span(begin, end, self.rank, self.world)
        if borrowed := start == stop:
            start, stop = begin, min(begin + GROUP, end)
        indices, positions = self.order(epoch)
        indices, positions = indices[start:stop], positions[start:stop]
        if isinstance(self.images, np.ndarray):
            images = torch.from_numpy(np.asarray(self.images.take(indices, axis=0)))
        else:
            images = self.images.index_select(0, positions)
        targets = self.targets.index_select(0, positions.to(self.targets.device))
        return Batch(images, targets, keys_of(epoch, start, stop), indices, self.ids, borrowed)

    def order(self, epoch: int) -> Order:
        """Return the epoch's global order, on the CPU and where the images are; kept until another epoch is asked for.

        The copy beside the images spares a transfer at each step.
        """
        held = self._order
        if held is not None and (held[0] == epoch or not self.shuffle):
            return held[1]
        n = len(self.images)
        if self.weights is not None:
            classes = _classes(self.targets, self.weights)
            indices = balanced(self.weights, classes, seed=self.seed, epoch=epoch)
        else:
            indices = permutation(n, seed=self.seed, epoch=epoch) if self.shuffle else np.arange(n)
        device = self.images.device if isinstance(self.images, Tensor) else "cpu"
        order = (indices, torch.from_numpy(indices).to(device))
        self._order = (epoch, order)
        return order


def _classes(targets: Tensor, weights: np.ndarray) -> np.ndarray:
    """Which images belong together when they are drawn by weight: equal labels, or equal weights without labels."""
    return targets.cpu().numpy() if targets.ndim == 1 else np.unique(weights, return_inverse=True)[1]


def _check_weights(weights: np.ndarray, n: int, shuffle: bool) -> None:
    valid = weights.shape == (n,) and np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0
    if not valid:
        raise UsageError(
            f"The weights of {n} images are {weights.dtype} of shape {weights.shape}, but each image needs one number "
            "from 0, and not all may be 0."
        )
    if not shuffle:
        raise UsageError("Images are drawn by weight, so they cannot come in their own order.", mend="Shuffle them.")


def _check(images: Tensor | np.ndarray, targets: Tensor | np.ndarray, ids: Sequence[str]) -> None:
    if images.ndim != 4 or images.dtype not in (torch.uint8, np.uint8):
        raise UsageError(
            f"Images are {images.dtype} of shape {tuple(images.shape)}, but must be uint8 [N, C, H, W].",
            mend="Convert them to uint8 and put the channel axis second.",
        )
    if not len(images) == len(targets) == len(ids):
        raise UsageError(
            f"There are {len(images)} images, {len(targets)} targets and {len(ids)} ids, but each image has one each.",
            mend="Select all three by the same indices.",
        )
