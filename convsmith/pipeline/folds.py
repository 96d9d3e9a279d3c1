"""Cross-validation: every image is tested once in each repeat, by a network that learnt from the others.

Its runs are ordinary ones, `data.fold` of `data.folds`, which could be made one by one. What is done here once for all
of them: the images are audited, and what was measured of the machine (device, threads, precision, memory format) is
taken over from the first run's plan, so that all are made alike and frozen features of one are found by the next.
Everything else is planned for each run from its own training images, because what it tests must not have a say.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import inspect
import io
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from convsmith.errors import ConvsmithError, Interrupted, RunError, UsageError
from convsmith.evaluation.cross_validation import (
    PREDICTIONS,
    RECORD,
    is_cross_validation,
    pool,
    results,
    run_name,
    runs_of,
)
from convsmith.images import folds_sentence, split_rows
from convsmith.networks import code_sha256
from convsmith.pipeline import machine
from convsmith.pipeline.build import Code, ModelFunction, recorded_code
from convsmith.pipeline.execute import Job, carry_out
from convsmith.pipeline.messages import Listener, Message, silent
from convsmith.pipeline.origin import refuse_missing
from convsmith.pipeline.planner import Plan
from convsmith.pipeline.planning import plan
from convsmith.pipeline.preparing import (
    Examined,
    Prepared,
    declares_range,
    divided,
    examine,
    folds_of,
    recorded_images,
    refuse_senseless,
)
from convsmith.pipeline.signals import Signals
from convsmith.pipeline.space import refuse_small_disk, refuse_unwritable
from convsmith.pipeline.start import start_run
from convsmith.recipe import Recipe
from convsmith.reporting import write_cross_validation
from convsmith.run_folder import EventLog, RunFolder, list_runs, read_log, sync_folder
from convsmith.training import Processes

MEASURED = ("train.device", "train.threads", "train.precision", "train.memory_format")
"""Keys that the first run's plan settles for all: what they come to depends on the machine and not on the images."""
LEAST_SHARE = 0.5
"""Of an equal share of a budget, what a run is given at the least, however much the runs before it took."""


@dataclass(frozen=True)
class Whole:
    """A cross-validation under way.

    Args:
        folder: where its runs lie.
        recipe: what they share.
        examined: the images, not divided yet.
        code: the user's own network, where the recipe says so.
        tell: who listens.
        signals: what may interrupt it.
        command: what the user typed, for manifests.
        started: when the command began, by `time.monotonic`.
    """

    folder: RunFolder
    recipe: Recipe
    examined: Examined
    code: Code | ModelFunction | None
    tell: Listener
    signals: Signals
    command: tuple[str, ...]
    started: float

    @property
    def folds(self) -> int:
        """How many folds there are."""
        return self.recipe.data.folds or 0

    @property
    def repeats(self) -> int:
        """How often they are drawn."""
        return self.recipe.data.repeats or 1


def cross_validate(
    recipe: Recipe,
    *,
    runs: Path,
    code: Code | ModelFunction | None = None,
    tell: Listener = silent,
    started: float | None = None,
    command: tuple[str, ...] = (),
) -> RunFolder:
    """Make all runs of a cross-validation and put their test answers together; go on with one that was cut short.

    A cross-validation in `runs` that was asked for alike, on the same images, and is not finished is taken up: what is
    finished in it stays as it is.

    Args:
        recipe: as asked, with `data.folds`; `data.repeats` draws the folds several times.
        runs: where its folder is made.
        code: the user's own network, where `recipe.model` is `own`.
        tell: who listens.
        started: when the command began, by `time.monotonic`; a budget counts from there, and is shared by all runs.
        command: what the user typed, for the manifests.

    Returns:
        Its folder; what lies in it says `evaluation.cross_validation`.

    Raises:
        UsageError: no folds, one fold alone, or several processes.
        Interrupted: a signal came; what was trained is saved.
        ConvsmithError: whatever else stands in the way, as its subclasses say.
    """
    started = time.monotonic() if started is None else started
    _refuse(recipe)
    if isinstance(code, Code):  # held to what is in the file now, even where an editor saves it while we plan
        code = replace(code, sha256=code_sha256(code.path))
    signals = Signals()
    with signals.installed():
        refuse_unwritable(runs)
        examined = examine(recipe.data, tell, floats=declares_range(recipe))
        begun = _unfinished(runs, recipe, examined, code)
        if begun is not None:
            whole = Whole(begun, begun.read_recipe(), examined, code, tell, signals, command, started)
            tell(Message("note", f"Going on with {begun.path}, which was asked for alike and is not finished."))
            with begun.lock():
                return _carry_on(whole)
        made, prepared = plan_first(recipe, examined, code=code, tell=tell, started=started)
        shared = recipe.updated(
            {"data.fingerprint": examined.dataset.fingerprint, **{key: _at(made.recipe, key) for key in MEASURED}}
        )
        count = (shared.data.folds or 0) * (shared.data.repeats or 1)
        refuse_small_disk(runs, count * int(made.estimate["disk_bytes"]))
        name = recipe.name or Path(str(recipe.data.source)).name
        folder = _new_folder(runs, f"{name}-{recipe.data.folds}-folds", shared)
        whole = Whole(folder, shared, examined, code, tell, signals, command, started)
        with folder.lock():
            _begin(whole, recipe, made, prepared)
            tell(Message("created", str(folder.path), {"run": folder}))
            return _carry_on(whole)


