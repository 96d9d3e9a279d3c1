"""`kill -9` at any instant costs nothing: the resumed run equals the uninterrupted one bit for bit."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from compared import EPOCH, EXACT, STEPS, batches, differing, end
from typed import SMALL, Started, only_run, steps_logged, typed

GENERATOR = random.Random(3)
INSTANTS = [
    *(("between saves", step) for step in GENERATOR.sample(range(1, STEPS - 4), 7)),
    *(("inside a save", step) for step in GENERATOR.sample(range(STEPS - 6), 3)),
]
ORDINARY = {0, 7}
"""Which of the ten are tried in the ordinary suite: one anywhere, one inside a save."""


@pytest.mark.parametrize(
    ("where", "step"),
    [pytest.param(*instant, marks=[] if i in ORDINARY else pytest.mark.slow) for i, instant in enumerate(INSTANTS)],
)
def test_a_killed_run_resumes_to_the_same_weights(
    where: str, step: int, pictures: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = killed(pictures, tmp_path, step=step, inside_a_save=where == "inside a save")
    plan = (run / "plan.json").read_bytes()
    resume_without_planning(run, tmp_path, monkeypatch)
    assert differing(end(run), end(uninterrupted)) == []
    assert (run / "plan.json").read_bytes() == plan
    assert not list((run / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_over_from_its_recipe(
    pictures: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runs = tmp_path / "runs"
    never = ["train.checkpoint_every=1000" if word == "train.checkpoint_every=3" else word for word in EXACT]
    with Started(tmp_path / "output", "train", pictures, "--runs", runs, *SMALL, *never) as command:
        command.until(lambda: runs.exists() and any(steps_logged(run) >= 2 for run in runs.iterdir()))
        command.send(signal.SIGKILL)
        assert command.code() == -9
    run = only_run(runs)
    assert not any((run / "checkpoints").iterdir())
    resume_without_planning(run, tmp_path, monkeypatch)
    ours, theirs = end(run), end(uninterrupted)
    assert ours["weights"] == theirs["weights"]
    assert ours["batches"] == theirs["batches"]


def test_a_run_killed_while_its_report_is_made_is_finished_by_resume(
    pictures: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runs = tmp_path / "runs"
    with Started(tmp_path / "output", "train", pictures, "--runs", runs, *SMALL, *EXACT) as command:
        command.until(lambda: list(runs.glob("*/predictions/tune.npz")), pause=0.0)
        command.send(signal.SIGKILL)
        assert command.code() == -9
    run = only_run(runs)
    assert not (run / "report.html").exists()
    resume_without_planning(run, tmp_path, monkeypatch)
    assert differing(end(run), end(uninterrupted)) == []
    assert (run / "report.html").exists()


def test_each_image_is_seen_once_an_epoch_with_draws_of_its_own(uninterrupted: Path):
    """What the comparisons above compare: without it they would prove nothing."""
    seen = batches(uninterrupted)
    assert [step for step, _, _ in seen] == list(range(1, STEPS + 1))
    epochs = [[name for _, ids, _ in seen[start : start + EPOCH] for name in ids] for start in range(0, STEPS, EPOCH)]
    assert all(len(names) == len(set(names)) == 42 for names in epochs)
    assert len({tuple(names) for names in epochs}) == len(epochs)
    draws = [draw for _, _, digests in seen for draw in digests]
    assert len(set(draws)) == len(draws)


def killed(pictures: Path, folder: Path, *, step: int, inside_a_save: bool) -> Path:
    """Start a run of `EXACT`, kill it after `step` steps (and there inside the next save), and return its folder."""
    runs = folder / "runs"
    with Started(folder / "output", "train", pictures, "--runs", runs, *SMALL, *EXACT) as command:
        command.until(lambda: runs.exists() and any(steps_logged(run) >= step for run in runs.iterdir()))
        if inside_a_save:
            caught_saving(command, runs)
        command.send(signal.SIGKILL)
        assert command.code() == -9
    run = only_run(runs)
    assert bool(list((run / "checkpoints").glob(".saving-*"))) or not inside_a_save
    assert not (run / "results.json").exists()
    return run


def caught_saving(command: Started, runs: Path) -> None:
    """Stop the process in its tracks while a temporary checkpoint is there; it stays stopped."""
    (checkpoints,) = runs.glob("*/checkpoints")
    while True:
        command.until(lambda: any(path.name.startswith(".saving-") for path in checkpoints.iterdir()), pause=0.0)
        command.send(signal.SIGSTOP)
        if list(checkpoints.glob(".saving-*")):
            return
        command.send(signal.SIGCONT)


def resume_without_planning(run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("resume planned again")

    with monkeypatch.context() as patch:
        patch.setattr("convsmith.pipeline.execute.plan", refuse)
        done = typed("resume", run, "--runs", folder / "runs")
    assert done.code == 0, done.err
