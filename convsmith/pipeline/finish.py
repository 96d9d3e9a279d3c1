"""From a trained network to its report: predictions, results, findings, pictures, the page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from convsmith.batches import Normalize
from convsmith.evaluation import Predictions, commonest_class, fit_temperature, paired_gain
from convsmith.evidence import predict
from convsmith.images import Dataset, pixel_hash
from convsmith.pipeline.closing import train_sample
from convsmith.pipeline.illustrate import illustrate
from convsmith.pipeline.messages import Listener, Message
from convsmith.pipeline.preparing import Prepared
from convsmith.recipe import Recipe, settled
from convsmith.reporting import write_report
from convsmith.run_folder import EventLog, RunFolder
from convsmith.tasks import Answers, Task


def finish(
    run: RunFolder,
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    prepared: Prepared,
    images: np.ndarray,
    log: EventLog,
    tell: Listener,
    started: float,
) -> None:
    """Leave everything a finished run has. Repeating it gives the same records.

    Args:
        run: its folder.
        model: with the weights that will be used.
        task: says how to predict and score.
        recipe: resolved.
        prepared: the images.
        images: their evaluation pixels, uint8 `[N, C, H, W]`.
        log: open; gets the last record.
        tell: who listens.
        started: when the command began, by `time.monotonic`.
    """
    dataset = prepared.dataset
    normalize = Normalize(settled(recipe.image.mean), settled(recipe.image.std))
    majority = commonest_class(dataset.counts())
    answered: dict[str, Answers] = {}
    for role in ("train", "tune", "test"):
        indices = sampled(dataset.indices(role), train_sample(dataset) if role == "train" else None)
        if len(indices):
            tell(Message("stage", f"Predicting the {role} images"))
            answers = answer(model, task, dataset, indices, images, normalize, split=role, majority=majority)
            if role != "train":
                answers = replace(answers, arrays={**answers.arrays, **facts(prepared, indices, role)})
            answered[role] = answers
    splits: dict[str, Any] = {}
    for role, answers in calibrate(run, answered).items():
        answers.save(run.predictions / f"{role}.npz")
        splits[role] = task.score(answers)
    run.write_json("results.json", {"schema": 1, "task": task.name, "splits": splits})
    compare_with_probe(run, recipe)
    tell(Message("stage", "Writing the report"))
    illustrate(run, model, dataset, images, normalize, splits)
    log.append("finished", values={"seconds": {"total": round(time.monotonic() - started, 1)}})
    write_report(run)
    tell(Message("finished", str(run.report), {"run": run}))


def calibrate(run: RunFolder, answered: Mapping[str, Answers]) -> Mapping[str, Answers]:
    """Fit a temperature to the answers for tune, write `calibration.json`, and put it beside all answers by role.

    Answers of a task without one logit for each class are left as they are, and so are those of a broken network.
    """
    (run.path / "calibration.json").unlink(missing_ok=True)
    tune = answered["tune"].arrays if "tune" in answered else {}
    logits, targets = tune.get("logits"), tune.get("targets")
    if logits is None or targets is None or logits.ndim != 2 or targets.ndim != 1 or not np.isfinite(logits).all():
        return answered
    found = fit_temperature(logits, targets)
    value = round(found.value, 4)
    record = {"schema": 1, "method": "temperature", "temperature": value, "split": "tune", "images": found.images}
    run.write_json("calibration.json", {**record, "log_loss": {"before": found.before, "after": found.after}})
    return {role: with_temperature(answers, value) for role, answers in answered.items()}


def with_temperature(answers: Answers, temperature: float) -> Answers:
    """Answers whose logits stand beside what they are divided by, for each image."""
    return replace(answers, arrays={**answers.arrays, "temperature": np.full(len(answers.arrays["ids"]), temperature)})


def facts(prepared: Prepared, indices: np.ndarray, role: str) -> dict[str, np.ndarray]:
    """What else scoring may use of each image: how bright, sharp, large and wide it is, and whether it leaked."""
    dataset = prepared.dataset
    found: dict[str, np.ndarray] = {}
    if dataset.scan is not None:
        height, width = (dataset.scan.shapes[indices, axis].astype(np.float64) for axis in (0, 1))
        found = {
            "brightness": dataset.scan.brightness[indices], "sharpness": dataset.scan.sharpness[indices],
            "size": height * width, "aspect": width / height,
        }  # fmt: skip
    leaked = set(leaked_ids(prepared.audit, role))
    if leaked:
        found["leaked"] = np.array([dataset.ids[index] in leaked for index in indices])
    return found


def leaked_ids(audit: Mapping[str, Any], role: str) -> list[str]:
    """The images of a role that also stand, equal or nearly so, in another one."""
    named = [(leak[side], leak[f"{side}_role"]) for leak in audit.get("leaks") or () for side in ("first", "second")]
    return list(dict.fromkeys(name for name, own in named if own == role))


def compare_with_probe(run: RunFolder, recipe: Recipe) -> None:
    """Write into the probe's record how far the network surpasses it, on the same images."""
    if not (run.has("probe.json") and (run.predictions / "probe-test.npz").exists()):
        return
    final = Answers.load(run.predictions / "test.npz")
    gain = None
    if recipe.transfer.mode != "probe":  # which is itself the network
        probe = Answers.load(run.predictions / "probe-test.npz")
        gain = paired_gain(Predictions.of(final), Predictions.of(probe), final.groups).to_json()
    run.write_json("probe.json", {**run.read_json("probe.json"), "gain": gain})


def answer(
    model: nn.Module,
    task: Task,
    dataset: Dataset,
    indices: np.ndarray,
    images: np.ndarray,
    normalize: Normalize,
    *,
    split: str,
    majority: int | None,
) -> Answers:
    """Predict some images and bind the answers to ids, targets and the hashes of the pixels that were seen.

    Args:
        indices: which images of `dataset`.
        images: the evaluation pixels of all its images, uint8 `[N, C, H, W]`.
        split: what to call them.
        majority: the commonest class of the training images, None where there is none.
    """
    chosen = images[indices]
    hashes = b"".join(pixel_hash(image.transpose(1, 2, 0)) for image in chosen)
    arrays = {
        **predict(model, task, chosen, prepare=normalize),
        "ids": np.array([dataset.ids[index] for index in indices], np.str_),
        "targets": dataset.targets[indices],
        "pixels": np.frombuffer(hashes, np.uint8).reshape(len(indices), 32),
    }
    groups = tuple(dataset.groups[index] for index in indices)
    return Answers(arrays, dataset.classes, split, majority, groups if any(groups) else None)


def sampled(indices: np.ndarray, most: int | None) -> np.ndarray:
    """At most `most` of the indices, evenly spaced."""
    if most is None or len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).astype(int)]
