"""Pictures made on the spot, in folders that a test owns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Painter = Callable[..., Path]


@pytest.fixture
def paint(tmp_path: Path) -> Painter:
    """Write a picture of noise to `tmp_path/<name>`; the same seed gives the same picture."""

    def write(name: str, *, seed: int = 0, size: tuple[int, int] = (12, 10), mode: str = "RGB", **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path, **options)
        return path

    return write


@pytest.fixture
def flowers(tmp_path: Path, paint: Painter) -> Path:
    """Two classes, twenty different pictures each."""
    for k, name in enumerate(("rose", "tulip")):
        for i in range(20):
            paint(f"flowers/{name}/{i:02d}.png", seed=100 * k + i)
    return tmp_path / "flowers"
