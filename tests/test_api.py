"""What a notebook types."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import html
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from pictures_made import class_folder, photo_folder
from PIL import Image
from torch import nn

import convsmith
from convsmith import Classifier, CrossValidation, Estimate, Finding, Recipe, Run
from convsmith.errors import DataError, RunError, UsageError

SMALL = {
    "model": {"name": "convnet", "options": {"width": 8, "stages": 2}}, "train.batch": 8,
    "train.precision": "float32", "train.memory_format": "contiguous",
}  # fmt: skip


class Flat(nn.Module):
    """A network of the user's own, given as it stands in a notebook."""

    def __init__(self, in_channels: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 64, outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folder(tmp_path_factory.mktemp("api") / "insects")


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return convsmith.train(pictures, epochs=4, overrides=SMALL, runs=tmp_path_factory.mktemp("runs"), name="first")


def test_a_run_holds_its_figures_findings_and_curves(run: Run):
    assert isinstance(run.results["accuracy"], Estimate)
    assert run.results["accuracy"].n == 9
    assert {"accuracy", "balanced_accuracy", "macro_f1", "log_loss", "top_2", "ece"} == set(run.results)
    curves = run.curves()
    assert {"loss", "rate", "accuracy", "log_loss", "images_per_second"} <= set(curves)
    assert curves["loss"][-1][0] == run.recipe.train.steps == 20
    assert curves["loss"][-1][1] < curves["loss"][0][1]


def test_findings_are_what_the_diagnosis_recorded(run: Run, tmp_path: Path):
    noise = class_folder(tmp_path / "noise", signal=0)
    findings = convsmith.train(noise, epochs=2, overrides=SMALL, runs=tmp_path / "runs").findings
    assert all(isinstance(finding, Finding) for finding in findings)
    assert {finding.rule for finding in findings} > {finding.rule for finding in run.findings}


def test_the_recipe_of_a_run_trains_the_same_network(run: Run, tmp_path: Path):
    assert "auto" not in run.recipe.to_yaml()
    again = convsmith.train(str(run.recipe.data.source), recipe=run.recipe, runs=tmp_path)
    assert again.recipe == run.recipe
    one, other = (np.load(each.path / "predictions" / "test.npz")["logits"] for each in (run, again))
    assert np.array_equal(one, other)


def test_training_leaves_the_callers_generators_as_they_were(pictures: Path, tmp_path: Path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    convsmith.train(pictures, epochs=1, overrides=SMALL, runs=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_paths_pil_images_and_arrays_get_equal_answers(run: Run, pictures: Path):
    paths = sorted(pictures.rglob("*.png"))[::7]
    images = [Image.open(path) for path in paths]
    arrays = [np.asarray(image) for image in images]
    classifier = run.classifier()
    expected = classifier.predict_proba(paths)
    assert expected.shape == (len(paths), 3)
    assert expected.dtype == np.float64
    assert np.allclose(expected.sum(axis=1), 1)
    for given in ([str(path) for path in paths], images, arrays, np.stack(arrays)):
        assert np.array_equal(classifier.predict_proba(given), expected)
    assert list(classifier.classes_) == ["ant", "bee", "cat"]
    assert list(classifier.predict(paths)) == [classifier.classes_[row.argmax()] for row in expected]


def test_grey_pictures_are_read_as_the_network_needs_them(run: Run):
    grey = np.full((8, 8), 77, np.uint8)
    expected = run.classifier().predict_proba([np.stack([grey] * 3, axis=-1)])
    for given in (grey, grey[..., None], Image.fromarray(grey)):
        assert np.allclose(run.classifier().predict_proba([given]), expected, atol=1e-6)


def test_the_classifier_agrees_with_the_recorded_predictions(run: Run, pictures: Path):
    with np.load(run.path / "predictions" / "test.npz") as arrays:
        ids, logits = arrays["ids"], arrays["logits"] / arrays["temperature"][:, None]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(run.classifier().predict_proba([pictures / name for name in ids]), expected, atol=1e-5)


def test_no_pictures_get_no_answers(run: Run):
    assert run.classifier().predict_proba([]).shape == (0, 3)
    assert run.classifier().predict([]).shape == (0,)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("one.png", UsageError, "takes a list"),
        ([np.zeros((8, 8), np.float32)], UsageError, "expected uint8"),
        ([np.zeros((8, 8, 4), np.uint8)], UsageError, "expected uint8"),
        (["absent.png"], DataError, "absent.png"),
    ],
)
def test_what_is_no_picture_is_refused(given: object, error: type[Exception], words: str, run: Run):
    with pytest.raises(error, match=words):
        run.classifier().predict(given)  # type: ignore[arg-type]


def test_other_images_are_measured_and_recorded(run: Run, tmp_path: Path):
    other = class_folder(tmp_path / "other", classes=("cat", "ant"), each=5, seed=9)
    figures = run.evaluate(other)
    assert figures["accuracy"].n == 10
    (results,) = (run.path / "evaluations").glob("*/results.json")
    assert '"n": 10' in results.read_text()
    one_class = run.evaluate(class_folder(tmp_path / "one", classes=("bee",), each=3, seed=8))
    assert one_class["accuracy"].n == 3
    with pytest.raises(DataError, match="dog"):
        run.evaluate(class_folder(tmp_path / "dogs", classes=("ant", "dog"), each=3))


def test_a_run_is_found_again_and_shows_itself(run: Run):
    found = convsmith.load_run("first", runs=run.path.parent)
    assert found.path == run.path
    assert found.results == run.results
    assert "accuracy" in repr(found)
    assert html.escape(str(run.path / "report.html")) in found._repr_html_()
    assert convsmith.load_run("last", runs=run.path.parent).path == run.path
    with pytest.raises(UsageError, match="no run"):
        convsmith.load_run("second", runs=run.path.parent)


def test_a_report_is_rebuilt_alike(run: Run):
    before = (run.path / "report.html").read_bytes()
    assert run.report() == run.path / "report.html"
    assert (run.path / "report.html").read_bytes() == before


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> CrossValidation:
    """A cross-validation of fifteen pictures in two folds, from a data set that was loaded before."""
    folder = tmp_path_factory.mktemp("folded")
    data = convsmith.load_data(class_folder(folder / "insects", each=5))
    return convsmith.cross_validate(data, folds=2, epochs=1, overrides=SMALL, runs=folder / "runs")


def test_a_cross_validation_holds_its_runs_the_pooled_figures_and_every_answer(folded: CrossValidation):
    assert [run.recipe.data.fold for run in folded.runs] == [1, 2]
    assert sum(run.results["accuracy"].n for run in folded.runs) == folded.results["accuracy"].n == 15
    answers = folded.out_of_fold
    assert {name: len(values) for name, values in answers.items()} == dict.fromkeys(
        ("ids", "targets", "logits", "temperature", "fold", "repeat"), 15
    )
    right = answers["logits"].argmax(axis=1) == answers["targets"]
    assert folded.results["accuracy"].value == right.mean()
    assert sorted(answers["ids"].tolist()) == sorted(
        name for run in folded.runs for name in np.load(run.path / "predictions" / "test.npz")["ids"].tolist()
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        folded.path = Path()  # type: ignore[misc]


def test_a_cross_validation_is_opened_again_and_is_no_run(folded: CrossValidation, run: Run):
    again = convsmith.load_cross_validation("last", runs=folded.path.parent)
    assert repr(again) == repr(folded)
    assert np.array_equal(again.out_of_fold["logits"], folded.out_of_fold["logits"])
    assert again.runs[1].classifier().classes_.tolist() == ["ant", "bee", "cat"]
    with pytest.raises(RunError, match="is a cross-validation, which has several runs"):
        convsmith.load_run(folded.path)
    with pytest.raises(RunError, match="is a run and no cross-validation"):
        convsmith.load_cross_validation(run.path)


def test_answers_of_a_cross_validation_from_before_there_were_temperatures_have_one_of_1(
    folded: CrossValidation, tmp_path: Path
):
    old = tmp_path / "runs" / folded.path.name
    shutil.copytree(folded.path, old)
    with np.load(old / "out-of-fold.npz") as file:
        arrays = {name: file[name] for name in file.files if name != "temperature"}
    np.savez(old / "out-of-fold.npz", **arrays)
    assert (convsmith.load_cross_validation(old).out_of_fold["temperature"] == 1).all()


def test_data_is_loaded_divided_and_counted():
    data = convsmith.load_data("digits", limit=100)
    assert len(data) == 100
    counted = {role: sum(counts.values()) for role, counts in data.counts().items()}
    assert counted == {"train": 60, "tune": 20, "test": 20}
    assert data.read(0).shape == (8, 8, 1)


def tiny(in_channels: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 64, outputs))


def test_a_function_makes_the_network(pictures: Path, tmp_path: Path):
    overrides = {key: value for key, value in SMALL.items() if key != "model"}
    run = convsmith.train(pictures, model=tiny, epochs=1, overrides=overrides, runs=tmp_path)
    assert run.classifier().predict_proba([sorted(pictures.rglob("*.png"))[0]]).shape == (1, 3)
    unknown = convsmith.load_run(run.path)
    with pytest.raises(UsageError, match="--code"):
        unknown.classifier()
    assert convsmith.load_run(run.path, code=tiny).classifier()
    code = tmp_path / "net.py"
    code.write_text("")
    with pytest.raises(UsageError, match="not from a file"):
        convsmith.load_run(run.path, code=code).classifier()


def test_overrides_can_switch_off_and_recipes_are_not_overridden_by_defaults(pictures: Path, tmp_path: Path):
    base = Recipe().updated({**SMALL, "seed": 3, "train.epochs": 1})
    run = convsmith.train(pictures, recipe=base, overrides={"train.average": None}, runs=tmp_path)
    assert run.recipe.train.average is None
    assert run.recipe.seed == 3
    assert run.recipe.model == base.model


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"epochs": 1, "budget": "1m"}, "both say how long"),
        ({"model": "resnet"}, "no model named"),
        ({"recipe": "quik"}, "Did you mean quick"),
        ({"overrides": {"train.epoch": 3}}, "Did you mean train.epochs"),
        ({"budget": "soon"}, "no length of time"),
    ],
)
def test_wrong_calls_are_refused(asked: dict, words: str, pictures: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=words):
        convsmith.train(pictures, runs=tmp_path, **asked)
    assert not list(tmp_path.iterdir())


