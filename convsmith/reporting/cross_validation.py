"""The page of a cross-validation: the figures of all images together, how far its runs differ, and what that means."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from convsmith.diagnosis import about_data, verdict
from convsmith.reporting import figures
from convsmith.reporting.data import data
from convsmith.reporting.formats import date, percent, shorten, some
from convsmith.reporting.looked import confusion, mistakes
from convsmith.reporting.made import repeat
from convsmith.reporting.measured import calibration, classes, metrics
from convsmith.reporting.page import page
from convsmith.reporting.pictures import class_name
from convsmith.reporting.run_records import RunRecords, read_records
from convsmith.reporting.templates import Section, fill, interval, value
from convsmith.reporting.words import metric
from convsmith.run_folder import RunFolder

ROWS_SHOWN = 20
RUN = re.compile(r"(repeat-\d+-)?fold-\d+")
"""Names that folders of runs have; nothing else is opened or linked to."""
OUT_OF_FOLD = "each of them by a network that had not learnt from it"


@dataclass(frozen=True)
class FoldsOpening:
    """The first screen.

    Args:
        kind: the verdict's kind; it sets the colour.
        kicker: what was measured, in a line above the headline.
        headline, right: how good networks made in this way are, and between which limits.
        bar: the picture of the headline figure, or `None` where there is none.
        trust: in a sentence, what the interval is not.
        spread: how far the runs differ.
        data: what is wrong with the images; empty where no audit was left.
        command: what trains one network on all images.
    """

    kind: str
    kicker: str
    headline: str
    right: str
    bar: Markup | None
    trust: str
    spread: str
    data: str
    command: str


def write_cross_validation(folder: RunFolder) -> Path:
    """Write `report.html` of a cross-validation from its records; no network runs.

    Returns:
        The report's path.

    Raises:
        RunError: it has no results yet, or a record is damaged.
    """
    told = folder.read_json("results.json")["cross_validation"]
    thumbnails: dict[str, bytes] = {}
    for name in filter(RUN.fullmatch, (row["run"] for row in told["runs"])):
        thumbnails |= read_records(folder.path / name).thumbnails
    records = replace(read_records(folder.path), thumbnails=thumbnails)
    folder.write_text("report.html", render_cross_validation(records))
    return folder.report


def render_cross_validation(records: RunRecords) -> str:
    """Return the page as one HTML file, made from the records alone.

    Args:
        records: of the cross-validation's folder, its `results` with `cross_validation`, its thumbnails those of runs.
    """
    told = records.results["cross_validation"]
    whole = _counted(records, told["repeats"])
    n = some(records.measured["n"], "image")
    found = [
        _led(metrics(records), f"Measured on {n}, {OUT_OF_FOLD}. Other images would have given other figures."),
        _folds(records, told),
        Section("trust", "What the interval means", "", fill("folds:trust", says=told["says"])),
        classes(records),
        confusion(whole),
        mistakes(records),
        calibration(records),
        data(records),
        repeat(records),
        Section("methods", "For a paper", "", fill("methods", text=methods(records))),
    ]
    return page(
        "cross_validation.html", kind="cross-validation", name=records.name,
        made=date(records.manifest.get("created", "")), opening=opening(records),
        sections=[section for section in found if section is not None],
    )  # fmt: skip


def opening(records: RunRecords) -> FoldsOpening:
    """Choose what the first screen shows."""
    told, measured = records.results["cross_validation"], records.measured
    words = verdict(records.results, audit=records.audit, run=records.folder)
    accuracy, blind = measured["metrics"]["accuracy"], measured["baseline"]
    always = f"Always saying “{shorten(class_name(blind['class'], ()), 16)}”"
    bar = None
    if accuracy["value"] is not None:
        marks = [(always, blind["accuracy"]["value"])] if blind["accuracy"]["value"] is not None else []
        bar = figures.interval_bar(accuracy, marks=marks, kind=words.kind)
    drawn = f", drawn {told['repeats']} times" if told["repeats"] > 1 else ""
    spread = told["spread"].get("accuracy")
    given = shlex.quote(f"{records.folder}/given.yaml")
    return FoldsOpening(
        kind=words.kind,
        kicker=f"Measured on {some(measured['n'], 'image')} in {told['folds']} folds{drawn}",
        headline=words.headline.replace("test pictures", "pictures"),
        right=_right(accuracy),
        bar=bar,
        trust="Every image was named by a network that had not learnt from it. But the networks share most of what "
        "they learnt from, so the interval tends to be too narrow.",
        spread=_spread(spread, len(told["runs"])) if spread else "There is one run only.",
        data=about_data(records.audit),
        command=f"convsmith train --recipe {given} --set data.folds=null",
    )


def methods(records: RunRecords) -> str:
    """What a paper should say of a cross-validation, from its records alone."""
    told, measured = records.results["cross_validation"], records.measured
    split = str((records.audit.get("split") or {}).get("says") or "")
    size = f"{told['repeats']} times repeated {told['folds']}" if told["repeats"] > 1 else str(told["folds"])
    figures_told = [
        _figure(name, estimate)
        for name, estimate in measured["metrics"].items()
        if name in told["spread"] and estimate["value"] is not None
    ]
    calibrated = (
        " Each network's probabilities were calibrated by temperature scaling, fitted on its own tuning images."
        if measured.get("uncalibrated")
        else ""
    )
    spread = told["spread"].get("accuracy")
    between = (
        f" Accuracy had a standard deviation of {100 * spread['deviation']:.1f} points between the "
        f"{spread['n']} test folds."
        if spread
        else ""
    )
    versions = records.manifest.get("versions") or {}
    tools = f"Convsmith {records.manifest.get('convsmith', '')}".strip()
    tools += f" and PyTorch {versions['torch']}" if versions.get("torch") else ""
    return (
        f"Networks were trained with {tools} and evaluated by {size}-fold cross-validation on {measured['n']:,} images "
        f"({split}). Over all images, {OUT_OF_FOLD}, the figures were: {'; '.join(figures_told)}.{between}{calibrated} "
        "The intervals take images or groups as independent, which out-of-fold predictions are only nearly "
        "(Bates, Hastie & Tibshirani 2023)."
    )


def _figure(name: str, estimate: Mapping[str, Any]) -> str:
    """One figure in a sentence, with its interval and how that was made."""
    term = metric(name)
    words = f"{term.title[0].lower()}{term.title[1:]} {value(estimate, term.unit)}"
    ends = f" (95 % interval {interval(estimate, term.unit)}; {estimate['method']})" if _limited(estimate) else ""
    return words + ends


def _folds(records: RunRecords, told: Mapping[str, Any]) -> Section:
    rows, spread = [{**row, "link": RUN.fullmatch(row["run"]) is not None} for row in told["runs"]], told["spread"]
    accuracy = records.measured["metrics"]["accuracy"]
    chart = figures.interval_rows(
        [(row["run"].replace("repeat-", "").replace("-fold-", " / ").replace("-", " "), row["metrics"]["accuracy"])
         for row in rows[:ROWS_SHOWN]],
        what="Accuracy of each run", reference=accuracy["value"],
    )  # fmt: skip
    lead = _spread(spread["accuracy"], len(rows)) if spread.get("accuracy") else ""
    terms = [(metric(name), values) for name, values in spread.items()]
    return Section(
        "folds", "Fold by fold", lead,
        fill("folds:folds", chart=chart, rows=rows, spread=terms, repeats=told["repeats"]),
    )  # fmt: skip


def _counted(records: RunRecords, repeats: int) -> RunRecords:
    """The same with a confusion matrix of whole counts: over all repeats together, where there are several."""
    measured = records.measured
    table = [[round(count * repeats) for count in row] for row in measured["confusion"]]
    pairs = [{**pair, "count": round(pair["count"] * repeats)} for pair in measured["pairs"]]
    return replace(records, results={"splits": {"test": {**measured, "confusion": table, "pairs": pairs}}})


def _led(section: Section | None, lead: str) -> Section | None:
    return None if section is None else replace(section, lead=lead)


def _right(accuracy: Mapping[str, Any]) -> str:
    if not _limited(accuracy):
        return ""
    ends = f"{percent(accuracy['low'])} and {percent(accuracy['high'])}"
    return f"By these images, the true figure of networks made in this way lies between {ends}."


def _spread(spread: Mapping[str, Any], runs: int) -> str:
    return (
        f"The {runs} runs name between {percent(spread['lowest'])} and {percent(spread['highest'])} of their images "
        f"rightly, with a standard deviation of {100 * spread['deviation']:.1f} points."
    )


def _limited(estimate: Mapping[str, Any]) -> bool:
    return estimate.get("low") is not None and estimate.get("high") is not None
