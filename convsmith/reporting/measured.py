"""The sections about what was measured: findings, figures, classes, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convsmith.reporting import figures
from convsmith.reporting.formats import percent, some
from convsmith.reporting.pictures import class_name
from convsmith.reporting.run_records import RunRecords
from convsmith.reporting.templates import Section, fill, interval, value
from convsmith.reporting.words import SPLITS, metric

ROWS_SHOWN = 20
SEVERITIES = {"error": "The result cannot be trusted", "warning": "Worth mending", "hint": "Worth knowing"}


def findings(records: RunRecords) -> Section | None:
    """What the rules saw in the evidence, and the experiment that would prove each."""
    found = [
        {"where": (), "change": {}, "experiment": "", "source": "", "evidence": {}, **item} for item in records.findings
    ]
    if not found:
        return None
    return Section(
        "findings",
        "What stands out",
        "Each finding names the numbers it rests on and, where there is one, the experiment that would test the mend.",
        fill("findings", findings=found, severities=SEVERITIES),
    )


def metrics(records: RunRecords) -> Section | None:
    """Every figure with its interval and how that was made."""
    measured = records.measured.get("metrics")
    if not measured:
        return None
    rows = [(name, metric(name), estimate) for name, estimate in measured.items()]
    rows += [(f"baseline_{name}", term, estimate) for name, term, estimate in _baseline(records)]
    n = records.measured.get("n")
    lead = f"Measured on {f'{n:,} ' if n is not None else ''}{SPLITS[records.headline_split]}. "
    return Section(
        "figures",
        "The figures",
        lead + "Each figure has an interval, because other images would have given another figure.",
        fill("metrics", rows=rows, comparison=_comparison(records), splits=list(_splits(records))),
    )


def _baseline(records: RunRecords) -> list[tuple[str, Any, Any]]:
    baseline = records.measured.get("baseline")
    if not baseline:
        return []
    accuracy, name = metric("accuracy"), class_name(baseline["class"], records.classes)
    rows = [
        (
            "accuracy",
            type(accuracy)("Baseline", f"The accuracy of always answering “{name}”.", "percent"),
            baseline["accuracy"],
        )
    ]
    if baseline.get("gain"):
        rows.append(
            ("gain", type(accuracy)("Gain", "How far accuracy lies above the baseline.", "percent"), baseline["gain"])
        )
    return rows


def _splits(records: RunRecords) -> dict[str, Any]:
    splits = records.results.get("splits") or {}
    return {role: splits[role] for role in ("train", "tune", "test") if splits.get(role)}


def _comparison(records: RunRecords) -> list[tuple[Any, list[Any]]]:
    """Rows of accuracy and log loss over all roles measured: a wide gap means that the network memorises."""
    splits = _splits(records)
    if len(splits) < 2:
        return []
    names = [name for name in ("accuracy", "log_loss") if all(name in part["metrics"] for part in splits.values())]
    return [(metric(name), [part["metrics"][name] for part in splits.values()]) for name in names]


def classes(records: RunRecords) -> Section | None:
    """Recall of each class, the worst first."""
    rows = records.measured.get("per_class")
    if not rows:
        return None
    defined = [row for row in rows if row["recall"]["value"] is not None]
    ordered = sorted(defined, key=lambda row: row["recall"]["value"]) + [row for row in rows if row not in defined]
    lead = "No class has test images."
    if defined:
        ends = (worst, best) = ordered[0], ordered[len(defined) - 1]
        shares = [percent(row["recall"]["value"]) for row in ends]
        if shares[0] == shares[1]:
            lead = f"Of every class the network finds {shares[0]}."
        else:
            lead = (
                f"Of the images that are “{class_name(worst['name'], ())}”, the network finds {shares[0]}; of "
                f"“{class_name(best['name'], ())}”, {shares[1]}."
            )
        lead += " The wider a bar, the fewer images it rests on."
    accuracy = (records.measured.get("metrics") or {}).get("accuracy") or {}
    shown = ordered[:ROWS_SHOWN]
    chart = figures.interval_rows(
        [(row["name"], row["recall"]) for row in shown], what="Recall of each class", reference=accuracy.get("value")
    )
    left = len(ordered) - len(shown)
    return Section(
        "classes",
        "Class by class",
        lead,
        fill("classes", chart=chart, rows=ordered, left=left, mean=accuracy.get("value")),
    )


def calibration(records: RunRecords) -> Section | None:
    """Whether the network is right as often as it says."""
    bins = records.measured.get("reliability")
    if not bins:
        return None
    used = [item for item in bins if item["n"]]
    ece = (records.measured.get("metrics") or {}).get("ece")
    lead = "Dots below the diagonal: surer than it should be. Above: too modest."
    if ece and ece["value"] is not None:
        lead = f"How sure it says it is and how often it is right {_apart(ece)}. {lead}{_tempered(records)}"
    return Section(
        "calibration", "How far its confidence can be believed", lead,
        fill("calibration", chart=figures.reliability(used), bins=used),
    )  # fmt: skip


def _apart(ece: Mapping[str, Any]) -> str:
    """How far confidence and accuracy lie apart, in words."""
    if ece.get("high") is None:
        return f"differ by {value(ece)} on average"
    if ece["value"] == 0:
        return f"cannot be told apart by these pictures (at the most {value({**ece, 'value': ece['high']})})"
    return f"differ by {value(ece)} on average ({interval(ece)})"


def _tempered(records: RunRecords) -> str:
    """What the temperature did, where one was fitted."""
    raw = (records.measured.get("uncalibrated") or {}).get("ece")
    if not raw or raw["value"] is None:
        return ""
    without = f"without it the two {_apart(raw)}"
    if not records.calibration:  # of a cross-validation
        return f" Each network's confidence is tempered as its own tune images ask for; {without}."
    shown, fitted = f"{records.calibration['temperature']:.2f}", some(records.calibration["images"], "tune image")
    if shown == "1.00":
        return f" {fitted} ask for no change of its confidence (temperature 1.00)."
    did = "lowered" if records.calibration["temperature"] > 1 else "raised"
    return f" A temperature of {shown}, fitted on {fitted}, has {did} its confidence and changed no answer; {without}."
