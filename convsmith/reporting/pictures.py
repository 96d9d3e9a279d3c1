"""Thumbnails as data addresses: only what is plainly a PNG or JPEG is shown."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from convsmith.reporting.formats import percent, shorten
from convsmith.reporting.run_records import MAX_THUMBNAIL_BYTES, RunRecords

#: Up to this side an image is shown with hard pixels, since blurring would hide what the network sees.
TINY = 64

T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """An image with its caption.

    Args:
        address: a `data:` address, or empty where there is no picture.
        tiny: whether to draw it with hard pixels.
        name: the file's name, shortened.
        true, predicted: class names, cleaned.
        probability: how sure the network was of its answer.
    """

    address: str
    tiny: bool
    name: str
    true: str
    predicted: str
    probability: str

    @property
    def described(self) -> str:
        """What somebody who does not see the picture should know."""
        return f"{self.true}, taken for {self.predicted}" if self.true != self.predicted else self.true


@dataclass(frozen=True)
class Thumb:
    """An image by its name alone.

    Args:
        address: a `data:` address, or empty where there is no picture.
        tiny: whether to draw it with hard pixels.
        name: the file's name, shortened.
    """

    address: str
    tiny: bool
    name: str


def thumb(thumbnails: Mapping[str, bytes], identity: object) -> Thumb:
    """Return the picture of an image, which may be missing, with its name."""
    data = thumbnails.get(str(identity), b"")
    return Thumb(address(data), _side(data) <= TINY, shorten(identity, 60))


def drawn(data: bytes, name: str = "", *, most: int = MAX_THUMBNAIL_BYTES) -> Thumb:
    """Return PNG or JPEG bytes of at most `most` as a picture."""
    return Thumb(address(data, most=most), _side(data) <= TINY, shorten(name, 60))


def fitting(items: Iterable[T], room: int, pictures_of: Callable[[T], Iterable[Picture | Thumb]]) -> list[T]:
    """Return the leading items whose pictures fit into `room` characters, so that the page stays below ten megabytes.

    Args:
        items: what is to be shown, the most telling first.
        room: characters of all `data:` addresses together.
        pictures_of: the pictures that an item shows.
    """
    kept = []
    for item in items:
        room -= sum(len(picture.address) for picture in pictures_of(item))
        if room < 0:
            break
        kept.append(item)
    return kept


def pictures(records: RunRecords, shown: Iterable[Mapping[str, Any]]) -> list[Picture]:
    """Return a picture for each record of `id`, `true`, `predicted`, `probability`."""
    classes = records.classes
    made = []
    for item in shown:
        data = records.thumbnails.get(item["id"], b"")
        made.append(
            Picture(
                address=address(data),
                tiny=_side(data) <= TINY,
                name=shorten(item["id"], 60),
                true=class_name(item["true"], classes),
                predicted=class_name(item["predicted"], classes),
                probability=percent(item.get("probability")),
            )
        )
    return made


def class_name(value: object, classes: Sequence[str]) -> str:
    """Return a class's name, given the name or its index; long ones are shortened."""
    if isinstance(value, int) and 0 <= value < len(classes):
        value = classes[value]
    return shorten(value, 80)


def address(data: bytes, *, most: int = MAX_THUMBNAIL_BYTES) -> str:
    """Return bytes as a `data:` address; empty for what is neither PNG nor JPEG, or is larger than `most`."""
    kind = "png" if data.startswith(b"\x89PNG\r\n\x1a\n") else "jpeg" if data.startswith(b"\xff\xd8\xff") else ""
    if not kind or len(data) > most:
        return ""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _side(data: bytes) -> int:
    """The longer side of a PNG, from its header; a JPEG is taken for a photo."""
    if not data.startswith(b"\x89PNG") or len(data) < 24:
        return TINY + 1
    return max(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
