"""What a network starts from: a head alone, a run of one's own, published weights, nothing."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from pictures_made import photo_folder
from torch import nn
from tuned import NETWORK, SIDE, final_weights, fine_tuning, planned, train
from typed import trained, typed

from convsmith import pipeline
from convsmith.errors import DataError, RunError, UsageError
from convsmith.pipeline.choose_network import manner
from convsmith.recipe import Recipe
from convsmith.run_folder import RunFolder, read_log

HEAD = {"fc.weight", "fc.bias"}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of two classes that no run here knows."""
    return photo_folder(tmp_path_factory.mktemp("others") / "more", classes=("dog", "elk"), each=16, seed=3)


@pytest.fixture(scope="module")
def probed(photos: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose head alone was fitted."""
    return train(fine_tuning(photos, weights, transfer__mode="probe"), tmp_path_factory.mktemp("probed") / "runs")


def recipe_of(run: Path) -> Recipe:
    return Recipe.from_yaml((run / "recipe.yaml").read_text())


def chosen(recipe: Recipe) -> dict[str, tuple[object, str]]:
    return {choice.name: (choice.value, choice.reason) for choice in planned(recipe).choices}


@pytest.mark.parametrize(
    ("images", "classes", "mode", "frozen_stages", "frozen_norms"),
    [
        (99, 2, "probe", 0, True),
        (100, 12, "finetune", 1, True),
        (100, 13, "probe", 0, True),  # fewer than eight a class
        (999, 5, "finetune", 1, True),
        (1_000, 5, "finetune", 0, True),
        (9_999, 5, "finetune", 0, True),
        (10_000, 5, "finetune", 0, False),
    ],
)
def test_the_more_images_the_more_of_the_network_may_move(images, classes, mode, frozen_stages, frozen_norms):
    chosen = manner(images, classes)
    assert (chosen.mode, chosen.frozen_stages, chosen.frozen_norms) == (mode, frozen_stages, frozen_norms)


def test_a_probe_is_the_backbone_with_a_logistic_head_and_no_step(probed: Path, weights: Path):
    assert recipe_of(probed).train.steps == 0
    assert RunFolder(probed).read_json("last.json")["step"] == 0
    assert not [line for line in read_log(probed / "log.jsonl") if line["kind"] in ("batch", "progress", "epoch")]
    before, after = safetensors.torch.load_file(weights), final_weights(probed)
    assert {name for name in after if not torch.equal(after[name], before[name])} == HEAD
    with (
        np.load(probed / "predictions" / "test.npz") as final,
        np.load(probed / "predictions" / "probe-test.npz") as probe,
    ):
        assert list(final["ids"]) == list(probe["ids"])
        assert final["logits"] == pytest.approx(probe["logits"], abs=1e-3)


def test_the_plan_of_a_probe_tells_of_no_steps_unless_they_were_asked_about(probed: Path):
    choices = RunFolder(probed).read_json("plan.json")["choices"]
    told = [choice for choice in choices if choice["name"].startswith(("train.optimizer", "train.steps", "augment."))]
    assert all(choice["given"] and "changes nothing" in choice["reason"] for choice in told)
    assert "transfer.mode" in [choice["name"] for choice in choices]


def test_a_probe_has_a_report_no_gain_and_a_classifier(probed: Path, photos: Path):
    assert RunFolder(probed).finished
    assert RunFolder(probed).read_json("probe.json")["gain"] is None
    model = pipeline.load_trained(RunFolder(probed))
    with np.load(probed / "predictions" / "test.npz") as final:
        seen = [model.see(model.read(photos / name)) for name in final["ids"]]
        assert model.logits(seen) == pytest.approx(final["logits"], abs=1e-4)
    done = typed("predict", probed, photos / "ant" / "000.png")
    assert done.code == 0, done.err


def test_the_recipe_of_a_probe_is_fine_tuned_by_asking_for_epochs(probed: Path):
    held = recipe_of(probed).model_dump()
    asked = Recipe.from_layers(held, {"transfer": {"mode": "finetune"}, "train": {"epochs": 2}})
    assert planned(asked).recipe.train.steps == 2 * 3
    assert planned(Recipe.from_layers(held, {"seed": 1})).recipe.train.steps == 0


def test_a_run_starts_another_with_other_classes(tuned: Path, others: Path, tmp_path: Path):
    asked = fine_tuning(others, tuned, model="auto", transfer__mode="probe", image__size="auto")
    said = chosen(asked)
    assert tuned.name in str(said["weights.source"][0])
    assert said["model"] == (f"{NETWORK} (drop_rate 0.2)", "that of your run")
    assert said["image.size"][0] == SIDE
    run = train(asked, tmp_path / "runs")
    before, after = final_weights(tuned), final_weights(run)
    assert tuple(after["fc.weight"].shape) == (2, 96)
    assert all(torch.equal(after[name], before[name]) for name in after if name not in HEAD)
    recipe = recipe_of(run)
    assert recipe.weights.source == str(tuned.resolve())
    assert (recipe.image.mean, recipe.image.std) == (recipe_of(tuned).image.mean, recipe_of(tuned).image.std)
    assert RunFolder(run).read_json("manifest.json")["classes"] == ["dog", "elk"]
    again = train(recipe, tmp_path / "again")
    assert all(torch.equal(tensor, final_weights(again)[name]) for name, tensor in after.items())


def test_a_run_starts_another_with_its_own_classes_and_fits_their_head_anew(tuned: Path, photos: Path, tmp_path: Path):
    run = train(fine_tuning(photos, tuned, transfer__mode="probe"), tmp_path / "runs")
    before, after = final_weights(tuned), final_weights(run)
    assert {name for name in after if not torch.equal(after[name], before[name])} == HEAD


@pytest.mark.slow
def test_a_network_designed_here_is_a_start_too(photos: Path, others: Path, tmp_path: Path):
    first = trained(photos, tmp_path / "first", "--weights", "none", "--model", "convnet", "--epochs", 1, "--size", 32)
    run = train(
        fine_tuning(others, first, model="auto", image__size="auto", transfer__mode="finetune", train__epochs=1,
                    transfer__frozen_stages=1), tmp_path / "runs",
    )  # fmt: skip
    before, after = final_weights(first), final_weights(run)
    assert before.keys() == after.keys()
    kept = [
        name for name in after if before[name].shape == after[name].shape and torch.equal(before[name], after[name])
    ]
    assert kept
    assert len(kept) < len(after)
    assert recipe_of(run).network == recipe_of(first).network
    assert recipe_of(run).model == recipe_of(first).model


class Flat(nn.Module):
    """A network of the user's own, which takes no other size than the one it was made for."""

    def __init__(self, in_channels: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 24 * 24, 5), nn.ReLU(), nn.Linear(5, outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def test_a_run_of_ones_own_code_is_a_start_where_the_code_is_named_again(photos: Path, others: Path, tmp_path: Path):
    settings = {"model": "own", "train__epochs": 1, "transfer__frozen_stages": "auto"}
    first = train(fine_tuning(photos, None, **settings, image__size=24), tmp_path / "first", code=Flat)
    asked = fine_tuning(others, first, **settings, transfer__mode="probe", image__size="auto")
    run = train(asked, tmp_path / "runs", code=Flat)
    assert torch.equal(final_weights(run)["layers.1.weight"], final_weights(first)["layers.1.weight"])
    assert recipe_of(run).image.size == 24
    with pytest.raises(UsageError, match="your own code") as caught:
        planned(asked.updated({"model": "auto"}))
    assert "--model FILE.py:NAME" in caught.value.mend


def test_another_network_than_the_runs_is_refused(tuned: Path, photos: Path):
    with pytest.raises(UsageError, match="test_byobnet") as caught:
        planned(fine_tuning(photos, tuned, model="test_byobnet"))
    assert NETWORK in str(caught.value)
    assert "Leave the model out" in caught.value.mend


def test_weights_without_a_network_or_of_another_one_are_refused(photos: Path, weights: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="no network that they belong to"):
        planned(fine_tuning(photos, weights, model="auto"))
    with pytest.raises(DataError, match="does not fit"):
        planned(fine_tuning(photos, weights, model="test_byobnet"))
    with pytest.raises(UsageError, match=r"absent\.safetensors"):
        planned(fine_tuning(photos, tmp_path / "absent.safetensors"))
    with pytest.raises(UsageError, match="convnet"):
        planned(fine_tuning(photos, weights, model="convnet"))


def test_a_run_that_never_came_to_a_checkpoint_is_no_start(tuned: Path, photos: Path, tmp_path: Path):
    empty = tmp_path / "empty"
    shutil.copytree(tuned, empty)
    shutil.rmtree(empty / "checkpoints")
    (empty / "checkpoints").mkdir()
    with pytest.raises(RunError, match="no checkpoint"):
        planned(fine_tuning(photos, empty))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, and no network."""

    def unreachable(request: object, timeout: float) -> None:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("asked", ["auto", "published"])
def test_published_weights_out_of_reach_stop_with_the_two_ways_out(asked: str, photos: Path, tmp_path: Path):
    with pytest.raises(DataError, match=f"{NETWORK}.*not on this machine") as caught:
        train(fine_tuning(photos, asked), tmp_path / "runs")
    assert "--weights FILE" in caught.value.mend
    assert "--weights none" in caught.value.mend
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("offline")
def test_photographs_ask_for_published_weights_and_small_pictures_do_not(tmp_path: Path):
    large = photo_folder(tmp_path / "large", each=4, side=100)
    with pytest.raises(DataError, match="not on this machine"):
        planned(Recipe().updated({"data.source": str(large)}))
    small = photo_folder(tmp_path / "small", each=8, side=24)
    assert chosen(Recipe().updated({"data.source": str(small)}))["weights.source"][0] is None


def test_a_network_from_nothing_is_held_against_a_probe_of_the_pixels(photos: Path, tmp_path: Path):
    run = trained(photos, tmp_path / "runs", "--weights", "none", "--epochs", 1)
    probe = RunFolder(run).read_json("probe.json")
    assert "pixels" in probe["says"]
    assert probe["weights"] is None
    assert probe["features"] == 3 * 16 * 16
    assert probe["gain"]["n"] == probe["test"]["n"] == 9
    assert not RunFolder(run).has("learning_curve.json")


def test_from_scratch_weights_are_drawn_by_the_rule_that_is_asked_for(photos: Path, tmp_path: Path):
    changes = {"model": "auto", "transfer__mode": "auto", "transfer__frozen_stages": "auto", "train__epochs": None}
    changes |= {"transfer__stage_rate": "auto", "transfer__frozen_norms": "auto", "train__average": None}
    recipe = fine_tuning(photos, None, **changes, train__steps=1, weights__initialisation="orthogonal")
    recipe = recipe.updated({"train.optimizer": {"name": "sgd", "options": {"rate": 1e-12, "weight_decay": 0.0}}})
    run = train(recipe.updated({"weights.source": "auto"}), tmp_path / "runs")
    stem = final_weights(run)["stem.conv.weight"].flatten(1).double()
    gram = stem.T @ stem if stem.shape[0] > stem.shape[1] else stem @ stem.T
    assert torch.allclose(gram, gram[0, 0] * torch.eye(len(gram), dtype=torch.float64), atol=1e-4)
    assert recipe_of(run).weights.initialisation == "orthogonal"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights__initialisation": "orthodox"}, "no initialisation named 'orthodox'"),
        ({"weights__initialisation": "orthogonal", "weights__source": "published"}, "start|draws weights"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(changes: dict[str, str], message: str, photos: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=message):
        train(fine_tuning(photos, None, **changes), tmp_path / "runs")
