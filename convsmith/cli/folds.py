"""What `convsmith train --folds` prints as its result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from convsmith.cli import options

if TYPE_CHECKING:
    from convsmith.run_folder import RunFolder


def print_folds(folder: RunFolder, *, quiet: bool, as_json: bool, open_: bool) -> None:
    """The figures of all folds together, how far the runs differ, what the intervals are not, and what to type next."""
    from convsmith.cli.show import print_split

    results = folder.read_json("results.json")
    if as_json:
        told = {"cross_validation": str(folder.path), "report": str(folder.report), "results": results}
        click.echo(json.dumps(told, ensure_ascii=False, indent=1))
    else:
        print_split(results["splits"]["test"], "out-of-fold")
        spread = results["cross_validation"]["spread"].get("accuracy")
        if spread:
            click.echo(
                f"The {spread['n']} runs lie between {spread['lowest']:.1%} and {spread['highest']:.1%}, standard "
                f"deviation {100 * spread['deviation']:.1f} points."
            )
        click.echo("Intervals of cross-validation tend to be too narrow: its networks share most of their images.")
        click.echo(f"Report {folder.report}")
    if open_:
        click.launch(str(folder.report))
    again = f"convsmith train --recipe {options.quoted(folder.path / 'given.yaml')} --set data.folds=null"
    options.hint(f"{again}   # one network from all images", quiet=quiet)


def folds_line(folder: RunFolder) -> str:
    """How many folds a cross-validation has, and how many of its runs are finished where not all are."""
    from convsmith.evaluation.cross_validation import runs_of

    record, runs = folder.read_json("cross-validation.json"), runs_of(folder)
    drawn = f", drawn {record['repeats']} times" if record["repeats"] > 1 else ""
    done = sum(run.finished for run in runs)
    part = "" if done == len(runs) else f", {done} of {len(runs)} runs finished"
    return f"{record['folds']} folds{drawn}{part}"
