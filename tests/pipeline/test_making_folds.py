"""A cross-validation is made of ordinary runs, looks at its images once, and goes on where it was cut short."""

from __future__ import annotations

import csv
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared import end
from pictures_made import class_folder
from tuned import fine_tuning

from convsmith import pipeline
from convsmith.errors import DataError, Interrupted, RunError, UsageError
from convsmith.evaluation import Answers
from convsmith.pipeline import Code, Message, folds, measure, preparing
from convsmith.pipeline.messages import silent
from convsmith.recipe import Data, Recipe
from convsmith.run_folder import RunFolder

SETTINGS: dict[str, Any] = {
    "model": {"name": "convnet", "options": {"width": 8, "stages": 2}}, "weights.source": None, "train.batch": 8,
    "train.epochs": 2, "train.precision": "float32", "train.memory_format": "contiguous", "train.log_ids": True,
    "train.checkpoint_every": 2, "train.report_every": 2, "train.tune_every": 3, "data.folds": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def insects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve small pictures, and one of a single picture."""
    root = class_folder(tmp_path_factory.mktemp("folds") / "insects", each=12)
    return class_folder(root, classes=("dog",), each=1, seed=5)


@pytest.fixture(scope="module", autouse=True)
def _measured_in_no_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SECONDS", 0.02)
        yield


class Listening:
    """Keeps what is told, and sends SIGTERM at a batch of the second fold."""

    def __init__(self, *, stop: bool = False) -> None:
        self.stop = stop
        self.told: list[str] = []

    def __call__(self, message: Message) -> None:
        self.told.append(message.text)
        event = message.values.get("event")
        if self.stop and "Fold 2 of 2" in self.told and event is not None and event.kind == "batch" and event.step == 3:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def asked(insects: Path) -> Recipe:
    return Recipe().updated({"data.source": str(insects), **SETTINGS})


@pytest.fixture(scope="module")
def made(asked: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A cross-validation that was stopped in its second run and asked for again, with what could be seen on the way."""
    runs, looks = tmp_path_factory.mktemp("made") / "runs", []
    real = preparing.audit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "audit", lambda *args, **options: looks.append(1) or real(*args, **options))
        with pytest.raises(Interrupted) as caught:
            pipeline.cross_validate(asked, runs=runs, tell=Listening(stop=True))
        (path,) = runs.iterdir()
        before = changed_at(path / "fold-1")
        listening = Listening()
        folder = pipeline.cross_validate(asked, runs=runs, tell=listening)
    return {
        "folder": folder, "path": path, "stopped": caught.value, "looks": len(looks), "told": listening.told,
        "kept": before == changed_at(path / "fold-1"),
    }  # fmt: skip