def test_an_unfinished_run_says_so(tmp_path: Path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "recipe.yaml").write_text("seed: 1\n")
    run = convsmith.load_run(tmp_path / "half")
    assert "not finished" in repr(run)
    assert "not finished" in run._repr_html_()
    with pytest.raises(RunError, match="not get that far"):
        _ = run.results
    assert not isinstance(run, Classifier)


def test_a_run_of_a_function_is_resumed_with_that_function(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "pictures")

    def stopping(message: Any) -> None:
        if message.text == "progress" or message.text == "epoch":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        convsmith.train(folder, model=Flat, epochs=3, runs=tmp_path / "runs", listener=stopping)
    run = convsmith.load_run("last", code=Flat, runs=tmp_path / "runs").resume()
    assert run.results["accuracy"].n > 0


def test_a_data_set_that_was_loaded_can_be_trained_on(tmp_path: Path) -> None:
    data = convsmith.load_data(class_folder(tmp_path / "pictures"))
    run = convsmith.train(data, epochs=1, runs=tmp_path / "runs")
    assert run.recipe.data.fingerprint == data.fingerprint


def test_a_data_set_from_nowhere_is_refused(tmp_path: Path) -> None:
    data = convsmith.Dataset.from_arrays(np.zeros((8, 8, 8), np.uint8), np.arange(8) % 2, ("a", "b"))
    with pytest.raises(convsmith.ConvsmithError, match="could not be resumed"):
        convsmith.train(data, runs=tmp_path / "runs")


