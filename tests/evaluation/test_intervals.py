import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from convsmith.errors import DataError
from convsmith.evaluation import bootstrap, paired_difference, proportion, wilson
from convsmith.evaluation.intervals import group_codes, student_quantile
from convsmith.evaluation.metrics import balanced_accuracy


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_wilson_agrees_with_scipy(pair, level):
    k, n = pair
    ours, theirs = wilson(k, n, level=level), binomtest(k, n).proportion_ci(level, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.low <= ours.value <= ours.high
    assert ours.n == n


def test_no_images_give_no_proportion():
    nothing = wilson(0, 0)
    assert nothing.value is None
    assert nothing.low is None
    assert "no images" in nothing.reason


def test_wilson_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="k=3, n=2"):
        wilson(3, 2)


def test_intervals_of_accuracy_and_of_a_class_recall_cover_the_truth():
    """Item 12 of the issue: n = 500, 4,000 repeats, the class's size as random as it is in a random test set."""
    rng = np.random.default_rng(12)
    for truth in (0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
        of_class = rng.binomial(500, 0.15, size=4000)
        for sizes in (np.full(4000, 500), of_class):
            hits = rng.binomial(sizes, truth)
            pairs = {pair: wilson(*pair) for pair in set(zip(hits.tolist(), sizes.tolist(), strict=True))}
            covered = [pairs[k, n].low <= truth <= pairs[k, n].high for k, n in zip(hits, sizes, strict=True)]
            assert 0.93 <= np.mean(covered) <= 0.97, truth


@pytest.mark.parametrize("accuracy", [0.7, 0.9, 0.97])
def test_the_bootstrap_of_balanced_accuracy_covers_the_truth(accuracy):
    rng = np.random.default_rng(3)
    shares = np.array([0.5] + [0.05] * 10)
    recalls = np.clip(accuracy + rng.normal(size=11) * (1 - accuracy) / 3, 0, 1)
    covered = []
    for seed in range(300):
        targets = rng.choice(11, size=500, p=shares)
        shift = np.where(rng.random(500) < recalls[targets], 0, rng.integers(1, 11, size=500))
        found = balanced_accuracy(targets, (targets + shift) % 11, 11, repeats=300, seed=seed)
        covered.append(found.low <= recalls.mean() <= found.high)
    assert 0.91 <= np.mean(covered) <= 0.99  # 0.937, 0.946 and 0.956 in 1,200 repeats


def test_the_bootstrap_of_a_mean_has_the_width_of_the_central_limit_theorem():
    rng = np.random.default_rng(0)
    strata, values = np.repeat([0, 1], [400, 100]), rng.normal(size=500) + np.repeat([0, 5], [400, 100])
    found = bootstrap(lambda w: w @ values / 500, strata, repeats=4000)
    error = np.sqrt(400 * values[:400].var(ddof=1) + 100 * values[400:].var(ddof=1)) / 500
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert found.method == "stratified bootstrap 95 %, 4000 repeats"


def test_strata_of_two_images_have_the_full_variance():
    """Plain resampling would halve it: the reason for drawing n - 1."""
    rng = np.random.default_rng(1)
    values, strata = rng.normal(size=400), np.repeat(np.arange(200), 2)
    found = bootstrap(lambda w: w @ values / 400, strata, repeats=4000)
    error = np.sqrt(sum(2 * pair.var(ddof=1) for pair in values.reshape(200, 2))) / 400
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_classes_of_one_image_are_pooled_and_still_vary():
    values = np.arange(30.0)
    for strata in (np.arange(30), np.r_[np.zeros(29, int), 1]):
        found = bootstrap(lambda w: w @ values / 30, strata)
        assert found.low < 12.5 < 16.5 < found.high


def test_cells_and_single_images_give_the_same_interval():
    values = np.array([0.0, 1.0, 3.0])
    counts, strata = np.array([60, 40, 50]), np.array([0, 0, 1])
    by_cell = bootstrap(lambda w: w @ values / 150, strata, counts=counts, repeats=4000)
    each = np.repeat(values, counts)
    by_image = bootstrap(lambda w: w @ each / 150, np.repeat(strata, counts), repeats=4000)
    assert (by_cell.value, by_cell.low, by_cell.high) == pytest.approx(
        (by_image.value, by_image.low, by_image.high), abs=0.01
    )


def test_the_bootstrap_is_a_pure_function_of_its_seed():
    values = np.random.default_rng(0).normal(size=50)
    first, same, other = (bootstrap(lambda w: w @ values, np.zeros(50, int), seed=seed) for seed in (1, 1, 2))
    assert first == same != other


def test_an_interval_without_width_is_not_given():
    found = bootstrap(lambda w: w.sum(axis=1) * 0 + 1.0, np.zeros(9, int))
    assert (found.value, found.low, found.high) == (1.0, None, None)
    assert "no variation" in found.method


def test_one_image_has_no_bootstrap_interval():
    assert bootstrap(lambda w: w.sum(axis=1), np.zeros(1, int)).low is None


def test_groups_of_equal_images_count_as_one_each():
    """Forty groups of ten identical answers are worth forty images, with Student's t for forty groups."""
    answers = np.arange(40) < 30
    grouped = proportion(np.repeat(answers, 10), np.repeat([f"g{i}" for i in range(40)], 10))
    single = proportion(answers)
    assert grouped.n == 40
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.06)
    assert grouped.high - grouped.low > single.high - single.low
    assert "40 groups" in grouped.method


