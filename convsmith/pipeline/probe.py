"""The linear probe: what a linear classifier makes of features that nobody trained for these images.

It is the baseline beside every result, the head from which fine-tuning begins, and, fitted to shares of the training
images, the answer to whether more of them would help. Where a network starts from nothing, the features are the pixels
themselves, made small.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from convsmith.batches import Normalize
from convsmith.evaluation import Answers, Predictions, judge, metrics
from convsmith.evidence import View, frozen_features
from convsmith.images import RULES, decoder
from convsmith.networks import find_head, set_head
from convsmith.pipeline.build import OWN
from convsmith.pipeline.messages import Listener, Message
from convsmith.pipeline.preparing import Prepared
from convsmith.recipe import Recipe, settled
from convsmith.run_folder import RunFolder
from convsmith.tasks import class_weights
from convsmith.training import LinearHead, fit_head

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
PIXEL_SIDE = 16
PIXEL_TRAIN = 10_000
"""Training images at the most for the probe of pixels, which has to cost seconds even where there are a million."""


@dataclass(frozen=True)
class Features:
    """What a linear head is fitted on.

    Args:
        views: float32 `[V, N, D]` for all images of the data set; the first view is the image as it is.
        names: of the views.
        says: what they are, in words.
        seconds: they took.
    """

    views: Tensor
    names: tuple[str, ...]
    says: str
    seconds: float


def probe_network(
    run: RunFolder, model: nn.Module, recipe: Recipe, prepared: Prepared, images: np.ndarray, tell: Listener
) -> None:
    """Fit a head on the network's frozen features, put it into the network, and leave the probe's records."""
    tell(Message("stage", "Computing frozen features"))
    head = find_head(model, images.shape[1:])
    started = time.monotonic()
    views: tuple[View, ...] = ("image",) if recipe.augment.symmetry == "none" else ("image", "mirror")
    computed = frozen_features(
        model, head, images,
        prepare=Normalize(settled(recipe.image.mean), settled(recipe.image.std)),
        views=views,
        precision=_precision(recipe),
        identity=_identity(run, recipe, prepared),
        progress=lambda done, total: tell(Message("stage", "Frozen features", {"done": done, "total": total})),
        note=lambda text: tell(Message("note", text)),
    )  # fmt: skip
    says = "a linear classifier on frozen features of the same network"
    features = Features(torch.from_numpy(computed), views, says, time.monotonic() - started)
    fitted = _probe(run, features, recipe, prepared, tell)
    place = next(model.parameters()).device
    set_head(model, head, fitted.weight.to(place), fitted.bias.to(place))


def _precision(recipe: Recipe) -> Literal["float32", "bfloat16"]:
    """That in which the network will be trained; where nothing is, the head is the result and gets exact features."""
    return "float32" if recipe.transfer.mode == "probe" else settled(recipe.train.precision)


def probe_pixels(run: RunFolder, recipe: Recipe, prepared: Prepared, images: np.ndarray, tell: Listener) -> None:
    """The same for a network that starts from nothing: a linear classifier on the pixels, to compare with."""
    started = time.monotonic()
    features = Features(
        torch.from_numpy(small_pixels(images))[None],
        ("image",),
        f"a linear classifier on the pixels, reduced to {min(PIXEL_SIDE, images.shape[-1])} px a side",
        time.monotonic() - started,
    )
    _probe(run, features, recipe, prepared, tell)


def small_pixels(images: np.ndarray) -> np.ndarray:
    """Pixels uint8 `[N, C, H, W]` averaged over blocks to at most `PIXEL_SIDE` a side, float32 `[N, D]` in 0 to 1."""
    side = min(PIXEL_SIDE, images.shape[-1])
    parts = []
    for start in range(0, len(images), 512):
        share = torch.from_numpy(np.array(images[start : start + 512])).float().div_(255)
        parts.append(nn.functional.adaptive_avg_pool2d(share, side).flatten(1))
    return torch.cat(parts).numpy()


def _probe(run: RunFolder, features: Features, recipe: Recipe, prepared: Prepared, tell: Listener) -> LinearHead:
    """Fit on train, choose the decay on tune, answer tune and test, and write it all down."""
    dataset = prepared.dataset
    started = time.monotonic()
    train = _capped(dataset.indices("train"), None if recipe.weights.source else PIXEL_TRAIN)
    head = _fitted(features, prepared, train, recipe, recipe.transfer.decays)
    record: dict[str, Any] = {
        "schema": 1,
        "says": features.says,
        "model": recipe.model.name if not isinstance(recipe.model, str) else recipe.model,
        "weights": recipe.weights.source,
        "features": features.views.shape[-1],
        "images": len(train),
        "decay": head.decay,
        "views": list(features.names),
        "seconds": {"features": round(features.seconds, 2), "head": round(time.monotonic() - started, 2)},
    }
    for role in ("tune", "test"):
        answers = _answers(head, features, prepared, role)
        answers.save(run.predictions / f"probe-{role}.npz")
        record[role] = {"n": len(answers.arrays["ids"]), **_figures(answers)}
    run.write_json("probe.json", record)
    value = record["test"]["accuracy"]["value"]
    tell(Message("stage", f"The linear probe names {value:.1%} of the test images rightly"))
    if recipe.weights.source is not None:
        _learning_curve(run, features, recipe, prepared, head)
    return head


def _figures(answers: Answers) -> dict[str, Any]:
    """Accuracy and log loss with their intervals; the other figures would take longer than fitting the head."""
    given = Predictions.of(answers)
    return {
        "accuracy": metrics.accuracy(given.targets, given.predicted, groups=answers.groups).to_json(),
        "log_loss": metrics.log_loss(given.logits.astype(np.float64), given.targets, groups=answers.groups).to_json(),
    }


def _fitted(
    features: Features, prepared: Prepared, train: np.ndarray, recipe: Recipe, decays: Sequence[float]
) -> LinearHead:
    dataset = prepared.dataset
    views = len(features.views)
    targets = torch.from_numpy(dataset.targets)
    tune = dataset.indices("tune")
    weights = None
    if recipe.train.balance != "none":
        counts = np.bincount(dataset.targets[train], minlength=len(dataset.classes)).tolist()
        weights = torch.tensor(class_weights(counts))[targets[train]].repeat(views)
    return fit_head(
        features.views[:, train].flatten(0, 1),
        targets[train].repeat(views),
        len(dataset.classes),
        decays=decays,
        tune=(features.views[0, tune], targets[tune]) if len(decays) > 1 else None,
        weights=weights,
    )


def _answers(head: LinearHead, features: Features, prepared: Prepared, role: str) -> Answers:
    """The probe's logits for the images of one role, from the view that is no mirror."""
    dataset, indices = prepared.dataset, prepared.dataset.indices(role)
    assert dataset.hashes is not None
    arrays = {
        "logits": head(features.views[0, indices]).numpy(),
        "ids": np.array([dataset.ids[index] for index in indices], np.str_),
        "targets": dataset.targets[indices],
        "pixels": dataset.hashes[indices],
    }
    groups = tuple(dataset.groups[index] for index in indices)
    return Answers(arrays, dataset.classes, role, None, groups if any(groups) else None)


