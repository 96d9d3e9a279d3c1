"""Costs before and after a change, and times taken in turns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convsmith.design import doubling
from convsmith.networks.counting import costs as module
from convsmith.networks.counting.costs import Clock, Difference, bare, cost_of, costs, design_costs, field_of


def test_one_figure_by_itself_is_that_of_all_of_them():
    design = doubling(width=8, depth=1, stages=2)
    known = design_costs(design, (3, 12, 12), 5)
    model = bare(design, (3, 12, 12), 5)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert [cost_of(model, (3, 12, 12), what) for what in ("parameters", "macs", "memory")] == [
        known.parameters,
        known.macs,
        known.memory,
    ]
    assert field_of(model, (3, 12, 12)) == known.field
    with pytest.raises(ValueError, match="latency"):
        cost_of(model, (3, 12, 12), "latency")


def test_what_is_not_known_has_no_difference():
    class Unknown(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.rfft(x).abs()

    one, other = costs(nn.Conv2d(3, 3, 3), (3, 8, 8)), costs(Unknown(), (3, 8, 8))
    difference = Difference(one, other)
    assert (difference.parameters, difference.macs) == (-84, None)
    assert other.to_json()["macs"] is None


def test_time_is_the_ratio_to_the_first_network_whatever_the_machine_does(monkeypatch: pytest.MonkeyPatch):
    hands, speed = [0.0], [1.0]

    class Slow(nn.Module):
        """Takes so many seconds of a clock that is not the machine's."""

        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            hands[0] += self.seconds * speed[0]
            return x

    monkeypatch.setattr(module.time, "perf_counter", lambda: hands[0])
    clock = Clock(Slow(0.02), (3, 4, 4))
    assert clock.seconds == pytest.approx(0.02)
    speed[0] = 7.0  # the machine is busy with something else
    assert clock.time(Slow(0.05)) == pytest.approx(0.05)
