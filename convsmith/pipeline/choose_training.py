"""How the network is trained: augmentation, balance, optimiser, precision, length and rhythm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from convsmith.batches import GROUP, PRESETS, steps_per_epoch, symmetric
from convsmith.errors import UsageError
from convsmith.pipeline.build import build_augment, build_optimizer, build_task
from convsmith.pipeline.choose_network import manner
from convsmith.pipeline.closing import closing_seconds
from convsmith.pipeline.measure import Layout, Precision, Speed, measure_steps
from convsmith.pipeline.origin import Origin
from convsmith.pipeline.planner import Planner
from convsmith.recipe import Named, settled

WARMUP_SHARE = 0.2
NEAR = 1.1
FEW_STEPS, GENTLE = 50, 3e-4
"""Steps below which fine-tuning takes at most this rate: 20 at 1e-3 end far below the head that they began with."""
UNBALANCED = 3.0
"""Times as many images in the largest class as in the smallest, from which on the loss makes up for it."""
BLEND = 0.5
SIDES = {"left", "right", "links", "rechts", "port", "starboard", "clockwise", "anticlockwise", "counterclockwise"}


def choose_augmentation(planner: Planner, origin: Origin | None = None) -> None:
    """Resolve the section `augment`.

    Args:
        origin: the weights the network starts from, which know how large things were where they learnt them.
    """
    recipe = planner.recipe
    if recipe.augment.operations is not None:
        names = ", ".join(operation.name for operation in recipe.augment.operations) or "nothing"
        planner.say("augment.operations", names, "as asked", given=True)
        planner.recipe = recipe.updated({"augment.symmetry": _kept(recipe.augment.symmetry)})
        return
    planner.choose("augment.preset", *_preset(planner))
    planner.choose("augment.symmetry", *_symmetry(planner))
    augment = planner.recipe.augment
    operations = PRESETS[augment.preset]
    if augment.preset != "none":  # no augmentation means none
        operations = symmetric(operations, settled(augment.symmetry))
    if origin is not None and origin.keep < 1 and not origin.fixed_size:
        operations = tuple(_sized(planner, operation, origin.keep) for operation in operations)
    planner.recipe = planner.recipe.updated({"augment.operations": operations})


def _sized(planner: Planner, operation: Mapping[str, Any], keep: float) -> Mapping[str, Any]:
    """A crop shows things larger than the whole picture does, so it is made smaller by as much (Touvron 2019)."""
    if operation["name"] != "crop":
        return operation
    size = settled(planner.recipe.image.size)
    side = max(32, 32 * round(size * keep / 32))
    why = f"crops enlarge things, which whole pictures of {size} px show as large"
    planner.say("augment.operations", f"crops of {side} px", why)
    return {**operation, "options": {**operation.get("options", {}), "size": side}}


def _kept(symmetry: str) -> str:
    """Operations that were given hold what mirrors they hold; `none` keeps frozen features to one view."""
    return "none" if symmetry == "auto" else symmetry


def _preset(planner: Planner) -> tuple[str, str]:
    names, size = planner.dataset.classes, settled(planner.recipe.image.size)
    if all(len(name) <= 2 and name.isalnum() for name in names):
        return "digits", "the classes are characters, which a flip would change; shifts and small turns do not"
    if settled(planner.recipe.image.channels) == 1 and size <= 32:
        return "clothes", "small grey pictures bear a mirror and a shift of one pixel, and not much more"
    if size < 64:
        return "objects", "a mirrored, shifted or partly covered object is still that object"
    if planner.recipe.transfer.mode is None:
        return "photos-strong", "a network without weights learns photos by heart unless it sees them in many forms"
    return "photos", "a photo of another part, in other light, still shows the same"


def _symmetry(planner: Planner) -> tuple[str, str]:
    """Mirrors are taken for granted only where nothing speaks against them; turns never are."""
    preset, names = planner.recipe.augment.preset, planner.dataset.classes
    if preset in ("digits", "documents"):
        return "none", "a mirrored character is another one or none (--symmetry left-right if yours bear it)"
    words = {word for name in names for word in "".join(c if c.isalpha() else " " for c in name.lower()).split()}
    if sides := sorted(words & SIDES):
        return "none", f"the class names tell sides apart ({', '.join(sides)})"
    if preset in ("microscopy", "aerial"):
        return "any", "seen from above, up and down mean nothing"
    return "left-right", "a mirror image is taken to be of the same class; say --symmetry none or any if not so"


def choose_optimisation(planner: Planner) -> None:
    """Resolve balance, batch, optimiser, schedule and label smoothing."""
    _choose_balance(planner)
    count, tuned = planner.train_count, planner.recipe.transfer.mode is not None
    if tuned:
        batch = 32 if count < 5_000 else 64
        planner.choose("train.batch", batch, f"small batches make many steps of {count:,} images", images=count)
        planner.choose(
            "train.optimizer",
            {"name": "adamw", "options": {"rate": manner(count, planner.classes).rate, "weight_decay": 0.05}},
            "fine-tuning: AdamW bears stages whose gradients differ by far; fewer images make fewer and longer steps",
        )
        planner.choose("train.schedule", {"name": "cosine", "options": {}}, "rises gently, ends slowly")
        planner.choose("train.label_smoothing", 0.0, "the linear head's confidences are already moderate")
        return
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
    planner.choose("train.label_smoothing", 0.1 if planner.classes > 2 else 0.0, "keeps confidences moderate")


def bear_few_steps(planner: Planner, steps: int) -> None:
    """Lower the rate of a fine-tuning that is too short to mend what the usual one unsettles first (LOG.md)."""
    optimizer = planner.recipe.train.optimizer
    chosen = [choice for choice in planner.choices if choice.name == "train.optimizer"]
    if planner.recipe.transfer.mode != "finetune" or steps >= FEW_STEPS or chosen[0].given:
        return
    assert isinstance(optimizer, Named)
    if float(optimizer.options["rate"]) > GENTLE:  # pyright: ignore[reportArgumentType]
        gentle = {"name": optimizer.name, "options": {**optimizer.options, "rate": GENTLE}}
        planner.choices.remove(chosen[0])
        planner.recipe = planner.recipe.updated({"train.optimizer": "auto"})
        planner.choose("train.optimizer", gentle, f"fine-tuning for {steps} steps alone, which bears no higher rate")


def _choose_balance(planner: Planner) -> None:
    present = [count for count in planner.train_counts if count]
    ratio = max(present) / min(present)
    if ratio < UNBALANCED:
        planner.choose("train.balance", "none", f"the largest class has {ratio:.1f} times the smallest: near enough")
    else:
        why = f"the largest class has {ratio:.0f} times the smallest: the loss weighs each class alike"
        planner.choose("train.balance", "weights", why, largest_to_smallest=round(ratio, 1))


def choose_precision(planner: Planner, model: nn.Module) -> float:
    """Measure what may be chosen, choose the fastest, and return its seconds per step."""
    train = planner.recipe.train
    precisions: list[Precision] = [train.precision] if train.precision != "auto" else ["float32", "bfloat16"]
    layouts: list[Layout] = [train.memory_format] if train.memory_format != "auto" else ["contiguous", "channels_last"]
    ways: list[tuple[Precision, Layout]] = [(precision, layout) for precision in precisions for layout in layouts]
    speeds = measure_steps(
        model,
        build_task(planner.recipe, planner.train_counts),
        lambda own: build_optimizer(planner.recipe, own),
        build_augment(planner.recipe, planner.classes),
        shape=planner.shape,
        outputs=planner.classes,
        batch_size=min(settled(train.batch), GROUP * math.ceil(planner.train_count / GROUP)),
        ways=ways,
    )
    plain, fastest = speeds[0], min(speed.seconds_per_step for speed in speeds)
    # Of ways that differ by less than measuring does: exact before rounded, then what is faster without gradients, too.
    level = [speed for speed in speeds if speed.seconds_per_step < NEAR * fastest]
    best = plain if plain in level else min(level, key=_preference)
    gain = plain.seconds_per_step / best.seconds_per_step
    measured = {f"{speed.precision}_{speed.layout}_ms": round(speed.seconds_per_step * 1e3, 2) for speed in speeds}
    why = (
        f"measured {gain:.1f} times as fast as {plain.precision}, {plain.layout}"
        if best is not plain
        else "nothing else was faster by a tenth"
    )
    planner.choose("train.precision", best.precision, why, **measured)
    planner.choose("train.memory_format", best.layout, why)
    return best.seconds_per_step


def _preference(speed: Speed) -> tuple[bool, bool]:
    return speed.precision != "float32", speed.layout != "channels_last"


def choose_length(planner: Planner, seconds_per_step: float, prediction: float, elapsed: float) -> int:
    """Resolve epochs or budget into steps, and return how many are expected; a budget fixes them after warm-up."""
    train = planner.recipe.train
    count = planner.train_count
    per_epoch = steps_per_epoch(count, settled(train.batch))
    if planner.recipe.transfer.mode == "probe":
        steps = 0
        planner.say("train.steps", 0, "the linear head needs no training loop")
        planner.recipe = planner.recipe.updated({"train.steps": 0, "train.budget": None, "train.epochs": None})
    elif train.steps is not None:
        steps = train.steps
        planner.say("train.steps", steps, "as asked", given=True)
    elif train.budget is not None:
        left = train.budget - elapsed - closing_seconds(planner.dataset, prediction)
        steps = int(left / seconds_per_step)
        _check_budget(planner, steps, per_epoch, seconds_per_step, elapsed)
        reason = "what fits the budget at the measured speed; fixed once warm-up has shown the real one"
        planner.say("train.steps", None, reason, steps_expected=steps)
    else:
        epochs, why = _epochs(planner)
        planner.choose("train.epochs", epochs, why, images=count)
        steps = (settled(planner.recipe.train.epochs) or 0) * per_epoch
        planner.recipe = planner.recipe.updated({"train.steps": steps})
    if planner.recipe.train.epochs == "auto":  # the steps rule
        planner.recipe = planner.recipe.updated({"train.epochs": None})
    _choose_rhythm(planner, steps, per_epoch, seconds_per_step, prediction)
    return steps


def _epochs(planner: Planner) -> tuple[int, str]:
    count = planner.train_count
    if planner.recipe.transfer.mode is not None:
        epochs = int(np.clip(round(10 * (1000 / count) ** 0.3), 3, 15))
        return epochs, f"fine-tuning {count:,} images: weights that know photographs need few passes"
    epochs = int(np.clip(round(75 * (1250 / count) ** 0.4), 10, 120))
    return epochs, f"small sets need more passes: {count:,} training images"


def _choose_rhythm(planner: Planner, steps: int, per_epoch: int, seconds_per_step: float, prediction: float) -> None:
    """What follows from the number of steps: warm-up, averaging, how often to report, to look at tune, and to save."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    planner.choose("train.warmup_steps", warmup, f"{WARMUP_SHARE:.0%} of the steps, rising to the peak rate")
    horizon = max(10, min(steps // 20, 4 * per_epoch))
    decay = round(1 - 1 / horizon, 5)
    planner.choose("train.average", decay, f"the weights used are averaged over about the last {horizon} steps")
    _choose_blend(planner)
    every = max(1, min(per_epoch, round(1.0 / seconds_per_step)))
    planner.choose("train.report_every", every, "about once a second")
    tune = max(
        per_epoch,
        math.ceil(steps / 20),
        math.ceil(10 * prediction * len(planner.dataset.indices("tune")) / seconds_per_step),
    )
    planner.choose("train.tune_every", tune, "at most 20 times, and at most a tenth of the time")
    save = max(1, min(max(1, steps), round(20.0 / seconds_per_step)))
    planner.choose("train.checkpoint_every", save, "about every 20 seconds")


def _choose_blend(planner: Planner) -> None:
    """Few images teach little and spoil much: half of what fine-tuning changed is kept."""
    train, transfer = planner.recipe.train, planner.recipe.transfer
    if transfer.mode != "finetune" or train.average is None or not transfer.frozen_norms:
        planner.recipe = planner.recipe.updated({"train.blend": 1.0 if train.blend == "auto" else train.blend})
        return
    why = "the weights used lie half-way between the linear head's network and the fine-tuned one, which forgets less"
    planner.choose("train.blend", BLEND, why)


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
