"""One process of a run of several, started by test_two_processes.py: `gloo_worker.py SCENARIO FOLDER`."""

import os
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from toys import make_augment, make_batches, make_loop, make_net, snapshot, trace_of

from convsmith.cli.commands import leave
from convsmith.errors import ConvsmithError
from convsmith.tasks import classification
from convsmith.training import Loop, joined
from convsmith.training.optimizers import sgd

CASES = {"uneven": (61, 32), "a rank without images": (45, 16), "fewer than eight": (5, 16)}
STEPS = 4


def exact_task():
    """Cross-entropy in the network's own precision; with a count that is a tensor, as of pixels."""

    def losses(model, batch):
        loss = F.cross_entropy(model(batch.images), batch.targets, reduction="sum")
        yield "model", loss, torch.tensor(len(batch))

    return replace(classification(), losses=losses)


def gradients(case, processes):
    """Steps of float64 training without batch norm: ids, draws, losses, and the gradient after each."""
    n, batch_size = CASES[case]
    augment = make_augment()
    net = make_net(norm=False, dropout=0.0).double()

    def transform(batch):
        batch = augment(batch)
        return replace(batch, images=batch.images.double())

    loop = Loop(
        net,
        exact_task(),
        {"model": sgd(net.named_parameters(), rate=0.1)},
        steps=STEPS,
        transform=transform,
        trace=trace_of(augment),
        report_every=1,
        processes=processes,
    )
    seen, found, losses = [], [], []
    for event in loop.run(make_batches(n, batch_size=batch_size, rank=processes.rank, world=processes.world)):
        if event.kind == "batch":
            seen.append((event.step, event.values))
        elif event.kind != "stopped":
            losses.append(event.values["loss"])
            found.append(torch.cat([p.grad.reshape(-1) for p in net.parameters()]))
    return {"seen": seen, "gradients": found, "losses": losses}


def stopped(processes, when, steps):
    """Rank 1 is told to stop after step `when`; where each one ends, and why."""
    loop = make_loop(steps=steps, report_every=1, processes=processes)
    events = []
    for event in loop.run(make_batches(rank=processes.rank, world=processes.world)):
        events.append((event.kind, event.step))
        if event.step == when and event.kind != "stopped" and processes.rank == processes.world - 1:
            loop.request_stop(143)
    return {"step": loop.step, "reason": loop.stop_reason, "events": events, "last": dict(event.values)}


def halves(processes):
    """A state in the middle of a run and of an epoch, taken twice: live, and straight after it was loaded."""
    augment = make_augment()
    loop = make_loop(augment=augment, steps=2, report_every=0, processes=processes)
    for _ in loop.run(make_batches(rank=processes.rank, world=processes.world)):
        pass
    state = snapshot(loop)
    again = make_loop(augment=augment, steps=2, report_every=0, processes=processes)
    again.load_state_dict(state)
    buffers = [buffer.clone() for buffer in loop.model.buffers()]
    return {"state": state, "again": snapshot(again), "buffers": buffers}


def measure(processes):
    return {
        "cases": {case: gradients(case, processes) for case in CASES},
        "stopped": stopped(processes, 3, 9),
        "stopped late": stopped(processes, 4, 4),
        "halves": halves(processes),
        "told": processes.broadcast({"rank": processes.rank}),
        "gathered": processes.gather(processes.rank),
        "largest": processes.largest(processes.rank * 10),
    }


def die(processes):
    """Rank 1 is killed in the middle of training, with no chance to say goodbye."""
    loop = make_loop(steps=10**9, report_every=1, processes=processes)
    for event in loop.run(make_batches(rank=processes.rank, world=processes.world)):
        if event.step == 5 and processes.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def main(scenario, folder):
    try:
        with joined(timeout=60) as processes:
            if scenario == "die":
                die(processes)
            elif scenario == "raise":
                if processes.rank == 1:
                    raise ValueError("of my own")
                processes.sum_(torch.zeros(1))
            else:
                torch.save(measure(processes), Path(folder) / f"{processes.rank}.pt")
    except ConvsmithError as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        leave(error.exit_code)
    except Exception:  # whatever it was, it shall be read and the process end by the same way
        traceback.print_exc()
        leave(1)
    leave(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
