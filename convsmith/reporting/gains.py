"""The sections about what is or would be gained: on simpler ways, on kinds of image, by more images, by each stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convsmith.diagnosis import weaker
from convsmith.reporting import figures
from convsmith.reporting.formats import MINUS, SPACE, clean, duration, number, percent, plain, sentence, some
from convsmith.reporting.pictures import class_name
from convsmith.reporting.run_records import RunRecords
from convsmith.reporting.templates import Section, fill

ROWS_SHOWN = 20


def compared(records: RunRecords) -> Section | None:
    """This network beside the commonest class and the linear probe, each with its interval, and the paired gains."""
    accuracy = (records.measured.get("metrics") or {}).get("accuracy") or {}
    probe = records.probe.get("test") or {}
    if not probe.get("accuracy") or accuracy.get("value") is None or records.headline_split != "test":
        return None
    baseline = records.measured.get("baseline") or {}
    rows, gains = [], []
    if baseline.get("accuracy"):
        name = class_name(baseline["class"], records.classes)
        rows.append(("majority class", baseline["accuracy"]))
        gains.append((f"always answering “{name}”", baseline.get("gain")))
    rows += [("linear probe", probe["accuracy"]), ("this network", accuracy)]
    gains.append(("the linear probe", records.probe.get("gain")))
    told = [gain_words(gain, other) for other, gain in gains if _known(gain)]
    tune = records.probe.get("tune") or {}
    facts = [
        ("Network", records.probe.get("model") if records.probe.get("weights") else None),  # pixels need none
        ("Weights", records.probe.get("weights")),
        ("Features", _optional(records.probe.get("features"), number)),
        ("Learned from", _optional(records.probe.get("images"), lambda n: some(n, "image"))),
        ("Weight decay", _optional(records.probe.get("decay"), plain)),
        ("Views", ", ".join(records.probe.get("views") or ())),
        ("Took", _took(records.probe.get("seconds") or {})),
        ("Right on tune images", percent(tune["accuracy"]["value"]) if _valued(tune.get("accuracy")) else None),
    ]
    return Section(
        "compared",
        "Compared with simpler ways",
        told[-1] if told else "What one reaches without training the network.",
        fill(
            "gains:compared",
            chart=figures.interval_rows(rows, what="Accuracy of simpler ways and of this network"),
            rows=rows,
            told=told[:-1],
            says=str(records.probe.get("says") or "one layer, trained by itself").rstrip("."),
            facts=[(name, str(value)) for name, value in facts if value not in (None, "")],
        ),
    )


def gain_words(gain: Mapping[str, Any], other: str) -> str:
    """Say a paired difference of shares in words, and whether it is proven: only where its interval leaves out 0.

    Args:
        gain: an `Estimate` of this network minus the other way as JSON, with an interval.
        other: the other way, in words.
    """
    value, low, high = gain["value"], gain["low"], gain["high"]
    between = f"between {_points(low)} and {_points(high)}"
    if low <= 0 <= high:
        name = "better" if value > 0 else "worse" if value < 0 else "neither better nor worse"
        size = f" by {_points(abs(value))} points" if value else ""
        return f"It is {name} than {other}{size}, {between}: not proven, because the interval holds 0."
    way = "better" if low > 0 else "worse"
    ends = between if low > 0 else f"between {_points(-high)} and {_points(-low)}"
    return f"It is {way} than {other} by {_points(abs(value))} points, {ends}: shown by these images."


def slices(records: RunRecords) -> Section | None:
    """Accuracy on the dark, blurred, small or oddly shaped images against the rest."""
    found = [item for item in records.measured.get("slices") or () if _valued(item["accuracy"])]
    if not found:
        return None
    weak = weaker(found)
    names = [f"{clean(item['by'])}: {clean(item['name'])}" for item in found]
    rows = []
    for name, item in zip(names, found, strict=True):
        shown = "stronger" if _apart(item["difference"]) else "no difference shown"
        verdict = "weaker" if item in weak else shown
        rows.append({**item, "title": name, "verdict": verdict})
    looked = f"{some(len(found), 'kind')} of image {'was' if len(found) == 1 else 'were'} looked at"
    lead = (
        f"{looked}, and none is surely weaker than the rest."
        if not weak
        else f"{looked}; surely weaker than the rest: "
        + "; ".join(
            f"{item['name']} ({item['by']}), {percent(item['accuracy']['value'])} against "
            f"{percent(item['rest']['value'])}"
            for item in weak
        )
        + "."
    )
    return Section(
        "slices",
        "Where it is weaker",
        lead,
        fill(
            "gains:slices",
            chart=figures.interval_rows(
                [(clean(row["name"]), row["accuracy"]) for row in rows[:ROWS_SHOWN]],
                what="Accuracy on each kind of image",
                wide=True,
                reference=((records.measured.get("metrics") or {}).get("accuracy") or {}).get("value"),
            ),
            rows=rows,
            chance=len(found) / 20,
        ),
    )  # fmt: skip


def learning(records: RunRecords) -> Section | None:
    """Accuracy against the number of training images, and whether it still rises."""
    curve = records.learning_curve
    points = [point for point in curve.get("points") or () if _valued(point["accuracy"]) and point["images"] > 0]
    points.sort(key=lambda point: point["images"])
    if len(points) < 2:
        return None
    drawn = figures.learning_curve([(point["images"], point["accuracy"]) for point in points])
    return Section(
        "learning", "Would more images help?", sentence(curve.get("says") or ""),
        fill("gains:learning", chart=drawn, points=points, method=sentence(curve.get("method") or "")),
    )  # fmt: skip


def stages(records: RunRecords) -> Section | None:
    """Accuracy of a linear head at the end of each stage before any training, and whether the last one still gains."""
    found = [stage for stage in records.probe.get("stages") or () if _valued(stage["accuracy"])]
    if len(found) < 2:
        return None
    names = [clean(stage["name"]).replace("-", " ") for stage in found]
    tested = records.measured if records.headline_split == "test" else {}
    baseline = ((tested.get("baseline") or {}).get("accuracy") or {}).get("value")
    rows = [{**stage, "title": name} for stage, name in zip(found, names, strict=True)]
    return Section(
        "stages",
        "How general the weights’ features are",
        stage_words(found[-1].get("gain"), names[-1], names[-2]),
        fill(
            "gains:stages",
            chart=figures.interval_rows(
                [(row["title"], row["accuracy"]) for row in rows],
                what="Accuracy of a linear classifier at the end of each stage",
                reference=baseline,
            ),
            rows=rows,
            baseline=baseline,
            learned=(found[0]["images"], found[-1]["images"], "mirror" in (records.probe.get("views") or ())),
        ),
    )


def stage_words(gain: Mapping[str, Any] | None, last: str, before: str) -> str:
    """Say what the gain of the last stage's features on those of the stage before tells, and no more.

    Features that serve these images less than those before them are specific to what the weights were trained on
    (Yosinski et al. 2014); a gain that is not shown may as well be one for which there are too few images.

    Args:
        gain: an `Estimate` as JSON.
        last, before: the names of the two stages.
    """
    if gain is None or not _known(gain):
        return "Whether the last stage's features are better than those before cannot be told with these images."
    value, low, high = gain["value"], gain["low"], gain["high"]
    subject = f"The features of the last stage, {last}, are"
    if low > 0:
        return (
            f"{subject} better than those of {before} by {_points(value)} points, between {_points(low)} and "
            f"{_points(high)}: what the weights know, up to the network's end, carries over to these images."
        )
    if high < 0:
        return (
            f"{subject} worse than those of {before} by {_points(-value)} points, between {_points(-high)} and "
            f"{_points(-low)}: they are more specific to what the weights were trained on."
        )
    return (
        f"{subject} not shown to be better than those of {before}; the difference is {_points(value)} points, between "
        f"{_points(low)} and {_points(high)}. Either what the last stage adds is specific to what the weights were "
        "trained on, or these test images are too few to tell."
    )


def _apart(difference: Mapping[str, Any]) -> bool:
    return _known(difference) and not difference["low"] <= 0 <= difference["high"]


def _known(estimate: Mapping[str, Any] | None) -> bool:
    return bool(estimate) and all(estimate.get(key) is not None for key in ("value", "low", "high"))


def _valued(estimate: Mapping[str, Any] | None) -> bool:
    return bool(estimate) and estimate.get("value") is not None


def _points(share: float) -> str:
    """A difference of shares in points; ends are rounded to a tenth, and never to 0 from either side."""
    value = 100 * share
    return f"{value:.1f}".replace("-", MINUS) if abs(value) >= 0.05 or not value else f"{value:.2g}".replace("-", MINUS)


def _took(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name}{SPACE}{duration(value)}" for name, value in seconds.items() if value is not None)


def _optional(value: Any, show: Any) -> str | None:
    return None if value is None else show(value)
