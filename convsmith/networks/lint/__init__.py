"""Design lint: rules that find faults of a network before it is trained, each with evidence, harm, mend and source."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from convsmith.errors import UsageError
from convsmith.networks.lint.gradient_rules import GRADIENT_RULES
from convsmith.networks.lint.mode_rules import MODE_RULES
from convsmith.networks.lint.order_rules import ORDER_RULES
from convsmith.networks.lint.rule import Evidence, Example, Rule
from convsmith.networks.lint.size_rules import SIZE_RULES
from convsmith.networks.lint.waste_rules import WASTE_RULES
from convsmith.records import Finding
from convsmith.registry import suggestion

RULES: Mapping[str, Rule] = MappingProxyType(
    {rule.id: rule for rule in (*MODE_RULES, *GRADIENT_RULES, *ORDER_RULES, *SIZE_RULES, *WASTE_RULES)}
)
"""All rules by id, in the order in which they are listed."""
GRAVITY = {"error": 0, "warning": 1, "hint": 2}


def lint(evidence: Evidence, *, off: Collection[str] = ()) -> list[Finding]:
    """Judge a network by all rules, the gravest findings first.

    Args:
        evidence: the network and what is known of its data.
        off: ids of rules that are switched off.

    Raises:
        UsageError: an id that is no rule's; a network that cannot be recorded on images of this shape.
    """
    for name in off:
        if name not in RULES:
            raise UsageError(f"There is no design rule {name!r}.", mend=suggestion(name, RULES))
    found = [finding for rule in RULES.values() if rule.id not in off and (finding := rule.judge(evidence))]
    return sorted(found, key=lambda finding: GRAVITY[finding.severity])


__all__ = ["RULES", "Evidence", "Example", "Rule", "lint"]
