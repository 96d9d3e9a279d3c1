"""Fine-tuning, small but real: what is left behind, where training begins, what moves and what does not."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from compared import differing, end
from pictures_made import photo_folder
from PIL import Image
from scipy.special import log_softmax
from torch import nn
from tuned import NETWORK, final_weights, fine_tuning, planned, train
from typed import only_run

from convsmith import pipeline
from convsmith.errors import UsageError
from convsmith.pipeline import build
from convsmith.recipe import Recipe
from convsmith.run_folder import RunFolder, read_log
from convsmith.training import Loop

STEM = ("conv1.", "bn1.", "layer1.")
"""The two stages that `SETTINGS` freezes: at half of the image's sides, and at a quarter."""


class Beginning:
    """Watches `build_loop` of a run: the network, and the rate of each parameter, before the first step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model: nn.Module | None = None
        self.rates: dict[str, float] = {}
        self.task_options: tuple[Any, ...] = ()
        monkeypatch.setattr("convsmith.pipeline.execute.build_loop", self._watched)

    def _watched(self, recipe: Recipe, model: nn.Module, *rest: Any) -> Loop:
        loop = build.build_loop(recipe, model, *rest)
        assert loop.step == 0
        self.model = copy.deepcopy(model)
        names = {parameter: name for name, parameter in model.named_parameters()}
        for group in loop.optimizers["model"].param_groups:
            self.rates |= {names[parameter]: group["initial_lr"] for parameter in group["params"]}
        return loop


def logits_of(model: nn.Module, run: Path, ids: np.ndarray, photos: Path) -> np.ndarray:
    """What a network answers, by nothing but Pillow and torch."""
    image = Recipe.from_yaml((run / "recipe.yaml").read_text()).image
    pixels = np.stack([np.asarray(Image.open(photos / name)) for name in ids]).transpose(0, 3, 1, 2) / 255
    mean, std = (np.array(values)[:, None, None] for values in (image.mean, image.std))
    with torch.no_grad():
        return model.eval()(torch.from_numpy((pixels - mean) / std).float()).numpy()


def answers(run: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(run / "predictions" / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in ("ids", "targets", "logits")}


def right(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return arrays["logits"].argmax(axis=1) == arrays["targets"]


@pytest.fixture(scope="module")
def many(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on enough images for its test set to be looked at by thirds, which confuses some of them."""
    folder = tmp_path_factory.mktemp("many")
    photos = photo_folder(folder / "photos", each=140, side=40)
    generator = np.random.default_rng(5)
    for path in generator.choice(sorted(photos.rglob("*.png")), 80, replace=False):
        path.rename(photos / generator.choice(["ant", "bee", "cat"]) / f"moved-{path.parent.name}-{path.name}")
    return train(fine_tuning(photos, weights, train__epochs=2, train__batch=32), folder / "runs")


def test_the_probe_is_recorded_with_what_it_was_fitted_on_and_how_well_it_does(many: Path, weights: Path):
    probe = RunFolder(many).read_json("probe.json")
    manifest = RunFolder(many).read_json("manifest.json")
    assert (probe["model"], probe["weights"]) == (NETWORK, str(weights))
    assert probe["features"] == 96
    assert probe["views"] == ["image", "mirror"]
    assert probe["images"] == sum(manifest["data"]["counts"]["train"].values())
    assert probe["decay"] in Recipe().transfer.decays
    for role in ("tune", "test"):
        arrays = answers(many, f"probe-{role}")
        assert probe[role]["n"] == len(arrays["ids"]) == sum(manifest["data"]["counts"][role].values())
        assert probe[role]["accuracy"]["value"] == pytest.approx(right(arrays).mean())
        loss = -log_softmax(arrays["logits"].astype(np.float64), axis=1)[
            np.arange(len(right(arrays))), arrays["targets"]
        ]
        assert probe[role]["log_loss"]["value"] == pytest.approx(loss.mean(), rel=1e-5)


def test_the_gain_is_the_network_less_the_probe_on_the_same_images(many: Path):
    gain = RunFolder(many).read_json("probe.json")["gain"]
    final, probe = answers(many, "test"), answers(many, "probe-test")
    assert list(final["ids"]) == list(probe["ids"])
    assert gain["value"] == pytest.approx(right(final).mean() - right(probe).mean())
    assert gain["low"] < gain["value"] < gain["high"]
    assert gain["n"] == len(final["ids"])


