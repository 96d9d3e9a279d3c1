"""Opening what was asked for: a named set, a folder of class folders, a folder of IDX files, or a CSV file."""

from __future__ import annotations

import difflib
import os
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import numpy as np

from convsmith.errors import DataError, ResourceError, UsageError
from convsmith.images.dataset import Dataset
from convsmith.images.decode import shown
from convsmith.images.folders import EXTENSIONS, SourceNotes, open_folder
from convsmith.images.foreign import foreign
from convsmith.images.groups import with_groups
from convsmith.images.idx import idx_files, open_idx, read_idx
from convsmith.images.labels import with_labels
from convsmith.images.places import cache_folder
from convsmith.images.sheet import open_sheet
from convsmith.images.splits import choose
from convsmith.images.table import open_table
from convsmith.images.times import with_times
from convsmith.registry import Entry, Registry

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# SHA-256 of the bytes after the header; see `read_idx`
FASHION_FILES = {
    "train-images-idx3-ubyte": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}
FASHION_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
SYSTEM_FOLDER = Path("/usr/share/datasets")
TABLES = (".csv", ".tsv")
SECONDS = 30.0  # without an answer, after which a download is given up


def open_source(
    source: str | os.PathLike[str],
    *,
    limit: int | None = None,
    min_classes: int = 2,
    images: str | os.PathLike[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    split: str | None = None,
    time: str | None = None,
    labels: str | os.PathLike[str] | None = None,
) -> tuple[Dataset, SourceNotes]:
    """Open a data set by name or path.

    A name of the table `SOURCES` comes first; a folder of the same name is reached as `./name`.

    Args:
        source: `digits`, `fashion-mnist`, a folder of class folders, a folder of IDX files, or a CSV file.
        limit: how many images to keep, drawn by class and stated role in proportion, always the same ones.
        min_classes: how many classes there must be; 1 suits evaluation of a trained network.
        images: the folder that the paths of a CSV file are relative to; by default the one it lies in.
        label, split: columns of a CSV file; by default guessed, and the guess is among the notes.
        group: a column of a CSV file; or `parent` or a regular expression, as in `with_groups`. By default none.
        time: a column of a CSV file; or `exif` or a regular expression, as in `with_times`. By default none.
        labels: a file of reviewed labels, as in `with_labels`.

    Returns:
        The data set, its pictures not yet audited and its roles as the source states them, and what was passed over.

    Raises:
        UsageError: neither a known name nor a path that exists; an option that does not fit; a limit that is too small.
        DataError: what is there cannot be used.
    """
    name = os.fspath(source)
    path = Path(name)
    if name not in SOURCES and path.suffix.lower() in TABLES and path.is_file():
        columns, rules = _columns(path, {"group": (group, "parent"), "time": (time, "exif")})
        root = None if images is None else Path(images)
        dataset, found = open_table(
            path, source=name, images=root, label=label, split=split, min_classes=min_classes, **columns
        )
    else:
        dataset, found = _open_named(name, {"images": images, "label": label, "split": split}, min_classes)
        rules = {"group": group, "time": time}
    said: list[str] = []
    if (rule := rules["group"]) is not None:
        dataset, said = with_groups(dataset, rule)
    if labels is not None:
        dataset, reviewed = with_labels(dataset, labels)
        said = [*said, *reviewed]
    if limit is not None:
        dataset = _limited(dataset, limit)
    if (rule := rules["time"]) is not None:
        dataset = with_times(dataset, rule)
    return dataset, replace(found, notes=(*found.notes, *said))


def digits() -> Dataset:
    """The 1,797 handwritten digits of 8x8 that ship with scikit-learn; values 0 to 16 become round(v * 255 / 16)."""
    from sklearn.datasets import load_digits  # a second to import, and only this set needs it

    values, labels = load_digits(return_X_y=True)
    images = np.rint(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return Dataset.from_arrays(images, labels, tuple("0123456789"), source="digits")


def fashion_mnist() -> Dataset:
    """The 60,000 + 10,000 pictures of clothes, 28x28, with their given test set.

    Looked for in `$CONVSMITH_DATA/fashion-mnist`, in Debian's `/usr/share/datasets`, and in the cache folder; else
    fetched into the latter. Every file is held against its checksum.
    """
    cached = cache_folder() / "data" / "fashion-mnist"
    places = [SYSTEM_FOLDER / "fashion-mnist", cached]
    if os.environ.get("CONVSMITH_DATA"):
        places.insert(0, Path(os.environ["CONVSMITH_DATA"]).expanduser() / "fashion-mnist")
    folder = next((place for place in places if all(_present(place, name) for name in FASHION_FILES)), cached)
    if folder == cached:
        fetch(FASHION_URL, FASHION_FILES, cached)
    return open_idx(
        folder, name="fashion-mnist", source="fashion-mnist", classes=FASHION_CLASSES, checksums=FASHION_FILES
    )


SOURCES = Registry(
    "data set",
    [
        Entry(
            "digits",
            digits,
            "1,797 handwritten digits of 8x8, 10 classes; works offline",
            "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
            ("grey",),
        ),
        Entry(
            "fashion-mnist",
            fashion_mnist,
            "70,000 pictures of clothes of 28x28, 10 classes, with a test set",
            "Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747",
            ("grey",),
        ),
    ],
)


def fetch(address: str, files: dict[str, str], folder: Path) -> None:
    """Download gzipped IDX files, each under a temporary name until its checksum is right.

    Args:
        address: what the file names are appended to.
        files: name without `.gz`, to what `read_idx` takes as `sha256`.
        folder: where to put them; made if need be.

    Raises:
        DataError: no connection, or not the published bytes.
        ResourceError: the folder cannot be written.
    """
    listed = ", ".join(f"{name}.gz" for name in files)
    by_hand = f"Install them (`apt install dataset-fashion-mnist`), or put {listed} into {folder}."
    for name, expected in files.items():
        if _present(folder, name):
            continue
        try:
            with urllib.request.urlopen(f"{address}{name}.gz", timeout=SECONDS) as answer:
                content = answer.read()
        except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
            raise DataError(
                f"{name}.gz is not on this machine and cannot be fetched: {error}.", mend=by_hand
            ) from error
        _keep_if_right(content, expected, folder / f"{name}.gz", by_hand)


def _present(folder: Path, name: str) -> bool:
    return (folder / name).is_file() or (folder / f"{name}.gz").is_file()


def _keep_if_right(content: bytes, expected: str, path: Path, by_hand: str) -> None:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".gz", delete=False) as stream:
            temporary = Path(stream.name)
            stream.write(content)
        read_idx(temporary, sha256=expected)
        temporary.replace(path)
    except DataError as error:
        raise DataError(f"{path.name} was fetched, but it is not the published file.", mend=by_hand) from error
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be written: {error}.", mend="Set CONVSMITH_CACHE to another folder."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _open_named(name: str, options: Mapping[str, object], min_classes: int) -> tuple[Dataset, SourceNotes]:
    """Open anything but a CSV file, to which alone the options belong."""
    dataset = SOURCES[name].load()() if name in SOURCES else None
    notes = (f"{name} is the built-in set; the folder is reached as ./{name}.",) if Path(name).exists() else ()
    found = (dataset, SourceNotes(notes=notes)) if dataset is not None else _open_path(name, min_classes)
    for option, value in options.items():
        if value is not None:
            raise UsageError(
                f"--{option} belongs to a CSV file, and {shown(name)} is none.",
                mend="Leave it out, or give the CSV file.",
            )
    return found


def _columns(
    path: Path, asked: Mapping[str, tuple[str | None, str]]
) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """Tell columns of a CSV file from rules about paths.

    Args:
        path: the file.
        asked: by option what was typed, and the word that is a rule.

    Returns:
        By option the column, and the rule that is yet to be applied; `None` where it is not one.
    """
    columns, rules = dict.fromkeys(asked), dict.fromkeys(asked)
    for option, (text, word) in asked.items():
        if text is None or text == word:
            rules[option] = text
            continue
        sheet = open_sheet(path)
        names = {column.casefold() for column in sheet.columns}
        if text.strip().casefold() in names or "(" not in text:  # what has no brackets can only be meant as a column
            sheet.find(text, f"--{option}")
            columns[option] = text
        else:
            rules[option] = text
    return columns, rules


def _open_path(name: str, min_classes: int) -> tuple[Dataset, SourceNotes]:
    path = Path(name)
    if not path.exists():
        mend = _nearest(path)
        raise UsageError(f"{shown(name)} is neither a data set by name nor a folder or file that exists.", mend=mend)
    if not path.is_dir():
        kind = foreign(name)
        if kind is not None:
            raise DataError(f"{shown(name)} is {kind[0]}, which is not read.", mend=kind[1])
        if path.suffix.lower().lstrip(".") in EXTENSIONS:
            raise DataError(f"{shown(name)} is one image.", mend="Give a folder that holds one folder per class.")
        raise DataError(
            f"{shown(name)} is a file, and no CSV file by its name.",
            mend="Give a folder that holds one folder per class, or a .csv file with the columns path and label.",
        )
    try:
        if idx_files(path):
            dataset = open_idx(path, name=path.resolve().name, source=name)
            return dataset, SourceNotes()
    except PermissionError as error:
        raise DataError(f"{shown(name)} cannot be opened: {error.strerror}.", mend="Check its permissions.") from error
    return open_folder(path, source=name, min_classes=min_classes)


def _nearest(path: Path) -> str:
    """What may have been meant by a path that is not there: what lies beside its place, or a set by name."""
    folder = path.parent
    beside = sorted(os.listdir(folder)) if folder.is_dir() and os.access(folder, os.R_OK) else []  # noqa: PTH208
    visible = [name for name in beside if not name.startswith(".")]
    known = [*visible[:10_000], *(() if path.parent.name else SOURCES)]
    close = difflib.get_close_matches(path.name, known, n=2, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(shown(str(folder / name)) for name in close)}?"
    return f"Check the path; the sets by name are {', '.join(SOURCES)}."


def _limited(dataset: Dataset, limit: int) -> Dataset:
    smallest = 3 * len(dataset.classes)
    if limit < smallest:
        raise UsageError(
            f"A limit of {limit} images is too small for {len(dataset.classes)} classes.",
            mend=f"Ask for at least {smallest}, three of each.",
        )
    return dataset if limit >= len(dataset) else dataset.select(choose(dataset, limit))
