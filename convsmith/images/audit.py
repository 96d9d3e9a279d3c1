"""Reading every picture once before anything is trained: what is there, what is broken, what is there twice."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from convsmith.errors import DataError
from convsmith.images.dataset import ArrayPixels, Dataset, FilePixels, Pixels, Scan
from convsmith.images.decode import FORMS_SEEN, UnreadableImage, as_array, decode_file
from convsmith.images.examine import Seen, bit_of, look
from convsmith.images.folders import SourceNotes
from convsmith.images.hashes import pixel_hash
from convsmith.images.memory import Memory, Refused, Stamp, stamp_of
from convsmith.images.near import SKETCH
from convsmith.images.readers import look_at_all
from convsmith.images.threads import Progress, in_threads

NAMED = 5  # how many examples a note gives; the full lists are in the record
PATHS = 50  # how many paths the record gives for each form
_CHOICE = "--set "  # in a mend: the picture is sound, and the user has to say how it is meant
_CHUNK = 16  # pictures a thread takes at a time
_BATCH = 2_000  # pictures after which what was read is written to the memory: an interrupted audit keeps them


@dataclass
class _Reading:
    """What reading all pictures gives, by index into the data set."""

    scan: Scan
    hashes: np.ndarray
    pixels: dict[bytes, bytes] = field(default_factory=dict)  # of files that look the same: hash -> that of the pixels
    unreadable: list[tuple[int, Refused]] = field(default_factory=list)
    remembered: int = 0
    notes: list[str] = field(default_factory=list)


def audit(
    dataset: Dataset,
    notes: SourceNotes | None = None,
    *,
    progress: Progress | None = None,
    memory: bool = True,
    floats: bool = False,
) -> tuple[Dataset, dict[str, Any]]:
    """Decode, hash and look at every picture once, drop the unreadable, and record what was found.

    Files are hashed as they are. Where two of them differ but look the same in every figure (size, brightness,
    sharpness), their pixels are hashed too, so that copies in other formats are found: that is a second decode of those
    few. A JPEG of `decode.LUMA` pixels and more a side and its copy in another format have slightly different figures;
    such pairs are found by `images.near`, with a likeness of about 1.

    Args:
        dataset: as a source gives it.
        notes: what the source passed over.
        progress: called with (done, total) after each picture that is read.
        memory: whether files that have not changed since an earlier audit are spared, and those read now remembered.
        floats: whether floating point pictures are taken: only where a range of values is declared.

    Returns:
        The readable images, with content hashes (and so with a fingerprint) and `scan`, and the record `audit.json`:
        `images`, `classes`, `roles` (as they stand: replace it by `dataset.counts()` once roles are assigned), `sizes`,
        `channels`, `unreadable` and `skipped` (path and reason), `duplicates` (ids of equal pictures),
        `label_conflicts` (those of them whose labels differ), `forms` (for each rule of `decode.FORMS_SEEN` that
        touched a picture: how many, the rule, the first paths), `remembered` (how many were not read again), `notes`.

    Raises:
        DataError: nothing, or nothing of some class, can be read.
    """
    found = notes or SourceNotes()
    read = _read_all(dataset, progress, memory=memory, floats=floats)
    kept = np.flatnonzero(read.scan.shapes[:, 0] > 0)
    clean = replace(
        dataset.select(kept), hashes=read.hashes[kept], scan=read.scan.select(kept), twins=_twins(read.pixels)
    )
    _refuse_hollow(dataset, clean, read.unreadable)
    assert clean.scan is not None
    copies = _duplicates(clean)
    torn = [group for group in copies if len({int(clean.targets[i]) for i in group}) > 1]
    numbers = np.bincount(clean.targets, minlength=len(clean.classes))
    channels = np.bincount(clean.scan.shapes[:, 2], minlength=4)
    record = {
        "images": len(clean),
        "classes": dict(zip(clean.classes, numbers.tolist(), strict=True)),
        "roles": {role: counts for role, counts in clean.counts().items() if role},
        "sizes": {"width": _range(clean.scan.shapes[:, 1]), "height": _range(clean.scan.shapes[:, 0])},
        "channels": {"1": int(channels[1]), "3": int(channels[3])},
        "unreadable": [{"path": dataset.ids[i], "reason": refused.reason} for i, refused in read.unreadable],
        "skipped": [{"path": path, "reason": reason} for path, reason in found.skipped],
        "duplicates": [[clean.ids[i] for i in group] for group in copies],
        "label_conflicts": [[clean.ids[i] for i in group] for group in torn],
        "forms": _forms(clean),
        "remembered": read.remembered,
        "notes": [
            *found.notes,
            *_refusals(dataset, read.unreadable),
            *_observations(clean, copies, torn, numbers, channels),
            *read.notes,
        ],
    }
    return clean, record


def _read_all(dataset: Dataset, progress: Progress | None, *, memory: bool, floats: bool) -> _Reading:
    count = len(dataset)
    scan = Scan(
        shapes=np.zeros((count, 3), np.int32),
        brightness=np.zeros(count, np.float32),
        sharpness=np.zeros(count, np.float32),
        sketches=np.zeros((count, SKETCH), np.uint8),
        forms=np.zeros(count, np.uint32),
        bytes=np.zeros(count, np.int64),
    )
    reading = _Reading(scan, np.zeros((count, 32), np.uint8))
    if isinstance(dataset.pixels, FilePixels):
        _read_files(dataset.pixels, dataset.rows, reading, progress, memory=memory, floats=floats)
    else:
        _read_arrays(dataset.pixels, dataset.rows, reading, progress)
    return reading


def _read_arrays(pixels: Pixels, rows: np.ndarray, reading: _Reading, progress: Progress | None) -> None:
    small = isinstance(pixels, ArrayPixels) and pixels.images[0].size < 2**16  # threads would only cost time

    def see(i: int) -> Seen | Refused:
        try:
            return look(pixels.read(int(rows[i])))
        except UnreadableImage as error:
            return Refused(error.reason, error.mend)

    results = map(see, range(len(rows))) if small else in_threads(see, len(rows), progress, chunk=_CHUNK)
    for i, seen in enumerate(results):
        _enter(reading, i, seen)
        reading.scan.bytes[i] = np.prod(reading.scan.shapes[i])
    if small and progress is not None:
        progress(len(rows), len(rows))


def _read_files(
    pixels: FilePixels, rows: np.ndarray, reading: _Reading, progress: Progress | None, *, memory: bool, floats: bool
) -> None:
    names = [pixels.names[row] for row in rows.tolist()]
    root = os.fspath(pixels.root)
    paths = [f"{root}{os.sep}{name}" for name in names]
    stamps = [stamp_of(path) for path in paths]
    reading.scan.bytes[:] = [0 if stamp is None else stamp.size for stamp in stamps]
    kept = Memory(pixels.root, pick=pixels.pick, floats=floats) if memory else None
    fresh: list[tuple[str, Stamp, Seen | Refused]] = []
    try:
        known = {} if kept is None else kept.recall(names, stamps)
        for i, seen in known.items():
            _enter(reading, i, seen)
        reading.remembered = len(known)
        left = [i for i in range(len(names)) if i not in known]
        if not left and progress is not None:
            progress(len(names), len(names))
        looks = look_at_all([paths[i] for i in left], pixels.pick, floats)
        with closing(looks):  # an error in between, or Ctrl-C, must not leave readers behind
            for done, (i, (seen, lasting)) in enumerate(zip(left, looks, strict=True), start=len(known) + 1):
                _enter(reading, i, seen)
                stamp = stamps[i]
                if kept is not None and stamp is not None and lasting:
                    fresh.append((names[i], stamp, seen))
                    if len(fresh) == _BATCH:
                        kept.remember(fresh)
                        fresh = []
                if progress is not None:
                    progress(done, len(names))
        fresh += [
            (names[i], stamp, seen) for i, seen in _tell_apart(paths, pixels.pick, reading) if (stamp := stamps[i])
        ]
    finally:
        if kept is not None:
            kept.remember(fresh)
            kept.close()
            reading.notes.extend(kept.notes)
    reading.unreadable.sort(key=lambda item: item[0])


def _enter(reading: _Reading, i: int, seen: Seen | Refused) -> None:
    if isinstance(seen, Refused):
        reading.unreadable.append((i, seen))
        return
    scan = reading.scan
    scan.shapes[i], scan.forms[i] = seen.shape, seen.forms
    scan.brightness[i], scan.sharpness[i] = seen.brightness, seen.sharpness
    scan.sketches[i] = np.frombuffer(seen.sketch, np.uint8)
    reading.hashes[i] = np.frombuffer(seen.content, np.uint8)
    if seen.pixels:
        reading.pixels[seen.content] = seen.pixels


def _tell_apart(paths: list[str], pick: tuple[int, ...] | None, reading: _Reading) -> list[tuple[int, Seen]]:
    """Hash the pixels of files that look like another one, where they are not known yet; what is to be remembered."""
    wanted = [i for i in _lookalikes(reading) if reading.hashes[i].tobytes() not in reading.pixels]

    def pixels_of(k: int) -> bytes:
        try:
            read = decode_file(paths[wanted[k]], pick)
        except UnreadableImage:  # gone meanwhile, or out of reach: whoever reads it next is told
            return b""
        unchanged = read.content == reading.hashes[wanted[k]].tobytes()
        return pixel_hash(as_array(read.picture)) if unchanged else b""

    told = []
    for i, pixels in zip(wanted, in_threads(pixels_of, len(wanted), chunk=_CHUNK), strict=True):
        if pixels:
            content, scan = reading.hashes[i].tobytes(), reading.scan
            height, width, channels = scan.shapes[i].tolist()
            figures = (scan.sketches[i].tobytes(), float(scan.brightness[i]), float(scan.sharpness[i]))
            reading.pixels[content] = pixels
            told.append((i, Seen((height, width, channels), content, *figures, int(scan.forms[i]), pixels)))
    return told


def _lookalikes(reading: _Reading) -> list[int]:
    """Find files of different bytes that are equal in size, brightness and sharpness; of equal files the first."""
    scan = reading.scan
    rows = np.flatnonzero(scan.shapes[:, 0] > 0)
    columns = (scan.shapes[rows], scan.brightness[rows, None], scan.sharpness[rows, None])
    figures = np.concatenate([np.ascontiguousarray(column).view(np.uint32) for column in columns], axis=1)
    _, group, size = np.unique(_as_keys(figures), return_inverse=True, return_counts=True)
    alike: dict[int, dict[bytes, int]] = defaultdict(dict)
    for k in np.flatnonzero(size[group] > 1).tolist():
        alike[int(group[k])].setdefault(reading.hashes[rows[k]].tobytes(), int(rows[k]))
    return sorted(i for files in alike.values() if len(files) > 1 for i in files.values())


def _as_keys(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows).view(f"V{rows.shape[1] * rows.itemsize}").reshape(-1)


def _twins(pixels: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Name, for every file whose pixels are those of other files too, the least of their hashes."""
    files: dict[bytes, list[bytes]] = defaultdict(list)
    for content, seen in pixels.items():
        files[seen].append(content)
    return {content: min(same) for same in files.values() if len(same) > 1 for content in same}


