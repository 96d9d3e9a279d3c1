"""The page: one HTML file that needs nothing else and lets nothing in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from markupsafe import Markup

from convsmith.reporting import figures
from convsmith.reporting.formats import date, fit
from convsmith.reporting.pictures import Picture, class_name, pictures
from convsmith.reporting.run_records import RunRecords
from convsmith.reporting.sections import sections
from convsmith.reporting.templates import environment, interval, value
from convsmith.reporting.words import GLOSSARY, SPLITS, metric

STRIP = 3
#: A verdict's kind or tone to the class that colours the first screen; anything else is `mixed`.
TONES = {"good": "good", "chance": "chance", "small": "small", "unsure": "small", "mixed": "mixed", "partial": "mixed"}


@dataclass(frozen=True)
class Opening:
    """The first screen.

    Args:
        words: the verdict's sentences.
        tone: good, chance, small or mixed; it sets the colour.
        kicker: what was measured, in a line above the headline.
        bar: the picture of the headline figure, or `None` where there is none.
        bar_title: what the picture shows.
        right, wrong: a few example pictures.
    """

    words: Mapping[str, str]
    tone: str
    kicker: str
    bar: Markup | None
    bar_title: str
    right: list[Picture]
    wrong: list[Picture]


def render(records: RunRecords) -> str:
    """Return the report of a run as one HTML file.

    It is made from the records alone: no clock, no network, no neural network, so the same records give the same page.

    Args:
        records: the run's records; parts may be missing.
    """
    style = resources.files("convsmith.reporting").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return environment().get_template("page.html").render(
        records=records,
        opening=opening(records),
        sections=sections(records),
        glossary=GLOSSARY,
        made=date(records.manifest.get("created", "")),
        style=Markup(style),
        digest=digest,
    )  # fmt: skip


def opening(records: RunRecords) -> Opening:
    """Choose what the first screen shows; without a verdict it states the plain figure, and claims nothing more."""
    words = {"headline": "", "certainty": "", "fails": "", "trust": "", "next": "", "command": ""}
    words |= {key: str(text) for key, text in (records.verdict or _plain_verdict(records)).items() if text is not None}
    words["certainty"] = words["certainty"] or words.get("right", "")
    tone = TONES.get(words.get("tone") or words.get("kind", ""), "mixed")
    accuracy = (records.measured.get("metrics") or {}).get("accuracy") or {}
    bar = None
    if accuracy.get("value") is not None:
        bar = figures.interval_bar(accuracy, marks=_marks(records), tone=tone)
    wrong = [item for item in records.measured.get("mistakes") or () if item["id"] in records.thumbnails]
    right = [item for item in records.examples if item["id"] in records.thumbnails]
    return Opening(
        words=words,
        tone=tone,
        kicker=_kicker(records),
        bar=bar,
        bar_title="Share of images given their right class, with its 95 % interval, and what it has to beat",
        right=[picture for picture in pictures(records, _varied(right)) if picture.address],
        wrong=[picture for picture in pictures(records, _varied(wrong)) if picture.address],
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
    """The commonest class and blind chance; one mark where both are the same."""
    chance = 1 / len(records.classes) if records.classes else None
    baseline = records.measured.get("baseline") or {}
    usual = (baseline.get("accuracy") or {}).get("value")
    marks = []
    if usual is not None:
        name = class_name(baseline["class"], records.classes)
        marks.append((f"Always saying “{fit(name, 7)}”", usual))
    if chance is not None and (usual is None or abs(usual - chance) > 0.0005):
        marks.append(("Guessing", chance))
    return marks


def _plain_verdict(records: RunRecords) -> dict[str, str]:
    if not records.measured:
        command = f"convsmith evaluate {records.folder}"
        return {
            "headline": "This run holds no results yet.",
            "certainty": "Nothing has been measured, so nothing can be said about what the network gets right.",
            "next": "Finish the run, or measure the network as it is.",
            "command": command,
            "tone": "mixed",
        }
    measured = records.measured.get("metrics") or {}
    name = "accuracy" if "accuracy" in measured else next(iter(measured), "")
    if not name:
        return {"headline": "The results hold no figures.", "tone": "mixed"}
    estimate, unit = measured[name], metric(name).unit
    known = estimate.get("low") is not None and estimate.get("value") is not None
    return {
        "headline": f"{metric(name).title}: {value(estimate, unit)}",
        "certainty": f"The 95 % interval is {interval(estimate, unit)}." if known else "",
        "tone": "mixed",
    }
