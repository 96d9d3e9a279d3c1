"""`convsmith inspect`: what a network is made of, costs and sees, without training it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convsmith.cli import options

if TYPE_CHECKING:
    from convsmith.reporting.inspection import Inspection


@click.command()
@click.argument("model")
@click.option(
    "--input", "shape", metavar="CxHxW", help="Of one image: 224, 224x160 or 3x224x224; the model's own if not given."
)
@click.option("--against", metavar="MODEL", help="Another model, to be shown beside it with the differences.")
@click.option("--arg", "arguments", multiple=True, metavar="K=V", help="An argument of the network; repeatable.")
@click.option(
    "--outputs", type=click.IntRange(min=1), metavar="N", help="Classes; the model's own, or 1,000, if not given."
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="Images in a step of training, for its memory.",
)
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    metavar="N",
    help="Open so many levels of modules; as many as fit a screen if not given.",
)
@click.option("--all", "every", is_flag=True, help="Every layer, rather than blocks and stages.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page with the network drawn.",
)
@click.option(
    "--mermaid",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the drawing as Mermaid text.",
)
@options.code
@options.as_json
@options.open_
@options.common
def inspect(
    model: str,
    *,
    shape: str | None,
    against: str | None,
    arguments: tuple[str, ...],
    outputs: int | None,
    batch: int,
    depth: int | None,
    every: bool,
    html: Path | None,
    mermaid: Path | None,
    code: str | None,
    runs: Path,
    quiet: bool,
    as_json: bool,
    open_: bool,
) -> None:
    """Tell what MODEL is made of, costs and sees: a name, a RUN, FILE.py:NAME, a design.yaml, or a line of layers.

    \b
    convsmith inspect resnet50
    convsmith inspect resnet50 --against convnext_tiny
    convsmith inspect "conv 3->64 k7 s2 p3 | maxpool 3 s2 p1 | conv 64 k3 p1" --input 224
    convsmith inspect mine.py:Net --arg width=32 --input 1x28x28 --html net.html --open
    """
    from convsmith.networks import parse_arguments
    from convsmith.pipeline.given_model import open_model, parse_shape
    from convsmith.pipeline.inspecting import look

    size = parse_shape(shape) if shape is not None else (None, None, None)
    own = options.own_code(code)

    def looked(text: str, given: dict[str, Any]) -> Inspection:
        opened = open_model(text, options=given, code=own, input_shape=size, outputs=outputs, runs=runs)
        return look(opened, batch=batch, depth=depth)

    ours = looked(model, parse_arguments(arguments))
    theirs = None if against is None else looked(against, {})
    if as_json:
        told = dict(ours.record) if theirs is None else {"model": ours.record, "against": theirs.record}
        click.echo(json.dumps(told, ensure_ascii=False, indent=1))
    else:
        _print(ours, theirs, every=every)
    if mermaid is not None:
        from convsmith.reporting.inspection_graph import mermaid as drawn

        _write(mermaid, drawn(ours.drawing))
    if html is not None:
        from convsmith.reporting.inspection_page import render_inspection

        typed = " ".join(map(options.quoted, ("convsmith", *options.typed())))
        _write(html, render_inspection(ours, theirs, command=typed if options.typed() else ""))
        if open_:
            click.launch(str(html))
    options.hint(_following(model, ours, html), quiet=quiet)


def _write(path: Path, text: str) -> None:
    from convsmith.run_folder import write_atomically

    write_atomically(path, text.encode())
    click.echo(f"Written {path}", err=True)


def _following(model: str, shown: Inspection, html: Path | None) -> str:
    """What to type next."""
    shape = "x".join(map(str, shown.shape))
    if html is None:
        return f"convsmith inspect {options.quoted(model)} --input {shape} --html network.html --open"
    return f"convsmith train DATA --model {options.quoted(model)}"


def _print(ours: Inspection, theirs: Inspection | None, *, every: bool) -> None:
    from convsmith.console import plain_console
    from convsmith.reporting.inspection_text import compared, table

    plain_console().print(table(ours, every=every) if theirs is None else compared(ours, theirs))
