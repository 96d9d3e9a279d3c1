"""The filters of a run's first layer: as it began, and at each checkpoint that is still there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from convsmith.errors import CheckpointError, DataError, RunError, UsageError
from convsmith.networks.recording.graph import Operation, Ref, record
from convsmith.pipeline.build import Code, ModelFunction, build_network, recorded_code
from convsmith.pipeline.origin import find_origin, start_network
from convsmith.recipe import Recipe, settled
from convsmith.run_folder import RunFolder, read_log
from convsmith.training import last_checkpoint, load_weights, untouched
from convsmith.training.checkpoint import KEEP, verify

LUMA = np.array((0.299, 0.587, 0.114))
"""Weights of red, green and blue in grey (ITU-R 601), as for all pictures here."""


@dataclass(frozen=True)
class Moment:
    """The first layer at one moment of training.

    Args:
        label: `start`, or `step 1,500`.
        step, epoch: when; an epoch that the log does not tell is None.
        origin: where the numbers come from.
        filters: float32 `[N, C, kh, kw]`, C of one group; of averaged weights, where the run averages.
    """

    label: str
    step: int
    epoch: int | None
    origin: str
    filters: np.ndarray


@dataclass(frozen=True)
class FirstLayer:
    """The first convolution of a run's network.

    Args:
        parameter: the path of its weight.
        options: `stride`, `padding`, `dilation` and `groups`, as `torch.nn.functional.conv2d` takes them.
        moments: the oldest first; the last is the one the run predicts with.
        notes: what is missing, in sentences.
        mean, std: by which pixels are made ready for it, for values from 0 to 1.
    """

    parameter: str
    options: dict[str, Any]
    moments: tuple[Moment, ...]
    notes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def describes(self) -> str:
        """Such as `conv 3->16 k3 s1`."""
        count, channels, height, width = self.moments[-1].filters.shape
        inputs, side = channels * self.options["groups"], f"{height}" if height == width else f"{height}x{width}"
        return f"conv {inputs}->{count} k{side} s{self.options['stride'][0]}"

    def responses(self, picture: np.ndarray) -> np.ndarray:
        """What each filter of the last moment makes of a picture, without bias.

        Args:
            picture: values from 0 to 255, `[H, W]` or `[H, W, 3]`; made grey, or repeated, where the layer needs it.

        Returns:
            float32 `[N, H', W']`.
        """
        channels = len(self.mean)
        if picture.ndim == 2:
            seen = np.repeat(picture[None], channels, axis=0)
        else:
            seen = picture.transpose(2, 0, 1) if channels == 3 else (picture @ LUMA)[None]
        ready = (seen / 255 - np.array(self.mean)[:, None, None]) / np.array(self.std)[:, None, None]
        with torch.inference_mode():
            image, weight = (
                torch.from_numpy(np.asarray(part, np.float32)) for part in (ready, self.moments[-1].filters)
            )
            return nn.functional.conv2d(image[None], weight, **self.options)[0].numpy()


def first_layer(run: RunFolder, *, code: Code | ModelFunction | None = None) -> FirstLayer:
    """Read the first layer's filters of every checkpoint that a run still has, and draw again those it began with.

    Args:
        run: its folder.
        code: the user's own network, where the run has one.

    Raises:
        RunError: it has no checkpoint yet.
        CheckpointError: none is whole.
        UsageError: the network has no convolution.
    """
    recipe, manifest = run.read_recipe(), run.read_json("manifest.json")
    last = last_checkpoint(run.checkpoints)
    if last is None:
        raise RunError(f"{run.path} has no checkpoint yet.", mend=f"Let it train first: convsmith resume {run.path}")
    outputs, own = len(manifest["classes"]), recorded_code(manifest, code)
    with untouched():
        model = build_network(recipe, outputs, own)
        operation, parameter, notes = _first_convolution(model, recipe)
        moments = [_start(model, parameter, recipe, outputs, own, notes)]
        epochs = {item["step"]: item["epoch"] for item in read_log(run.log_path) if item["kind"] == "checkpoint"}
        for step, folder in _checkpoints(run.checkpoints):
            try:
                verify(folder)
            except CheckpointError as error:
                notes.append(f"Step {step:,} is passed over. {error.message}")
                continue
            load_weights(model, folder / "weights.safetensors")
            place = f"checkpoints/{folder.name}"
            moments.append(Moment(f"step {step:,}", step, epochs.get(step), place, _read(model, parameter)))
    steps = ", ".join(moment.label for moment in moments[1:] if moment is not None)
    notes.append(f"A run keeps its last {KEEP} checkpoints; of this one there are: {steps}.")
    options = {name: operation.arguments[name] for name in ("stride", "padding", "dilation", "groups")}
    return FirstLayer(
        parameter, options, tuple(moment for moment in moments if moment is not None), tuple(notes),
        settled(recipe.image.mean), settled(recipe.image.std),
    )  # fmt: skip


def _first_convolution(model: nn.Module, recipe: Recipe) -> tuple[Operation, str, list[str]]:
    """The first convolution that is computed, the path of its weight, and what is to be said of it."""
    size = settled(recipe.image.size)
    graph = record(model, (settled(recipe.image.channels), size, size))
    for operation in graph.operations:
        if operation.name != "convolution" or operation.arguments["transposed"]:
            continue
        weight = operation.arguments["weight"]
        assert isinstance(weight, Ref)
        value = graph.values[weight.index]
        if value.kind == "parameter":
            return operation, value.name, []
        named, path = dict(model.named_parameters()), f"{operation.module}.weight"
        if path in named and tuple(named[path].shape) == value.shape:
            return operation, path, ["The filters are shown as they are stored; the layer scales them before use."]
    raise UsageError(
        "The network has no convolution, so there are no filters to look at.",
        mend="Name a run of a convolutional network with --run.",
    )


def _start(
    model: nn.Module, parameter: str, recipe: Recipe, outputs: int, code: Code | ModelFunction | None, notes: list[str]
) -> Moment | None:
    """The layer before the first step: no file keeps it, but the seed draws it again and its weights can be read again.

    Args:
        model: as drawn from the recipe's seed.
        parameter: the path of its weight.
        recipe, outputs, code: what made it.
        notes: is told where the weights that it began with cannot be had any more.
    """
    if recipe.weights.source is None:
        return Moment("start", 0, 0, f"drawn again from seed {recipe.seed}", _read(model, parameter))
    try:
        origin = find_origin(recipe)
        begun = start_network(recipe, outputs, code, origin)
    except (UsageError, DataError, RunError) as error:
        notes.append(f"What it started from cannot be shown. {error.message}")
        return None
    says = origin.says if origin else f"drawn again from seed {recipe.seed}"
    return Moment("start", 0, 0, says, _read(begun, parameter))


def _read(model: nn.Module, parameter: str) -> np.ndarray:
    return model.get_parameter(parameter).detach().to(torch.float32).contiguous().numpy().copy()


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    return sorted((int(path.name), path) for path in folder.iterdir() if path.name.isdigit())
