"""What rules may look at: the records of a run as plain values, and the small statistics and words all rules share."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convsmith.records import Estimate, Severity

FEW = 100  # below so many images even a clear figure is a suspicion: at 40, an interval is 25 points wide
FLAGS = {"train.epochs": "--epochs", "data.limit": "--limit"}


@dataclass(frozen=True)
class Evidence:
    """The records of one run, as they lie in its folder; an absent one is empty and rules that need it stay silent.

    Args:
        results: results.json.   log: the records of log.jsonl.   plan: plan.json.   manifest: manifest.json.
        audit: audit.json.   recipe: the resolved recipe as a nested dictionary.
    """

    results: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    audit: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)

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
        """How many epochs were trained: what the recipe states, else what the log reached."""
        return int(self.setting("train.epochs", max((int(r.get("epoch", 0)) for r in self.log), default=0))) or 1

    def experiment(self, change: Mapping[str, Any]) -> str:
        """The command that repeats this run with a change: what was typed, less what the change replaces."""
        typed = [str(word) for word in self.manifest.get("command") or ()]
        if "train" in typed:
            words = _without(typed[typed.index("train") + 1 :], change)
        else:
            words = [str((self.manifest.get("data") or {}).get("source") or self.setting("data.source", "DATA"))]
        for key, value in change.items():
            words += [FLAGS[key], str(value)] if key in FLAGS else ["--set", f"{key}={value}"]
        return shlex.join(["convsmith", "train", *words])


def estimate(values: Mapping[str, Any] | None) -> Estimate | None:
    """An estimate read back from JSON, or `None` where it is missing, undefined or has no interval."""
    found = Estimate.from_json(values) if values else None
    return None if found is None or found.value is None or found.low is None or found.high is None else found


def difference(first: Estimate, second: Estimate) -> tuple[float, float, float]:
    """Value, low and high of the difference of two independent proportions.

    Source: Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10: the
    squared distances to the limits of the two Wilson intervals add up.
    """
    p, l1, u1, q, l2, u2 = (float(x or 0.0) for e in (first, second) for x in (e.value, e.low, e.high))
    return p - q, p - q - math.hypot(p - l1, u2 - q), p - q + math.hypot(u1 - p, q - l2)


def certainty(severity: Severity, n: int) -> tuple[Severity, str]:
    """The severity that `n` images allow, and the words that a finding from few of them begins with."""
    if n >= FEW:
        return severity, ""
    return "hint", f"Only a suspicion, from {n} pictures: "


def percent(share: float | None) -> str:
    """A share for a person: 97 %, and 99.6 % where rounding would claim that nothing is left."""
    value = 100 * (share or 0.0)
    return f"{value:.0f} %" if 1 <= value <= 99 or value in (0.0, 100.0) else f"{value:.1f} %"


def _without(words: Sequence[str], change: Mapping[str, Any]) -> list[str]:
    dropped = {"--name", *(FLAGS[key] for key in change if key in FLAGS)}
    if "train.epochs" in change:
        dropped.add("--budget")
    kept, rest = [], iter(words)
    for word in rest:
        name, _, value = word.partition("=")
        if name in dropped:
            if not value:
                next(rest, None)
        elif word == "--set":
            setting = next(rest, "")
            if setting.partition("=")[0] not in change:
                kept += [word, setting]
        elif word != "--dry-run":
            kept.append(word)
    return kept
