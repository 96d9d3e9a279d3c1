"""What a command prints as its result, on standard output: figures with their intervals, or JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from convsmith.console import plain_console
from convsmith.errors import RunError
from convsmith.records import Estimate
from convsmith.reporting.formats import clean
from convsmith.run_folder import RunFolder


def plan_json(plan: Any) -> str:
    """The plan as JSON, with the resolved recipe."""
    return json.dumps({**plan.to_json(), "recipe": plan.recipe.model_dump(mode="json")}, ensure_ascii=False, indent=1)


def headline(results: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The split whose figures lead, by name, and its record: the test images, else those that choices were made by.

    Raises:
        RunError: there are neither; figures of training images are never shown in their place.
    """
    for split in ("test", "tune"):
        if split in results["splits"]:
            return split, results["splits"][split]
    raise RunError("The run has figures of neither test nor tune images.")


def print_results(run: RunFolder, *, as_json: bool) -> None:
    """A run's headline figures with their intervals, and where its report lies."""
    results = run.read_json("results.json")
    if as_json:
        click.echo(
            json.dumps({"run": str(run.path), "report": str(run.report), **results}, ensure_ascii=False, indent=1)
        )
        return
    split, result = headline(results)
    print_split(result, split)
    for finding in run.read_json("findings.json")["findings"] if (run.path / "findings.json").exists() else ():
        if finding["severity"] != "hint":
            click.echo(f"Finding: {clean(finding['says'])}")
    click.echo(f"Report {run.report}")


def print_seeds(runs: Sequence[RunFolder], *, as_json: bool) -> None:
    """The headline figure of several runs on the same test images: each, their mean, and how much the seed matters."""
    figures = [headline(run.read_json("results.json"))[1]["metrics"] for run in runs]
    name = next(iter(figures[0]))
    values = [metrics[name]["value"] for metrics in figures]
    mean, spread = statistics.mean(values), statistics.stdev(values)
    if as_json:
        rows = [{"run": str(run.path), name: value} for run, value in zip(runs, values, strict=True)]
        click.echo(json.dumps({"runs": rows, "mean": mean, "deviation": spread}, ensure_ascii=False, indent=1))
        return
    for run, value in zip(runs, values, strict=True):
        click.echo(f"{run.path}  {name} {value:.2%}")
    click.echo(f"mean of {len(runs)} seeds {mean:.2%}, deviation between seeds {spread:.2%}")
    click.echo("The interval in each report is another matter: how sure the figure is with so many test images.")


def print_split(result: Mapping[str, Any], split: str) -> None:
    """One split's figures, a line each: value, interval, method; then classes."""
    console = plain_console()
    console.print(f"[bold]{result['n']:,} {escape(split)} images[/]")
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("figure", "value", "95 % interval", "method"):
        table.add_column(column)
    for name, values in result["metrics"].items():
        table.add_row(name.replace("_", " "), *estimate_cells(name, Estimate.from_json(values)))
    baseline = result.get("baseline")
    if baseline:
        name = f"always {baseline['class']!r}"
        table.add_row(escape(name), *estimate_cells("accuracy", Estimate.from_json(baseline["accuracy"])))
    console.print(table)


SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "top_2", "top_5", "ece", "precision", "recall", "f1")


def estimate_cells(name: str, estimate: Estimate) -> tuple[str, str, str]:
    """Value, interval and method as text; shares in per cent."""

    def text(number: float | None) -> str:
        if number is None:
            return "–"
        return f"{100 * number:.1f} %" if name in SHARES else f"{number:.3f}"

    if estimate.value is None:
        return "–", estimate.reason, ""
    interval = f"{text(estimate.low)} to {text(estimate.high)}" if estimate.low is not None else "–"
    return text(estimate.value), interval, estimate.method
