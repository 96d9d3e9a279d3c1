"""What `convsmith data` settles and draws once the images are read: what a network will see, and contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from convsmith.batches import Augment, Batch, keys_of
from convsmith.errors import ConvsmithError
from convsmith.evidence import png
from convsmith.images import Dataset, evaluation_pixels, in_threads
from convsmith.pipeline.build import build_augment
from convsmith.pipeline.choose_images import choose_images
from convsmith.pipeline.choose_network import looks_like_photos
from convsmith.pipeline.choose_training import choose_augmentation
from convsmith.pipeline.illustrate import alike
from convsmith.pipeline.messages import Listener, Message
from convsmith.pipeline.origin import AUTOMATIC, BACKBONE, Origin, expected_origin, find_origin
from convsmith.pipeline.planner import Planner
from convsmith.pipeline.planning import refuse_unknown
from convsmith.pipeline.preparing import Prepared
from convsmith.recipe import Named, Recipe, settled

__all__ = ["Sheets", "draw", "refuse_unknown"]

SAMPLES = 48
PER_CLASS = 6
AUGMENTED, VERSIONS = 6, 6
NEAR_SHOWN = 40


@dataclass(frozen=True)
class Sheets:
    """What the page shows.

    Args:
        recipe: with everything settled that follows from the images alone.
        seen: a sentence about what a network will see.
        symmetry: a sentence about mirrors and turns.
        thumbnails: PNG of pictures that are alike, by id.
        samples: `id`, `class` and `picture` of some images of each class.
        augmented: `id`, `class`, `original` and `versions` of some training images.
    """

    recipe: Recipe
    seen: str
    symmetry: str
    thumbnails: Mapping[str, bytes]
    samples: Sequence[Mapping[str, Any]]
    augmented: Sequence[Mapping[str, Any]]


def draw(recipe: Recipe, prepared: Prepared, tell: Listener) -> Sheets:
    """Settle what a network will see, and draw it.

    Args:
        recipe: as the user gave it.
        prepared: the images with their roles, and the audit's record.
        tell: who listens.
    """
    planner = Planner(recipe, prepared.dataset, prepared.audit)
    origin = _origin(planner, tell)
    choose_images(planner, origin)
    choose_augmentation(planner, origin)
    tell(Message("stage", "Drawing samples"))
    dataset, settled_recipe = prepared.dataset, planner.recipe
    return Sheets(
        recipe=settled_recipe,
        seen=_seen(planner),
        symmetry=_symmetry(planner),
        thumbnails=_pairs(dataset, prepared.audit),
        samples=_samples(dataset, settled_recipe),
        augmented=_augmented(dataset, settled_recipe),
    )


def _origin(planner: Planner, tell: Listener) -> Origin | None:
    """The images that the weights take which `train` would start from; they need not be here to look at the data."""
    recipe = planner.recipe
    if recipe.weights.source is None or recipe.network is not None:
        return None
    if recipe.weights.source not in AUTOMATIC:
        try:
            return find_origin(recipe)
        except ConvsmithError as error:
            tell(Message("note", str(error)))
            return None
    if isinstance(recipe.model, Named):
        return expected_origin(recipe.model.name)
    return expected_origin(BACKBONE) if looks_like_photos(planner) else None


def _seen(planner: Planner) -> str:
    reasons = {choice.name: choice.reason for choice in planner.choices}
    image = planner.recipe.image
    colour = "in colour" if image.channels == 3 else "in grey"
    return (
        f"A network will see {image.size} x {image.size} px {colour} ({reasons['image.size']}); other shapes: "
        f"{image.fit} ({reasons['image.fit']})."
    )


def _symmetry(planner: Planner) -> str:
    reason = next((choice.reason for choice in planner.choices if choice.name == "augment.symmetry"), "")
    return f"Symmetry {planner.recipe.augment.symmetry}: {reason}." if reason else ""


def _pairs(dataset: Dataset, audit: Mapping[str, Any]) -> dict[str, bytes]:
    """Small copies of the images that are alike, the leaks first."""
    row = {name: index for index, name in enumerate(dataset.ids)}
    names = [name for name in alike(audit, NEAR_SHOWN) if name in row]
    return dict(zip(names, in_threads(lambda k: png(dataset.read(row[names[k]])), len(names)), strict=True))


def _samples(dataset: Dataset, recipe: Recipe) -> list[dict[str, Any]]:
    """A few images of each class, exactly as a network will see them."""
    per_class = max(1, min(PER_CLASS, SAMPLES // max(1, len(dataset.classes))))
    chosen: list[int] = []
    for target in range(len(dataset.classes)):
        own = np.flatnonzero(dataset.targets == target)
        chosen += own[np.linspace(0, len(own) - 1, min(per_class, len(own))).astype(int)].tolist()

    def sample(k: int) -> dict[str, Any]:
        index = chosen[k]
        picture = png(_pixels(dataset, recipe, index), longest=None)
        return {"id": dataset.ids[index], "class": dataset.classes[dataset.targets[index]], "picture": picture}

    return list(in_threads(sample, len(chosen)))


def _augmented(dataset: Dataset, recipe: Recipe) -> list[dict[str, Any]]:
    """What augmentation makes of some training images, with what was drawn in words."""
    augment = build_augment(recipe)
    training = dataset.indices("train")
    chosen = training[np.linspace(0, len(training) - 1, min(AUGMENTED, len(training))).astype(int)]
    rows = []
    for place, index in enumerate(chosen.tolist()):
        pixels = _pixels(dataset, recipe, index)
        rows.append(
            {
                "id": dataset.ids[index],
                "class": dataset.classes[dataset.targets[index]],
                "original": png(pixels, longest=None),
                "versions": _versions(augment, recipe, pixels, start=place * VERSIONS),
            }
        )
    return rows


def _versions(augment: Augment, recipe: Recipe, pixels: np.ndarray, *, start: int) -> list[dict[str, Any]]:
    """The same image at several positions of the first epoch, each with draws of its own."""
    images = torch.from_numpy(np.repeat(pixels.transpose(2, 0, 1)[None], VERSIONS, axis=0))
    keys = keys_of(0, start, start + VERSIONS)
    batch = augment(Batch.of_images(images, start=start))
    mean, std = (torch.tensor(settled(values)).view(-1, 1, 1) for values in (recipe.image.mean, recipe.image.std))
    shown = ((batch.images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    words: Sequence[str] = augment.describe(keys, shape=tuple(images.shape[1:]))  # type: ignore[arg-type]
    pictures = in_threads(lambda k: png(shown[k], longest=None), len(shown))
    return [{"picture": picture, "parameters": text} for picture, text in zip(pictures, words, strict=True)]


def _pixels(dataset: Dataset, recipe: Recipe, index: int) -> np.ndarray:
    image = recipe.image
    return evaluation_pixels(
        dataset.read(index),
        size=settled(image.size),
        fit=settled(image.fit),
        channels=settled(image.channels),
        keep=settled(image.keep),
        range=settled(image.range),
    )
