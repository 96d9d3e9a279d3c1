"""A fine-tuning that is killed, or whose weights are gone: what goes on, and what says why it cannot."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from compared import differing, end
from stopping import stopped
from tuned import fine_tuning, train, weights_file
from typed import Started, only_run, steps_logged

from convsmith import pipeline
from convsmith.errors import UsageError
from convsmith.recipe import Recipe
from convsmith.run_folder import RunFolder


def recipe_of(run: Path) -> Recipe:
    return Recipe.from_yaml((run / "recipe.yaml").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 4, 7, 9])
def test_a_killed_fine_tuning_resumes_to_the_same_weights(step: int, tuned: Path, tmp_path: Path):
    """At step 1 no checkpoint stands yet, so the head is fitted again; at step 7 two do."""
    runs = tmp_path / "runs"
    with Started(tmp_path / "output", "train", "--recipe", tuned / "recipe.yaml", "--runs", runs) as command:
        command.until(lambda: runs.exists() and any(steps_logged(run) >= step for run in runs.iterdir()), pause=0.0)
        command.send(signal.SIGKILL)
        assert command.code() == -9
    run = only_run(runs)
    assert not (run / "results.json").exists()
    pipeline.resume(RunFolder(run))
    assert differing(end(run), end(tuned)) == []
    for name in ("probe.json", "learning_curve.json"):
        ours, theirs = (without_seconds(RunFolder(folder).read_json(name)) for folder in (run, tuned))
        assert ours == theirs


def without_seconds(record: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in record.items() if key != "seconds"}


@pytest.fixture
def begun(tuned: Path, weights: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run that was stopped after seven steps, and the file it started from."""
    file = tmp_path / "held.safetensors"
    shutil.copy(weights, file)
    return stopped(recipe_of(tuned).updated({"weights.source": str(file)}), tmp_path / "runs", 7), file


def without_checkpoint(run: Path) -> Path:
    """As it would be had it been killed before its first checkpoint."""
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    (run / "last.json").unlink()
    return run


def test_a_checkpoint_needs_the_weights_no_more(begun: tuple[Path, Path], tuned: Path):
    run, file = begun
    file.unlink()
    pipeline.resume(RunFolder(run))
    assert end(run)["weights"] == end(tuned)["weights"]
    assert end(run)["results"] == end(tuned)["results"]


def test_a_checkpoint_whose_probe_is_lost_resumes_without_fitting_one_to_an_empty_network(
    begun: tuple[Path, Path], tuned: Path, monkeypatch: pytest.MonkeyPatch
):
    run, _ = begun
    (run / "probe.json").unlink()
    monkeypatch.setattr("convsmith.pipeline.probe.frozen_features", lambda *_, **__: pytest.fail("computed anew"))
    pipeline.resume(RunFolder(run))
    assert end(run)["weights"] == end(tuned)["weights"]
    assert (run / "report.html").is_file()


def test_without_a_checkpoint_the_missing_file_is_named(begun: tuple[Path, Path]):
    run, file = without_checkpoint(begun[0]), begun[1]
    file.unlink()
    with pytest.raises(UsageError, match=r"held\.safetensors") as caught:
        pipeline.resume(RunFolder(run))
    assert "--weights" in caught.value.mend


def test_without_a_checkpoint_another_file_of_that_name_is_refused(begun: tuple[Path, Path], tuned: Path):
    run, file = without_checkpoint(begun[0]), begun[1]
    held = file.read_bytes()
    weights_file(file, seed=2)
    with pytest.raises(UsageError, match="not those of the recipe") as caught:
        pipeline.resume(RunFolder(run))
    assert str(recipe_of(tuned).weights.sha256)[:12] in str(caught.value)
    file.write_bytes(held)
    pipeline.resume(RunFolder(run))
    assert end(run)["weights"] == end(tuned)["weights"]


def test_a_recipe_refuses_another_file_of_the_same_name(photos: Path, tuned: Path, tmp_path: Path):
    other = weights_file(tmp_path / "test_resnet.safetensors", seed=2)
    with pytest.raises(UsageError, match="not those of the recipe"):
        train(recipe_of(tuned).updated({"weights.source": str(other)}), tmp_path / "runs")
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("where", ["build_loop", pytest.param("finish", marks=pytest.mark.slow)])
def test_a_probe_that_broke_off_is_finished_by_resume(
    where: str, photos: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Once before its only checkpoint, at step 0, and once after."""
    recipe = fine_tuning(photos, weights, transfer__mode="probe")
    whole = train(recipe, tmp_path / "whole")

    def breaks(*arguments: object) -> None:
        raise RuntimeError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(f"convsmith.pipeline.execute.{where}", breaks)
        with pytest.raises(RuntimeError, match="the power"):
            train(recipe, tmp_path / "runs")
    run = only_run(tmp_path / "runs")
    assert (run / "last.json").exists() == (where == "finish")
    pipeline.resume(RunFolder(run))
    ours, theirs = end(run), end(whole)
    assert ours["weights"] == theirs["weights"]
    assert ours["results"] == theirs["results"]
    assert RunFolder(run).finished
