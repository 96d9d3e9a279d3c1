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
@click.option(
    "--on", metavar="IMAGE", help="Draw what each stage sees of this picture: a file, digits:0, flower or china."
)
@click.option(
    "--signal",
    multiple=True,
    metavar="RULE",
    help="Measure the variance behind each layer: own values, or drawn by a rule of initialisation; repeatable.",
)
@click.option(
    "--weights", metavar="SOURCE", help="For --on and --signal: auto, none (drawn at random), a file or a folder."
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
    on: str | None,
    signal: tuple[str, ...],
    weights: str | None,
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
    convsmith inspect last --on photo.jpg
    convsmith inspect resnet50 --signal own --signal xavier-normal --html net.html
    """
    from convsmith.errors import UsageError
    from convsmith.networks import parse_arguments
    from convsmith.pipeline.given_model import open_model, parse_shape
    from convsmith.pipeline.inspecting import look

    if open_ and html is None:
        raise UsageError("--open opens the page, and none is written.", mend="Add --html FILE.")
    if weights is not None and on is None and not signal:
        raise UsageError(
            "--weights is for --on and --signal: nothing else looks at values.", mend="Add --on IMAGE or --signal own."
        )
    size = parse_shape(shape) if shape is not None else (None, None, None)
    common: dict[str, Any] = {"code": options.own_code(code), "input_shape": size, "outputs": outputs, "runs": runs}
    given = parse_arguments(arguments)
    needed = "auto" if on is not None else "own" if signal else None
    opened = open_model(model, options=given, weights=weights or needed, **common)
    seen, depths = None, ()
    if signal:
        from convsmith.pipeline.through_depth import signals_of

        depths = signals_of(opened, signal)
    if on is not None:
        from convsmith.pipeline.seen_on import fields_on

        seen = fields_on(opened, on)
    ours = look(opened, batch=batch, depth=depth, on=seen, depths=depths)
    theirs = None if against is None else look(open_model(against, **common), batch=batch, depth=depth)
    if as_json:
        told = ours.to_json() if theirs is None else {"model": ours.to_json(), "against": theirs.to_json()}
        click.echo(json.dumps(told, ensure_ascii=False, indent=1))
    else:
        _print(ours, theirs, every=every)
    if seen is not None and on is not None and html is None:
        _write(Path(f"{Path(on).stem.replace(':', '-')}-fields.png"), seen.sheet)
    if mermaid is not None:
        from convsmith.reporting.inspection_graph import mermaid as drawn

        _write(mermaid, drawn(ours.drawing))
    if html is not None:
        from convsmith.reporting.inspection_page import render_inspection

        typed = " ".join(map(options.quoted, ("convsmith", *options.typed())))
        _write(html, render_inspection(ours, theirs, command=typed if options.typed() else ""))
        if open_:
            click.launch(str(html))
    options.hint(_following(model, ours, html, run=opened.run is not None), quiet=quiet)


def _write(path: Path, content: str | bytes) -> None:
    from convsmith.run_folder import write_atomically

    data = content.encode() if isinstance(content, str) else content
    write_atomically(path, data, mend="Choose another place for the file, or another folder to work in.")
    click.echo(f"Written {path}", err=True)


def _following(model: str, shown: Inspection, html: Path | None, *, run: bool) -> str:
    """What to type next."""
    shape = "x".join(map(str, shown.shape))
    if html is None:
        return f"convsmith inspect {options.quoted(model)} --input {shape} --html network.html --open"
    return f"convsmith train DATA {'--weights' if run else '--model'} {options.quoted(model)}"


def _print(ours: Inspection, theirs: Inspection | None, *, every: bool) -> None:
    from convsmith.console import plain_console
    from convsmith.reporting.inspection_text import compared, depths, fields, table

    console = plain_console()
    console.print(table(ours, every=every) if theirs is None else compared(ours, theirs))
    if ours.pictures:
        console.print(fields(ours))
    if ours.depths:
        console.print(depths(ours))
