"""The table of the page's sections, in the order they are shown; a new one is a function and a row."""

from __future__ import annotations

from convsmith.registry import Entry, Registry
from convsmith.reporting.run_records import RunRecords
from convsmith.reporting.templates import Section

_ROOM = "convsmith.reporting"

#: Each row is `(records: RunRecords) -> Section | None`; `None` leaves the section out.
SECTIONS = Registry(
    "report section",
    [
        Entry("findings", f"{_ROOM}.measured:findings", "what the rules saw, and what would test the mend"),
        Entry("figures", f"{_ROOM}.measured:metrics", "every figure with its interval and method"),
        Entry("compared", f"{_ROOM}.gains:compared", "the commonest class and the linear probe beside the network"),
        Entry("classes", f"{_ROOM}.measured:classes", "recall, precision and F1 of each class"),
        Entry("confusions", f"{_ROOM}.looked:confusion", "what each class is taken for, with the pictures"),
        Entry("mistakes", f"{_ROOM}.looked:mistakes", "the costliest mistakes with their pictures"),
        Entry("maps", f"{_ROOM}.looked:maps", "Grad-CAM of some images, and what it does not show"),
        Entry("slices", f"{_ROOM}.gains:slices", "accuracy on kinds of image against the rest"),
        Entry("calibration", f"{_ROOM}.measured:calibration", "stated confidence against share right"),
        Entry("data", f"{_ROOM}.data:data", "leaks, counts, sizes, and what was left out"),
        Entry("learning", f"{_ROOM}.gains:learning", "accuracy against the number of training images"),
        Entry("stages", f"{_ROOM}.gains:stages", "a linear classifier at the end of each stage"),
        Entry("training", f"{_ROOM}.made:curves", "loss, tune figures and learning rate over training"),
        Entry("plan", f"{_ROOM}.made:plan", "each automatic choice and its reason"),
        Entry("repeat", f"{_ROOM}.made:repeat", "the recipe, versions and commands"),
        Entry("methods", f"{_ROOM}.made:methods", "a paragraph for a paper"),
    ],
)


def sections(records: RunRecords) -> list[Section]:
    """Return the sections that have something to show."""
    made = (entry.load()(records) for entry in SECTIONS.values())
    return [section for section in made if section is not None]
