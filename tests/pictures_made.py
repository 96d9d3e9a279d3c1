"""Class folders that tests make: small pictures, told apart by their colour or not at all."""

from __future__ import annotations

from collections.abc import Sequence
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
