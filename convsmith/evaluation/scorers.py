"""A run's figures from its recorded predictions: one scorer for each task, none of which needs the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convsmith.errors import RunError
from convsmith.evaluation.answers import Answers
from convsmith.evaluation.comparison import scored_without
from convsmith.evaluation.predictions import Predictions
from convsmith.evaluation.score import evaluate, uncalibrated
from convsmith.evaluation.slices import THIRDS, slices
from convsmith.registry import Entry, Registry
from convsmith.run_folder import RunFolder


def score_classification(answers: Answers) -> dict[str, Any]:
    """All figures of one split with their intervals, from `ids`, `targets`, `logits` and `pixels`.

    Where the answers hold facts about the images beside these, what follows from them is added: `slices` from
    `brightness`, `sharpness`, `size` and `aspect` (see `slices.slices`), and `without_leaks` from `leaked`, bool [N],
    which images also stand in another role. With an array `temperature` all figures are of the calibrated answers, and
    `uncalibrated` has what they would be without.
    """
    predictions = Predictions.of(answers)
    record = evaluate(predictions, majority=answers.majority, groups=answers.groups)
    if "temperature" in answers.arrays:
        record["uncalibrated"] = uncalibrated(answers)
    facts = {name: answers.arrays[name] for name in THIRDS if name in answers.arrays}
    if facts:
        record["slices"] = slices(predictions, facts, answers.groups)
    leaked = answers.arrays.get("leaked")
    if leaked is not None and leaked.any():
        record["without_leaks"] = scored_without(predictions, predictions.ids[leaked].tolist(), answers.groups)
    return record


SCORERS = Registry("scorer", [Entry("classification", score_classification, "accuracy and its kin")])
"""`(answers) -> record` by the task's name, as the manifest holds it."""


def rescore(run: RunFolder) -> dict[str, Any]:
    """Compute a run's results anew from its recorded predictions; no network runs, and torch is not needed.

    Returns:
        The new content of `results.json`, which is written.

    Raises:
        RunError: the run is not finished, so its predictions may not be whole; or some are missing or cannot be read.
    """
    run.refuse_unfinished()
    manifest = run.read_json("manifest.json")
    counts = manifest["data"]["counts"]
    lost = [role for role in ("test", "tune") if any(counts.get(role, {}).values()) and not _answered(run, role)]
    if lost:
        raise RunError(
            f"{run.path} was measured on {lost[0]} images, and {_file(lost[0])} is not there any more.",
            mend=f"Put it back from a copy, or remove report.html and make all anew: convsmith resume {run.path}",
        )
    majority = commonest_class(counts)
    splits = {
        split: SCORERS.build(manifest["task"], Answers.load(run.predictions / f"{split}.npz", majority=majority))
        for split in ("train", "tune", "test")
        if _answered(run, split)
    }
    results = {"schema": 1, "task": manifest["task"], "splits": splits}
    run.write_json("results.json", results)
    return results


def _file(role: str) -> str:
    return f"predictions/{role}.npz"


def _answered(run: RunFolder, role: str) -> bool:
    return run.has(_file(role))


def commonest_class(counts: Mapping[str, Mapping[str, int]]) -> int | None:
    """The index of the training images' commonest class, the first of equals, from images by role and class.

    None where there are no training images.
    """
    numbers = list(counts.get("train", {}).values())
    return numbers.index(max(numbers)) if numbers else None
