"""The plan: every `auto` of a recipe resolved, with the reason and the measured number behind it.

Each rule is a function of the data, of the machine's measured speed, or of choices made before it, and a choice the
user made is kept as it is. What results is a recipe without `auto`, which repeats the run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from convsmith.batches import AUGMENTATIONS, PRESETS
from convsmith.errors import UsageError
from convsmith.images import Dataset
from convsmith.networks import (
    INITIALISATIONS,
    MODELS,
    activation_bytes,
    count_parameters,
    refuse_options,
    resolve,
)
from convsmith.networks.lint import Evidence, lint
from convsmith.pipeline.build import (
    OWN,
    Code,
    ModelFunction,
    build_augment,
    build_task,
    thaws,
    training_shape,
)
from convsmith.pipeline.choose_images import choose_images
from convsmith.pipeline.choose_network import choose_network, choose_start, choose_transfer
from convsmith.pipeline.choose_training import (
    bear_few_steps,
    choose_augmentation,
    choose_length,
    choose_optimisation,
    choose_precision,
)
from convsmith.pipeline.closing import closing_seconds, final_images
from convsmith.pipeline.machine import choose_device
from convsmith.pipeline.measure import measure_prediction
from convsmith.pipeline.origin import start_network
from convsmith.pipeline.planner import Plan, Planner
from convsmith.pipeline.space import run_bytes
from convsmith.recipe import Named, Recipe, settled
from convsmith.records import Choice, Finding
from convsmith.registry import suggestion
from convsmith.training import OPTIMIZERS, SCHEDULES, untouched

OF_STEPS = (
    "augment.", "train.optimizer", "train.schedule", "train.label_smoothing", "train.balance", "train.focal",
    "train.epochs", "train.steps", "train.budget", "train.warmup", "train.average", "train.blend", "train.clip",
    "train.report_every", "train.tune_every", "train.checkpoint_every",
)  # fmt: skip
"""How the names of choices begin that are about steps of training."""


@untouched()
def plan(
    recipe: Recipe,
    dataset: Dataset,
    audit: Mapping[str, Any],
    *,
    code: Code | ModelFunction | None = None,
    elapsed: float = 0.0,
) -> Plan:
    """Resolve every automatic choice.

    Args:
        recipe: as asked.
        dataset: audited, with roles.
        audit: what the audit found.
        code: the user's own network, where `model` says so.
        elapsed: seconds the command has run so far, for the estimate and the budget.

    Raises:
        UsageError: a name or option is unknown, a size does not fit the network, or the budget is too small.
        DataError: weights that were asked for are not here and cannot be fetched.
    """
    planner = Planner(recipe.updated({"data.fingerprint": dataset.fingerprint}), dataset, audit)
    refuse_unknown(recipe)
    _choose_device(planner)
    origin = choose_start(planner)
    choose_images(planner, origin)
    choose_network(planner, origin)
    device = choose_device(planner.recipe.train.device)
    model = start_network(planner.recipe, planner.classes, code, origin).to(device)
    choose_transfer(planner, origin, model)
    thaws(planner.recipe, model)  # refuses what cannot be, before anything is measured
    choose_augmentation(planner, origin)
    choose_optimisation(planner)
    seconds_per_step = choose_precision(planner, model)
    task, augment = build_task(planner.recipe), build_augment(planner.recipe)
    prediction = measure_prediction(model, task, augment, shape=planner.shape)
    steps = choose_length(planner, seconds_per_step, prediction, elapsed)
    bear_few_steps(planner, steps)
    return _finished(planner, model, steps, seconds_per_step, prediction, elapsed)


def refuse_unknown(recipe: Recipe) -> None:
    """Hold every name and option against its table, and the device against this machine, before anything is read.

    Raises:
        UsageError: one that is not there; the close ones are named.
    """
    if recipe.train.device != "auto":
        choose_device(recipe.train.device)
    if isinstance(recipe.model, Named) and recipe.model.name != OWN:
        found = resolve(recipe.model.name)
        if found.library == "convsmith":
            MODELS.check(found.name, recipe.model.options)
        else:
            refuse_options(found, recipe.model.options)
    if isinstance(recipe.train.optimizer, Named):
        OPTIMIZERS.check(recipe.train.optimizer.name, recipe.train.optimizer.options)
    if isinstance(recipe.train.schedule, Named):
        SCHEDULES.check(recipe.train.schedule.name, recipe.train.schedule.options)
    if recipe.weights.initialisation is not None:
        INITIALISATIONS.check(recipe.weights.initialisation, {})
        if recipe.weights.source not in (None, "auto"):
            raise UsageError(
                "weights.initialisation draws weights, but the network starts from some that are given.",
                mend="Leave one of the two out: --weights none starts from nothing.",
            )
    if recipe.augment.preset not in {"auto", *PRESETS}:
        raise UsageError(
            f"There is no augmentation preset {recipe.augment.preset!r}.",
            mend=suggestion(recipe.augment.preset, PRESETS),
        )
    for operation in recipe.augment.operations or ():
        AUGMENTATIONS.check(operation.name, operation.options)


def _choose_device(planner: Planner) -> None:
    device = choose_device(planner.recipe.train.device)
    reasons = {"cuda": "an NVIDIA GPU is here", "mps": "an Apple GPU is here", "cpu": "no GPU was found"}
    planner.choose("train.device", device.type, reasons[device.type])
    planner.choose("train.threads", torch.get_num_threads(), "one for each core that this process may use")


def _refuse_more_than_there_is(memory: float, recipe: Recipe) -> None:
    """Raise `UsageError` where training on a processor would surely need more than this machine's memory."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if recipe.train.device == "cpu" and memory > there:
        raise UsageError(
            f"Training would take about {memory / 2**30:,.1f} GiB of memory, and this machine has {there / 2**30:.1f}: "
            f"batches of {settled(recipe.train.batch):,} images of {settled(recipe.image.size)} px.",
            mend="Ask for smaller batches, --set train.batch=N, or smaller images, --size PX.",
        )


