"""What an augmentation is: the plug-in point that every operation, ours or a third party's, fulfils."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from convsmith.batches.philox import Keys
from convsmith.errors import UsageError

Parameters = dict[str, np.ndarray]


class Operation(Protocol):
    """A random change of images in two halves: what will be done, and the doing of it.

    The halves are apart so that the first can be made for many steps at once on the CPU, be logged, and be equal
    between processes, while the second is a pure function that runs on any device.

    Write one as a frozen dataclass whose fields are the options, and draw from `keys.uniform(self.name, count)` only.
    """

    name: ClassVar[str]

    def draw(self, keys: Keys) -> Parameters:
        """Return the parameters of each image, arrays `[N, ...]` that depend on the image's own key alone."""
        ...

    def apply(self, images: Tensor, targets: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Return changed images and targets; the given ones stay as they are.

        Args:
            images: `[N, C, H, W]`, uint8, or float in the same range of 0 to 255. The result has this shape, and is
                uint8 or float; operations that compute new values return float32 for uint8.
            targets: `[N]` labels, `[N, K]` shares of classes, or `[N, H, W]` masks. An operation that mixes images has
                a class attribute `mixes = True`, and then sees labels as shares.
            parameters: from `draw`.
        """
        ...


def in_float(images: Tensor) -> Tensor:
    """Return floating images as they are and uint8 as float32."""
    return images if images.is_floating_point() else images.to(torch.float32)


def beside(array: np.ndarray, images: Tensor) -> Tensor:
    """Return parameters as a tensor on the images' device."""
    tensor = torch.from_numpy(array)
    return tensor if images.device.type == "cpu" else tensor.to(images.device, non_blocking=True)


def between(draws: np.ndarray, low: float, high: float) -> np.ndarray:
    """Stretch draws from [0, 1) to [low, high)."""
    return low + (high - low) * draws


def check_range(operation: str, option: str, value: tuple[float, float], least: float, most: float) -> None:
    """Raise `UsageError` where a (low, high) option is not two ordered numbers in [least, most]."""
    if len(value) != 2 or not least <= value[0] <= value[1] <= most:
        raise UsageError(
            f"{operation}: {option} is {value}, but must be low and high with {least:g} <= low <= high <= {most:g}."
        )


def check_number(operation: str, option: str, value: float, least: float, most: float) -> None:
    """Raise `UsageError` where a numeric option is not in [least, most]."""
    if not least <= value <= most:
        raise UsageError(f"{operation}: {option} is {value}, but must be in [{least:g}, {most:g}].")
