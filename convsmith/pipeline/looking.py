"""`convsmith data`: what is in a folder, before anything is trained on it, and a page that shows it.

Nothing here reaches PyTorch before the images are read: what needs it, `pipeline.sheets`, is loaded in a thread while
other processes decode.
"""

from __future__ import annotations

import importlib
import json
import shlex
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Self

from convsmith.errors import ConvsmithError
from convsmith.images import compare
from convsmith.pipeline.messages import Listener, Message, silent
from convsmith.pipeline.preparing import Prepared, declares_range, prepare, recorded_images, split_csv
from convsmith.pipeline.space import refuse_unwritable
from convsmith.recipe import Recipe
from convsmith.run_folder import disk_errors, list_runs, write_atomically

SWITCH = 0.0005
"""Seconds after which threads let each other go on, instead of 5 ms: one that loads a library holds the interpreter all
the time, and those that compare images or hand them to readers would wait so long for it at every turn."""


@dataclass(frozen=True)
class Look:
    """What was found.

    Args:
        prepared: the images with their roles, and the audit's record.
        recipe: with everything settled that follows from the images alone.
        seen: a sentence about what a network will see.
        symmetry: a sentence about mirrors and turns.
        snapshot: what has changed since the last run on this source; empty where there was none.
        folder: where `audit.json`, `split.csv` and `data.html` lie.
    """

    prepared: Prepared
    recipe: Recipe
    seen: str
    symmetry: str
    snapshot: str
    folder: Path

    @property
    def page(self) -> Path:
        """The page to open in a browser."""
        return self.folder / "data.html"


def look(recipe: Recipe, *, runs: Path, command: str = "", tell: Listener = silent) -> Look:
    """Read every image, find what is strange, settle the split, and write it down with a page of pictures.

    Args:
        recipe: says which images, and what of size, fit, symmetry, model and weights is asked for.
        runs: the page is written to `data/<name>-<fingerprint>` in it, and earlier runs on this source are found there.
        command: what to type next, for the page.
        tell: who listens.
    """
    refuse_unwritable(runs)
    with _Loading(recipe, tell) as loading:
        prepared = prepare(recipe.data, loading.tell, floats=declares_range(recipe))
        drawn = loading.sheets().draw(recipe, prepared, tell)
    from convsmith.reporting import DataRecord, render_data

    snapshot = _snapshot(recipe, prepared, runs)
    dataset, audit = prepared.dataset, prepared.audit
    name = recipe.name or Path(str(recipe.data.source)).stem or "data"
    folder = runs / "data" / f"{_plain(name)}-{dataset.fingerprint[:8]}"
    record = DataRecord(
        source=str(dataset.source),
        made=time.strftime("%Y-%m-%d"),
        audit=audit,
        thumbnails=drawn.thumbnails,
        samples=drawn.samples,
        augmented=drawn.augmented,
        seen=drawn.seen,
        symmetry=drawn.symmetry,
        next_command=command or f"convsmith train {shlex.quote(str(dataset.source))}",
        snapshot=snapshot,
    )
    with disk_errors(f"making {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    found = Look(prepared, drawn.recipe, drawn.seen, drawn.symmetry, snapshot, folder)
    write_atomically(folder / "audit.json", json.dumps(audit, ensure_ascii=False, indent=1).encode())
    write_atomically(folder / "split.csv", split_csv(dataset).encode())
    write_atomically(found.page, render_data(record).encode())
    return found


class _Loading:
    """Loads `pipeline.sheets` in a thread once files are being read, and has it refuse words that nothing knows."""

    def __init__(self, recipe: Recipe, listener: Listener) -> None:
        self._recipe = recipe
        self._listener = listener
        self._pool = ThreadPoolExecutor(1)
        self._loaded: Future[ModuleType] | None = None

    def __enter__(self) -> Self:
        self._switch = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        sys.setswitchinterval(self._switch)

    def tell(self, message: Message) -> None:
        """Pass a message on; the first with figures starts the loading, and what it refuses ends the reading."""
        if self._loaded is None and message.values:
            self._loaded = self._pool.submit(self._load)
        elif self._loaded is not None and self._loaded.done():
            self._loaded.result()
        self._listener(message)

    def sheets(self) -> ModuleType:
        """The module, as soon as it is there."""
        return self._load() if self._loaded is None else self._loaded.result()

    def _load(self) -> ModuleType:
        sheets = importlib.import_module("convsmith.pipeline.sheets")
        sheets.refuse_unknown(self._recipe)
        importlib.import_module("convsmith.reporting")
        return sheets


def _snapshot(recipe: Recipe, prepared: Prepared, runs: Path) -> str:
    """What has changed since the last run on the same source (D9)."""
    for run in reversed(list_runs(runs)):
        try:
            same = run.read_json("manifest.json")["data"]["source"] == recipe.data.source
        except (ConvsmithError, KeyError):
            continue
        if same:
            return f"Since the run {run.path.name}: {compare(recorded_images(run), prepared.dataset).sentence()}"
    return ""


def _plain(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in name)[:60] or "data"
