"""Two processes train as one: same images, same draws, same gradients; and neither outlives the other by long."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from gloo_worker import CASES, STEPS, gradients
from toys import differences, make_augment, make_batches, make_loop, trace_of

from convsmith.training import SINGLE, joined

WORLD = 2
WORKER = Path(__file__).with_name("gloo_worker.py")


def start(scenario, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, str(WORKER), scenario, str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]


def finish(workers, timeout=120):
    """What each printed; none is left running."""
    try:
        return [worker.communicate(timeout=timeout) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    workers = start("measure", folder)
    printed = finish(workers)
    assert [worker.returncode for worker in workers] == [0] * WORLD, printed
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.fixture(scope="module")
def alone():
    return {case: gradients(case, SINGLE) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_both_see_the_images_and_draws_of_one_process_each_once(measured, alone, case):
    for rank in measured:
        assert rank["cases"][case]["seen"] == alone[case]["seen"]
    n, batch_size = CASES[case]
    per_epoch = len(make_batches(n, batch_size=batch_size))
    first_epoch = [name for step, values in alone[case]["seen"] if step <= per_epoch for name in values["ids"]]
    if per_epoch <= STEPS:
        assert sorted(first_epoch) == sorted(f"image-{i}" for i in range(n))


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_losses_equal_those_of_one_process(measured, alone, case):
    for rank in measured:
        found, expected = rank["cases"][case], alone[case]
        assert found["losses"] == pytest.approx(expected["losses"], rel=1e-9)
        assert len(found["gradients"]) == STEPS
        for ours, theirs in zip(found["gradients"], expected["gradients"], strict=True):
            assert ours.dtype == torch.float64
            assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


def test_a_stop_told_to_one_ends_both_at_the_same_step(measured):
    first, second = (rank["stopped"] for rank in measured)
    assert first["step"] == second["step"] in (4, 5)
    assert first["reason"] == second["reason"] == 143
    assert first["last"] == second["last"] == {"reason": 143, "done": False}
    assert first["events"] == second["events"]


def test_a_stop_that_comes_too_late_is_known_to_both_too(measured):
    for rank in measured:
        assert rank["stopped late"]["last"] == {"reason": 143, "done": True}
        assert rank["stopped late"]["reason"] == 143


def test_a_state_is_the_same_on_both_and_again_after_it_was_loaded(measured):
    first, second = (rank["halves"] for rank in measured)
    assert differences(first["state"], second["state"]) == []
    for half in (first, second):
        assert differences({**half["again"], "random": None}, {**half["state"], "random": None}) == []
    assert differences(first["buffers"], second["buffers"]) == []  # the first one's, on both
    assert len(first["state"]["random"]) == WORLD
    loss, count = first["state"]["sums"]["model"]
    assert float(count) == 32  # both halves of two steps
    assert torch.isfinite(loss)


def test_a_run_of_two_processes_is_resumed_by_one_with_the_same_images(measured):
    augment = make_augment()
    loop = make_loop(augment=augment, steps=6, trace=trace_of(augment))
    loop.load_state_dict({**measured[0]["halves"]["state"], "total": 6})
    seen = [event.values for event in loop.run(make_batches()) if event.kind == "batch"]
    augment = make_augment()
    whole = make_loop(augment=augment, steps=6, trace=trace_of(augment))
    assert seen == [e.values for e in whole.run(make_batches()) if e.kind == "batch" and e.step > 2]


def test_what_the_first_one_tells_all_hear(measured):
    for rank in measured:
        assert (rank["told"], rank["gathered"], rank["largest"]) == ({"rank": 0}, [0, 1], 10)


def test_one_killed_ends_the_other_in_bounded_time_with_a_clear_error(tmp_path):
    workers = start("die", tmp_path)
    try:
        workers[1].wait(timeout=100)
        begin = time.monotonic()
        out, err = workers[0].communicate(timeout=30)
        assert time.monotonic() - begin < 30
    finally:
        finish(workers)
    assert workers[1].returncode == -signal.SIGKILL
    assert workers[0].returncode == 1, err
    assert out.startswith("ConvsmithError: Process 0 of 2 lost another one: "), out + err
    assert "convsmith resume" in out


@pytest.mark.slow
def test_an_error_of_one_is_its_own_and_the_other_ends(tmp_path):
    workers = start("raise", tmp_path)
    (out, err), (_, own) = finish(workers, timeout=60)
    assert "ValueError: of my own" in own
    assert "lost another one" in out, err


def test_alone_every_agreement_is_free(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as processes:
        assert (processes.rank, processes.world, processes.first) == (0, 1, True)
        assert processes.agree(7) == processes.largest(7) == 7
        assert processes.broadcast("x") == "x"
        assert processes.gather("x") == ["x"]
        assert not torch.distributed.is_initialized()
