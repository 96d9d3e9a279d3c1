import json
import subprocess
import sys

import numpy as np
import pytest
from made_predictions import predictions

from convsmith.errors import DataError
from convsmith.evaluation import evaluate, quick
from convsmith.evaluation.mistakes import worst_mistakes


def test_results_are_plain_json_and_hold_every_figure():
    result = evaluate(predictions(), majority=2)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert set(result["metrics"]) == {"accuracy", "balanced_accuracy", "macro_f1", "log_loss", "top_2", "ece"}
    assert result["baseline"]["class"] == "class 2"
    assert np.sum(result["confusion"]) == result["n"] == 300
    assert sum(row["n"] for row in result["per_class"]) == 300


@pytest.mark.parametrize(("classes", "name"), [(2, None), (3, "top_2"), (5, "top_2"), (6, "top_5")])
def test_the_top_k_fits_the_number_of_classes(classes, name):
    tops = [key for key in evaluate(predictions(classes=classes), majority=0)["metrics"] if key.startswith("top")]
    assert tops == ([name] if name else [])


def test_results_do_not_depend_on_the_order_of_the_images():
    made, order = predictions(), np.random.default_rng(9).permutation(300)
    parts = {name: getattr(made, name)[order] for name in ("ids", "targets", "logits", "pixels")}
    one, other = (evaluate(p, majority=1) for p in (made, predictions(**parts)))
    loss, moved = one["metrics"].pop("log_loss"), other["metrics"].pop("log_loss")
    assert loss["value"] == pytest.approx(moved["value"])  # resampled by image, so its limits move a little
    assert _close(one, other)


def test_no_images_give_undefined_figures_and_no_error():
    result = evaluate(predictions(n=0), majority=0)
    assert result["n"] == 0
    assert all(estimate["value"] is None and estimate["reason"] for estimate in result["metrics"].values())
    assert result["baseline"]["gain"]["value"] is None


def test_one_image_and_one_class_of_many_are_measured():
    result = evaluate(predictions(n=1), majority=0)
    assert result["metrics"]["balanced_accuracy"]["low"] is None
    result = evaluate(predictions(targets=np.zeros(300, int)), majority=0)
    assert result["per_class"][1]["recall"]["value"] is None


def test_the_worst_mistakes_come_first_and_only_mistakes_come():
    logits = np.array([[5, 0, 0], [3, 0, 1], [4, 0, 0], [0, 1, 0]], np.float32)
    made = predictions(n=4, classes=3, targets=np.array([0, 1, 2, 1]), logits=logits, ids=list("abcd"))
    assert [mistake.id for mistake in worst_mistakes(made)] == ["c", "b"]
    worst = worst_mistakes(made)[0]
    assert (worst.true, worst.predicted) == ("class 2", "class 0")
    assert worst.probability == pytest.approx(np.exp(4) / (np.exp(4) + 2))
    assert worst.loss == pytest.approx(-np.log(worst.true_probability))


def test_confused_pairs_are_counted_by_true_class():
    logits = np.eye(3, dtype=np.float32)[[1, 1, 0, 1, 0, 2]]
    result = evaluate(predictions(n=6, classes=3, targets=np.array([0, 0, 0, 1, 1, 2]), logits=logits), majority=0)
    assert result["pairs"] == [
        {"true": "class 0", "predicted": "class 1", "count": 2, "share": pytest.approx(2 / 3)},
        {"true": "class 1", "predicted": "class 0", "count": 1, "share": 0.5},
    ]


def test_broken_logits_are_named_not_measured():
    logits = predictions().logits.copy()
    logits[7, 1] = np.nan
    with pytest.raises(DataError, match=r"1 of 300 images.*folder/00007\.png") as caught:
        evaluate(predictions(logits=logits), majority=0)
    assert "learning rate" in caught.value.mend
    assert np.isnan(quick(logits, predictions().targets)["log_loss"])


def test_groups_and_majority_must_fit():
    with pytest.raises(DataError, match="2 groups were given for 300"):
        evaluate(predictions(), majority=0, groups=["a", "b"])
    with pytest.raises(DataError, match="class is 9"):
        evaluate(predictions(), majority=9)


def test_the_quick_look_agrees_with_the_full_measure():
    made = predictions()
    full, look = evaluate(made, majority=0)["metrics"], quick(made.logits, made.targets)
    assert look["accuracy"] == pytest.approx(full["accuracy"]["value"])
    assert look["log_loss"] == pytest.approx(full["log_loss"]["value"])


def test_importing_evaluation_and_diagnosis_loads_nothing_heavy():
    code = (
        "import sys, convsmith.evaluation, convsmith.diagnosis; "
        "sys.stderr.write(' '.join({'torch', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def _close(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return one == (pytest.approx(other, abs=1e-9) if isinstance(one, float) else other)
