"""The one place that makes runs: `train` plans and starts one, `resume` takes one up, and both carry it out alike."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convsmith.batches import Batches
from convsmith.errors import ConvsmithError, Interrupted, RunError
from convsmith.evidence import predict
from convsmith.images import Dataset
from convsmith.networks import code_sha256
from convsmith.pipeline import machine
from convsmith.pipeline.budget import Stopwatch, announce_drift, fix_steps
from convsmith.pipeline.build import Code, ModelFunction, build_loop, build_network, place, recorded_code
from convsmith.pipeline.finish import finish
from convsmith.pipeline.messages import Listener, Message, silent
from convsmith.pipeline.origin import find_origin, refuse_missing, start_network
from convsmith.pipeline.planner import Plan, train_counts
from convsmith.pipeline.planning import plan
from convsmith.pipeline.preparing import Prepared, declares_range, pixels, prepare, recorded_images
from convsmith.pipeline.probe import probe_network, probe_pixels
from convsmith.pipeline.signals import Signals
from convsmith.pipeline.space import refuse_small_disk, refuse_unwritable, still_needed
from convsmith.pipeline.start import start_run
from convsmith.recipe import Recipe, settled
from convsmith.run_folder import EventLog, RunFolder
from convsmith.tasks import class_weights
from convsmith.training import Event, Loop, Processes, Writer, joined, last_checkpoint, untouched


@dataclass(frozen=True)
class Job:
    """A run under way, and all that carrying it out needs.

    Args:
        run: its folder, locked.
        recipe: resolved, but for the steps of a budget.
        prepared: its images.
        code: the user's own network, where the recipe says so.
        processes: those of the run.
        signals: what may interrupt it.
        tell: who listens.
        started: when the command began, by `time.monotonic`.
        differences: what of the machine is not as it was when the run began.
    """

    run: RunFolder
    recipe: Recipe
    prepared: Prepared
    code: Code | ModelFunction | None
    processes: Processes
    signals: Signals
    tell: Listener
    started: float
    differences: tuple[str, ...] = ()


def make_plan(
    recipe: Recipe, *, code: Code | ModelFunction | None = None, tell: Listener = silent, started: float | None = None
) -> tuple[Plan, Prepared]:
    """Look at the data and resolve the recipe; nothing is trained or written to the run folder.

    Args:
        recipe: as asked.
        code: the user's own network, where `recipe.model` is `own`.
        tell: who listens.
        started: when the command began, by `time.monotonic`; it counts towards a budget.
    """
    started = time.monotonic() if started is None else started
    refuse_missing(recipe)  # before a long look at the data
    prepared = prepare(recipe.data, tell, floats=declares_range(recipe))
    tell(Message("stage", "Planning"))
    with machine.threads(recipe.train.threads):
        made = plan(recipe, prepared.dataset, prepared.audit, code=code, elapsed=time.monotonic() - started)
    tell(Message("planned", values={"plan": made, "audit": prepared.audit, "classes": prepared.dataset.classes}))
    return made, prepared


def train(
    recipe: Recipe,
    *,
    runs: Path,
    code: Code | ModelFunction | None = None,
    tell: Listener = silent,
    started: float | None = None,
    command: tuple[str, ...] = (),
) -> RunFolder:
    """Make a run: plan, train, evaluate, report. Under torchrun, all its processes call this alike.

    Args:
        recipe: as asked; `auto` is resolved.
        runs: where the run's folder is made.
        code: the user's own network, where `recipe.model` is `own`.
        tell: who listens; only the first process tells.
        started: when the command began, by `time.monotonic`; a budget counts from there.
        command: what the user typed, for the manifest.

    Raises:
        Interrupted: a signal came; what was trained is saved.
        ConvsmithError: whatever else stands in the way, as its subclasses say.
    """
    started = time.monotonic() if started is None else started
    if isinstance(code, Code):  # held to what is in the file now, even where an editor saves it while we plan
        code = replace(code, sha256=code_sha256(code.path))
    signals = Signals()
    with joined() as processes, signals.installed():
        tell = tell if processes.first else silent
        if processes.first:
            refuse_unwritable(runs)
        planned = make_plan(recipe, code=code, tell=tell, started=started) if processes.first else None
        if planned:
            refuse_small_disk(runs, int(planned[0].estimate["disk_bytes"]))
        resolved = Recipe.from_layers(processes.broadcast(planned[0].recipe.model_dump() if planned else {}))
        prepared = planned[1] if planned else prepare(resolved.data, tell, floats=declares_range(resolved))
        run = RunFolder(Path(processes.broadcast(str(_new_folder(runs, resolved)) if processes.first else "")))
        with run.lock() if processes.first else contextlib.nullcontext(), machine.threads(resolved.train.threads):
            if planned:
                start_run(run, recipe, planned[0], prepared, code, processes.world, command)
                tell(Message("created", str(run.path), {"run": run}))
            carry_out(Job(run, resolved, prepared, code, processes, signals, tell, started))
    return run


def resume(
    run: RunFolder,
    *,
    code: Code | ModelFunction | None = None,
    tell: Listener = silent,
    data: str | None = None,
) -> RunFolder:
    """Take up a run where its last whole checkpoint stands, and carry it out to the end. Nothing is planned again.

    Args:
        run: its folder.
        code: the user's own network, where the run has one; a file's hash must be the recorded one.
        tell: who listens.
        data: where the images lie now, if they were moved.

    Raises:
        RunError: it is no run, is in use, or is finished already.
        DataError: its images changed; the difference is named.
    """
    signals = Signals()
    with joined() as processes, signals.installed(), run.lock() if processes.first else contextlib.nullcontext():
        tell = tell if processes.first else silent
        if run.finished:
            raise RunError(f"{run.path} is finished.", mend=f"Look at {run.report}, or train another.")
        recipe = run.read_recipe()
        manifest = run.read_json("manifest.json")
        with machine.threads(recipe.train.threads):
            present = machine.describe(machine.choose_device(recipe.train.device), processes.world)
            if changed := machine.differences(manifest, present):
                tell(Message("note", f"The last bits may differ from an unbroken run: {'; '.join(changed)}."))
            section = recipe.data if data is None else recipe.data.model_copy(update={"source": data})
            prepared = prepare(section, tell, floats=declares_range(recipe), known=recorded_images(run))
            refuse_small_disk(run.path, still_needed(run))
            own = recorded_code(manifest, code)
            carry_out(Job(run, recipe, prepared, own, processes, signals, tell, time.monotonic(), tuple(changed)))
    return run


@untouched()
def carry_out(job: Job) -> None:
    """Train from the last checkpoint, or from the beginning where there is none, to the report."""
    recipe, dataset = job.recipe, job.prepared.dataset
    images = shared_pixels(job)
    device = machine.choose_device(recipe.train.device)
    model = place(first_network(job), recipe, device)
    if job.processes.first:
        leave_probe(job, model, images)
    job.processes.share_weights(model)
    loop = build_loop(recipe, model, job.processes, train_counts(dataset))
    batches = make_batches(recipe, images, job.prepared, device, job.processes)
    log = EventLog(job.run.log_path) if job.processes.first else None
    try:
        training = Training(job, loop, batches, images, log)
        training.restore()
        with machine.deterministic(recipe.train.deterministic, device), job.signals.deferred(loop.request_stop):
            training.run()
        stopped = job.processes.largest(loop.stop_reason)  # one may have come to one process while it saved
        if stopped:
            raise Interrupted(
                f"Stopped at step {loop.step:,} of {loop.total or 0:,}; everything is saved.",
                mend=f"Go on with: convsmith resume {job.run.path}",
                exit_code=stopped,
            )
        with loop.deployed():  # all processes take part
            if log is not None:
                finish(job.run, model, loop.task, recipe, job.prepared, images, log, job.tell, job.started)
        if recipe.train.budget is not None and training.fixed_steps:
            announce_drift(recipe.train.budget, time.monotonic() - job.started, job.tell)
    except Interrupted as error:
        error.mend = error.mend or f"Go on with: convsmith resume {job.run.path}"
        raise
    finally:
        if log is not None:
            with contextlib.suppress(OSError):  # what could not be written has been reported when it was added
                log.close()


def first_network(job: Job) -> torch.nn.Module:
    """The network before its first step: with the weights it starts from, unless a checkpoint holds later ones."""
    recipe, outputs = job.recipe, len(job.prepared.dataset.classes)
    if recipe.weights.source is None or last_checkpoint(job.run.checkpoints) is not None:
        return build_network(recipe, outputs, job.code)
    origin = find_origin(recipe) if job.processes.first else None  # the others are given its weights
    return start_network(recipe, outputs, job.code, origin) if origin else build_network(recipe, outputs, job.code)


def leave_probe(job: Job, model: torch.nn.Module, images: np.ndarray) -> None:
    """Fit the linear probe where training begins; what a checkpoint holds has been through it."""
    recipe = job.recipe
    begun = last_checkpoint(job.run.checkpoints) is not None
    if begun and (recipe.transfer.mode is not None or job.run.has("probe.json")):
        return  # beside a checkpoint the network is an empty one, whose features are not those of its origin
    if recipe.transfer.mode is not None:
        probe_network(job.run, model, recipe, job.prepared, images, job.tell)
    else:
        probe_pixels(job.run, recipe, job.prepared, images, job.tell)


def shared_pixels(job: Job) -> np.ndarray:
    """The pixels of all images; the first process makes them where they are not cached yet, and the others wait."""

    def made() -> np.ndarray:
        return pixels(job.prepared.dataset, job.recipe.image, job.tell)

    images = made() if job.processes.first else None
    job.processes.broadcast(None)
    return made() if images is None else images


def make_batches(
    recipe: Recipe, images: np.ndarray, prepared: Prepared, device: torch.device, processes: Processes
) -> Batches:
    """The training images as batches; on a GPU with room for them, they are kept there."""
    dataset = prepared.dataset
    chosen = dataset.indices("train")
    pictures: Any = images[chosen]
    targets: Any = dataset.targets[chosen]
    if device.type == "cuda" and pictures.nbytes < torch.cuda.mem_get_info(device)[0] // 4:
        pictures, targets = torch.from_numpy(pictures).to(device), torch.from_numpy(targets).to(device)
    return Batches(
        pictures,
        targets,
        tuple(dataset.ids[index] for index in chosen),
        batch_size=settled(recipe.train.batch),
        seed=recipe.seed,
        rank=processes.rank,
        world=processes.world,
        weights=balance(recipe, dataset),
    )


def balance(recipe: Recipe, dataset: Dataset) -> np.ndarray | None:
    """How often each training image is drawn, float `[n]`, so that all classes come up alike; None draws each once."""
    if recipe.train.balance != "sampler":
        return None
    return np.array(class_weights(train_counts(dataset)))[dataset.targets[dataset.indices("train")]]


class Training:
    """The loop of a run with what it leaves behind: the log, checkpoints, predictions of the tune images.

    Args:
        job: the run.
        loop: at its beginning.
        batches: the training images.
        images: the evaluation pixels of all images.
        log: open in the first process, None in others.
    """

    def __init__(self, job: Job, loop: Loop, batches: Batches, images: np.ndarray, log: EventLog | None) -> None:
        self.job = job
        self.loop = loop
        self.batches = batches
        self.log = log
        self.watch = Stopwatch()
        self._tune = job.prepared.dataset.indices("tune")
        self._tune_images = images[self._tune]
        self._writer = Writer(job.run.checkpoints) if log is not None else None
        self._began = 0
        self.fixed_steps = False
        self.stopped = 0
        self._saved: int | None = None

    def restore(self) -> None:
        """Load the last whole checkpoint, cut the log to it, and say so; do nothing where there is none."""
        job = self.job
        checkpoint = last_checkpoint(job.run.checkpoints)
        if checkpoint is not None:
            self.loop.load_state_dict(checkpoint.state())
            self._began = self._saved = checkpoint.step
        if self.log is None:
            return
        started_before = job.run.log_path.stat().st_size > 0
        self.log.cut(checkpoint.log_bytes if checkpoint else 0)
        if checkpoint is not None:
            for reason in checkpoint.damaged:
                job.tell(Message("note", f"Passed over a damaged checkpoint: {reason}"))
            job.tell(Message("note", f"Resumed at step {checkpoint.step:,} of {self.loop.total or 0:,}."))
        if started_before:
            told = {"damaged": list(checkpoint.damaged) if checkpoint else [], "differences": list(job.differences)}
            said = {key: value for key, value in told.items() if value}
            self._append("resumed", self.loop.step // len(self.batches), self.loop.step, said)
        else:
            self._append("started", 0, 0, {})

    def run(self) -> None:
        """Train to the end; of a budget first through the warm-up, whose speed fixes the number of steps."""
        try:
            self._train()
            if self._saved != self.loop.step:
                self._save()
        finally:
            if self._writer is not None:  # also after an error: what is being written shall be whole
                self._writer.wait()

    def _train(self) -> None:
        recipe = self.job.recipe
        warmup = settled(recipe.train.warmup_steps)
        # A checkpoint made during the warm-up knows no other total than its end, so the recipe's goes first.
        self.loop.total = warmup if recipe.train.steps is None else recipe.train.steps
        if recipe.train.steps is None:
            if not self.loop.done:
                self._iterate()
            if not self.stopped:
                self.loop.total = self._fixed_steps(warmup)
                self.fixed_steps = self._began == 0
        if not self.stopped:
            self._iterate()
        if self.loop.done:
            self._append("stopped", self.loop.epoch, self.loop.step, {})

    def _iterate(self) -> None:
        self.watch.start("training")
        for event in self.loop.run(self.batches):
            if event.kind == "tune":
                with self.watch.during("tune"):
                    self._predict_tune(event)
            elif event.kind == "checkpoint":
                with self.watch.during("checkpoint"):
                    self._save()
            elif event.kind == "stopped":
                self.stopped = event.values["reason"]  # on this all processes agree
            else:
                refuse_divergence(event)
                self._append(event.kind, event.epoch, event.step, event.values)
            self.job.tell(Message("training", event.kind, {"event": event, "total": self.loop.total}))
        self.watch.stop()

    def _fixed_steps(self, warmup: int) -> int:
        """Turn the budget into a number of steps, in the recipe too, so that the run can be repeated exactly."""
        job = self.job
        steps = warmup
        with self.watch.during("tune"):
            self._predict_tune(Event("tune", self.loop.epoch, self.loop.step))
        if self.log is not None:
            elapsed = time.monotonic() - job.started
            steps = fix_steps(job.recipe, job.prepared.dataset, self.watch, warmup, self._step_seconds(), elapsed)
            recipe = job.recipe.updated({"train.steps": steps})
            job.run.write_text("recipe.yaml", recipe.to_yaml())
            job.tell(Message("note", f"{steps:,} steps fit the budget at the speed that warm-up showed."))
        return job.processes.broadcast(steps)

    def _step_seconds(self) -> float:
        """Seconds a step has taken; the plan's where none was made since the run was taken up again."""
        if made := self.loop.step - self._began:
            return self.watch.seconds["training"] / made
        estimate = self.job.run.read_json("plan.json")["estimate"]
        return settled(self.job.recipe.train.batch) / estimate["images_per_second"]

    def _predict_tune(self, event: Event) -> None:
        with self.loop.deployed() as model:
            if self.log is None or not len(self._tune):
                return
            prepare_ = self.loop.transform.normalize  # type: ignore[union-attr]
            arrays = predict(model, self.loop.task, self._tune_images, prepare=prepare_)
        targets = self.job.prepared.dataset.targets[self._tune]
        values = self.loop.task.monitor({**arrays, "targets": targets})
        self._append("tune", event.epoch, event.step, values)
        self.job.tell(Message("training", "tune", {"event": Event("tune", event.epoch, event.step, values)}))

    def _save(self) -> None:
        if not all(bool(tensor.isfinite().all()) for tensor in self.loop.model.parameters()):
            raise diverged(self.loop.step)
        self._saved = self.loop.step
        state = self.loop.state_dict()
        with self.loop.deployed() as model:  # all processes take part in both
            if self._writer is None or self.log is None:
                return
            self._append("checkpoint", self.loop.epoch, self.loop.step, {})
            self._writer.save(state, model.state_dict(), self.log.sync())

    def _append(self, kind: str, epoch: int, step: int, values: Any) -> None:
        if self.log is not None:
            self.log.append(kind, epoch=epoch, step=step, values=values)


def refuse_divergence(event: Event) -> None:
    """Raise where a loss is not finite, before broken weights replace the good checkpoints."""
    if any(not math.isfinite(value) for key, value in event.values.items() if key.startswith("loss")):
        raise diverged(event.step)


def diverged(step: int) -> ConvsmithError:
    """The error of a training whose loss or weights are no numbers any more."""
    return ConvsmithError(
        f"Training diverged: at step {step:,} the loss or the weights are not finite; the last good checkpoint stands.",
        mend="Train again with --set train.clip=1, or a lower rate: --set 'train.optimizer={name: adamw}'.",
    )


def _new_folder(runs: Path, recipe: Recipe) -> Path:
    name = recipe.name or Path(str(recipe.data.source)).name
    return RunFolder.create(runs, name, recipe.to_yaml()).path
