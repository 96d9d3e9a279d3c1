"""What the runs of a cross-validation say together: every image answered by a network that had not learnt from it.

A cross-validation is a folder beside other runs that holds its runs as folders of its own:

    cross-validation.json   schema, folds, repeats, the names of its runs, images of a given test set left aside
    recipe.yaml             what all its runs share; given.yaml as it was asked for
    manifest.json  audit.json  split.csv  log.jsonl
    fold-1/ ...             runs like any other; repeat-1-fold-1/ ... where folds are drawn several times
    out-of-fold.npz         ids, targets, float32 logits, temperature, pixels, fold, repeat, classes, groups: a row for
                            each image in each repeat; the temperature is that of the network that answered
    results.json            figures of all images together under `splits.test`, of each run under `cross_validation`
    report.html

The sources of what is said of the intervals: Bengio & Grandvalet 2004, "No unbiased estimator of the variance of
K-fold cross-validation", JMLR 5; Bates, Hastie & Tibshirani 2023, "Cross-validation: what does it estimate and how well
does it do it?", JASA.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from convsmith.errors import RunError
from convsmith.evaluation import calibration, metrics, mistakes
from convsmith.evaluation.answers import Answers
from convsmith.evaluation.predictions import Predictions
from convsmith.evaluation.score import evaluate, uncalibrated
from convsmith.records import Estimate
from convsmith.run_folder import RunFolder

RECORD, PREDICTIONS = "cross-validation.json", "out-of-fold.npz"
ARRAYS = ("ids", "targets", "logits", "temperature", "pixels", "fold", "repeat")
SPREAD = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")


def is_cross_validation(run: RunFolder) -> bool:
    """Whether a folder holds the runs of a cross-validation rather than being one run."""
    return run.has(RECORD)


def runs_of(folder: RunFolder) -> list[RunFolder]:
    """The runs of a cross-validation in their order, those that were not begun yet, too."""
    return [RunFolder(folder.path / name) for name in folder.read_json(RECORD)["runs"]]


def run_name(fold: int, repeat: int, repeats: int) -> str:
    """What the folder of one run is called."""
    return f"fold-{fold}" if repeats == 1 else f"repeat-{repeat}-fold-{fold}"


def pool(folder: RunFolder) -> Answers:
    """Put the test answers of all runs together: a row for each image and repeat, by repeat and then by id.

    Raises:
        RunError: a run is not finished or cannot be read, or an image is not answered once in each repeat.
    """
    record = folder.read_json(RECORD)
    parts, groups, classes = [], [], ()
    for place, run in enumerate(runs_of(folder)):
        run.refuse_unfinished()
        answers = Answers.load(run.predictions / "test.npz")
        count, classes = len(answers.arrays["ids"]), answers.classes
        repeat, fold = divmod(place, record["folds"])
        own = {name: answers.arrays[name] for name in ("ids", "targets", "logits", "pixels")}
        own["temperature"] = answers.arrays.get("temperature", np.ones(count))  # of its own network
        own |= {"fold": np.full(count, fold + 1), "repeat": np.full(count, repeat + 1)}
        parts.append(own)
        groups += list(answers.groups or ("",) * count)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in ARRAYS}
    order = np.lexsort((arrays["ids"], arrays["repeat"]))
    arrays = {name: values[order] for name, values in arrays.items()}
    by_repeat = arrays["ids"].reshape(record["repeats"], -1) if len(order) % record["repeats"] == 0 else None
    if by_repeat is None or (by_repeat != by_repeat[0]).any() or len(np.unique(by_repeat[0])) < by_repeat.shape[1]:
        raise RunError(
            f"The runs of {folder.path} do not answer every image once in each repeat.",
            mend="Remove the run that was changed, and make it again: convsmith resume " + str(folder.path),
        )
    names = tuple(groups[i] for i in order.tolist())
    return Answers(arrays, classes, "out-of-fold", None, names if any(names) else None)


def score(answers: Answers) -> dict[str, Any]:
    """The figures of all images together, each image counted once, as `evaluate` gives them.

    Where folds were drawn several times, a figure is the mean of those of the repeats, so that of accuracy every image
    counts with the share of networks that named it rightly. The limits of its interval are the means of theirs: the
    mean of several estimates varies no more than each of them, and how much less is not known, since all rest on the
    same images. Counts of images are means, too. The worst mistakes are those of any repeat.

    The baseline is the commonest class of all images.

    Args:
        answers: of `pool`.
    """
    repeats = answers.arrays["repeat"]
    tempered = bool((answers.arrays.get("temperature", np.ones(1)) != 1).any())  # runs of before had no temperature
    majority = int(np.bincount(answers.arrays["targets"], minlength=len(answers.classes)).argmax())
    records = []
    for repeat in np.unique(repeats):
        rows = np.flatnonzero(repeats == repeat)
        own = _some(answers, rows)
        record = evaluate(Predictions.of(own), majority=majority, groups=own.groups)
        records.append({**record, "uncalibrated": uncalibrated(own)} if tempered else record)
    return records[0] if len(records) == 1 else _mean_record(records, answers)


def results(folder: RunFolder, answers: Answers) -> dict[str, Any]:
    """The content of a cross-validation's `results.json`: figures of all, of each run, and how far runs differ.

    Args:
        folder: of the cross-validation.
        answers: of `pool`.
    """
    record = folder.read_json(RECORD)
    rows = []
    for place, run in enumerate(runs_of(folder)):
        measured = run.read_json("results.json")["splits"]
        repeat, fold = divmod(place, record["folds"])
        counts = {role: measured[role]["n"] for role in ("tune", "test") if role in measured}
        trained = sum(run.read_json("manifest.json")["data"]["counts"]["train"].values())
        told = {name: measured["test"]["metrics"][name] for name in SPREAD}
        rows.append(
            {"run": run.path.name, "fold": fold + 1, "repeat": repeat + 1, "train": trained, **counts, "metrics": told}
        )
    together = score(answers)
    summary = {key: record[key] for key in ("folds", "repeats", "aside")}
    told = {**summary, "spread": _spread(rows), "runs": rows}
    told["says"] = _says(told, together)
    return {"schema": 1, "task": "classification", "splits": {"test": together}, "cross_validation": told}


def rescore(folder: RunFolder) -> dict[str, Any]:
    """Compute the results anew from the recorded answers, and write them; no network runs.

    Raises:
        RunError: the cross-validation is not finished, or its answers cannot be read.
    """
    folder.refuse_unfinished()
    new = results(folder, Answers.load(folder.path / PREDICTIONS))
    folder.write_json("results.json", new)
    return new


def _some(answers: Answers, rows: np.ndarray) -> Answers:
    groups = None if answers.groups is None else tuple(answers.groups[i] for i in rows.tolist())
    return replace(answers, arrays={name: values[rows] for name, values in answers.arrays.items()}, groups=groups)


def _mean_record(records: Sequence[Mapping[str, Any]], answers: Answers) -> dict[str, Any]:
    """The mean of the records of all repeats; each is of the same images."""
    first, count = records[0], len(records)
    tables = np.sum([record["confusion"] for record in records], axis=0)
    pairs = mistakes.confused_pairs(tables, answers.classes)
    everything = Predictions.of(answers)
    logits = everything.logits.astype(np.float64)
    rows = answers.groups if answers.groups is not None else None
    alone = tuple(name or f"\0{own}" for name, own in zip(rows or ("",) * len(logits), everything.ids, strict=True))
    bins = calibration.reliability(
        metrics.softmax(logits).max(axis=1), everything.targets == everything.predicted, groups=alone
    )
    worst: dict[str, Any] = {}
    for mistake in mistakes.worst_mistakes(everything, count=24 * count):
        worst.setdefault(mistake.id, vars(mistake))
    return {
        **first,
        **{
            part: {name: _mean([record[part][name] for record in records]) for name in first[part]}
            for part in ("metrics", "uncalibrated")
            if part in first
        },
        "per_class": [
            {
                "name": row["name"],
                "n": row["n"],
                "predicted": sum(record["per_class"][k]["predicted"] for record in records) / count,
                **{name: _mean([r["per_class"][k][name] for r in records]) for name in ("precision", "recall", "f1")},
            }
            for k, row in enumerate(first["per_class"])
        ],
        "confusion": (tables / count).tolist(),
        "reliability": [{**vars(each), "accuracy": each.accuracy.to_json(), "n": each.n / count} for each in bins],
        "baseline": {**first["baseline"], "gain": _mean([record["baseline"]["gain"] for record in records])},
        "pairs": [{**vars(pair), "count": pair.count / count} for pair in pairs],
        "mistakes": list(worst.values())[:24],
    }


def _mean(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of estimates, and of their limits where all have some."""
    estimates = [Estimate.from_json(value) for value in values]
    first, count = estimates[0], len(estimates)
    if any(each.value is None for each in estimates):
        return next(each for each in estimates if each.value is None).to_json()
    parts = [[getattr(each, name) for each in estimates] for name in ("value", "low", "high")]
    value, low, high = (None if None in part else statistics.fmean(part) for part in parts)
    method = f"mean of {count} repeats, each {first.method}" if low is not None else "none: a repeat has no interval"
    return Estimate(value, low, high, first.n, method, level=first.level).to_json()