def _finished(
    planner: Planner, model: nn.Module, steps: int, seconds_per_step: float, prediction: float, elapsed: float
) -> Plan:
    recipe = planner.recipe
    looks = steps // settled(recipe.train.tune_every) if recipe.train.tune_every else 0
    tune_seconds = prediction * len(planner.dataset.indices("tune")) * looks
    training = steps * seconds_per_step + tune_seconds
    total = elapsed + training + closing_seconds(planner.dataset, prediction)
    weights = count_parameters(model).total * 4
    images = len(planner.dataset) * settled(recipe.image.channels) * settled(recipe.image.size) ** 2
    # Weights, gradients, momentum and average, what autograd keeps, and the decoded images.
    memory = 4 * weights + activation_bytes(model, training_shape(recipe), settled(recipe.train.batch)) + images
    _refuse_more_than_there_is(memory, recipe)
    estimate = {
        "seconds": round(recipe.train.budget if recipe.train.steps is None and recipe.train.budget else total, 1),
        "training_seconds": round(training, 1),
        "prediction_seconds_per_image": prediction,
        "memory_bytes": int(memory),
        "disk_bytes": run_bytes(weights=weights, predicted=final_images(planner.dataset), classes=planner.classes),
        "parameters": weights // 4,
        "steps": steps,
        "images_per_second": round(settled(recipe.train.batch) / seconds_per_step, 1),
    }
    return Plan(recipe, _that_matter(planner), estimate, _faults(planner, model))


def _that_matter(planner: Planner) -> tuple[Choice, ...]:
    """The choices, without those about steps where none is made; such as were asked for are told to change nothing."""
    if planner.recipe.transfer.mode != "probe":
        return tuple(planner.choices)
    idle = [choice for choice in planner.choices if choice.name.startswith(OF_STEPS)]
    return tuple(
        replace(choice, reason="as asked; no step is trained, so it changes nothing") if choice in idle else choice
        for choice in planner.choices
        if choice not in idle or choice.given
    )


def _faults(planner: Planner, model: nn.Module) -> tuple[Finding, ...]:
    """What the design rules hold against the network as it will be trained; nothing where it cannot be recorded."""
    recipe, sizes = planner.recipe, planner.audit["sizes"]
    side = int(min(sizes[axis]["median"] for axis in ("width", "height")))
    batch = None if recipe.transfer.frozen_norms else settled(recipe.train.batch)
    evidence = Evidence(model, training_shape(recipe), batch, planner.classes, side)
    with suppress(UsageError):  # it asks for values of the image
        return tuple(finding for finding in lint(evidence) if finding.severity != "hint")
    return ()
