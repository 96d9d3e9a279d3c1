"""Reading every picture once before anything is trained: what is there, what is broken, what is there twice."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from convsmith.errors import DataError
from convsmith.images.dataset import ArrayPixels, Dataset
from convsmith.images.decode import UnreadableImage, pixel_hash
from convsmith.images.folders import SourceNotes
from convsmith.images.threads import Progress, in_threads

NAMED = 5  # how many examples a note gives; the full lists are in the record


def audit(
    dataset: Dataset, notes: SourceNotes | None = None, *, progress: Progress | None = None
) -> tuple[Dataset, dict[str, Any]]:
    """Decode and hash every picture, drop the unreadable, and record what was found.

    Args:
        dataset: as a source gives it.
        notes: what the source passed over.
        progress: called with (done, total) after each picture.

    Returns:
        The readable images, with content hashes and so with a fingerprint, and the record `audit.json`: `images`,
        `classes`, `roles` (as they stand: replace it by `dataset.counts()` once roles are assigned), `sizes`,
        `channels`, `unreadable`, `skipped`, `duplicates` (ids of equal pictures), `notes`.

    Raises:
        DataError: nothing, or nothing of some class, can be read.
    """
    found = notes or SourceNotes()
    shapes, hashes, unreadable = _read_all(dataset, progress)
    kept = np.flatnonzero(shapes[:, 0] > 0)
    clean = replace(dataset.select(kept), hashes=hashes[kept])
    _refuse_hollow(dataset, clean, unreadable)
    copies = _duplicates(clean)
    numbers = np.bincount(clean.targets, minlength=len(clean.classes))
    channels = np.bincount(shapes[kept, 2], minlength=4)
    record = {
        "images": len(clean),
        "classes": dict(zip(clean.classes, numbers.tolist(), strict=True)),
        "roles": {role: counts for role, counts in clean.counts().items() if role},
        "sizes": {"width": _range(shapes[kept, 1]), "height": _range(shapes[kept, 0])},
        "channels": {"1": int(channels[1]), "3": int(channels[3])},
        "unreadable": unreadable,
        "skipped": [{"path": path, "reason": reason} for path, reason in found.skipped],
        "duplicates": [[clean.ids[i] for i in group] for group in copies],
        "notes": [*found.notes, *_observations(clean, copies, numbers, channels, unreadable)],
    }
    return clean, record


def _read_all(dataset: Dataset, progress: Progress | None) -> tuple[np.ndarray, np.ndarray, list[dict[str, str]]]:
    """Return shapes int64 `[N, 3]` (zeros where unreadable), hashes uint8 `[N, 32]`, and the unreadable."""
    shapes = np.zeros((len(dataset), 3), np.int64)
    hashes = np.zeros((len(dataset), 32), np.uint8)
    unreadable = []

    def examine(i: int) -> tuple[tuple[int, ...], bytes] | UnreadableImage:
        try:
            image = dataset.pixels.read(int(dataset.rows[i]))
        except UnreadableImage as error:
            return error
        return image.shape, pixel_hash(image)

    in_memory = isinstance(dataset.pixels, ArrayPixels)  # nothing to decode: threads would only cost time
    results = map(examine, range(len(dataset))) if in_memory else in_threads(examine, len(dataset), progress)
    for i, result in enumerate(results):
        if isinstance(result, UnreadableImage):
            unreadable.append({"path": dataset.ids[i], "reason": result.reason})
        else:
            shapes[i] = result[0]
            hashes[i] = np.frombuffer(result[1], np.uint8)
    if in_memory and progress is not None:
        progress(len(dataset), len(dataset))
    return shapes, hashes, unreadable


def _refuse_hollow(dataset: Dataset, clean: Dataset, unreadable: list[dict[str, str]]) -> None:
    before, after = (set(np.unique(one.targets).tolist()) for one in (dataset, clean))
    lost = [dataset.classes[target] for target in sorted(before - after)]
    if lost or not len(clean):
        example = f" ({unreadable[0]['path']}: {unreadable[0]['reason']})" if unreadable else ""
        of = f"of class {', '.join(lost)} " if len(clean) else ""
        raise DataError(
            f"Not one image {of}in {dataset.source} can be read{example}.",
            mend="Replace the files, or remove the folder.",
        )


def _duplicates(dataset: Dataset) -> list[list[int]]:
    assert dataset.hashes is not None
    groups: dict[bytes, list[int]] = defaultdict(list)
    for i, content in enumerate(dataset.hashes):
        groups[content.tobytes()].append(i)
    return [group for group in groups.values() if len(group) > 1]


def _observations(
    dataset: Dataset,
    copies: list[list[int]],
    numbers: np.ndarray,
    channels: np.ndarray,
    unreadable: list[dict[str, str]],
) -> list[str]:
    notes = []
    if unreadable:
        notes.append(f"{len(unreadable)} unreadable image(s) left out, such as {unreadable[0]['path']}.")
    torn = [group for group in copies if len({int(dataset.targets[i]) for i in group}) > 1]
    if torn:
        examples = "; ".join(" = ".join(dataset.ids[i] for i in group) for group in torn[:NAMED])
        notes.append(f"{len(torn)} picture(s) appear under different labels, so one is wrong: {examples}.")
    for other in ("test", "tune"):
        leaked = [i for group in copies for i in group if dataset.roles[i] == other and _trains(dataset, group)]
        if leaked:
            examples = ", ".join(dataset.ids[i] for i in leaked[:NAMED])
            notes.append(f"{len(leaked)} image(s) of {other} are also in train, pixel for pixel: {examples}.")
    for target in np.flatnonzero(numbers == 1):
        name = dataset.classes[target]
        notes.append(f"Class {name} has one image: it stays in train where the split is ours, and is never tested.")
    if channels[1] and channels[3]:
        notes.append(f"{int(channels[1])} grey image(s) among {int(channels[3])} in colour: they are read as colour.")
    return notes


def _trains(dataset: Dataset, group: list[int]) -> bool:
    return any(dataset.roles[i] == "train" for i in group)


def _range(values: np.ndarray) -> dict[str, int]:
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
