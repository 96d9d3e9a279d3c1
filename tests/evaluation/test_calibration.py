import numpy as np
import pytest

from convsmith.evaluation.calibration import equal_mass_bins, expected_calibration_error, reliability


def drawn(rng, n, sharpening=1.0):
    """Images of true probabilities 0.5 to 1, the confidence shown for them, and whether they were right."""
    true = 0.5 + 0.499 * rng.beta(4, 1.2, size=n)
    shown = 1 / (1 + ((1 - true) / true) ** sharpening)
    return true, shown, rng.random(n) < true


def plain(shown, against, labels):
    sizes = np.bincount(labels)
    return np.abs(np.bincount(labels, weights=against - shown)).sum() / sizes.sum()


def test_a_calibrated_network_is_called_so_where_the_plain_figure_would_not():
    rng = np.random.default_rng(0)
    found, naive = [], []
    for seed in range(200):
        _, shown, right = drawn(rng, 500)
        found.append(expected_calibration_error(shown, right, repeats=500, seed=seed))
        naive.append(plain(shown, right, equal_mass_bins(shown)))
    assert np.mean([estimate.low == 0 for estimate in found]) >= 0.93
    assert np.median([estimate.value for estimate in found]) < 0.02 < 0.03 < np.median(naive)


@pytest.mark.parametrize("n", [200, 1000])
def test_the_interval_covers_the_truth_of_an_overconfident_network(n):
    rng = np.random.default_rng(n)
    true, shown, _ = drawn(rng, 200_000, sharpening=2.0)
    truth = plain(shown, true, equal_mass_bins(shown, min(15, n // 20)))
    covered = []
    for seed in range(150):
        _, shown, right = drawn(rng, n, sharpening=2.0)
        found = expected_calibration_error(shown, right, repeats=500, seed=seed)
        covered.append(found.low <= truth <= found.high)
    assert truth > 0.05
    assert np.mean(covered) >= 0.86


def test_a_gross_error_is_measured_by_hand():
    """Always 0.9 sure, always right for half: an error of 0.4 in one bin."""
    confidence, right = np.full(1000, 0.9), np.arange(1000) % 2 == 0
    found = expected_calibration_error(confidence, right)
    assert found.value == pytest.approx(0.4, abs=0.005)
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 1000), rel=0.1)


def test_groups_widen_the_interval():
    rng = np.random.default_rng(1)
    confidence, right = np.full(1000, 0.8), np.repeat(rng.random(50) < 0.5, 20)
    alone, grouped = (
        expected_calibration_error(confidence, right, groups=groups)
        for groups in (None, np.repeat([f"g{i}" for i in range(50)], 20))
    )
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    assert grouped.n == 50


def test_no_image_has_no_calibration():
    assert expected_calibration_error(np.zeros(0), np.zeros(0, bool)).value is None
    assert reliability(np.zeros(0), np.zeros(0, bool)) == []


def test_bins_hold_equal_shares_and_equal_confidences_stay_together():
    rng = np.random.default_rng(0)
    assert set(np.bincount(equal_mass_bins(rng.random(600)))) == {40}
    tied = np.repeat([0.3, 1.0], [100, 500])
    assert np.bincount(equal_mass_bins(tied)).tolist() == [100, 500]
    order = rng.permutation(600)
    assert np.array_equal(equal_mass_bins(tied)[order], equal_mass_bins(tied[order]))


def test_the_reliability_diagram_counts_every_image_once_and_ascends():
    rng = np.random.default_rng(2)
    _, shown, right = drawn(rng, 437)
    rows = reliability(shown, right)
    assert sum(row.n for row in rows) == 437
    assert [row.confidence for row in rows] == sorted(row.confidence for row in rows)
    assert sum(row.accuracy.value * row.n for row in rows) == pytest.approx(right.sum())


def test_images_of_one_group_still_have_a_figure_though_their_accuracy_has_no_interval():
    """Such a test set ended a whole run with a TypeError: there were no limits to widen by."""
    found = expected_calibration_error(np.full(6, 0.7), np.ones(6, bool), groups=["p05"] * 6)
    assert found.value is not None
    assert found.n == 1
