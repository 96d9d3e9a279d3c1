"""Disks that are full, too small, or read-only; a small tmpfs stands for them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from compared import EXACT, differing, end
from typed import SMALL, Started, only_run, steps_logged, typed

MEGABYTE = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 20 MB; skips where it cannot be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or _mount("-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place)):
        pytest.skip("mounting a small tmpfs needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def _mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode


def fill(disk: Path) -> Path:
    """Write zeros until nothing more fits."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (MEGABYTE, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def test_a_disk_that_fills_up_during_training_costs_nothing_that_was_saved(
    disk: Path, pictures: Path, uninterrupted: Path, tmp_path: Path
):
    with Started(tmp_path / "output", "train", pictures, "--runs", disk / "runs", *SMALL, *EXACT) as command:
        command.until(lambda: any((disk / "runs").glob("*/last.json")))
        filler = fill(disk)
        assert command.code() == 5
        assert "disk is full" in command.err
        assert "Traceback" not in command.err
    run = only_run(disk / "runs")
    assert steps_logged(run) < 30
    assert list((run / "checkpoints").glob("[0-9]*"))
    assert not list(run.rglob(".*"))
    filler.unlink()
    done = typed("resume", run)
    assert done.code == 0, done.err
    assert differing(end(run), end(uninterrupted)) == []


def test_a_disk_that_is_too_small_is_refused_before_the_first_step(disk: Path, pictures: Path):
    (disk / "filler").write_bytes(bytes(16 * MEGABYTE))
    began = time.monotonic()
    done = typed("train", pictures, "--runs", disk / "runs", *SMALL, "--epochs", 5000)
    assert done.code == 5, done.err
    words = " ".join(done.err.split())
    assert "MB for checkpoints and records" in words
    assert "4 MB free" in words
    assert "--runs DIR" in words
    assert not (disk / "runs").exists()
    assert time.monotonic() - began < 60


def test_a_cache_that_does_not_fit_is_refused_before_the_first_step(
    disk: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CONVSMITH_CACHE", str(disk))
    done = typed("train", pictures, "--runs", tmp_path / "runs", *SMALL, "--epochs", 1)
    assert done.code == 5
    assert "CONVSMITH_CACHE" in done.err
    assert steps_logged(only_run(tmp_path / "runs")) == 0


def test_a_read_only_place_for_runs_is_refused_before_anything_is_measured(disk: Path, pictures: Path):
    assert _mount("-o", "remount,ro", str(disk)) == 0
    done = typed("train", pictures, "--runs", disk / "runs", *SMALL)
    assert done.code == 4
    assert "cannot be written" in done.err
    assert "--runs DIR" in done.err
    assert "Planning" not in done.err


def test_a_run_folder_that_became_read_only_is_loud(disk: Path, pictures: Path, tmp_path: Path):
    with Started(tmp_path / "output", "train", pictures, "--runs", disk / "runs", *SMALL, *EXACT) as command:
        command.until(lambda: any((disk / "runs").glob("*/last.json")))
        command.process.kill()
    run = only_run(disk / "runs")
    assert _mount("-o", "remount,ro", str(disk)) == 0
    done = typed("resume", run)
    assert done.code == 4
    assert "refused" in done.err
    assert "Traceback" not in done.err