def test_the_learning_curve_ends_at_the_probe_and_grows_by_nested_shares(many: Path):
    curve = RunFolder(many).read_json("learning_curve.json")
    probe = RunFolder(many).read_json("probe.json")
    counts = RunFolder(many).read_json("manifest.json")["data"]["counts"]["train"]
    assert [point["share"] for point in curve["points"]] == [1 / 8, 1 / 4, 1 / 2, 1.0]
    for point in curve["points"]:
        assert point["images"] == sum(math.ceil(point["share"] * count) for count in counts.values())
        assert point["accuracy"]["n"] == probe["test"]["n"]
    assert curve["points"][-1]["accuracy"] == probe["test"]["accuracy"]
    assert curve["rising"] in (True, False, None)
    assert f"{sum(counts.values()):,} training images" in curve["says"]


def test_cells_maps_and_slices_speak_of_the_test_images(many: Path):
    run, arrays = RunFolder(many), answers(many, "test")
    classes = run.read_json("manifest.json")["classes"]
    predicted = {name: classes[row.argmax()] for name, row in zip(arrays["ids"], arrays["logits"], strict=True)}
    true = {name: classes[target] for name, target in zip(arrays["ids"], arrays["targets"], strict=True)}
    cells = run.read_json("evidence/cells.json")["cells"]
    wrong = [name for name in predicted if predicted[name] != true[name]]
    assert wrong
    assert sum(cell["n"] for cell in cells if cell["true"] != cell["predicted"]) == len(wrong)
    for cell in cells:
        assert 0 < len(cell["ids"]) <= 6
        assert {(true[name], predicted[name]) for name in cell["ids"]} == {(cell["true"], cell["predicted"])}
    maps = run.read_json("evidence/maps.json")["maps"]
    assert any(item["id"] in wrong for item in maps)
    for item in maps:
        assert (true[item["id"]], predicted[item["id"]]) == (item["true"], item["predicted"])
        assert Image.open(many / "evidence" / item["file"]).size
    slices = run.read_json("results.json")["splits"]["test"]["slices"]
    assert {"brightness", "sharpness"} <= {part["by"] for part in slices}
    for part in slices:
        difference = part["accuracy"]["value"] - part["rest"]["value"]
        assert part["difference"]["value"] == pytest.approx(difference)
        others = [other["n"] for other in slices if other["by"] == part["by"]]
        assert sum(others) == len(true)