def _learning_curve(run: RunFolder, features: Features, recipe: Recipe, prepared: Prepared, whole: LinearHead) -> None:
    """Fit the head to an eighth, a quarter and a half of the training images, and say what the rest brought (E9)."""
    dataset = prepared.dataset
    train = dataset.indices("train")
    points, answered, groups = [], [], None
    for share in SHARES:
        chosen = nested_share(train, dataset.targets[train], share)
        head = whole if share == 1.0 else _fitted(features, prepared, chosen, recipe, (whole.decay,))
        answers = _answers(head, features, prepared, "test")
        predictions = Predictions.of(answers)
        points.append({"share": share, "images": len(chosen), "accuracy": _figures(answers)["accuracy"]})
        answered.append(predictions)
        groups = answers.groups
    says, rising = judge(points, answered, groups)
    run.write_json(
        "learning_curve.json",
        {"schema": 1, "method": features.says, "points": points, "says": says, "rising": rising},
    )


def nested_share(indices: np.ndarray, targets: np.ndarray, share: float) -> np.ndarray:
    """The first `share` of each class's images, at least one, in an order that shares of one set have in common."""
    kept = []
    for target in np.unique(targets):
        own = np.random.default_rng(int(target)).permutation(indices[targets == target])
        kept.append(own[: max(1, math.ceil(share * len(own)))])
    return np.sort(np.concatenate(kept))


def _capped(indices: np.ndarray, most: int | None) -> np.ndarray:
    return (
        indices if most is None or len(indices) <= most else indices[np.linspace(0, len(indices) - 1, most).astype(int)]
    )


def _identity(run: RunFolder, recipe: Recipe, prepared: Prepared) -> str:
    """What features depend on: network, weights, what is done to pixels, and the pictures in their order.

    The way they are computed counts to the last bit, too: a run that is repeated where they are no longer kept must
    come to the same head.
    """
    dataset, image, manifest = prepared.dataset, recipe.image, run.read_json("manifest.json")
    code = manifest["model"]["code_sha256"] or (run.path.resolve() if manifest["model"]["name"] == OWN else None)
    assert dataset.hashes is not None
    contents = hashlib.sha256(np.ascontiguousarray(dataset.hashes).data).hexdigest()
    return "\n".join(
        str(part)
        for part in (
            recipe.model,
            recipe.network,
            recipe.weights.sha256,
            code,
            image.model_dump(),
            RULES,
            decoder(),
            recipe.data.channels,
            contents,
            recipe.train.device,
            _precision(recipe),
            recipe.train.memory_format,
            *(manifest[key] for key in ("versions", "accelerator", "threads", "instruction_set")),
        )
    )
