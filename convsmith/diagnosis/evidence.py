"""What rules may look at: the records of a run as plain values, and the small statistics and words all rules share."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convsmith.evaluation.intervals import difference as difference  # rules take all they share from here
from convsmith.records import Estimate, Severity

FEW = 100  # below so many images even a clear figure is a suspicion: at 40, an interval is 25 points wide


@dataclass(frozen=True)
class Evidence:
    """The records of one run, as they lie in its folder; an absent one is empty and rules that need it stay silent.

    Args:
        results: results.json.   log: the records of log.jsonl.   plan: plan.json.   manifest: manifest.json.
        audit: audit.json.   recipe: the resolved recipe as a nested dictionary.   run: the folder, for commands.
        probe: probe.json.   learning_curve: learning_curve.json.
    """

    results: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    audit: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    probe: Mapping[str, Any] = field(default_factory=dict)
    learning_curve: Mapping[str, Any] = field(default_factory=dict)

    def split(self, *names: str) -> Mapping[str, Any] | None:
        """The results of the first of these splits that was measured and has images."""
        splits = self.results.get("splits") or {}
        return next((splits[name] for name in names if (splits.get(name) or {}).get("n")), None)

    def setting(self, key: str, default: Any = None) -> Any:
        """The recipe's value at a dotted key; `default` where it is missing, off or still automatic."""
        value: Any = self.recipe
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return default if value is None or value == "auto" else value

    def epochs(self) -> int:
        """How many epochs were trained: what the recipe states, or where steps ruled what the log reached."""
        stated = self.setting("train.epochs")
        counted = stated if isinstance(stated, int) and not steps_rule(self.plan) else passes(self.log)
        return max(1, round(counted or stated or 1))

    def experiment(self, change: Mapping[str, Any]) -> str:
        """The command that repeats this run, as it was asked for, with a change."""
        words = again(self.manifest, self.run, "given.yaml")
        for key, value in change.items():
            words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
        return shlex.join(words)


def again(manifest: Mapping[str, Any], run: str, recipe: str = "recipe.yaml") -> list[str]:
    """The words that train once more from a recipe in the run's folder, with its own code and processes."""
    processes = manifest.get("world_size") or 1
    start = ["torchrun", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    words = [*start, "convsmith", "train", "--recipe", f"{run or 'RUN'}/{recipe}"]
    code = (manifest.get("model") or {}).get("code")
    if code:
        words += ["--model", f"{run or 'RUN'}/code.py:{code['name']}"]
        for name, value in (code.get("options") or {}).items():
            words += ["--arg", f"{name}={json.dumps(value)}"]
    return words


def steps_rule(plan: Mapping[str, Any]) -> bool:
    """Whether the length of the run was a number of steps, asked for or from a budget, and not of epochs."""
    return any(choice.get("name") == "train.steps" for choice in plan.get("choices") or ())


def steps_per_epoch(log: Sequence[Mapping[str, Any]]) -> float | None:
    """Steps of one epoch, from the first that ended; None where none did."""
    ended = next((event for event in log if event.get("kind") == "epoch" and event.get("epoch")), None)
    return ended["step"] / ended["epoch"] if ended and ended["step"] else None


def passes(log: Sequence[Mapping[str, Any]]) -> float | None:
    """How many times the training images were gone through; None where not even once."""
    per_epoch = steps_per_epoch(log)
    return max(event.get("step") or 0 for event in log) / per_epoch if per_epoch else None


def estimate(values: Mapping[str, Any] | None) -> Estimate | None:
    """An estimate read back from JSON, or `None` where it is missing, undefined or has no interval."""
    found = Estimate.from_json(values) if values else None
    return None if found is None or found.value is None or found.low is None or found.high is None else found


def certainty(severity: Severity, n: int) -> tuple[Severity, str]:
    """The severity that `n` images allow, and the words that a finding from few of them begins with."""
    if n >= FEW:
        return severity, ""
    return "hint", f"Only a suspicion, from {n} pictures: "


def percent(share: float | None) -> str:
    """A share for a person: 97 %, and 99.6 % where rounding would claim that nothing is left."""
    value = 100 * (share or 0.0)
    return f"{value:.0f} %" if 1 <= value <= 99 or value in (0.0, 100.0) else f"{value:.1f} %"
