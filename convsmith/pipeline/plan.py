"""The plan: every `auto` of a recipe resolved, with the reason and the measured number behind it.

Each rule is a function of the data, of the machine's measured speed, or of choices made before it, and a choice the
user made is kept as it is. What results is a recipe without `auto`, which repeats the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from convsmith.batches import AUGMENTATIONS, GROUP, PRESETS, steps_per_epoch
from convsmith.errors import UsageError
from convsmith.images import Dataset, evaluation_pixels
from convsmith.networks import MODELS, activation_bytes, count_parameters, fit_design
from convsmith.pipeline.build import OWN, Code, ModelFunction, build_augment, build_network, build_optimizer, build_task
from convsmith.pipeline.machine import choose_device
from convsmith.pipeline.measure import Layout, Precision, measure_prediction, measure_steps
from convsmith.pipeline.space import run_bytes
from convsmith.recipe import Named, Recipe, settled
from convsmith.records import Choice, Record
from convsmith.registry import suggestion
from convsmith.training import OPTIMIZERS, SCHEDULES, untouched

LARGEST_AUTOMATIC_SIZE = 64
STATISTICS_SAMPLE = 512
WARMUP_SHARE = 0.2
TRAIN_SAMPLE = 5_000
"""How many training images are predicted in evaluation mode when a run ends, to compare with tune and test."""


@dataclass(frozen=True)
class Plan(Record):
    """A recipe without `auto`, and how it came about.

    Args:
        recipe: resolved.
        choices: every decision, in the order they were made.
        estimate: `seconds` of the whole command, `training_seconds`, `prediction_seconds_per_image`, `memory_bytes`,
            `disk_bytes`, `steps`, `images_per_second`.
    """

    recipe: Recipe
    choices: tuple[Choice, ...]
    estimate: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As `plan.json` holds it, without the recipe, which has its own file."""
        return {"choices": [choice.to_json() for choice in self.choices], "estimate": dict(self.estimate)}


