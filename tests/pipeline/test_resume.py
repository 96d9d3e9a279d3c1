"""Stopping by signal at chosen steps, going on, repeating from the recipe, and all that stands in the way of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from compared import EPOCH, differing, end
from PIL import Image
from stopping import stopped
from typed import SMALL, only_run, trained, typed

from convsmith import pipeline
from convsmith.recipe import Recipe
from convsmith.run_folder import RunFolder, read_log


@pytest.fixture
def recipe(uninterrupted: Path) -> Recipe:
    return Recipe.from_yaml((uninterrupted / "recipe.yaml").read_text())


@pytest.mark.parametrize("steps", [(7, 8), (EPOCH,), (2 * EPOCH - 1, 2 * EPOCH, 2 * EPOCH + 1), (6,), (29,)])
def test_a_run_stopped_at_any_step_goes_on_to_the_same_end(
    steps: tuple[int, ...], recipe: Recipe, uninterrupted: Path, tmp_path: Path
):
    run = stopped(recipe, tmp_path / "runs", *steps)
    assert json.loads((run / "last.json").read_bytes())["step"] == steps[-1]
    pipeline.resume(RunFolder(run))
    assert differing(end(run), end(uninterrupted)) == []
    assert [line["step"] for line in read_log(run / "log.jsonl") if line["kind"] == "resumed"] == list(steps)


def test_a_run_is_repeated_by_its_own_recipe(uninterrupted: Path, tmp_path: Path):
    done = typed("train", "--recipe", uninterrupted / "recipe.yaml", "--runs", tmp_path / "runs")
    assert done.code == 0, done.err
    again = only_run(tmp_path / "runs")
    assert differing(end(again), end(uninterrupted)) == []
    assert (again / "recipe.yaml").read_text() == (uninterrupted / "recipe.yaml").read_text()


def test_another_seed_gives_another_run_on_the_same_split(uninterrupted: Path, tmp_path: Path):
    done = typed("train", "--recipe", uninterrupted / "recipe.yaml", "--seed", 1, "--runs", tmp_path / "runs")
    assert done.code == 0, done.err
    other = only_run(tmp_path / "runs")
    ours, theirs = end(other), end(uninterrupted)
    assert (other / "split.csv").read_text() == (uninterrupted / "split.csv").read_text()
    assert ours["weights"] != theirs["weights"]
    assert ours["batches"][0][1] != theirs["batches"][0][1]
    assert ours["batches"][0][2] != theirs["batches"][0][2]


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt", "digest.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_a_damaged_newest_checkpoint_is_passed_over_and_said_so(
    name: str, damage: str, recipe: Recipe, uninterrupted: Path, stopped_at_17: Path, tmp_path: Path
):
    run = tmp_path / "run"
    shutil.copytree(stopped_at_17, run)
    path = run / "checkpoints" / "17" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    done = typed("resume", run)
    assert done.code == 0, done.err
    assert "damaged" in done.err
    assert "Resumed at step 15" in " ".join(done.err.split())
    resumed = [line for line in read_log(run / "log.jsonl") if line["kind"] == "resumed"]
    assert "17" in resumed[0]["values"]["damaged"][0]
    assert differing(end(run), end(uninterrupted)) == []


@pytest.fixture(scope="module")
def stopped_at_17(uninterrupted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe.from_yaml((uninterrupted / "recipe.yaml").read_text())
    return stopped(recipe, tmp_path_factory.mktemp("stopped") / "runs", 17)


def test_a_run_without_one_whole_checkpoint_is_refused(stopped_at_17: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(stopped_at_17, run)
    for path in (run / "checkpoints").glob("*/weights.safetensors"):
        path.write_bytes(b"")
    for command in (("resume", run), ("predict", run, next(tmp_path.rglob("*.yaml")))):
        done = typed(*command)
        assert done.code == 4
        assert "whole" in done.err
        assert "Traceback" not in done.err


def test_what_is_logged_twice_is_cut_away(stopped_at_17: Path, tmp_path: Path):
    """A kill after the last checkpoint leaves records of steps that are repeated."""
    run = tmp_path / "run"
    shutil.copytree(stopped_at_17, run)
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"kind": "epoch", "epoch": 9, "step": 99, "time": 0.0, "values": {}}) + "\n" + '{"kin')
    assert typed("resume", run).code == 0
    assert [line for line in read_log(run / "log.jsonl") if line["step"] == 99] == []
    assert all(json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())


def test_images_that_changed_are_refused_with_the_difference(uninterrupted: Path, pictures: Path, tmp_path: Path):
    moved, runs = tmp_path / "moved", tmp_path / "runs"
    shutil.copytree(pictures, moved)
    recipe = Recipe.from_yaml((uninterrupted / "recipe.yaml").read_text()).updated({"data.source": str(moved)})
    run = stopped(recipe, runs, 3)
    (moved / "ant" / "000.png").unlink()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(moved / "bee" / "001.png")
    Image.new("RGB", (8, 8), (9, 9, 9)).save(moved / "cat" / "new.png")
    done = typed("resume", run)
    assert done.code == 3
    words = " ".join(done.err.split())
    for part in ("1 added (cat/new.png)", "1 removed (ant/000.png)", "1 changed (bee/001.png)"):
        assert part in words
    done = typed("resume", run, "--data", pictures)
    assert done.code == 0, done.err
    assert end(run)["weights"] == end(uninterrupted)["weights"]


def test_a_class_added_or_removed_before_resume_is_refused(uninterrupted: Path, pictures: Path, tmp_path: Path):
    moved = tmp_path / "moved"
    shutil.copytree(pictures, moved)
    recipe = Recipe.from_yaml((uninterrupted / "recipe.yaml").read_text()).updated({"data.source": str(moved)})
    run = stopped(recipe, tmp_path / "runs", 3)
    shutil.copytree(moved / "ant", moved / "dog")
    done = typed("resume", run)
    assert done.code == 3
    assert "20 added (dog/000.png" in " ".join(done.err.split())


def test_a_finished_run_is_not_resumed(uninterrupted: Path):
    done = typed("resume", uninterrupted)
    assert done.code == 4
    assert "finished" in done.err
    assert "report.html" in done.err


def test_another_number_of_threads_is_announced(stopped_at_17: Path, uninterrupted: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(stopped_at_17, run)
    manifest = json.loads((run / "manifest.json").read_bytes())
    (run / "manifest.json").write_text(json.dumps({**manifest, "threads": 64, "instruction_set": "ABACUS"}))
    done = typed("resume", run)
    assert done.code == 0
    words = " ".join(done.err.split())
    assert "threads: 64 then, 1 now" in words
    assert "instruction set: ABACUS then" in words


def test_training_leaves_the_callers_generators_as_they_were(pictures: Path, tmp_path: Path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trained(pictures, tmp_path / "runs", "--epochs", 1)
    assert torch.equal(torch.get_rng_state(), before)


BUDGET = (*SMALL, "--set", "train.log_ids=true", "--set", "train.checkpoint_every=40", "--set", "train.tune_every=100")


def test_a_budget_becomes_recorded_steps_that_repeat_the_run(pictures: Path, tmp_path: Path):
    done = typed("train", pictures, "--budget", "5s", "--runs", tmp_path / "runs", *BUDGET)
    assert done.code == 0, done.err
    run = only_run(tmp_path / "runs")
    recipe = Recipe.from_yaml((run / "recipe.yaml").read_text())
    assert recipe.train.steps is not None
    assert end(run)["batches"][-1][0] == recipe.train.steps
    again = typed("train", "--recipe", run / "recipe.yaml", "--runs", tmp_path / "again")
    assert again.code == 0, again.err
    repeated = end(only_run(tmp_path / "again"))
    assert differing({**end(run), "tune": None}, {**repeated, "tune": None}) == []


@pytest.mark.slow
@pytest.mark.parametrize("warmup", ["before", "at the end of", "after"])
def test_a_budgeted_run_stopped_around_the_end_of_its_warm_up_goes_on(warmup: str, pictures: Path, tmp_path: Path):
    runs = tmp_path / "runs"
    step = {"before": 5, "at the end of": 20, "after": 23}[warmup]
    recipe = budgeted(pictures, checkpoint_every=1000)
    run = stopped(recipe, runs, step)
    steps = Recipe.from_yaml((run / "recipe.yaml").read_text()).train.steps
    assert (steps is None) == (warmup != "after")
    pipeline.resume(RunFolder(run))
    fixed = Recipe.from_yaml((run / "recipe.yaml").read_text()).train.steps
    assert fixed is not None
    assert fixed > 25
    assert steps in (None, fixed)
    assert end(run)["batches"][-1][0] == fixed


def test_a_budgeted_run_killed_after_its_warm_up_goes_on_from_a_checkpoint_within_it(pictures: Path, tmp_path: Path):
    """That checkpoint was made when the end of the warm-up was the only end known; the recipe knows the real one."""
    recipe = budgeted(pictures, checkpoint_every=15)
    run = stopped(recipe, tmp_path / "runs", 23)
    shutil.rmtree(run / "checkpoints" / "23")
    (run / "recipe.yaml").write_text(
        Recipe.from_yaml((run / "recipe.yaml").read_text()).updated({"train.steps": 30}).to_yaml()
    )
    pipeline.resume(RunFolder(run))
    assert [step for step, _, _ in end(run)["batches"]] == list(range(1, 31))


def budgeted(pictures: Path, *, checkpoint_every: int) -> Recipe:
    return Recipe.from_layers(
        {
            "data": {"source": str(pictures)},
            "model": {"name": "convnet", "options": {"width": 8, "stages": 2}},
            "train": {
                "budget": 5, "batch": 8, "warmup_steps": 20, "log_ids": True, "checkpoint_every": checkpoint_every,
            },
        }
    )  # fmt: skip
