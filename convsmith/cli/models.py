"""`convsmith models`: what networks there are to name, how large, and whether their weights are here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from convsmith.cli import options

if TYPE_CHECKING:
    from convsmith.networks import Listing

SHOWN = 50
"""Networks described at most, each of which takes some hundredths of a second."""


@click.command()
@click.argument("pattern", required=False)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder of weights to look in, besides this machine's caches.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", default=SHOWN, show_default=True, help="Show so many at most."
)
@options.as_json
@options.common
def models(
    pattern: str | None, *, weights: Path | None, limit: int, runs: Path, quiet: bool, as_json: bool
) -> int | None:
    """List networks by PATTERN: name, parameters, image size, weights, licence. Without one, our own.

    \b
    convsmith models
    convsmith models 'resnet*'
    convsmith models 'torchvision/*' --weights ~/weights
    convsmith models 'resnet50.*'      (each of its published weights)
    """
    from convsmith.networks import list_models, match_models, model_names

    found = match_models("convsmith/*" if pattern is None else pattern)
    rows = list_models("convsmith/*" if pattern is None else pattern, weights=weights, limit=limit)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], ensure_ascii=False, indent=1))
    elif rows:
        _print(rows)
    if not rows:
        click.echo(f"No network's name fits {pattern!r}.", err=True)
        options.hint("convsmith models '*part*'", quiet=quiet)
        return 0
    if quiet:
        return None
    if len(found) > len(rows):
        click.echo(f"{len(found) - len(rows):,} more fit; see them with --limit {len(found)}.", err=True)
    if pattern is None:
        more = ", ".join(f"{len(model_names(library)):,} of {library}" for library in ("timm", "torchvision"))
        click.echo(f"There are {more} besides: search them as in `convsmith models 'resnet*'`.", err=True)
    options.hint(f"convsmith train DATA --model {rows[0].name}", quiet=quiet)
    return None


def _print(rows: Sequence[Listing]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from convsmith.console import plain_console

    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("name", overflow="fold")
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("images", no_wrap=True)
    table.add_column("weights", no_wrap=True)
    table.add_column("licence of the weights", overflow="fold")
    for row in rows:
        size = f"{row.input_size[1]}x{row.input_size[2]}" if row.input_size else "any"
        table.add_row(escape(row.name), amount(row.parameters), size, row.weights, escape(row.licence))
    plain_console().print(table)


def amount(number: int) -> str:
    """A count in thousands or millions, with three digits: 142 k, 4.65 M, 25.6 M."""
    if number < 1_000_000:
        return f"{number / 1000:.0f} k" if number >= 10_000 else f"{number:,}"
    millions = number / 1_000_000
    return f"{millions:.2f} M" if millions < 9.995 else f"{millions:.1f} M" if millions < 99.95 else f"{millions:.0f} M"
