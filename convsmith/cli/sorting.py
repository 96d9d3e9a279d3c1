"""`predict --sort-into DIR`: pictures copied into one folder for each class; nothing is moved, nothing overwritten."""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def refuse_target(target: Path, inputs: Iterable[str]) -> None:
    """Raise `UsageError` where copies would land among the pictures that are read, or cannot be made at all."""
    from convsmith.errors import UsageError

    if target.exists() and not target.is_dir():
        raise UsageError(f"--sort-into {target} is a file.", mend="Give a folder; it is made if it is not there.")
    inside = target.resolve()
    for path in inputs:
        folder = Path(path).resolve()
        if folder.is_dir() and (inside == folder or inside.is_relative_to(folder)):
            raise UsageError(
                f"--sort-into {target} lies inside {path}, so copies would be read as pictures the next time.",
                mend="Choose a folder beside it.",
            )


def sort_into(target: Path, rows: Iterable[Mapping[str, Any]], files: Iterable[str]) -> int:
    """Copy each picture that was named into the folder of its class.

    A picture that is there already, byte for byte, is not copied again; another one of the same name gets a number.

    Args:
        target: made if need be.
        rows: the answers, in the order of `files`.
        files: paths as the file system knows them.

    Returns:
        How many are there now, copied or found.

    Raises:
        ResourceError, RunError: the disk is full, or the folder cannot be written.
    """
    from convsmith.run_folder import disk_errors

    count = 0
    for row, file in zip(rows, files, strict=True):
        if row["error"]:
            continue
        folder = target / folder_name(row["class"])
        with disk_errors(f"copying {row['path']} into {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            _copy(Path(file), folder)
        count += 1
    return count


def folder_name(name: str) -> str:
    """A class's name as a folder's: without separators, control characters, and leading dots."""
    safe = re.sub(r"[\x00-\x1f\x7f/\\:*?\"<>|]", "_", name).strip().lstrip(".")
    return safe[:100] or "_"


def _copy(file: Path, folder: Path) -> None:
    for number in range(1, 1_000_000):
        place = folder / (file.name if number == 1 else f"{file.stem}-{number}{file.suffix}")
        if not place.exists():
            shutil.copy2(file, place)
            return
        if place.is_file() and filecmp.cmp(file, place, shallow=False):
            return
