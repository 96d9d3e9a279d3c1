"""The probe at every stage: the figures that other libraries come to, on test images, at a bounded cost."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from pictures_made import photo_folder
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tuned import NETWORK, fine_tuning, train

from convsmith.evaluation import wilson
from convsmith.evidence import StageEnd
from convsmith.images import Dataset
from convsmith.pipeline import Prepared, probe
from convsmith.pipeline.linear import Features, fit
from convsmith.recipe import Recipe
from convsmith.run_folder import RunFolder


@pytest.fixture(scope="module")
def confused(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a run, and its images, some of which are in a class that is not theirs."""
    folder = tmp_path_factory.mktemp("confused")
    photos = photo_folder(folder / "photos", each=50, side=40)
    pictures = sorted(photos.rglob("*.png"))
    for number in np.random.default_rng(5).choice(len(pictures), 40, replace=False):
        path = pictures[number]
        path.rename(photos / "cat" / f"moved-{path.parent.name}-{path.name}")
    return train(fine_tuning(photos, weights, transfer__mode="probe"), folder / "runs"), photos


def averages_of_timm(run: Path, photos: Path, weights: Path, ids: list[str]) -> list[np.ndarray]:
    """Averages of the maps of each stage, by nothing but Pillow and timm."""
    image = Recipe.from_yaml((run / "recipe.yaml").read_text()).image
    pixels = np.stack([np.asarray(Image.open(photos / name)) for name in ids]).transpose(0, 3, 1, 2) / 255
    mean, std = (np.array(values)[:, None, None] for values in (image.mean, image.std))
    model = timm.create_model(NETWORK).eval()
    model.load_state_dict(safetensors.torch.load_file(weights))
    with torch.no_grad():
        maps = model.forward_intermediates(torch.from_numpy((pixels - mean) / std).float(), intermediates_only=True)  # type: ignore[operator]
    return [each.mean((2, 3)).numpy() for each in maps]


def test_each_stage_gets_the_head_that_scikit_learn_fits_to_what_timm_gives(confused: tuple[Path, Path], weights: Path):
    run, photos = confused
    record = RunFolder(run).read_json("probe.json")
    with (run / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    features = averages_of_timm(run, photos, weights, [row["id"] for row in rows])
    role, targets = np.array([row["role"] for row in rows]), np.array([row["class"] for row in rows])
    learned, test = role == "train", role == "test"
    n = int(learned.sum())
    assert [stage["name"] for stage in record["stages"]] == ["stem", "stride-4", "stride-8", "stride-16", "stride-32"]
    for stage, own in zip(record["stages"], features[:-1], strict=False):
        assert (stage["features"], stage["images"]) == (own.shape[1], n)
        mean = own[learned].mean(axis=0)
        scaled = (own - mean) / np.sqrt(np.square(own[learned] - mean).mean())
        theirs = LogisticRegression(C=1 / (n * record["decay"]), max_iter=3000, tol=1e-8)
        theirs.fit(scaled[learned], targets[learned])
        right = int(np.count_nonzero(theirs.predict(scaled[test]) == targets[test]))
        assert 0.5 < right / test.sum() < 1
        assert stage["accuracy"] == wilson(right, int(test.sum())).to_json()
        expected = log_loss(targets[test], theirs.predict_proba(scaled[test]), labels=theirs.classes_)
        assert stage["log_loss"]["value"] == pytest.approx(expected, rel=0.01)


def test_the_last_stage_is_the_linear_probe_and_each_gain_is_on_the_stage_before(confused: tuple[Path, Path]):
    record = RunFolder(confused[0]).read_json("probe.json")
    stages = record["stages"]
    assert {key: stages[-1][key] for key in ("features", "accuracy", "log_loss")} == {
        "features": record["features"], **{key: record["test"][key] for key in ("accuracy", "log_loss")},
    }  # fmt: skip
    assert stages[0]["gain"] is None
    for before, stage in pairwise(stages):
        gain = stage["gain"]
        assert gain["value"] == pytest.approx(stage["accuracy"]["value"] - before["accuracy"]["value"])
        assert gain["low"] <= gain["value"] <= gain["high"]
        assert gain["n"] == record["test"]["n"]
    assert record["seconds"]["stages"] >= 0


def made_up(images: int) -> tuple[Dataset, np.ndarray]:
    """Images of two classes of which every fourth is for test, and features that tell them apart."""
    targets = np.arange(images) % 2
    roles = ["test" if number % 4 > 1 else "train" for number in range(images)]
    pictures = np.zeros((images, 1, 1, 3), np.uint8)
    dataset = Dataset.from_arrays(pictures, targets, ("no", "yes"), roles=roles)
    hashes = np.random.default_rng(0).integers(0, 256, (images, 32), np.uint8)
    features = np.random.default_rng(1).normal(size=(images, 3)).astype(np.float32)
    features[:, 0] += 8 * targets
    return Dataset(**{**vars(dataset), "hashes": hashes}), features


def stages_of(dataset: Dataset, low: np.ndarray, last: np.ndarray, rows: np.ndarray) -> list[dict[str, Any]]:
    """Records of one stage, whose features `low` are those of `rows`, and of the last."""
    whole = Features(torch.from_numpy(last)[None], ("image",), "", 0.0)
    recipe = Recipe().updated({"train.balance": "none"})
    head = fit(whole, dataset, dataset.indices("train"), recipe, (0.01,))
    below = [(StageEnd("stem", 2, "stem", (2, 3), 3), Features(torch.from_numpy(low)[None], ("image",), "", 0.0, rows))]
    return probe._stages(whole, head, StageEnd("head", 2, "head", (), 3), below, recipe, Prepared(dataset, {}))


def test_a_stage_that_knows_nothing_is_at_chance_and_the_next_one_gains_what_it_lacks():
    dataset, features = made_up(400)
    noise = np.random.default_rng(2).normal(size=features.shape).astype(np.float32)
    stem, last = stages_of(dataset, noise, features, np.arange(400))
    assert stem["accuracy"]["low"] < 0.5 < stem["accuracy"]["high"]
    assert last["accuracy"]["value"] == 1.0
    assert last["gain"]["value"] == pytest.approx(1 - stem["accuracy"]["value"])
    assert last["gain"]["low"] > 0
    back = stages_of(dataset, features, noise, np.arange(400))[1]["gain"]
    assert back["high"] < 0


def test_where_some_images_have_stages_all_stages_are_asked_about_these_and_few_are_learned_from(
    monkeypatch: pytest.MonkeyPatch,
):
    dataset, features = made_up(400)
    rows = np.arange(0, 400, 3)
    monkeypatch.setattr(probe, "STAGE_TRAIN", 20)
    stem, last = stages_of(dataset, features[rows], features, rows)
    asked = sum(dataset.roles[row] == "test" for row in rows)
    assert stem["accuracy"]["n"] == last["accuracy"]["n"] == last["gain"]["n"] == asked
    assert (stem["images"], last["images"]) == (20, 200)
    assert stem["accuracy"]["value"] == 1.0  # so each row got the target that is its own
