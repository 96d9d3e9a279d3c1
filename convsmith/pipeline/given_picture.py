"""One picture by what users type: a file, an image of a named set, or a photo that comes with a library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convsmith.errors import UsageError

PHOTOS = ("flower", "china")
"""Two photos of 640 x 427 px that come with scikit-learn (CC BY 2.0), so that nobody has to look for one."""


def open_pixels(text: str, *, pick: Sequence[int] | None = None, also: str = "") -> tuple[str, np.ndarray]:
    """Decode the picture that is called so.

    Args:
        text: `photo.jpg`, `digits:7` (an image of a named set by its place, from 0), `flower` or `china`.
        pick: of a file, the planes to take; see `images.decode`.
        also: what else may be given, for the message where there is no such picture.

    Returns:
        What to call it, and its pixels `[H, W, C]`.

    Raises:
        UsageError: it is none of these.
        DataError: the file cannot be read.
    """
    path = Path(text)
    name, _, place = text.partition(":")
    if path.is_file():
        from convsmith.images import decode

        return path.name, decode(path, pick=None if pick is None else tuple(pick))
    if text in PHOTOS:
        from sklearn.datasets import load_sample_image  # half a second to import

        return text, np.asarray(load_sample_image(f"{text}.jpg"))
    if place and not path.exists():
        return _of_set(name, place)
    if path.is_dir():
        raise UsageError(f"{text} is a folder, and one picture is needed.", mend="Name a file in it.")
    raise UsageError(
        f"There is no picture {text!r}.",
        mend=f"Give a file, {also}digits:0 (an image of a named set), flower or china.",
    )


def _of_set(name: str, place: str) -> tuple[str, np.ndarray]:
    from convsmith.images import SOURCES

    dataset = SOURCES[name].load()()
    if not place.isdecimal() or int(place) >= len(dataset):
        raise UsageError(
            f"{name} has no image {place!r}.",
            mend=f"Its {len(dataset):,} images are {name}:0 to {name}:{len(dataset) - 1}.",
        )
    index = int(place)
    label = dataset.classes[int(dataset.targets[index])]
    return f"{name}:{place} (class {label})", dataset.read(index)
