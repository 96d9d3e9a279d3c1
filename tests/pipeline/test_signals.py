"""Ctrl-C and SIGTERM end a run in order, whatever it is doing; two processes never share a run folder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from compared import EXACT, end
from typed import SMALL, Started, only_run, steps_logged, typed

from convsmith.errors import Interrupted
from convsmith.pipeline.execute import Training
from convsmith.pipeline.signals import Signals
from convsmith.run_folder import RunFolder

LONG = (*SMALL, "--epochs", "2000", "--set", "train.log_ids=true", "--set", "train.tune_every=6",
        "--set", "train.checkpoint_every=1000", "--set", "train.report_every=5")  # fmt: skip


def training(runs: Path, *, step: int = 3) -> Callable[[], bool]:
    """Whether a run has come to a step."""
    return lambda: runs.exists() and any(steps_logged(run) >= step for run in runs.iterdir())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_in_training_saves_and_ends_with_its_code(
    number: signal.Signals, code: int, pictures: Path, tmp_path: Path
):
    runs = tmp_path / "runs"
    with Started(tmp_path / "output", "train", pictures, "--runs", runs, *LONG) as command:
        command.until(training(runs))
        command.send(number)
        if number == signal.SIGINT:
            command.send(number)  # an impatient second one changes nothing
        assert command.code(30) == code
        run = only_run(runs)
        assert "everything is saved" in command.err
        assert f"convsmith resume {run}" in command.err.replace("\n", "")
        assert "Traceback" not in command.err
    assert RunFolder(run).read_json("last.json")["step"] == end(run)["batches"][-1][0] == end(run)["state"]["step"]


def test_sigterm_while_planning_ends_at_once_and_leaves_nothing(pictures: Path, tmp_path: Path):
    slowly = ("--set", "model={name: convnet, options: {width: 128}}", "--set", "image.size=64")
    with Started(tmp_path / "output", "train", pictures, "--runs", tmp_path / "runs", *slowly) as command:
        command.until(lambda: "Planning" in command.err)
        time.sleep(0.2)
        command.send(signal.SIGTERM)
        assert command.code(30) == 143
        assert "Traceback" not in command.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("where", ["a prediction of the tune images", "a save", "the report"])
def test_sigterm_elsewhere_leaves_a_run_that_goes_on(
    where: str, pictures: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The signal comes from within the function that does the work: there is no surer way to hit it."""
    place = {
        "a prediction of the tune images": "convsmith.pipeline.execute.predict",
        "a save": "convsmith.training.checkpoint.write_file",
        "the report": "convsmith.pipeline.finish.write_report",
    }[where]
    runs = tmp_path / "runs"
    with monkeypatch.context() as patch:
        _signal_within(patch, place)
        done = typed("train", pictures, "--runs", runs, *SMALL, *EXACT)
    assert done.code == 143
    run = only_run(runs)
    assert f"convsmith resume {run}" in done.err
    assert not list((run / "checkpoints").glob(".*"))
    assert typed("resume", run).code == 0
    assert end(run) == end(uninterrupted)


def _signal_within(patch: pytest.MonkeyPatch, place: str) -> None:
    module, _, name = place.rpartition(".")
    inner = getattr(__import__(module, fromlist=[name]), name)
    left = [True]

    def send_first(*arguments: object, **options: object) -> object:
        if left:
            left.pop()
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(*arguments, **options)

    patch.setattr(place, send_first)


def test_outside_of_deferred_a_signal_raises_and_within_it_asks():
    signals, asked = Signals(), []
    before = signal.getsignal(signal.SIGTERM)
    with signals.installed():
        with pytest.raises(Interrupted, match="SIGTERM") as caught:
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.exit_code == 143
        with signals.deferred(asked.append):
            signal.raise_signal(signal.SIGINT)
        assert asked == [130]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_was_taken_for_an_error_of_the_users_code_stays_a_signal():
    def guarded() -> None:
        with Signals().installed():
            try:
                signal.raise_signal(signal.SIGINT)
            except Exception as error:
                raise ValueError("the network failed") from error

    with pytest.raises(Interrupted, match="SIGINT"):
        guarded()


def test_the_third_signal_is_not_deferred_any_more():
    signals, asked = Signals(), []
    with signals.installed(), signals.deferred(asked.append):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
    assert asked == [130, 130]


def test_two_processes_in_one_run_folder_get_a_lock_error(pictures: Path, tmp_path: Path):
    runs = tmp_path / "runs"
    with Started(tmp_path / "output", "train", pictures, "--runs", runs, *LONG) as command:
        command.until(training(runs))
        run = only_run(runs)
        done = typed("resume", run)
        assert done.code == 4
        assert f"in use by process {command.process.pid}" in " ".join(done.err.split())
        command.send(signal.SIGTERM)
        assert command.code(30) == 143
    with RunFolder(run).lock():
        pass


def test_a_signal_during_the_last_save_is_heard(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save = Training._save

    def saved(self: Training) -> None:
        save(self)
        if self.loop.done:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Training, "_save", saved)
    done = typed("train", pictures, "--runs", tmp_path, *SMALL, "--epochs", 1, "--set", "train.checkpoint_every=1000")
    assert done.code == 143, done.err
    assert "convsmith resume" in done.err
    monkeypatch.undo()
    assert typed("resume", only_run(tmp_path), "--runs", tmp_path).code == 0
