"""From what the user named to images that are audited, divided into roles, and decoded to the network's size."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convsmith.errors import DataError
from convsmith.images import (
    ROLES,
    Dataset,
    FilePixels,
    assign_roles,
    audit,
    drop_torn_groups,
    leaks,
    near_duplicates,
    near_records,
    open_source,
    pixel_cache,
    split_rows,
    split_sentence,
    suspected_groups,
)
from convsmith.pipeline.messages import Listener, Message
from convsmith.recipe import Data, Image, Recipe, settled
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
    data: Data,
    tell: Listener,
    *,
    divide: bool = True,
    floats: bool = False,
    known: Mapping[str, tuple[str, str]] | None = None,
) -> Prepared:
    """Open, audit and divide the images that a recipe names.

    Args:
        data: the recipe's section; where it holds a fingerprint, the images must still be those.
        divide: whether to give roles; without, all images keep the roles of their source, and one class is enough.
        floats: whether the recipe declares the range of floating-point images, so that they can be read.
        known: class and content of each image by id, as they were, so that a difference can be named.

    Raises:
        DataError: the images cannot be used, or are not those the recipe was made with.
    """
    tell(Message("stage", f"Reading {data.source}"))
    dataset, notes = open_source(
        str(data.source),
        limit=data.limit,
        min_classes=2 if divide else 1,
        images=data.images,
        label=data.label,
        group=data.group,
        split=data.split,
        labels=data.labels,
    )
    if data.channels is not None:
        dataset = _picked(dataset, data.channels)
    dataset, found = audit(
        dataset,
        notes,
        floats=floats,
        progress=lambda done, total: tell(Message("stage", "Checking every image", {"done": done, "total": total})),
    )
    whole, torn = dataset, []
    if divide:
        dataset, torn = drop_torn_groups(dataset)
    if data.fingerprint and dataset.fingerprint != data.fingerprint:
        raise DataError(
            f"The images of {data.source} are not those of the recipe: {_difference(dataset, known or {})}fingerprint "
            f"{dataset.fingerprint[:12]}…, expected {data.fingerprint[:12]}….",
            mend="Put back what was added, removed or changed, or train anew with --set data.fingerprint=null.",
        )
    if torn:
        found = {**found, "notes": [*found["notes"], _torn(whole, dataset, torn)]}
    return _divided(dataset, found, data, tell) if divide else Prepared(dataset, found)


def _divided(dataset: Dataset, found: Mapping[str, Any], data: Data, tell: Listener) -> Prepared:
    """Find what is near to what, keep it on one side, give roles, and record all of it."""
    assert dataset.scan is not None
    near = near_duplicates(
        dataset.scan.sketches,
        dataset.contents,
        progress=lambda done, total: tell(Message("stage", "Comparing images", {"done": done, "total": total})),
    )
    before = dataset
    dataset = assign_roles(dataset, split_seed=data.split_seed, near=near.pairs)
    groups = [name for name in dataset.groups if name]
    record = {
        **found,
        "notes": [*found["notes"], *([near.says()] if near.limited else [])],
        "images": len(dataset),
        "roles": dataset.counts(),
        "near_duplicates": near_records(dataset, near),
        "leaks": leaks(dataset, near),
        "groups": _groups(groups, data.group) if groups else None,
        "suspected_groups": [] if groups else suspected_groups(dataset),
        "split": {"seed": data.split_seed, "says": split_sentence(before, dataset, near.pairs)},
    }
    return Prepared(dataset, record)


def _torn(whole: Dataset, rest: Dataset, groups: Sequence[str]) -> str:
    """A sentence on the images that are left out because a stated split tears their groups."""
    left = [
        f"{count:,} {role}"
        for role in ("train", "tune")
        if (count := len(whole.indices(role)) - len(rest.indices(role)))
    ]
    return (
        f"{' and '.join(left)} images are left out, because their groups also stand on the other side of the split as "
        f"given: {', '.join(groups[:NAMED])}{', …' if len(groups) > NAMED else ''}."
    )


def _picked(dataset: Dataset, channels: tuple[int, ...]) -> Dataset:
    """The images with some pages of multi-page files as their channels; pictures in memory have no pages."""
    pages = dataset.pixels
    return replace(dataset, pixels=replace(pages, pick=channels)) if isinstance(pages, FilePixels) else dataset


def _groups(names: list[str], rule: str | None) -> dict[str, Any]:
    counts = Counter(names)
    return {"rule": rule, "n": len(counts), "largest": max(counts.values())}


def declares_range(recipe: Recipe) -> bool:
    """Whether the recipe says which values of deep images become black and white."""
    return isinstance(recipe.image.range, tuple)


def pixels(dataset: Dataset, image: Image, tell: Listener) -> np.ndarray:
    """The evaluation pixels of all images, uint8 `[N, C, size, size]`, from the cache or decoded now."""
    return pixel_cache(
        dataset,
        size=settled(image.size),
        fit=settled(image.fit),
        channels=settled(image.channels),
        keep=settled(image.keep),
        range=settled(image.range),
        progress=lambda done, total: tell(Message("stage", "Decoding images", {"done": done, "total": total})),
        note=lambda text: tell(Message("note", text)),
    )


def split_csv(dataset: Dataset) -> str:
    """Who plays which part, as `split.csv` holds it."""
    buffer = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(
        buffer, ("id", "role", "class", "group", "sha256"), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(split_rows(dataset))
    return buffer.getvalue()


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
