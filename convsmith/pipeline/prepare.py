"""From what the user named to images that are audited, divided into roles, and decoded to the network's size."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convsmith.errors import DataError
from convsmith.images import ROLES, Dataset, assign_roles, audit, open_source, pixel_cache, split_rows
from convsmith.pipeline.messages import Listener, Message
from convsmith.recipe import Data, Image, settled
from convsmith.run_folder import RunFolder

NAMED = 3


@dataclass(frozen=True)
class Prepared:
    """A data set that has been looked at.

    Args:
        dataset: readable images with roles.
        audit: what was found, as `audit.json` holds it.
    """

    dataset: Dataset
    audit: Mapping[str, Any]


def prepare(
    data: Data, tell: Listener, *, divide: bool = True, known: Mapping[str, tuple[str, str]] | None = None
) -> Prepared:
    """Open, audit and divide the images that a recipe names.

    Args:
        data: the recipe's section; where it holds a fingerprint, the images must still be those.
        divide: whether to give roles; without, all images keep the roles of their source, and one class is enough.
        known: class and content of each image by id, as they were, so that a difference can be named.

    Raises:
        DataError: the images cannot be used, or are not those the recipe was made with.
    """
    tell(Message("stage", f"Reading {data.source}"))
    dataset, notes = open_source(str(data.source), limit=data.limit, min_classes=2 if divide else 1)
    dataset, found = audit(
        dataset,
        notes,
        progress=lambda done, total: tell(Message("stage", "Checking every image", {"done": done, "total": total})),
    )
    if data.fingerprint and dataset.fingerprint != data.fingerprint:
        raise DataError(
            f"The images of {data.source} are not those of the recipe: {_difference(dataset, known or {})}fingerprint "
            f"{dataset.fingerprint[:12]}…, expected {data.fingerprint[:12]}….",
            mend="Put back what was added, removed or changed, or train anew with --set data.fingerprint=null.",
        )
    if divide:
        dataset = assign_roles(dataset, split_seed=data.split_seed)
        found = {**found, "roles": dataset.counts()}
    return Prepared(dataset, found)


def pixels(dataset: Dataset, image: Image, tell: Listener) -> np.ndarray:
    """The evaluation pixels of all images, uint8 `[N, C, size, size]`, from the cache or decoded now."""
    return pixel_cache(
        dataset,
        size=settled(image.size),
        fit=settled(image.fit),
        channels=settled(image.channels),
        progress=lambda done, total: tell(Message("stage", "Decoding images", {"done": done, "total": total})),
        note=lambda text: tell(Message("note", text)),
    )


def recorded_images(run: RunFolder) -> dict[str, tuple[str, str]]:
    """Class and SHA-256 of each image by id, as a run's `split.csv` holds them; nothing where it is missing."""
    return {row["id"]: (row["class"], row["sha256"]) for row in _split_records(run)}


def recorded_roles(run: RunFolder) -> dict[str, str]:
    """The role that each picture had in a run, by its SHA-256; of a picture in several roles the first of `ROLES`."""
    rows = sorted(_split_records(run), key=lambda row: ROLES.index(row["role"]), reverse=True)
    return {row["sha256"]: row["role"] for row in rows}


def _split_records(run: RunFolder) -> list[dict[str, str]]:
    """The rows of `split.csv`, none where it is missing."""
    return list(csv.DictReader(io.StringIO(run.read_text("split.csv")))) if run.has("split.csv") else []


def _difference(dataset: Dataset, known: Mapping[str, tuple[str, str]]) -> str:
    """What was added, removed or changed, with examples; empty where nothing is known."""
    if not known:
        return ""
    present = {row["id"]: (row["class"], row["sha256"]) for row in split_rows(dataset)}
    kinds = {
        "added": [name for name in present if name not in known],
        "removed": [name for name in known if name not in present],
        "changed": [name for name in present if name in known and known[name] != present[name]],
    }
    parts = [
        f"{len(names):,} {kind} ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})"
        for kind, names in kinds.items()
        if names
    ]
    return "; ".join(parts) + "; " if parts else ""
