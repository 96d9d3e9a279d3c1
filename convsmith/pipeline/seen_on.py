"""What each stage of a given model sees of a picture: theoretical and effective receptive fields, drawn on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convsmith.batches import Normalize
from convsmith.errors import UsageError
from convsmith.evidence.fields import effective_fields
from convsmith.images import evaluation_pixels
from convsmith.pipeline.given_model import Given
from convsmith.pipeline.given_picture import open_pixels
from convsmith.recipe import settled
from convsmith.reporting.field_pictures import field_picture, field_sheet
from convsmith.reporting.inspection import FieldPicture


@dataclass(frozen=True)
class SeenOn:
    """A picture as a network sees it.

    Args:
        stages: one drawing each, from the image on.
        sheet: all of them in one PNG.
    """

    stages: tuple[FieldPicture, ...]
    sheet: bytes


def fields_on(given: Given, picture: str | Path) -> SeenOn:
    """Measure and draw the receptive fields of a model's stages on a picture.

    Args:
        given: opened with its values.
        picture: a file or a name, as `open_pixels` takes it; it is brought to the model's size as it is for an answer.

    Raises:
        UsageError: the model takes no square pictures of one or three channels, or makes no maps.
        DataError: the picture cannot be read.
    """
    channels, height, width = given.shape
    if height != width or channels not in (1, 3):
        raise UsageError(
            f"Pictures are brought to squares of one or three channels, not to {channels}x{height}x{width}.",
            mend="Give a square: --input 3x224x224.",
        )
    pick, options = _as_for_an_answer(given)
    pixels = evaluation_pixels(open_pixels(str(picture), pick=pick)[1], size=height, channels=channels, **options)
    batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
    zero, one = (0.0,) * channels, (1.0,) * channels
    mean, std = (given.mean, given.std) if len(given.mean or ()) == channels else (zero, one)
    seen = effective_fields(given.model, Normalize(mean or zero, std or one)(batch))
    drawn = tuple(FieldPicture(each.name, each.sentence, field_picture(pixels, each)) for each in seen)
    return SeenOn(drawn, field_sheet(pixels, seen))


def _as_for_an_answer(given: Given) -> tuple[tuple[int, ...] | None, dict[str, Any]]:
    """Which planes of a file are taken, and how they are brought to size: as a run has it, else cut from the middle."""
    if given.run is None:
        return None, {"fit": "crop"}
    recipe = given.run.read_recipe()
    section = recipe.image
    keys = {"fit": settled(section.fit), "keep": settled(section.keep), "range": settled(section.range)}
    return recipe.data.channels, keys
