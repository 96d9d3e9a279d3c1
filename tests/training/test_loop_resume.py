"""A run resumed at any step ends as the uninterrupted one, bit for bit, having seen the same images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import differences, make_augment, make_batches, make_loop, make_net, snapshot, trace_of

from convsmith.errors import UsageError
from convsmith.tasks import classification
from convsmith.training import Loop, Writer, last_checkpoint, seed_all
from convsmith.training.optimizers import adamw

STEPS = 9  # three epochs of 16, 16 and 8 images


def fresh(**options):
    augment = make_augment(3)
    seed_all(3)
    net = make_net(seed=3).to(memory_format=torch.channels_last)
    return make_loop(net, augment=augment, trace=trace_of(augment), epochs=3, report_every=2, **options)


def finish(loop):
    """Train to the end; what was seen, and the state that is left."""
    seen = [(event.step, event.values) for event in loop.run(make_batches(seed=3)) if event.kind == "batch"]
    return seen, snapshot(loop)


@pytest.fixture(scope="module")
def uninterrupted():
    return finish(fresh())


def stop_at(step, **options):
    """Train to `step`, and what a checkpoint there would hold."""
    loop = fresh(**options)
    if step:
        for event in loop.run(make_batches(seed=3)):
            if event.kind == "batch" and event.step == step:
                loop.request_stop()
    return loop, snapshot(loop)


@pytest.mark.parametrize("step", range(STEPS + 1))
def test_resuming_at_any_step_equals_the_uninterrupted_run(step, uninterrupted, tmp_path):
    stopped, state = stop_at(step)
    writer = Writer(tmp_path)
    with stopped.deployed() as model:
        writer.save(state, model.state_dict(), 0)
    writer.wait()
    seed_all(99)  # another process stands elsewhere
    torch.rand(17)
    loop = fresh()
    loop.load_state_dict(last_checkpoint(tmp_path).state())
    assert loop.step == step
    seen, end = finish(loop)
    expected_seen, expected = uninterrupted
    assert seen == [(s, values) for s, values in expected_seen if s > step]
    assert differences(end, expected) == []


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, STEPS), min_size=1, max_size=4).map(sorted))
def test_resuming_any_number_of_times_equals_the_uninterrupted_run(uninterrupted, steps):
    seen, state = [], None
    for step in [*steps, STEPS]:
        loop = fresh()
        if state is not None:
            loop.load_state_dict(state)
        for event in loop.run(make_batches(seed=3)) if loop.step < step else ():
            if event.kind == "batch":
                seen.append((event.step, event.values))
                if event.step == step:
                    loop.request_stop()
        state = snapshot(loop)
    assert seen == uninterrupted[0]
    assert differences(state, uninterrupted[1]) == []


def test_the_comparison_sees_a_lost_draw_and_a_lost_bit(uninterrupted):
    loop, _ = stop_at(4)
    loop.stop_reason = 0
    torch.rand(1)
    _, end = finish(loop)
    assert any("model" in place for place in differences(end, uninterrupted[1]))
    changed = {"a": torch.tensor([1.0])}
    assert differences(changed, {"a": torch.nextafter(changed["a"], torch.tensor([2.0]))}) == ["state.a"]


def test_reported_means_go_on_across_a_resume():
    def losses(loop):
        return [
            (event.step, event.values["loss"])
            for event in loop.run(make_batches(seed=3))
            if event.kind in ("progress", "epoch")
        ]

    whole = losses(fresh())
    _, state = stop_at(5)  # in the middle of an interval
    loop = fresh()
    loop.load_state_dict(state)
    assert losses(loop) == [(step, loss) for step, loss in whole if step > 5]


def test_adamw_without_average_resumes_bit_for_bit():
    def loop():
        torch.manual_seed(0)
        net = make_net()
        return Loop(net, classification(), {"model": adamw(net.named_parameters())}, epochs=2, transform=make_augment())

    whole = loop()
    list(whole.run(make_batches()))
    part = loop()
    for event in part.run(make_batches()):
        if event.step == 3:
            break
    state = snapshot(part)  # before another network is made, which draws
    resumed = loop()
    resumed.load_state_dict(state)
    list(resumed.run(make_batches()))
    assert differences(snapshot(resumed), snapshot(whole)) == []


class Pairs(list):
    """A sized iterable of `(images, targets)`."""


def make_pairs():
    batches, augment = make_batches(), make_augment()
    return Pairs((augment(batches.at(0, s)).images, batches.at(0, s).targets) for s in range(len(batches)))


def pair_loop():
    net = make_net()
    return Loop(net, classification(), {"model": adamw(net.named_parameters())}, epochs=3, report_every=1)


@pytest.mark.parametrize("step", range(STEPS + 1))
def test_an_iterable_is_resumed_at_epoch_borders_and_refused_elsewhere(step):
    whole = pair_loop()
    seed_all(0)
    list(whole.run(make_pairs()))
    part = pair_loop()
    seed_all(0)
    if step:
        for event in part.run(make_pairs()):
            if event.step == step:
                break
    state = snapshot(part)  # before another network is made, which draws
    resumed = pair_loop()
    resumed.load_state_dict(state)
    if step % 3:
        with pytest.raises(UsageError, match=rf"stands at step {step % 3} of epoch {step // 3}.*Save at the end"):
            list(resumed.run(make_pairs()))
    else:
        list(resumed.run(make_pairs()))
        assert differences(snapshot(resumed), snapshot(whole)) == []
