"""The plan: other data, other choices, each with its reason; what is asked for stays; nothing is disturbed."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures_made import class_folder
from typed import SMALL, only_run, typed

from convsmith import pipeline
from convsmith.errors import UsageError
from convsmith.pipeline import measure
from convsmith.pipeline.build import training_shape
from convsmith.pipeline.planner import Plan
from convsmith.recipe import Recipe

PLANNING = importlib.import_module("convsmith.pipeline.choose_training")
"""The module: the package's own `plan` is the function."""
MEASURED = {
    "image.size", "image.channels", "image.fit", "image.mean", "image.std", "train.batch", "train.epochs",
    "train.precision",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.05)


def planned(source: Path | str, **asked: object) -> Plan:
    changes = {key.replace("__", "."): value for key, value in asked.items()}
    return pipeline.make_plan(Recipe().updated({"data.source": str(source), **changes}))[0]


def chosen(plan: Plan, name: str):
    return next(choice for choice in plan.choices if choice.name == name)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The plan for 60 colour pictures of 8x8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SECONDS", 0.05)
        return planned(class_folder(tmp_path_factory.mktemp("plain") / "insects"))


OTHER = {
    "image.size": (lambda root: class_folder(root, size=(20, 20)), 20),
    "image.size, large": (lambda root: class_folder(root, size=(130, 130), each=7, channels=1), 96),
    "image.channels": (lambda root: class_folder(root, channels=1), 1),
    "image.fit, wide": (lambda root: class_folder(root, size=(32, 8)), "pad"),
    "image.fit, nearly square": (lambda root: class_folder(root, size=(10, 8)), "crop"),
    "augment.preset": (lambda root: class_folder(root, classes=("1", "2", "3")), "digits"),
    "train.optimizer": (
        lambda root: class_folder(root, each=300),
        "sgd (rate 0.141, momentum 0.9, weight_decay 0.0005)",
    ),
    "train.label_smoothing": (lambda root: class_folder(root, classes=("ant", "bee")), 0.0),
    "network": (lambda root: class_folder(root, size=(32, 32), each=8), None),
    "image.mean": (lambda root: class_folder(root, signal=60), None),
    "image.std": (lambda root: class_folder(root, signal=60), None),
    "train.warmup_steps": (lambda root: class_folder(root, each=40), None),
    "train.average": (lambda root: class_folder(root, each=200), None),
}


LARGE = "image.size, large"


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case == LARGE else ()) for case in OTHER]
)
def test_other_data_gives_another_choice(case: str, plain: Plan, tmp_path: Path):
    make, expected = OTHER[case]
    name = case.partition(",")[0]
    changed, usual = chosen(planned(make(tmp_path / "other")), name), chosen(plain, name)
    assert changed.value != usual.value
    if expected is not None:
        assert changed.value == expected


@pytest.mark.slow
def test_more_images_give_larger_batches_and_fewer_epochs(tmp_path: Path):
    few, many = (planned(class_folder(tmp_path / str(each), each=each)) for each in (20, 800))
    for name, larger in (("train.batch", many), ("train.epochs", few)):
        smaller = few if larger is many else many
        assert chosen(larger, name).value > chosen(smaller, name).value
    rates = [plan.recipe.train.optimizer.options["rate"] for plan in (few, many)]
    assert rates[1] > rates[0]


def test_every_choice_has_a_value_and_a_reason_and_measured_ones_their_number(plain: Plan):
    assert {choice.name for choice in plain.choices} > MEASURED
    for choice in plain.choices:
        assert choice.reason
        assert not choice.given
        assert (choice.value is not None) or choice.name in {"train.steps", "weights.source", "image.range"}
        assert bool(choice.measured) or choice.name not in MEASURED
    assert chosen(plain, "image.channels").measured == {"images": {3: 60}}
    assert chosen(plain, "train.batch").measured == {"images": 42}
    timed = chosen(plain, "train.precision").measured
    assert set(timed) == {
        f"{precision}_{layout}_ms"
        for precision in ("float32", "bfloat16")
        for layout in ("contiguous", "channels_last")
    }
    assert all(value > 0 for value in timed.values())
    assert "auto" not in json.dumps(plain.recipe.model_dump(mode="json"))