def _forms(dataset: Dataset) -> dict[str, dict[str, Any]]:
    assert dataset.scan is not None
    forms = {}
    for name, rule in FORMS_SEEN.items():
        touched = np.flatnonzero(dataset.scan.forms & bit_of(name)).tolist()
        if touched:
            forms[name] = {"n": len(touched), "rule": rule, "paths": [dataset.ids[i] for i in touched[:PATHS]]}
    return forms


def _refuse_hollow(dataset: Dataset, clean: Dataset, unreadable: list[tuple[int, Refused]]) -> None:
    before, after = (set(np.unique(one.targets).tolist()) for one in (dataset, clean))
    lost = [dataset.classes[target] for target in sorted(before - after)]
    if lost or not len(clean):
        of_lost = [(i, refused) for i, refused in unreadable if int(dataset.targets[i]) in before - after]
        example, choice = "", ""
        if of_lost:
            i, refused = of_lost[0]
            example = f" ({dataset.ids[i]}: {refused.reason})"
            choice = refused.mend if _CHOICE in refused.mend else ""
        of = f"of class {', '.join(lost)} " if len(clean) else ""
        raise DataError(
            f"Not one image {of}in {dataset.source} can be read{example}.",
            mend=choice or "Replace the files, or remove the folder.",
        )


