"""A run's figures from its recorded predictions: one scorer for each task, none of which needs the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convsmith.errors import RunError
from convsmith.evaluation.answers import Answers
from convsmith.evaluation.predictions import Predictions
from convsmith.evaluation.score import evaluate
from convsmith.registry import Entry, Registry
from convsmith.run_folder import RunFolder


def score_classification(answers: Answers) -> dict[str, Any]:
    """All figures of one split with their intervals, from `ids`, `targets`, `logits` and `pixels`."""
    return evaluate(Predictions.of(answers), majority=answers.majority, groups=answers.groups)


SCORERS = Registry("scorer", [Entry("classification", score_classification, "accuracy and its kin")])
"""`(answers) -> record` by the task's name, as the manifest holds it."""


def rescore(run: RunFolder) -> dict[str, Any]:
    """Compute a run's results anew from its recorded predictions; no network runs, and torch is not needed.

    Returns:
        The new content of `results.json`, which is written.

    Raises:
        RunError: the run is not finished, so its predictions may not be whole; or they cannot be read.
    """
    run.refuse_unfinished()
    manifest = run.read_json("manifest.json")
    majority = commonest_class(manifest["data"]["counts"])
    splits = {
        split: SCORERS.build(manifest["task"], Answers.load(run.predictions / f"{split}.npz", majority=majority))
        for split in ("train", "tune", "test")
        if run.has(f"predictions/{split}.npz")
    }
    if splits.keys() <= {"train"}:
        raise RunError(
            f"{run.path} has predictions of neither test nor tune images.",
            mend=f"Remove its report.html and make them again: convsmith resume {run.path}",
        )
    results = {"schema": 1, "task": manifest["task"], "splits": splits}
    run.write_json("results.json", results)
    return results


def commonest_class(counts: Mapping[str, Mapping[str, int]]) -> int | None:
    """The index of the training images' commonest class, the first of equals, from images by role and class.

    None where there are no training images.
    """
    numbers = list(counts.get("train", {}).values())
    return numbers.index(max(numbers)) if numbers else None
