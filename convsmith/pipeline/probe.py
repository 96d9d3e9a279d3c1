"""The linear probe: what a linear classifier makes of features that nobody trained for these images.

It is the baseline beside every result, the head from which fine-tuning begins, and, fitted to shares of the training
images, the answer to whether more of them would help. Fitted at the end of each stage, it shows how general or specific
the features of a network are (Yosinski et al. 2014, "How transferable are features in deep neural networks?"; Alain &
Bengio 2016, "Understanding intermediate layers using linear classifier probes"). Where a network starts from nothing,
the features are the pixels themselves, made small.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from convsmith.batches import Normalize
from convsmith.evaluation import Predictions, judge, paired_gain
from convsmith.evidence import StageEnd, View, frozen_features, stage_ends
from convsmith.images import RULES, decoder
from convsmith.networks import find_head, set_head
from convsmith.pipeline.build import OWN
from convsmith.pipeline.finish import sampled
from convsmith.pipeline.linear import Features, ask, figures, fit
from convsmith.pipeline.messages import Listener, Message
from convsmith.pipeline.preparing import Prepared
from convsmith.recipe import Recipe, settled
from convsmith.run_folder import RunFolder
from convsmith.training import LinearHead

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
PIXEL_SIDE = 16
PIXEL_TRAIN = 10_000
"""Training images at the most for the probe of pixels, which has to cost seconds even where there are a million."""
STAGE_TRAIN = 10_000
"""The same for the probe of a stage, which has to cost little beside the forward passes."""


def probe_network(
    run: RunFolder, model: nn.Module, recipe: Recipe, prepared: Prepared, images: np.ndarray, tell: Listener
) -> None:
    """Fit a head on the network's frozen features, put it into the network, and leave the probe's records."""
    tell(Message("stage", "Computing frozen features"))
    head = find_head(model, images.shape[1:])
    started = time.monotonic()
    views: tuple[View, ...] = ("image",) if recipe.augment.symmetry == "none" else ("image", "mirror")
    ends = stage_ends(model, head, images.shape[1:])
    frozen = frozen_features(
        model, head, images,
        prepare=Normalize(settled(recipe.image.mean), settled(recipe.image.std)),
        views=views,
        ends=ends[:-1],
        precision=_precision(recipe),
        identity=_identity(run, recipe, prepared),
        progress=lambda done, total: tell(Message("stage", "Frozen features", {"done": done, "total": total})),
        note=lambda text: tell(Message("note", text)),
    )  # fmt: skip
    says = "a linear classifier on frozen features of the same network"
    features = Features(torch.from_numpy(frozen.views), views, says, time.monotonic() - started)
    below = [
        (end, Features(torch.from_numpy(averages)[None], ("image",), f"averages of {end.name}", 0.0, frozen.rows))
        for end, averages in zip(ends, frozen.stages, strict=False)
    ]
    fitted = _probe(run, features, recipe, prepared, tell, ends[-1], below)
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


def _probe(
    run: RunFolder,
    features: Features,
    recipe: Recipe,
    prepared: Prepared,
    tell: Listener,
    end: StageEnd | None = None,
    below: Sequence[tuple[StageEnd, Features]] = (),
) -> LinearHead:
    """Fit on train, choose the decay on tune, answer tune and test, and write it all down."""
    dataset = prepared.dataset
    started = time.monotonic()
    train = sampled(dataset.indices("train"), None if recipe.weights.source else PIXEL_TRAIN)
    head = fit(features, dataset, train, recipe, recipe.transfer.decays)
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
        answers = ask(head, features, dataset, dataset.indices(role), role)
        answers.save(run.predictions / f"probe-{role}.npz")
        record[role] = {"n": len(answers.arrays["ids"]), **figures(answers)}
    if end is not None and below:
        started = time.monotonic()
        record["stages"] = _stages(features, head, end, below, recipe, prepared)
        record["seconds"]["stages"] = round(time.monotonic() - started, 2)
    run.write_json("probe.json", record)
    value = record["test"]["accuracy"]["value"]
    tell(Message("stage", f"The linear probe names {value:.1%} of the test images rightly"))
    if recipe.weights.source is not None:
        _learning_curve(run, features, recipe, prepared, head)
    return head


def _stages(
    features: Features,
    head: LinearHead,
    end: StageEnd,
    below: Sequence[tuple[StageEnd, Features]],
    recipe: Recipe,
    prepared: Prepared,
) -> list[dict[str, Any]]:
    """Fit a head at the end of each stage with the decay of the last one, and ask all about the same test images.

    Args:
        features, head, end: what the last layer sees, the head fitted to it, and the stage whose end it is.
        below: the ends of the stages before, and their features.

    Returns:
        For JSON, from the image on; a `gain` is the accuracy less that of the stage before, image by image. All this
        is reported and chooses nothing.
    """
    dataset = prepared.dataset
    first = below[0][1]
    test = first.known(dataset.indices("test"))
    fitted = sampled(first.known(dataset.indices("train")), STAGE_TRAIN)
    asked = [
        (stage, len(fitted), ask(fit(own, dataset, fitted, recipe, (head.decay,)), own, dataset, test, "test"))
        for stage, own in below
    ]
    asked.append((end, len(dataset.indices("train")), ask(head, features, dataset, test, "test")))
    records, before = [], None
    for stage, images, answers in asked:
        given = Predictions.of(answers)
        gain = paired_gain(given, before, answers.groups).to_json() if before is not None else None
        told = {"name": stage.name, "stride": stage.stride, "features": stage.features, "images": images}
        records.append({**told, **figures(answers), "gain": gain})
        before = given
    return records


def _learning_curve(run: RunFolder, features: Features, recipe: Recipe, prepared: Prepared, whole: LinearHead) -> None:
    """Fit the head to an eighth, a quarter and a half of the training images, and say what the rest brought (E9)."""
    dataset = prepared.dataset
    train, test = dataset.indices("train"), dataset.indices("test")
    points, answered, groups = [], [], None
    for share in SHARES:
        chosen = nested_share(train, dataset.targets[train], share)
        head = whole if share == 1.0 else fit(features, dataset, chosen, recipe, (whole.decay,))
        answers = ask(head, features, dataset, test, "test")
        points.append({"share": share, "images": len(chosen), "accuracy": figures(answers)["accuracy"]})
        answered.append(Predictions.of(answers))
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
