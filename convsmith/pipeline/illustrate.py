"""The pictures of a report, left as records: mistakes, usual cases, cells of the confusion matrix, where it looked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import nn

from convsmith.batches import Normalize
from convsmith.errors import UsageError
from convsmith.evaluation import Answers, Predictions, cells, softmax
from convsmith.evidence import leave_maps, leave_thumbnails
from convsmith.images import Dataset
from convsmith.run_folder import RunFolder

SHOWN_MISTAKES = 24
SHOWN_RIGHT = 12
PER_CELL = 6
PAIRS_SHOWN = 12
MAPPED_WRONG, MAPPED_RIGHT = 8, 4
LEAST_MAPPED = 32
"""Pixels a side: on smaller images the last maps are a few blocks, which show nothing."""


def illustrate(
    run: RunFolder,
    model: nn.Module,
    dataset: Dataset,
    images: np.ndarray,
    normalize: Normalize,
    splits: Mapping[str, Any],
) -> None:
    """Keep small copies of what the report shows, so that it can be rebuilt when the originals are gone.

    Args:
        run: its folder, with the predictions in it.
        model: as it predicted.
        dataset: the originals.
        images: evaluation pixels of all of them, uint8 `[N, C, H, W]`.
        normalize: from these to what the network takes.
        splits: of results.json.
    """
    split = next((role for role in ("test", "tune") if role in splits), None)
    answers = Answers.load(run.predictions / f"{split}.npz") if split else None
    if split is None or answers is None or "logits" not in answers.arrays:  # a task whose images have no one name
        run.write_json("evidence/examples.json", {"examples": []})
        leave_thumbnails(run, dataset, alike(run.read_json("audit.json"), PAIRS_SHOWN))
        return
    predictions = Predictions.of(answers)
    examples = right_examples(predictions)
    mistakes = splits[split].get("mistakes", ())[:SHOWN_MISTAKES]
    wrong_cells = cells(predictions, PER_CELL)
    run.write_json("evidence/examples.json", {"examples": examples})
    run.write_json("evidence/cells.json", {"cells": wrong_cells})
    shown = [item["id"] for item in (*mistakes, *examples)]
    shown += alike(run.read_json("audit.json"), PAIRS_SHOWN)
    leave_thumbnails(run, dataset, [*shown, *(name for cell in wrong_cells for name in cell["ids"])])
    mapped = [item["id"] for item in (*mistakes[:MAPPED_WRONG], *examples[:MAPPED_RIGHT])]
    if mapped and images.shape[-1] >= LEAST_MAPPED:
        row = {name: index for index, name in enumerate(dataset.ids)}
        with contextlib.suppress(UsageError):  # a network without maps, such as a transformer, has nowhere to look
            leave_maps(run, model, normalize, images[[row[name] for name in mapped]], mapped, predictions)


def alike(audit: Mapping[str, Any], most: int) -> Iterator[str]:
    """The images of pairs that are alike, leaks first; at most so many pairs."""
    pairs = [*(audit.get("leaks") or ()), *(audit.get("near_duplicates") or ())][:most]
    yield from dict.fromkeys(pair[side] for pair in pairs for side in ("first", "second"))


def right_examples(predictions: Predictions) -> list[dict[str, Any]]:
    """Of each class the image that was named rightly with the median confidence: a usual one, not the best."""
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