def resume_folds(
    folder: RunFolder,
    *,
    code: Code | ModelFunction | None = None,
    tell: Listener = silent,
    data: str | None = None,
) -> RunFolder:
    """Make what is missing of a cross-validation; runs that are finished stay as they are.

    Args:
        folder: of the cross-validation.
        code: the user's own network, where it has one; a file's hash must be the recorded one.
        tell: who listens.
        data: where the images lie now, if they were moved.

    Raises:
        RunError: it is in use, or finished already.
        DataError: its images changed; the difference is named.
    """
    started, signals = time.monotonic(), Signals()
    recipe = folder.read_recipe()
    _refuse(recipe)
    with signals.installed(), folder.lock():
        if folder.finished:
            raise RunError(f"{folder.path} is finished.", mend=f"Look at {folder.report}, or train another.")
        section = recipe.data if data is None else recipe.data.model_copy(update={"source": data})
        examined = examine(section, tell, floats=declares_range(recipe), known=recorded_images(folder))
        own = recorded_code(folder.read_json("manifest.json"), code)
        recipe = recipe.updated({"data.source": section.source})
        return _carry_on(Whole(folder, recipe, examined, own, tell, signals, (), started))


def plan_first(
    recipe: Recipe,
    examined: Examined | None = None,
    *,
    code: Code | ModelFunction | None = None,
    tell: Listener = silent,
    started: float | None = None,
) -> tuple[Plan, Prepared]:
    """The plan of the first run, by which one sees what a cross-validation will do; nothing is trained or written.

    Args:
        recipe: as asked.
        examined: its images, where they have been looked at.
        code, tell, started: as in `cross_validate`.
    """
    began = time.monotonic()
    _refuse(recipe)
    if examined is None:
        examined = examine(recipe.data, tell, floats=declares_range(recipe))
    runs = (recipe.data.folds or 0) * (recipe.data.repeats or 1)
    budget = recipe.train.budget
    if budget is not None:
        left = budget - (time.monotonic() - (began if started is None else started))
        tell(Message("note", f"The budget of {budget:g} s is shared by {runs} runs: about {left / runs:.3g} s each."))
        budget = round(max(left, LEAST_SHARE * budget) / runs, 1)
    own = _one(recipe, 1, 1, budget)
    prepared = divided(examined, own.data)
    tell(Message("stage", f"Planning the first of {runs} runs"))
    try:
        with machine.threads(recipe.train.threads):
            made = plan(own, prepared.dataset, prepared.audit, code=code)
    except UsageError as error:
        if budget is None or not error.message.startswith("A budget"):
            raise
        shared = f"The budget is shared by {runs} runs. {error.message}"
        raise UsageError(shared, mend=f"For each of them: {error.mend}") from None
    values = {"plan": made, "audit": prepared.audit, "classes": prepared.dataset.classes}
    tell(Message("planned", values=values))
    return made, prepared


