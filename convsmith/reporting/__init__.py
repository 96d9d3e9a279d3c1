"""The report of a run, and the page of `convsmith data`: self-contained HTML files made from records.

`write_report(run)` diagnoses a run and writes its page; `render(read_records(folder))` only makes the page;
`render_data(DataRecord(...))` makes the page about images that nothing was trained on yet;
`write_cross_validation(folder)` makes that of a cross-validation.
"""

from convsmith.reporting.cross_validation import render_cross_validation, write_cross_validation
from convsmith.reporting.data_page import DataRecord, render_data
from convsmith.reporting.page import render
from convsmith.reporting.run_records import RunRecords, read_records
from convsmith.reporting.sections import SECTIONS
from convsmith.reporting.templates import Section
from convsmith.reporting.write import write_report

__all__ = [
    "SECTIONS",
    "DataRecord",
    "RunRecords",
    "Section",
    "read_records",
    "render",
    "render_cross_validation",
    "render_data",
    "write_cross_validation",
    "write_report",
]