def _spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How far the runs' own figures lie apart: standard deviation, lowest and highest."""
    told = {}
    for name in SPREAD:
        values = [row["metrics"][name]["value"] for row in rows]
        values = [value for value in values if value is not None]
        if len(values) > 1:
            told[name] = {
                "deviation": statistics.stdev(values), "lowest": min(values), "highest": max(values), "n": len(values),
            }  # fmt: skip
    return told


def _says(told: Mapping[str, Any], together: Mapping[str, Any]) -> list[str]:
    """What the figures mean, and what their intervals are not."""
    rows, folds, repeats = told["runs"], told["folds"], told["repeats"]
    fewest, most = min(row["train"] for row in rows), max(row["train"] for row in rows)
    trained = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    said = [
        f"Each of the {together['n']:,} images was named by a network that had not learnt from it: {folds} folds"
        + (f", drawn {repeats} times" if repeats > 1 else "")
        + f", so {len(rows)} networks, each trained on {trained} images.",
        "So the figure is that of networks made in this way from so many images, on average over them; it is not that "
        "of any one of them, nor of one trained on all images, which is likely to be a little better "
        "(Bates, Hastie & Tibshirani 2023).",
        "The interval takes the images, or the groups where there are any, as independent. Their answers are not quite "
        "so: any two networks share most of their training images. No unbiased estimate of the variance of "
        "cross-validation exists (Bengio & Grandvalet 2004), and intervals like this one tend to be too narrow: they "
        "hold the true figure less often than 95 times in 100.",
    ]
    if repeats > 1:
        said.append(
            "Every image counts once, with the share of its networks that named it rightly. Repeats take the luck of "
            "the draw out of the figure; they are no new images, so the interval is as wide as that of one repeat."
        )
    if told["aside"]:
        said.append(f"The given test set, {told['aside']:,} images, was left aside and can still be used once.")
    return said
