"""Thirds of the images by facts about them: who is in, what is measured, and when nothing is said."""

import json

import numpy as np
import pytest
from made_predictions import answers, predictions

from convsmith.errors import DataError
from convsmith.evaluation import proportion, slices, wilson
from convsmith.evaluation.intervals import difference

NAMES = {
    "brightness": ["darkest third", "middle third by brightness", "brightest third"],
    "sharpness": ["least sharp third", "middle third by sharpness", "sharpest third"],
    "size": ["smallest third", "middle third by size", "largest third"],
    "aspect": ["tallest third", "middle third by shape", "widest third"],
}


def test_a_network_blind_in_the_dark_is_found_out_and_the_figures_are_those_of_a_count_by_hand():
    values = np.random.default_rng(0).permutation(90) / 90
    right = (values >= 30 / 90) | (np.arange(90) % 3 == 0)
    dark, middle, bright = slices(answers(right), {"brightness": values})
    assert [row["name"] for row in (dark, middle, bright)] == NAMES["brightness"]
    k = int(right[values < 30 / 90].sum())
    expected, rest = wilson(k, 30), wilson(60, 60)
    assert (dark["by"], dark["n"]) == ("brightness", 30)
    assert dark["accuracy"] == expected.to_json()
    assert dark["rest"] == rest.to_json()
    gap = tuple(dark["difference"][key] for key in ("value", "low", "high"))
    assert gap == pytest.approx(difference(expected, rest))
    assert dark["difference"]["high"] < 0
    assert bright["difference"]["low"] > 0


def test_newcombes_own_example_is_the_interval_of_the_difference():
    assert difference(wilson(56, 70), wilson(48, 80)) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_every_fact_has_thirds_in_plain_words_and_the_record_is_json():
    made, rng = predictions(n=120), np.random.default_rng(1)
    found = slices(made, {fact: rng.random(120) for fact in NAMES})
    assert [row["name"] for row in found] == [name for names in NAMES.values() for name in names]
    assert [row["by"] for row in found[::3]] == ["brightness", "sharpness", "size", "shape"]
    assert all(row["n"] == 40 for row in found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(("fact", "lowest"), [("size", 0), ("aspect", 0), ("sharpness", 0), ("brightness", 0)])
def test_the_first_third_is_the_one_of_low_values(fact, lowest):
    values = np.arange(60.0)
    right = values >= 20
    rows = slices(answers(right), {fact: values})
    assert [row["accuracy"]["value"] for row in rows] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "values",
    [
        np.arange(59.0),  # too few
        np.full(200, 3.0),  # all alike
        np.r_[np.zeros(100), np.arange(1, 101.0)],  # half share one value: the smallest third would be a half
        np.r_[np.arange(50.0), np.full(90, 60.0), np.arange(70, 130.0)],  # so would the middle one
        np.r_[np.arange(90.0), np.full(12, 90), np.arange(91, 160.0), np.full(60, 160), np.arange(161, 230.0)],  # 43 %
        np.r_[np.arange(59.0), np.full(141, np.nan)],  # known of too few
    ],
    ids=["few", "equal", "half equal", "middle equal", "one too large", "unknown"],
)
def test_where_thirds_are_not_worth_the_name_nothing_is_said(values):
    assert slices(answers(np.ones(len(values), bool)), {"size": values}) == []


def test_equal_values_are_never_parted():
    values = np.repeat(np.arange(10.0), 9)
    rows = slices(answers(np.ones(90, bool)), {"size": values})
    assert sorted(row["n"] for row in rows) == [27, 27, 36]


def test_images_of_which_a_fact_is_not_known_are_in_no_third_and_in_no_rest():
    values = np.r_[np.arange(60.0), np.full(40, np.nan)]
    rows = slices(answers(values >= 0), {"size": values})
    assert [row["n"] for row in rows] == [20, 20, 20]
    assert all(row["accuracy"]["value"] == row["rest"]["value"] == 1.0 for row in rows)


def test_groups_widen_the_intervals():
    rng = np.random.default_rng(4)
    right = np.repeat(rng.random(30) < 0.7, 10)
    values = np.repeat(rng.permutation(30), 10).astype(float)
    groups = np.repeat([f"g{i}" for i in range(30)], 10)
    alone, grouped = (slices(answers(right), {"size": values}, names) for names in (None, groups))
    for one, other in zip(alone, grouped, strict=True):
        assert one["difference"]["value"] == pytest.approx(other["difference"]["value"])
        widths = [row["difference"]["high"] - row["difference"]["low"] for row in (one, other)]
        assert widths[1] > 2 * widths[0]
    inside = right[values < 10]
    assert grouped[0]["accuracy"] == proportion(inside, groups[values < 10]).to_json()


def test_a_third_of_one_group_has_no_interval_and_neither_has_its_difference():
    groups = np.repeat(["a", "b", "c"], 20)
    row = slices(answers(np.arange(60) % 2 > 0), {"size": np.arange(60.0)}, groups)[0]
    assert row["accuracy"]["low"] is None
    assert row["difference"]["value"] == pytest.approx(0)
    assert row["difference"]["low"] is None


def test_facts_that_do_not_fit_are_refused():
    made = predictions(n=80)
    with pytest.raises(DataError, match="not split by 'colour'") as caught:
        slices(made, {"colour": np.zeros(80)})
    assert "brightness" in caught.value.mend
    with pytest.raises(DataError, match=r"'size' has shape \[79\], but there are 80 images"):
        slices(made, {"size": np.zeros(79)})
