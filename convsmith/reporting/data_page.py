"""The page of `convsmith data`: what one has, what is strange, what will be done with it, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convsmith.diagnosis import about_data, clean_checks, leaked, oddities
from convsmith.reporting.data import audit_body, data_lead, size_facts
from convsmith.reporting.formats import date, sentence, shorten, some
from convsmith.reporting.page import page
from convsmith.reporting.pictures import Thumb, class_name, drawn, fitting
from convsmith.reporting.templates import Section, fill

STRIP = 10
STRANGE = 5
SAMPLES_OF_A_CLASS = 12
CLASSES_SHOWN = 60
#: Bytes of one picture on a sheet: as the network sees it, so larger than a thumbnail (224 px are about 90 kB).
LARGEST = 1_000_000
#: Characters of pictures on each sheet and on the first screen: 48 pictures of 224 px fit, the page stays below 20 MB.
SHEET_ROOM, STRIP_ROOM = 7_000_000, 1_500_000
ROWS_SHOWN = 24


@dataclass(frozen=True)
class DataRecord:
    """What was found in a source of images, before any training.

    Args:
        source: what the user named.
        made: the day, as an ISO date or as it is to be shown.
        audit: the audit's record with near duplicates, leaks, groups, suspected groups and the split.
        thumbnails: image id to the bytes of a PNG or JPEG of at most 160 px, for pairs that are alike.
        samples: `id`, `class` and `picture`: PNG bytes, exactly as the network will see the image.
        augmented: `id`, `class`, `original` (PNG bytes) and `versions`, each of `picture` (PNG bytes) and `parameters`
            (in words, such as “flip yes, crop 0.71 of the area”).
        seen: a sentence about size, fit and channels.
        symmetry: a sentence about the symmetry that augmentation may use.
        next_command: what to type next.
        snapshot: a sentence about what has changed since an earlier run; empty where there was none.
    """

    source: str
    made: str
    audit: Mapping[str, Any]
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()
    augmented: Sequence[Mapping[str, Any]] = ()
    seen: str = ""
    symmetry: str = ""
    next_command: str = ""
    snapshot: str = ""


@dataclass(frozen=True)
class DataOpening:
    """The first screen of the data's page.

    Args:
        kind: good where nothing is strange, chance where images leak, else unknown; it sets the colour.
        kicker: where the images come from.
        headline: how many there are.
        rarest: the rarest and the commonest class.
        snapshot: what has changed since an earlier run.
        strange: sentences, the gravest first; one that says what was looked for where nothing was found.
        done: sentences about split, size and symmetry.
        command: what to type next.
        option, option_says: the same with groups, and when to type that; empty where no groups are suspected.
        strip: samples of the first classes.
    """

    kind: str
    kicker: str
    headline: str
    rarest: str
    snapshot: str
    strange: list[str]
    done: list[str]
    command: str
    option: str
    option_says: str
    strip: list[dict[str, Any]]


def render_data(record: DataRecord) -> str:
    """Return the page of `convsmith data` as one HTML file, made from the record alone.

    Args:
        record: what was found; parts may be missing.
    """
    counts = record.audit.get("roles") or {}
    names = list(record.audit.get("classes") or ())
    facts = [("Source", record.source), *size_facts(record.audit)]
    body = audit_body(record.audit, counts, names, record.thumbnails, facts)
    sections = [_samples(record), _augmented(record), Section("data", "What was found", _lead(record), body)]
    return page(
        "data_page.html", kind="data report", name=record.source, made=date(record.made), opening=opening(record),
        sections=[section for section in sections if section is not None],
    )  # fmt: skip


def opening(record: DataRecord) -> DataOpening:
    """Choose what the first screen shows."""
    audit = record.audit
    found, absent = oddities(audit), clean_checks(audit)
    strange = found[:STRANGE]
    if len(found) > STRANGE:
        strange.append(f"And {some(len(found) - STRANGE, 'more thing')}, below.")
    elif found and absent:
        strange.append(f"Nothing else stood out: {absent}.")
    leaks = any(leaked(audit, into=role)[1] for role in ("test", "tune"))
    classes: Mapping[str, int] = audit.get("classes") or {}
    suspected = () if audit.get("groups") else audit.get("suspected_groups") or ()
    option = f"{record.next_command} --group {shlex.quote(str(suspected[0]['rule']))}" if suspected else ""
    done = ((audit.get("split") or {}).get("says"), record.seen, record.symmetry)
    return DataOpening(
        kind="chance" if leaks else "unknown" if found else "good",
        kicker=shorten(record.source, 80),
        headline=f"{some(audit.get('images') or 0, 'picture')} in {some(len(classes), 'class', 'classes')}.",
        rarest=_rarest(classes),
        snapshot=sentence(record.snapshot),
        strange=strange or [about_data(audit) or "The images were not looked through."],
        done=[sentence(text) for text in done if text],
        command=record.next_command,
        option=option if record.next_command else "",
        option_says="Or, if those groups are real:",
        strip=_strip(record),
    )


def _rarest(classes: Mapping[str, int]) -> str:
    if len(classes) < 2:
        return ""
    most, least = max(classes, key=classes.__getitem__), min(classes, key=classes.__getitem__)
    if classes[most] == classes[least]:
        return f"Every class has {some(classes[most], 'picture')}."
    return (
        f"The rarest is “{class_name(least, ())}” with {some(classes[least], 'picture')}, the commonest "
        f"“{class_name(most, ())}” with {classes[most]:,}."
    )


def _strip(record: DataRecord) -> list[dict[str, Any]]:
    """A sample of each of the first classes, or of few classes several each."""
    by_class: dict[Any, list[Mapping[str, Any]]] = {}
    for item in record.samples:
        by_class.setdefault(item["class"], []).append(item)
    each = max(1, STRIP // (len(by_class) or 1))
    chosen = [item for items in by_class.values() for item in items[:each]][:STRIP]
    shown = [(drawn(item["picture"], most=LARGEST), class_name(item["class"], ())) for item in chosen]
    shown = fitting([pair for pair in shown if pair[0].address], STRIP_ROOM, lambda pair: pair[:1])
    return [{"address": picture.address, "tiny": picture.tiny, "label": name} for picture, name in shown]


def _samples(record: DataRecord) -> Section | None:
    """A sheet of samples by class, as the network will see them."""
    places: dict[Any, int] = {}
    listed = []
    for item in record.samples:
        place = places[item["class"]] = places.get(item["class"], -1) + 1
        picture = drawn(item["picture"], item["id"], most=LARGEST)
        if picture.address and place < SAMPLES_OF_A_CLASS:
            listed.append((place, item["class"], picture))
    listed.sort(key=lambda row: row[0])  # where not all fit, each class keeps its first ones
    held: dict[Any, list[Thumb]] = {name: [] for name in places}
    for _, name, picture in fitting(listed, SHEET_ROOM, lambda row: row[2:]):
        held[name].append(picture)
    rows = [(class_name(name, ()), shown) for name, shown in held.items() if shown][:CLASSES_SHOWN]
    if not rows:
        return None
    totals: Mapping[str, int] = record.audit.get("classes") or {}
    left = len(totals) - len(rows)
    lead = "Some of each class, exactly as the network will see them. Is every picture in its right class?"
    return Section(
        "samples", "Samples", lead,
        fill("sheets:samples", rows=rows, left=max(left, 0),
             totals={class_name(name, ()): count for name, count in totals.items()}),
    )  # fmt: skip


def _augmented(record: DataRecord) -> Section | None:
    """What training makes of some images, with what was drawn below each."""
    rows = []
    for item in record.augmented[:ROWS_SHOWN]:
        versions = [
            (drawn(version["picture"], item["id"], most=LARGEST), str(version["parameters"]))
            for version in item["versions"]
        ]
        original = drawn(item["original"], item["id"], most=LARGEST)
        rows.append((class_name(item["class"], ()), original, [pair for pair in versions if pair[0].address]))
    rows = fitting(
        [row for row in rows if row[1].address], SHEET_ROOM, lambda row: (row[1], *(picture for picture, _ in row[2]))
    )
    if not rows:
        return None
    lead = "Training shows each image altered a little, differently every time. Could you still name the class of each?"
    return Section("augmentation", "What augmentation does", lead, fill("sheets:augmented", rows=rows))


def _lead(record: DataRecord) -> str:
    return data_lead(record.audit, record.audit.get("roles") or {}, list(record.audit.get("classes") or ()))
