"""What a run's exactness depends on: versions, threads, instruction set, device. Recorded, and compared on resume."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from convsmith.errors import UsageError

KNOWN = ("cpu", "cuda", "mps")
"""Kinds of devices that Convsmith computes on."""


def choose_device(wanted: str) -> torch.device:
    """Turn `auto` or a device's name into a device that is there.

    Raises:
        UsageError: it is not a device's name, or not on this machine.
    """
    if wanted in {"auto", "cuda"} and torch.cuda.is_available():  # each process of a machine takes a GPU of its own
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    if wanted == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        if device.type not in KNOWN:  # such as meta, which computes nothing
            raise RuntimeError(f"{wanted} is not supported")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # what torch raises depends on how it was built
        raise UsageError(f"There is no device {wanted!r} here.", mend="Use --device cpu, or auto.") from None
    return device


@contextlib.contextmanager
def threads(count: int | str) -> Iterator[None]:
    """Within, torch computes with `count` threads (`auto` leaves them); after, with as many as before."""
    before = torch.get_num_threads()
    if isinstance(count, int):
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def deterministic(wanted: bool, device: torch.device) -> Iterator[None]:
    """Within, an operation that has no deterministic form raises; on a CPU all that Convsmith uses have one anyway.

    Raises:
        UsageError: CUDA's matrix products were not told in time to be deterministic.
    """
    if wanted and device.type == "cuda" and "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
        raise UsageError(
            "train.deterministic on a GPU needs CUBLAS_WORKSPACE_CONFIG before the process starts.",
            mend="Type CUBLAS_WORKSPACE_CONFIG=:4096:8 before the command.",
        )
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def describe(device: torch.device, world: int) -> dict[str, Any]:
    """The manifest's account of the machine."""
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "convsmith": version("convsmith"),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            **{name: version(name) for name in ("torchvision", "timm", "pillow")},
        },
        "platform": platform.platform(),
        "device": str(device.type),
        "accelerator": accelerator,
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "world_size": world,
    }


def differences(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """What of the machine is not as recorded, in words; where anything differs, so may the last bits of a run."""
    keys = ("versions", "device", "accelerator", "threads", "instruction_set", "world_size")
    return [
        f"{key.replace('_', ' ')}: {recorded.get(key)} then, {present[key]} now"
        for key in keys
        if recorded.get(key) != present[key]
    ]
