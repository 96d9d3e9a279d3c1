"""Rules about the images: what stands on both sides of the split, under two names, or several times of one thing.

They judge what was found in the files, not what was measured on a sample, so a few images make them no less sure.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from convsmith.diagnosis.evidence import Evidence, again, estimate, percent
from convsmith.diagnosis.oddities import conflicting, leaked
from convsmith.records import Finding, Severity

HARMLESS = 0.01  # a leak of less than a hundredth of the test images moves the figure by less than a point
NAMED = 12


def leak(evidence: Evidence) -> Finding | None:
    """Pictures that measure also stand, equal, nearly equal or mirrored, among those that trained or chose."""
    for role in ("test", "tune"):
        pairs, images = leaked(evidence.audit, into=role)
        if pairs:
            return _leak(evidence, role, pairs, images)
    return None


def _leak(evidence: Evidence, role: str, pairs: list[Mapping[str, Any]], images: int) -> Finding:
    result = evidence.split(role) or {}
    n, counts = result.get("n"), {kind: sum(pair["kind"] == kind for pair in pairs) for kind in LEAK_KINDS}
    kinds = ", ".join(f"{count:,} {LEAK_KINDS[kind]}" for kind, count in counts.items() if count)
    share = images / n if n else None
    severity: Severity = "error" if role == "test" and (share is None or share >= HARMLESS) else "warning"
    flatters = f" ({percent(share)} of them)" if share is not None else ""
    verb = "stands" if images == 1 else "stand"
    files = sorted({pair[end] for pair in pairs for end in ("first", "second") if pair[f"{end}_role"] == role})
    return Finding(
        rule="leak",
        severity=severity,
        says=f"{images:,} {role} {'picture' if images == 1 else 'pictures'}{flatters} also {verb} on the other side of "
        f"the split ({kinds}), so the figure flatters.{_without(evidence)} Take the copies out of one side and train "
        "again.",
        evidence={"leaked": images, "share": share, **counts, "pairs": len(pairs), "n": n or images},
        where=tuple(files[:NAMED]),
        experiment=_look(evidence),
        source="Barz & Denzler 2020, “Do we train on test data? Purging CIFAR of near-duplicates”",
    )


LEAK_KINDS = {"same": "equal", "near": "nearly equal", "mirrored": "mirrored"}


def _without(evidence: Evidence) -> str:
    """What the test says once the leaked images are left out, where that was measured."""
    kept = (evidence.split("test") or {}).get("without_leaks") or {}
    figure = estimate(kept.get("accuracy"))
    if figure is None:
        return ""
    return (
        f" Without them it is right for {percent(figure.value)} of {kept['n']:,} "
        f"(between {percent(figure.low)} and {percent(figure.high)})."
    )


def label_conflicts(evidence: Evidence) -> Finding | None:
    """Equal or nearly equal pictures carry different labels."""
    same, near = conflicting(evidence.audit)
    if not same and not near:
        return None
    parts = [f"{same:,} {'picture is' if same == 1 else 'pictures are'} in more than one class"] * bool(same)
    parts += [f"{near:,} {'pair' if near == 1 else 'pairs'} of nearly equal pictures differ in name"] * bool(near)
    sets = [list(ids) for ids in evidence.audit.get("label_conflicts") or ()]
    pairs = [pair for pair in evidence.audit.get("near_duplicates") or () if pair.get("labels_differ")]
    files = dict.fromkeys([*(name for ids in sets for name in ids), *(p[end] for p in pairs for end in ENDS)])
    return Finding(
        rule="label-conflicts",
        severity="warning",
        says=f"{' and '.join(parts)}. No network can be right about both names: look at them and mend the labels.",
        evidence={"equal_sets": same, "near_pairs": near, "n": len(files)},
        where=tuple(files)[:NAMED],
        experiment=_look(evidence),
        source="Northcutt, Athalye & Mueller 2021, “Pervasive label errors in test sets”",
    )


ENDS = ("first", "second")


def suspected_groups(evidence: Evidence) -> Finding | None:
    """Names or folders look like groups, such as donors, and the images were split one by one."""
    suspected = evidence.audit.get("suspected_groups") or ()
    if not suspected or evidence.audit.get("groups"):
        return None
    first = suspected[0]
    words = again(evidence.manifest, evidence.run, "given.yaml")
    guess = (
        f"Several pictures may show one thing: {first['groups']:,} groups, up to {first['largest']:,} pictures in one."
    )
    return Finding(
        rule="suspected-groups",
        severity="warning",
        says=f"{first.get('says') or guess} Pictures of one thing on both sides of the split flatter the figure; named "
        "as a group they stay together.",
        evidence={
            "groups": first["groups"],
            "largest": first["largest"],
            "n": first["images"],
            "other_rules": len(suspected) - 1,
        },
        where=tuple(first.get("example") or ())[:NAMED],
        change={"data.group": first["rule"]},
        experiment=shlex.join([*words, "--group", first["rule"]]),
        source="Roberts et al. 2017, “Cross-validation strategies for data with hierarchical structure”",
    )


def _look(evidence: Evidence) -> str:
    """The command that lists what was found; without a known source there is none."""
    source = (evidence.manifest.get("data") or {}).get("source")
    return shlex.join(["convsmith", "data", str(source)]) if source else ""
