"""Runs made up for the tests: records as a pipeline would leave them, from confusion matrices and loss curves."""

import math

import numpy as np

from convsmith.diagnosis import Evidence
from convsmith.evaluation import Predictions, evaluate


def measured(table, split="test", majority=0, names=None):
    """The results of a split whose confusion matrix is `table`."""
    table = np.asarray(table)
    k = len(table)
    targets, predicted = (
        np.repeat(part.ravel(), table.ravel()) for part in np.meshgrid(range(k), range(k), indexing="ij")
    )
    logits = np.where(np.arange(k) == predicted[:, None], 3.0, 0.0).astype(np.float32)
    classes = names or tuple(f"kind {i}" for i in range(k))
    ids = [f"{split}/{i:04}" for i in range(len(targets))]
    made = Predictions(np.array(ids), targets, logits, np.zeros((len(ids), 32), np.uint8), classes, split)
    return evaluate(made, majority=majority)


def even(per_class, right, k=5):
    """A table of k classes with `right` of `per_class` images right, the rest spread."""
    wrong, rest = divmod(per_class - right, k - 1)
    table = np.full((k, k), wrong)
    np.fill_diagonal(table, right)
    for row in range(k):
        table[row, (row + 1) % k] += rest
    return table


def results(**tables):
    return {"schema": 1, "task": "classification", "splits": {name: measured(t, name) for name, t in tables.items()}}


def annealed_log(losses, steps_per_record=10, peak=0.3):
    """A one-cycle run: the rate rises to its peak and falls to zero by a cosine; `losses` is a function of progress."""
    count, records = 60, []
    for i in range(1, count + 1):
        t = i / count
        rate = t / peak if t <= peak else (1 + math.cos(math.pi * (t - peak) / (1 - peak))) / 2
        values = {"loss": losses(t), "rate": rate, "images_per_second": 1000.0}
        records.append(
            {"kind": "progress", "epoch": i // 20, "step": i * steps_per_record, "time": 0.0, "values": values}
        )
    return records


def run(
    splits, *, log=(), counts=None, recipe=None, plan=None, audit=None, probe=None, learning_curve=None,
    folder="runs/first", **manifest,
):  # fmt: skip
    return Evidence(
        results=splits,
        log=log,
        plan=plan or {},
        manifest={"data": {"source": "digits", "counts": {"train": counts or {}}}, **manifest},
        recipe=recipe or {"train": {"epochs": 10}, "augment": {"preset": "none"}},
        run=folder,
        audit=audit or {},
        probe=probe or {},
        learning_curve=learning_curve or {},
    )
