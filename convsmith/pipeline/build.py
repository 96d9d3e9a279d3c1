"""From a resolved recipe to the parts of a training: network, task, augmentation, optimiser, schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convsmith.batches import Augment, Batch, Normalize, build
from convsmith.errors import UsageError
from convsmith.networks import (
    build_design,
    build_named,
    check_output,
    find_head,
    initialise,
    load_own,
    replace_head,
    residual_ends,
    size_options,
    stages,
)
from convsmith.recipe import Named, Recipe, settled
from convsmith.tasks import Task, class_weights, classification
from convsmith.training import OPTIMIZERS, SCHEDULES, Loop, Processes, Thaw, norms, scale_rates, seed_all

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
    """Make the network that a recipe names, as drawn from its seed, and check what it returns; weights come later.

    Raises:
        UsageError: the recipe was made with the user's own code and none is given, or the network does not fit.
    """
    seed_all(recipe.seed)
    model = bare_network(recipe, outputs, code)
    check_network(model, recipe, outputs)
    return model


def bare_network(recipe: Recipe, outputs: int, code: Code | ModelFunction | None) -> nn.Module:
    """Make the network, with the head that it has after transfer where the recipe starts from weights."""
    channels = settled(recipe.image.channels)
    assert isinstance(recipe.model, Named)
    name, options = recipe.model.name, recipe.model.options
    if name == OWN:
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
        model = build_named(name, channels, outputs, **{**size_options(name, settled(recipe.image.size)), **options})
    if recipe.weights.source is not None:
        return with_new_head(model, recipe, outputs)
    if recipe.weights.initialisation is not None:
        _start_anew(model, recipe, recipe.weights.initialisation)
    return model


def _start_anew(model: nn.Module, recipe: Recipe, rule: str) -> None:
    """Draw all weights by a rule of the table; of a design, with its activation's gain and its zero gammas."""
    network = recipe.network
    zero = residual_ends(model, _shape(recipe)) if network is not None and network.zero_gamma else ()
    activation = network.activation if network is not None else "relu"
    initialise(model, rule, activation=None if activation == "none" else activation, zero=zero)


def with_new_head(model: nn.Module, recipe: Recipe, outputs: int) -> nn.Module:
    """Replace the last layer, so that the network has the shape it has after transfer, whatever its weights were."""
    replace_head(model, find_head(model, _shape(recipe)), outputs)
    return model


def check_network(model: nn.Module, recipe: Recipe, outputs: int) -> None:
    """Raise `UsageError` where the network does not turn the recipe's images into `outputs` logits."""
    check_output(model, channels=settled(recipe.image.channels), size=settled(recipe.image.size), outputs=outputs)


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
            f"--code {code.path}: this run's network, {manifest['model']['name']}, is not from a file of code.",
            mend="Leave --code out; in Python, give the function itself: load_run(RUN, code=function).",
        )
    return Code(code.path, held["name"], held["options"], held["sha256"])


def build_task(recipe: Recipe, counts: Sequence[int] | None = None) -> Task:
    """The task with the recipe's options.

    Args:
        counts: training images of each class, by which the loss is balanced; None where nothing is trained.
    """
    train = recipe.train
    weights = class_weights(counts) if counts is not None and train.balance == "weights" else None
    return classification(settled(train.label_smoothing), weights, train.focal)


def build_augment(recipe: Recipe, classes: int | None = None) -> Augment:
    """The training augmentation, ending in the normalisation that evaluation uses alone.

    Args:
        classes: how many; needed where its batches have labels that may be mixed.
    """
    normalize = Normalize(settled(recipe.image.mean), settled(recipe.image.std))
    return build(recipe.augment.operations or (), normalize=normalize, seed=recipe.seed, classes=classes)


