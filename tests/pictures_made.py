"""Class folders that tests make: small pictures, told apart by their colour or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")


def class_folder(
    root: Path,
    *,
    classes: Sequence[str] = CLASSES,
    each: int = 20,
    size: tuple[int, int] = (8, 8),
    channels: int = 3,
    signal: int = 150,
    seed: int = 0,
) -> Path:
    """Write `root/<class>/<number>.png`, and return `root`.

    Args:
        root: the folder; made.
        classes: their names.
        each: pictures of each.
        size: width and height in px.
        channels: 1 or 3.
        signal: how much brighter a class's own band of rows is than the noise, which goes to 59; 0 is pure noise.
        seed: of the noise.
    """
    generator = np.random.default_rng(seed)
    width, height = size
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        rows = slice(k * height // len(classes), (k + 1) * height // len(classes))
        for i in range(each):
            picture = generator.integers(0, 60, (height, width, channels)).astype(np.uint8)
            picture[rows] += signal
            Image.fromarray(picture if channels == 3 else picture[..., 0]).save(root / name / f"{i:03d}.png")
    return root


def photo_folder(
    root: Path,
    *,
    classes: Mapping[str, int] | Sequence[str] = CLASSES,
    each: int = 20,
    side: int = 40,
    seed: int = 0,
    names: Callable[[int], str] = "{:03d}.png".format,
) -> Path:
    """Write `root/<class>/<number>.png` like photographs, no two alike: blots of light, and a tint of the class.

    Args:
        root: the folder; made.
        classes: their names, or how many pictures there are of each.
        each: pictures of each, where `classes` are names.
        side: in px.
        seed: of the blots.
        names: file name by number.
    """
    counts = classes if isinstance(classes, Mapping) else dict.fromkeys(classes, each)
    generator = np.random.default_rng(seed)
    for k, (name, count) in enumerate(counts.items()):
        for i in range(count):
            path = root / name / names(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            photo(generator, side=side, tint=k).save(path)
    return root


def photo(generator: np.random.Generator, *, side: int = 40, tint: int = 0) -> Image.Image:
    """Blots of light in colour, `side` px square; `tint` lifts one of the channels, unless it is negative."""
    blots = Image.fromarray(generator.integers(0, 256, (12, 12, 3), np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(blots).astype(np.float64) * 0.7 + generator.normal(0, 8, (side, side, 3))
    if tint >= 0:
        pixels[..., tint % 3] += 60
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
