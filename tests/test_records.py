"""Records come back from JSON as they were, and hold null where a figure is undefined."""

import json

import numpy as np
import pytest

from convsmith.records import Choice, Estimate, Finding

RECORDS = [
    Estimate(0.5, 0.4, 0.6, 10, "Wilson"),
    Estimate.undefined("no images", n=0),
    Finding("rule", "warning", "It is so.", {"n": 3, "shares": [1, 2]}, ("a", "b"), {"train.epochs": 3}, "cmd", "p. 4"),
    Choice("train.batch", 64, "because", {"seconds_per_step": 0.1}, given=True),
    Choice("image.mean", (0.1, 0.2), "measured"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_equal_from_json_text(record):
    assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record


def test_nan_and_infinities_become_null_and_numpy_becomes_plain():
    record = Choice("x", np.array([1.0, np.nan]), "why", {"a": np.float32(0.5), "b": float("inf"), 3: np.int64(2)})
    assert record.to_json() == {
        "name": "x",
        "value": [1.0, None],
        "reason": "why",
        "measured": {"a": 0.5, "b": None, "3": 2},
        "given": False,
    }


def test_a_record_within_a_record_is_written_out():
    inner = Estimate(1.0, None, None, 1, "exact")
    assert Choice("x", [inner], "why").to_json()["value"] == [inner.to_json()]


def test_unknown_keys_are_refused():
    with pytest.raises(TypeError, match="colour"):
        Estimate.from_json({"value": 1, "low": 0, "high": 2, "n": 3, "method": "m", "colour": 1})


def test_an_undefined_estimate_is_none_with_its_reason():
    estimate = Estimate.undefined("class 'a' has no images")
    assert (estimate.value, estimate.low, estimate.high) == (None, None, None)
    assert str(estimate) == "undefined (class 'a' has no images)"
    assert str(Estimate(0.91234, 0.9, 0.92, 5, "m")) == "0.9123 [0.9, 0.92]"
    assert str(Estimate(0.5, None, None, 5, "m")) == "0.5"
