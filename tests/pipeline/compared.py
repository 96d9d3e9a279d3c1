"""Two runs side by side: what must be equal, bit for bit, whatever happened on the way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from convsmith.run_folder import read_log

EXACT = (
    "--epochs", "6", "--set", "train.log_ids=true", "--set", "train.checkpoint_every=3",
    "--set", "train.report_every=4", "--set", "train.tune_every=6",
)  # fmt: skip
"""Six epochs of five steps with augmentation and averaging; nothing that is logged depends on the machine's speed."""
STEPS = 30
EPOCH = 5


def end(run: Path) -> dict[str, Any]:
    """All that a run came to: weights, state, the order and draws of every batch, predictions."""
    last = run / json.loads((run / "last.json").read_bytes())["checkpoint"]
    return {
        "weights": hashlib.sha256((last / "weights.safetensors").read_bytes()).hexdigest(),
        "state": _plain(torch.load(last / "state.pt", weights_only=True)),
        "batches": batches(run),
        "tune": [(line["step"], line["values"]) for line in read_log(run / "log.jsonl") if line["kind"] == "tune"],
        "results": (run / "results.json").read_bytes() if (run / "results.json").exists() else None,
    }


def batches(run: Path) -> list[tuple[int, list[str], list[str]]]:
    """Step, ids and digests of the draws of every batch in a run's log."""
    lines = [line for line in read_log(run / "log.jsonl") if line["kind"] == "batch"]
    return [(line["step"], line["values"]["ids"], line["values"]["draws"]) for line in lines]


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The keys whose values are not equal, nested ones by their path; empty where all are."""
    return sorted(_differing(one, other, ""))


def _differing(one: Any, other: Any, path: str) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [item for key in one for item in _differing(one[key], other[key], f"{path}/{key}")]
    return [] if one == other else [path]


def _plain(value: Any) -> Any:
    """Tensors as their bytes, so that `==` means bit for bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
