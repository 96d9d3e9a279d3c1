"""From what the user named to images that are audited, divided into roles, and decoded to the network's size."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convsmith.errors import DataError, UsageError
from convsmith.images import (
    ROLES,
    Dataset,
    FilePixels,
    Near,
    absent_classes,
    assign_by_time,
    assign_fold,
    assign_roles,
    audit,
    drop_torn_groups,
    fold_notes,
    fold_numbers,
    fold_sentence,
    leaks,
    near_duplicates,
    near_records,
    open_source,
    pixel_cache,
    split_rows,
    split_sentence,
    suspected_groups,
    time_sentence,
    without_given_test,
)
from convsmith.pipeline.messages import Listener, Message
from convsmith.recipe import Data, Image, Recipe, settled
from convsmith.run_folder import RunFolder

NAMED = 3
STAYS, LEAKED = "it stays in train", "image(s) of test are also in train"
"""Notes of the audit: on a class of one image, which holds of splits by class alone; and on a given test set."""


@dataclass(frozen=True)
class Prepared:
    """A data set that has been looked at.

    Args:
        dataset: readable images with roles.
        audit: what was found, as `audit.json` holds it.
    """

    dataset: Dataset
    audit: Mapping[str, Any]


@dataclass(frozen=True)
class Examined:
    """Images that have been looked at and not divided yet: what all folds of a cross-validation share.

    Args:
        dataset: readable images with the roles of their source; for folds without a given test set.
        audit: what was found, as `images.audit` records it.
        near: near duplicates among them.
        aside: images of a given test set that were set aside, out of all folds.
    """

    dataset: Dataset
    audit: Mapping[str, Any]
    near: Near
    aside: int = 0


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
        UsageError: folds that are asked for, and not which of them is tested.
        DataError: the images cannot be used, or are not those the recipe was made with.
    """
    if not divide:
        return Prepared(*_read(data, tell, divide=False, floats=floats, known=known)[:2])
    refuse_senseless(data)
    if data.folds is not None and data.fold is None:
        raise UsageError(
            f"The recipe asks for {data.folds} folds, and one run tests one of them.",
            mend=f"Say which: data.fold=1 to {data.folds}; or make all: convsmith train DATA --folds {data.folds}.",
        )
    return divided(examine(data, tell, floats=floats, known=known), data)


def refuse_senseless(data: Data) -> None:
    """Hold the keys that divide images against each other, before anything is read.

    Raises:
        UsageError: keys that need another one, or exclude it.
    """
    if data.folds is None and (data.fold or data.repeat or data.repeats):
        raise UsageError("The recipe names a fold or repeats, but no folds.", mend="Add --folds N.")
    if data.folds is not None and data.fold is not None and data.fold > data.folds:
        raise UsageError(f"There is no fold {data.fold} of {data.folds}.", mend=f"Use data.fold=1 to {data.folds}.")
    if data.folds is not None and data.time is not None:
        raise UsageError(
            "--time reports on the latest images, and --folds on all of them in turn: they exclude each other.",
            mend="Leave one of them out.",
        )


def examine(
    data: Data, tell: Listener, *, floats: bool = False, known: Mapping[str, tuple[str, str]] | None = None
) -> Examined:
    """Open and audit the images that a recipe names, and find near duplicates; arguments and errors as of `prepare`."""
    dataset, found, aside = _read(data, tell, divide=True, floats=floats, known=known)
    assert dataset.scan is not None
    near = near_duplicates(
        dataset.scan.sketches,
        dataset.contents,
        progress=lambda done, total: tell(Message("stage", "Comparing images", {"done": done, "total": total})),
    )
    return Examined(dataset, found, near, aside)


