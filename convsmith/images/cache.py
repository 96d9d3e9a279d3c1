"""Evaluation pixels of a whole data set, decoded once and mapped from disk ever after."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from convsmith.errors import ResourceError
from convsmith.images.dataset import ArrayPixels, Dataset, FilePixels
from convsmith.images.decode import RULES, decoder
from convsmith.images.fitting import Fit, evaluation_pixels
from convsmith.images.places import cache_folder
from convsmith.images.threads import Progress, in_threads

SPARE = 64 * 2**20  # bytes that must stay free on the disk: a run's own records have to fit beside the cache
SAMPLES = 8  # images of a cache found on disk that are decoded again and compared before it is trusted


def pixel_cache(
    dataset: Dataset,
    *,
    size: int,
    fit: Fit,
    channels: int,
    keep: float = 1.0,
    range: tuple[float, float] | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> np.ndarray:
    """Give the evaluation pixels of every image, in the order of the data set.

    Pictures in memory that already fit are laid out in memory. All else is made once, in parallel, into a file named by
    a hash of the pictures' contents in order, what is picked of them, the size, fit and channels, the version of the
    rules and the decoder; a later call maps it after checking its length and a sample of its pictures. Writing goes to
    a temporary name and is renamed, so a broken build leaves nothing behind.

    Args:
        dataset: audited.
        size, fit, channels, keep, range: as in `evaluation_pixels`.
        folder: where caches lie; by default `$CONVSMITH_CACHE/pixels` or `~/.cache/convsmith/pixels`.
        progress: called with (done, total) after each picture that is made.
        note: called with a sentence where the folder cannot be written and the pixels stay in memory.

    Returns:
        uint8 `[N, channels, size, size]`, C-contiguous, read-only.

    Raises:
        DataError: a file is gone or has changed since the audit; values beyond 8 bits without a range.
        UsageError: a `keep` or a range that makes no sense.
        ResourceError: the disk, or memory in its place, is too small.
    """
    shape = (len(dataset), channels, size, size)
    given = dataset.pixels.images if isinstance(dataset.pixels, ArrayPixels) else None
    if given is not None and given.shape[1:] == (size, size, channels) and keep == 1:
        return _frozen(np.ascontiguousarray(given[dataset.rows].transpose(0, 3, 1, 2)))
    if dataset.hashes is None:
        raise ValueError("pixel_cache needs an audited data set: pass it through images.audit first")

    def make(i: int) -> np.ndarray:
        seen = evaluation_pixels(dataset.read(i), size=size, fit=fit, channels=channels, keep=keep, range=range)
        return seen.transpose(2, 0, 1)

    place = folder if folder is not None else cache_folder() / "pixels"
    path = place / f"{_key(dataset, size, fit, channels, keep, range)}.npy"
    found = _open(path, shape, make)
    if found is not None:
        return found
    _refuse_small_disk(place, shape)
    try:
        _write(path, shape, in_threads(make, len(dataset), progress))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _disk_full(place, shape) from error
        if note is not None:
            note(f"{place} cannot be written ({error.strerror}): pixels stay in memory and are made anew by each run.")
        return _in_memory(shape, in_threads(make, len(dataset), progress))
    return np.load(path, mmap_mode="r")


def _key(dataset: Dataset, size: int, fit: str, channels: int, keep: float, range: tuple[float, float] | None) -> str:
    """Name what is in a cache: contents rather than the fingerprint, so that renaming a class costs nothing.

    Of files the contents are bytes, so what makes pixels of them belongs to the name.
    """
    assert dataset.hashes is not None
    more = ("" if keep == 1 else f" keep {keep}") + (
        "" if range is None else f" range {float(range[0])} {float(range[1])}"
    )
    if isinstance(dataset.pixels, FilePixels):
        more += f" pick {dataset.pixels.pick} {decoder()}"
    digest = hashlib.sha256(f"{RULES} {size} {fit} {channels}{more}\n".encode())
    digest.update(np.ascontiguousarray(dataset.hashes).data)
    return digest.hexdigest()[:32]


def _open(path: Path, shape: tuple[int, ...], make: Callable[[int], np.ndarray]) -> np.ndarray | None:
    """Map a cache that is whole and holds what it should; `None` where there is none, or it has to be made again."""
    try:
        pixels = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # none, or cut short, or no longer an array
        return None
    if pixels.shape != shape or pixels.dtype != np.uint8 or not pixels.flags.c_contiguous:
        return None
    sample = np.unique(np.linspace(0, len(pixels) - 1, SAMPLES).astype(int)).tolist()
    return pixels if all(np.array_equal(pixels[i], make(i)) for i in sample) else None


def _refuse_small_disk(place: Path, shape: tuple[int, ...]) -> None:
    existing = next((folder for folder in (place, *place.parents) if folder.is_dir()), None)
    if existing is None or not os.access(existing, os.W_OK):
        return  # memory will have to do
    if shutil.disk_usage(existing).free < np.prod(shape, dtype=np.int64) + SPARE:
        raise _disk_full(place, shape)


def _disk_full(place: Path, shape: tuple[int, ...]) -> ResourceError:
    megabytes = (int(np.prod(shape, dtype=np.int64)) + SPARE) / 2**20
    return ResourceError(
        f"{shape[0]:,} images of {shape[2]} x {shape[3]} need {megabytes:,.0f} MB free in {place}, which has less.",
        mend="Free some, set CONVSMITH_CACHE to a folder on another disk, or choose a smaller image size.",
    )


def _write(path: Path, shape: tuple[int, ...], images: Iterator[np.ndarray]) -> None:
    """Write in order through an ordinary file: a full disk is then an error, and not the death of the process, which
    is what writing through a memory map gives."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, suffix=".tmp", delete=False) as stream:
            temporary = Path(stream.name)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(stream, header)
            for image in images:
                stream.write(image.tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        images.close()  # type: ignore[attr-defined]


def _in_memory(shape: tuple[int, ...], images: Iterator[np.ndarray]) -> np.ndarray:
    try:
        pixels = np.empty(shape, np.uint8)
    except MemoryError as error:
        raise ResourceError(
            f"{shape[0]:,} images of {shape[2]} x {shape[3]} do not fit in memory.",
            mend="Set CONVSMITH_CACHE to a folder that can be written, or choose a smaller image size.",
        ) from error
    for i, image in enumerate(images):
        pixels[i] = image
    return _frozen(pixels)


def _frozen(pixels: np.ndarray) -> np.ndarray:
    pixels.flags.writeable = False
    return pixels
