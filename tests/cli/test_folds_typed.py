"""`convsmith train --folds` and `--time` as typed, and what the other commands make of a cross-validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures_made import class_folder
from typed import SMALL, Typed, only_run, typed

from convsmith.evaluation import wilson

DIGITS = ("train", "digits", "--limit", 60, "--folds", 2, "--epochs", 1, *SMALL)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("folds") / "runs"


@pytest.fixture(scope="module")
def done(runs: Path) -> Typed:
    """A cross-validation of sixty digits, typed and let run to its end."""
    return typed(*DIGITS, "--runs", runs, "--json")


def test_digits_are_cross_validated_and_the_pooled_figure_is_the_share_of_right_answers(done: Typed, runs: Path):
    assert done.code == 0, done.err
    folder = only_run(runs)
    assert done.json["cross_validation"] == str(folder)
    with np.load(folder / "out-of-fold.npz", allow_pickle=False) as file:
        right, ids = file["logits"].argmax(axis=1) == file["targets"], file["ids"]
    assert len(set(ids.tolist())) == 60
    expected = wilson(int(right.sum()), 60)
    figure = done.json["results"]["splits"]["test"]["metrics"]["accuracy"]
    assert (figure["value"], figure["low"], figure["high"]) == (expected.value, expected.low, expected.high)
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"fold-1", "fold-2"}
    assert "--set data.folds=null" in done.err


@pytest.fixture(scope="module")
def folder(done: Typed, runs: Path) -> Path:
    assert done.code == 0, done.err
    return only_run(runs)


def test_it_is_one_row_among_runs_and_its_runs_are_listed_in_it(folder: Path, runs: Path):
    (row,) = typed("runs", "--runs", runs, "--json").json
    assert row["run"] == folder.name
    assert row["data"] == "digits"
    assert row["result"].startswith("accuracy ")
    assert row["result"].endswith(", 2 folds")
    assert row["time"].endswith(" s")
    assert [each["run"] for each in typed("runs", "--runs", folder, "--json").json] == ["fold-1", "fold-2"]


def test_its_report_and_figures_are_made_anew_from_its_records(folder: Path, runs: Path):
    page, figures = (folder / "report.html").read_bytes(), (folder / "results.json").read_bytes()
    (folder / "report.html").unlink()
    assert typed("report", "last", "--runs", runs).out.strip() == str(folder / "report.html")
    assert (folder / "report.html").read_bytes() == page
    (folder / "results.json").unlink()
    done = typed("evaluate", folder.name, "--runs", runs)
    assert "60 out-of-fold images" in done.out
    assert (folder / "results.json").read_bytes() == figures


@pytest.mark.parametrize(
    "words",
    [("predict", "last", "x.png"), ("evaluate", "last", "--data", "digits"), ("train", "digits", "--weights", "last")],
)
def test_what_needs_one_network_is_told_that_it_has_several(words: tuple[str, ...], folder: Path, runs: Path):
    done = typed(*words, "--runs", runs)
    assert done.code == 4
    assert f"{folder} is a cross-validation of 2 runs, and has no network of its own" in done.err
    assert f"such as {folder / 'fold-1'}" in done.err


def test_a_run_of_it_is_named_by_its_path(folder: Path, runs: Path):
    assert typed("evaluate", folder / "fold-2", "--runs", runs, "--json").json["n"] == 30
    assert typed("evaluate", "fold-1", "--runs", folder, "--json").json["n"] == 30


def test_the_hint_trains_one_network_on_all_images(folder: Path):
    words = ("train", "--recipe", folder / "given.yaml", "--set", "data.folds=null", "--dry-run", "--json")
    recipe = typed(*words).json["recipe"]
    assert (recipe["data"]["folds"], recipe["data"]["repeats"], recipe["data"]["limit"]) == (None, None, 60)


def test_finished_it_is_not_resumed_and_unfinished_it_is(folder: Path, runs: Path):
    assert typed("resume", "last", "--runs", runs).code == 4
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert "60 out-of-fold images" in typed("resume", "last", "--runs", runs).out
    assert (folder / "report.html").read_bytes() == page


def test_the_plan_of_the_first_run_is_shown_and_nothing_is_written(tmp_path: Path):
    done = typed(*DIGITS, "--repeats", 3, "--dry-run", "--json", "--runs", tmp_path / "runs")
    assert done.code == 0, done.err
    data = done.json["recipe"]["data"]
    assert (data["folds"], data["fold"], data["repeat"], data["repeats"]) == (2, 1, 1, None)
    assert "Planning the first of 6 runs" in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--folds", 1), "--folds 1: a whole number of at least 2 is needed"),
        (("--folds", 3, "--seeds", 2), "--repeats N"),
        (("--repeats", 2), "Add --folds N"),
        (("--folds", 3, "--time", "exif"), "exclude each other"),
        (("--folds", 61, "--limit", 60), "at most 60 folds"),
    ],
)
def test_what_does_not_go_together_is_refused(words: tuple[Any, ...], says: str, tmp_path: Path):
    done = typed("train", "digits", "--runs", tmp_path / "runs", *words)
    assert done.code in (2, 3)
    assert says in done.err
    assert not (tmp_path / "runs").exists()


def test_a_folder_is_split_by_the_time_in_its_names(tmp_path: Path):
    for name in ("ant", "bee"):
        class_folder(tmp_path / "p", classes=(name,), each=20, seed=ord(name[0]))
        for k, path in enumerate(sorted((tmp_path / "p" / name).iterdir())):
            path.rename(path.with_name(f"{name}_2024-{1 + k % 10:02d}-{1 + k:02d}.png"))
    done = typed("data", tmp_path / "p", "--time", r"_(\d{4}-\d\d-\d\d)\.", "--json", "--runs", tmp_path / "runs")
    assert done.code == 0, done.err
    assert done.json["split"]["says"] == (
        "70/15/15 by time, not by class (wanted: 70/15/15), train up to 2024-07-17, tune from 2024-08-08 on, "
        "test from 2024-09-19 on"
    )
    words = ("--time", r"_(\d{4}-\d\d-\d\d)\.", "--weights", "none", "--dry-run", "--json", *SMALL)
    assert typed("train", tmp_path / "p", *words).json["recipe"]["data"]["time"] == words[1]
    assert json.loads((next((tmp_path / "runs" / "data").iterdir()) / "audit.json").read_bytes())["roles"]["test"]
