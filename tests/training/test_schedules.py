"""The learning rate at each step, against values worked by hand and against torch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convsmith.training.schedules import SCHEDULES, constant, cosine, one_cycle


def factors(schedule, total):
    return [schedule(step, total) for step in range(total)]


def test_one_cycle_worked_by_hand():
    expected = [0.1 + 0.9 / 2, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert factors(one_cycle(2), 6) == pytest.approx(expected)
    assert factors(one_cycle(0, final=0.5), 4) == pytest.approx([1.0, 0.875, 0.75, 0.625])
    assert factors(one_cycle(4, start=0.0), 5) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_cosine_worked_by_hand():
    assert factors(cosine(2), 5) == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.25])
    assert factors(cosine(0, final=0.2), 2) == pytest.approx([1.0, 0.6])


def test_constant_stays_at_the_peak():
    assert factors(constant(4), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("total", "final"), [(1, 0.0), (10, 0.0), (37, 0.1)])
def test_cosine_without_warm_up_equals_torch(total, final):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total, eta_min=final)
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert factors(cosine(0, final), total) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", list(SCHEDULES))
@given(
    warmup=st.integers(1, 50), step=st.integers(0, 49), totals=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6))
)
def test_warm_up_does_not_depend_on_the_total(name, warmup, step, totals):
    schedule = SCHEDULES.build(name, warmup_steps=warmup)
    step = step % warmup
    assert schedule(step, totals[0]) == schedule(step, totals[1])
    assert schedule(step, totals[0]) <= schedule(warmup - 1, 0) == pytest.approx(1.0)


@pytest.mark.parametrize("name", list(SCHEDULES))
@given(warmup=st.integers(0, 20), total=st.integers(1, 200))
def test_factors_rise_to_the_peak_then_never_rise_and_no_step_is_wasted(name, warmup, total):
    values = factors(SCHEDULES.build(name, warmup_steps=warmup), total)
    assert all(0 < value <= 1 + 1e-12 for value in values)
    assert values[:warmup] == sorted(values[:warmup])
    assert values[warmup:] == sorted(values[warmup:], reverse=True)
    if total > warmup:
        assert max(values) == pytest.approx(1.0)


def test_a_step_past_the_total_stays_at_the_end():
    assert one_cycle(0, final=0.1)(50, 10) == pytest.approx(0.1)
