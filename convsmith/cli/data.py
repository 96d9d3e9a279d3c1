"""`convsmith data`: what is in a folder of images, before anything is trained."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from convsmith.cli import options

NAMED = 3
CLASSES_SHOWN = 30
OWN = {"--json", "--open", "--quiet", "-q", "--debug"}
"""Options that say how to tell, and not what to look at."""
SAID = (
    "unreadable image(s) left out",
    "appear under different labels",
    "are also in train, pixel for pixel",
    "grey image(s) among",
    "animation(s), such as",
)
"""Notes of the audit whose facts have lines of their own here."""


@click.command()
@click.argument("data")
@options.source
@options.time
@click.option("--model", metavar="MODEL", help="The network to be trained, whose weights take images of one size.")
@click.option(
    "--weights", metavar="SOURCE", help="What it starts from: auto, none, a file, a folder, or a RUN of yours."
)
@click.option(
    "--size", type=click.IntRange(min=4), metavar="PX", help="Side of the square that the network sees, in pixels."
)
@click.option("--fit", type=click.Choice(["crop", "pad", "stretch"]), help="How other shapes become that square.")
@click.option(
    "--symmetry",
    type=click.Choice(["none", "left-right", "any"]),
    help="Which mirrors and turns leave the class as it is.",
)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any key of the recipe.")
@click.option("--limit", type=click.IntRange(min=2), metavar="N", help="Look at only so many images.")
@click.option("--name", metavar="NAME", help="What to call it; by default the data's name.")
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
    time: str | None,
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
    from convsmith.recipe import Recipe, typed_layer

    flags = {
        "data.source": options.absolute(data), "data.limit": limit, "data.time": time, "name": name,
        **{f"data.{key}": value for key, value in options.columns(images, label, group, split, labels).items()},
        "image.size": size, "image.fit": fit, "augment.symmetry": symmetry,
    }  # fmt: skip
    given = {key: value for key, value in flags.items() if value is not None}
    if model is not None:
        from convsmith.pipeline.given_model import read_model, recipe_keys

        keys, code = recipe_keys(read_model(model, runs=runs))
        given |= keys if code is None else {}  # no weights are published for a network of one's own
    if weights is not None:
        given["weights.source"] = options.weights_source(weights, runs)
    recipe = Recipe.from_layers(typed_layer(given, assignments))
    from convsmith import pipeline

    following = shlex.join(["convsmith", "train", *(word for word in options.typed()[1:] if word not in OWN)])
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


def _print(found: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    from convsmith.console import plain_console
    from convsmith.reporting.formats import clean

    audit, classes = found.prepared.audit, found.prepared.dataset.classes
    console = plain_console()
    sizes = audit["sizes"]
    console.print(
        f"[bold]{options.count(audit['images'], 'image')} of {len(classes)} classes[/], "
        f"{_span(sizes['width'])} px wide and {_span(sizes['height'])} px high"
    )
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    roles = list(audit["roles"])
    for column in ("class", *roles, "in all"):
        table.add_column(column, justify="left" if column == "class" else "right", overflow="fold")
    for name in classes[:CLASSES_SHOWN]:
        numbers = [audit["roles"][role].get(name, 0) for role in roles]
        table.add_row(escape(clean(name)), *(f"{number:,}" for number in numbers), f"{sum(numbers):,}")
    console.print(table)
    if len(classes) > CLASSES_SHOWN:
        console.print(f"… and {len(classes) - CLASSES_SHOWN} classes more, on the page")
    for label, text in (*strange(audit), *harmless(audit), ("Split", f"{audit['split']['says']}.")):
        console.print(f"[bold]{label}:[/] {escape(clean(text))}", soft_wrap=True)
    for text in filter(None, (found.seen, found.symmetry, found.snapshot)):
        console.print(escape(clean(text)), soft_wrap=True)
    console.print(f"[bold]Page with pictures:[/] {escape(str(found.page))}", soft_wrap=True)


def _span(values: Mapping[str, int]) -> str:
    low, middle, high = (values[key] for key in ("min", "median", "max"))
    return f"{low}" if low == high else f"{low} to {high} (typically {middle})"


def strange(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a person should look at before anything is trained: a label and a sentence each, the worst first.

    Args:
        audit: the record of `images.audit`, with near duplicates, leaks and suspected groups.
    """
    told = []
    if leaks := audit.get("leaks"):
        pairs = [f"{each['first']} ({each['first_role']}) = {each['second']} ({each['second_role']})" for each in leaks]
        n = options.count(len(leaks), "pair")
        text = (
            f"{n} of equal or nearly equal images on two sides of the split, which flatters the test: {_some(pairs)}."
        )
        told.append(("Leaks", f"{text} Keep one of each."))
    near = audit.get("near_duplicates") or ()
    differ = [(pair["first"], pair["second"]) for pair in near if pair["labels_differ"]]
    if wrong := [*(audit.get("label_conflicts") or ()), *differ]:
        n = options.count(len(wrong), "set")
        text = f"{n} of equal or nearly equal images under different labels: {_some(map(' = '.join, wrong))}."
        told.append(("Labels disagree", f"{text} Move the wrong ones, or correct them with --labels FILE."))
    if lost := audit["unreadable"]:
        told.append(("Unreadable", f"{options.count(len(lost), 'file')} left out: {_some(map(_reasoned, lost))}."))
    told += [("Groups", group["says"]) for group in audit.get("suspected_groups") or ()]
    told += [("Note", note) for note in audit["notes"] if not any(part in note for part in SAID)]
    return told


def harmless(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was found and is taken care of: a label and a sentence each."""
    told = []
    if copies := audit["duplicates"]:
        n = options.count(len(copies), "set")
        told.append(("Copies", f"{n} of equal images: {_some(map(' = '.join, copies))}."))
    if near := audit.get("near_duplicates"):
        n = options.count(len(near), "pair")
        pairs = [f"{pair['first']} ~ {pair['second']}" for pair in near]
        told.append(("Near duplicates", f"{n} of nearly equal images: {_some(pairs)}."))
    for form, entry in (audit.get("forms") or {}).items():
        if entry["n"] and form != "misnamed":
            told.append(("Converted", f"{form}, {options.count(entry['n'], 'file')}: {entry['rule']}"))
    if skipped := audit["skipped"]:
        told.append(("Passed over", f"{options.count(len(skipped), 'file')}: {_some(map(_reasoned, skipped))}."))
    return told


def _reasoned(item: Mapping[str, str]) -> str:
    return f"{item['path']} ({item['reason']})"


def _some(items: Iterable[str]) -> str:
    listed = list(items)
    return "; ".join(listed[:NAMED]) + (f" and {len(listed) - NAMED:,} more" if len(listed) > NAMED else "")
