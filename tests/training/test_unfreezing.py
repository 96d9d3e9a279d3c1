"""Parts that wait before they learn cost nothing and stay bit for bit, and learn from their time on."""

import itertools

import pytest
import torch
from torch import nn
from toys import differences, make_batches, make_loop, snapshot

from convsmith.training import Thaw
from convsmith.training.unfreezing import thaw

STEPS = 10


def make_net():
    torch.manual_seed(3)
    early = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    late = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    return nn.Sequential(early, late, nn.Linear(4 * 36, 3))


def waiting(net, *, early=0.6, late=0.3, norms=True):
    parts = [(early, net[0]), (late, net[1])]
    return [Thaw(at, tuple(part.parameters()), (part[1],) if norms else ()) for at, part in parts]


def loop_of(net=None, **options):
    net = net or make_net()
    return make_loop(net, average=None, steps=STEPS, report_every=1, thaws=waiting(net, **options))


def moved(before, after, start):
    return any(not torch.equal(before[name], tensor) for name, tensor in after.items() if name.startswith(start))


def test_each_part_moves_from_its_step_on_and_not_before():
    loop = loop_of()
    states = [{name: tensor.clone() for name, tensor in loop.model.state_dict().items()}]
    for event in loop.run(make_batches()):
        if event.kind in {"progress", "epoch"}:
            states.append({name: tensor.clone() for name, tensor in loop.model.state_dict().items()})
    assert len(states) == STEPS + 1
    for step, (before, after) in enumerate(itertools.pairwise(states)):
        assert moved(before, after, "2."), step
        assert moved(before, after, "1.") == (step >= 3), step
        assert moved(before, after, "0.") == (step >= 6), step


def test_what_waits_gets_no_gradient_and_its_norms_keep_their_statistics():
    net = make_net()
    early, late, _ = net
    loop = loop_of(net)
    for event in loop.run(make_batches()):
        if event.kind == "progress" and event.step <= 6:
            assert all(parameter.grad is None for parameter in early.parameters())
            assert not early[1].training
            assert int(early[1].num_batches_tracked) == 0
    assert int(early[1].num_batches_tracked) == 4
    assert int(late[1].num_batches_tracked) == 7


def test_a_resumed_loop_thaws_as_an_unbroken_one_does():
    whole = loop_of()
    list(whole.run(make_batches()))
    first = loop_of()
    for event in first.run(make_batches()):
        if event.step == 4:
            first.request_stop()
    state = snapshot(first)
    second = loop_of()
    second.load_state_dict(state)
    list(second.run(make_batches()))
    assert differences(snapshot(whole), snapshot(second)) == []


@pytest.mark.parametrize(("step", "trained"), [(0, False), (4, False), (5, True), (9, True)])
def test_a_part_is_trained_from_its_share_of_the_steps_on(step, trained):
    layer = nn.Linear(2, 2)
    thaw([Thaw(0.5, tuple(layer.parameters()))], step, 10)
    assert all(parameter.requires_grad == trained for parameter in layer.parameters())


def test_a_gradient_from_before_does_not_move_what_is_frozen():
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    thaw([Thaw(0.5, tuple(layer.parameters()))], 0, 10)
    assert layer.weight.grad is None
