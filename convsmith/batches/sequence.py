"""Any iterable of images and targets, such as a `DataLoader`, in the place of `Batches`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized

from torch import Tensor

from convsmith.batches.batches import Batch
from convsmith.errors import UsageError


class Sequence:
    """Takes batches from an iterable, one pass an epoch.

    Its order is its own affair, so training can be resumed only where a pass begins.

    Args:
        iterable: yields `(images, targets)` and has a length.

    Raises:
        UsageError: it has no length, or yields fewer batches than that.
    """

    def __init__(self, iterable: Iterable[tuple[Tensor, Tensor]]) -> None:
        if not isinstance(iterable, Sized) or len(iterable) == 0:
            raise UsageError(
                f"A {type(iterable).__name__} was given as batches, but it has no length.",
                mend="Give a list, a DataLoader over a sized data set, or convsmith.batches.Batches.",
            )
        self._iterable: Iterable[tuple[Tensor, Tensor]] = iterable
        self._length = len(iterable)
        self._pass: Iterator[tuple[Tensor, Tensor]] = iter(())
        self._next = (-1, -1)
        self._position = 0

    def __len__(self) -> int:
        """Steps per epoch."""
        return self._length

    def at(self, epoch: int, step: int) -> Batch:
        """Return the next batch, which must be that of `step`; a pass begins at step 0."""
        if step == 0:
            self._pass, self._position = iter(self._iterable), 0
        elif self._next != (epoch, step):
            raise UsageError(
                f"Training stands at step {step} of epoch {epoch}, but an iterable is entered at its beginning.",
                mend="Save at the end of an epoch, or use convsmith.batches.Batches, which starts anywhere.",
            )
        try:
            images, targets = next(self._pass)
        except StopIteration:
            raise UsageError(f"The iterable gave {step} batches, but its length is {self._length}.") from None
        self._next = (epoch, step + 1)
        batch = Batch.of_images(images, targets, epoch=epoch, start=self._position)
        self._position += len(images)
        return batch
