"""`convsmith data`: what is in a folder, before anything is trained on it, and a page that shows it.

Nothing here reaches PyTorch before the images are read: what needs it, `pipeline.sheets`, is loaded in a thread while
other processes decode.
"""

from __future__ import annotations

import importlib
import json
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from convsmith.errors import ConvsmithError
from convsmith.images import compare
from convsmith.pipeline.messages import Listener, Message, silent
from convsmith.pipeline.preparing import Prepared, declares_range, prepare, recorded_images, split_csv
from convsmith.pipeline.space import refuse_unwritable
from convsmith.recipe import Recipe
from convsmith.reporting import DataRecord, render_data
from convsmith.run_folder import disk_errors, list_runs, write_atomically


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
    with _loading(recipe) as sheets:

        def and_check(message: Message) -> None:
            if sheets.done():
                sheets.result()  # a word of the recipe that nothing knows ends the reading now
            tell(message)

        prepared = prepare(recipe.data, and_check, floats=declares_range(recipe))
        drawn = sheets.result().draw(recipe, prepared, tell)
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


@contextmanager
def _loading(recipe: Recipe) -> Iterator[Future[ModuleType]]:
    """Load `pipeline.sheets` in a thread, and have it refuse what the recipe holds that nothing knows."""

    def load() -> ModuleType:
        sheets = importlib.import_module("convsmith.pipeline.sheets")
        sheets.refuse_unknown(recipe)
        return sheets

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(load)


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
