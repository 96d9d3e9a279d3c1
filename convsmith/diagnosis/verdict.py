"""The report's first screen in words anyone knows. The interval, not the figure, chooses every sentence."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from convsmith.diagnosis.evidence import estimate
from convsmith.diagnosis.oddities import about_data, leaked, shared_copies
from convsmith.records import Estimate, Finding, Record

Kind = Literal["good", "partial", "chance", "unsure", "unknown"]

WIDE = 0.20  # an interval of more than 20 points decides nothing
GOOD = 0.80  # right for at least four of five pictures, by the lower limit
SERIOUS = ("error", "warning")


@dataclass(frozen=True)
class Verdict(Record):
    """What a reader should know first.

    Args:
        kind: good, partial (better than guessing, not yet good), chance (may be no better than guessing), unsure (too
            few test pictures to say) or unknown (nothing was measured).
        headline: one sentence.
        right: how sure that is, and what it has to beat; to be read after the headline.
        fails: where it fails.
        trust: whether the figure can be trusted.
        data: what is wrong with the images themselves; empty where no audit was left.
        next: what to do next.
        command: the command for that, ready to paste; empty where none would help.
    """

    kind: Kind
    headline: str
    right: str
    fails: str
    trust: str
    data: str
    next: str
    command: str


def verdict(
    results: Mapping[str, Any],
    findings: Sequence[Finding] = (),
    *,
    audit: Mapping[str, Any] | None = None,
    roles: Mapping[str, str] | None = None,
    run: str = "last",
) -> Verdict:
    """Choose the sentences.

    Args:
        results: results.json; the test split is judged, or tune where there is no test, which is then said.
        findings: of `diagnose`, in its order.
        audit: audit.json, for what is wrong with the images.
        roles: image id to train, tune or test, which tells whether identical pictures lie on both sides.
        run: the run's name or path, for commands.
    """
    run = shlex.quote(run)
    splits = results.get("splits") or {}
    split = next((name for name in ("test", "tune") if (splits.get(name) or {}).get("n")), None)
    accuracy = estimate(splits[split]["metrics"].get("accuracy")) if split else None
    data = about_data(audit or {}, roles=roles)
    if split is None or accuracy is None:
        return _unknown((splits[split]["metrics"] if split else None) or {}, data, run, measured=bool(splits))
    result = splits[split]
    kind = _kind(accuracy, estimate(result["baseline"].get("gain")))
    step, command = _next(kind, result, accuracy, findings, run)
    return Verdict(
        kind=kind,
        headline=_headline(kind, accuracy, result["n"]),
        right=_right(kind, result, accuracy),
        fails=_fails(result, accuracy),
        trust=_trust(split, result, accuracy, audit or {}, roles or {}),
        data=data,
        next=step,
        command=command,
    )


def of_100(share: float, *, down: bool = False, up: bool = False) -> str:
    """A share as a count of 100, with a decimal where whole numbers would claim all or nothing.

    Lower limits are rounded `down` and upper ones `up`, so that rounding never makes an interval narrower.
    """
    turn = math.floor if down else math.ceil if up else round
    value = 100 * share
    for factor in (1, 10, 100) if 0.01 <= share <= 0.99 else (10, 100):
        value = turn(round(share * 100 * factor, 6)) / factor
        if 0 < value < 100 or share in (0.0, 1.0):
            return f"{value:g}"
    return f"{value:g}"


def _kind(accuracy: Estimate, gain: Estimate | None) -> Kind:
    low, high = float(accuracy.low or 0.0), float(accuracy.high or 0.0)
    if high - low > WIDE:
        return "unsure"
    if gain is not None and (gain.low or 0.0) <= 0:
        return "chance"
    return "good" if low >= GOOD else "partial"


def _headline(kind: Kind, accuracy: Estimate, n: int) -> str:
    share = of_100(float(accuracy.value or 0.0))
    return {
        "good": f"It names {share} of 100 pictures rightly.",
        "partial": f"It has learned something, but names only {share} of 100 pictures rightly.",
        "chance": "It has not been shown to do better than guessing.",
        "unsure": f"Too few test pictures to say how good it is: there are only {n:,}.",
    }[kind]


def _right(kind: Kind, result: Mapping[str, Any], accuracy: Estimate) -> str:
    n, right = result["n"], sum(row[i] for i, row in enumerate(result["confusion"]))
    limits = f"{_limits(accuracy)} with {100 * accuracy.level:g} % confidence"
    blind = result["baseline"]
    floor = estimate(blind.get("accuracy"))
    always = f"answering always “{blind['class']}”"
    if kind == "chance" and floor:
        return (
            f"Of {n:,} test pictures it named {right:,} rightly; the true figure lies between {limits}. But {always}, "
            f"without looking, is right for {of_100(float(floor.value or 0.0))} of 100, and these pictures cannot tell "
            "the two apart."
        )
    if kind == "unsure":
        gain = estimate(blind.get("gain"))
        also = f" Even {always} might do as well." if gain and (gain.low or 0.0) <= 0 else ""
        return f"It named {right:,} of {n:,} rightly, but the true figure may lie anywhere between {limits}.{also}"
    than = f" A{always[1:]} would be right for {of_100(float(floor.value or 0.0))}." if floor else ""
    return f"From {n:,} test pictures, the true figure lies between {limits}.{than}"


def _fails(result: Mapping[str, Any], accuracy: Estimate) -> str:
    """The class whose recall is surely lowest (by the upper limit), and the commonest mistake."""
    rows = [(row, recall) for row in result["per_class"] if (recall := estimate(row["recall"]))]
    pairs = result["pairs"]
    if not pairs:
        return f"It made no mistake in {result['n']:,} pictures; that does not mean that it never will."
    row, recall = min(rows, key=lambda item: (item[1].high or 0.0, item[1].value or 0.0))
    hits = round(float(recall.value or 0.0) * row["n"])
    score = f"{hits:,} of {row['n']:,} right"
    if (recall.high or 0.0) < (accuracy.low or 0.0):
        first = f"It is weakest on “{row['name']}”: {score}, in the long run between {_limits(recall)}."
    else:
        first = f"No kind of picture is surely worse than the rest; “{row['name']}” did worst, {score}."
    pair = pairs[0]
    own = next((row["n"] for row in result["per_class"] if row["name"] == pair["true"]), None)
    among = f" among {own:,} such pictures" if own else ""
    return (
        f"{first} Its commonest mistake is to answer “{pair['predicted']}” for “{pair['true']}”: "
        f"{_times(pair['count'])}{among}."
    )


def _trust(
    split: str, result: Mapping[str, Any], accuracy: Estimate, audit: Mapping[str, Any], roles: Mapping[str, str]
) -> str:
    n, width = result["n"], float(accuracy.high or 0.0) - float(accuracy.low or 0.0)
    points = f"{100 * width:.0f} points" if width >= 0.02 else f"{100 * width:.1f} points"
    if width > WIDE:
        size = f"Not sure: {n:,} pictures leave {points} between the lowest and the highest likely figure."
    else:
        size = f"{n:,} pictures leave {points} between the lowest and the highest likely figure."
    if split == "test":
        choice = " None of them was used for training or for choosing anything."
    else:
        choice = (
            " But they also served to choose among networks, so the figure flatters; there is no separate test set."
        )
    if "leaks" in audit:
        return size + (_leaks(split, result, audit) or choice)
    return size + choice + _copies(split, audit.get("duplicates") or (), roles)


def _leaks(split: str, result: Mapping[str, Any], audit: Mapping[str, Any]) -> str:
    images = leaked(audit, into=split)[1]
    if not images:
        return ""
    kept = result.get("without_leaks") or {}
    figure = estimate(kept.get("accuracy"))
    without = (
        f" Of the {kept['n']:,} others it names {of_100(float(figure.value or 0.0))} of 100 rightly, "
        f"between {_limits(figure)}."
        if figure
        else ""
    )
    return (
        f" But {images:,} of them {'is' if images == 1 else 'are'} also on the other side of the split, so the figure "
        f"flatters.{without}"
    )


def _copies(split: str, duplicates: Sequence[Sequence[str]], roles: Mapping[str, str]) -> str:
    if not duplicates:
        return ""
    if not roles:
        return f" {len(duplicates)} sets of identical pictures were found; some may lie on both sides of the split."
    shared = shared_copies(split, duplicates, roles)
    if not shared:
        return " No copy of them lies among the pictures it learned from."
    return (
        f" Careful: {shared} of them also lie, identical, among the pictures it learned from, so the figure flatters."
    )


def _unknown(metrics: Mapping[str, Any], data: str, run: str, *, measured: bool) -> Verdict:
    """Nothing was measured; or another task, whose first figure is given as it is, and claims nothing more."""
    name = next(iter(metrics), "")
    figure = estimate(metrics[name]) if name else None
    if figure is None and not measured:
        told = ("This run holds no results yet.", "Nothing was measured, so nothing can be said about it.", "", "")
        step = "Finish the run, or measure the network as it is."
        return Verdict("unknown", *told, data, step, f"convsmith evaluate {run}")
    if figure is None:
        told = ("Nothing was measured.", "", "", "There were no test pictures.")
        step = "Measure it on pictures with known names."
        return Verdict("unknown", *told, data, step, f"convsmith evaluate {run} --data FOLDER")
    words = f"{name[:1].upper()}{name[1:]}".replace("_", " ")
    between = f"The true figure lies between {figure.low:.3f} and {figure.high:.3f} with {100 * figure.level:g} %"
    return Verdict(
        "unknown", f"{words}: {figure.value:.3f}", f"{between} confidence.", "", "", data,
        "Look at the figures below.", f"convsmith report {run} --open",
    )  # fmt: skip


def _next(
    kind: Kind, result: Mapping[str, Any], accuracy: Estimate, findings: Sequence[Finding], run: str
) -> tuple[str, str]:
    serious = [finding for finding in findings if finding.severity in SERIOUS]
    if kind == "unsure":
        return _collect(result["n"], accuracy), f"convsmith evaluate {run} --data FOLDER_OF_NEW_PICTURES"
    if serious:
        return serious[0].says, serious[0].experiment or f"convsmith report {run}"
    tested = next((finding for finding in findings if finding.experiment), None)
    if tested:
        return tested.says, tested.experiment
    if kind == "good":
        return "Try it on pictures of your own.", f"convsmith predict {run} PICTURES"
    if findings:
        return findings[0].says, f"convsmith report {run} --open"
    return "Look at its mistakes below: wrong names, pictures cut off, or two kinds that look alike?", (
        f"convsmith report {run} --open"
    )


def _collect(n: int, accuracy: Estimate) -> str:
    """How many test pictures would narrow the figure to five points each way: z² p (1 - p) / 0.05²."""
    p = min(0.9, max(0.1, float(accuracy.value or 0.0)))
    wanted = max(n + 10, 10 * math.ceil(3.84 * p * (1 - p) / 0.05**2 / 10))
    return f"Measure it on more pictures: about {wanted} would fix the figure to five points each way."


def _limits(figure: Estimate) -> str:
    return f"{of_100(float(figure.low or 0.0), down=True)} and {of_100(float(figure.high or 0.0), up=True)} of 100"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
