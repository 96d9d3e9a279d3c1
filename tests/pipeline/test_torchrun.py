"""Two processes under torchrun: the same order and draws as one, and neither outlives the other for long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from compared import EXACT, batches
from typed import SMALL, only_run, steps_logged, typed

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
BOUND = 60.0
"""Seconds within which both processes must be gone; it takes two or three."""


@contextmanager
def torchrun(
    folder: Path, *arguments: object, program: Sequence[str] = ("-m", "convsmith")
) -> Iterator[subprocess.Popen[bytes]]:
    """Two processes of a command; whatever still runs at the end is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [*TORCHRUN, *program, *(str(argument) for argument in arguments)]
    with (
        (folder / "out.txt").open("wb") as out,
        (folder / "err.txt").open("wb") as err,
        subprocess.Popen(words, stdout=out, stderr=err, start_new_session=True) as process,
    ):
        try:
            yield process
        finally:
            for pid in _workers(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.kill()


def _workers(launcher: int) -> list[int]:
    """The two processes, in the order of their ranks."""
    found = {}
    for listing in Path(f"/proc/{launcher}/task").glob("*/children"):
        for pid in listing.read_text().split():
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            for entry in environment:
                if entry.startswith(b"RANK="):
                    found[int(entry[5:])] = int(pid)
    return [found[rank] for rank in sorted(found)]


def wait_for_step(process: subprocess.Popen[bytes], runs: Path, step: int, folder: Path) -> None:
    end = time.monotonic() + BOUND
    while not (runs.exists() and any(steps_logged(run) >= step for run in runs.iterdir())):
        assert process.poll() is None, (folder / "err.txt").read_text()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_processes_see_the_images_and_draws_of_one(pictures: Path, uninterrupted: Path, tmp_path: Path):
    with torchrun(tmp_path / "output", "train", pictures, "--runs", tmp_path / "runs", *SMALL, *EXACT) as process:
        assert process.wait(BOUND) == 0, (tmp_path / "output" / "err.txt").read_text()
    run = only_run(tmp_path / "runs")
    assert batches(run) == batches(uninterrupted)
    assert json.loads((run / "manifest.json").read_bytes())["world_size"] == 2
    assert (run / "report.html").is_file()
    ours, theirs = (json.loads((folder / "results.json").read_bytes()) for folder in (run, uninterrupted))
    assert ours["splits"]["test"]["n"] == theirs["splits"]["test"]["n"]
    assert (tmp_path / "output" / "out.txt").read_text().count("Report ") == 1


@pytest.mark.slow
def test_two_processes_fine_tune_from_one_head_to_the_same_weights(tuned: Path, weights: Path, tmp_path: Path):
    worker = (str(Path(__file__).parent / "tuning_worker.py"),)
    words = (tuned / "recipe.yaml", tmp_path / "runs", tmp_path)
    with torchrun(tmp_path / "output", *words, program=worker) as process:
        assert process.wait(BOUND) == 0, (tmp_path / "output" / "err.txt").read_text()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for moment in ("began", "ended"):
        assert all(torch.equal(tensor, second[moment][name]) for name, tensor in first[moment].items()), moment
    published = safetensors.torch.load_file(weights)
    kept = [name for name in published if not name.startswith("fc.")]
    assert all(torch.equal(first["began"][name], published[name]) for name in kept)
    assert not torch.equal(first["began"]["fc.weight"], first["ended"]["fc.weight"])
    run = only_run(tmp_path / "runs")
    assert batches(run) == batches(tuned)
    ours, theirs = (json.loads((folder / "probe.json").read_bytes()) for folder in (run, tuned))
    for key in ("decay", "views", "tune", "test"):
        assert ours[key] == theirs[key], key


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_one_ends_both_soon_and_the_run_goes_on(
    number: signal.Signals, rank: int, pictures: Path, tmp_path: Path
):
    runs = tmp_path / "runs"
    long = ["200" if word == "6" else word for word in EXACT]
    with torchrun(tmp_path / "output", "train", pictures, "--runs", runs, *SMALL, *long) as process:
        wait_for_step(process, runs, 8, tmp_path / "output")
        workers = _workers(process.pid)
        assert len(workers) == 2
        os.kill(workers[rank], number)
        began = time.monotonic()
        assert process.wait(BOUND) != 0
        assert time.monotonic() - began < BOUND
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    run = only_run(runs)
    seen = batches(run)
    at = json.loads((run / "last.json").read_bytes())["step"]
    if number == signal.SIGTERM:
        assert at == seen[-1][0]
        assert "everything is saved" in (tmp_path / "output" / "err.txt").read_text()
    stop = at + 4
    recipe = (run / "recipe.yaml").read_text().replace("steps: 1000", f"steps: {stop}")
    (run / "recipe.yaml").write_text(recipe)
    done = typed("resume", run)
    assert done.code == 0, done.err
    assert "world size: 2 then, 1 now" in " ".join(done.err.split())
    resumed = batches(run)
    assert [step for step, _, _ in resumed] == list(range(1, stop + 1))
    assert resumed[:at] == seen[:at]
