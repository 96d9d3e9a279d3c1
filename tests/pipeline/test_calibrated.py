"""A run's confidence is calibrated on its tune images, and everything that states a probability uses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typed import typed

from convsmith import pipeline
from convsmith.errors import RunError
from convsmith.evaluation import Answers, Predictions, fit_temperature, rescore, softmax
from convsmith.run_folder import RunFolder


@pytest.fixture
def run(uninterrupted: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(uninterrupted, tmp_path / "run")))


def test_the_temperature_is_that_of_the_tune_images_and_stands_beside_all_answers(run: RunFolder):
    record = run.read_json("calibration.json")
    tune = Answers.load(run.predictions / "tune.npz").arrays
    found = fit_temperature(tune["logits"], tune["targets"])
    assert (record["split"], record["images"]) == ("tune", len(tune["ids"]))
    assert record["temperature"] == pytest.approx(found.value, abs=1e-4) != 1
    assert record["log_loss"] == {"before": pytest.approx(found.before), "after": pytest.approx(found.after)}
    for role in ("train", "tune", "test"):
        kept = Answers.load(run.predictions / f"{role}.npz").arrays
        assert (kept["temperature"] == record["temperature"]).all()
    assert "uncalibrated" in run.read_json("results.json")["splits"]["test"]


def test_results_are_those_of_calibrated_answers_and_can_be_computed_anew(run: RunFolder):
    before = run.read_json("results.json")
    believed = Predictions.of(Answers.load(run.predictions / "test.npz"))
    mean = -np.log(softmax(believed.logits)[np.arange(len(believed)), believed.targets]).mean()
    assert before["splits"]["test"]["metrics"]["log_loss"]["value"] == pytest.approx(mean)
    assert rescore(run) == before


def test_typed_and_programmed_probabilities_are_calibrated(run: RunFolder, pictures: Path):
    kept = Answers.load(run.predictions / "test.npz").arrays
    picture = pictures / str(kept["ids"][0])
    expected = softmax(kept["logits"][:1] / kept["temperature"][0])[0]
    trained = pipeline.load_trained(run, device="cpu")
    assert trained.probabilities([trained.see(trained.read(picture))])[0] == pytest.approx(expected, abs=1e-5)
    (row,) = json.loads(typed("predict", run.path, picture, "--json", "--quiet").out)
    assert row["probability"] == pytest.approx(expected.max(), abs=1e-5)
    assert row["temperature"] == kept["temperature"][0]
    assert row["logits"] == pytest.approx(kept["logits"][0], abs=1e-4)


def test_other_images_are_measured_by_it_too(run: RunFolder, pictures: Path):
    trained = pipeline.load_trained(run, device="cpu")
    result, name = pipeline.evaluate_on(trained, str(pictures))
    assert result["metrics"]["log_loss"] == run.read_json("results.json")["splits"]["test"]["metrics"]["log_loss"]
    assert (Answers.load(run.path / name / "predictions.npz").arrays["temperature"] == trained.temperature).all()


def test_a_run_from_before_there_were_temperatures_answers_as_it_did(run: RunFolder, pictures: Path):
    (run.path / "calibration.json").unlink()
    trained = pipeline.load_trained(run, device="cpu")
    assert trained.temperature is None
    result, _ = pipeline.evaluate_on(trained, str(pictures))
    assert "uncalibrated" not in result


@pytest.mark.parametrize("value", ["0", "-1.5", "NaN", "Infinity", '"1.2"', "null"])
def test_a_temperature_that_is_none_is_refused_with_the_way_to_a_new_one(run: RunFolder, value: str):
    run.write_text("calibration.json", f'{{"schema": 1, "temperature": {value}}}')
    with pytest.raises(RunError, match="no number above 0") as caught:
        pipeline.load_trained(run, device="cpu")
    assert "convsmith resume" in str(caught.value.mend)


def test_the_report_says_what_the_temperature_did(run: RunFolder):
    page = run.report.read_text()
    assert "A temperature of " in page
    assert "Probabilities were calibrated by temperature scaling" in page
