"""The recipe of a run as the start of another: what is typed beside it counts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typed import typed

from convsmith.diagnosis import Evidence
from convsmith.recipe import Recipe

CODE = """\
from torch import nn


def net(in_channels, outputs):
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * in_channels, outputs))
"""


def planned(*words: object) -> Recipe:
    """The recipe that a command would train."""
    done = typed(*words, "--dry-run", "--json")
    assert done.code == 0, done.err
    return Recipe.from_layers(json.loads(done.out)["recipe"])


@pytest.mark.parametrize(
    ("words", "what", "expected"),
    [
        (["--epochs", "5"], lambda made: (made.train.epochs, made.train.steps, made.train.warmup_steps), (5, 25, 5)),
        (["--budget", "1m"], lambda made: (made.train.budget, made.train.epochs in ("auto", None)), (60, True)),
        (["--model", "convnet-medium"], lambda made: (made.model.name, made.network), ("convnet-medium", None)),
        (["--model", "net.py:net"], lambda made: (made.model.name, made.network), ("own", None)),
        (["--set", "augment.preset=none"], lambda made: made.augment.operations, ()),
    ],
)
def test_what_is_typed_beside_the_recipe_of_a_run_is_planned(
    run: Path,
    words: list[str],
    what: Callable[[Any], Any],
    expected: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(CODE)
    made = Recipe.from_yaml((run / "recipe.yaml").read_text())
    assert what(made) != expected
    assert what(planned("train", "--recipe", run / "recipe.yaml", *words)) == expected


def test_flags_and_assignments_of_one_command_stand_beside_each_other(run: Path):
    words = ("--epochs", 5, "--set", "train.warmup_steps=2")
    train = planned("train", "--recipe", run / "recipe.yaml", *words).train
    assert (train.epochs, train.steps, train.warmup_steps) == (5, 25, 2)


def test_the_recipe_of_a_run_alone_is_that_run(run: Path):
    before = Recipe.from_yaml((run / "recipe.yaml").read_text())
    assert planned("train", "--recipe", run / "recipe.yaml") == before


def test_the_experiment_that_a_finding_proposes_can_be_typed(run: Path):
    manifest = json.loads((run / "manifest.json").read_bytes())
    words = shlex.split(Evidence(manifest=manifest, run=str(run)).experiment({"train.epochs": 8}))
    assert words[0] == "convsmith"
    made = planned(*words[1:])
    assert (made.train.epochs, made.train.steps, made.train.batch) == (8, 40, 8)
