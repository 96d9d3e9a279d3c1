"""What `convsmith kernels` computes for one picture, ready to be printed, written as JSON or drawn as a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from convsmith.cli.kernel_picture import LabPicture, open_picture
from convsmith.errors import UsageError
from convsmith.networks.kernels.bank import KERNELS, kernel_named
from convsmith.networks.kernels.filtering import (
    POOLS,
    Padding,
    PoolKind,
    Window,
    convolve,
    margins,
    padded,
    pool_window,
    pooled,
    window,
)
from convsmith.reporting.kernel_page import Example, KernelRecord, Learnt, LearntFilter, Place

if TYPE_CHECKING:
    from convsmith.networks.kernels.match import Likeness
    from convsmith.pipeline.first_layer import FirstLayer

FIRST = "sobel-vertical"
"""The kernel that the page begins with where none is named."""
SMALL = 16
"""Up to this side the window begins in the corner; in larger pictures where the kernel answers most."""


@dataclass(frozen=True)
class Settings:
    """How a kernel and a pooling go over a picture.

    Args:
        padding, stride, dilation: of the kernel.
        pool: kind, size and stride of the pooling, or None.
    """

    padding: Padding = "valid"
    stride: int = 1
    dilation: int = 1
    pool: tuple[PoolKind, int, int] | None = None

    def convolved(self, values: np.ndarray, kernel: np.ndarray | None) -> np.ndarray:
        """The output before pooling; the picture itself where there is no kernel."""
        if kernel is None:
            return values
        return convolve(values, kernel, padding=self.padding, stride=self.stride, dilation=self.dilation)

    def output(self, values: np.ndarray, kernel: np.ndarray | None) -> np.ndarray:
        """The output."""
        between = self.convolved(values, kernel)
        return between if self.pool is None else pooled(between, *self.pool)


@dataclass(frozen=True)
class Lab:
    """A picture and what becomes of it.

    Args:
        typed: what named the picture.
        picture: the picture.
        name, summary: of the kernel.
        kernel: `[kh, kw]`, None where only pooling is done.
        settings: padding, stride, dilation and pooling.
        output: in the end.
        place: `(row, column)` of the output that is looked at.
        asked: whether that was asked for.
        listed: whether no kernel and no pooling was named, so that all kernels are listed.
    """

    typed: str
    picture: LabPicture
    name: str
    summary: str
    kernel: np.ndarray | None
    settings: Settings
    output: np.ndarray
    place: tuple[int, int]
    asked: bool
    listed: bool

    def pool_seen(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The values that pooling looks at, and what it makes of them; None without pooling."""
        if self.settings.pool is None:
            return None
        kind, size, stride = self.settings.pool
        return pool_window(self.settings.convolved(self.picture.values, self.kernel), kind, *self.place, size, stride)

    def window(self) -> Window | None:
        """The kernel's window at the place; of several that are pooled that of the largest, or the first.

        Which is the largest is decided in the first channel.
        """
        if self.kernel is None:
            return None
        row, column = self.place
        if self.settings.pool is not None and (seen := self.pool_seen()) is not None:
            kind, size, stride = self.settings.pool
            patch = seen[0] if seen[0].ndim == 2 else seen[0][..., 0]
            best = int(patch.argmax()) if kind == "max" else 0
            row, column = stride * row + best // size, stride * column + best % size
        s = self.settings
        return window(
            self.picture.values, self.kernel, row, column, padding=s.padding, stride=s.stride, dilation=s.dilation
        )

    def margins(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels of padding before and after the rows and the columns."""
        if self.kernel is None:
            return (0, 0), (0, 0)
        s, sizes = self.settings, zip(self.picture.values.shape[:2], self.kernel.shape, strict=True)
        tall, wide = (margins(*pair, s.padding, stride=s.stride, dilation=s.dilation) for pair in sizes)
        return tall, wide

    def padded(self) -> np.ndarray:
        """The picture with its padding."""
        return padded(self.picture.values, self.margins(), self.settings.padding)

    def examples(self) -> tuple[list[Example], list[str]]:
        """Every classical kernel on the picture, and the names of those that are too large for it."""
        fitting, too_large = [], []
        for name, entry in KERNELS.items():
            kernel = entry.load()()
            try:
                output = self.settings.output(self.picture.values, kernel)
            except UsageError:  # what does not fit is named
                too_large.append(name)
                continue
            fitting.append(Example(name, entry.summary, entry.source, kernel, output))
        return fitting, too_large

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        pool, picture = self.settings.pool, self.picture
        record: dict[str, Any] = {
            "image": {
                "name": picture.name, "note": picture.note, "height": picture.values.shape[0],
                "width": picture.values.shape[1], "channels": 3 if picture.values.ndim == 3 else 1,
            },
            "padding": self.settings.padding, "stride": self.settings.stride, "dilation": self.settings.dilation,
            "pool": None if pool is None else {"kind": pool[0], "size": pool[1], "stride": pool[2]},
        }  # fmt: skip
        if self.listed:
            fitting, too_large = self.examples()
            record["kernels"] = [
                {"name": item.name, "summary": item.summary, "source": item.source, "rows": item.kernel.tolist(),
                 "lowest": float(item.output.min()), "highest": float(item.output.max())}
                for item in fitting
            ]  # fmt: skip
            return {**record, "too_large": too_large}
        record["kernel"] = None
        if self.kernel is not None:
            record["kernel"] = {"name": self.name, "summary": self.summary, "rows": self.kernel.tolist()}
        output = self.output
        record["output"] = {
            "height": output.shape[0], "width": output.shape[1], "lowest": float(output.min()),
            "highest": float(output.max()), "values": output.tolist(),
        }  # fmt: skip
        return {**record, "at": self._place_json() if self.asked else None}

    def _place_json(self) -> dict[str, Any]:
        (row, column), seen, pools = self.place, self.window(), self.pool_seen()
        told: dict[str, Any] = {"row": row, "column": column, "value": self.output[row, column].tolist()}
        if seen is not None:
            told |= {
                "rows": seen.rows.tolist(), "columns": seen.columns.tolist(), "patch": seen.patch.tolist(),
                "products": seen.products.tolist(), "sum": seen.total.tolist(),
            }  # fmt: skip
        return told if pools is None else {**told, "pooled": pools[0].tolist()}


def make_lab(
    image: str,
    *,
    kernel: str | None,
    at: str | None,
    padding: Padding,
    stride: int,
    dilation: int,
    pool: str | None,
    colour: bool,
    size: int,
) -> Lab:
    """Compute what the options of `convsmith kernels` ask for.

    Raises:
        UsageError: something does not fit together, with what to type instead.
        DataError: the picture cannot be read.
    """
    settings = Settings(padding, stride, dilation, _pool(pool))
    listed = kernel is None and pool is None
    if kernel is None and pool is not None and (padding, stride, dilation) != ("valid", 1, 1):
        raise UsageError(
            "--padding, --stride and --dilation belong to a kernel, and none is named.",
            mend="Add --kernel NAME; the windows of pooling are set by --pool max:SIZE:STRIDE.",
        )
    if listed and at is not None:
        raise UsageError("--at shows one sum, and no kernel is named.", mend=f"Add --kernel {FIRST}.")
    wanted = FIRST if listed else kernel
    name, numbers = ("", None) if wanted is None else kernel_named(wanted)
    entry = KERNELS.get(name.partition(":")[0]) if name and name.partition(":")[0] in KERNELS else None
    picture = open_picture(image, size=size, colour=colour)
    output = settings.output(picture.values, numbers)
    place = _place(at, output) if at is not None else _telling(output, numbers)
    return Lab(
        image, picture, name, entry.summary if entry else "", numbers, settings, output, place, at is not None, listed
    )  # fmt: skip


def page_record(lab: Lab, learnt: tuple[Any, FirstLayer, list[list[Likeness]]] | None, command: str) -> KernelRecord:
    """What the page shows."""
    settings, values, sides = lab.settings, lab.picture.values, lab.margins()
    seen, pools = lab.window(), lab.pool_seen()
    place = Place(
        *lab.place,
        rows=None if seen is None else seen.rows,
        columns=None if seen is None else seen.columns,
        patch=None if seen is None else seen.patch,
        products=None if seen is None else seen.products,
        total=None if seen is None else seen.total,
        pool_patch=None if pools is None else pools[0],
        result=lab.output[lab.place],
    )
    return KernelRecord(
        name=lab.picture.name, note=lab.picture.note, values=values, low=lab.picture.low, high=lab.picture.high,
        kernel_name=lab.name, summary=lab.summary, kernel=lab.kernel, padding=settings.padding,
        stride=settings.stride, dilation=settings.dilation, margins=sides,
        padded=lab.padded(), output=lab.output, pool=settings.pool, place=place,
        gallery=lab.examples()[0], learnt=None if learnt is None else _learnt(lab, *learnt), command=command,
    )  # fmt: skip


def kept(layer: FirstLayer, index: int) -> float:
    """Cosine between what a filter was at the first moment and at the last; 1 is unchanged."""
    first, last = (moment.filters[index].ravel().astype(float) for moment in (layer.moments[0], layer.moments[-1]))
    length = float(np.linalg.norm(first) * np.linalg.norm(last))
    return float(first @ last) / length if length else 0.0


def _learnt(lab: Lab, run: Any, layer: FirstLayer, like: list[list[Likeness]]) -> Learnt:
    from convsmith.networks.kernels.match import threshold

    answers = layer.responses(_eight_bit(lab.picture))
    filters = [
        LearntFilter(
            index=index,
            shapes=[moment.filters[index] for moment in layer.moments],
            likenesses=[(each[index].described, each[index].cosine, each[index].near) for each in like],
            nearest=like[-1][index].shape,
            kept=kept(layer, index),
            response=answers[index],
        )
        for index in range(len(answers))
    ]  # fmt: skip
    _, channels, height, _ = layer.moments[-1].filters.shape
    moments = [(moment.label, moment.origin) for moment in layer.moments]
    return Learnt(run.path.name, layer.describes, moments, filters, threshold(channels, height), layer.notes)


def _eight_bit(picture: LabPicture) -> np.ndarray:
    """Values from 0 to 255, as networks are given them."""
    return (picture.values - picture.low) * (255 / (picture.high - picture.low))


def _pool(text: str | None) -> tuple[PoolKind, int, int] | None:
    """`max`, `max:3` or `max:3:2` as kind, size and stride."""
    if text is None:
        return None
    kind, *rest = text.split(":")
    if kind not in POOLS or len(rest) > 2 or not all(word.isdecimal() and int(word) for word in rest):
        raise UsageError(f"--pool {text} is no pooling.", mend="Write max, average, max:3 or max:3:2 (window, step).")
    sizes = [int(word) for word in rest]
    size = sizes[0] if sizes else 2
    return kind, size, sizes[1] if len(sizes) == 2 else size  # type: ignore[return-value]


def _place(text: str, output: np.ndarray) -> tuple[int, int]:
    row, _, column = text.replace(" ", "").partition(",")
    height, width = output.shape[:2]
    if not row.isdecimal() or not column.isdecimal() or int(row) >= height or int(column) >= width:
        raise UsageError(
            f"--at {text}: the output is {height} x {width} and has no such place.",
            mend=f"Give ROW,COL, rows from 0 to {height - 1} and columns from 0 to {width - 1}.",
        )
    return int(row), int(column)


def _telling(output: np.ndarray, kernel: np.ndarray | None) -> tuple[int, int]:
    """A place worth looking at first."""
    height, width = output.shape[:2]
    if max(height, width) <= SMALL:
        return 0, 0
    if kernel is None or abs(kernel.sum()) > 1e-6 * np.abs(kernel).sum():
        return height // 2, width // 2
    strength = np.abs(output) if output.ndim == 2 else np.abs(output).sum(axis=2)
    row, column = np.unravel_index(int(strength.argmax()), strength.shape)
    return int(row), int(column)
