"""`convsmith data`: what is in a folder, before anything is trained on it, and a page that shows it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convsmith.batches import Augment, Batch, keys_of
from convsmith.errors import ConvsmithError
from convsmith.evidence import png
from convsmith.images import Dataset, compare, evaluation_pixels
from convsmith.pipeline.build import build_augment
from convsmith.pipeline.choose_images import choose_images
from convsmith.pipeline.choose_network import looks_like_photos
from convsmith.pipeline.choose_training import choose_augmentation
from convsmith.pipeline.messages import Listener, Message, silent
from convsmith.pipeline.origin import AUTOMATIC, BACKBONE, Origin, expected_origin, find_origin
from convsmith.pipeline.plan import refuse_unknown
from convsmith.pipeline.planner import Planner
from convsmith.pipeline.prepare import Prepared, declares_range, prepare, recorded_images
from convsmith.pipeline.space import refuse_unwritable
from convsmith.pipeline.start import split_csv
from convsmith.recipe import Named, Recipe, settled
from convsmith.reporting import DataRecord, render_data
from convsmith.run_folder import disk_errors, list_runs, write_atomically

SAMPLES = 48
PER_CLASS = 6
AUGMENTED, VERSIONS = 6, 6
NEAR_SHOWN = 40


@dataclass(frozen=True)
class Look:
    """What was found.

    Args:
        prepared: the images with their roles, and the audit's record.
        recipe: with everything settled that follows from the images alone.
        seen: a sentence about what a network will see.
        symmetry: a sentence about mirrors and turns.
        snapshot: what has changed since the last run on this source; empty where there was none.
        folder: where `audit.json`, `split.csv` and `data.html` lie.
    """

    prepared: Prepared
    recipe: Recipe
    seen: str
    symmetry: str
    snapshot: str
    folder: Path

    @property
    def page(self) -> Path:
        """The page to open in a browser."""
        return self.folder / "data.html"


def look(recipe: Recipe, *, runs: Path, command: str = "", tell: Listener = silent) -> Look:
    """Read every image, find what is strange, settle the split, and write it down with a page of pictures.

    Args:
        recipe: says which images, and what of size, fit, symmetry, model and weights is asked for.
        runs: the page is written to `data/<name>-<fingerprint>` in it, and earlier runs on this source are found there.
        command: what to type next, for the page.
        tell: who listens.
    """
    refuse_unwritable(runs)
    refuse_unknown(recipe)
    prepared = prepare(recipe.data, tell, floats=declares_range(recipe))
    planner = Planner(recipe, prepared.dataset, prepared.audit)
    origin = _origin(planner, tell)
    choose_images(planner, origin)
    choose_augmentation(planner)
    tell(Message("stage", "Drawing samples"))
    chosen, snapshot = planner.recipe, _snapshot(recipe, prepared, runs)
    seen, symmetry = _seen(planner), _symmetry(planner)
    name = recipe.name or Path(str(recipe.data.source)).stem or "data"
    folder = runs / "data" / f"{_plain(name)}-{prepared.dataset.fingerprint[:8]}"
    found = Look(prepared, chosen, seen, symmetry, snapshot, folder)
    _write(found, command)
    return found


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


def _snapshot(recipe: Recipe, prepared: Prepared, runs: Path) -> str:
    """What has changed since the last run on the same source (D9)."""
    for run in reversed(list_runs(runs)):
        try:
            same = run.read_json("manifest.json")["data"]["source"] == recipe.data.source
        except (ConvsmithError, KeyError):
            continue
        if same:
            return f"Since the run {run.path.name}: {compare(recorded_images(run), prepared.dataset).sentence()}"
    return ""


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


def _write(found: Look, command: str) -> None:
    with disk_errors(f"making {found.folder}"):
        found.folder.mkdir(parents=True, exist_ok=True)
    dataset, audit = found.prepared.dataset, found.prepared.audit
    record = DataRecord(
        source=str(dataset.source),
        made=time.strftime("%Y-%m-%d"),
        audit=audit,
        thumbnails=_pairs(dataset, audit),
        samples=_samples(dataset, found.recipe),
        augmented=_augmented(dataset, found.recipe),
        seen=found.seen,
        symmetry=found.symmetry,
        next_command=command or f"convsmith train {shlex.quote(str(dataset.source))}",
        snapshot=found.snapshot,
    )
    write_atomically(found.folder / "audit.json", json.dumps(audit, ensure_ascii=False, indent=1).encode())
    write_atomically(found.folder / "split.csv", split_csv(dataset).encode())
    write_atomically(found.page, render_data(record).encode())


def _pairs(dataset: Dataset, audit: Mapping[str, Any]) -> dict[str, bytes]:
    """Small copies of the images that are alike, the leaks first."""
    pairs = [*audit.get("leaks", ()), *audit.get("near_duplicates", ())][:NEAR_SHOWN]
    row = {name: index for index, name in enumerate(dataset.ids)}
    names = dict.fromkeys(pair[side] for pair in pairs for side in ("first", "second"))
    return {name: png(dataset.read(row[name])) for name in names if name in row}


def _samples(dataset: Dataset, recipe: Recipe) -> list[dict[str, Any]]:
    """A few images of each class, exactly as a network will see them."""
    per_class = max(1, min(PER_CLASS, SAMPLES // max(1, len(dataset.classes))))
    shown = []
    for target, name in enumerate(dataset.classes):
        own = np.flatnonzero(dataset.targets == target)
        for index in own[np.linspace(0, len(own) - 1, min(per_class, len(own))).astype(int)]:
            picture = png(_pixels(dataset, recipe, int(index)), longest=None)
            shown.append({"id": dataset.ids[index], "class": name, "picture": picture})
    return shown


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
    return [
        {"picture": png(picture, longest=None), "parameters": text} for picture, text in zip(shown, words, strict=True)
    ]


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


def _plain(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in name)[:60] or "data"