@dataclass
class Planner:
    """A recipe on its way to being resolved; rules put their choices here one after another."""

    recipe: Recipe
    dataset: Dataset
    audit: Mapping[str, Any]
    choices: list[Choice] = field(default_factory=list)

    def choose(self, key: str, value: Any, reason: str, **measured: Any) -> None:
        """Resolve one key unless the user gave it; either way it is listed."""
        given = self.value(key)
        asked = given != "auto"
        shown = given if asked else value
        self.choices.append(
            Choice(key, _shown(shown), "as asked" if asked else reason, {} if asked else measured, asked)
        )
        if not asked:
            self.recipe = self.recipe.updated({key: value})

    def value(self, key: str) -> Any:
        """What the recipe now holds under a dotted key."""
        node: Any = self.recipe
        for part in key.split("."):
            node = getattr(node, part)
        return node

    @property
    def train_count(self) -> int:
        """How many images are trained on."""
        return len(self.dataset.indices("train"))


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
    """
    planner = Planner(recipe.updated({"data.fingerprint": dataset.fingerprint}), dataset, audit)
    _check_names(recipe)
    _choose_device(planner)
    _choose_pixels(planner)
    _choose_network(planner)
    _choose_augmentation(planner)
    _choose_optimisation(planner)
    model = build_network(planner.recipe, len(dataset.classes), code)
    device = choose_device(planner.recipe.train.device)
    seconds_per_step = _choose_precision(planner, model.to(device))
    task, augment = build_task(planner.recipe), build_augment(planner.recipe)
    prediction = measure_prediction(model, task, augment, shape=_shape(planner.recipe))
    steps = _choose_length(planner, seconds_per_step, prediction, elapsed)
    return _finished(planner, model, steps, seconds_per_step, prediction, elapsed)


def closing_seconds(dataset: Dataset, prediction: float) -> float:
    """What comes after training: predicting each final image in `prediction` seconds, scoring, pictures, the report.

    Measured apart from the predictions: 0.9 s with 1,800 images, on two cores that others used too.
    """
    images = final_images(dataset)
    return prediction * images + 1.0 + images / 10_000


def final_images(dataset: Dataset) -> int:
    """How many images are predicted after training: a sample of train, all of tune and test."""
    train = min(TRAIN_SAMPLE, len(dataset.indices("train")))
    return train + len(dataset.indices("tune")) + len(dataset.indices("test"))


def _check_names(recipe: Recipe) -> None:
    """Hold every name and option against its table before anything is measured."""
    if isinstance(recipe.model, Named) and recipe.model.name != OWN:
        MODELS.check(recipe.model.name, recipe.model.options)
    if isinstance(recipe.train.optimizer, Named):
        OPTIMIZERS.check(recipe.train.optimizer.name, recipe.train.optimizer.options)
    if isinstance(recipe.train.schedule, Named):
        SCHEDULES.check(recipe.train.schedule.name, recipe.train.schedule.options)
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


def _choose_pixels(planner: Planner) -> None:
    """Size, channels and fit from the audit; mean and deviation from a sample of the training images."""
    widths, heights = planner.audit["sizes"]["width"], planner.audit["sizes"]["height"]
    typical = int(min(widths["median"], heights["median"]))
    size = max(8, min(LARGEST_AUTOMATIC_SIZE, typical))
    if typical > LARGEST_AUTOMATIC_SIZE:
        reason = f"the typical shorter side is {typical} px; automatic sizes end at {LARGEST_AUTOMATIC_SIZE} for now"
    else:
        reason = f"the typical shorter side is {typical} px"
    planner.choose("image.size", size, reason, median_shorter_side_px=typical)
    colours = {int(key): count for key, count in planner.audit["channels"].items() if count}
    channels = 1 if set(colours) == {1} else 3
    planner.choose(
        "image.channels",
        channels,
        "every image is grey" if channels == 1 else "there are colour images",
        images=colours,
    )
    same = widths["min"] == widths["max"] == heights["min"] == heights["max"]
    aspect = widths["median"] / heights["median"]
    fit, why = ("stretch", "all images are square and of one size") if same else ("crop", "the middle square is kept")
    if not same and not 0.6 < aspect < 1.67:
        fit, why = "pad", f"images are {aspect:.2f} times as wide as high, and cropping would lose too much"
    planner.choose("image.fit", fit, why, aspect=round(aspect, 3))
    mean, std = _statistics(planner)
    planner.choose(
        "image.mean", mean, "measured on training images", images=min(STATISTICS_SAMPLE, planner.train_count)
    )
    planner.choose("image.std", std, "measured on training images", images=min(STATISTICS_SAMPLE, planner.train_count))


def _statistics(planner: Planner) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel, of pixels in [0, 1], over evenly spaced training images."""
    image = planner.recipe.image
    indices = planner.dataset.indices("train")
    chosen = indices[np.linspace(0, len(indices) - 1, min(STATISTICS_SAMPLE, len(indices))).astype(int)]
    pictures = [
        evaluation_pixels(
            planner.dataset.read(int(index)),
            size=settled(image.size),
            fit=settled(image.fit),
            channels=settled(image.channels),
        )
        for index in chosen
    ]
    values = np.stack(pictures).astype(np.float64) / 255.0
    mean, std = values.mean(axis=(0, 1, 2)), values.std(axis=(0, 1, 2))
    return tuple(round(float(m), 4) for m in mean), tuple(round(max(float(s), 1e-3), 4) for s in std)


def _choose_network(planner: Planner) -> None:
    recipe = planner.recipe
    if recipe.network is not None:
        planner.choices.append(Choice("network", recipe.network.describe(), "as asked", given=True))
        planner.recipe = recipe.updated({"model": "convnet"})
        return
    if recipe.model != "auto":
        assert isinstance(recipe.model, Named)
        planner.choices.append(Choice("model", _shown(recipe.model), "as asked", given=True))
        return
    design, reason = fit_design(
        settled(recipe.image.size), settled(recipe.image.channels), planner.train_count, len(planner.dataset.classes)
    )
    planner.recipe = recipe.updated({"model": "convnet", "network": design.model_dump(mode="json")})
    planner.choices.append(Choice("network", design.describe(), reason))


