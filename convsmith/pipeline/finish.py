"""From a trained network to its report: predictions, results, findings, pictures, the page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from convsmith.batches import Normalize
from convsmith.evaluation import Predictions, commonest_class, softmax
from convsmith.evidence import leave_thumbnails, predict
from convsmith.images import Dataset, pixel_hash
from convsmith.pipeline.messages import Listener, Message
from convsmith.pipeline.plan import TRAIN_SAMPLE
from convsmith.pipeline.prepare import Prepared
from convsmith.recipe import Recipe, settled
from convsmith.reporting import write_report
from convsmith.run_folder import EventLog, RunFolder
from convsmith.tasks import Answers, Task

SHOWN_MISTAKES = 24
SHOWN_RIGHT = 12


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
    splits: dict[str, Any] = {}
    for role in ("train", "tune", "test"):
        indices = sampled(dataset.indices(role), TRAIN_SAMPLE if role == "train" else None)
        if len(indices):
            tell(Message("stage", f"Predicting the {role} images"))
            answers = answer(model, task, dataset, indices, images, normalize, split=role, majority=majority)
            answers.save(run.predictions / f"{role}.npz")
            splits[role] = task.score(answers)
    run.write_json("results.json", {"schema": 1, "task": task.name, "splits": splits})
    tell(Message("stage", "Writing the report"))
    leave_pictures(run, dataset, splits)
    log.append("finished", values={"seconds": {"total": round(time.monotonic() - started, 1)}})
    write_report(run)
    tell(Message("finished", str(run.report), {"run": run}))


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


def leave_pictures(run: RunFolder, dataset: Dataset, splits: Mapping[str, Any]) -> None:
    """Keep small copies of what the report shows: the worst mistakes, and for each class one that it got right."""
    split = next((role for role in ("test", "tune") if role in splits), None)
    examples = right_examples(Answers.load(run.predictions / f"{split}.npz")) if split else []
    run.write_json("evidence/examples.json", {"examples": examples})
    mistakes = splits[split].get("mistakes", ())[:SHOWN_MISTAKES] if split else ()
    leave_thumbnails(run, dataset, [item["id"] for item in (*mistakes, *examples)])


def right_examples(answers: Answers) -> list[dict[str, Any]]:
    """Of each class the image that was named rightly with the median confidence: a usual one, not the best.

    Nothing where the task gives no logits, so that no image has one name.
    """
    if "logits" not in answers.arrays:
        return []
    predictions = Predictions.of(answers)
    probabilities = softmax(predictions.logits).max(axis=1)
    examples = []
    for target in np.unique(predictions.targets)[:SHOWN_RIGHT]:
        hits = np.flatnonzero((predictions.targets == target) & (predictions.predicted == target))
        if len(hits):
            middle = hits[np.argsort(probabilities[hits])[len(hits) // 2]]
            name = predictions.classes[target]
            entry = {"id": str(predictions.ids[middle]), "true": name, "predicted": name}
            examples.append({**entry, "probability": float(probabilities[middle])})
    return examples


def sampled(indices: np.ndarray, most: int | None) -> np.ndarray:
    """At most `most` of the indices, evenly spaced."""
    if most is None or len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).astype(int)]
