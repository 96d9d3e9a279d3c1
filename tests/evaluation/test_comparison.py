"""Two answers to the same images: the score interval against a maximiser, by hand, and by simulation."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_predictions import answers, predictions
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from convsmith.errors import DataError
from convsmith.evaluation import paired_gain, scored_without, wilson
from convsmith.evaluation.comparison import mcnemar, tango


def table(both, first, second, neither):
    ours = np.repeat([True, True, False, False], [both, first, second, neither])
    theirs = np.repeat([True, False, True, False], [both, first, second, neither])
    return answers(ours), answers(theirs)


def score(b, c, n, delta):
    """The squared score statistic, the nuisance share found by maximising the likelihood instead of by the formula."""

    def lost(share):
        parts = np.array([share + delta, share, 1 - 2 * share - delta])
        counts = np.array([b, c, n - b - c])
        return -np.sum(counts[counts > 0] * np.log(np.maximum(parts[counts > 0], 1e-300)))

    low, high = max(0.0, -delta), (1 - delta) / 2
    share = minimize_scalar(lost, bounds=(low, high), method="bounded", options={"xatol": 1e-11}).x
    return (b - c - n * delta) ** 2 / (n * (2 * share + delta - delta**2))


@pytest.mark.parametrize(("b", "c", "n"), [(12, 4, 50), (3, 1, 200), (0, 5, 40), (40, 38, 100), (1, 0, 44)])
def test_the_limits_are_where_the_score_statistic_of_the_maximised_likelihood_is_that_of_the_level(b, c, n):
    for level, z in ((0.95, 1.959964), (0.9, 1.644854)):
        low, high = tango(b, c, n, level=level)
        assert low < (b - c) / n < high
        assert score(b, c, n, low) == pytest.approx(z * z, rel=1e-3)
        assert score(b, c, n, high) == pytest.approx(z * z, rel=1e-3)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 300))
def test_the_interval_excludes_zero_exactly_where_mcnemars_test_is_significant(b, c, same):
    n = b + c + same + 1
    low, high = tango(b, c, n)
    significant = b != c and (b - c) ** 2 / (b + c) > 1.959964**2
    assert (low > 0 or high < 0) == significant
    mirrored = tango(c, b, n)
    assert (-mirrored[1], -mirrored[0]) == pytest.approx((low, high), abs=1e-9)
    assert -1 <= low <= (b - c) / n <= high <= 1


def test_where_no_image_differs_the_limits_are_wilsons_of_none_in_n():
    """Without discordant pairs the statistic is n d / (1 - d), whose limits are those of a share of 0 of n."""
    first, second = table(50, 0, 0, 10)
    found = paired_gain(first, second)
    assert (found.value, found.high) == (0.0, pytest.approx(wilson(0, 60).high))
    assert found.low == pytest.approx(-found.high)


def test_the_gain_the_counts_and_the_p_value_by_hand():
    first, second = table(30, 9, 1, 10)
    found = paired_gain(first, second)
    assert found.value == pytest.approx(8 / 50)
    assert found.n == 50
    assert "9 of 50 images right by the first alone, 1 by the second" in found.method
    assert "McNemar exact p = 0.021" in found.method  # 2 (1 + 10) / 2^10
    assert "p < 0.001" in paired_gain(*table(10, 30, 0, 10)).method


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemars_exact_p_is_scipys_binomial_test(b, c):
    assert mcnemar(b, c) == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1.0, rel=1e-9)


def covered(n, shares, repeats, seed):
    """How often the interval holds the true gain, and how often it lies wholly above and below it."""
    truth = shares[1] - shares[2]
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=repeats)
    limits = np.array([tango(b, c, n) for _, b, c, _ in drawn.tolist()])
    return np.mean(limits[:, 0] > truth), np.mean(limits[:, 1] < truth)


@pytest.mark.parametrize(
    ("n", "shares"), [(150, (0.85, 0.05, 0.02, 0.08)), (400, (0.6, 0.15, 0.1, 0.15)), (600, (0.93, 0.02, 0.01, 0.04))]
)
def test_the_interval_covers_the_true_gain_and_errs_on_both_sides_alike(n, shares):
    above, below = covered(n, shares, 1500, seed=1)
    assert 0.93 <= 1 - above - below <= 0.97
    assert max(above, below) < 0.042


@pytest.mark.slow
def test_the_interval_covers_true_gains_of_all_sizes():
    for n in (60, 150, 500, 2000):
        for b, c in ((0.02, 0.0), (0.05, 0.02), (0.1, 0.1), (0.3, 0.05)):
            above, below = covered(n, (0.95 - b - c, b, c, 0.05), 4000, seed=n)
            assert 1 - above - below >= 0.935, (n, b, c)


def test_the_order_of_the_images_does_not_matter():
    rng = np.random.default_rng(3)
    first, second = answers(rng.random(90) < 0.8), answers(rng.random(90) < 0.6)
    order = rng.permutation(90)
    moved = predictions(
        n=90,
        classes=3,
        **{name: getattr(second, name)[order] for name in ("ids", "targets", "logits", "pixels")},
    )
    assert paired_gain(first, moved) == paired_gain(first, second)


def test_groups_of_equal_answers_count_as_one_and_take_the_p_value_away():
    rng = np.random.default_rng(5)
    ours, theirs = rng.random(60) < 0.8, rng.random(60) < 0.6
    one = paired_gain(answers(ours), answers(theirs))
    repeated = answers(np.repeat(ours, 10)), answers(np.repeat(theirs, 10))
    grouped = paired_gain(*repeated, groups=np.repeat([f"g{i}" for i in range(60)], 10))
    alone = paired_gain(*repeated)
    assert grouped.value == pytest.approx(one.value)
    assert grouped.n == 60
    assert grouped.high - grouped.low == pytest.approx(one.high - one.low, rel=0.06)  # a little wider: Student's t
    assert alone.high - alone.low < 0.4 * (one.high - one.low)
    assert "McNemar" not in grouped.method
    assert paired_gain(*repeated, groups=["x"] * 600).low is None


def test_the_interval_of_eight_groups_by_hand():
    """Eight independent pairs, 3 to 1, shown ten times each, are worth 8 - 1, and less for Student's t of 7 degrees."""
    ours, theirs = np.repeat([1, 1, 1, 0, 1, 1, 1, 0], 10) > 0, np.repeat([0, 0, 0, 1, 1, 1, 1, 0], 10) > 0
    found = paired_gain(answers(ours), answers(theirs), groups=np.repeat(list("abcdefgh"), 10))
    worth = 7 / 8 * (1.959964 / 2.364624) ** 2
    assert (found.low, found.high) == pytest.approx(tango(3 * worth, worth, 8 * worth), abs=1e-5)


