"""Which network, what it starts from, and how it is fitted to the user's classes (X1, X2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from convsmith.errors import UsageError
from convsmith.networks import fit_design, stages
from convsmith.pipeline.build import OWN
from convsmith.pipeline.origin import AUTOMATIC, BACKBONE, Origin, find_origin, published
from convsmith.pipeline.planner import Planner
from convsmith.recipe import Named, Recipe, settled

PHOTO = 96
"""Pixels: images in colour whose shorter side is typically at least this long are taken for photographs."""
HUNDREDS, THOUSANDS, TENS_OF_THOUSANDS = 100, 1_000, 10_000
LEAST_PER_CLASS = 8


@dataclass(frozen=True)
class Manner:
    """How weights are fitted to new classes.

    Args:
        mode: `probe` trains the head alone, `finetune` goes on from there with the rest.
        frozen_stages: how many stages, from the image on, stay as they are.
        frozen_norms: whether norms keep the statistics of the weights.
        rate: peak learning rate of AdamW.
        reason: why.
    """

    mode: Literal["probe", "finetune"]
    frozen_stages: int
    frozen_norms: bool
    rate: float
    reason: str


def choose_start(planner: Planner) -> Origin | None:
    """Resolve `model` where it is another's, and `weights`; a design of our own is chosen once the size is known."""
    recipe = planner.recipe
    if recipe.weights.initialisation is not None:
        planner.say("weights.initialisation", recipe.weights.initialisation, "as asked", given=True)
        return _from_scratch(planner, "the weights are to be drawn")
    ours = recipe.network is not None or (isinstance(recipe.model, Named) and not published(recipe.model.name))
    if ours and recipe.weights.source in AUTOMATIC:
        return _from_scratch(planner, "nobody has published weights for this network")
    if recipe.weights.source is None:
        return _from_scratch(planner, "as asked", given=True)
    if recipe.model == "auto" and recipe.network is None and recipe.weights.source in AUTOMATIC:
        if not looks_like_photos(planner):
            return _from_scratch(planner, f"grey or below {PHOTO} px: weights made from photographs would help little")
        why = "photographs: a small network whose published weights know many of them"
        planner.choose("model", {"name": BACKBONE, "options": {}}, why)
    origin = find_origin(planner.recipe)
    assert origin is not None
    if origin.run is not None:
        planner.recipe = _like_run(planner, origin)
    asked = recipe.weights.source not in AUTOMATIC
    planner.say("weights.source", origin.says, "as asked" if asked else "weights that know photographs", given=asked)
    planner.recipe = planner.recipe.updated({"weights.source": origin.source, "weights.sha256": origin.sha256})
    return origin


def choose_network(planner: Planner, origin: Origin | None) -> None:
    """Resolve `model` and `network` where they are still open, and say what was asked for where they are not."""
    recipe = planner.recipe
    if recipe.network is not None:
        given = origin is None or origin.run is None
        planner.say("network", recipe.network.describe(), "as asked" if given else "that of your run", given=given)
        planner.recipe = recipe.updated({"model": "convnet"})
    elif recipe.model != "auto":
        if not any(choice.name == "model" for choice in planner.choices):
            given = origin is None or origin.run is None
            planner.say("model", recipe.model, "as asked" if given else "that of your run", given=given)
    else:
        design, reason = fit_design(
            settled(recipe.image.size), settled(recipe.image.channels), planner.train_count, planner.classes
        )
        planner.recipe = recipe.updated({"model": "convnet", "network": design.model_dump(mode="json")})
        planner.say("network", design.describe(), reason)


