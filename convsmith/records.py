"""What stages leave for one another: small frozen records that travel as JSON.

A record that cannot be computed holds `None` and the reason, never 0 or 1 in its place.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

Severity = Literal["error", "warning", "hint"]


class Record:
    """To and from plain JSON values; fields are scalars, tuples, mappings and other records."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as a dictionary of plain values; NaN and infinities become `None`."""
        return {item.name: _plain(getattr(self, item.name)) for item in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a record written by `to_json`; unknown keys are refused."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


@dataclass(frozen=True)
class Estimate(Record):
    """A measured figure with its interval.

    Args:
        value: the point estimate, or `None` where it is undefined.
        low, high: the ends of the interval, or `None` where there is none.
        n: how many independent units (images, or groups of them) stand behind it.
        method: how the interval was made, in words a methods section can quote.
        reason: why `value` is `None`; empty otherwise.
        level: the interval's nominal coverage.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    reason: str = ""
    level: float = 0.95

    @classmethod
    def undefined(cls, reason: str, *, n: int = 0) -> Self:
        """An estimate that cannot be given, and why."""
        return cls(None, None, None, n, "none", reason)

    def __str__(self) -> str:
        if self.value is None:
            return f"undefined ({self.reason})"
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Finding(Record):
    """Something a rule saw in the evidence, what would mend it, and how to prove that it did.

    Args:
        rule: the rule's id, stable across versions.
        severity: `error` (the result cannot be trusted), `warning`, or `hint`.
        says: one or two sentences for a person.
        evidence: the numbers the rule judged by.
        where: the layers, classes or files concerned.
        change: the change to the recipe that would mend it, as dotted keys and values.
        experiment: a command that would test the change; empty where none would.
        source: the paper or page the rule comes from.
    """

    rule: str
    severity: Severity
    says: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    where: tuple[str, ...] = ()
    change: Mapping[str, Any] = field(default_factory=dict)
    experiment: str = ""
    source: str = ""


@dataclass(frozen=True)
class Choice(Record):
    """One automatic decision of the plan.

    Args:
        name: the recipe's dotted key that it resolves, such as `train.batch`.
        value: what was chosen.
        reason: why, in one sentence.
        measured: the numbers behind it, the unit in the name (`seconds_per_step`); empty where it is a rule.
        given: whether the user asked for it, so that nothing was chosen.
    """

    name: str
    value: Any
    reason: str
    measured: Mapping[str, Any] = field(default_factory=dict)
    given: bool = False


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