def test_groups_that_agree_wholly_keep_a_width():
    first = second = answers(np.ones(80, bool))
    found = paired_gain(first, second, groups=np.repeat([f"g{i}" for i in range(8)], 10))
    assert found.low < -0.3
    assert found.high > 0.3


def test_answers_that_are_no_pairs_are_refused():
    first = answers(np.ones(12, bool))
    with pytest.raises(DataError, match=r"12 and 11 images .* 1 ids are in one of them only, such as 'folder/00011"):
        paired_gain(first, answers(np.ones(11, bool)))
    others = dataclasses.replace(first, classes=("class 0", "class 2", "class 1"))
    with pytest.raises(DataError, match=r"'folder/00001.png' is 'class 1' in one .* 'class 2' in the other \(8 such\)"):
        paired_gain(first, others)
    with pytest.raises(DataError, match="3 groups were given for 12 images"):
        paired_gain(first, first, groups=["a", "b", "c"])
    nothing = answers(np.ones(0, bool))
    assert paired_gain(nothing, nothing).value is None


def test_classes_are_compared_by_name_not_by_number():
    first = answers(np.arange(30) % 5 > 0)
    order = [2, 0, 1]
    position = np.argsort(order)
    second = dataclasses.replace(
        first,
        targets=position[first.targets],
        logits=first.logits[:, order],
        classes=tuple(first.classes[i] for i in order),
    )
    assert paired_gain(first, second).value == 0
    assert re.search("0 of 30 images right by the first alone, 0 by the second", paired_gain(first, second).method)


def test_without_some_images_the_rest_is_scored():
    made = answers(np.arange(40) % 4 > 0)
    gone = [str(made.ids[i]) for i in range(0, 40, 4)] + ["unknown.png", str(made.ids[0])]
    record = scored_without(made, gone)
    assert (record["n"], record["left_out"], record["accuracy"]["value"]) == (30, 10, 1.0)
    assert record["accuracy"]["low"] == pytest.approx(wilson(30, 30).low)
    groups = np.repeat([f"g{i}" for i in range(10)], 4)
    assert scored_without(made, gone, groups)["accuracy"]["n"] == 10
    assert scored_without(made, [])["accuracy"]["value"] == pytest.approx(0.75)
    assert scored_without(made, made.ids.tolist())["accuracy"]["value"] is None
