"""IDX, the format of MNIST: a header of big-endian sizes, then raw bytes; plain or gzipped.

Source: the description at the foot of LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

from convsmith.errors import DataError
from convsmith.images.dataset import Dataset
from convsmith.images.decode import shown

_IMAGES = re.compile(r"(?:^|.*[-_])(train|t10k|test)[-_.]images[-_.]idx3[-_.]ubyte(?:\.gz)?", re.IGNORECASE)
_UNSIGNED_BYTES = 0x08
_DEFLATE_AT_MOST = 1032  # bytes out per byte in, the format's bound (RFC 1951)


def read_idx(path: Path, *, sha256: str = "") -> np.ndarray:
    """Read one IDX file of unsigned bytes.

    Args:
        path: the file; gzipped where its name ends in `.gz`.
        sha256: what the bytes after the header must hash to, in hex; empty for no check. Plain and gzipped copies,
            whoever compressed them, are so held to the same.

    Returns:
        uint8, of the shape that the header states.

    Raises:
        DataError: no IDX file, another type of number, not as many bytes as the header states, or another checksum.
    """
    name = shown(str(path))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            magic = stream.read(4)
            if len(magic) < 4 or magic[:3] != bytes([0, 0, _UNSIGNED_BYTES]) or not 1 <= magic[3] <= 4:
                raise DataError(
                    f"{name} is not an IDX file of unsigned bytes: it begins with {magic.hex() or 'nothing'}."
                )
            sizes = stream.read(4 * magic[3])
            shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
            most = path.stat().st_size * (_DEFLATE_AT_MOST if path.suffix == ".gz" else 1)
            content = stream.read(min(prod(shape), most) + 1)  # a header may claim any size, and reading reserves it
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} cannot be read: {error}.", mend="Copy or download it again.") from error
    if len(sizes) < 4 * magic[3] or len(content) != prod(shape):
        has = f"{len(content):,}" if len(content) <= prod(shape) else "more"
        raise DataError(
            f"{name} states {list(shape)}, {prod(shape):,} bytes, but holds {has}.", mend="Copy or download it again."
        )
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{name} is not the published file: its checksum differs.", mend="Remove it and try again.")
    return np.frombuffer(content, np.uint8).reshape(shape)


def idx_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Find the pairs of images and labels in a folder.

    Returns:
        role (`train`, `test`) to the paths of its images and its labels; empty where the folder holds no IDX images.

    Raises:
        DataError: images without their labels, or two files for one role.
    """
    found: dict[str, tuple[Path, Path]] = {}
    names = {entry.name: entry for entry in sorted(folder.iterdir()) if entry.is_file()}
    for name, path in names.items():
        match = _IMAGES.fullmatch(name)
        if match is None:
            continue
        wanted = re.sub(r"images([-_.])idx3", r"labels\1idx1", name, flags=re.IGNORECASE)
        labels = names.get(wanted) or names.get(wanted.removesuffix(".gz")) or names.get(wanted + ".gz")
        role = "train" if match[1].lower() == "train" else "test"
        if labels is None:
            raise DataError(f"{shown(str(path))} has no labels beside it.", mend=f"Put {wanted} into the same folder.")
        kept = found.setdefault(role, (path, labels))[0]  # of a plain and a gzipped copy, the plain one: it sorts first
        if kept.name.removesuffix(".gz") != name.removesuffix(".gz"):
            raise DataError(f"{shown(str(folder))} holds both {kept.name} and {name}.", mend="Keep one.")
    return {role: found[role] for role in ("train", "test") if role in found}


def open_idx(
    folder: Path,
    *,
    name: str,
    source: str,
    classes: tuple[str, ...] | None = None,
    checksums: Mapping[str, str] | None = None,
) -> Dataset:
    """Read a folder of IDX files as a data set; `train-*` and `t10k-*` (or `test-*`) give the roles.

    Args:
        folder: where they lie.
        name: the first part of the ids: `<name>/train/00000`.
        source: what was asked for.
        classes: names in the order of the labels; by default the labels themselves, as numbers.
        checksums: file name without `.gz` to what `read_idx` takes as `sha256`; by default nothing is checked.

    Raises:
        DataError: files missing or damaged, sides that differ, labels and images that are not one each.
    """
    files, known = idx_files(folder), checksums or {}
    images, labels, ids, roles = [], [], [], []
    for role, (image_path, label_path) in files.items():
        pictures, numbers = (
            read_idx(path, sha256=known.get(path.name.removesuffix(".gz"), "")) for path in (image_path, label_path)
        )
        if pictures.ndim != 3 or numbers.shape != pictures.shape[:1]:
            raise DataError(f"{shown(str(image_path))} holds {list(pictures.shape)}, its labels {list(numbers.shape)}.")
        images.append(pictures)
        labels.append(numbers)
        ids += [f"{name}/{role}/{i:05d}" for i in range(len(pictures))]
        roles += [role if len(files) == 2 or role == "test" else ""] * len(pictures)
    if len({pictures.shape[1:] for pictures in images}) != 1:
        raise DataError(f"{shown(str(folder))}: train and test differ in size.", mend="Put files of one set together.")
    numbers = np.concatenate(labels)
    present = np.unique(numbers)
    if classes is None:
        classes = tuple(str(number) for number in present)
        numbers = np.searchsorted(present, numbers)
    elif present[-1] >= len(classes):
        raise DataError(f"{shown(str(folder))}: label {present[-1]}, but {name} has {len(classes)} classes.")
    return Dataset.from_arrays(np.concatenate(images), numbers, classes, ids=ids, roles=roles, source=source)
