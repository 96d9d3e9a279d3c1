"""The sections that show images: what is taken for what, the worst mistakes, and where the network looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convsmith.reporting import figures
from convsmith.reporting.formats import percent, some
from convsmith.reporting.pictures import Picture, Thumb, class_name, drawn, fitting, pictures, thumb
from convsmith.reporting.run_records import RunRecords
from convsmith.reporting.templates import Section, fill

MATRIX_CLASSES = 20
MISTAKES_SHOWN = 24
PAIRS_SHOWN = 8
CELLS_SHOWN = 40
MAPS_SHOWN = 16
#: Characters of pictures in each section; a whole page stays below ten megabytes, however large its thumbnails are.
MISTAKES_ROOM, CELLS_ROOM, MAPS_ROOM = 2_500_000, 2_000_000, 1_500_000
NONE = Thumb("", False, "")


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix whose images are shown.

    Args:
        id: its anchor.
        place: row and column.
        true, predicted: class names, cleaned.
        count: how many images lie in it.
        shown: a few of them; those without a picture by name.
    """

    id: str
    place: tuple[int, int]
    true: str
    predicted: str
    count: int
    shown: list[Thumb]


def confusion(records: RunRecords) -> Section | None:
    """What each class was taken for, with the images of each cell."""
    counts, names = records.measured.get("confusion"), records.classes
    shown = cells(records)
    links = {cell.place: cell.id for cell in shown}
    pairs = [
        {
            **pair,
            "true": class_name(pair["true"], names),
            "predicted": class_name(pair["predicted"], names),
            "link": links.get((_row(pair["true"], names), _row(pair["predicted"], names))),
        }
        for pair in records.measured.get("pairs") or ()
    ]
    if not counts and not pairs:
        return None
    small = bool(counts) and len(names) <= MATRIX_CLASSES
    lead = "No image was put into a wrong class."
    if pairs:
        first = pairs[0]
        lead = (
            f"The commonest mistake: “{first['true']}” taken for “{first['predicted']}”, "
            f"{some(first['count'], 'time')}, which is {percent(first['share'])} of that class."
        )
    return Section(
        "confusions",
        "What is taken for what",
        lead,
        fill(
            "looked:confusion",
            chart=figures.confusion_matrix(names, counts or (), links) if small else None,
            classes=names,
            counts=counts if small else None,
            pairs=pairs[: PAIRS_SHOWN if small else 3 * PAIRS_SHOWN],
            cells=shown,
        ),
    )


def cells(records: RunRecords) -> list[Cell]:
    """The wrong cells that have a picture, the fullest first, as many as keep the page light."""
    names, made = records.classes, []
    wrong = [item for item in records.cells if item["true"] != item["predicted"]]
    for item in sorted(wrong, key=lambda item: -item["n"])[:CELLS_SHOWN]:
        shown = [thumb(records.thumbnails, name) for name in item["ids"]]
        place = _row(item["true"], names), _row(item["predicted"], names)
        if any(picture.address for picture in shown) and min(place) >= 0:
            title = class_name(item["true"], names), class_name(item["predicted"], names)
            made.append(Cell(f"cell-{place[0]}-{place[1]}", place, *title, item["n"], shown))
    return fitting(made, CELLS_ROOM, lambda cell: cell.shown)


def mistakes(records: RunRecords) -> Section | None:
    """The images the network was most wrongly sure about, in three orders."""
    wrong = records.measured.get("mistakes")
    if not wrong:
        return None
    seen = [item for item in wrong if item["id"] in records.thumbnails][:MISTAKES_SHOWN]
    names, mapped = records.classes, _maps(records)
    rows = [
        {**item, "true": class_name(item["true"], names), "predicted": class_name(item["predicted"], names)}
        for item in wrong[: 4 * MISTAKES_SHOWN]
    ]
    drawings = [
        (picture, mapped.get(item["id"], NONE)) for item, picture in zip(seen, pictures(records, seen), strict=True)
    ]
    drawings = fitting(drawings, MISTAKES_ROOM, lambda pair: pair)
    seen = seen[: len(drawings)]
    sure = _ranks(seen, lambda item: -(item.get("probability") or 0.0))
    alphabet = _ranks(seen, lambda item: str(item["id"]))
    shown = [(*pair, *ranks) for pair, *ranks in zip(drawings, sure, alphabet, strict=True)]
    lead = (
        "The answers that cost most, the worst first. Some of them may be right, and the label wrong: they are the "
        "quickest way to find mislabelled images."
    )
    return Section("mistakes", "The worst mistakes", lead, fill("looked:mistakes", shown=shown, rows=rows))


def maps(records: RunRecords) -> Section | None:
    """Grad-CAM of some images it got right and some it got wrong, and what such a map does not show."""
    mapped = _maps(records)
    listed = [item for item in records.maps.get("maps") or () if item["id"] in mapped]
    listed = list({item["id"]: item for item in listed}.values())
    if not listed:
        return None
    rows = [
        (
            title,
            kind,
            _beside(records, [item for item in listed if (item["true"] == item["predicted"]) is right], mapped),
        )
        for title, kind, right in (("Wrong", "wrong", False), ("Right", "right", True))
    ]
    method, layer = records.maps.get("method") or "Grad-CAM", records.maps.get("layer")
    return Section(
        "maps",
        "Where it looked",
        "The more colour and the lighter a place, the more it spoke for the answer that was given.",
        fill("looked:maps", rows=[row for row in rows if row[2]], method=method, layer=layer),
    )


def _beside(
    records: RunRecords, items: Sequence[Mapping[str, Any]], mapped: Mapping[str, Thumb]
) -> list[tuple[Picture, Thumb]]:
    items = items[: MAPS_SHOWN // 2]
    pairs = [(picture, mapped[item["id"]]) for item, picture in zip(items, pictures(records, items), strict=True)]
    return fitting(pairs, MAPS_ROOM // 2, lambda pair: pair)


def _maps(records: RunRecords) -> dict[str, Thumb]:
    """Image id to its map, where that is a picture."""
    made = {
        item["id"]: drawn(records.map_pictures.get(str(item["file"]), b""), item["id"])
        for item in records.maps.get("maps") or ()
    }
    return {name: picture for name, picture in made.items() if picture.address}


def _ranks(items: Sequence[Mapping[str, Any]], key: Any) -> list[int]:
    """The place of each item, from 1, in an order of its own."""
    order = sorted(range(len(items)), key=lambda k: key(items[k]))
    return [order.index(k) + 1 for k in range(len(items))]


def _row(name: object, classes: Sequence[str]) -> int:
    """The row of a class in the matrix, given its name or its index; -1 where there is none such."""
    if isinstance(name, int):
        return name if name < len(classes) else -1
    return classes.index(name) if name in classes else -1
