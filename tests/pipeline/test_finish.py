"""What a finished run shows of its right answers; and other images measured without those it learnt from."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from convsmith import pipeline
from convsmith.errors import DataError
from convsmith.evaluation import Predictions
from convsmith.pipeline.illustrate import right_examples
from convsmith.run_folder import RunFolder
from convsmith.tasks import Answers


def test_the_example_of_a_class_is_the_right_one_of_median_confidence():
    logits = np.array([[1, 0], [3, 0], [2, 0], [0, 5], [9, 0]], np.float32)
    arrays = {"ids": np.array(list("abcde")), "targets": np.array([0, 0, 0, 1, 1]), "logits": logits}
    arrays["pixels"] = np.zeros((5, 32), np.uint8)
    examples = right_examples(Predictions.of(Answers(arrays, ("sky", "tree"))))
    assert [(item["id"], item["true"]) for item in examples] == [("c", "sky"), ("d", "tree")]
    assert examples[0]["probability"] == pytest.approx(1 / (1 + np.exp(-2)))


def test_only_images_that_a_run_never_learnt_from_are_measured(uninterrupted: Path, pictures: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    trained = pipeline.load_trained(RunFolder(run), device="cpu")
    told: list[pipeline.Message] = []
    result, name = pipeline.evaluate_on(trained, str(pictures), tell=told.append)
    rows = list(csv.DictReader((run / "split.csv").open()))
    roles = [row["role"] for row in rows]
    assert result["n"] == roles.count("test")
    seen = RunFolder(run).read_json(f"{name}/results.json")["seen"]
    assert seen == {"train": roles.count("train"), "tune": roles.count("tune")}
    notes = [message.text for message in told if message.kind == "note"]
    assert any(f"{sum(seen.values())} of {len(roles)} images were used" in text for text in notes)
    with np.load(run / name / "predictions.npz") as file:
        assert set(file["ids"]) == {row["id"] for row in rows if row["role"] == "test"}
    (tmp_path / "some" / "ant").mkdir(parents=True)
    for row in rows:
        if row["role"] == "tune" and row["class"] == "ant":
            (tmp_path / "some" / row["id"]).write_bytes((pictures / row["id"]).read_bytes())
    with pytest.raises(DataError, match="measure nothing"):
        pipeline.evaluate_on(trained, str(tmp_path / "some"))
