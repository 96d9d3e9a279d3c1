"""`convsmith kernels`: what a kernel does to a picture, one sum at a time, and which kernels a network has learnt."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convsmith.cli import options

if TYPE_CHECKING:
    import numpy as np

    from convsmith.cli.kernel_lab import Lab
    from convsmith.networks.kernels.filtering import Padding
    from convsmith.networks.kernels.match import Likeness
    from convsmith.pipeline.first_layer import FirstLayer

PADDINGS = ("valid", "same", "zero", "reflect", "replicate", "circular")
"""As in `networks.kernels.filtering`, whose import would make `--help` wait for torch; a test holds them equal."""
SHOWN = 16
"""Columns of numbers that fit a terminal."""
CHANNELS = ("red", "green", "blue")


@click.command()
@click.argument("image")
@click.option("--kernel", metavar='NAME|"ROWS"', help="A classical kernel, or your own: -1 0 1 / -2 0 2 / -1 0 1.")
@click.option("--at", metavar="ROW,COL", help="Show patch, kernel, products and sum of this place of the output.")
@click.option("--padding", type=click.Choice(PADDINGS), default="valid", show_default=True, help="What lies around it.")
@click.option("--stride", type=click.IntRange(min=1), metavar="N", default=1, show_default=True, help="Pixels a step.")
@click.option(
    "--dilation", type=click.IntRange(min=1), metavar="N", default=1, show_default=True, help="Pixels between taps."
)
@click.option("--pool", metavar="max|average[:K[:S]]", help="Pool what comes out, by windows of K px every S px [2:K].")
@click.option("--colour", is_flag=True, help="Keep the three channels of a colour picture; else it is made grey.")
@click.option(
    "--size",
    type=click.IntRange(min=8, max=2048),
    metavar="PX",
    default=256,
    show_default=True,
    help="Longer side that larger pictures are reduced to.",
)
@click.option("--run", "run", metavar="RUN", help="Show the first layer that this run has learnt, too.")
@options.code
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a page to explore."
)
@options.as_json
@options.common
def kernels(
    image: str,
    *,
    kernel: str | None,
    at: str | None,
    padding: Padding,
    stride: int,
    dilation: int,
    pool: str | None,
    colour: bool,
    size: int,
    run: str | None,
    code: str | None,
    html: Path | None,
    as_json: bool,
    runs: Path,
    quiet: bool,
) -> None:
    """Lay a kernel on IMAGE: a file, rows of numbers, an image of a named set (digits:0), flower or china.

    \b
    convsmith kernels flower                                 (every classical kernel)
    convsmith kernels photo.jpg --kernel sobel-vertical --at 40,60
    convsmith kernels "3 7 / 4 9" --pool average
    convsmith kernels digits:7 --kernel "-1 -1 -1 / -1 8 -1 / -1 -1 -1" --padding zero --html lab.html
    convsmith kernels digits:7 --run last                    (what a network has learnt)

    Rows and columns are counted from 0. Kernels are not turned round first, as in every network.
    """
    from convsmith.cli.kernel_lab import make_lab

    if code is not None and run is None:
        from convsmith.errors import UsageError

        raise UsageError("--code is for the network of a run, and none is named.", mend="Add --run RUN.")
    lab = make_lab(
        image,
        kernel=kernel,
        at=at,
        padding=padding,
        stride=stride,
        dilation=dilation,
        pool=pool,
        colour=colour,
        size=size,
    )
    learnt = _learnt(run, runs, code) if run is not None else None
    if html is not None:
        _write(html, lab, learnt)
    if as_json:
        record = {**lab.to_json(), "learnt": None if learnt is None else _learnt_json(*learnt)}
        # On one line: Python indents in Python, which takes eight seconds for a photo of 640 x 427.
        click.echo(json.dumps({**record, "page": str(html) if html else None}, ensure_ascii=False))
    else:
        _print(lab)
        if learnt is not None:
            _print_learnt(*learnt)
        if html is not None:
            click.echo(f"Page: {html}")
    options.hint(_next(lab, html), quiet=quiet)


def _learnt(run: str, runs: Path, code: str | None) -> tuple[Any, FirstLayer, list[list[Likeness]]]:
    """The run, its first layer, and at each moment what each filter is like."""
    from convsmith.networks.kernels.match import likenesses
    from convsmith.pipeline.first_layer import first_layer

    folder = options.found(run, runs)
    layer = first_layer(folder, code=options.own_code(code))
    return folder, layer, [likenesses(moment.filters) for moment in layer.moments]


def _write(html: Path, lab: Lab, learnt: tuple[Any, FirstLayer, list[list[Likeness]]] | None) -> None:
    from convsmith.cli.kernel_lab import page_record
    from convsmith.reporting.kernel_page import render_kernels
    from convsmith.run_folder import disk_errors, write_atomically

    page = render_kernels(page_record(lab, learnt, shlex.join(("convsmith", *options.typed()))))
    mend = "Choose another place with --html FILE."
    with disk_errors(f"writing {html}", mend=mend):
        html.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(html, page.encode(), mend=mend)


def _next(lab: Lab, html: Path | None) -> str:
    """What to type next: a kernel, one of its sums, or the page."""
    words = [word for word in options.typed() if word not in {"--json", "--quiet", "-q", "--debug"}]
    again = shlex.join(("convsmith", *(words or ["kernels", lab.typed])))
    if lab.listed:
        return f"{again} --kernel sobel-vertical"
    if not lab.asked:
        return f"{again} --at {lab.place[0]},{lab.place[1]}"
    if html is None:
        return f"{again} --html lab.html   # a page on which the arrow keys move the window"
    return f"convsmith kernels {options.quoted(lab.typed)} --pool max"


def _print(lab: Lab) -> None:
    picture = lab.picture
    click.echo(
        f"{picture.name}: {picture.note}, values {figure(picture.values.min())} to {figure(picture.values.max())}"
    )
    if lab.listed:
        _print_list(lab)
        return
    settings = lab.settings
    if lab.kernel is not None:
        height, width = lab.kernel.shape
        told = f": {lab.summary}" if lab.summary else ""
        click.echo(f"Kernel {lab.name}{told} ({height}x{width}, its numbers sum to {figure(lab.kernel.sum())})")
        click.echo(f"Padding {settings.padding}, stride {settings.stride}, dilation {settings.dilation}")
    if settings.pool is not None:
        click.echo(f"Pooling: {settings.pool[0]} of {settings.pool[1]}x{settings.pool[1]}, every {settings.pool[2]} px")
    height, width = lab.output.shape[:2]
    click.echo(f"Output: {height} x {width}, values {figure(lab.output.min())} to {figure(lab.output.max())}")
    if lab.asked:
        _print_place(lab)
    elif lab.output.ndim == 2 and lab.picture.values.shape[1] <= SHOWN and lab.picture.values.shape[0] <= SHOWN:
        _print_whole(lab)


def _print_list(lab: Lab) -> None:
    fitting, too_large = lab.examples()
    from rich.markup import escape
    from rich.table import Table

    from convsmith.console import plain_console

    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("kernel", "size", "output", "finds"):
        table.add_column(column, overflow="fold")
    for item in fitting:
        span = f"{figure(item.output.min())} to {figure(item.output.max())}"
        size = f"{item.kernel.shape[0]}x{item.kernel.shape[1]}"
        table.add_row(item.name, size, span, escape(item.summary))
    plain_console().print(table)
    if too_large:
        click.echo(f"Too large for this picture: {', '.join(too_large)}.")


def _print_whole(lab: Lab) -> None:
    """Picture, kernel and output side by side, where there is room."""
    title = "picture and padding" if any(map(any, lab.margins())) else "picture"
    blocks = [_block(title, lab.padded()), *([_block("kernel", lab.kernel)] if lab.kernel is not None else [])]
    click.echo("\n" + _beside([*blocks, _block("output", lab.output)]))


def _print_place(lab: Lab) -> None:
    """Patch, kernel, products and sum of the place that was asked for."""
    (row, column), pools, seen = lab.place, lab.pool_seen(), lab.window()
    names = CHANNELS if lab.output.ndim == 3 else ("",)
    click.echo(f"\nOutput row {row}, column {column}: {_listed(lab.output[row, column], names)}")
    if pools is not None and lab.settings.pool is not None:
        for index, name in enumerate(names):
            click.echo("\n" + _beside([_block(f"pooling looks at{name and f', {name}'}", _channel(pools[0], index))]))
        made = "the largest" if lab.settings.pool[0] == "max" else "the mean"
        click.echo(f"{made}: {_listed(pools[1], names)}")
    if seen is None or lab.kernel is None:
        return
    if pools is not None:
        which = "The largest of them" if lab.settings.pool and lab.settings.pool[0] == "max" else "The first of them"
        click.echo(f"\n{which}, row {seen.row}, column {seen.column} before pooling, is made like this:")
    click.echo(f"The window covers rows {_span(seen.rows)} and columns {_span(seen.columns)} of the picture.")
    inside = _inside(seen, lab.picture.values)
    for index, name in enumerate(names):
        patch, products = _channel(seen.patch, index), _channel(seen.products, index)
        blocks = [
            _block(f"patch{name and f', {name}'}", patch, inside),
            _block("kernel", seen.kernel),
            _block("products", products),
        ]
        click.echo("\n" + _beside(blocks, " x ", " = "))
        click.echo(f"sum of the products: {figure(seen.total if not name else seen.total[index])}")
    if len(names) > 1:
        click.echo(f"\nall channels together, as one filter of a network adds them: {figure(seen.total.sum())}")
    if not inside.all():
        click.echo("Numbers in brackets are padding.")


def _print_learnt(run: Any, layer: FirstLayer, like: list[list[Likeness]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from convsmith.cli.kernel_lab import kept
    from convsmith.console import plain_console
    from convsmith.networks.kernels.match import threshold

    _, channels, size, _ = layer.moments[-1].filters.shape
    click.echo(f"\nFirst layer of {run.path.name}: {layer.describes} ({layer.parameter})")
    click.echo(
        f"A filter is near a classical kernel where their cosine is at least {threshold(channels, size):.2f}, which "
        "fewer than one in a hundred random filters reaches."
    )
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("filter", *(f"{moment.label} ({moment.origin})" for moment in layer.moments), "last to first"):
        table.add_column(escape(column), overflow="fold")
    for index in range(len(like[0])):
        cells = [f"{each[index].cosine:.2f} {each[index].says}" for each in like]
        table.add_row(str(index), *map(escape, cells), f"{kept(layer, index):.2f}")
    near = [str(sum(each.near for each in moment)) for moment in like]
    table.add_row("near", *(f"{number} of {len(like[0])}" for number in near), "")
    plain_console().print(table)
    for note in layer.notes:
        click.echo(note)


def _learnt_json(run: Any, layer: FirstLayer, like: list[list[Likeness]]) -> dict[str, Any]:
    from convsmith.networks.kernels.match import threshold

    _, channels, size, _ = layer.moments[-1].filters.shape
    moments = [
        {
            "label": moment.label, "step": moment.step, "epoch": moment.epoch, "origin": moment.origin,
            "filters": [
                {"weights": moment.filters[index].tolist(), "kernel": each.kernel, "changes": list(each.changes),
                 "cosine": each.cosine, "near": each.near, "channels": list(each.channels)}
                for index, each in enumerate(found)
            ],
        }
        for moment, found in zip(layer.moments, like, strict=True)
    ]  # fmt: skip
    return {
        "run": str(run.path), "layer": layer.describes, "parameter": layer.parameter,
        "threshold": threshold(channels, size), "moments": moments, "notes": list(layer.notes),
    }  # fmt: skip


def figure(value: Any) -> str:
    """A number in full where it is whole, else to six digits."""
    number = float(value) + 0.0  # no negative zero
    return f"{number:.0f}" if number.is_integer() and abs(number) < 1e15 else f"{number:.6g}"


def _listed(values: np.ndarray, names: tuple[str, ...]) -> str:
    if len(names) == 1:
        return figure(values)
    return ", ".join(f"{name} {figure(value)}" for name, value in zip(names, values, strict=True))


def _channel(values: np.ndarray, index: int) -> np.ndarray:
    return values if values.ndim == 2 else values[..., index]


def _span(places: np.ndarray) -> str:
    return f"{places[0]} to {places[-1]}" if len(places) > 1 else f"{places[0]}"


def _inside(seen: Any, values: np.ndarray) -> Any:
    """Which numbers of a patch are of the picture and not of its padding, bool `[kh, kw]`."""
    rows = (seen.rows >= 0) & (seen.rows < values.shape[0])
    columns = (seen.columns >= 0) & (seen.columns < values.shape[1])
    return rows[:, None] & columns[None]


def _block(title: str, values: np.ndarray, inside: Any = None) -> list[str]:
    """A title and rows of numbers in columns of equal width; those not inside are in brackets."""
    words = [
        [figure(value) if inside is None or inside[i, j] else f"({figure(value)})" for j, value in enumerate(row)]
        for i, row in enumerate(values)
    ]
    wide = max(len(word) for row in words for word in row)
    lines = ["  ".join(word.rjust(wide) for word in row) for row in words]
    return [title.ljust(len(lines[0])), *lines]


def _beside(blocks: list[list[str]], *signs: str) -> str:
    """Blocks of lines next to each other, with signs between them in the middle line of the numbers."""
    tall = max(map(len, blocks))
    between = [*signs, *["  "] * (len(blocks) - 1 - len(signs)), ""]
    lines = [""] * tall
    for block, sign in zip(blocks, between, strict=True):
        wide, middle = max(map(len, block)), (len(block) + 1) // 2
        for row in range(tall):
            line = block[row] if row < len(block) else ""
            lines[row] += line.ljust(wide) + (f" {sign} " if row == middle else " " * (len(sign) + 2))
    return "\n".join(line.rstrip() for line in lines)
