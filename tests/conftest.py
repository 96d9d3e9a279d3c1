"""What every test stands on: one thread, a cache of its own, and nothing left behind for the next one."""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

# Before torch, numpy or scikit-learn are loaded, and for every process that a test starts.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import pytest

FORKED = {"resource_tracker", "forkserver"}
OTHERS = ("PYTEST_CURRENT_TEST", "KMP_", "TORCHINDUCTOR_")  # variables that libraries set when they are first used


@pytest.fixture(scope="session", autouse=True)
def _own_cache() -> Iterator[None]:
    """Pixel caches of tests go with them, and no test finds one of the user's."""
    with tempfile.TemporaryDirectory(prefix="convsmith-test-cache-") as folder:
        os.environ["CONVSMITH_CACHE"] = folder
        yield
        del os.environ["CONVSMITH_CACHE"]


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a changed environment, folder, signal handler, hook, thread or process.

    Random generators may be used freely: they are put back, so that no test depends on the one before it.
    """
    before = _state()
    python, legacy = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    drawn = torch.get_rng_state() if torch else None
    yield
    random.setstate(python)
    np.random.set_state(legacy)
    if torch and drawn is not None:
        torch.set_rng_state(drawn)
    after = _state()
    changed = {key: _difference(before[key], after[key]) for key in before if before[key] != after[key]}
    os.environ.update(before["environment"])
    os.chdir(before["folder"])
    assert not changed, f"left behind (before, after): {changed}"


def _difference(before: object, after: object) -> object:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = {*before, *after}
        return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}
    return before, after


def _state() -> dict[str, object]:
    hooks = sys.modules.get("torch.nn.modules.module")
    return {
        "environment": {key: value for key, value in os.environ.items() if not key.startswith(OTHERS)},
        "folder": str(Path.cwd()),
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        "hooks": len(hooks._global_forward_hooks) + len(hooks._global_forward_pre_hooks) if hooks else 0,
        "threads": sorted(thread.name for thread in threading.enumerate() if thread.name == "checkpoint"),
        "processes": _children(),
    }


def _children() -> list[str]:
    """Children of this process that run, without the helpers of `multiprocessing`."""
    found = []
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            pids = listing.read_text().split()
        except OSError:  # a thread that has ended since the listing
            continue
        for pid in pids:
            try:
                command = (
                    Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
            except OSError:
                continue
            if command and not any(name in command for name in FORKED):
                found.append(f"{pid} {command[:120]}")
    return sorted(found)
