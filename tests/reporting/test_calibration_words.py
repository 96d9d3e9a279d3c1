"""The sentences about confidence follow the interval, and say what the temperature did."""

from __future__ import annotations

from typing import Any

import pytest

from convsmith.reporting.measured import calibration
from convsmith.reporting.run_records import RunRecords

BINS = [{"confidence": 0.9, "accuracy": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 40, "method": "Wilson"}, "n": 40}]


def estimate(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 40, "method": "inversion"}


def lead(ece: dict[str, Any], raw: dict[str, Any] | None, temperature: float | None) -> str:
    """The section's first sentences."""
    measured = {"n": 40, "classes": ["a", "b"], "metrics": {"ece": ece}, "reliability": BINS}
    if raw is not None:
        measured["uncalibrated"] = {"ece": raw}
    record = {} if temperature is None else {"temperature": temperature, "images": 88}
    section = calibration(RunRecords("run", results={"splits": {"test": measured}}, calibration=record))
    assert section is not None
    return section.lead.replace("\u202f", " ").replace("\xa0", " ")


def test_a_gap_with_an_interval_is_given_with_it():
    assert "differ by 6.0 % on average (2.0 to 9.0 %)" in lead(estimate(0.06, 0.02, 0.09), None, None)


def test_no_gap_that_can_be_told_is_said_to_be_bounded():
    assert "cannot be told apart by these pictures (at the most 9.0 %)" in lead(estimate(0.0, 0.0, 0.09), None, None)


def test_without_an_interval_nothing_is_said_of_one():
    assert "differ by 0.0 % on average." in lead(estimate(0.0, None, None), None, None)


@pytest.mark.parametrize(("temperature", "did"), [(1.4, "lowered"), (0.6, "raised")])
def test_the_temperature_s_work_is_told_beside_the_figure_without_it(temperature: float, did: str):
    words = lead(estimate(0.0, 0.0, 0.05), estimate(0.06, 0.02, 0.09), temperature)
    assert f"A temperature of {temperature:.2f}, fitted on 88 tune images, has {did} its confidence" in words
    assert "without it the two differ by 6.0 % on average (2.0 to 9.0 %)" in words


def test_a_temperature_of_one_is_said_to_change_nothing():
    words = lead(estimate(0.0, 0.0, 0.05), estimate(0.0, 0.0, 0.05), 0.998)
    assert "88 tune images ask for no change of its confidence (temperature 1.00)" in words


def test_networks_of_a_cross_validation_have_a_temperature_each():
    words = lead(estimate(0.0, 0.0, 0.05), estimate(0.06, 0.02, 0.09), None)
    assert "Each network's confidence is tempered as its own tune images ask for" in words