def _choose_augmentation(planner: Planner) -> None:
    recipe = planner.recipe
    if recipe.augment.operations is not None:
        names = ", ".join(operation.name for operation in recipe.augment.operations) or "nothing"
        planner.choices.append(Choice("augment.operations", names, "as asked", given=True))
        return
    preset, reason = _preset(planner)
    planner.choose("augment.preset", preset, reason)
    planner.recipe = planner.recipe.updated({"augment.operations": PRESETS[planner.recipe.augment.preset]})


def _preset(planner: Planner) -> tuple[str, str]:
    names = planner.dataset.classes
    if all(len(name) <= 2 and name.isalnum() for name in names):
        return "digits", "the classes are characters, which a flip would change; shifts and small turns do not"
    if settled(planner.recipe.image.channels) == 1 and settled(planner.recipe.image.size) <= 32:
        return "clothes", "small grey pictures bear a mirror and a shift of one pixel, and not much more"
    return "objects", "a mirrored, shifted or partly covered object is still that object"


def _choose_optimisation(planner: Planner) -> None:
    count = planner.train_count
    batch = int(np.clip(8 * round(count / 20 / 8), 16, 256)) if count >= 16 else 8
    batch = 2 ** int(math.log2(batch))
    planner.choose(
        "train.batch", batch, f"about 20 steps an epoch with {count:,} training images, at most 256", images=count
    )
    batch = settled(planner.recipe.train.batch)
    rate = round(0.4 * math.sqrt(batch / 256), 3)
    options = {"rate": rate, "momentum": 0.9, "weight_decay": 5e-4}
    planner.choose(
        "train.optimizer",
        {"name": "sgd", "options": options},
        f"Nesterov SGD, whose rate of 0.4 at batch 256 is scaled with the root of the batch to {rate}",
    )
    planner.choose(
        "train.schedule", {"name": "one-cycle", "options": {}}, "reaches a given accuracy in the fewest epochs"
    )
    planner.choose(
        "train.label_smoothing", 0.1 if len(planner.dataset.classes) > 2 else 0.0, "keeps confidences moderate"
    )


def _choose_precision(planner: Planner, model: nn.Module) -> float:
    """Measure what may be chosen, choose the fastest, and return its seconds per step."""
    train = planner.recipe.train
    precisions: list[Precision] = [train.precision] if train.precision != "auto" else ["float32", "bfloat16"]
    layouts: list[Layout] = [train.memory_format] if train.memory_format != "auto" else ["contiguous", "channels_last"]
    ways: list[tuple[Precision, Layout]] = [(precision, layout) for precision in precisions for layout in layouts]
    speeds = measure_steps(
        model,
        build_task(planner.recipe),
        lambda own: build_optimizer(planner.recipe, own),
        build_augment(planner.recipe),
        shape=_shape(planner.recipe),
        outputs=len(planner.dataset.classes),
        batch_size=min(settled(train.batch), GROUP * math.ceil(planner.train_count / GROUP)),
        ways=ways,
    )
    plain, best = speeds[0], min(speeds, key=lambda speed: speed.seconds_per_step)
    gain = plain.seconds_per_step / best.seconds_per_step
    if gain < 1.1:  # nothing that is worth leaving the plain way for
        best, gain = plain, 1.0
    measured = {f"{speed.precision}_{speed.layout}_ms": round(speed.seconds_per_step * 1e3, 2) for speed in speeds}
    why = (
        f"measured {gain:.1f} times as fast as {plain.precision}, {plain.layout}"
        if best is not plain
        else "nothing else was faster by a tenth"
    )
    planner.choose("train.precision", best.precision, why, **measured)
    planner.choose("train.memory_format", best.layout, why)
    return best.seconds_per_step


