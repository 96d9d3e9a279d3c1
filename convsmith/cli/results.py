"""`convsmith runs`, `report` and `evaluate`: what has been measured. Only measuring on other images loads torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from convsmith.cli import options


@click.command()
@options.as_json
@options.common
def runs(*, runs: Path, quiet: bool, as_json: bool) -> None:
    """List runs, the newest last: data, network, result with its interval, time."""
    from convsmith.run_folder import list_runs

    rows = [_row(run) for run in list_runs(runs)]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    if not rows:
        click.echo(f"There are no runs in {runs.resolve()}.")
        options.hint("convsmith train digits", quiet=quiet)
        return
    from rich.markup import escape
    from rich.table import Table

    from convsmith.console import plain_console

    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("run", "data", "network", "result", "time"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(row[key])) for key in ("run", "data", "network", "result", "time")))
    plain_console().print(table)
    options.hint("convsmith report last --open", quiet=quiet)


@click.command()
@options.run
@options.open_
@options.as_json
@options.common
def report(run: str, *, runs: Path, quiet: bool, open_: bool, as_json: bool) -> None:
    """Rebuild RUN's findings and report from its records; no network runs."""
    from convsmith.evaluation import is_cross_validation
    from convsmith.reporting import write_cross_validation, write_report

    folder = options.found(run, runs, whole=True)
    folder.refuse_unfinished()
    path = write_cross_validation(folder) if is_cross_validation(folder) else write_report(folder)
    click.echo(json.dumps({"report": str(path)}) if as_json else str(path))
    if open_:
        click.launch(str(path))
    else:
        options.hint(f"convsmith report {options.quoted(run)} --open", quiet=quiet)


@click.command()
@options.run
@click.option("--data", metavar="DATA", help="Labelled images to measure on instead: a folder, a table or a named set.")
@options.source
@click.option("--limit", type=click.IntRange(min=2), metavar="N", help="Use only so many of them.")
@options.code
@options.device
@options.as_json
@options.common
def evaluate(
    run: str,
    *,
    data: str | None,
    limit: int | None,
    images: str | None,
    label: str | None,
    group: str | None,
    split: str | None,
    labels: str | None,
    code: str | None,
    device: str,
    runs: Path,
    quiet: bool,
    as_json: bool,
) -> None:
    """Show RUN's figures, computed anew from its recorded predictions; with --data, measure it on other images.

    Images that RUN was trained on or chosen by are left out of --data, and counted.
    """
    folder = options.found(run, runs, whole=data is None)
    from convsmith.cli.show import headline, print_split

    columns = options.columns(images, label, group, split, labels)
    _refuse_idle(data, {**columns, "limit": limit, "code": code})
    if data is None:
        from convsmith.evaluation import cross_validation, is_cross_validation, rescore

        whole = is_cross_validation(folder)
        split, result = headline(cross_validation.rescore(folder) if whole else rescore(folder))
        split, place = "out-of-fold" if whole else split, "results.json"
    else:
        from convsmith import pipeline
        from convsmith.recipe import Data

        options.refuse_empty(data)
        named = Data.model_validate({"source": data, "limit": limit, **columns})
        with pipeline.Progress(quiet=quiet) as tell:
            trained = pipeline.load_trained(folder, code=options.own_code(code), device=device)
            result, place = pipeline.evaluate_on(trained, named, tell=tell)
        split = data
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False, indent=1))
    else:
        print_split(result, split)
        _print_classes(result)
    options.hint(
        f"convsmith report {options.quoted(run)} --open   # the figures lie in {folder.path / place}", quiet=quiet
    )


def _refuse_idle(data: str | None, given: Mapping[str, object]) -> None:
    """Raise `UsageError` for options that say how to read images where none are named."""
    from convsmith.errors import UsageError

    idle = next((name for name, value in given.items() if value is not None), None)
    if data is None and idle is not None:
        raise UsageError(f"--{idle} is for other images, and none are named.", mend="Add --data FOLDER.")


def _print_classes(result: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from convsmith.cli.show import estimate_cells
    from convsmith.console import plain_console
    from convsmith.records import Estimate

    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("class", "images", "recall", "95 % interval", "precision", "95 % interval", "F1"):
        table.add_column(column)
    for row in result.get("per_class", ()):
        cells = {key: estimate_cells(key, Estimate.from_json(row[key])) for key in ("recall", "precision", "f1")}
        figures = (*cells["recall"][:2], *cells["precision"][:2], cells["f1"][0])
        table.add_row(escape(row["name"]), f"{row['n']:,}", *figures)
    plain_console().print(table)


def _row(run: Any) -> dict[str, Any]:
    """One run for the list; what it has not come to is said in words."""
    from convsmith.cli.folds import folds_line
    from convsmith.cli.show import estimate_cells, headline
    from convsmith.errors import RunError
    from convsmith.evaluation import is_cross_validation
    from convsmith.records import Estimate
    from convsmith.run_folder import read_log

    row = {"run": run.path.name, "data": "", "network": "", "result": "not finished", "time": ""}
    try:
        manifest = run.read_json("manifest.json")
        model = manifest["model"]
        row["data"] = manifest["data"]["source"]
        row["network"] = model["description"] if model["name"] == "own" else model["name"]
        told = f", {folds_line(run)}" if is_cross_validation(run) else ""
        row["result"] += told
        if run.ended:
            _, best = headline(run.read_json("results.json"))
            name, figure = next(iter(best["metrics"].items()))
            value, interval, _ = estimate_cells(name, Estimate.from_json(figure))
            row["result"] = (
                f"{name} {value} ({interval}){told}" if figure["low"] is not None else f"{name} {value}{told}"
            )
        ends = [record for record in read_log(run.log_path) if record["kind"] == "finished"]
        row["time"] = f"{ends[-1]['values']['seconds']['total']:.0f} s" if ends else ""
    except (RunError, KeyError, TypeError, AttributeError, StopIteration) as error:
        row["result"] = f"cannot be read: {error or type(error).__name__}"
    return row
