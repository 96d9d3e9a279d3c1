"""The first layer of a run: as it began, at its checkpoints, and what it makes of a picture."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures_made import class_folder
from safetensors.numpy import load_file
from typed import trained

from convsmith.errors import CheckpointError, RunError, UsageError
from convsmith.pipeline import load_trained
from convsmith.pipeline.first_layer import first_layer
from convsmith.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint every three steps, whose rate is too small to move anything by 1e-6."""
    folder = tmp_path_factory.mktemp("first-layer")
    return trained(
        class_folder(folder / "insects"), folder / "runs", "--epochs", 2, "--name", "still", "--seed", 5,
        "--set", "train.checkpoint_every=3",
        "--set", "train.optimizer={name: sgd, options: {rate: 1.0e-09, momentum: 0.0, weight_decay: 0.0}}",
    )  # fmt: skip


def test_what_the_seed_draws_again_is_what_the_run_began_with(run):
    layer = first_layer(RunFolder(run))
    start, *kept = layer.moments
    assert (start.label, start.step, start.origin) == ("start", 0, "drawn again from seed 5")
    assert np.abs(start.filters).max() > 0.05
    assert len(kept) == 2
    for moment in kept:  # trained with next to no rate, so they are where they began
        assert np.allclose(moment.filters, start.filters, atol=1e-6)


def test_each_checkpoint_that_is_there_is_read_and_named_with_its_step_and_epoch(run):
    layer = first_layer(RunFolder(run))
    steps = sorted(int(path.name) for path in (run / "checkpoints").iterdir())
    assert [moment.step for moment in layer.moments[1:]] == steps
    assert [moment.label for moment in layer.moments[1:]] == [f"step {step}" for step in steps]
    assert layer.moments[-1].epoch == 2
    stored = load_file(run / "checkpoints" / str(steps[-1]) / "weights.safetensors")
    assert np.array_equal(layer.moments[-1].filters, stored[layer.parameter])
    assert any(f"step {steps[0]}, step {steps[1]}" in note for note in layer.notes)
    assert layer.describes.startswith(f"conv 3->{len(stored[layer.parameter])} k")


def test_the_responses_are_those_of_the_networks_own_first_layer(run):
    layer, loaded = first_layer(RunFolder(run)), load_trained(RunFolder(run), device="cpu")
    conv = next(module for module in loaded.model.modules() if isinstance(module, torch.nn.Conv2d))
    picture = np.random.default_rng(0).integers(0, 256, size=(20, 24, 3)).astype(np.uint8)
    seen = loaded.normalize(torch.from_numpy(picture.transpose(2, 0, 1)[None].copy()))
    with torch.inference_mode():
        expected = conv(seen)[0].numpy()
    assert np.allclose(layer.responses(picture.astype(float)), expected, atol=1e-5)
    grey = picture[..., 0].astype(float)
    assert np.allclose(layer.responses(grey), layer.responses(np.repeat(grey[..., None], 3, axis=2)))


def test_a_damaged_checkpoint_is_passed_over_and_told(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / run.name))
    first, last = sorted((copy / "checkpoints").iterdir(), key=lambda path: int(path.name))
    (first / "weights.safetensors").write_bytes(b"torn")
    layer = first_layer(RunFolder(copy))
    assert [moment.step for moment in layer.moments] == [0, int(last.name)]
    assert any(note.startswith(f"Step {first.name} is passed over.") and "damaged" in note for note in layer.notes)
    (last / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="No checkpoint"):
        first_layer(RunFolder(copy))
    shutil.rmtree(copy / "checkpoints")
    (copy / "checkpoints").mkdir()
    with pytest.raises(RunError, match="no checkpoint yet"):
        first_layer(RunFolder(copy))


def test_weights_that_it_began_with_and_that_are_gone_are_told(run, tmp_path):
    copy = RunFolder(Path(shutil.copytree(run, tmp_path / run.name)))
    gone = str(tmp_path / "gone")
    copy.write_text("recipe.yaml", copy.read_recipe().updated({"weights.source": gone}).to_yaml())
    layer = first_layer(copy)
    assert layer.moments[0].label != "start"
    assert any("What it started from cannot be shown" in note and gone in note for note in layer.notes)


def test_a_run_that_began_from_another_starts_with_its_filters(run, tmp_path):
    copy = RunFolder(Path(shutil.copytree(run, tmp_path / run.name)))
    changed = copy.read_recipe().updated({"weights.source": str(run), "seed": 99})  # the seed alone draws others
    copy.write_text("recipe.yaml", changed.to_yaml())
    begun = first_layer(copy).moments[0]
    assert (begun.label, begun.origin) == ("start", f"your run {run.name}")
    assert np.array_equal(begun.filters, first_layer(RunFolder(run)).moments[-1].filters)


def test_a_network_without_convolutions_is_refused(run, tmp_path):
    copy = RunFolder(Path(shutil.copytree(run, tmp_path / run.name)))
    recipe = copy.read_recipe()
    size = recipe.image.size
    copy.write_text("recipe.yaml", recipe.updated({"model": {"name": "own"}, "network": None}).to_yaml())

    def flat(in_channels: int, outputs: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(in_channels * size**2, outputs))

    with pytest.raises(UsageError, match="no convolution"):
        first_layer(copy, code=flat)