def _duplicates(dataset: Dataset) -> list[list[int]]:
    assert dataset.contents is not None
    groups: dict[bytes, list[int]] = defaultdict(list)
    for i, content in enumerate(dataset.contents):
        groups[content.tobytes()].append(i)
    return [group for group in groups.values() if len(group) > 1]


def _refusals(dataset: Dataset, unreadable: list[tuple[int, Refused]]) -> list[str]:
    """Say how many could not be read, and what choice of the user's would let some of them be."""
    if not unreadable:
        return []
    notes = [f"{len(unreadable)} unreadable image(s) left out, such as {dataset.ids[unreadable[0][0]]}."]
    waiting: dict[str, list[int]] = defaultdict(list)
    for i, refused in unreadable:
        if _CHOICE in refused.mend:
            waiting[refused.mend].append(i)
    for mend, indices in list(waiting.items())[:NAMED]:
        notes.append(f"{len(indices)} of them, such as {dataset.ids[indices[0]]}, wait for a choice. {mend}")
    return notes


def _observations(
    dataset: Dataset, copies: list[list[int]], torn: list[list[int]], numbers: np.ndarray, channels: np.ndarray
) -> list[str]:
    notes = []
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
    assert dataset.scan is not None
    moving = np.flatnonzero(dataset.scan.forms & bit_of("animated"))
    if len(moving):
        notes.append(f"{len(moving)} animation(s), such as {dataset.ids[moving[0]]}: the first frame is taken.")
    return notes


def _trains(dataset: Dataset, group: list[int]) -> bool:
    return any(dataset.roles[i] == "train" for i in group)


def _range(values: np.ndarray) -> dict[str, int]:
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