def test_images_of_a_table_are_loaded_with_its_columns_and_trained_on_alike(tmp_path: Path) -> None:
    photo_folder(tmp_path / "photos", classes=("ant", "bee"), each=20, side=24)
    lines = ["file,kind,donor"]
    for kind in ("ant", "bee"):
        lines += [f"{kind}/{number:03d}.png,{kind},d{number // 4}" for number in range(20)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines))
    data = convsmith.load_data(table, images=tmp_path / "photos", label="kind", group="donor", split_seed=3)
    assert len(data) == 40
    assert set(data.groups) == {f"d{number}" for number in range(5)}
    sides = {
        group: {role for each, role in zip(data.groups, data.roles, strict=True) if each == group}
        for group in data.groups
    }
    assert all(len(roles) == 1 for roles in sides.values())
    with pytest.raises(UsageError, match="colour"):
        convsmith.load_data(table, images=tmp_path / "photos", label="colour")
    later = convsmith.load_data(table, images=tmp_path / "photos", label="kind", time=r"/(\d+)\.png")
    assert {name[-7:-4] for name, role in zip(later.ids, later.roles, strict=True) if role == "test"} == {
        "017", "018", "019",
    }  # fmt: skip

    run = convsmith.train(data, weights=None, epochs=1, overrides=SMALL, runs=tmp_path / "runs")
    rows = list(csv.DictReader((run.path / "split.csv").read_text().splitlines()))
    assert {row["id"]: (row["role"], row["group"]) for row in rows} == {
        name: (role, group) for name, role, group in zip(data.ids, data.roles, data.groups, strict=True)
    }