def choose_transfer(planner: Planner, origin: Origin | None, model: nn.Module) -> None:
    """Resolve the section `transfer`; `model` says how many stages there are to freeze."""
    if origin is None or planner.recipe.transfer.mode is None:
        rest = {"frozen_stages": 0, "stage_rate": 1.0, "frozen_norms": False, "mode": None}
        planner.recipe = planner.recipe.updated({f"transfer.{key}": value for key, value in rest.items()})
        return
    chosen = manner(planner.train_count, planner.classes)
    planner.choose("transfer.mode", chosen.mode, chosen.reason, images=planner.train_count)
    if planner.recipe.transfer.mode == "probe":
        rest = {"transfer.frozen_stages": 0, "transfer.stage_rate": 1.0, "transfer.frozen_norms": True}
        planner.recipe = planner.recipe.updated(
            {key: value for key, value in rest.items() if planner.value(key) == "auto"}
        )
        return
    amount = f"{planner.train_count:,} training images"
    frozen = min(chosen.frozen_stages, len(stages(model, planner.shape)) - 1)
    planner.choose(
        "transfer.frozen_stages",
        frozen,
        f"edges and colours of the first stages serve any photograph; {amount} would only disturb them"
        if frozen
        else f"{amount} suffice to fit every stage",
    )
    planner.choose("transfer.stage_rate", 1.0, "one rate for all that moves: less near the image was worse in trials")
    planner.choose(
        "transfer.frozen_norms",
        chosen.frozen_norms,
        "small batches of few images would blur the statistics"
        if chosen.frozen_norms
        else f"{amount} give better ones",
    )
    if later := planner.recipe.transfer.unfreeze:
        what = ", ".join(f"{item.stage} from {item.at:.0%} of the steps" for item in later)
        planner.say("transfer.unfreeze", what, "as asked", given=True)


def looks_like_photos(planner: Planner) -> bool:
    """Whether the images are in colour and large enough that weights made from photographs know what is on them."""
    typical = min(planner.audit["sizes"][side]["median"] for side in ("width", "height"))
    return bool(planner.audit["channels"].get("3")) and typical >= PHOTO


def manner(images: int, classes: int) -> Manner:
    """Choose by the amount of data (X2).

    Below a hundred training images, or eight a class, only the linear head is trained: fine-tuning has more to spoil
    than to gain. From hundreds on, fine-tuning begins from that head (LP-FT, Kumar et al. 2022); the more images, the
    more of the network may move. The rate for hundreds was measured (LOG.md); the lower ones beyond allow for the many
    more steps that are made there, and are untried.

    Args:
        images: to train on.
        classes: how many kinds.
    """
    if images < HUNDREDS or images < LEAST_PER_CLASS * classes:
        return Manner("probe", 0, True, 1e-3, f"{images:,} images of {classes} classes are too few to fine-tune safely")
    if images < THOUSANDS:
        return Manner("finetune", 1, True, 1e-3, "hundreds of images: a linear head first, then fine-tuning")
    if images < TENS_OF_THOUSANDS:
        return Manner("finetune", 0, True, 3e-4, "thousands of images: a linear head first, then fine-tuning of all")
    return Manner("finetune", 0, False, 1e-4, "tens of thousands of images: a linear head, then all of it")


def _from_scratch(planner: Planner, reason: str, *, given: bool = False) -> None:
    planner.say("weights.source", None, reason, given=given)
    planner.recipe = planner.recipe.updated({"weights.source": None, "weights.sha256": None})


def _like_run(planner: Planner, origin: Origin) -> Recipe:
    """The recipe with the network of the run that it starts from; another network could not take its weights.

    Raises:
        UsageError: another one was asked for, or theirs is the user's own code, which they have to name again.
    """
    assert origin.run is not None
    recipe, theirs = planner.recipe, origin.run[0]
    assert isinstance(theirs.model, Named)
    asked = recipe.model.name if isinstance(recipe.model, Named) else None
    if theirs.model.name == OWN:
        if asked != OWN:
            raise UsageError(
                f"The network of {origin.says} is your own code, which is never run unasked.",
                mend="Name the file and what in it makes the network: --model FILE.py:NAME.",
            )
        return recipe
    designed = recipe.network is not None
    if recipe.network != theirs.network if designed else recipe.model not in ("auto", theirs.model):
        raise UsageError(
            f"The weights of {origin.says} belong to {_described(theirs)}, and {_described(recipe)} cannot take them.",
            mend="Leave the model out: it follows from the run.",
        )
    network = None if theirs.network is None else theirs.network.model_dump(mode="json")
    return recipe.updated({"model": theirs.model.model_dump(), "network": network})


def _described(recipe: Recipe) -> str:
    if recipe.network is not None:
        return f"the network {recipe.network.describe()}"
    return f"the network {recipe.model.name}" if isinstance(recipe.model, Named) else "another network"
