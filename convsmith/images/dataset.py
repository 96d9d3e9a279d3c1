"""Labelled images as one frozen value: who they are, what they are, what part they play, and how to read them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from convsmith.errors import DataError
from convsmith.images.decode import as_array, decode, decode_file

ROLES = ("train", "tune", "test")


class Pixels(Protocol):
    """Where the pictures of a data set lie, by row."""

    def read(self, row: int) -> np.ndarray:
        """Return `[H, W, C]`, as `decode` does."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayPixels:
    """Pictures in memory.

    Args:
        images: uint8 `[N, H, W, C]`, C in {1, 3}.
    """

    images: np.ndarray

    def read(self, row: int) -> np.ndarray:
        return self.images[row]


@dataclass(frozen=True, eq=False)
class FilePixels:
    """Pictures in files, decoded each time they are read.

    Args:
        root: the folder that the names are relative to.
        names: one relative path per row, as the file system gives them.
        pick: the planes that become the channels, as in `decode`; `None` takes each picture as it is.
    """

    root: Path
    names: tuple[str, ...]
    pick: tuple[int, ...] | None = None

    def read(self, row: int) -> np.ndarray:
        return decode(self.path(row), pick=self.pick)

    def read_hashed(self, row: int) -> tuple[np.ndarray, bytes]:
        """Read likewise, and give the SHA-256 of the bytes that were decoded with it."""
        read = decode_file(self.path(row), self.pick)
        return as_array(read.picture), read.content

    def path(self, row: int) -> Path:
        return self.root / self.names[row]


