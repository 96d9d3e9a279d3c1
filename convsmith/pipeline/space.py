"""Room on the disk, asked for before the first step: a run that dies of a full disk after hours helps nobody."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from convsmith.errors import ResourceError, RunError
from convsmith.run_folder import RunFolder

CHECKPOINTS = 3
"""Two are kept, and a third is written beside them."""
COPIES = 5
"""What a checkpoint holds of each weight at the most: used, raw, averaged, and two of the optimiser's."""
RECORDS = 8 * 2**20
"""Report, thumbnails, log and small records."""


def run_bytes(*, weights: int, predicted: int, classes: int) -> int:
    """What a run takes on the disk at the most.

    Args:
        weights: bytes of the network's parameters.
        predicted: how many images are predicted when it ends.
        classes: logits for each of them.
    """
    return CHECKPOINTS * COPIES * weights + predicted * (4 * classes + 256) + RECORDS


def refuse_unwritable(runs: Path) -> None:
    """Raise `RunError` where no run folder can be made, before anything is read or measured."""
    existing = _existing(runs)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise RunError(f"{existing} cannot be written to.", mend="Choose another folder with --runs DIR.")


def refuse_small_disk(place: Path, needed: int) -> None:
    """Raise `ResourceError` where less than `needed` bytes are free."""
    free = shutil.disk_usage(_existing(place)).free
    if free < needed:
        raise ResourceError(
            f"The run needs up to {needed / 2**20:,.0f} MB for checkpoints and records, but {place} has "
            f"{free / 2**20:,.0f} MB free.",
            mend="Free some space, or choose a folder on another disk with --runs DIR.",
        )


def still_needed(run: RunFolder) -> int:
    """What a run that is taken up again needs beside the checkpoints it has."""
    held = sum(file.stat().st_size for file in run.checkpoints.rglob("*") if file.is_file())
    return max(0, int(run.read_json("plan.json")["estimate"].get("disk_bytes", 0)) - held)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
