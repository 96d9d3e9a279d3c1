"""From a resolved recipe to the parts of a training: network, task, augmentation, optimiser, schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convsmith.batches import Augment, Batch, Normalize, build
from convsmith.errors import UsageError
from convsmith.networks import MODELS, build_design, check_output, load_own
from convsmith.recipe import Named, Recipe, settled
from convsmith.tasks import Task, classification
from convsmith.training import OPTIMIZERS, SCHEDULES, Loop, Processes, seed_all

OWN = "own"


@dataclass(frozen=True)
class Code:
    """The user's own network: the file they typed, what in it makes the network, and with which arguments.

    Args:
        path: a Python file.
        name: a class or function in it.
        options: its arguments beyond `in_channels` and `outputs`.
        sha256: what the file's hash must be, or None for any.
    """

    path: Path
    name: str
    options: Mapping[str, Any]
    sha256: str | None = None


ModelFunction = Callable[[int, int], nn.Module]


def build_network(recipe: Recipe, outputs: int, code: Code | ModelFunction | None) -> nn.Module:
    """Make the network that a recipe names, from the recipe's seed, and check what it returns.

    Raises:
        UsageError: the recipe was made with the user's own code and none is given, or the network does not fit.
    """
    channels, size = settled(recipe.image.channels), settled(recipe.image.size)
    assert isinstance(recipe.model, Named)
    seed_all(recipe.seed)
    if recipe.model.name == OWN:
        if code is None:
            raise UsageError(
                "This run's network is your own code, which is never run unasked.",
                mend="Name the file again with --code FILE.py; its hash is checked.",
            )
        if isinstance(code, Code):
            model = load_own(
                code.path, code.name, code.options, in_channels=channels, outputs=outputs, expected_sha256=code.sha256
            )
        else:
            model = code(channels, outputs)
    elif recipe.network is not None:
        model = build_design(recipe.network, channels, outputs)
    else:
        model = MODELS.build(recipe.model.name, channels, outputs, **recipe.model.options)
    check_output(model, channels=channels, size=size, outputs=outputs)
    return model


def recorded_code(manifest: Mapping[str, Any], code: Code | ModelFunction | None) -> Code | ModelFunction | None:
    """The user's file with the name, options and hash that the run recorded.

    Raises:
        UsageError: a file is given, but the run's network came from elsewhere.
    """
    if not isinstance(code, Code):
        return code
    held = manifest["model"].get("code")
    if held is None:
        raise UsageError(
            f"This run's network, {manifest['model']['description']}, is not from a file of code.",
            mend="Leave --code out, or give the function itself: load_run(RUN, code=function).",
        )
    return Code(code.path, held["name"], held["options"], held["sha256"])


def build_task(recipe: Recipe) -> Task:
    """The task with the recipe's options."""
    return classification(label_smoothing=settled(recipe.train.label_smoothing))


def build_augment(recipe: Recipe) -> Augment:
    """The training augmentation, ending in the normalisation that evaluation uses alone."""
    normalize = Normalize(settled(recipe.image.mean), settled(recipe.image.std))
    return build(recipe.augment.operations or (), normalize=normalize, seed=recipe.seed)


def build_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over all of the model's trainable parameters."""
    assert isinstance(recipe.train.optimizer, Named)
    return OPTIMIZERS.build(recipe.train.optimizer.name, model.named_parameters(), **recipe.train.optimizer.options)


def build_loop(recipe: Recipe, model: nn.Module, processes: Processes) -> Loop:
    """The loop that trains `model`, which must lie on its device already."""
    train = recipe.train
    assert isinstance(train.schedule, Named)
    augment = build_augment(recipe)
    warmup = {"warmup_steps": settled(train.warmup_steps)}
    return Loop(
        model,
        build_task(recipe),
        {"model": build_optimizer(recipe, model)},
        steps=train.steps or settled(train.warmup_steps),
        schedule=SCHEDULES.build(train.schedule.name, **warmup, **train.schedule.options),
        transform=augment,
        average=settled(train.average),
        clip=train.clip,
        precision=settled(train.precision),
        report_every=settled(train.report_every),
        tune_every=settled(train.tune_every),
        checkpoint_every=settled(train.checkpoint_every),
        trace=tracer(augment) if train.log_ids else None,
        processes=processes,
    )


def tracer(augment: Augment) -> Callable[[Batch], dict[str, list[Any]]]:
    """What `train.log_ids` logs of a batch: each image's id and a digest of what was drawn for it."""

    def trace(batch: Batch) -> dict[str, list[Any]]:
        draws = [augment.digest(batch.keys[i : i + 1]) for i in range(len(batch))]
        return {"ids": list(batch.ids), "draws": draws}

    return trace


def place(model: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """Move a network to its device and memory layout."""
    layout = torch.channels_last if recipe.train.memory_format == "channels_last" else torch.contiguous_format
    return model.to(device).to(memory_format=layout)  # type: ignore[call-overload]
