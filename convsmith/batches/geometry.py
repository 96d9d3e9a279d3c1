"""Operations that move pixels: however many are asked for, they become one matrix per image and one resampling.

Resampling blurs, and doing it once per operation blurs again and again; composing the matrices first does it once. And
where the configured operations move by whole pixels only, nothing is interpolated: rows are copied, so that every
pixel of the result is a pixel of the image, bit for bit, at a third of the time.

A motion's matrix maps places in the RESULT to places in the IMAGE, in pixels from the centre of a picture, x before y:
`[x_image, y_image] = matrix @ [x_result, y_result, 1]`. That is the direction in which pixels are looked up.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convsmith.batches.operation import Parameters, beside, between, check_number, check_range, in_float
from convsmith.batches.philox import Keys
from convsmith.errors import UsageError

Border = Literal["reflect", "zero", "replicate"]
PADDING: dict[Border, str] = {
    "reflect": "reflection",
    "zero": "zeros",
    "replicate": "border",
}  # as grid_sample calls them


class Motion(ABC):
    """An operation that moves pixels. Masks `[N, H, W]` among the targets move with their images, to the nearest pixel.

    A motion may have a field `border`: what lies beyond the picture. `reflect` mirrors at the outermost pixels (which
    are not repeated), `zero` is black, `replicate` repeats them.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = False  # whether it mirrors and moves by whole pixels only

    @abstractmethod
    def draw(self, keys: Keys) -> Parameters:
        """Return the parameters of each image."""

    @abstractmethod
    def matrix(self, parameters: Parameters, height: int, width: int) -> np.ndarray:
        """Return float64 `[N, 2, 3]` from the result to the image, in pixels from the centre."""

    @property
    def reach(self) -> int:
        """By how many pixels an exact motion moves at most."""
        return 0

    def apply(self, images: Tensor, targets: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Move the images by this motion alone; see `Geometry` for several in one."""
        geometry = Geometry((self,), *images.shape[-2:])
        return geometry.apply(images, targets, geometry.compose([parameters]))


@dataclass(frozen=True)
class Shift(Motion):
    """Moves by whole pixels, each of the (2 pixels + 1)^2 places being equally likely.

    Args:
        pixels: the furthest it moves along each axis; below the smaller side of the images.
        border: what comes in at the sides.
    """

    name: ClassVar[str] = "shift"
    exact: ClassVar[bool] = True
    pixels: int = 1
    border: Border = "reflect"

    def __post_init__(self) -> None:
        check_number(self.name, "pixels", self.pixels, 0, 1024)
        if self.pixels != int(self.pixels):
            raise UsageError(f"shift: pixels is {self.pixels}, but must be a whole number.")
        _check_border(self.name, self.border)

    def draw(self, keys: Keys) -> Parameters:
        draws = keys.uniform(self.name, 2)
        moves = np.floor(draws * (2 * self.pixels + 1)) - self.pixels
        return {"right": moves[:, 0], "down": moves[:, 1]}

    def matrix(self, parameters: Parameters, height: int, width: int) -> np.ndarray:
        return matrices(1, 0, -parameters["right"], 0, 1, -parameters["down"])

    @property
    def reach(self) -> int:
        return int(self.pixels)


@dataclass(frozen=True)
class Flip(Motion):
    """Mirrors left and right with probability `p`. Wrong where direction carries meaning: digits, text, road signs."""

    name: ClassVar[str] = "flip"
    exact: ClassVar[bool] = True
    p: float = 0.5

    def __post_init__(self) -> None:
        check_number(self.name, "p", self.p, 0, 1)

    def draw(self, keys: Keys) -> Parameters:
        return {"flipped": keys.uniform(self.name, 1)[:, 0] < self.p}

    def matrix(self, parameters: Parameters, height: int, width: int) -> np.ndarray:
        return matrices(1.0 - 2.0 * parameters["flipped"], 0, 0, 0, 1, 0)


@dataclass(frozen=True)
class VerticalFlip(Motion):
    """Mirrors top and bottom with probability `p`: for pictures without an up, as under a microscope or from above."""

    name: ClassVar[str] = "vertical_flip"
    exact: ClassVar[bool] = True
    p: float = 0.5

    def __post_init__(self) -> None:
        check_number(self.name, "p", self.p, 0, 1)

    def draw(self, keys: Keys) -> Parameters:
        return {"flipped": keys.uniform(self.name, 1)[:, 0] < self.p}

    def matrix(self, parameters: Parameters, height: int, width: int) -> np.ndarray:
        return matrices(1, 0, 0, 0, 1.0 - 2.0 * parameters["flipped"], 0)


@dataclass(frozen=True)
class QuarterTurn(Motion):
    """Turns by a multiple of 90 degrees, counter-clockwise: for pictures without an up.

    No pixel is interpolated. Pictures that are not square take half turns only, in two of three cases, for a quarter
    turn would not fit.

    Args:
        p: the probability of a turn, by 90, 180 or 270 degrees alike; 0.75 makes all four places equally likely (and
            both places of a picture that is not square).
    """

    name: ClassVar[str] = "quarter_turn"
    exact: ClassVar[bool] = True
    p: float = 0.75

    def __post_init__(self) -> None:
        check_number(self.name, "p", self.p, 0, 1)

    def draw(self, keys: Keys) -> Parameters:
        draws = keys.uniform(self.name, 2)
        return {"turns": (draws[:, 0] < self.p) * (1 + np.floor(3 * draws[:, 1]).astype(np.int64))}

    def matrix(self, parameters: Parameters, height: int, width: int) -> np.ndarray:
        turns = fitting_turns(parameters["turns"], height, width)
        cosine, sine = np.array([1.0, 0.0, -1.0, 0.0])[turns], np.array([0.0, 1.0, 0.0, -1.0])[turns]
        return matrices(cosine, -sine, 0, sine, cosine, 0)


@dataclass(frozen=True)
class Rotation(Motion):
    """Turns about the centre by an angle that is uniform in [-degrees, degrees); positive is counter-clockwise."""

    name: ClassVar[str] = "rotation"
    degrees: float = 10.0
    border: Border = "reflect"

    def __post_init__(self) -> None:
        check_number(self.name, "degrees", self.degrees, 0, 180)
        _check_border(self.name, self.border)

    def draw(self, keys: Keys) -> Parameters:
        return {"degrees": between(keys.uniform(self.name, 1)[:, 0], -self.degrees, self.degrees)}

    def matrix(self, parameters: Parameters, height: int, width: int) -> np.ndarray:
        angle = np.deg2rad(parameters["degrees"])
        cosine, sine = np.cos(angle), np.sin(angle)
        return matrices(cosine, -sine, 0, sine, cosine, 0)


@dataclass(frozen=True)
class Zoom(Motion):
    """Enlarges (above 1) or shrinks (below 1) about the centre by a factor whose logarithm is uniform.

    There is no smoothing before shrinking, so below about 0.5 fine patterns alias.
    """

    name: ClassVar[str] = "zoom"
    factor: tuple[float, float] = (0.9, 1.1)
    border: Border = "reflect"

    def __post_init__(self) -> None:
        check_range(self.name, "factor", self.factor, 0.1, 10)
        _check_border(self.name, self.border)

    def draw(self, keys: Keys) -> Parameters:
        return {"factor": log_uniform(keys.uniform(self.name, 1)[:, 0], *self.factor)}

    def matrix(self, parameters: Parameters, height: int, width: int) -> np.ndarray:
        return matrices(1 / parameters["factor"], 0, 0, 0, 1 / parameters["factor"], 0)


@dataclass(frozen=True)
class Crop(Motion):
    """Cuts a random rectangle out and stretches it over the whole picture.

    Args:
        scale: its share of the area, uniform between these, in (0, 1].
        ratio: its width over its height in proportion to the picture's own, log-uniform between these.
        size: side of the result in pixels, for square pictures; None leaves it the picture's own. Crops show things
            larger than the whole picture does, so a network that is trained on crops of 224 px sees them alike in whole
            pictures of 256 to 288 px (Touvron et al. 2019, "Fixing the train-test resolution discrepancy").

    Source: Szegedy et al. 2015, "Going deeper with convolutions", section 6. Differs from torchvision's: a rectangle
    that is too long is shortened rather than drawn again (a draw has a fixed number of random numbers); the ratio is
    measured against the picture's, so that 1 never distorts; places are not rounded to whole pixels.
    """

    name: ClassVar[str] = "crop"
    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    size: int | None = None

    def __post_init__(self) -> None:
        check_range(self.name, "scale", self.scale, 0.01, 1)
        check_range(self.name, "ratio", self.ratio, 0.1, 10)
        if self.size is not None:
            check_number(self.name, "size", self.size, 1, 16_384)

    def draw(self, keys: Keys) -> Parameters:
        draws = keys.uniform(self.name, 4)
        area, ratio = between(draws[:, 0], *self.scale), log_uniform(draws[:, 1], *self.ratio)
        width, height = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
        x, y = (1 - width) * (draws[:, 2] - 0.5), (1 - height) * (draws[:, 3] - 0.5)
        return {"width": width, "height": height, "x": x, "y": y}

    def matrix(self, parameters: Parameters, height: int, width: int) -> np.ndarray:
        x, y = parameters["x"] * width, parameters["y"] * height
        return matrices(parameters["width"], 0, x, 0, parameters["height"], y)


class Geometry:
    """Several motions of pictures of one size as one operation, the first listed being done first.

    Its draws are those of its members, already composed: source rows and columns where all motions are exact, and
    matrices otherwise. Which of the two it is follows from the configuration, never from the numbers drawn.

    Args:
        motions: at least one.
        height, width: of the images, in pixels.

    Raises:
        UsageError: motions with different borders (there is one resampling, so there is one border), whole-pixel
            motions that reach across the whole picture, or a crop to a size of its own of pictures that are not square.
    """

    name: ClassVar[str] = "geometry"

    def __init__(self, motions: Sequence[Motion], height: int, width: int) -> None:
        self.motions, self.height, self.width = tuple(motions), height, width
        self.border: Border = shared_border(motions)
        self.exact = all(motion.exact for motion in motions)
        self.reach = sum(motion.reach for motion in motions)
        sizes = [motion.size for motion in motions if isinstance(motion, Crop) and motion.size is not None]
        self.output = (sizes[-1], sizes[-1]) if sizes else (height, width)
        turning = any(isinstance(motion, QuarterTurn) for motion in motions)
        self.mirrored = turning or any(isinstance(motion, Flip) for motion in motions)
        self.turned = turning and height == width
        if sizes and height != width:
            raise UsageError(
                f"crop: size is {sizes[-1]}, which is for square images, but these are {height}x{width}.",
                mend="Leave size out.",
            )
        if self.exact and self.reach >= min(height, width):
            raise UsageError(
                f"Images of {height}x{width} are shifted by up to {self.reach} pixels, which leaves nothing of them.",
                mend=f"Shift by at most {min(height, width) // 4} pixels.",
            )

    def draw(self, keys: Keys) -> Parameters:
        return self.compose([motion.draw(keys) for motion in self.motions])

    def compose(self, parameters: Sequence[Parameters]) -> Parameters:
        """Turn the parameters of each motion into those of the whole."""
        drawn = zip(self.motions, parameters, strict=True)
        whole, *others = [motion.matrix(values, self.height, self.width) for motion, values in drawn]
        for matrix in others:
            linear = whole[:, :, :2]
            whole = np.concatenate([linear @ matrix[:, :, :2], linear @ matrix[:, :, 2:] + whole[:, :, 2:]], axis=2)
        return self._places(whole) if self.exact else {"matrix": whole}

    def apply(self, images: Tensor, targets: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        masks = has_masks(images, targets)
        if self.exact:
            copied = self._copy(images, parameters)
            return copied, self._copy(targets[:, None], parameters)[:, 0] if masks else targets
        grid = self._grid(beside(parameters["matrix"].astype(np.float32), images))
        images = in_float(images)
        moved = self._sample(images, grid.to(images.dtype), "bilinear")
        if masks:
            nearest = self._sample(targets[:, None].to(torch.float32), grid, "nearest")
            targets = nearest[:, 0].to(targets.dtype)
        return moved, targets

    def _sample(self, images: Tensor, grid: Tensor, mode: str) -> Tensor:
        # align_corners only says which coordinates the grid is given in, and where `reflection` mirrors: at the centres
        # of the outermost pixels, as the exact path does, it is True. The geometry is the same with either.
        return F.grid_sample(images, grid, mode=mode, padding_mode=PADDING[self.border], align_corners=True)

    def _grid(self, matrix: Tensor) -> Tensor:
        """Return where each pixel of the result comes from, `[N, H, W, 2]`, -1 and 1 being the outermost centres."""
        sides = zip((self.width, self.height), reversed(self.output), strict=True)
        x, y = ((torch.arange(n, device=matrix.device) - (n - 1) / 2) * (size / n) for size, n in sides)
        grid = matrix.new_empty(len(matrix), *self.output, 2)
        for axis, size in enumerate((self.width, self.height)):
            row = matrix[:, axis] * (2 / max(size - 1, 1))
            along, down = row[:, 0:1] * x + row[:, 2:3], row[:, 1:2] * y
            torch.add(along[:, None, :], down[:, :, None], out=grid[..., axis])
        return grid

    def _places(self, matrix: np.ndarray) -> Parameters:
        """Turn matrices of whole-pixel motions into where each row of the result begins in the strips of `_copy`.

        All numbers are small halves and wholes, exact in float64. After an odd number of quarter turns a row of the
        result is a column of the image, which is a row of the image transposed: x and y change places.
        """
        centre = (self.height - 1) / 2
        sideways = matrix[:, 0, 0] == 0
        if self.turned:
            matrix = np.where(sideways[:, None, None], matrix[:, ::-1], matrix)
        rows = centre + matrix[:, 1, 1:2] * (np.arange(self.height) - centre) + matrix[:, 1, 2:]
        mirrored, x = matrix[:, 0, 0] < 0, matrix[:, 0, 2]
        column = self.reach + np.where(mirrored, -x, x)
        row = fold(rows.astype(np.int64), self.height, self.border)
        places = {"row": row, "column": column.astype(np.int64), "mirrored": mirrored}
        return {**places, "sideways": sideways} if self.turned else places

    def _copy(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Copy each row of the result, in one piece, out of the image's row padded on both sides or its mirror image.

        A row is one `memcpy`; looking up pixel by pixel takes three times as long, and masking a black border
        as long again.
        """
        n, channels, height, width = images.shape
        if self.turned:
            sideways = beside(np.flatnonzero(parameters["sideways"]), images)
            images = images.index_copy(0, sideways, images.index_select(0, sideways).transpose(2, 3))
        strips = self._strips(images)
        rows, length = strips.shape[-2:]
        image = np.arange(n) + n * parameters["mirrored"]
        line = (image[:, None] * channels + np.arange(channels))[:, :, None] * rows + parameters["row"][:, None, :]
        starts = beside((line * length + parameters["column"][:, None, None]).reshape(-1), images)
        windows = strips.as_strided((strips.numel() - width + 1, width), (1, 1))
        return windows.index_select(0, starts).view(n, channels, height, width)

    def _strips(self, images: Tensor) -> Tensor:
        """Return the images padded to both sides, `[N, C, H, W + 2 reach]`, and their mirror images after them."""
        if self.border == "zero":
            images = F.pad(images, (self.reach, self.reach, 0, 1))  # the row more is the black one above and below
        elif self.reach:
            beyond = np.arange(self.reach)
            left, right = (fold(side, self.width, self.border) for side in (beyond - self.reach, beyond + self.width))
            images = torch.cat(
                [images.index_select(3, beside(left, images)), images, images.index_select(3, beside(right, images))],
                dim=3,
            )
        images = images.contiguous()
        return torch.cat([images, images.flip(3)]) if self.mirrored else images


def matrices(*rows: np.ndarray | float) -> np.ndarray:
    """Put six numbers or arrays `[N]`, row by row, together as float64 `[N, 2, 3]`."""
    return np.stack(np.broadcast_arrays(*rows), axis=-1).astype(np.float64).reshape(-1, 2, 3)


def fitting_turns(turns: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return quarter turns 0 to 3 as they are for square pictures; for others 0 or 2, each for two of the four."""
    return turns if height == width else turns // 2 * 2


def fold(places: np.ndarray, size: int, border: Border) -> np.ndarray:
    """Return which of `size` pixels shows at each place, less than `size` beyond either end; `size` means black."""
    if border == "zero":
        return np.where((places >= 0) & (places < size), places, size)
    if border == "replicate":
        return places.clip(0, size - 1)
    return size - 1 - np.abs(size - 1 - np.abs(places))


def shared_border(motions: Sequence[Motion]) -> Border:
    """Return the one border of several motions; where they disagree, raise `UsageError`."""
    borders = {motion.name: getattr(motion, "border") for motion in motions if hasattr(motion, "border")}  # noqa: B009
    if len(set(borders.values())) > 1:
        stated = ", ".join(f"{name}: {border}" for name, border in borders.items())
        raise UsageError(
            f"Operations that move pixels have different borders ({stated}), but are done in one resampling.",
            mend="Give all of them the same border.",
        )
    return next(iter(borders.values()), "replicate")


def has_masks(images: Tensor, targets: Tensor) -> bool:
    """Whether targets are pictures of the images' size, `[N, H, W]`, which have to move with them."""
    return targets.ndim == 3 and targets.shape[1:] == images.shape[2:]


def log_uniform(draws: np.ndarray, low: float, high: float) -> np.ndarray:
    """Stretch draws from [0, 1) to [low, high) so that halving is as likely as doubling."""
    return np.exp(between(draws, math.log(low), math.log(high)))


def _check_border(operation: str, border: str) -> None:
    if border not in get_args(Border):
        raise UsageError(f"{operation}: border is {border!r}.", mend=f"Known: {', '.join(get_args(Border))}.")
