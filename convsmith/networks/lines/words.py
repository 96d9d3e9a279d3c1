"""The words of one layer of a written line, taken one by one, and the errors that name them and their places."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn

from convsmith.errors import UsageError
from convsmith.networks.lines.sizes import Window, explain_sides, least_size, nearest, padding_for

Shape = tuple[int | None, ...]
"""Of one image: `(channels, height, width)`, or `(features,)` once it is flat; None is not known."""

PAIR = re.compile(r"([kspdgo])(\d+)(?:x(\d+))?")
WIDTHS = re.compile(r"(?:([\d,]+)(?:->|→))?([\d,]+)")


class Unsettled(UsageError):
    """What a layer takes cannot be told without the size of the images."""


@dataclass(frozen=True)
class Layer:
    """A layer of a line.

    Args:
        name: of its module, its word and a number: `conv2`.
        text: as it was written.
        make: makes the module.
        after: what it leaves of an image of some shape; None where that is too small.
        windows: what moves over rows and columns; None where nothing does.
    """

    name: str
    text: str
    make: Callable[[], nn.Module]
    after: Callable[[Shape], Shape | None]
    windows: tuple[Window, Window] | None = None


@dataclass
class Said:
    """The words of one layer; what is left untaken at the end was not understood.

    Args:
        number: of the layer in the line, from 1.
        text: of the layer.
        takes: the words that may follow the first, for messages.
        image: what goes into the line.
        before: the layers before it.
        outputs: what the last layer gives where it does not say.
    """

    number: int
    text: str
    takes: str
    image: Shape
    before: Sequence[Layer] = ()
    outputs: int | None = None
    words: list[str] = field(init=False)
    taken: set[int] = field(default_factory=lambda: {0})

    def __post_init__(self) -> None:
        self.words = self.text.split()

    @property
    def word(self) -> str:
        """The first, which says what layer it is."""
        return self.words[0]

    @property
    def name(self) -> str:
        """The first with a number, which counts the layers of its kind."""
        return f"{self.word}{1 + sum(layer.text.split()[0] == self.word for layer in self.before)}"

    def pair(self, letter: str, default: int | tuple[int, int], *, least: int = 1) -> tuple[int, int]:
        """What `k3` or `k3x5` says: rows and columns."""
        for place, word in self._left():
            found = PAIR.fullmatch(word)
            if found and found[1] == letter:
                self.taken.add(place)
                pair = int(found[2]), int(found[3] or found[2])
                if min(pair) < least:
                    raise self.wrong(place, f"is below {least}", "")
                return pair
        return default if isinstance(default, tuple) else (default, default)

    def widths(self) -> tuple[int | None, int | None]:
        """What `3->64` or `64` says: what comes in, and what goes out."""
        for place, word in self._left():
            found = WIDTHS.fullmatch(word)
            if found:
                self.taken.add(place)
                given, out = (int(part.replace(",", "")) if part else None for part in found.groups())
                if 0 in (given, out):
                    raise self.wrong(place, "is nothing", "Give at least 1.")
                return given, out
        return None, None

    def number_of(self, what: str) -> int:
        """The one number that a layer cannot do without."""
        given, number = self.widths()
        if number is None or given is not None:
            raise self.misfit(
                f"does not say {what}", mend=f"Write for example `{self.word} {self.takes.split(',')[0]}`."
            )
        return number

    def share(self) -> float:
        """A number from 0 to below 1."""
        place, word = next(iter(self._left()), (0, ""))
        try:
            rate = float(word)
        except ValueError:
            rate = math.nan
        if not 0 <= rate < 1:
            raise self.misfit("needs a share from 0 to below 1", mend=f"Write for example `{self.word} 0.5`.")
        self.taken.add(place)
        return rate

    def flag(self, *flags: str) -> str | None:
        """Which of these words was said."""
        for place, word in self._left():
            if word in flags:
                self.taken.add(place)
                return word
        return None

    def finish(self) -> None:
        """Refuse what was not understood."""
        for place, _ in self._left():
            takes = f"takes {self.takes}" if self.takes else "takes no further word"
            raise self.wrong(place, "is not understood here", f"`{self.word}` {takes}.")

    def wrong(self, place: int, why: str, mend: str) -> UsageError:
        """An error that names a word and its place."""
        return UsageError(
            f"Layer {self.number} of the line, `{self.text}`: word {place + 1}, {self.words[place]!r}, {why}.",
            mend=mend,
        )

    def misfit(self, why: str, *, mend: str) -> UsageError:
        """An error that names the layer."""
        return UsageError(f"Layer {self.number} of the line, `{self.text}`, {why}.", mend=mend)

    def needs_maps(self, shape: Shape) -> None:
        """Refuse what is flat already."""
        if len(shape) != 3:
            raise self.misfit("works on rows and columns, but what comes in is flat", mend="Put it before `flatten`.")

    def channels(self, given: int | None, shape: Shape) -> int:
        """The channels that come in, as the line says or as the layer before leaves them."""
        self.needs_maps(shape)
        known = shape[0]
        if known is None and given is None:
            raise self.misfit(
                "does not say how many channels come in",
                mend=f"Write `{self.word} 3->{self.text.removeprefix(self.word).strip()}`, or give --input 3x224x224.",
            )
        if known is not None and given is not None and given != known:
            raise self.misfit(
                f"takes {given} channels, but {known} come in",
                mend=f"Write `{self.text.replace(f'{given}->', f'{known}->')}`, or leave `{given}->` out.",
            )
        return known if known is not None else given or 1

    def fits(self, windows: tuple[Window, Window], shape: Shape) -> None:
        """Refuse maps that a window does not fit in."""
        self.needs_maps(shape)
        for window, size in zip(windows, shape[1:], strict=True):
            if size is not None and window.after(size) < 1:
                raise self._too_small(window, size)

    def images(self, read: Callable[[Shape], bool], *, smallest: bool = False) -> str:
        """Which square image gives this layer what `read` asks for, as ` or an image of 32x32`; empty where none does.

        Args:
            read: judges what would come in.
            smallest: the smallest of them, rather than the one nearest to the image that was given.
        """
        now = self.image[1] or 1
        found = [size for size in range(1, max(64, 4 * now)) if (seen := self._of(size)) is not None and read(seen)]
        best = nearest(found[:1] if smallest else found, now)
        return f" or an image of {best}x{best}" if best is not None else ""

    def _of(self, size: int) -> Shape | None:
        """What would come in of a square image."""
        shape: Shape | None = (self.image[0], size, size)
        for layer in self.before:
            shape = None if shape is None else layer.after(shape)
        return shape

    def _too_small(self, window: Window, size: int) -> UsageError:
        padding = padding_for(window, size, 1)
        mends = [f"k{size}", *([f"p{padding}"] if padding else [])]
        least = least_size(window)
        image = self.images(lambda shape: min(side or 0 for side in shape[1:]) >= least, smallest=True)
        return self.misfit(
            f"gets maps of {size} px a side: {explain_sides((window, window), (size, size))}",
            mend=f"Use {' or '.join(mends)}{image}.",
        )

    def _left(self) -> list[tuple[int, str]]:
        return [(place, word) for place, word in enumerate(self.words) if place not in self.taken]
