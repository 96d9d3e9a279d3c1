"""Rules about what would help: fine-tuning, more images, or images of a kind that is known badly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convsmith.diagnosis.evidence import Evidence, certainty, estimate, percent
from convsmith.records import Estimate, Finding


def fine_tuning_did_not_help(evidence: Evidence) -> Finding | None:
    """The network is not shown to beat the linear probe, on frozen features of the same weights or on the pixels."""
    probe = evidence.probe
    gain = estimate(probe.get("gain"))
    if gain is None or (gain.low or 0.0) > 0 or gain.low == gain.high:  # one and the same network: nothing was tuned
        return None
    n = (probe.get("test") or {}).get("n") or gain.n
    worse = (gain.high or 0.0) < 0
    severity, hedge = certainty("warning" if worse else "hint", n)
    figure = estimate((probe.get("test") or {}).get("accuracy"))
    right = f" ({percent(figure.value)} right)" if figure else ""
    simple = probe.get("says") or "a linear classifier on frozen features"
    says = (
        f"The trained network is worse than {simple}{right}, by {_points(gain, -1)}."
        if worse
        else f"By these {n:,} pictures, the trained network cannot be told from {simple}{right}: the gain is "
        f"{_points(gain)}."
    )
    # Training spoils features that came with weights; a network that starts from nothing has not had enough of it.
    spoilt = worse and bool(probe.get("weights"))
    change = {"transfer.mode": "probe"} if spoilt else {"train.epochs": 2 * evidence.epochs()}
    advice = (
        "The linear classifier alone is the better network here."
        if spoilt
        else "More pictures, or training that is longer, may change that."
    )
    return Finding(
        rule="fine-tuning-did-not-help",
        severity=severity,
        says=f"{hedge}{says} {advice}",
        evidence={"gain": gain.value, "low": gain.low, "high": gain.high, "probe": figure and figure.value, "n": n},
        change=change,
        experiment=evidence.experiment(change),
        source="Kumar et al. 2022, “Fine-tuning can distort pretrained features and underperform out-of-distribution”",
    )


def more_images_would_help(evidence: Evidence) -> Finding | None:
    """The learning curve is still rising at its end."""
    return _curve(evidence, rising=True)


def more_images_will_not_help_much(evidence: Evidence) -> Finding | None:
    """The learning curve has levelled out: more of the same images would change little."""
    return _curve(evidence, rising=False)


def _curve(evidence: Evidence, *, rising: bool) -> Finding | None:
    curve = evidence.learning_curve
    points = [(point["images"], estimate(point["accuracy"])) for point in curve.get("points") or ()]
    known = [(images, figure) for images, figure in points if figure is not None]
    if curve.get("rising") is not rising or len(known) < 2:
        return None
    (few, first), (many, last) = known[0], known[-1]
    _, hedge = certainty("hint", last.n)
    if rising:
        advice = "More pictures are likely to help; the kinds it mixes up come first."
    else:
        advice = "More pictures of the same kind would change little: look at the mistakes and the labels."
    return Finding(
        rule="more-images-would-help" if rising else "more-images-will-not-help-much",
        severity="hint",
        says=f"{hedge}With {few:,} training pictures {percent(first.value)} were right, with all {many:,} "
        f"{percent(last.value)}. {advice}",
        evidence={"images": many, "first": first.value, "last": last.value, "n": last.n},
        source="Hestness et al. 2017, “Deep learning scaling is predictable, empirically”",
    )


def weak_slice(evidence: Evidence) -> Finding | None:
    """A kind of picture, such as the dark ones, is known worse than the rest, and its interval says so."""
    result = evidence.split("test", "tune") or {}
    looked = result.get("slices") or ()
    weak = weaker(looked)
    if not weak:
        return None
    first = weak[0]
    here, rest, gap = (estimate(first[key]) for key in ("accuracy", "rest", "difference"))
    if here is None or rest is None or gap is None:
        return None
    severity, hedge = certainty("warning", first["n"])
    also = f" {len(weak) - 1} more are weaker as well." if len(weak) > 1 else ""
    return Finding(
        rule="weak-slice",
        severity=severity,
        says=f"{hedge}It is weaker on one kind of picture, the {first['name']}: {percent(here.value)} of "
        f"{first['n']:,} right, against {percent(rest.value)} of the rest.{also} {len(looked)} kinds were looked at, "
        "and of twenty one seems different by chance alone.",
        evidence={"difference": gap.value, "low": gap.low, "high": gap.high, "looked_at": len(looked), "n": first["n"]},
        where=tuple(f"{item['by']}: {item['name']}" for item in weak),
        source="Newcombe 1998, method 10, for the interval; Chung et al. 2019, “Slice Finder”",
    )


def weaker(slices: Any) -> list[Mapping[str, Any]]:
    """The slices whose accuracy lies surely below that of the rest, the widest gap first.

    Args:
        slices: a split's `slices`; the interval of `difference` has to exclude 0.
    """
    found = []
    for item in slices:
        here, rest, gap = (estimate(item[key]) for key in ("accuracy", "rest", "difference"))
        if here is None or rest is None or gap is None:
            continue
        apart = (gap.low or 0.0) > 0 or (gap.high or 0.0) < 0
        if apart and (here.value or 0.0) < (rest.value or 0.0):
            found.append((abs(gap.value or 0.0), item))
    return [item for _, item in sorted(found, key=lambda pair: -pair[0])]


def _points(gain: Estimate, sign: int = 1) -> str:
    """A difference of shares in points with its limits; a loss is told without signs where `sign` is -1."""
    value, *ends = (sign * 100 * float(x or 0.0) for x in (gain.value, gain.low, gain.high))
    told = [f"{x:+.1f}" if sign > 0 else f"{x:.1f}" for x in (value, *sorted(ends))]
    return f"{told[0]} points (between {told[1]} and {told[2]})".replace("-", "\N{MINUS SIGN}")
