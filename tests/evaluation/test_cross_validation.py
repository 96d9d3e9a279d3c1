"""The runs of a cross-validation together: each image once, in intervals that repeats do not narrow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convsmith.errors import RunError
from convsmith.evaluation import Answers, Predictions, evaluate, wilson
from convsmith.evaluation.cross_validation import (
    PREDICTIONS,
    RECORD,
    is_cross_validation,
    pool,
    rescore,
    results,
    run_name,
    runs_of,
    score,
)
from convsmith.run_folder import EventLog, RunFolder

CLASSES = ("ant", "bee", "cat")


@dataclass(frozen=True)
class Made:
    """A cross-validation whose answers were made up: `right[r, i]` is whether repeat r names image i rightly."""

    folder: RunFolder
    ids: np.ndarray
    targets: np.ndarray
    right: np.ndarray


def made(
    path: Path, *, repeats: int = 1, folds: int = 3, count: int = 60, wrong: float = 0.3, groups: int = 0, seed: int = 0
) -> Made:
    """Write the folders that finished runs leave, as far as pooling reads them."""
    rng = np.random.default_rng(seed)
    folder = RunFolder(path)
    folder.path.mkdir(parents=True)
    names = [run_name(fold, repeat, repeats) for repeat in range(1, repeats + 1) for fold in range(1, folds + 1)]
    record = {"schema": 1, "folds": folds, "repeats": repeats, "runs": names, "aside": 4, "code": None}
    folder.write_json(RECORD, record)
    ids, targets = np.array([f"{i:03d}.png" for i in range(count)]), rng.integers(0, 3, count)
    owners = np.array([f"g{i % groups}" if groups else "" for i in range(count)])
    hard = rng.uniform(size=groups or count)[np.arange(count) % (groups or count)]  # a group is right or wrong as one
    right = np.array([(hard if groups else rng.uniform(size=count)) > wrong for _ in range(repeats)])
    for place, name in enumerate(names):
        repeat, fold = divmod(place, folds)
        rows = np.random.default_rng(repeat).permutation(count)[fold::folds]
        called = np.where(right[repeat, rows], targets[rows], (targets[rows] + 1) % 3)
        logits = np.zeros((len(rows), 3), np.float32)
        logits[np.arange(len(rows)), called] = rng.uniform(0.5, 3, len(rows))
        arrays = {"ids": ids[rows], "targets": targets[rows], "logits": logits,
                  "pixels": np.zeros((len(rows), 32), np.uint8)}  # fmt: skip
        answers = Answers(arrays, CLASSES, "test", None, tuple(owners[rows].tolist()) if groups else None)
        finished(folder, name, answers, trained=count - len(rows))
    return Made(folder, ids, targets, right)


def finished(folder: RunFolder, name: str, answers: Answers, *, trained: int) -> None:
    run = RunFolder(folder.path / name)
    run.predictions.mkdir(parents=True)
    answers.save(run.predictions / "test.npz")
    measured = evaluate(Predictions.of(answers), majority=0, groups=answers.groups)
    run.write_json("results.json", {"schema": 1, "task": "classification", "splits": {"test": measured}})
    run.write_json("manifest.json", {"data": {"counts": {"train": {"ant": trained, "bee": 0, "cat": 0}}}})
    log = EventLog(run.log_path)
    log.append("finished", values={"seconds": {"total": 1.0}})
    log.close()


def figures(record: dict[str, Any], name: str = "accuracy") -> tuple[float, float, float]:
    estimate = record["metrics"][name]
    return estimate["value"], estimate["low"], estimate["high"]


def test_every_image_is_there_once_in_each_repeat_with_the_fold_that_tested_it(tmp_path: Path):
    whole = made(tmp_path / "cv", repeats=2)
    answers = pool(whole.folder)
    arrays = answers.arrays
    for repeat in (1, 2):
        rows = arrays["repeat"] == repeat
        assert arrays["ids"][rows].tolist() == whole.ids.tolist()
        assert (arrays["targets"][rows] == whole.targets).all()
        assert ((arrays["logits"][rows].argmax(axis=1) == whole.targets) == whole.right[repeat - 1]).all()
    for run, (repeat, fold) in zip(runs_of(whole.folder), np.ndindex(2, 3), strict=True):
        own = Answers.load(run.predictions / "test.npz").arrays["ids"]
        rows = (arrays["repeat"] == repeat + 1) & (arrays["fold"] == fold + 1)
        assert arrays["ids"][rows].tolist() == sorted(own.tolist())
    assert is_cross_validation(whole.folder)
    assert not is_cross_validation(runs_of(whole.folder)[0])


def test_the_answers_lie_in_a_file_without_pickles(tmp_path: Path):
    whole = made(tmp_path / "cv")
    pool(whole.folder).save(whole.folder.path / PREDICTIONS)
    with np.load(whole.folder.path / PREDICTIONS, allow_pickle=False) as file:
        kinds = {name: file[name].dtype.kind for name in ("ids", "targets", "logits", "fold", "repeat")}
        assert kinds == {"ids": "U", "targets": "i", "logits": "f", "fold": "i", "repeat": "i"}
        assert file["logits"].dtype == np.float32


def test_one_drawing_gives_the_figures_of_all_images_as_one_set(tmp_path: Path):
    whole = made(tmp_path / "cv")
    record = score(pool(whole.folder))
    expected = wilson(int(whole.right.sum()), 60)
    assert figures(record) == (expected.value, expected.low, expected.high)
    assert record["n"] == 60
    assert sum(map(sum, record["confusion"])) == 60
    assert record["baseline"]["class"] == CLASSES[np.bincount(whole.targets).argmax()]


def test_of_repeats_each_image_counts_once_with_the_share_that_named_it_rightly(tmp_path: Path):
    """By hand: the mean over images of the share of right answers, in an interval as wide as that of 60 images."""
    whole = made(tmp_path / "cv", repeats=4)
    record = score(pool(whole.folder))
    value, low, high = figures(record)
    assert value == pytest.approx(whole.right.mean(axis=0).mean())
    once = wilson(float(value) * 60, 60)
    assert (low, high) == (pytest.approx(once.low, abs=0.004), pytest.approx(once.high, abs=0.004))
    assert record["n"] == record["metrics"]["accuracy"]["n"] == 60
    assert record["metrics"]["accuracy"]["method"] == "mean of 4 repeats, each Wilson 95 %"
    assert sum(map(sum, record["confusion"])) == pytest.approx(60)
    assert sum(row["n"] for row in record["per_class"]) == 60
    assert sum(row["predicted"] for row in record["per_class"]) == pytest.approx(60)
    assert sum(item["n"] for item in record["reliability"]) == pytest.approx(60)
    assert sum(pair["count"] for pair in record["pairs"]) == pytest.approx(60 * (1 - value))
    named = [mistake["id"] for mistake in record["mistakes"]]
    assert len(set(named)) == len(named) > 0
    recalls = [whole.right[:, whole.targets == k].mean() for k in range(3)]
    assert [row["recall"]["value"] for row in record["per_class"]] == pytest.approx(recalls)


def test_equal_repeats_change_nothing(tmp_path: Path):
    """Four drawings with the same answers say what one says, and no more surely."""
    whole = made(tmp_path / "cv", repeats=4)
    answers = pool(whole.folder)
    first = answers.arrays["repeat"] == 1
    same = {name: np.concatenate([values[first]] * 4) for name, values in answers.arrays.items()}
    same["repeat"] = np.repeat(np.arange(1, 5), 60)
    alone = score(Answers({name: values[first] for name, values in answers.arrays.items()}, CLASSES))
    together = score(Answers(same, CLASSES))
    for name in alone["metrics"]:
        assert figures(together, name) == pytest.approx(figures(alone, name)), name
    assert together["confusion"] == alone["confusion"]
    assert [row["recall"]["low"] for row in together["per_class"]] == pytest.approx(
        [row["recall"]["low"] for row in alone["per_class"]]
    )
    assert together["mistakes"] == alone["mistakes"]


def test_groups_are_resampled_whole_so_that_few_of_them_leave_a_wide_interval(tmp_path: Path):
    single, grouped = made(tmp_path / "single"), made(tmp_path / "grouped", groups=6)
    for name in ("accuracy", "balanced_accuracy", "log_loss"):
        (_, low, high), record = figures(score(pool(single.folder)), name), score(pool(grouped.folder))
        assert figures(record, name)[2] - figures(record, name)[1] > 1.5 * (high - low)
        assert "group" in record["metrics"][name]["method"]
        assert record["metrics"][name]["n"] == 6


def test_a_figure_that_one_repeat_cannot_give_is_not_given_by_the_others(tmp_path: Path):
    whole = made(tmp_path / "cv", repeats=2, wrong=0.0)
    answers = pool(whole.folder)
    never = (answers.arrays["repeat"] == 1) & (answers.arrays["targets"] == 2)
    answers.arrays["logits"][never] = (9, 0, 0)  # the first drawing calls nothing a cat
    cat = score(answers)["per_class"][2]
    assert cat["precision"]["value"] is None
    assert "never predicted" in cat["precision"]["reason"]
    assert cat["recall"]["value"] == 0.5


def test_the_results_hold_each_run_their_spread_and_what_the_intervals_are_not(tmp_path: Path):
    whole = made(tmp_path / "cv", repeats=2)
    told = results(whole.folder, pool(whole.folder))["cross_validation"]
    values = [row["metrics"]["accuracy"]["value"] for row in told["runs"]]
    assert [(row["run"], row["fold"], row["repeat"]) for row in told["runs"]][3] == ("repeat-2-fold-1", 1, 2)
    assert {(row["train"], row["test"]) for row in told["runs"]} == {(40, 20)}
    assert told["spread"]["accuracy"] == {
        "deviation": pytest.approx(np.std(values, ddof=1)), "lowest": min(values), "highest": max(values), "n": 6,
    }  # fmt: skip
    says = " ".join(told["says"])
    assert "3 folds, drawn 2 times, so 6 networks, each trained on 40 images" in says
    assert "Bengio & Grandvalet 2004" in says
    assert "Bates, Hastie & Tibshirani 2023" in says
    assert "they are no new images" in says
    assert "The given test set, 4 images, was left aside" in says


def test_results_are_computed_anew_from_the_recorded_answers(tmp_path: Path):
    whole = made(tmp_path / "cv")
    answers = pool(whole.folder)
    with pytest.raises(RunError, match="not finished"):
        rescore(whole.folder)
    answers.save(whole.folder.path / PREDICTIONS)
    log = EventLog(whole.folder.log_path)
    log.append("finished", values={"seconds": {"total": 3.0}})
    log.close()
    assert rescore(whole.folder) == results(whole.folder, answers)
    assert whole.folder.read_json("results.json") == rescore(whole.folder)


def test_runs_that_are_not_finished_or_answer_an_image_twice_are_refused(tmp_path: Path):
    whole = made(tmp_path / "cv")
    first, second, _ = runs_of(whole.folder)
    (second.predictions / "test.npz").write_bytes((first.predictions / "test.npz").read_bytes())
    with pytest.raises(RunError, match="do not answer every image once") as caught:
        pool(whole.folder)
    assert f"convsmith resume {whole.folder.path}" in caught.value.mend
    first.log_path.unlink()
    with pytest.raises(RunError, match="fold-1 is not finished"):
        pool(whole.folder)
