"""Operations that change pixels where they are: colour, erasing; and the last step, normalisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from convsmith.batches.operation import Parameters, beside, between, check_number, check_range, in_float
from convsmith.batches.philox import Keys
from convsmith.errors import UsageError

Held = tuple[Tensor, Tensor]
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow converts to grey


@dataclass(frozen=True)
class Colour:
    """Changes brightness, then contrast, then saturation, in one pass over the pixels.

    Each factor f is uniform in [1 - strength, 1 + strength) and blends a picture with a poorer one, f x + (1 - f) poor:
    black for brightness, the picture's mean grey for contrast, its grey version for saturation (Haeberli & Voorhies
    1994, "Image processing by interpolation and extrapolation"; Pillow's `ImageEnhance`). All three are affine in the
    pixel, so they compose to one matrix and one offset per image. Differs from three calls of Pillow: values are not
    rounded or cut to [0, 255] in between, only cut at the end.

    Args:
        brightness, contrast, saturation: strengths in [0, 1]. Grey images have no saturation to change.
    """

    name: ClassVar[str] = "colour"
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2

    def __post_init__(self) -> None:
        for option in ("brightness", "contrast", "saturation"):
            check_number(self.name, option, getattr(self, option), 0, 1)

    def draw(self, keys: Keys) -> Parameters:
        draws = keys.uniform(self.name, 3)
        strengths = {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}
        return {name: between(draws[:, i], 1 - s, 1 + s) for i, (name, s) in enumerate(strengths.items())}

    def apply(self, images: Tensor, targets: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        brightness, contrast, saturation = parameters["brightness"], parameters["contrast"], parameters["saturation"]
        images = in_float(images)
        channels = images.shape[1]
        luma = LUMA[None] if channels == 3 else np.full((1, channels), 1 / channels)
        eye, grey = np.eye(channels), np.repeat(luma, channels, axis=0)
        blend = saturation[:, None, None] * eye + (1 - saturation)[:, None, None] * grey
        matrix = (brightness * contrast)[:, None, None] * blend
        # The mean grey is that of the brightened picture, and saturation leaves it: each row of `blend` sums to 1.
        towards_mean = (brightness * (1 - contrast))[:, None, None] * luma

        matrix, towards_mean = (beside(value, images).to(images.dtype) for value in (matrix, towards_mean))
        flat = images.flatten(2)
        offset = torch.bmm(towards_mean, flat.mean(2, keepdim=True))
        mixed = torch.addcmul(offset, flat, matrix) if channels == 1 else torch.baddbmm(offset, matrix, flat)
        return mixed.clamp_(0, 255).view(images.shape), targets


@dataclass(frozen=True)
class Erasing:
    """Covers a random rectangle with one colour, so that no single part of the object can be relied on. Masks stay.

    Args:
        p: the probability that an image is touched.
        area: the rectangle's share of the image, uniform between these.
        ratio: its height over its width in proportion to the image's own, log-uniform between these.
        fill: `random` is one uniform colour per image, `zero` is black.

    Source: Zhong et al. 2020 (2017), "Random erasing data augmentation", algorithm 1. Differs from it: one colour, not
    noise (a fixed, small number of draws); a log-uniform ratio; a rectangle that is too long is shortened
    rather than drawn again.
    """

    name: ClassVar[str] = "erasing"
    p: float = 0.5
    area: tuple[float, float] = (0.02, 0.4)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)
    fill: Literal["random", "zero"] = "random"

    def __post_init__(self) -> None:
        check_number(self.name, "p", self.p, 0, 1)
        check_range(self.name, "area", self.area, 0, 1)
        check_range(self.name, "ratio", self.ratio, 0.1, 10)
        if self.fill not in ("random", "zero"):
            raise UsageError(f"erasing: fill is {self.fill!r}.", mend="Known: random, zero.")

    def draw(self, keys: Keys) -> Parameters:
        draws = keys.uniform(self.name, 8)
        area = between(draws[:, 1], *self.area) * (draws[:, 0] < self.p)
        ratio = np.exp(between(draws[:, 2], *np.log(self.ratio)))
        height, width = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
        colour = np.floor(draws[:, 5:8] * 256) * (self.fill == "random")
        return {"size": np.stack([height, width]).T, "place": draws[:, 3:5], "colour": colour}

    def apply(self, images: Tensor, targets: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        channels, *sides = images.shape[1:]
        size = np.rint(parameters["size"] * sides)
        first = np.floor(parameters["place"] * (sides - size + 1))
        last = first + size
        rows, columns = (
            (place >= first[:, axis, None]) & (place < last[:, axis, None])
            for axis, place in enumerate(map(np.arange, sides))
        )
        colour = parameters["colour"][:, np.arange(channels) % 3]
        rows, columns, colour = (beside(value, images).to(images.dtype) for value in (rows, columns, colour))
        covered = rows[:, None, :, None] * columns[:, None, None, :]
        # x + (colour - x) covered: exact for uint8, whose differences wrap around and back, and in half the time of
        # torch.where, which is slow for masks that are broadcast.
        return (colour[:, :, None, None] - images).mul_(covered).add_(images), targets


@dataclass(frozen=True)
class Normalize:
    """Turns pixels of 0 to 255 into what a network takes: `(x / 255 - mean) / std`, float32.

    It is written x * (1 / (255 std)) - mean / std, one multiplication and one addition; the two calls below are
    twice as fast on the CPU as `torch.addcmul`.

    Args:
        mean, std: per channel, of pixels divided by 255.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    _held: dict[torch.device, Held] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(value > 0 for value in self.std):
            raise UsageError(f"mean is {self.mean} and std {self.std}, but each channel needs both, and a std above 0.")

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 `[N, C, H, W]` for uint8 (or float of the same range) images; they stay as they are."""
        if images.shape[1] != len(self.mean):
            raise UsageError(
                f"Images have {images.shape[1]} channels, but mean and std are given for {len(self.mean)}.",
                mend="Give one of each per channel.",
            )
        if images.device not in self._held:
            mean, std = np.array(self.mean), np.array(self.std)
            pair = (1 / (255 * std), -mean / std)
            scale, bias = (torch.tensor(v, dtype=torch.float32, device=images.device).view(-1, 1, 1) for v in pair)
            self._held[images.device] = (scale, bias)
        scale, bias = self._held[images.device]
        return (images * scale).add_(bias).to(torch.float32)
