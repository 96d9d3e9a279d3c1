"""Processes that look at files: they see what threads see, in order, and end with whoever asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convsmith.errors import ResourceError
from convsmith.images import audit, open_source, readers
from convsmith.images.memory import Refused
from convsmith.images.readers import look_at, look_at_all


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """70 files, more than a reader takes at a time, of which two are no pictures and one has a name in no encoding."""
    made = []
    for i in range(70):
        path = os.fsencode(tmp_path / f"{i:02d}") + (b"\xff" if i == 5 else b"") + b".png"
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)).save(os.fsdecode(path))
        made.append(os.fsdecode(path))
    Path(made[3]).write_bytes(b"")
    Path(made[60]).unlink()
    return made


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setattr(readers, "FROM", 1)
    monkeypatch.setattr(readers, "processors", lambda: 2)


def test_processes_see_what_one_look_after_another_sees(paths, processes):
    looks = list(look_at_all(paths, None, False))
    assert looks == [look_at(path, None, False) for path in paths]
    assert isinstance(looks[3][0], Refused)
    assert [lasting for _, lasting in looks].index(False) == 60  # a file that is gone may come back


def test_a_reader_that_is_killed_is_told_with_the_files_it_had(paths, processes):
    looks = look_at_all(paths * 200, None, False)
    next(looks)
    kill_children()
    with pytest.raises(ResourceError, match=r"ended by signal 9; .*files after it"):
        list(looks)


def test_whoever_stops_early_leaves_no_reader_behind(paths, processes):
    looks = look_at_all(paths * 200, None, False)
    next(looks)
    assert children()
    looks.close()
    assert not children()


def test_an_audit_that_ends_early_leaves_no_reader_behind(paths, processes, tmp_path):
    def stop(done: int, total: int) -> None:
        assert children()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        audit(*open_source(flat(tmp_path, 300)), progress=stop, memory=False)
    assert not children(), caught  # although the traceback still holds every frame


@pytest.mark.slow
def test_a_command_that_is_refused_while_readers_are_at_work_ends_at_once(tmp_path):
    command = [
        sys.executable,
        "-m",
        "convsmith",
        "data",
        str(flat(tmp_path, readers.FROM + 600)),
        "--model",
        "nosuchnet",
    ]
    done = subprocess.run(
        [*command, "--runs", str(tmp_path / "runs")],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "CONVSMITH_CACHE": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "nosuchnet" in done.stderr


def flat(folder: Path, count: int) -> Path:
    """Class folders with so many files."""
    for i in range(count):
        target = folder / "set" / "ab"[i % 2] / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (48, 48, 3), np.uint8)).save(target)
    return folder / "set"


def test_readers_end_when_the_process_that_asked_is_killed(paths, tmp_path):
    code = (
        "import sys; from convsmith.images import readers; readers.FROM = 1; readers.processors = lambda: 2\n"
        "looks = readers.look_at_all(sys.argv[1:] * 1000, None, False); next(looks); print('begun', flush=True)\n"
        "for _ in looks: pass\n"
    )
    asker = subprocess.Popen([sys.executable, "-c", code, paths[0]], stdout=subprocess.PIPE)
    assert asker.stdout is not None
    assert asker.stdout.readline() == b"begun\n"
    begun = children(asker.pid)
    assert len(begun) == 2
    asker.kill()
    asker.wait()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in begun):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_program_without_a_main_guard_is_not_run_again(paths, tmp_path):
    (tmp_path / "program.py").write_text(
        "import sys\nfrom convsmith.images import readers\nreaders.FROM = 1\nreaders.processors = lambda: 2\n"
        "print(len(list(readers.look_at_all(sys.argv[1:], None, False))))\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), *paths[6:40]], capture_output=True, text=True, check=True
    )
    assert done.stdout == "34\n"


def children(of: int | None = None) -> list[int]:
    """Processes that `of`, or this one, has started and that still run."""
    own = os.getpid() if of is None else of
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == own and state != "Z":
                found.append(int(entry.name))
    return found


def kill_children() -> None:
    for pid in children():
        os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