def _choose_length(planner: Planner, seconds_per_step: float, prediction: float, elapsed: float) -> int:
    """Resolve epochs or budget into steps, and return how many are expected; a budget fixes them after warm-up."""
    train = planner.recipe.train
    count = planner.train_count
    per_epoch = steps_per_epoch(count, settled(train.batch))
    if train.steps is not None:
        steps = train.steps
        planner.choices.append(Choice("train.steps", steps, "as asked", given=True))
    elif train.budget is not None:
        left = train.budget - elapsed - closing_seconds(planner.dataset, prediction)
        steps = int(left / seconds_per_step)
        _check_budget(planner, steps, per_epoch, seconds_per_step, elapsed)
        reason = "what fits the budget at the measured speed; fixed once warm-up has shown the real one"
        planner.choices.append(Choice("train.steps", None, reason, {"steps_expected": steps}))
    else:
        epochs = int(np.clip(round(75 * (1250 / count) ** 0.4), 10, 120))
        planner.choose("train.epochs", epochs, f"small sets need more passes: {count:,} training images", images=count)
        steps = (settled(planner.recipe.train.epochs) or 0) * per_epoch
        planner.recipe = planner.recipe.updated({"train.steps": steps})
    if planner.recipe.train.epochs == "auto":  # the steps rule
        planner.recipe = planner.recipe.updated({"train.epochs": None})
    _choose_rhythm(planner, steps, per_epoch, seconds_per_step, prediction)
    return steps


def _choose_rhythm(planner: Planner, steps: int, per_epoch: int, seconds_per_step: float, prediction: float) -> None:
    """What follows from the number of steps: warm-up, averaging, how often to report, to look at tune, and to save."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    planner.choose("train.warmup_steps", warmup, f"{WARMUP_SHARE:.0%} of the steps, rising to the peak rate")
    horizon = max(10, min(steps // 20, 4 * per_epoch))
    decay = round(1 - 1 / horizon, 5)
    planner.choose("train.average", decay, f"the weights used are averaged over about the last {horizon} steps")
    every = max(1, min(per_epoch, round(1.0 / seconds_per_step)))
    planner.choose("train.report_every", every, "about once a second")
    tune = max(
        per_epoch,
        math.ceil(steps / 20),
        math.ceil(10 * prediction * len(planner.dataset.indices("tune")) / seconds_per_step),
    )
    planner.choose("train.tune_every", tune, "at most 20 times, and at most a tenth of the time")
    save = max(1, min(steps, round(20.0 / seconds_per_step)))
    planner.choose("train.checkpoint_every", save, "about every 20 seconds")


def _check_budget(planner: Planner, steps: int, per_epoch: int, seconds_per_step: float, elapsed: float) -> None:
    if steps >= per_epoch:
        return
    budget = planner.recipe.train.budget or 0.0
    needed = budget + (per_epoch - steps) * seconds_per_step
    raise UsageError(
        f"A budget of {budget:.0f} s leaves no time for one pass over the {planner.train_count:,} training images "
        f"({elapsed:.0f} s went into starting and planning, and the report needs its share).",
        mend=f"Give at least {math.ceil(needed * 1.1)} s, or fewer images with --limit.",
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
    memory = 4 * weights + activation_bytes(model, _shape(recipe), settled(recipe.train.batch)) + images
    estimate = {
        "seconds": round(total if recipe.train.steps else recipe.train.budget or total, 1),
        "training_seconds": round(training, 1),
        "prediction_seconds_per_image": prediction,
        "memory_bytes": int(memory),
        "disk_bytes": run_bytes(
            weights=weights, predicted=final_images(planner.dataset), classes=len(planner.dataset.classes)
        ),
        "parameters": weights // 4,
        "steps": steps,
        "images_per_second": round(settled(recipe.train.batch) / seconds_per_step, 1),
    }
    return Plan(recipe, tuple(planner.choices), estimate)


def _shape(recipe: Recipe) -> tuple[int, int, int]:
    return settled(recipe.image.channels), settled(recipe.image.size), settled(recipe.image.size)


def _shown(value: Any) -> Any:
    if isinstance(value, Named):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping) and "name" in value:
        options = ", ".join(f"{key} {item}" for key, item in value.get("options", {}).items())
        return f"{value['name']} ({options})" if options else value["name"]
    return list(value) if isinstance(value, tuple) else value
