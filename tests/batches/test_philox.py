"""Draws agree with the published numbers, look uniform, and depend on their key alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from convsmith.batches import Keys, keys_of, operation_id, philox, uniform
from convsmith.errors import UsageError

ALL = 0xFFFFFFFF
KNOWN_ANSWERS = [  # Random123's kat_vectors, philox4x32 with 10 rounds
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((ALL, ALL, ALL, ALL), (ALL, ALL), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def scalar_philox(counter, key):
    """The ten rounds as the paper writes them, in Python's own whole numbers."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & ALL, (p0 >> 32) ^ c[3] ^ k1, p0 & ALL]
        k0, k1 = (k0 + 0x9E3779B9) & ALL, (k1 + 0xBB67AE85) & ALL
    return c


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_known_answers(counter, key, answer):
    assert " ".join(f"{int(word):08x}" for word in philox(counter, key)) == answer


def test_many_counters_at_once_give_what_each_gives_alone():
    random = np.random.default_rng(0)
    counters, key = random.integers(0, 2**32, (4, 20_000)), (123, 456)  # more than one pass of lanes
    words = philox(counters, key)
    for lane in (0, 1, 8191, 8192, 19_999):
        assert words[:, lane].tolist() == scalar_philox(counters[:, lane].tolist(), key)


def test_a_draw_is_the_scalar_function_of_seed_epoch_position_and_name():
    seed = (7 << 32) + 5
    draws = uniform(np.array([[3, 4711]]), "flip", seed, 6)[0]
    words = [word for block in (0, 1) for word in scalar_philox((block, operation_id("flip"), 3, 4711), (5, 7))]
    assert draws.tolist() == [(word >> 8) / 2**24 for word in words[:6]]


def test_operation_ids_never_change_because_old_recipes_must_repeat():
    # `printf flip | b2sum -l 32` prints the bytes, the lowest first
    assert (operation_id("flip"), operation_id("order")) == (0x07EEED3D, 0xCBF34691)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**64 - 1))
def test_draws_do_not_depend_on_what_else_is_drawn(epoch, start, n, count, seed):
    keys = keys_of(epoch, start, start + n)
    many = uniform(keys, "shift", seed, count)
    order = np.random.default_rng(0).permutation(n)
    assert np.array_equal(uniform(keys[order], "shift", seed, count), many[order])
    assert np.array_equal(uniform(keys[:1], "shift", seed, count + 5)[:, :count], many[:1])
    assert np.array_equal(Keys(keys, seed).uniform("shift", count), many)


def test_draws_are_uniform():
    draws = uniform(keys_of(0, 0, 20_000), "colour", 0, 5)
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3


def test_draws_of_operations_positions_epochs_and_seeds_are_independent():
    keys, next_epoch = keys_of(0, 0, 20_001), keys_of(1, 0, 20_000)
    first = uniform(keys[:-1], "flip", 0, 1)[:, 0]
    others = {
        "operation": uniform(keys[:-1], "shift", 0, 1)[:, 0],
        "position": uniform(keys[1:], "flip", 0, 1)[:, 0],
        "epoch": uniform(next_epoch, "flip", 0, 1)[:, 0],
        "seed": uniform(keys[:-1], "flip", 1, 1)[:, 0],
        "column": uniform(keys[:-1], "flip", 0, 2)[:, 1],
    }
    for name, other in others.items():
        cells, _, _ = np.histogram2d(first, other, bins=10)
        assert stats.chi2_contingency(cells).pvalue > 1e-3, name


def test_no_images_draw_nothing():
    assert uniform(keys_of(0, 5, 5), "flip", 0, 3).shape == (0, 3)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(UsageError, match=r"must be in \[0, 2\^64\)"):
        uniform(keys_of(0, 0, 1), "flip", seed, 1)