def _read(
    data: Data, tell: Listener, *, divide: bool, floats: bool, known: Mapping[str, tuple[str, str]] | None
) -> tuple[Dataset, Mapping[str, Any], int]:
    """Open and audit; where they are to be divided, leave out what must not take part. Also how many were set aside."""
    tell(Message("stage", f"Reading {data.source}"))
    dataset, notes = open_source(
        str(data.source),
        limit=data.limit,
        min_classes=2 if divide else 1,
        images=data.images,
        label=data.label,
        group=data.group,
        split=data.split,
        time=data.time,
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
    read, torn, aside = dataset, [], 0
    if divide and data.folds is not None:
        dataset, aside = without_given_test(dataset)
    whole = dataset
    if divide:
        dataset, torn = drop_torn_groups(dataset)
    # A recipe made before there were folds knows the images with their test set.
    if data.fingerprint and data.fingerprint not in {dataset.fingerprint, read.fingerprint if aside else ""}:
        raise DataError(
            f"The images of {data.source} are not those of the recipe: {_difference(dataset, known or {})}fingerprint "
            f"{dataset.fingerprint[:12]}…, expected {data.fingerprint[:12]}….",
            mend="Put back what was added, removed or changed, or train anew with --set data.fingerprint=null.",
        )
    if torn:
        found = {**found, "notes": [*found["notes"], _torn(whole, dataset, torn)]}
    if aside:
        found = _aside(found, dataset, aside)
    return dataset, found, aside


def divided(examined: Examined, data: Data, numbers: np.ndarray | None = None) -> Prepared:
    """Give roles, by class, by time or by fold, and record all that was found.

    Args:
        examined: the images.
        data: the recipe's section; of folds it names one.
        numbers: the fold of each image, of `folds_of`, where it is known already.
    """
    before, near = examined.dataset, examined.near
    notes, seed = list(examined.audit["notes"]), data.split_seed
    if data.folds is not None:
        assert data.fold is not None
        repeat = data.repeat or 1
        numbers = folds_of(examined, data, repeat) if numbers is None else numbers
        drawn = seed if repeat == 1 else f"{seed} {repeat}"
        dataset = assign_fold(before, numbers, data.fold, split_seed=drawn, near=near.pairs)
        says = fold_sentence(before, dataset, data.folds, data.fold, repeat, near.pairs)
        notes = [note for note in notes if STAYS not in note] + fold_notes(before, numbers, data.folds)
    elif before.times:
        dataset = assign_by_time(before, near=near.pairs)
        says = time_sentence(before, dataset, near.pairs)
        notes = [note for note in notes if STAYS not in note] + list(filter(None, [absent_classes(dataset)]))
    else:
        dataset = assign_roles(before, split_seed=seed, near=near.pairs)
        says = split_sentence(before, dataset, near.pairs)
    groups = [name for name in dataset.groups if name]
    record = {
        **examined.audit,
        "notes": [*notes, *([near.says()] if near.limited else [])],
        "images": len(dataset),
        "roles": dataset.counts(),
        "near_duplicates": near_records(dataset, near),
        "leaks": leaks(dataset, near),
        "groups": _groups(groups, data.group) if groups else None,
        "suspected_groups": [] if groups else suspected_groups(dataset),
        "split": {"seed": seed, "says": says},
    }
    return Prepared(dataset, record)


def folds_of(examined: Examined, data: Data, repeat: int) -> np.ndarray:
    """The fold of each image in one drawing of the folds, int64 `[N]`, from 1; 0 for given tune images."""
    assert data.folds is not None
    return fold_numbers(
        examined.dataset, data.folds, repeat=repeat, split_seed=data.split_seed, near=examined.near.pairs
    )


def _aside(found: Mapping[str, Any], rest: Dataset, aside: int) -> dict[str, Any]:
    """What was found, of the images that are left when a given test set is set aside."""
    left, counts = set(rest.ids), np.bincount(rest.targets, minlength=len(rest.classes)).tolist()
    copies = {
        key: [same for ids in found[key] if len(same := [name for name in ids if name in left]) > 1]
        for key in ("duplicates", "label_conflicts")
    }
    said = f"The given test set, {aside:,} images, stays aside: no fold holds any of it."
    notes = [*(note for note in found["notes"] if LEAKED not in note), said]
    return {**found, **copies, "classes": dict(zip(rest.classes, counts, strict=True)), "notes": notes}


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