@dataclass(frozen=True, eq=False)
class Scan:
    """What the audit saw of each picture, aligned with the ids of its data set.

    Args:
        shapes: int32 `[N, 3]`, height, width and channels.
        brightness: float32 `[N]`, mean ITU-R 601 luma, 0 to 1 (of floating point pictures the mean value itself).
        sharpness: float32 `[N]`, variance of the Laplacian of the luma; see `images.examine`.
        sketches: uint8 `[N, SKETCH]`, what near duplicates are told by; see `images.near`.
        forms: uint32 `[N]`, bit k is set where the k-th rule of `decode.FORMS_SEEN` touched the picture.
        bytes: int64 `[N]`, size of the file; of a picture in memory the size of its pixels.
    """

    shapes: np.ndarray
    brightness: np.ndarray
    sharpness: np.ndarray
    sketches: np.ndarray
    forms: np.ndarray
    bytes: np.ndarray

    def select(self, indices: np.ndarray) -> Self:
        """Keep some pictures, in the order given."""
        return type(self)(**{field.name: getattr(self, field.name)[indices] for field in fields(self)})


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels and roles. Selections share the pixels and copy none.

    Args:
        ids: a stable, unique name per image: `digits/0001`, or the path below the root, as `path_to_id` writes it.
        targets: int64 `[N]`, index into `classes`.
        classes: names in the order of the indices.
        roles: per image `train`, `tune` or `test`; empty where the source states none and no split was made.
        groups: per image the patient, part or film it belongs to; empty for none.
        source: what was asked for.
        pixels: where the pictures lie.
        rows: int64 `[N]`, the row of each image in `pixels`.
        hashes: uint8 `[N, 32]`, SHA-256 of each image: of a file its bytes, so that no decoder's version matters; of a
            picture in memory its pixels, as `pixel_hash` takes it. `None` until the audit has read them.
        twins: the hashes of files whose pixels equal another file's, each with the one that stands for both.
        scan: what else the audit saw; `None` until then.
        times: per image when it was taken, as `images.times` reads it, empty for unknown; none at all where nobody
            asked for them.
    """

    ids: tuple[str, ...]
    targets: np.ndarray
    classes: tuple[str, ...]
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    source: str
    pixels: Pixels
    rows: np.ndarray
    hashes: np.ndarray | None = None
    scan: Scan | None = None
    twins: Mapping[bytes, bytes] = field(default_factory=dict)
    times: tuple[str, ...] = ()

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray,
        targets: Sequence[int] | np.ndarray,
        classes: Sequence[str],
        *,
        ids: Sequence[str] | None = None,
        roles: Sequence[str] | None = None,
        source: str = "arrays",
    ) -> Self:
        """Wrap pictures in memory.

        Args:
            images: uint8 `[N, H, W]` or `[N, H, W, C]`, C in {1, 3}; kept, not copied.
            targets: `[N]`, index into `classes`.
            classes: names in the order of the indices.
            ids: unique names; by default `<source>/0000` and so on.
            roles: per image; by default none.
            source: what to call it.

        Raises:
            DataError: shapes, type, labels or ids do not fit together.
        """
        images = images[..., None] if images.ndim == 3 else images
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise DataError(f"The images are {images.dtype} {list(images.shape)}; expected uint8 [N, H, W, 1 or 3].")
        count, labels = len(images), np.asarray(targets, np.int64)
        names = tuple(ids) if ids is not None else tuple(f"{source}/{i:0{len(str(count))}d}" for i in range(count))
        given = tuple(roles) if roles is not None else ("",) * count
        if not count == len(labels) == len(names) == len(given):
            raise DataError(
                f"{count} images, {len(labels)} labels, {len(names)} ids and {len(given)} roles: not one each."
            )
        if len(set(names)) < count:
            raise DataError("Two images have the same id.", mend="Give each its own.")
        if count and not 0 <= labels.min() <= labels.max() < len(classes):
            raise DataError(f"Labels run from {labels.min()} to {labels.max()}, but there are {len(classes)} classes.")
        pixels = ArrayPixels(images)
        return cls(names, labels, tuple(classes), given, ("",) * count, source, pixels, np.arange(count))

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> np.ndarray:
        """Read one picture, in full.

        A file is held against the hash that the audit took of it, so a run never trains on others than it listed.

        Returns:
            `[H, W, C]`: uint8, or uint16 or float32 where the picture is deeper.

        Raises:
            DataError: the file is gone, damaged, or no longer the picture that was audited.
        """
        row = int(self.rows[index])
        if self.hashes is None or not isinstance(self.pixels, FilePixels):
            return self.pixels.read(row)
        image, content = self.pixels.read_hashed(row)
        if content != self.hashes[index].tobytes():
            raise DataError(
                f"{self.ids[index]} is not the picture it was when the data was audited.",
                mend="Put the old file back, or start a new run on the new data.",
            )
        return image

    def indices(self, role: str) -> np.ndarray:
        """Return int64 `[n]`, ascending: the images of one role."""
        return np.flatnonzero(np.array(self.roles, dtype=object) == role)

    def select(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Keep some images, in the order given; the classes stay, even those left without images."""
        chosen = np.asarray(indices, np.int64)
        return replace(
            self,
            ids=_take(self.ids, chosen),
            targets=self.targets[chosen],
            roles=_take(self.roles, chosen),
            groups=_take(self.groups, chosen),
            rows=self.rows[chosen],
            hashes=None if self.hashes is None else self.hashes[chosen],
            scan=None if self.scan is None else self.scan.select(chosen),
            times=_take(self.times, chosen) if self.times else (),
        )

    def with_roles(self, roles: Sequence[str]) -> Self:
        """Give each image its role: `train`, `tune` or `test`."""
        if len(roles) != len(self) or not set(roles) <= {*ROLES, ""}:
            raise ValueError(f"expected {len(self)} roles out of {', '.join(ROLES)}")
        return replace(self, roles=tuple(roles))

    def with_classes(self, classes: Sequence[str]) -> Self:
        """Number the targets by another list of classes, matched by name: a trained network's, for evaluation.

        Raises:
            DataError: some images belong to a class that the list lacks.
        """
        missing = [self.classes[target] for target in np.unique(self.targets) if self.classes[target] not in classes]
        if missing:
            raise DataError(
                f"Images are labelled {', '.join(missing)}, which is not among the classes {', '.join(classes)}.",
                mend="Rename the folders to the network's classes, or leave these out.",
            )
        index = np.array([classes.index(name) if name in classes else -1 for name in self.classes], np.int64)
        return replace(self, classes=tuple(classes), targets=index[self.targets])

    def counts(self) -> dict[str, dict[str, int]]:
        """Count images per role and class, roles in the order train, tune, test; zeros are kept."""
        counted = {}
        for role in (*ROLES, ""):
            indices = self.indices(role)
            if len(indices):
                numbers = np.bincount(self.targets[indices], minlength=len(self.classes))
                counted[role] = dict(zip(self.classes, numbers.tolist(), strict=True))
        return counted

    @cached_property
    def contents(self) -> np.ndarray | None:
        """uint8 `[N, 32]`, equal for equal pictures: `hashes`, but of `twins` the one that stands for them."""
        if self.hashes is None or not self.twins:
            return self.hashes
        known = [row.tobytes() for row in self.hashes]
        same = b"".join(self.twins.get(content, content) for content in known)
        return np.frombuffer(same, np.uint8).reshape(-1, 32)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over the classes and, in the order of ids, each image's id, class name and content hash.

        Roles are left out: they follow from the content and `split_seed`. Empty until the audit has read the pictures.
        """
        if self.hashes is None:
            return ""
        digest = hashlib.sha256("\0".join((*self.classes, "")).encode())
        for i in sorted(range(len(self)), key=self.ids.__getitem__):
            digest.update(f"{self.ids[i]}\0{self.classes[self.targets[i]]}\0".encode() + self.hashes[i].tobytes())
        return digest.hexdigest()


def _take(values: tuple[str, ...], indices: np.ndarray) -> tuple[str, ...]:
    return tuple(values[i] for i in indices.tolist())