def test_groups_that_never_err_are_worth_their_number():
    found = proportion(np.ones(400, bool), np.repeat([f"g{i}" for i in range(8)], 50))
    size = 8 * (1.959964 / student_quantile(0.95, 7)) ** 2
    assert found.low == pytest.approx(1 / (1 + 1.959964**2 / size), rel=1e-5)


def test_the_interval_over_groups_covers_the_truth_where_that_over_images_does_not():
    rng = np.random.default_rng(5)
    names, covered = np.repeat([f"g{i}" for i in range(25)], 20), {"groups": [], "images": []}
    for _ in range(400):
        right = rng.random(500) < np.repeat(rng.beta(4, 2, size=25), 20)
        for kind, found in (("groups", proportion(right, names)), ("images", proportion(right))):
            covered[kind].append(found.low <= 4 / 6 <= found.high)
    assert 0.92 <= np.mean(covered["groups"]) <= 0.98
    assert np.mean(covered["images"]) < 0.8


def test_images_without_a_group_stand_alone():
    assert group_codes(["", "", ""]) is None
    assert group_codes(["a", "b"]) is None
    assert sorted(set(group_codes(["a", "", "a", "", "b"]).tolist())) == [0, 1, 2, 3]


def test_the_group_bootstrap_is_wider_where_groups_agree():
    values = np.repeat(np.random.default_rng(0).normal(size=30), 20)
    strata, names = np.zeros(600, int), np.repeat([f"g{i}" for i in range(30)], 20)
    grouped, single = (bootstrap(lambda w: w @ values / 600, strata, groups=groups) for groups in (names, None))
    assert (grouped.high - grouped.low) / (single.high - single.low) == pytest.approx(np.sqrt(20), rel=0.15)
    assert grouped.n == 30
    assert grouped.method.startswith("group bootstrap")


def test_the_difference_of_matched_pairs_by_hand():
    """b = 12, c = 4, n = 50: (12 - 4) / 52 ± 1.96 / 52 · sqrt(17 - 64 / 52)."""
    first = np.r_[np.ones(12, bool), np.zeros(4, bool), np.ones(34, bool)]
    second = np.r_[np.zeros(12, bool), np.ones(4, bool), np.ones(34, bool)]
    found = paired_difference(first, second)
    half = 1.959964 / 52 * np.sqrt(17 - 64 / 52)
    assert (found.value, found.low, found.high) == pytest.approx((8 / 50, 8 / 52 - half, 8 / 52 + half), abs=1e-6)


def test_the_difference_of_matched_pairs_covers_the_truth():
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(1500):
        draw = rng.random(120)
        found = paired_difference(draw < 0.75, (draw < 0.6) | (draw > 0.92))
        covered.append(found.low <= 0.75 - 0.68 <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.975


def test_pairs_must_be_as_many():
    with pytest.raises(DataError, match="2 and 3"):
        paired_difference(np.ones(2, bool), np.ones(3, bool))
