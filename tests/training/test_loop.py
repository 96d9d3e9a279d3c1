"""The loop trains plain modules, says when things are due, and never waits for the device in between."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from toys import CLASSES, make_augment, make_batches, make_images, make_loop, make_net, snapshot, trace_of

from convsmith.errors import UsageError
from convsmith.tasks import classification
from convsmith.training import Loop
from convsmith.training.optimizers import sgd


def kinds(events, *names):
    return [(event.kind, event.step) for event in events if not names or event.kind in names]


def pairs(n=3, size=8):
    images, targets = make_images(n * size)
    x = (torch.from_numpy(images).float() / 255 - 0.3) / 0.25
    return [(x[i * size : (i + 1) * size], torch.from_numpy(targets[i * size : (i + 1) * size])) for i in range(n)]


def plain_loop(net, **options):
    options = options or {"epochs": 1}
    return Loop(net, classification(), {"model": sgd(net.named_parameters(), rate=0.05)}, **options)


# ------------------------------------------------------------------------------------------------------------ training


def test_it_learns_from_batches():
    loop = make_loop(epochs=12, average=None)
    losses = [event.values["loss"] for event in loop.run(make_batches()) if event.kind == "epoch"]
    assert len(losses) == 12
    assert losses[0] > 0.8
    assert losses[-1] < 0.75 * losses[0]


def test_it_learns_from_a_list_of_images_and_targets():
    net = make_net(dropout=0.0)
    losses = [event.values["loss"] for event in plain_loop(net, epochs=15).run(pairs()) if event.kind == "epoch"]
    assert losses[-1] < 0.1 < losses[0]
    data = pairs()
    right = sum(int((net.eval()(images).argmax(1) == targets).sum()) for images, targets in data)
    assert right == 24


def test_the_first_loss_of_an_untrained_network_is_about_log_of_the_number_of_classes():
    net = make_net()
    nn.init.zeros_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    first = next(event for event in make_loop(net, report_every=1).run(make_batches()) if event.kind == "progress")
    assert first.values["loss"] == pytest.approx(math.log(CLASSES), rel=1e-5)


def test_the_loss_reported_is_the_mean_over_images_and_its_gradient_that_of_torch():
    data = pairs(1)
    net, reference = make_net(dropout=0.0), make_net(dropout=0.0)
    loop = plain_loop(net, epochs=1)
    (event, _) = loop.run(data)
    loss = nn.functional.cross_entropy(reference(data[0][0]), data[0][1])
    loss.backward()
    assert event.values["loss"] == pytest.approx(loss.item(), rel=1e-6)
    for ours, theirs in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_clipping_bounds_the_gradient_norm():
    net = make_net()
    for _ in make_loop(net, clip=1e-3, steps=1).run(make_batches()):
        pass
    norm = torch.stack([p.grad.norm() for p in net.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_bfloat16_computes_in_bfloat16_and_updates_in_float32():
    net, seen = make_net(), []
    with net[0].register_forward_hook(lambda *a: seen.append(a[-1].dtype)) as _:
        for _ in make_loop(net, precision="bfloat16", steps=2).run(make_batches()):
            pass
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in net.parameters()} == {torch.float32}


def test_rates_follow_the_schedule_from_the_optimisers_own_rate():
    loop = make_loop(schedule=lambda step, total: (step + 1) / total, steps=4, report_every=1, average=None)
    rates = [event.values["rate"] for event in loop.run(make_batches()) if event.kind in ("progress", "epoch")]
    assert rates == pytest.approx([0.05 * (i + 1) / 4 for i in range(4)])


# -------------------------------------------------------------------------------------------------------------- events


def test_events_come_at_their_steps():
    loop = make_loop(epochs=2, report_every=2, tune_every=3, checkpoint_every=4)  # three steps an epoch
    assert kinds(loop.run(make_batches())) == [
        ("progress", 2),
        ("epoch", 3),
        ("tune", 3),
        ("progress", 4),
        ("checkpoint", 4),
        ("epoch", 6),
        ("tune", 6),
        ("stopped", 6),
    ]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(1, 9))
def test_events_come_at_multiples_of_their_intervals_and_never_at_zero(report, tune, checkpoint, steps):
    loop = make_loop(steps=steps, report_every=report, tune_every=tune, checkpoint_every=checkpoint, average=None)
    events = list(loop.run(make_batches()))
    for kind, every in (("tune", tune), ("checkpoint", checkpoint)):
        assert [s for k, s in kinds(events, kind)] == [s for s in range(1, steps + 1) if every and s % every == 0]
    assert [s for k, s in kinds(events, "epoch")] == [s for s in range(1, steps + 1) if s % 3 == 0]
    expected = [s for s in range(1, steps + 1) if s % 3 == 0 or (report and s % report == 0)]
    assert [s for k, s in kinds(events, "progress", "epoch")] == expected
    assert (events[-1].kind, events[-1].values) == ("stopped", {"reason": 0, "done": True})


def test_means_cover_the_steps_since_the_last_report_and_each_image_once():
    loop = make_loop(steps=6, report_every=2, average=None)
    trace = []
    original = loop._sums.add
    loop._sums.add = lambda name, loss, count: (trace.append((loss.item(), count)), original(name, loss, count))
    reported = [event.values["loss"] for event in loop.run(make_batches()) if event.kind in ("progress", "epoch")]
    assert [count for _, count in trace] == [16, 16, 8] * 2
    groups = [trace[0:2], trace[2:3], trace[3:4], trace[4:6]]
    expected = [sum(loss for loss, _ in group) / sum(count for _, count in group) for group in groups]
    assert reported == pytest.approx(expected)


def test_a_length_in_epochs_is_known_from_the_first_step_and_steps_may_be_set_later():
    loop = make_loop(epochs=2)
    assert loop.total is None
    for _ in loop.run(make_batches()):
        assert loop.total == 6
    warm = make_loop(steps=2)
    assert kinds(warm.run(make_batches()), "stopped") == [("stopped", 2)]
    warm.total = 5
    assert kinds(warm.run(make_batches())) == [("epoch", 3), ("stopped", 5)]
    assert warm.done


@pytest.mark.parametrize("lengths", [{}, {"epochs": 1, "steps": 1}])
def test_a_length_is_needed_once(lengths):
    net = make_net()
    with pytest.raises(UsageError, match="needs its length once: epochs or steps"):
        Loop(net, classification(), {"model": sgd(net.named_parameters())}, **lengths)


@pytest.mark.parametrize("when", [0, 1, 4])
def test_a_stop_is_heeded_at_the_next_step(when):
    loop = make_loop(epochs=3, report_every=1)
    if when == 0:
        loop.request_stop(130)
    events = []
    for event in loop.run(make_batches()):
        events.append(event)
        if event.step == when and event.kind != "stopped":
            loop.request_stop(130)
            loop.request_stop(1)  # the largest wins
    assert (loop.step, loop.stop_reason, loop.done) == (when, 130, False)
    assert (events[-1].kind, events[-1].values) == ("stopped", {"reason": 130, "done": False})


def test_leaving_the_for_leaves_a_loop_that_can_go_on():
    loop = make_loop(epochs=1, report_every=1)
    for event in loop.run(make_batches()):
        if event.step == 2:
            break
    assert loop.step == 2
    assert kinds(loop.run(make_batches())) == [("epoch", 3), ("stopped", 3)]


def test_the_trace_names_every_image_of_every_step():
    augment = make_augment()
    loop = make_loop(augment=augment, epochs=1, trace=trace_of(augment))
    events = [event for event in loop.run(make_batches()) if event.kind == "batch"]
    assert [len(event.values["ids"]) for event in events] == [16, 16, 8]
    assert sorted(i for event in events for i in event.values["ids"]) == sorted(f"image-{i}" for i in range(40))
    assert len({draw for event in events for draw in event.values["draws"]}) == 40


def test_the_deployed_model_is_the_averaged_one_and_only_within():
    loop = make_loop(epochs=1)
    list(loop.run(make_batches()))
    raw = loop.model[0].weight.clone()
    with loop.deployed() as model:
        assert model is loop.model
        assert torch.equal(model[0].weight, loop.average.state_dict()["weights"]["0.weight"])
        assert not torch.equal(model[0].weight, raw)
    assert torch.equal(loop.model[0].weight, raw)


# --------------------------------------------------------------------------------------------------------------- waits


class Waits(TorchDispatchMode):
    """Counts what makes the CPU wait for the device: reading numbers off a tensor (item, bool, float, tolist, cpu)."""

    METHODS = ("tolist", "numpy", "cpu")  # these pass by the dispatcher on a CPU

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        for name in self.METHODS:
            monkeypatch.setattr(torch.Tensor, name, self.counted(getattr(torch.Tensor, name)))

    def counted(self, method):
        def counting(*arguments, **options):
            self.count += 1
            return method(*arguments, **options)

        return counting

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += any(word in str(function) for word in ("_local_scalar_dense", "nonzero", "equal.default"))
        return function(*args, **(kwargs or {}))


def test_the_counter_of_waits_sees_each_way_to_wait(monkeypatch):
    tensor = torch.ones(1)
    with Waits(monkeypatch) as waits:
        for wait in (torch.Tensor.item, float, bool, int, torch.Tensor.tolist, torch.Tensor.cpu, torch.nonzero):
            before = waits.count
            wait(tensor)
            assert waits.count > before, wait


@pytest.mark.parametrize("options", [{}, {"clip": 1.0}, {"precision": "bfloat16"}, {"average": None}])
def test_no_step_waits_for_the_device_between_reports(options, monkeypatch):
    counts = []
    loop = make_loop(steps=9, report_every=0, tune_every=1, **options)  # an event each step, that reads nothing
    with Waits(monkeypatch) as waits:
        for event in loop.run(make_batches()):
            if event.kind == "epoch":
                assert waits.count > 0  # a report reads its sums: the counter works
                waits.count = 0
            else:
                counts.append(waits.count)
    assert counts == [0] * 10


@pytest.mark.gpu
def test_no_step_waits_for_a_gpu_between_reports():
    loop = make_loop(make_net().cuda(), steps=6, report_every=0, tune_every=1, clip=1.0)
    batches = make_batches(200, batch_size=16)
    batches.images, batches.targets = torch.from_numpy(batches.images).cuda(), batches.targets.cuda()
    batches.order(0)
    try:
        for event in loop.run(batches):
            if event.kind == "tune" and event.step == 2:  # the first steps build what is kept
                torch.cuda.set_sync_debug_mode("error")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loop.step == 6


# -------------------------------------------------------------------------------------------------------------- errors


def test_an_optimiser_that_the_task_asks_for_and_nobody_gave_is_named():
    net = make_net()
    loop = Loop(net, classification(), {"modle": sgd(net.named_parameters())}, epochs=1)
    with pytest.raises(UsageError, match=r"parameter group 'model'.*Did you mean modle\?"):
        list(loop.run(pairs()))


def test_an_iterable_without_length_is_refused():
    with pytest.raises(UsageError, match="has no length"):
        next(plain_loop(make_net()).run(iter(pairs())))


def test_loading_a_state_leaves_it_untouched_and_shared_with_nobody():
    first = make_loop(report_every=2)
    for event in first.run(make_batches()):
        if event.step == 2:
            break
    state = first.state_dict()
    before = snapshot(first)
    second = make_loop()
    second.load_state_dict(state)
    list(second.run(make_batches()))
    from toys import differences

    assert differences(first.state_dict() | {"random": None}, before | {"random": None}) == []