def test_the_fastest_way_to_run_is_chosen_where_it_is_clearly_faster(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    seconds = {("bfloat16", "channels_last"): 0.010, ("bfloat16", "contiguous"): 0.015}

    def pretend(*arguments: object, ways: list, **options: object) -> list[measure.Speed]:
        return [measure.Speed(*way, seconds.get(way, 0.020)) for way in ways]

    monkeypatch.setattr(PLANNING, "measure_steps", pretend)
    plan = planned(pictures)
    assert (plan.recipe.train.precision, plan.recipe.train.memory_format) == ("bfloat16", "channels_last")
    assert "2.0 times as fast" in chosen(plan, "train.precision").reason
    seconds[("bfloat16", "channels_last")] = seconds[("bfloat16", "contiguous")] = 0.019
    plan = planned(pictures)
    assert (plan.recipe.train.precision, plan.recipe.train.memory_format) == ("float32", "contiguous")


def test_what_is_asked_for_stays(pictures: Path):
    asked = {
        "image.size": 12, "image.channels": 1, "image.fit": "pad", "image.mean": (0.3,), "image.std": (0.2,),
        "train.batch": 16, "train.epochs": 3, "train.average": None, "train.precision": "float32",
        "train.memory_format": "channels_last", "train.label_smoothing": 0.25, "train.warmup_steps": 2,
        "train.optimizer": {"name": "adamw", "options": {"rate": 0.002}}, "train.schedule": "cosine",
        "augment.preset": "none", "train.report_every": 3, "train.tune_every": 0, "train.checkpoint_every": 5,
    }  # fmt: skip
    plan = planned(pictures, **{key.replace(".", "__"): value for key, value in asked.items()})
    resolved = plan.recipe.model_dump()
    for key, value in asked.items():
        section, _, name = key.partition(".")
        held = resolved[section][name]
        assert (held["name"] if isinstance(held, dict) else held) == (
            value["name"] if isinstance(value, dict) else value
        )
        assert chosen(plan, key).given
        assert chosen(plan, key).reason == "as asked"
    assert resolved["train"]["optimizer"]["options"] == {"rate": 0.002}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model", "resnet", "There is no model named 'resnet'"),
        ("model", {"name": "convnet", "options": {"widht": 8}}, "Did you mean width"),
        ("train.optimizer", "sdg", "Did you mean sgd"),
        ("train.optimizer", "torch.optim.SGD", "There is no optimiser named 'torch.optim.SGD'"),
        ("train.optimizer", {"name": "sgd", "options": {"lr": 0.1}}, "has no option 'lr'"),
        ("train.schedule", "onecycle", "Did you mean one-cycle"),
        ("augment.preset", "object", "Did you mean objects"),
        ("augment.operations", [{"name": "flipp"}], "Did you mean flip"),
        ("train.device", "gpu", "There is no device 'gpu'"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_measured(
    key: str, value: object, words: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(PLANNING, "measure_steps", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(UsageError, match=words):
        planned(pictures, **{key.replace(".", "__"): value})


def test_planning_leaves_random_state_and_weights_untouched(pictures: Path):
    torch.manual_seed(3)
    np.random.seed(4)
    random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    one = planned(pictures)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    assert planned(pictures).recipe.image == one.recipe.image


def test_measuring_leaves_the_network_untouched(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    kept = []
    inner = measure.measure_steps

    def watched(model: torch.nn.Module, *arguments: object, **options: object):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        speeds = inner(model, *arguments, **options)
        kept.append(all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items()))
        return speeds

    monkeypatch.setattr(PLANNING, "measure_steps", watched)
    planned(pictures)
    assert kept == [True]


def test_dry_run_stops_before_there_is_a_run_folder(pictures: Path, tmp_path: Path):
    done = typed("train", pictures, "--runs", tmp_path / "runs", *SMALL, "--dry-run")
    assert done.code == 0
    assert "Estimated" in done.out
    assert "because" in done.out
    assert not (tmp_path / "runs").exists()
    done = typed("train", pictures, "--runs", tmp_path / "runs", *SMALL, "--dry-run", "--json")
    assert {"choices", "estimate", "findings", "recipe"} == set(done.json)
    assert done.json["estimate"]["steps"] > 0


def test_the_plan_says_what_the_design_rules_hold_against_the_network(pictures: Path, tmp_path: Path):
    done = typed("train", pictures, "--runs", tmp_path / "runs", *SMALL, "--dry-run", "--json")
    assert done.json["findings"] == []  # the network that is chosen here is chosen well
    narrow = "model={name: convnet, options: {width: 8, stages: 1, first_stride: 1}}"
    asked = ("train", pictures, "--runs", tmp_path / "runs", *SMALL, "--set", narrow, "--size", 64, "--dry-run")
    done = typed(*asked, "--json")
    assert [finding["rule"] for finding in done.json["findings"]] == ["field-too-small"]
    done = typed(*asked)
    assert "Design: Before it pools, no place sees more than 7 of the 64 px of an image (11%)." in " ".join(
        done.out.split()
    )


def test_the_plan_is_printed_before_the_first_step_and_recorded(pictures: Path, tmp_path: Path):
    done = typed("train", pictures, "--runs", tmp_path / "runs", *SMALL, "--epochs", 1)
    assert done.err.index("train.batch") < done.err.index("Estimated") < done.err.index("step ")
    record = json.loads((only_run(tmp_path / "runs") / "plan.json").read_bytes())
    assert {"seconds", "training_seconds", "memory_bytes", "steps", "images_per_second"} <= set(record["estimate"])
    assert next(choice for choice in record["choices"] if choice["name"] == "train.epochs")["given"]


def test_a_budget_that_is_too_small_is_refused_before_training_with_the_mend(pictures: Path, tmp_path: Path):
    done = typed("train", pictures, "--runs", tmp_path / "runs", *SMALL, "--budget", "1s")
    assert done.code == 2
    assert "leaves no time for one pass over the 42 training images" in " ".join(done.err.split())
    assert "Give at least" in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("budget", [20, 45])
def test_a_budget_is_kept_within_a_tenth(budget: int, tmp_path: Path):
    """By the clock outside: the start of the interpreter and the writing of the report count."""
    command = [sys.executable, "-m", "convsmith", "train", "digits", "--runs", str(tmp_path / "runs"), *SMALL]
    started = time.monotonic()
    subprocess.run([*command, "--budget", f"{budget}s", "--quiet"], check=True, capture_output=True)
    assert time.monotonic() - started == pytest.approx(budget, rel=0.1)
    assert json.loads((only_run(tmp_path / "runs") / "results.json").read_text())["splits"]["test"]["n"] == 269


def test_records_agree_with_one_another(uninterrupted: Path, pictures: Path):
    split = (uninterrupted / "split.csv").read_text().splitlines()
    assert split[0] == "id,role,class,group,sha256"
    rows = [line.split(",") for line in split[1:]]
    assert len(rows) == 60
    manifest, audit = (json.loads((uninterrupted / name).read_bytes()) for name in ("manifest.json", "audit.json"))
    counts: dict[str, dict[str, int]] = {}
    for identity, role, name, _, digest in rows:
        assert (pictures / identity).is_file()
        assert identity.split("/")[0] == name
        assert len(bytes.fromhex(digest)) == 32
        counts.setdefault(role, dict.fromkeys(manifest["classes"], 0))[name] += 1
    assert manifest["data"]["counts"] == audit["roles"] == counts
    results = json.loads((uninterrupted / "results.json").read_bytes())["splits"]
    for role, result in results.items():
        with np.load(uninterrupted / "predictions" / f"{role}.npz", allow_pickle=False) as arrays:
            assert set(arrays["ids"]) == {row[0] for row in rows if row[1] == role}
            right = (arrays["logits"].argmax(1) == arrays["targets"]).mean()
        assert result["n"] == sum(counts[role].values())
        assert result["metrics"]["accuracy"]["value"] == pytest.approx(right)


@pytest.mark.parametrize(("each", "batch"), [(3, "auto"), (20, 64)])
def test_fewer_images_than_a_batch_can_be_planned(tmp_path: Path, each: int, batch: object) -> None:
    plan = planned(class_folder(tmp_path, each=each), train__batch=batch)
    assert plan.estimate["steps"] >= 1


def test_a_way_that_is_much_slower_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = {"float32": 0, "bfloat16": 0}

    def stepping(model, task, make_optimizer, augment, batches, precision, layout):
        while True:
            turns[precision] += 1
            time.sleep(0.001 if precision == "float32" else 0.02)
            yield None

    monkeypatch.setattr(measure, "_stepping", stepping)
    ways = [("float32", "contiguous"), ("bfloat16", "contiguous")]
    nothing: Any = None
    speeds = measure.measure_steps(
        nothing, nothing, nothing, nothing, shape=(1, 8, 8), outputs=2, batch_size=8, ways=ways
    )
    assert speeds[0].seconds_per_step < speeds[1].seconds_per_step
    assert turns["bfloat16"] == 2 < turns["float32"]


def test_memory_is_that_of_what_is_trained_on_which_may_be_smaller_than_what_is_evaluated():
    whole = Recipe().updated({"image.size": 64, "image.channels": 3, "image.mean": [0.5] * 3, "image.std": [0.5] * 3})
    assert training_shape(whole) == (3, 64, 64)
    crop = {"name": "crop", "options": {"size": 48}}
    assert training_shape(whole.updated({"augment.operations": [crop]})) == (3, 48, 48)
