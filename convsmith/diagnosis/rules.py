"""What can go wrong with a trained classifier, one pure function each: `(evidence) -> Finding | None`.

A rule reads records, never a network; it prints nothing and changes nothing. It fires only where an interval supports
it, and from few images it only ever hints. Thresholds stand beside each rule, with its source.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convsmith.diagnosis.data_rules import label_conflicts, leak, suspected_groups
from convsmith.diagnosis.evidence import Evidence, certainty, difference, estimate, percent
from convsmith.diagnosis.gain_rules import (
    fine_tuning_did_not_help,
    more_images_will_not_help_much,
    more_images_would_help,
    weak_slice,
)
from convsmith.evaluation import wilson
from convsmith.records import Finding, Severity
from convsmith.registry import Entry, Registry

STRONGER = {"none": "digits", "clothes": "objects"}  # the next augmentation that cannot contradict the one before
FROZEN_AT_MOST = 3
"""Stages of a fine-tuned network; every one here has more."""
LARGE = 48  # px from which a random part of a picture still shows what it is
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "hint")


def constant_predictor(evidence: Evidence) -> Finding | None:
    """More than 95 % of the pictures get one name, and at least 20 points more than have it."""
    result = evidence.split("tune", "test")
    if result is None:
        return None
    top = max(result["per_class"], key=lambda row: row["predicted"])
    n = result["n"]
    share, prior = wilson(top["predicted"], n), top["n"] / n
    if share.value is None or share.low is None or share.value <= 0.95 or share.low <= prior + 0.2:
        return None
    severity, hedge = certainty("error", n)
    change = {"train.epochs": 2 * evidence.epochs()}
    return Finding(
        rule="constant-predictor",
        severity=severity,
        says=f"{hedge}It calls nearly every picture “{top['name']}” ({percent(share.value)} of them; {percent(prior)} "
        "are). It has not learned to tell pictures apart: training was too short, too violent, or went astray.",
        evidence={"share": share.value, "low": share.low, "high": share.high, "prior": prior, "n": n},
        where=(top["name"],),
        change=change,
        experiment=evidence.experiment(change),
        source="AutoTrainer (Zhang et al. 2021), DeepDiagnosis (Wardat et al. 2022)",
    )


def imbalance(evidence: Evidence) -> Finding | None:
    """The commonest class has over ten times the pictures of the rarest, or a rare class is mostly missed."""
    counts: Mapping[str, int] = ((evidence.manifest.get("data") or {}).get("counts") or {}).get("train") or {}
    result = evidence.split("tune", "test")
    if len(counts) < 2:
        return None
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    ratio = counts[most] / max(1, counts[least])
    typical = statistics.median(counts.values())
    rows = {row["name"]: row for row in result["per_class"]} if result else {}
    recalls = {name: estimate(rows[name]["recall"]) for name, n in counts.items() if n < typical / 2 and name in rows}
    missed = [name for name, recall in recalls.items() if recall and recall.high is not None and recall.high < 0.3]
    if ratio <= 10 and not missed:
        return None
    severity, hedge = certainty("error" if missed else "warning", sum(counts.values()))
    where = tuple(missed) or (least,)
    change = {"train.epochs": 2 * evidence.epochs()}
    lost = f" Pictures of {_names(missed)} are mostly missed." if missed else ""
    recall = recalls.get(where[0])
    return Finding(
        rule="imbalance",
        severity=severity,
        says=f"{hedge}It learned from {counts[most]} pictures of “{most}” but only {counts[where[0]]} of "
        f"“{where[0]}”.{lost} More pictures of the rare kinds help most; training longer is the quick trial.",
        evidence={
            "ratio": ratio,
            "largest": counts[most],
            "smallest": counts[least],
            "recall": None if recall is None else recall.to_json(),
            "n": sum(counts.values()),
        },
        where=where,
        change=change,
        experiment=evidence.experiment(change),
        source="Buda, Maki & Mazurowski 2018, “A systematic study of the class imbalance problem”",
    )


def no_better_than_baseline(evidence: Evidence) -> Finding | None:
    """The gain over always naming the commonest class may be nothing, or is under a tenth of what there is to gain."""
    result = evidence.split("test", "tune")
    blind = result["baseline"] if result else {}
    gain, floor = estimate(blind.get("gain")), estimate(blind.get("accuracy"))
    if result is None or gain is None or floor is None or floor.value == 1:
        return None
    value, low, high = (float(x or 0.0) for x in (gain.value, gain.low, gain.high))
    room = 1 - float(floor.value or 0.0)
    if low > 0 and value >= 0.1 * room:
        return None
    unsure = low <= 0 and high >= 0.1 * room
    severity, hedge = certainty("warning" if unsure or low > 0 else "error", result["n"])
    always = f"always answering “{blind['class']}”, which is right for {percent(floor.value)}"
    says = {
        True: f"It cannot be told from {always}, by these {result['n']} pictures.",
        False: f"It is hardly better than {always}.",
    }[unsure]
    limit = evidence.setting("data.limit")
    change = {"data.limit": 2 * limit} if limit else {"train.epochs": 2 * evidence.epochs()}
    return Finding(
        rule="no-better-than-baseline",
        severity=severity,
        says=f"{hedge}{says} Check first that the names belong to the pictures.",
        evidence={"gain": value, "low": low, "high": high, "baseline": floor.value, "n": result["n"]},
        change=change,
        experiment=evidence.experiment(change),
        source="cs231n and Karpathy 2019, “A recipe for training neural networks”",
    )


def overfit(evidence: Evidence) -> Finding | None:
    """Training pictures, without augmentation, are known better than new ones by 10 points (7 where above 90 %)."""
    train, fresh = evidence.split("train"), evidence.split("tune", "test")
    if train is None or fresh is None:
        return None
    known, new = (estimate(result["metrics"].get("accuracy")) for result in (train, fresh))
    if known is None or new is None:
        return None
    gap, low, high = difference(known, new)
    if gap < (0.07 if (known.value or 0.0) > 0.9 else 0.1) or low <= 0:
        return None
    n = min(train["n"], fresh["n"])
    severity, hedge = certainty("warning", n)
    change = _against_overfit(evidence)
    return Finding(
        rule="overfit",
        severity=severity,
        says=f"{hedge}It knows its training pictures better ({percent(known.value)} right) than new ones "
        f"({percent(new.value)}): part of what it learned is those pictures by heart.",
        evidence={"gap": gap, "low": low, "high": high, "train": known.value, "new": new.value, "n": n},
        change=change,
        experiment=evidence.experiment(change),
        source="Newcombe 1998, method 10, for the interval; SageMaker Debugger's and AutoTrainer's rule",
    )


def undertrained(evidence: Evidence) -> Finding | None:
    """The loss was still falling while the rate was high, and new pictures are known as well as training ones.

    A rate that is annealed to zero makes the loss fall at the end of every run, however long, so that fall proves
    nothing. Judged is the last stretch before the rate fell below half its peak: with enough epochs the loss has
    levelled out there. And a network that knows its training pictures better than others has had enough of them.
    """
    train, fresh = evidence.split("train"), evidence.split("tune", "test")
    stretch = _last_steady_stretch(evidence.log)
    if train is None or fresh is None or stretch is None:
        return None
    known, new = (estimate(result["metrics"].get("accuracy")) for result in (train, fresh))
    if known is None or new is None or (known.low or 0.0) > 0.98 or not _tune_ended_best(evidence.log):
        return None
    gap, low, high = difference(known, new)
    steps, losses, total = stretch
    fall = _fall(steps, losses) * 0.1 * total / (steps[-1] - steps[0])
    p_value = _trend(steps, losses)
    if gap > 0.03 or fall < 0.05 or p_value > 0.01:
        return None
    n = min(train["n"], fresh["n"])
    severity, hedge = certainty("warning" if fall > 0.15 and high < 0.07 else "hint", n)
    change = {"train.epochs": 2 * evidence.epochs()}
    return Finding(
        rule="undertrained",
        severity=severity,
        says=f"{hedge}It was still improving while it learned at full pace (its error measure fell {percent(fall)} per "
        "tenth of the training), and it knows new pictures as well as the ones it saw. Training longer may help; "
        "only trying it can tell.",
        evidence={
            "fall": fall,
            "p_value": p_value,
            "records": len(losses),
            "gap": gap,
            "low": low,
            "high": high,
            "n": n,
        },
        change=change,
        experiment=evidence.experiment(change),
        source="Kendall 1938 for the trend, Sen 1968 for its slope; Godbole et al. 2023, Tuning Playbook",
    )


RULES = Registry(
    "diagnosis rule",
    [  # a cause before its symptom: within one severity findings keep this order
        Entry("constant-predictor", constant_predictor, "nearly every picture gets the same name"),
        Entry("leak", leak, "pictures of one side of the split also stand on the other"),
        Entry("label-conflicts", label_conflicts, "equal or nearly equal pictures have different names"),
        Entry("suspected-groups", suspected_groups, "several pictures may show one thing, and were split"),
        Entry("imbalance", imbalance, "a class has far fewer pictures than another"),
        Entry("no-better-than-baseline", no_better_than_baseline, "always naming the commonest class does as well"),
        Entry("overfit", overfit, "training pictures are known better than new ones"),
        Entry("undertrained", undertrained, "the loss was still falling at full rate"),
        Entry("fine-tuning-did-not-help", fine_tuning_did_not_help, "frozen features do as well"),
        Entry("weak-slice", weak_slice, "a kind of picture is known worse than the rest"),
        Entry("more-images-would-help", more_images_would_help, "the learning curve still rises"),
        Entry("more-images-will-not-help-much", more_images_will_not_help_much, "the learning curve is level"),
    ],
)


def diagnose(evidence: Evidence, rules: Registry = RULES) -> list[Finding]:
    """Apply every rule; the gravest finding comes first, and a cause before its symptom.

    Certainty is part of the severity: a rule whose images are few, or whose interval allows for doubt, lowers it.
    """
    found = [finding for entry in rules.values() if (finding := entry.load()(evidence)) is not None]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _against_overfit(evidence: Evidence) -> dict[str, Any]:
    """One change: more data where some was left out, else more varied data, else softer targets, else fewer epochs.

    Fine-tuning has softer targets no more than the head that it began from, which it would unlearn (LOG.md); it is
    given less to move instead.
    """
    limit, preset = evidence.setting("data.limit"), evidence.setting("augment.preset", "none")
    if limit:
        return {"data.limit": 2 * limit}
    if evidence.setting("transfer.mode") == "probe":  # which trains no step, so that nothing else below changes it
        return {"transfer.mode": "finetune"}
    if preset in STRONGER:
        return {"augment.preset": STRONGER[preset]}
    if preset == "objects" and evidence.setting("image.size", 0) >= LARGE:
        return {"augment.preset": "photos"}
    if evidence.setting("transfer.mode") == "finetune":
        frozen = int(evidence.setting("transfer.frozen_stages", 0))
        if frozen < FROZEN_AT_MOST:
            return {"transfer.frozen_stages": frozen + 1}
    elif evidence.setting("train.label_smoothing", 0.0) < 0.1:
        return {"train.label_smoothing": 0.1}
    return {"train.epochs": max(1, evidence.epochs() // 2)}


def _last_steady_stretch(log: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[float], int] | None:
    """Steps and losses of the last third of the time between the rate's peak and its half, and the run's last step."""
    records = [r for r in log if r.get("kind") in ("progress", "epoch") and {"loss", "rate"} <= r["values"].keys()]
    records = sorted((r for r in records if None not in (r["values"]["loss"], r["values"]["rate"])), key=_step)
    if len(records) < 6:
        return None
    rates = [r["values"]["rate"] for r in records]
    first = rates.index(max(rates))
    steady = [r for r in records[first:] if r["values"]["rate"] >= max(rates) / 2]
    start = _step(steady[-1]) - (_step(steady[-1]) - _step(steady[0])) / 3
    chosen = [r for r in steady if _step(r) >= start]
    if len(chosen) < 6:
        return None
    return [_step(r) for r in chosen], [float(r["values"]["loss"]) for r in chosen], _step(records[-1])


def _step(record: Mapping[str, Any]) -> int:
    return int(record["step"])


def _tune_ended_best(log: Sequence[Mapping[str, Any]]) -> bool:
    losses = [r["values"].get("log_loss") for r in log if r.get("kind") == "tune"]
    known = [loss for loss in losses if loss is not None]
    return not known or known[-1] <= min(known)


def _trend(steps: Sequence[int], losses: Sequence[float]) -> float:
    """The probability of so falling an order by chance (Kendall's tau, one-sided)."""
    from scipy.stats import kendalltau  # slow to import, and needed by this rule alone

    p_value = float(np.asarray(kendalltau(steps, losses, alternative="less"))[1])
    return 1.0 if math.isnan(p_value) else p_value  # NaN where all losses are equal


def _fall(steps: Sequence[int], losses: Sequence[float]) -> float:
    """The relative fall over a stretch by the median of all slopes (Theil and Sen), which one outlier cannot bend."""
    pairs = [(i, j) for i in range(len(steps)) for j in range(i) if steps[i] > steps[j]]
    if not pairs:
        return 0.0
    slope = statistics.median((losses[i] - losses[j]) / (steps[i] - steps[j]) for i, j in pairs)
    middle = statistics.median(losses)
    half = slope * (steps[-1] - steps[0]) / 2
    return -2 * half / (middle - half) if middle - half > 0 else 0.0


def _names(names: Sequence[str]) -> str:
    quoted = [f"“{name}”" for name in names[:3]]
    more = len(names) - len(quoted)
    return ", ".join(quoted) + (f" and {more} more kinds" if more else "")
