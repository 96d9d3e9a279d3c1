"""From a run's records to its findings and its report; any time again, without the network that was trained."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from convsmith.diagnosis import Evidence, diagnose, verdict
from convsmith.reporting.page import render
from convsmith.reporting.run_records import read_records
from convsmith.run_folder import RunFolder


def write_report(run: RunFolder) -> Path:
    """Diagnose a run anew and write `findings.json` and `report.html`.

    Returns:
        The report's path.

    Raises:
        RunError: the run has no results yet, or a record is damaged.
    """
    run.read_json("results.json")  # without it there is nothing to report
    known = read_records(run.path)
    evidence = Evidence(
        known.results, known.log, known.plan, known.manifest, known.audit, known.recipe, str(run.path), known.probe,
        known.learning_curve,
    )  # fmt: skip
    findings = diagnose(evidence)
    roles = {row["id"]: row["role"] for row in csv.DictReader(io.StringIO(run.read_text("split.csv")))}
    words = verdict(known.results, findings, audit=known.audit, roles=roles, run=str(run.path))
    record = {"findings": [finding.to_json() for finding in findings], "verdict": words.to_json()}
    run.write_json("findings.json", record)
    run.write_text("report.html", render(replace(known, **record)))
    return run.report
