"""The page: one HTML file that needs nothing else and lets nothing in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from markupsafe import Markup

from convsmith.diagnosis import verdict
from convsmith.reporting import figures
from convsmith.reporting.formats import date, fit
from convsmith.reporting.pictures import Picture, class_name, pictures
from convsmith.reporting.run_records import RunRecords
from convsmith.reporting.sections import sections
from convsmith.reporting.templates import Section, environment
from convsmith.reporting.words import GLOSSARY, SPLITS, Term

STRIP = 3
KINDS = ("good", "partial", "chance", "unsure")


@dataclass(frozen=True)
class Opening:
    """The first screen.

    Args:
        words: the verdict's sentences.
        kind: the verdict's kind; it sets the colour.
        kicker: what was measured, in a line above the headline.
        bar: the picture of the headline figure, or `None` where there is none.
        bar_title: what the picture shows.
        right, wrong: a few example pictures.
        data_link: whether there is a section about the data to lead to.
    """

    words: Mapping[str, str]
    kind: str
    kicker: str
    bar: Markup | None
    bar_title: str
    right: list[Picture]
    wrong: list[Picture]
    data_link: bool


def render(records: RunRecords) -> str:
    """Return the report of a run as one HTML file.

    It is made from the records alone: no clock, no network, no neural network, so the same records give the same page.

    Args:
        records: the run's records; parts may be missing.
    """
    shown = sections(records)
    return page(
        "page.html", kind="run report", name=records.name, made=date(records.manifest.get("created", "")),
        opening=opening(records, shown), sections=shown,
    )  # fmt: skip


def page(
    template: str, *, style: str = "", script: str = "", glossary: Mapping[str, Term] = GLOSSARY, **values: Any
) -> str:
    """Return a whole page: a template that extends `base.html`, with style and script and their digests for the policy.

    Args:
        template: its file.
        style: a file of rules of this page alone, which follow those of all pages.
        script: a file with the only script that may run on this page; without one none may.
        glossary: the words it explains.
        values: `kind` of page, `name` of what it shows, `made` (a date), `sections`, and what the template needs.
    """
    rules, runs = _file("page.css") + (_file(style) if style else ""), _file(script) if script else ""
    return environment().get_template(template).render(
        glossary=glossary, style=Markup(rules), digest=_digest(rules), script=Markup(runs),
        script_digest=_digest(runs) if runs else "", **values,
    )  # fmt: skip


def _file(name: str) -> str:
    return resources.files("convsmith.reporting").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def opening(records: RunRecords, shown: Sequence[Section]) -> Opening:
    """Choose what the first screen shows; records without a verdict are judged now.

    Args:
        records: the run's records.
        shown: the sections of the page.
    """
    known = records.verdict or verdict(records.results, audit=records.audit, run=records.folder).to_json()
    words = dict.fromkeys(("headline", "right", "fails", "trust", "data", "next", "command"), "")
    words |= {key: str(text) for key, text in known.items() if text is not None}
    kind = words.get("kind", "")
    accuracy = (records.measured.get("metrics") or {}).get("accuracy") or {}
    kind = kind if kind in KINDS else "unknown"
    bar = None
    if accuracy.get("value") is not None:
        bar = figures.interval_bar(accuracy, marks=_marks(records), kind=kind)
    wrong = [item for item in records.measured.get("mistakes") or () if item["id"] in records.thumbnails]
    right = [item for item in records.examples if item["id"] in records.thumbnails]
    return Opening(
        words=words,
        kind=kind,
        kicker=_kicker(records),
        bar=bar,
        bar_title="Share of images given their right class, with its 95 % interval, and what it has to beat",
        right=[picture for picture in pictures(records, _varied(right)) if picture.address],
        wrong=[picture for picture in pictures(records, _varied(wrong)) if picture.address],
        data_link=any(section.id == "data" for section in shown),
    )


def _kicker(records: RunRecords) -> str:
    split, n = records.headline_split, records.measured.get("n")
    if not split or n is None:
        return "Not measured yet"
    words = SPLITS[split] if n != 1 else SPLITS[split].replace("images", "image", 1)
    return f"Measured on {n:,} {words}"


def _varied(items: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first few of different classes, so that the strip shows more than one kind."""
    first: dict[Any, Mapping[str, Any]] = {}
    for item in items:
        first.setdefault(item["true"], item)
    rest = [item for item in items if item not in first.values()]
    return [*first.values(), *rest][:STRIP]


def _marks(records: RunRecords) -> list[tuple[str, float]]:
    """The commonest class, blind chance (one mark where both are the same), and a linear classifier."""
    chance = 1 / len(records.classes) if records.classes else None
    baseline = records.measured.get("baseline") or {}
    usual = (baseline.get("accuracy") or {}).get("value")
    marks = []
    if usual is not None:
        name = class_name(baseline["class"], records.classes)
        marks.append((f"Always saying “{fit(name, 7)}”", usual))
    if chance is not None and (usual is None or abs(usual - chance) > 0.0005):
        marks.append(("Guessing", chance))
    linear, gain = ((records.probe.get("test") or {}).get("accuracy") or {}).get("value"), records.probe.get("gain")
    if linear is not None and gain and gain["low"] != gain["high"]:  # else it is the very network that is measured
        marks.append(("Linear classifier", linear))
    return marks
