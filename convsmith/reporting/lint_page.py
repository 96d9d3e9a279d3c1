"""The page of `convsmith lint`: what is wrong with a design, why it matters, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convsmith.records import Finding
from convsmith.reporting.page import page
from convsmith.reporting.templates import Section, fill
from convsmith.reporting.words import Term

TITLES = {
    "error": ("Errors", "What keeps the network from doing what it is for."),
    "warning": ("Warnings", "What makes it worse, or dearer, than it need be."),
    "hint": ("Hints", "Worth knowing, and often meant to be so."),
}
WORDS = {
    "error": Term("Error", "The network does not do what it is for: mend it before training."),
    "warning": Term("Warning", "The network works, but worse or at a higher price than it need."),
    "hint": Term("Hint", "Something that many good networks have, too; worth a thought."),
}
LAYERS = 40


@dataclass(frozen=True)
class LintRecord:
    """What a design was found to be.

    Args:
        name: of the model.
        shape: of one image.
        findings: the gravest first.
        rules: id of each rule that was asked, to `title`, `why` and `mend`.
        judged_with: a sentence about the images and the batch it was judged with; empty where there were none.
        next_command: what to type next.
    """

    name: str
    shape: Sequence[int]
    findings: Sequence[Finding]
    rules: Mapping[str, Mapping[str, str]]
    judged_with: str = ""
    next_command: str = ""


@dataclass(frozen=True)
class LintOpening:
    """The first screen: the tone, the headline, what was judged, the gravest finding and its mend, what to type."""

    kind: str
    headline: str
    judged: str
    gravest: str
    mend: str
    command: str
    counts: dict[str, int] = field(default_factory=dict)


def render_lint(record: LintRecord) -> str:
    """Make the page.

    Args:
        record: what was found.
    """
    return page(
        "lint_page.html", kind="design lint", name=record.name, made="", glossary=WORDS,
        opening=_opening(record), sections=list(_sections(record)),
    )  # fmt: skip


def verdict(findings: Sequence[Finding], rules: int) -> str:
    """What was found, in one sentence."""
    counts = {kind: sum(finding.severity == kind for finding in findings) for kind in TITLES}
    told = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items() if count]
    if not told:
        return f"None of {rules} rules finds anything."
    said = told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"
    if counts["error"]:
        return f"This network would not do what it is for: {said}."
    return f"No error; {said}."


def _opening(record: LintRecord) -> LintOpening:
    gravest = record.findings[0] if record.findings else None
    kind = "good" if gravest is None else {"error": "chance"}.get(gravest.severity, "unknown")
    size = "x".join(map(str, record.shape))
    return LintOpening(
        kind=kind,
        headline=verdict(record.findings, len(record.rules)),
        judged=" ".join(part for part in (f"Judged on images of {size}.", record.judged_with) if part),
        gravest=gravest.says if gravest else "",
        mend=str(gravest.evidence.get("mend", "")) if gravest else "",
        command=record.next_command,
    )


def _sections(record: LintRecord) -> Sequence[Section]:
    made = []
    for kind, (title, lead) in TITLES.items():
        own = [_shown(finding, record.rules) for finding in record.findings if finding.severity == kind]
        if own:
            made.append(Section(kind, title, lead, fill("lint:findings", findings=own)))
    found = {finding.rule for finding in record.findings}
    silent = [(name, rule["title"]) for name, rule in record.rules.items() if name not in found]
    lead = "These rules were asked, too, and found nothing."
    made.append(Section("silent", "What is not wrong", lead, fill("lint:silent", rules=silent)))
    return made


def _shown(finding: Finding, rules: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    rule = rules[finding.rule]
    figures = {key.replace("_", " "): value for key, value in finding.evidence.items() if key != "mend"}
    return {
        "rule": finding.rule, "severity": finding.severity, "title": rule["title"], "says": finding.says,
        "why": rule["why"], "mend": rule["mend"], "source": finding.source, "figures": figures,
        "layers": _layers(finding.where),
    }  # fmt: skip


def _layers(where: Sequence[str]) -> str:
    more = f" and {len(where) - LAYERS} more" if len(where) > LAYERS else ""
    return ", ".join(where[:LAYERS]) + more if len(where) > 1 else ""
