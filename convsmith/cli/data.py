"""`convsmith data`: what is in a folder of images, before anything is trained."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from convsmith.cli import options

NAMED = 5
CLASSES_SHOWN = 30


@click.command()
@click.argument("data")
@options.source
@click.option("--model", help="The network that is to be trained, for the size it takes.")
@click.option("--weights", help="What it starts from: auto, none, a file, a folder, or a RUN of yours.")
@click.option("--size", type=click.IntRange(min=4), help="Side of what the network sees, in pixels.")
@click.option("--fit", type=click.Choice(["crop", "pad", "stretch"]), help="How other shapes become a square.")
@click.option(
    "--symmetry", type=click.Choice(["none", "left-right", "any"]), help="Mirrors and turns that keep a class."
)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any key of the recipe.")
@click.option("--limit", type=click.IntRange(min=2), help="Look at only so many images.")
@click.option("--name", help="What to call it; by default the data's name.")
@options.as_json
@options.open_
@options.common
def data(
    data: str,
    *,
    images: str | None,
    label: str | None,
    group: str | None,
    split: str | None,
    labels: str | None,
    model: str | None,
    weights: str | None,
    size: int | None,
    fit: str | None,
    symmetry: str | None,
    assignments: tuple[str, ...],
    limit: int | None,
    name: str | None,
    as_json: bool,
    open_: bool,
    runs: Path,
    quiet: bool,
) -> None:
    """Tell what is in DATA before any training, and draw it as a page.

    \b
    convsmith data photos/
    convsmith data photos.csv --images photos/ --label species --group donor

    Every image is decoded once, and remembered: a second call takes seconds. Nothing in DATA is changed.
    """
    from convsmith.recipe import Recipe, layer, parse_assignments

    flags = {
        "data.source": options.absolute(data), "data.limit": limit, "name": name, "model": model,
        **{f"data.{key}": value for key, value in options.columns(images, label, group, split, labels).items()},
        "image.size": size, "image.fit": fit, "augment.symmetry": symmetry,
    }  # fmt: skip
    given = {key: value for key, value in flags.items() if value is not None}
    if weights is not None:
        given["weights.source"] = options.weights_source(weights, runs)
    recipe = Recipe.from_layers(layer(given, over=parse_assignments(assignments)))
    from convsmith import pipeline

    following = shlex.join(["convsmith", "train", *_same(sys.argv)])
    with pipeline.Progress(quiet=quiet) as tell:
        found = pipeline.look(recipe, runs=runs, command=following, tell=tell)
    if as_json:
        record = {**found.prepared.audit, "page": str(found.page), "seen": found.seen, "symmetry": found.symmetry}
        click.echo(json.dumps(record, ensure_ascii=False, indent=1))
    else:
        _print(found)
    if open_:
        click.launch(str(found.page))
    options.hint(following, quiet=quiet)


def _same(argv: list[str]) -> list[str]:
    """The words typed after `data`, for `train` to take them."""
    own = {"--json", "--open", "--quiet", "-q", "--debug"}
    return [word for word in argv[2:] if word not in own] if len(argv) > 2 else ["DATA"]


def _print(found: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    from convsmith.console import plain_console

    audit, dataset = found.prepared.audit, found.prepared.dataset
    console = plain_console()
    sizes = audit["sizes"]
    console.print(
        f"[bold]{audit['images']:,} images of {len(dataset.classes)} classes[/], "
        f"{_span(sizes['width'])} px wide and {_span(sizes['height'])} px high"
    )
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    roles = list(audit["roles"])
    for column in ("class", *roles, "in all"):
        table.add_column(column, justify="left" if column == "class" else "right", overflow="fold")
    for name in dataset.classes[:CLASSES_SHOWN]:
        numbers = [audit["roles"][role].get(name, 0) for role in roles]
        table.add_row(escape(name), *(f"{number:,}" for number in numbers), f"{sum(numbers):,}")
    console.print(table)
    if len(dataset.classes) > CLASSES_SHOWN:
        console.print(f"… and {len(dataset.classes) - CLASSES_SHOWN} classes more, on the page")
    for line in _strange(audit):
        console.print(escape(line), soft_wrap=True)
    for note in audit["notes"]:
        console.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    for line in (audit["split"]["says"], found.seen, found.symmetry, found.snapshot):
        if line:
            console.print(escape(line), soft_wrap=True)
    console.print(f"Page with pictures: {escape(str(found.page))}", soft_wrap=True)


def _span(values: Mapping[str, int]) -> str:
    low, middle, high = (values[key] for key in ("min", "median", "max"))
    return f"{low}" if low == high else f"{low} to {high} (typically {middle})"


def _strange(audit: Mapping[str, Any]) -> list[str]:
    """A line for each kind of thing that a person should look at, with examples."""
    lines = []
    leaks = audit.get("leaks") or ()
    if leaks:
        pairs = [f"{leak['first']} ({leak['first_role']}) = {leak['second']} ({leak['second_role']})" for leak in leaks]
        lines.append(f"LEAKS: {len(leaks):,} images stand, equal or nearly so, in two roles: {_some(pairs)}")
    conflicts = audit.get("label_conflicts") or ()
    near = audit.get("near_duplicates") or ()
    differ = [[pair["first"], pair["second"]] for pair in near if pair["labels_differ"]]
    if conflicts or differ:
        groups = [" = ".join(group) for group in (*conflicts, *differ)]
        lines.append(f"LABELS DISAGREE: {len(groups):,} sets of equal or nearly equal images: {_some(groups)}")
    if audit["unreadable"]:
        files = [f"{item['path']} ({item['reason']})" for item in audit["unreadable"]]
        lines.append(f"UNREADABLE: {len(files):,} files are left out: {_some(files)}")
    if audit["duplicates"]:
        lines.append(
            f"Copies: {len(audit['duplicates']):,} sets of equal images: {_some(map(' = '.join, audit['duplicates']))}"
        )
    if near:
        pairs = [f"{pair['first']} ~ {pair['second']}" for pair in near]
        lines.append(f"Near duplicates: {len(near):,} pairs: {_some(pairs)}")
    for form, entry in (audit.get("forms") or {}).items():
        if entry["n"] and form not in {"misnamed"}:
            lines.append(f"{form}: {entry['n']:,} files; {entry['rule']}")
    if audit["skipped"]:
        lines.append(f"Skipped: {len(audit['skipped']):,} files: {_some(item['path'] for item in audit['skipped'])}")
    for group in audit.get("suspected_groups") or ():
        lines.append(f"GROUPS? {group['says']}")
    return lines


def _some(items: Any) -> str:
    listed = list(items)
    return "; ".join(listed[:NAMED]) + ("; …" if len(listed) > NAMED else "")
