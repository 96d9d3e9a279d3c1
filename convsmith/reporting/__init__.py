"""The report of a run: one self-contained HTML file made from its records.

`write_report(run)` diagnoses a run and writes its page; `render(read_records(folder))` only makes the page.
"""

from convsmith.reporting.page import render
from convsmith.reporting.run_records import RunRecords, read_records
from convsmith.reporting.sections import SECTIONS
from convsmith.reporting.templates import Section
from convsmith.reporting.write import write_report

__all__ = ["SECTIONS", "RunRecords", "Section", "read_records", "render", "write_report"]
