"""Fine-tuning in a second or two: a tiny network of timm's, whose weights a test draws and writes to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from convsmith import pipeline
from convsmith.pipeline import Listener, Plan, measure, silent
from convsmith.recipe import Recipe
from convsmith.run_folder import RunFolder

NETWORK = "test_resnet"
"""Of timm, made for tests: a stem, four stages, 96 features."""
SIDE = 40
SETTINGS: dict[str, Any] = {
    "model": {"name": NETWORK, "options": {"drop_rate": 0.2}},
    "image.size": SIDE,
    "transfer.mode": "finetune", "transfer.frozen_stages": 2, "transfer.stage_rate": 0.5, "transfer.frozen_norms": True,
    "train.epochs": 4, "train.batch": 16, "train.optimizer": {"name": "adamw", "options": {"rate": 0.002}},
    "train.checkpoint_every": 3, "train.report_every": 2, "train.tune_every": 4, "train.log_ids": True,
    "train.precision": "float32", "train.memory_format": "contiguous",
}  # fmt: skip
"""Four epochs; nothing that is logged depends on the machine's speed, and the network draws random numbers itself."""


def weights_file(path: Path, *, seed: int = 1) -> Path:
    """Write weights of `NETWORK` for 1,000 classes, with running statistics that no network begins with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = timm.create_model(NETWORK).state_dict()
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
        elif name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def fine_tuning(photos: Path, weights: Path | str | None, **changes: Any) -> Recipe:
    """The recipe `SETTINGS` for these images and weights, with dotted keys changed (`__` for the dot)."""
    given = {key.replace("__", "."): value for key, value in changes.items()}
    source = None if weights is None else str(weights)
    return Recipe().updated({"data.source": str(photos), "weights.source": source, **SETTINGS, **given})


def train(recipe: Recipe, runs: Path, *, tell: Listener = silent, **options: Any) -> Path:
    """Make a run without measuring for long, and return its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SECONDS", 0.05)
        return pipeline.train(recipe, runs=runs, tell=tell, **options).path


def planned(recipe: Recipe, **options: Any) -> Plan:
    """The plan, without measuring for long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SECONDS", 0.05)
        return pipeline.make_plan(recipe, **options)[0]


def final_weights(run: Path) -> dict[str, Tensor]:
    """The weights of a run's last checkpoint, by name."""
    last = RunFolder(run).read_json("last.json")["checkpoint"]
    return safetensors.torch.load_file(run / last / "weights.safetensors")


class Notes:
    """A listener that keeps what was noted."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, message: pipeline.Message) -> None:
        if message.kind == "note":
            self.texts.append(message.text)