def changed_at(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_the_same_command_goes_on_and_leaves_what_is_finished_as_it_is(made: dict[str, Any]):
    assert made["stopped"].exit_code == 143
    assert made["stopped"].mend == f"Go on with: convsmith resume {made['path']}"
    assert made["folder"].path == made["path"]
    assert made["folder"].finished
    assert made["kept"]
    assert any("asked for alike" in text for text in made["told"])
    assert "Fold 1 of 2" not in made["told"]
    assert any(text.startswith("Resumed at step 3") for text in made["told"])


def test_the_images_are_audited_once_by_each_command(made: dict[str, Any]):
    assert made["looks"] == 2


def test_a_run_of_it_is_what_the_same_recipe_makes_alone(made: dict[str, Any], asked: Recipe, tmp_path: Path):
    """The second one was stopped and resumed, and still has the weights, draws and figures of an unbroken run."""
    alone = pipeline.train(asked.updated({"data.fold": 2, "data.repeat": 1}), runs=tmp_path)
    whole = RunFolder(made["path"] / "fold-2")
    assert end(alone.path) == end(whole.path)
    assert alone.read_text("split.csv") == whole.read_text("split.csv")
    assert whole.read_recipe().data == alone.read_recipe().data
    assert made["folder"].read_recipe().data.fold is None


def test_every_image_is_tested_once_and_never_by_a_run_that_learnt_from_it(made: dict[str, Any], insects: Path):
    answers = Answers.load(made["path"] / "out-of-fold.npz").arrays
    assert sorted(answers["ids"].tolist()) == sorted(
        path.relative_to(insects).as_posix() for path in insects.rglob("*.png")
    )
    for fold in (1, 2):
        run = made["path"] / f"fold-{fold}"
        roles = {row["id"]: row["role"] for row in csv.DictReader((run / "split.csv").read_text().splitlines())}
        tested = answers["ids"][answers["fold"] == fold].tolist()
        assert sorted(tested) == sorted(name for name, role in roles.items() if role == "test")
        own = Answers.load(run / "predictions" / "test.npz").arrays
        order = np.argsort(own["ids"])
        for name in ("logits", "temperature"):
            assert np.array_equal(own[name][order], answers[name][answers["fold"] == fold])
    listed = list(csv.DictReader((made["path"] / "split.csv").read_text().splitlines()))
    found = dict(zip(answers["ids"].tolist(), answers["fold"].tolist(), strict=True))
    assert {row["id"]: int(row["repeat_1"]) for row in listed} == found


def test_a_class_of_one_picture_is_tested_by_a_network_that_had_none_of_it_which_is_said(made: dict[str, Any]):
    told = made["folder"].read_json("audit.json")["notes"]
    assert any(note.startswith("All images of dog lie in one fold") for note in told)
    assert not any("is never tested" in note for note in told)
    dog = made["folder"].read_json("results.json")["splits"]["test"]["per_class"][3]
    assert (dog["name"], dog["n"], dog["recall"]["value"]) == ("dog", 1, 0.0)


def test_a_finished_one_is_not_resumed_and_asked_for_again_it_is_made_anew(made: dict[str, Any], asked: Recipe):
    with pytest.raises(RunError, match="is finished"):
        pipeline.resume_folds(made["folder"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folds, "plan_first", anew)
        with pytest.raises(ZeroDivisionError):
            pipeline.cross_validate(asked, runs=made["path"].parent)


def anew(*_: object, **__: object) -> Any:
    """In place of a plan, which is only made where nothing is taken up."""
    raise ZeroDivisionError


def test_only_what_was_asked_for_alike_on_the_same_images_and_code_is_taken_up(made: dict[str, Any], asked: Recipe):
    folder, examined = made["folder"], preparing.examine(asked.data, silent)
    report = folder.report.read_bytes()
    folder.report.unlink()  # not finished then
    try:
        runs = made["path"].parent
        broken = runs / "2099-01-01-broken-00000000"
        broken.mkdir()
        for name in ("recipe.yaml", "given.yaml", "cross-validation.json"):
            (broken / name).write_text("{")
        assert folds._unfinished(runs, asked, examined, None).path == folder.path
        shutil.rmtree(broken)
        assert folds._unfinished(runs, asked.updated({"train.epochs": 3}), examined, None) is None
        fewer = replace(examined, dataset=examined.dataset.select(range(30)))
        assert folds._unfinished(runs, asked, fewer, None) is None
        assert folds._unfinished(runs, asked, examined, Code(Path("net.py"), "Net", {}, "0" * 64)) is None
        again = pipeline.resume_folds(folder)
    finally:
        if not folder.report.exists():
            folder.report.write_bytes(report)
    assert again.report.read_bytes() == report


def test_images_that_changed_are_named_before_it_goes_on(made: dict[str, Any], insects: Path, tmp_path: Path):
    folder = made["folder"]
    other = class_folder(tmp_path / "insects", each=12, seed=1)
    report = folder.report.read_bytes()
    folder.report.unlink()
    try:
        with pytest.raises(DataError, match=r"1 removed \(dog/000\.png\)"):
            pipeline.resume_folds(folder, data=str(other))
    finally:
        folder.report.write_bytes(report)


def test_frozen_features_are_computed_by_the_first_run_alone(
    photos: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CONVSMITH_CACHE", str(tmp_path / "cache"))
    changes = {"data__folds": 2, "transfer__mode": "probe", "train__memory_format": "auto"}
    told: list[str] = []

    def listen(message: Message) -> None:
        told.append(message.text)
        if "Fold 2 of 2" in told and message.text.startswith("The linear probe"):
            raise Enough

    with pytest.raises(Enough):
        pipeline.cross_validate(fine_tuning(photos, weights, **changes), runs=tmp_path / "runs", tell=listen)
    assert "Frozen features" in told[: told.index("Fold 2 of 2")]
    assert "Frozen features" not in told[told.index("Fold 2 of 2") :]


class Enough(Exception):
    """What had to be seen was seen."""


def test_a_budget_is_shared_by_the_runs_that_are_left(asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = asked.updated({"data.folds": 4, "data.repeats": 3, "train.epochs": "auto", "train.budget": 600})
    monkeypatch.setattr(folds.time, "monotonic", lambda: 160.0)
    whole: Any = folds.Whole(RunFolder(tmp_path), recipe, None, None, silent, None, (), started=100.0)  # type: ignore[arg-type]
    assert folds._share(whole, 0.0, 12) == 45.0  # (600 - 60) / 12
    assert folds._share(whole, 300.0, 4) == 60.0
    assert folds._share(whole, 590.0, 4) == 25.0  # half of an equal share, or the last ones would have no time at all
    free = replace(whole, recipe=asked)
    assert folds._share(free, 0.0, 12) is None


def test_a_budget_too_small_for_so_many_runs_says_so_before_anything_is_written(asked: Recipe, tmp_path: Path):
    recipe = asked.updated({"train.epochs": "auto", "train.budget": 0.5})
    with pytest.raises(UsageError, match="shared by 2 runs") as caught:
        pipeline.cross_validate(recipe, runs=tmp_path / "runs")
    assert caught.value.mend.startswith("For each of them: Give at least")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.folds": None}, "needs a number of folds"),
        ({"data.fold": 2}, "names fold 2 alone"),
        ({"data.time": "exif"}, "exclude each other"),
        ({"weights.source": "absent.pth"}, "no weights absent.pth"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(changes: dict, words: str, asked: Recipe, tmp_path: Path):
    recipe = asked.updated({"data.source": str(tmp_path / "absent"), **changes})
    with pytest.raises(UsageError, match=words):
        pipeline.cross_validate(recipe, runs=tmp_path / "runs")


def test_several_processes_are_refused_with_what_to_type_instead(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="torchrun started several") as caught:
        pipeline.cross_validate(asked, runs=tmp_path)
    assert "--set data.folds=2 --set data.fold=1" in caught.value.mend


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"folds": 3}, "one run tests one of them"),
        ({"fold": 1}, "but no folds"),
        ({"repeats": 2}, "but no folds"),
        ({"folds": 3, "fold": 4}, "no fold 4 of 3"),
    ],
)
def test_one_run_needs_one_fold(keys: dict[str, int], words: str):
    with pytest.raises(UsageError, match=words):
        preparing.prepare(Data(source="absent", **keys), silent)


def test_a_given_test_set_stays_aside_and_its_copies_in_train_are_no_leak(tmp_path: Path):
    class_folder(tmp_path / "train", each=8)
    class_folder(tmp_path / "val", each=4)  # the same generator, so the same pictures
    section = Data(source=str(tmp_path), folds=2, fold=1)
    prepared = preparing.prepare(section, silent)
    assert {name.partition("/")[0] for name in prepared.dataset.ids} == {"train"}
    notes = prepared.audit["notes"]
    assert "The given test set, 12 images, stays aside: no fold holds any of it." in notes
    assert not any("pixel for pixel" in note for note in notes)
    assert prepared.audit["duplicates"] == []
    assert prepared.audit["images"] == sum(prepared.audit["classes"].values()) == 24
    whole = preparing.prepare(Data(source=str(tmp_path)), silent).dataset
    assert preparing.prepare(section.model_copy(update={"fingerprint": whole.fingerprint}), silent)
    with pytest.raises(DataError, match="not those of the recipe"):
        preparing.prepare(section.model_copy(update={"fingerprint": "0" * 64}), silent)


def test_a_split_by_time_is_recorded_with_what_its_sides_lack(tmp_path: Path):
    class_folder(tmp_path / "p", classes=("ant", "bee"), each=20)
    rows = [f"{name}/{k:03d}.png,{name},2024-{1 + k // 2:02d}" for name in ("ant", "bee") for k in range(20)]
    rows = [row for row in rows if not (row.startswith("bee") and row.endswith(("-09", "-10")))]
    (tmp_path / "p" / "t.csv").write_text("\n".join(["path,label,month", *rows]))
    prepared = preparing.prepare(Data(source=str(tmp_path / "p" / "t.csv"), time="month"), silent)
    # By hand: 36 images, so 5.4 are wanted; the two last months have 2 each, those before them 4 each.
    assert prepared.audit["split"]["says"] == (
        "78/11/11 by time, not by class (wanted: 70/15/15), train up to 2024-07, tune from 2024-08 on, test from "
        "2024-09 on"
    )
    assert "Not every side has every class: test has none of bee." in prepared.audit["notes"]
