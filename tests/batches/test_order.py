"""Each image once per epoch, whatever the batch size and the number of processes."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from convsmith.batches import balanced, operation_id, permutation, philox, rank_span, span, steps_per_epoch
from convsmith.errors import UsageError

SIZES = st.integers(1, 200)
BATCHES = st.integers(1, 8).map(lambda groups: 8 * groups)


@given(SIZES, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_an_order_is_a_permutation_and_a_function_of_seed_and_epoch(n, seed, epoch):
    order = permutation(n, seed=seed, epoch=epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))
    assert np.array_equal(order, permutation(n, seed=seed, epoch=epoch))


def test_an_order_sorts_the_indices_by_64_random_bits_each():
    words = philox((np.arange(5), operation_id("order"), 3, 0), (11, 0)).tolist()
    bits = [(high << 32) + low for high, low in zip(words[0] + words[2], words[1] + words[3], strict=True)]
    assert permutation(10, seed=11, epoch=3).tolist() == sorted(range(10), key=lambda index: bits[index])


def test_orders_of_other_epochs_and_seeds_are_others():
    orders = {tuple(permutation(50, seed=seed, epoch=epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_every_order_of_four_images_is_equally_likely():
    orders = [tuple(permutation(4, seed=9, epoch=epoch)) for epoch in range(4800)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_an_order_of_many_images_shows_no_trend():
    order = permutation(50_001, seed=0, epoch=0)
    assert abs(stats.spearmanr(order, np.arange(50_001)).statistic) < 0.02
    assert sorted(order.tolist()) == list(range(50_001))


@given(SIZES, BATCHES)
@example(64 + 7, 64)
@example(7, 64)
def test_the_spans_of_an_epoch_cover_it_and_a_remainder_below_eight_joins_the_last(n, batch_size):
    spans = [span(step, n, batch_size) for step in range(steps_per_epoch(n, batch_size))]
    assert [position for start, stop in spans for position in range(start, stop)] == list(range(n))
    assert all(stop - start == batch_size for start, stop in spans[:-1])
    last = spans[-1][1] - spans[-1][0]
    assert last >= min(n, 8)
    assert last < batch_size + 8


@settings(max_examples=300)
@given(st.integers(0, 20).map(lambda g: 8 * g), st.integers(0, 200), st.integers(1, 9))
def test_ranks_share_a_span_in_order_evenly_and_in_whole_groups_of_eight(start, length, world):
    stop = start + length
    parts = [rank_span(start, stop, rank, world) for rank in range(world)]
    assert [p for first, last in parts for p in range(first, last)] == list(range(start, stop))
    assert all(first % 8 == 0 for first, last in parts if last > first)
    assert all(last - first >= min(8, length) for first, last in parts if last > first)
    groups = [max((last - first) // 8, last > first) for first, last in parts]
    assert groups == sorted(groups, reverse=True)
    assert max(groups) - min(groups) <= 1


def test_a_share_worked_by_hand():
    assert [span(step, 69, 32) for step in (0, 1)] == [(0, 32), (32, 69)]  # 5 left over join the second
    assert [rank_span(32, 69, rank, 3) for rank in range(3)] == [(32, 48), (48, 56), (56, 69)]  # 5 join the 8 before
    assert [rank_span(0, 16, rank, 4) for rank in range(4)] == [(0, 8), (8, 16), (16, 16), (16, 16)]
    assert [rank_span(8, 13, rank, 2) for rank in range(2)] == [(8, 13), (13, 13)]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: steps_per_epoch(100, 20), r"batch size is 20.* Use 16 or 24\."),
        (lambda: steps_per_epoch(100, 0), r"batch size is 0.* Use 8 or 16\."),
        (lambda: steps_per_epoch(0, 8), "no images"),
        (lambda: span(4, 32, 8), "step is 4, but an epoch over 32 images in batches of 8 has steps 0 to 3"),
        (lambda: span(-1, 32, 8), "step is -1"),
        (lambda: rank_span(0, 8, 2, 2), r"rank is 2, but must be in \[0, 2\)"),
    ],
)
def test_impossible_shares_are_refused_with_the_values(call, says):
    with pytest.raises(UsageError, match=says):
        call()


def test_fewer_than_eight_images_may_form_a_batch_of_any_size():
    assert steps_per_epoch(5, 3) in (1, 2)
    assert span(0, 5, 5) == (0, 5)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=7), st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_a_balanced_epoch_shows_classes_alike_and_repeats_whole_times(counts, seed, epoch):
    classes = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    n, k = len(classes), len(counts)
    order = balanced(1 / np.bincount(classes)[classes], classes, seed=seed, epoch=epoch)
    assert len(order) == n
    assert np.abs(np.bincount(classes[order], minlength=k) - n / k).max() <= 1 + 1e-9
    copies = np.bincount(order, minlength=n)
    for label, count in enumerate(counts):
        own = copies[classes == label]
        assert own.max() - own.min() <= 1
        assert np.abs(own - n / k / count).max() < 1 + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=2, max_size=50), st.integers(0, 99))
def test_any_weights_give_each_image_the_whole_number_below_or_above_what_it_is_worth(weights, seed):
    weights = np.array([*weights, 1.0])
    order = balanced(weights, np.zeros(len(weights), np.int64), seed=seed, epoch=0)
    copies, expected = np.bincount(order, minlength=len(weights)), len(weights) * weights / weights.sum()
    assert len(order) == len(weights)
    assert np.abs(copies - expected).max() < 1 + 1e-9
    assert copies[weights == 0].sum() == 0


def test_over_many_epochs_each_image_comes_as_often_as_its_weight_says():
    classes = np.repeat([0, 1, 2], [30, 7, 3])
    weights = 1 / np.bincount(classes)[classes]
    total = sum(np.bincount(balanced(weights, classes, seed=3, epoch=e), minlength=40) for e in range(2000))
    expected = 2000 * 40 / 3 / np.bincount(classes)[classes]
    assert np.abs(total / expected - 1).max() < 0.1  # 889 copies of each of the thirty, give or take 22


def test_a_balanced_order_is_shuffled_and_another_one_in_each_epoch():
    classes = np.repeat([0, 1], [90, 10])
    orders = [balanced(1 / np.bincount(classes)[classes], classes, seed=0, epoch=e) for e in range(2)]
    assert not np.array_equal(*orders)
    assert all(20 <= classes[order[:50]].sum() <= 30 + 5 for order in orders)
    assert np.array_equal(orders[0], balanced(1 / np.bincount(classes)[classes], classes, seed=0, epoch=0))