def _refuse(recipe: Recipe) -> None:
    """Raise `UsageError` for what cannot be, before anything is read."""
    refuse_senseless(recipe.data)
    refuse_missing(recipe)
    if recipe.data.folds is None:
        raise UsageError("A cross-validation needs a number of folds.", mend="Add --folds 5.")
    if recipe.data.fold is not None:
        raise UsageError(
            f"The recipe names fold {recipe.data.fold} alone, which is an ordinary run.",
            mend="Leave data.fold out to make all folds.",
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "A cross-validation is made by one process, and torchrun started several.",
            mend="Leave torchrun out; or make the folds one by one with it: --set data.folds="
            f"{recipe.data.folds} --set data.fold=1, and so on.",
        )


def _one(recipe: Recipe, fold: int, repeat: int, budget: float | None) -> Recipe:
    """The recipe of one run, as if it had been asked for alone."""
    changes: dict[str, Any] = {"data.fold": fold, "data.repeat": repeat, "data.repeats": None}
    return recipe.updated({**changes, "train.budget": budget})


def _unfinished(runs: Path, recipe: Recipe, examined: Examined, code: Code | ModelFunction | None) -> RunFolder | None:
    """The newest cross-validation that was asked for by this recipe, on these images, and is not finished."""
    for folder in reversed(list_runs(runs)):
        if not is_cross_validation(folder) or folder.finished:
            continue
        try:
            same = Recipe.from_yaml(folder.read_text("given.yaml")) == recipe
            known = folder.read_recipe().data.fingerprint == examined.dataset.fingerprint
            if same and known and folder.read_json(RECORD)["code"] == _code_hash(code):
                return folder
        except (ConvsmithError, KeyError):  # another one that is damaged stands in nobody's way
            continue
    return None


def _new_folder(runs: Path, name: str, recipe: Recipe) -> RunFolder:
    folder = RunFolder.create(runs, name, recipe.to_yaml())
    for part in (folder.checkpoints, folder.predictions, folder.evidence):  # it has none of its own
        part.rmdir()
    return folder


def _begin(whole: Whole, given: Recipe, made: Plan, prepared: Prepared) -> None:
    """Write what is known before the first run. `recipe.yaml` comes last: with it, the folder can be taken up."""
    folder, examined = whole.folder, whole.examined
    names = [run_name(fold, repeat, whole.repeats) for repeat, fold in _places(whole)]
    record = {
        "schema": 1, "folds": whole.folds, "repeats": whole.repeats, "runs": names, "aside": examined.aside,
        "code": _code_hash(whole.code),
    }  # fmt: skip
    says = folds_sentence(examined.dataset, whole.folds, whole.repeats, examined.near.pairs)
    split = {**prepared.audit["split"], "says": says}
    folder.write_text("given.yaml", given.to_yaml())
    folder.write_text("split.csv", _split_csv(whole))
    folder.write_json("audit.json", {**prepared.audit, "roles": {}, "leaks": [], "split": split})
    first = _run(whole, names[0])
    start_run(first, _one(given, 1, 1, made.recipe.train.budget), made, prepared, whole.code, 1, whole.command)
    manifest = first.read_json("manifest.json")
    data = {**manifest["data"], "counts": examined.dataset.with_roles(_parts(whole)).counts()}
    folder.write_json("manifest.json", {**manifest, "data": data})
    folder.write_json(RECORD, record)
    folder.write_text("recipe.yaml", whole.recipe.to_yaml())


def _carry_on(whole: Whole) -> RunFolder:
    """Make the runs that are missing, one after another, then put their answers together."""
    folder, places = whole.folder, _places(whole)
    numbers: dict[int, np.ndarray] = {}
    before = _spent(folder)
    with contextlib.closing(EventLog(folder.log_path)) as log:
        for place, (repeat, fold) in enumerate(places):
            run = _run(whole, run_name(fold, repeat, whole.repeats))
            if run.finished:
                continue
            drawn = f", drawing {repeat} of {whole.repeats}" if whole.repeats > 1 else ""
            whole.tell(Message("stage", f"Fold {fold} of {whole.folds}{drawn}"))
            if repeat not in numbers:
                numbers[repeat] = folds_of(whole.examined, whole.recipe.data, repeat)
            try:
                _make(whole, run, repeat, fold, numbers[repeat], _share(whole, before, len(places) - place))
            except Interrupted as error:
                error.mend = f"Go on with: convsmith resume {shlex.quote(str(folder.path))}"
                raise
        whole.tell(Message("stage", "Putting the folds together"))
        answers = pool(folder)
        answers.save(folder.path / PREDICTIONS)
        folder.write_json("results.json", results(folder, answers))
        log.append("finished", values={"seconds": {"total": round(_spent(folder), 1)}})
    write_cross_validation(folder)
    whole.tell(Message("finished", str(folder.report), {"run": folder}))
    return folder


