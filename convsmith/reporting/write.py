"""From a run's records to its findings and its report; any time again, without the network that was trained."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import yaml

from convsmith.diagnosis import Evidence, diagnose, verdict
from convsmith.reporting.page import render
from convsmith.reporting.run_records import read_records
from convsmith.run_folder import RunFolder, read_log


def write_report(run: RunFolder) -> Path:
    """Diagnose a run anew and write `findings.json` and `report.html`.

    Returns:
        The report's path.

    Raises:
        RunError: the run has no results yet, or a record is damaged.
    """
    results = run.read_json("results.json")
    audit, manifest, plan = (run.read_json(f"{name}.json") for name in ("audit", "manifest", "plan"))
    recipe = yaml.safe_load(run.read_text("recipe.yaml"))
    findings = diagnose(Evidence(results, read_log(run.log_path), plan, manifest, audit, recipe, str(run.path)))
    roles = {row["id"]: row["role"] for row in csv.DictReader(io.StringIO(run.read_text("split.csv")))}
    words = verdict(results, findings, audit=audit, roles=roles, run=str(run.path))
    record = {"findings": [finding.to_json() for finding in findings], "verdict": words.to_json()}
    run.write_json("findings.json", record)
    run.write_text("report.html", render(read_records(run.path)))
    return run.report