def build_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over all trainable parameters; after transfer, stages near the image have lower rates or none."""
    assert isinstance(recipe.train.optimizer, Named)
    factors: dict[nn.Parameter, float] = {}
    if recipe.transfer.mode is not None:
        named = dict(model.named_parameters())
        staged = stages(model, _shape(recipe))
        kept = settled(recipe.transfer.frozen_stages)
        if kept >= len(staged):
            raise UsageError(
                f"transfer.frozen_stages is {kept}, but the network has {len(staged)} stages, so nothing would learn.",
                mend=f"Freeze {len(staged) - 1} at the most, or train the head alone with --set transfer.mode=probe.",
            )
        for depth, stage in enumerate(reversed(staged)):
            frozen = len(staged) - 1 - depth < kept
            for name in stage.parameters:
                named[name].requires_grad_(not frozen)
                factors[named[name]] = settled(recipe.transfer.stage_rate) ** depth
    optimizer = OPTIMIZERS.build(
        recipe.train.optimizer.name, model.named_parameters(), **recipe.train.optimizer.options
    )
    scale_rates(optimizer, factors)
    return optimizer


def thaws(recipe: Recipe, model: nn.Module) -> list[Thaw]:
    """The stages that wait before they are trained, with their norms where these are to gather statistics.

    Raises:
        UsageError: a stage that the network has not, or that never thaws; a network that starts from nothing; a
            budget, which is turned into steps by the time that those of the warm-up take.
    """
    wanted = recipe.transfer.unfreeze
    if not wanted:
        return []
    if recipe.train.steps is None and recipe.train.budget is not None:
        raise UsageError(
            "transfer.unfreeze makes later steps longer than the first, by which a budget is planned.",
            mend="Give --epochs in place of --budget, or --set train.steps=N.",
        )
    if recipe.transfer.mode != "finetune":
        raise UsageError(
            "transfer.unfreeze is for fine-tuning, but this run does none.", mend="Leave it out, or give --weights."
        )
    staged = {stage.name: (place, stage) for place, stage in enumerate(stages(model, _shape(recipe)))}
    named, kept = dict(model.named_parameters()), settled(recipe.transfer.frozen_stages)
    parts = []
    for item in wanted:
        if item.stage not in staged:
            raise UsageError(
                f"transfer.unfreeze names the stage {item.stage!r}, which this network has not.",
                mend=f"It has {', '.join(staged)}.",
            )
        place, stage = staged[item.stage]
        if place < kept:
            raise UsageError(
                f"transfer.unfreeze thaws {item.stage}, but transfer.frozen_stages = {kept} keeps it frozen.",
                mend=f"Set transfer.frozen_stages={place} at the most.",
            )
        own = () if settled(recipe.transfer.frozen_norms) else norms(map(model.get_submodule, stage.modules))
        parts.append(Thaw(item.at, tuple(named[name] for name in stage.parameters), tuple(own)))
    if len({item.stage for item in wanted}) < len(wanted):
        raise UsageError("transfer.unfreeze names a stage twice.")
    if len(wanted) == len(staged) - kept and min(item.at for item in wanted) > 0:
        raise UsageError(
            "transfer.unfreeze leaves nothing to train at first.", mend="Leave the head out of it, or give it `at: 0`."
        )
    return parts


def frozen_modules(recipe: Recipe, model: nn.Module) -> list[nn.Module]:
    """The norms that keep their running statistics: all where the recipe says so, else those of frozen stages."""
    if recipe.transfer.mode is None:
        return []
    if settled(recipe.transfer.frozen_norms):
        return norms(model.modules())
    staged = stages(model, _shape(recipe))[: settled(recipe.transfer.frozen_stages)]
    return norms(model.get_submodule(path) for stage in staged for path in stage.modules)


def build_loop(recipe: Recipe, model: nn.Module, processes: Processes, counts: Sequence[int]) -> Loop:
    """The loop that trains `model`, which must lie on its device already; `counts` are training images by class."""
    train = recipe.train
    assert isinstance(train.schedule, Named)
    augment = build_augment(recipe, len(counts))
    warmup = {"warmup_steps": settled(train.warmup_steps)}
    return Loop(
        model,
        build_task(recipe, counts),
        {"model": build_optimizer(recipe, model)},
        steps=train.steps if train.steps is not None else settled(train.warmup_steps),
        schedule=SCHEDULES.build(train.schedule.name, **warmup, **train.schedule.options),
        transform=augment,
        average=settled(train.average),
        blend=settled(train.blend),
        clip=train.clip,
        precision=settled(train.precision),
        report_every=settled(train.report_every),
        tune_every=settled(train.tune_every),
        checkpoint_every=settled(train.checkpoint_every),
        frozen=frozen_modules(recipe, model),
        thaws=thaws(recipe, model),
        trace=tracer(augment) if train.log_ids else None,
        processes=processes,
    )


def _shape(recipe: Recipe) -> tuple[int, int, int]:
    return settled(recipe.image.channels), settled(recipe.image.size), settled(recipe.image.size)


def training_shape(recipe: Recipe) -> tuple[int, int, int]:
    """Of one image as the network is trained on it: a crop may be smaller than what is evaluated."""
    channels, *sides = _shape(recipe)
    batch = build_augment(recipe)(Batch.of_images(torch.zeros(1, channels, *sides, dtype=torch.uint8)))
    return channels, batch.images.shape[2], batch.images.shape[3]


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