def _make(whole: Whole, run: RunFolder, repeat: int, fold: int, numbers: np.ndarray, budget: float | None) -> None:
    """Make one run, or take it up where it was cut short."""
    began = time.monotonic()
    own = _one(whole.recipe, fold, repeat, budget)
    prepared = divided(whole.examined, own.data, numbers)
    differences: Sequence[str] = ()
    with run.lock():
        if run.has("recipe.yaml"):
            recipe, manifest = run.read_recipe(), run.read_json("manifest.json")
            with machine.threads(recipe.train.threads):
                present = machine.describe(machine.choose_device(recipe.train.device), 1)
            differences = machine.differences(manifest, present)
            if differences:
                whole.tell(Message("note", f"The last bits may differ from an unbroken run: {'; '.join(differences)}."))
        else:
            with machine.threads(own.train.threads):
                made = plan(own, prepared.dataset, prepared.audit, code=whole.code)
                start_run(run, own, made, prepared, whole.code, 1, whole.command)
            recipe = made.recipe
        with machine.threads(recipe.train.threads):
            carry_out(
                Job(
                    run, recipe, prepared, whole.code, Processes(), whole.signals, whole.tell, began, tuple(differences)
                )
            )


def _run(whole: Whole, name: str) -> RunFolder:
    """The folder of one run, made where it is not there yet."""
    run = RunFolder(whole.folder.path / name)
    for part in (run.checkpoints, run.predictions, run.evidence):
        part.mkdir(parents=True, exist_ok=True)
    sync_folder(whole.folder.path)
    return run


def _places(whole: Whole) -> list[tuple[int, int]]:
    """Repeat and fold of each run, in their order."""
    return [(repeat, fold) for repeat in range(1, whole.repeats + 1) for fold in range(1, whole.folds + 1)]


def _share(whole: Whole, before: float, left: int) -> float | None:
    """Seconds that the next run may take, so that those that are left take what is left of the budget.

    Args:
        before: seconds that runs took before this command began.
        left: how many runs are to be made.
    """
    budget = whole.recipe.train.budget
    if budget is None:
        return None
    rest = budget - before - (time.monotonic() - whole.started)
    return round(max(rest / left, LEAST_SHARE * budget / (whole.folds * whole.repeats)), 1)


def _spent(folder: RunFolder) -> float:
    """Seconds that the finished runs took, by their logs."""
    return sum(
        record["values"]["seconds"]["total"]
        for run in runs_of(folder)
        for record in read_log(run.log_path)
        if record["kind"] == "finished"
    )


def _code_hash(code: Code | ModelFunction | None) -> str | None:
    """By what the user's own network is taken for the same: the file's hash, or that of a function's text."""
    if code is None or isinstance(code, Code):
        return code.sha256 if code else None
    try:
        return hashlib.sha256(inspect.getsource(code).encode()).hexdigest()
    except (OSError, TypeError):  # typed into an interpreter
        return None


def _split_csv(whole: Whole) -> str:
    """Who is tested where: the columns of an ordinary `split.csv` and one for each drawing of the folds."""
    dataset = whole.examined.dataset
    numbers = {f"repeat_{k}": folds_of(whole.examined, whole.recipe.data, k) for k in range(1, whole.repeats + 1)}
    rows = split_rows(dataset.with_roles(_parts(whole)))
    buffer = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(buffer, (*rows[0], *numbers), lineterminator="\n")
    writer.writeheader()
    for place, row in enumerate(rows):
        writer.writerow({**row, **{name: int(own[place]) or "" for name, own in numbers.items()}})
    return buffer.getvalue()


def _parts(whole: Whole) -> list[str]:
    """What part each image plays in the whole: all are tested, except those that a source gives for tuning."""
    return ["tune" if role == "tune" else "test" for role in whole.examined.dataset.roles]


def _at(recipe: Recipe, key: str) -> Any:
    node: Any = recipe
    for part in key.split("."):
        node = getattr(node, part)
    return node