def test_a_data_set_loaded_in_part_is_trained_on_in_that_part(pictures: Path, tmp_path: Path) -> None:
    data = convsmith.load_data(pictures, limit=30)
    run = convsmith.train(data, epochs=1, overrides=SMALL, runs=tmp_path / "runs")
    assert (
        sum(sum(counts.values()) for counts in run.folder.read_json("manifest.json")["data"]["counts"].values()) == 30
    )
    with pytest.raises(DataError, match="not those of the recipe"):
        convsmith.train(data.select(range(10)), epochs=1, overrides=SMALL, runs=tmp_path / "other")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path, Path]:
    """A run whose head was fitted on a file of weights; its photographs and that file."""
    folder = tmp_path_factory.mktemp("tuned")
    photos = photo_folder(folder / "photos", each=14, side=32)
    torch.manual_seed(1)
    state = timm.create_model("test_resnet").state_dict()
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "w.safetensors")
    run = convsmith.train(
        photos, model="test_resnet", weights=folder / "w.safetensors", overrides=HEAD_ONLY, runs=folder / "runs"
    )
    return run, photos, folder / "w.safetensors"


HEAD_ONLY = {
    "image.size": 32, "transfer.mode": "probe", "train.precision": "float32", "train.memory_format": "contiguous",
}  # fmt: skip


def test_a_file_of_weights_is_a_start(tuned: tuple[Run, Path, Path]) -> None:
    run, _, file = tuned
    assert run.recipe.weights.source == str(file)
    assert run.recipe.weights.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert run.folder.read_json("probe.json")["weights"] == str(file)


def test_a_run_is_a_start_as_an_object_and_as_a_path(tuned: tuple[Run, Path, Path], tmp_path: Path) -> None:
    run, photos, _ = tuned
    others = photo_folder(tmp_path / "others", classes=("dog", "elk"), each=10, side=32, seed=4)
    for number, weights in enumerate((run, str(run.path))):
        again = convsmith.train(others, weights=weights, overrides=HEAD_ONLY, runs=tmp_path / f"runs{number}")
        assert again.recipe.weights.source == str(run.path.resolve())
        assert again.recipe.model == run.recipe.model
        assert list(again.classifier().classes_) == ["dog", "elk"]
    assert photos.is_dir()


def test_nothing_is_a_start_too(tuned: tuple[Run, Path, Path], tmp_path: Path) -> None:
    _, photos, _ = tuned
    run = convsmith.train(photos, weights=None, epochs=1, overrides=SMALL, runs=tmp_path / "runs")
    assert run.recipe.weights.source is None
    assert run.recipe.transfer.mode is None
    assert "pixels" in run.folder.read_json("probe.json")["says"]


def test_weights_that_are_nowhere_are_refused_before_anything_is_read(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.pth"):
        convsmith.train(pictures, model="test_resnet", weights=tmp_path / "absent.pth", runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_run_on_8_bits_refuses_deeper_arrays(run: Run) -> None:
    with pytest.raises(UsageError, match="expected uint8"):
        run.classifier().predict([np.zeros((8, 8), np.uint16)])
