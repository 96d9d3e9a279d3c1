"""The table of the page's sections, in the order they are shown; a new one is a function and a row."""

from __future__ import annotations

from convsmith.registry import Entry, Registry
from convsmith.reporting.run_records import RunRecords
from convsmith.reporting.templates import Section

#: Each row is `(records: RunRecords) -> Section | None`; `None` leaves the section out.
SECTIONS = Registry(
    "report section",
    [
        Entry("findings", "convsmith.reporting.measured:findings", "what the rules saw, and what would test the mend"),
        Entry("figures", "convsmith.reporting.measured:metrics", "every figure with its interval and method"),
        Entry("classes", "convsmith.reporting.measured:classes", "recall, precision and F1 of each class"),
        Entry("confusions", "convsmith.reporting.measured:confusion", "what each class is taken for"),
        Entry("mistakes", "convsmith.reporting.measured:mistakes", "the costliest mistakes with their pictures"),
        Entry("calibration", "convsmith.reporting.measured:calibration", "stated confidence against share right"),
        Entry("training", "convsmith.reporting.made:curves", "loss, tune figures and learning rate over training"),
        Entry("data", "convsmith.reporting.made:data", "counts, sizes, and what was left out"),
        Entry("plan", "convsmith.reporting.made:plan", "each automatic choice and its reason"),
        Entry("repeat", "convsmith.reporting.made:repeat", "the recipe, versions and commands"),
        Entry("methods", "convsmith.reporting.made:methods", "a paragraph for a paper"),
    ],
)


def sections(records: RunRecords) -> list[Section]:
    """Return the sections that have something to show."""
    made = (entry.load()(records) for entry in SECTIONS.values())
    return [section for section in made if section is not None]