def test_training_begins_with_the_answers_of_the_probe(
    photos: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    beginning = Beginning(monkeypatch)
    run = train(fine_tuning(photos, weights, train__epochs=1), tmp_path / "runs")
    assert beginning.model is not None
    for role in ("tune", "test"):
        probe = answers(run, f"probe-{role}")
        assert logits_of(beginning.model, run, probe["ids"], photos) == pytest.approx(probe["logits"], abs=1e-3)
    assert not np.allclose(answers(run, "test")["logits"], answers(run, "probe-test")["logits"], atol=1e-2)


def test_the_probes_logits_are_its_head_on_the_features_of_the_weights(photos: Path, weights: Path, tmp_path: Path):
    run = train(fine_tuning(photos, weights, transfer__mode="probe"), tmp_path / "runs")
    theirs = timm.create_model(NETWORK)
    theirs.load_state_dict(safetensors.torch.load_file(weights))
    theirs.forward = lambda images: theirs.forward_head(theirs.forward_features(images), pre_logits=True)
    probe, fitted = answers(run, "probe-test"), final_weights(run)
    features = logits_of(theirs, run, probe["ids"], photos)
    expected = features @ fitted["fc.weight"].numpy().T + fitted["fc.bias"].numpy()
    assert probe["logits"] == pytest.approx(expected, abs=1e-3)


def test_frozen_stages_and_norms_stay_as_they_were_and_the_rest_moves(tuned: Path, weights: Path):
    before, after = safetensors.torch.load_file(weights), final_weights(tuned)
    for name, tensor in after.items():
        kept = torch.equal(tensor, before[name]) if tensor.shape == before[name].shape else False
        if "num_batches" in name:
            continue
        assert kept == (name.startswith(STEM) or "running_" in name), name


def test_norms_that_are_not_frozen_learn_the_statistics_of_these_images_but_for_frozen_stages(
    photos: Path, weights: Path, tmp_path: Path
):
    recipe = fine_tuning(photos, weights, transfer__frozen_norms=False, train__epochs=1)
    before, after = safetensors.torch.load_file(weights), final_weights(train(recipe, tmp_path / "runs"))
    for name in (name for name in after if "running_" in name):
        assert torch.equal(after[name], before[name]) == name.startswith(STEM), name


def test_each_stage_has_its_share_of_the_rate_and_frozen_ones_have_none(
    photos: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    beginning = Beginning(monkeypatch)
    train(fine_tuning(photos, weights, train__epochs=1), tmp_path / "runs")
    assert not [name for name in beginning.rates if name.startswith(STEM)]
    # By what each is first used at: the first convolution of the third layer still sees an eighth of the image's sides.
    expected = {
        "fc.": 1, "layer4.": 0.5, "layer3.0.conv2.": 0.25, "layer3.0.downsample.": 0.25, "layer3.0.conv1.": 0.125,
        "layer2.": 0.125,
    }  # fmt: skip
    for start, factor in expected.items():
        rates = {rate for name, rate in beginning.rates.items() if name.startswith(start)}
        assert rates == {0.002 * factor}, start
    log = read_log(only_run(tmp_path / "runs") / "log.jsonl")
    assert max(line["values"].get("rate", 0) for line in log) <= 0.002


@pytest.mark.slow
def test_a_fine_tuning_is_repeated_by_its_own_recipe_whether_features_are_kept_or_not(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = Recipe.from_yaml((tuned / "recipe.yaml").read_text())
    assert "auto" not in (tuned / "recipe.yaml").read_text()
    for number in range(2):
        if number:
            monkeypatch.setenv("CONVSMITH_CACHE", str(tmp_path / "empty"))
        again = train(recipe, tmp_path / f"runs{number}")
        assert differing(end(again), end(tuned)) == []
        assert (again / "recipe.yaml").read_text() == (tuned / "recipe.yaml").read_text()


def test_the_plan_says_why_for_every_choice_of_the_transfer(photos: Path, weights: Path, tmp_path: Path):
    given = fine_tuning(photos, weights)
    open_ = given.updated(
        {f"transfer.{key}": "auto" for key in ("mode", "frozen_stages", "stage_rate", "frozen_norms")}
    )
    choices = {choice.name: choice for choice in pipeline.make_plan(open_)[0].choices}
    assert choices["transfer.mode"].value == "probe"  # 42 images are too few to move a network by
    assert "too few" in choices["transfer.mode"].reason
    choices = {choice.name: choice for choice in pipeline.make_plan(given)[0].choices}
    for key in ("mode", "frozen_stages", "stage_rate", "frozen_norms"):
        assert choices[f"transfer.{key}"].reason
        assert choices[f"transfer.{key}"].given


def test_freezing_every_stage_is_refused(photos: Path, weights: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="frozen_stages"):
        train(fine_tuning(photos, weights, transfer__frozen_stages=9), tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


LATER = [{"stage": "stride-16", "at": 0.5}, {"stage": "stride-8", "at": 0.99}]


def test_stages_that_wait_move_when_their_time_has_come_and_the_plan_says_so(
    photos: Path, weights: Path, tmp_path: Path
):
    recipe = fine_tuning(photos, weights, transfer__unfreeze=LATER, train__average=None, train__steps=4)
    assert {c.name: c.value for c in planned(recipe).choices}["transfer.unfreeze"] == (
        "stride-16 from 50% of the steps, stride-8 from 99% of the steps"
    )
    run = train(recipe, tmp_path / "runs")
    before, after = safetensors.torch.load_file(weights), final_weights(run)
    moved = {
        name.partition(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before.get(name, tensor))
    }
    assert "layer4" in moved
    assert "layer2" not in moved  # it is the part at an eighth, whose time is after the last step
    assert "layer3" in moved


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transfer__unfreeze": [{"stage": "layer3", "at": 0.5}]}, "'layer3', which this network has not"),
        ({"transfer__unfreeze": [{"stage": "stem", "at": 0.5}]}, "frozen_stages = 2 keeps it frozen"),
        ({"transfer__unfreeze": [LATER[0], LATER[0]]}, "twice"),
        (
            {"transfer__unfreeze": [{"stage": s, "at": 0.5} for s in ("stride-8", "stride-16", "stride-32", "head")]},
            "nothing to train",
        ),
        ({"transfer__unfreeze": LATER, "transfer__mode": "probe"}, "for fine-tuning"),
        ({"transfer__unfreeze": LATER, "train__epochs": None, "train__budget": 60.0}, "budget is planned"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_before_anything_is_trained(
    changes: dict[str, Any], message: str, photos: Path, weights: Path, tmp_path: Path
):
    with pytest.raises(UsageError, match=message):
        train(fine_tuning(photos, weights, **changes), tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


def test_the_log_and_last_checkpoint_agree_on_the_steps(tuned: Path):
    steps = Recipe.from_yaml((tuned / "recipe.yaml").read_text()).train.steps
    assert json.loads((tuned / "last.json").read_bytes())["step"] == steps == end(tuned)["batches"][-1][0]


def test_a_short_fine_tuning_takes_a_gentle_rate_unless_another_was_asked_for(photos: Path, weights: Path):
    def rate(steps: int, optimizer: Any = "auto") -> float:
        recipe = fine_tuning(photos, weights, train__steps=steps, train__optimizer=optimizer)
        return pipeline.make_plan(recipe)[0].recipe.train.optimizer.options["rate"]

    assert rate(20) == 3e-4
    assert rate(60) == 1e-3
    assert rate(20, {"name": "adamw", "options": {"rate": 0.002}}) == 0.002
