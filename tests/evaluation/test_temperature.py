"""Temperature scaling: the least log loss, drawn towards 1 where images are few, and no answer changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from convsmith.errors import DataError
from convsmith.evaluation import Answers, Predictions, divided, fit_temperature, score_classification, softmax


def drawn(n: int, sharpened: float = 1.0, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the truth, and targets drawn by it; then the logits times `sharpened`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 2
    targets = (softmax(logits).cumsum(1) < rng.random(n)[:, None]).sum(1)
    return (logits * sharpened).astype(np.float32), targets


@pytest.mark.parametrize("sharpened", [0.3, 1.0, 3.0])
def test_confidence_that_was_sharpened_is_found_out(sharpened: float):
    logits, targets = drawn(20_000, sharpened)
    found = fit_temperature(logits, targets)
    assert found.value == pytest.approx(sharpened, rel=0.05)
    assert found.images == 20_000
    assert found.after <= found.before


def test_with_many_images_it_is_the_minimum_of_another_library_s_log_loss():
    logits, targets = drawn(5_000, 2.5)
    other = minimize_scalar(
        lambda t: log_loss(targets, softmax(logits / t), labels=range(4)), bounds=(0.1, 10), method="bounded"
    )
    assert fit_temperature(logits, targets).value == pytest.approx(other.x, rel=2e-3)


def test_a_network_that_is_always_right_is_not_called_infinitely_sure():
    logits, targets = np.eye(3, dtype=np.float32).repeat(10, 0) * 4, np.arange(3).repeat(10)
    assert 0.3 < fit_temperature(logits, targets).value < 1


def test_one_image_moves_it_little():
    wrong = fit_temperature(np.array([[3.0, 0.0]], np.float32), np.array([1]))
    assert 1 < wrong.value < 4


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20))
def test_no_answer_changes(seed: int, temperature: float):
    logits = np.random.default_rng(seed).normal(size=(50, 5)).astype(np.float32)
    logits[:, 1] = np.nextafter(logits[:, 0], np.float32(np.inf))  # as near as two can be
    assert (divided(logits, temperature).argmax(1) == logits.argmax(1)).all()


@pytest.mark.parametrize("broken", [np.zeros((0, 3), np.float32), np.array([[0, np.nan, 1]], np.float32)])
def test_broken_logits_have_no_temperature(broken: np.ndarray):
    with pytest.raises(DataError, match="logits are all finite"):
        fit_temperature(broken, np.zeros(len(broken), np.int64))


def test_calibrated_answers_are_scored_by_what_is_believed_of_them_and_the_figures_without_stand_beside():
    logits, targets = drawn(600, 3.0)
    arrays = {
        "ids": np.array([f"{i}" for i in range(600)]), "targets": targets, "logits": logits,
        "pixels": np.zeros((600, 32), np.uint8),
    }  # fmt: skip
    plain = Answers(arrays, ("a", "b", "c", "d"), majority=0)
    tempered = replace(plain, arrays={**arrays, "temperature": np.full(600, 3.0)})
    before, after = score_classification(plain), score_classification(tempered)
    assert before["metrics"]["accuracy"] == after["metrics"]["accuracy"]
    assert after["uncalibrated"] == {name: before["metrics"][name] for name in ("log_loss", "ece")}
    believed = Predictions.of(tempered)
    assert after["metrics"]["log_loss"]["value"] == pytest.approx(
        log_loss(targets, softmax(believed.logits), labels=range(4)), rel=1e-5
    )
    assert after["metrics"]["ece"]["high"] < before["metrics"]["ece"]["low"]
    assert "uncalibrated" not in before


@pytest.mark.parametrize("wrong", [np.ones(2), np.zeros(3), np.full(3, np.nan), np.full(3, np.inf), np.ones((3, 2))])
def test_recorded_temperatures_that_cannot_be_are_refused(wrong: np.ndarray):
    arrays = {
        "ids": np.array(list("abc")), "targets": np.array([0, 1, 0]), "logits": np.zeros((3, 2), np.float32),
        "pixels": np.zeros((3, 32), np.uint8), "temperature": wrong,
    }  # fmt: skip
    with pytest.raises(DataError, match="above 0 is needed for each of 3 images"):
        Predictions.of(Answers(arrays, ("a", "b")))
