"""Rules about the probe, the learning curve and slices: the broken example is found, its healthy twin is not."""

import pytest
from made_runs import even, results, run

from convsmith.diagnosis import diagnose, weaker
from convsmith.diagnosis.evidence import difference
from convsmith.evaluation import wilson


def found(rule, splits=None, **records):
    evidence = run(splits or results(test=even(50, 45)), **records)
    return next((item for item in diagnose(evidence) if item.rule == rule), None)


def probe(value, low, high, n=250):
    gain = {"value": value, "low": low, "high": high, "n": n, "method": "paired bootstrap", "reason": "", "level": 0.95}
    return {"gain": gain, "test": {"n": n, "accuracy": wilson(round(0.86 * n), n).to_json()}}


def test_a_gain_that_may_be_nothing_is_a_hint():
    finding = found("fine-tuning-did-not-help", probe=probe(0.02, -0.01, 0.05))
    assert finding is not None
    assert finding.severity == "hint"
    assert "the gain is +2.0 points (between −1.0 and +5.0)" in finding.says
    assert "86 % right" in finding.says
    assert finding.change == {"train.epochs": 20}


def test_a_loss_against_the_probe_is_a_warning():
    spoilt = probe(-0.06, -0.09, -0.03) | {"weights": "lite0.safetensors"}
    finding = found("fine-tuning-did-not-help", probe=spoilt)
    assert finding is not None
    assert finding.severity == "warning"
    assert (
        "is worse than a linear classifier on frozen features (86 % right), by 6.0 points (between 3.0 and 9.0)"
        in finding.says
    )
    assert finding.change == {"transfer.mode": "probe"}


@pytest.mark.parametrize(
    "healthy", [{}, {"gain": None}, probe(0.04, 0.01, 0.07), probe(0.0, 0.0, 0.0)], ids=["none", "null", "gain", "same"]
)
def test_a_proven_gain_and_a_probe_that_is_the_network_are_no_finding(healthy):
    assert found("fine-tuning-did-not-help", probe=healthy) is None


def test_few_test_images_make_it_a_suspicion():
    finding = found("fine-tuning-did-not-help", probe=probe(-0.3, -0.5, -0.1, n=40))
    assert finding is not None
    assert finding.severity == "hint"
    assert finding.says.startswith("Only a suspicion, from 40 pictures")


def test_a_network_from_nothing_that_loses_to_the_pixels_is_trained_longer():
    finding = found("fine-tuning-did-not-help", probe=probe(-0.06, -0.09, -0.03) | {"weights": None})
    assert finding is not None
    assert finding.change == {"train.epochs": 20}


def test_a_probe_on_the_pixels_is_called_so():
    finding = found(
        "fine-tuning-did-not-help", probe=probe(0.02, -0.01, 0.05) | {"says": "a linear classifier on pixels"}
    )
    assert finding is not None
    assert "cannot be told from a linear classifier on pixels (86 % right)" in finding.says


def curve(rising, shares=((100, 170), (400, 225))):
    points = [{"share": n / 400, "images": n, "accuracy": wilson(right, 250).to_json()} for n, right in shares]
    return {"schema": 1, "method": "probe", "says": "It rises.", "rising": rising, "points": points}


def test_a_rising_curve_asks_for_more_images_and_a_level_one_does_not():
    rising = found("more-images-would-help", learning_curve=curve(True))
    level = found("more-images-will-not-help-much", learning_curve=curve(False))
    assert rising is not None
    assert level is not None
    assert rising.says.startswith("With 100 training pictures 68 % were right, with all 400 90 %. More pictures are")
    assert "would change little" in level.says
    assert found("more-images-will-not-help-much", learning_curve=curve(True)) is None
    assert found("more-images-would-help", learning_curve=curve(False)) is None


@pytest.mark.parametrize("unknown", [{}, curve(None), curve(True, shares=((400, 225),))])
def test_a_curve_that_tells_nothing_is_no_finding(unknown):
    for rule in ("more-images-would-help", "more-images-will-not-help-much"):
        assert found(rule, learning_curve=unknown) is None


def kind(name, right, n, rest_right=860, rest_n=1000):
    here, rest = wilson(right, n), wilson(rest_right, rest_n)
    value, low, high = difference(here, rest)
    gap = {"value": value, "low": low, "high": high, "n": n, "method": "Newcombe", "reason": "", "level": 0.95}
    item = {"by": "brightness", "name": name, "n": n, "accuracy": here.to_json(), "rest": rest.to_json()}
    return item | {"difference": gap}


def with_slices(*slices):
    made = results(test=even(250, 215))
    made["splits"]["test"]["slices"] = list(slices)
    return made


def test_a_slice_is_weak_only_where_the_interval_leaves_out_nought():
    finding = found("weak-slice", with_slices(kind("dark", 120, 200), kind("bright", 180, 200)))
    assert finding is not None
    assert finding.severity == "warning"
    assert "weaker on one kind of picture, the dark: 60 % of 200 right, against 86 % of the rest" in finding.says
    assert "2 kinds were looked at" in finding.says
    assert finding.where == ("brightness: dark",)
    assert found("weak-slice", with_slices(kind("dark", 165, 200), kind("bright", 180, 200))) is None


def test_a_slice_that_is_surely_stronger_is_not_weak():
    assert found("weak-slice", with_slices(kind("bright", 199, 200))) is None


def test_a_weak_slice_of_few_pictures_is_a_suspicion():
    finding = found("weak-slice", with_slices(kind("dark", 5, 20)))
    assert finding is not None
    assert finding.severity == "hint"


def test_the_widest_gap_comes_first_and_undefined_slices_are_passed_over():
    undefined = kind("tiny", 5, 20) | {"difference": {"value": None, "low": None, "high": None, "n": 0, "method": ""}}
    order = [item["name"] for item in weaker([undefined, kind("dark", 140, 200), kind("blurred", 90, 200)])]
    assert order == ["blurred", "dark"]
