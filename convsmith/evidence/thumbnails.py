"""Small copies of the pictures that the report shows, so that it can be rebuilt when the originals are gone."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from convsmith.errors import DataError
from convsmith.images import Dataset
from convsmith.run_folder import RunFolder, write_atomically

LONGEST_SIDE = 160


def leave_thumbnails(run: RunFolder, dataset: Dataset, ids: Iterable[str]) -> None:
    """Write one PNG for each id into `evidence/thumbnails/`, and `evidence/thumbnails.json` that names them.

    A picture that has vanished since training is left out: the report then shows its name alone.
    """
    folder = run.evidence / "thumbnails"
    folder.mkdir(parents=True, exist_ok=True)
    row = {identity: index for index, identity in enumerate(dataset.ids)}
    names: dict[str, str] = {}
    for number, identity in enumerate(dict.fromkeys(ids), start=1):
        try:
            image = dataset.read(row[identity])
        except (DataError, KeyError):
            continue
        names[identity] = f"thumbnails/{number:04d}.png"
        write_atomically(run.evidence / names[identity], png(image))
    run.write_json("evidence/thumbnails.json", names)


def png(image: np.ndarray, *, longest: int | None = LONGEST_SIDE) -> bytes:
    """A picture `[H, W, C]` as PNG, its longer side at most `longest` px, or as it is.

    One that has more than 8 bits is stretched between its own darkest and brightest value: here it is only looked at.
    """
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = np.rint((image - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    if longest is not None:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=4 if longest is not None else 1)
    return buffer.getvalue()
