"""What was found in the images: one body for the report's section and for the page of `convsmith data`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from convsmith.diagnosis import leaked
from convsmith.reporting import figures
from convsmith.reporting.formats import number, percent, sentence, some
from convsmith.reporting.pictures import Thumb, class_name, fitting, thumb
from convsmith.reporting.run_records import RunRecords
from convsmith.reporting.templates import Section, fill

NAMED = 50
PAIRS_SHOWN = 8
PAIRS_ROOM = 600_000  # characters of pictures in each list of pairs
BARS = 20
ROLES = {"train": "Training", "tune": "Tune", "test": "Test"}
KINDS = {"same": "equal", "near": "nearly equal", "mirrored": "mirrored"}


@dataclass(frozen=True)
class Pair:
    """Two images that are alike.

    Args:
        first, second: their pictures and names.
        first_role, second_role: where they stand; empty where that does not matter.
        says: how alike they are.
    """

    first: Thumb
    second: Thumb
    first_role: str
    second_role: str
    says: str


def data(records: RunRecords) -> Section | None:
    """What was found in the data, and what was left out."""
    audit = records.audit
    manifest = records.manifest.get("data") or {}
    counts = manifest.get("counts") or audit.get("roles") or {}
    if not audit and not counts:
        return None
    names = list(records.classes or audit.get("classes") or ())
    facts = [("Source", str(manifest["source"]))] if manifest.get("source") else []
    facts += [*size_facts(audit), *_seen(records.manifest.get("transform") or {})]
    if manifest.get("fingerprint"):
        facts.append(("Fingerprint", str(manifest["fingerprint"])))
    body = audit_body(audit, counts, names, records.thumbnails, facts)
    return Section("data", "The data", data_lead(audit, counts, names), body)


def data_lead(audit: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> str:
    """How many images there are, and in a sentence what became of the rest."""
    images = audit.get("images") or sum(sum(by_class.values()) for by_class in counts.values())
    lead = f"{some(images, 'image')} in {some(len(names), 'class', 'classes')}."
    told = [
        f"{some(len(audit.get(key) or ()), noun)} {text}"
        for key, noun, text in (
            ("unreadable", "file", "could not be read"),
            ("skipped", "file", "set aside"),
            ("duplicates", "picture", "found more than once"),
            ("near_duplicates", "pair", "nearly equal"),
        )
        if audit.get(key)
    ]
    if not audit:
        return lead
    return f"{lead} {'; '.join(told)}." if told else f"{lead} All could be read, and none is there twice."


def audit_body(
    audit: Mapping[str, Any],
    counts: Mapping[str, Mapping[str, int]],
    names: Sequence[str],
    thumbnails: Mapping[str, bytes],
    facts: Sequence[tuple[str, str]],
) -> Markup:
    """Return what the audit found as markup: leaks and conflicts first, then counts, then what is only to be known.

    Args:
        audit: the record of `images.audit` with near duplicates, leaks, groups and the split.
        counts: role to class to number of images.
        names: the classes in their order.
        thumbnails: image id to PNG or JPEG bytes; pairs are shown with them where they are there.
        facts: rows of name and value.
    """
    roles = [role for role in ROLES if counts.get(role)]
    table = [(class_name(name, ()), [counts[role].get(name, 0) for role in roles]) for name in names]
    leaks = [_leak(leak, thumbnails) for leak in audit.get("leaks") or ()]
    alike = audit.get("near_duplicates") or ()
    near = [_near(pair, thumbnails) for pair in alike if not pair.get("labels_differ")]
    differ = [_near(pair, thumbnails) for pair in alike if pair.get("labels_differ")]
    return fill(
        "data:audit",
        audit=audit,
        facts=[*((f"{ROLES[role]} images", number(sum(counts[role].values()))) for role in roles), *facts],
        leaks=leaks,
        leaked=_leaked(audit),
        pairs={
            key: fitting(_pictured(pairs), PAIRS_ROOM, lambda pair: (pair.first, pair.second))
            for key, pairs in (("leaks", leaks), ("differ", differ), ("near", near))
        },
        conflicts=[[thumb(thumbnails, name) for name in ids] for ids in audit.get("label_conflicts") or ()],
        differ=differ,
        near=near,
        chart=_bars(table) if roles and table else None,
        keys=[(part, ROLES[role].lower()) for part, role in zip("abc", roles, strict=False)],
        beyond=max(0, len(table) - BARS),
        roles=roles,
        table=table,
        totals=[sum(counts[role].values()) for role in roles],
        forms=[(name.replace("_", " "), form) for name, form in (audit.get("forms") or {}).items()],
        suspected=[
            {"says": "", "example": (), **found, "option": f"--group {shlex.quote(str(found['rule']))}"}
            for found in audit.get("suspected_groups") or ()
        ],
        split=sentence((audit.get("split") or {}).get("says", "")),
        named=NAMED,
    )


def size_facts(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows about sizes and colours."""
    facts = []
    for side in ("width", "height"):
        spread = (audit.get("sizes") or {}).get(side)
        if spread:
            same = spread["min"] == spread["max"]
            words = f"{number(spread['min'])} px" if same else (
                f"{number(spread['min'])} to {number(spread['max'])} px, median {number(spread['median'])}"
            )  # fmt: skip
            facts.append((side.capitalize(), words))
    channels = {"1": "grey", "3": "colour"}
    found = [f"{some(n, 'image')} {channels.get(key, key)}" for key, n in (audit.get("channels") or {}).items() if n]
    return [*facts, ("Colour", ", ".join(found))] if found else facts


def _seen(shape: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not shape.get("size"):
        return []
    fit = f", {shape['fit']}" if shape.get("fit") else ""
    return [("As the network sees them", f"{shape['size']} px, {some(shape.get('channels', 3), 'channel')}{fit}")]


def _leaked(audit: Mapping[str, Any]) -> str:
    """The headline of the leaks: how many images of test and tune they touch."""
    touched = [(role, leaked(audit, into=role)[1]) for role in ("test", "tune")]
    told = [some(images, f"{role} image") for role, images in touched if images]
    verb = "is" if sum(images for _, images in touched) == 1 else "are"
    return f"{' and '.join(told)} {verb} also on the other side of the split" if told else (
        "Images stand on both sides of the split"
    )  # fmt: skip


def _leak(leak: Mapping[str, Any], thumbnails: Mapping[str, bytes]) -> Pair:
    kind = KINDS.get(leak["kind"], "alike")
    says = kind if leak.get("likeness") is None or kind == "equal" else f"{kind}, {percent(leak['likeness'], 0)} alike"
    ends = thumb(thumbnails, leak["first"]), thumb(thumbnails, leak["second"])
    return Pair(*ends, leak["first_role"], leak["second_role"], says)


def _pictured(pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.first.address or pair.second.address][:PAIRS_SHOWN]


def _near(pair: Mapping[str, Any], thumbnails: Mapping[str, bytes]) -> Pair:
    mirrored = ", mirrored" if pair.get("mirrored") else ""
    ends = thumb(thumbnails, pair["first"]), thumb(thumbnails, pair["second"])
    return Pair(*ends, "", "", f"{percent(pair.get('likeness'), 0)} alike{mirrored}")


def _bars(table: Sequence[tuple[str, Sequence[int]]]) -> Markup:
    """Bars of all classes in their order; of many, the rarest, because they are the ones to look after."""
    if len(table) <= BARS:
        return figures.count_bars(table)
    return figures.count_bars(sorted(table, key=lambda row: sum(row[1]))[:BARS])
