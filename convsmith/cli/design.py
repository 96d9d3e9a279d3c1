"""`convsmith design`: other networks in the place of one, each measured, under limits that they keep to."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from convsmith.cli import options

if TYPE_CHECKING:
    from convsmith.networks.counting.costs import Costs, Quantity
    from convsmith.pipeline.designing import Limit, Proposal, Proposals, Wish

COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
BYTES = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
UNITS: dict[str, dict[str, float]] = {
    "parameters": COUNTS, "macs": COUNTS, "memory": BYTES, "latency": {"ms": 1e-3, "s": 1.0},
}  # fmt: skip
"""Quantities that can be limited, with the units that they are given in."""


@click.command()
@click.argument("model")
@click.option("--input", "shape", metavar="CxHxW", help="Of one image; the model's own if not given.")
@click.option("--outputs", type=click.IntRange(min=1), metavar="N", help="Classes; the model's own if not given.")
@click.option("--arg", "arguments", multiple=True, metavar="K=V", help="An argument of the network; repeatable.")
@click.option("--widen", multiple=True, metavar="[STAGE:]F", help="Multiply channels: 1.5, or stage3:2; repeatable.")
@click.option("--shrink", multiple=True, metavar="[STAGE:]F", help="The same with less than 1: 0.5; repeatable.")
@click.option("--deepen", multiple=True, metavar="STAGE[:N]", help="Add N blocks [1] to a stage; repeatable.")
@click.option("--swap", multiple=True, metavar="STAGE:BLOCK", help="Another kind of block in a stage; repeatable.")
@click.option("--dilate", multiple=True, metavar="STAGE:N", help="Spread a stage's kernels N times; repeatable.")
@click.option(
    "--output-stride", type=click.IntRange(min=1), metavar="N", help="Divide the image by N in all, dilating instead."
)
@click.option(
    "--receptive-field", "sees", type=click.IntRange(min=1), metavar="PX", help="Let the last maps see PX at least."
)
@click.option("--save", metavar="SHARE", help="Cost so much less: 50%, 0.5.  [50%, where nothing else is asked]")
@click.option(
    "--of", "what", type=click.Choice(tuple(UNITS)), default="parameters", show_default=True, help="What --save is of."
)
@click.option(
    "--limit", "limits", multiple=True, metavar="WHAT=N", help="parameters=5M, macs=300M, memory=20MB, latency=5ms."
)
@click.option("--take", type=click.IntRange(min=1), default=1, metavar="N", help="Which proposal --write writes.  [1]")
@click.option(
    "--write", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a proposal for train."
)
@options.code
@options.as_json
@options.common
def design(
    model: str,
    *,
    shape: str | None,
    outputs: int | None,
    arguments: tuple[str, ...],
    code: str | None,
    take: int,
    write: Path | None,
    runs: Path,
    quiet: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Propose networks in the place of MODEL: a name, a RUN, FILE.py:NAME, a design.yaml, or a line of layers.

    \b
    convsmith design convnet-small --save 50%
    convsmith design examples/designs/resnet50.yaml --widen 1.5 --deepen stage3 --write wider.yaml
    convsmith design net.yaml --receptive-field 200 --limit parameters=5M --limit latency=5ms
    convsmith design resnet50 --save 60% --of macs --write cheaper.py

    A design is written as one (FILE.yaml). Other networks are changed from outside, in Python (FILE.py). Memory is what
    training keeps of one image; latency is measured here, for one image.
    """
    from convsmith.networks import parse_arguments
    from convsmith.pipeline.designing import propose
    from convsmith.pipeline.given_model import open_model, parse_shape

    wish, size = _wish(**asked), parse_shape(shape) if shape is not None else (None, None, None)
    given = open_model(
        model, options=parse_arguments(arguments), code=options.own_code(code), input_shape=size, outputs=outputs,
        runs=runs, weights="none" if wish.times else None,
    )  # fmt: skip
    found = propose(given, wish)
    proposal = _taken(found, take) if found.ranked or write is not None else None
    if proposal is not None and write is not None:
        _write(write, found, proposal)
    if as_json:
        record = {**found.to_json(), "taken": take if proposal else None, "written": str(write) if write else None}
        click.echo(json.dumps(record, ensure_ascii=False, indent=1))
    else:
        _print(found, proposal, write)
    options.hint(_next(found, proposal, write), quiet=quiet)


def _wish(
    *,
    widen: tuple[str, ...],
    shrink: tuple[str, ...],
    deepen: tuple[str, ...],
    swap: tuple[str, ...],
    dilate: tuple[str, ...],
    output_stride: int | None,
    sees: int | None,
    save: str | None,
    what: Quantity,
    limits: tuple[str, ...],
) -> Wish:
    """What was typed, as a wish; operations in the order of the options in the help."""
    from convsmith.pipeline.designing import Wish

    operations: list[tuple[str, dict[str, Any]]] = []
    for name, texts in (("widen", widen), ("shrink", shrink)):
        operations += [(name, _placed(f"--{name}", text, "factor", float)) for text in texts]
    for text in deepen:
        operations.append(("deepen", _placed("--deepen", text if ":" in text else f"{text}:1", "blocks", int)))
    operations += [("swap", _placed("--swap", text, "block", str)) for text in swap]
    operations += [("dilate", _placed("--dilate", text, "factor", int)) for text in dilate]
    if output_stride is not None:
        operations.append(("output-stride", {"stride": output_stride}))
    if save is None and not (operations or sees or limits):
        save = "50%"
    saves: tuple[tuple[Quantity, float], ...] = () if save is None else ((what, _share(save)),)
    return Wish(tuple(operations), sees, tuple(_limit(text) for text in limits), saves)


def _placed(option: str, text: str, key: str, kind: type) -> dict[str, Any]:
    """`stage3:1.5` as `{"stage": "stage3", key: 1.5}`; without a stage, the value alone."""
    from convsmith.errors import UsageError

    stage, colon, value = text.rpartition(":")
    try:
        return {**({"stage": stage} if colon else {}), key: kind(value)}
    except ValueError:
        raise UsageError(f"{option} {text}: {value!r} is no number.", mend=f"As in {option} stage3:2.") from None


def _share(text: str) -> float:
    from convsmith.errors import UsageError

    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(%?)", text.strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < share < 1:
        raise UsageError(f"--save {text} is no share between 0 and 1.", mend="Write it as 50% or 0.5.")
    return share


def _limit(text: str) -> Limit:
    from convsmith.errors import UsageError
    from convsmith.pipeline.designing import Limit

    what, equals, amount = text.partition("=")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", amount.strip())
    if not equals or what not in UNITS:
        raise UsageError(f"--limit {text}: what is limited must be one of {', '.join(UNITS)}.", mend="parameters=5M")
    units = UNITS[what]
    if not found or found[2].lower() not in units:
        known = ", ".join(filter(None, units))
        raise UsageError(f"--limit {text}: {amount!r} is no figure.", mend=f"A number, and one of {known}.")
    return Limit(cast("Quantity", what), float(found[1]) * units[found[2].lower()])


def _taken(found: Proposals, take: int) -> Proposal:
    """The proposal with a number.

    Raises:
        UsageError: there is none.
    """
    from convsmith.errors import UsageError

    if take > len(found.ranked):
        mend = f"Give --take 1 to {len(found.ranked)}." if found.ranked else "Ask for less, or for higher limits."
        raise UsageError(f"There is no proposal {take}, but {len(found.ranked)} in all.", mend=mend)
    return found.ranked[take - 1]


def _write(path: Path, found: Proposals, proposal: Proposal) -> None:
    """A design as YAML, and any other network as Python."""
    from convsmith.design import write
    from convsmith.errors import UsageError
    from convsmith.pipeline.rewritten import as_python
    from convsmith.reporting.formats import clean
    from convsmith.run_folder import disk_errors, write_atomically

    wanted = (".yaml", ".yml") if proposal.design is not None else (".py",)
    if path.suffix not in wanted:
        kind = "a design" if proposal.design is not None else "no design: it is code, changed from outside"
        raise UsageError(f"What is proposed is {kind}.", mend=f"Write it as {path.with_suffix(wanted[0])}.")
    command = _command()
    if proposal.design is not None:
        about = clean(f"{found.given.name}: {proposal.name} ({proposal.did}). Found by {command}")
        text = f"# {about}\n{write(proposal.design)}"
    else:
        text = as_python(found, proposal, command)
    mend = "Choose another place with --write FILE."
    with disk_errors(f"writing {path}", mend=mend):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode(), mend=mend)


def _next(found: Proposals, proposal: Proposal | None, write: Path | None) -> str:
    """What to type next: train what was written, write what was found, or ask for less."""
    given = options.quoted(found.given.asked.text)
    if proposal is None:
        return f"convsmith inspect {given}   # where the cost is"
    if write is not None:
        name = f"{write}:network" if write.suffix == ".py" else str(write)
        return f"convsmith train DATA --model {options.quoted(name)}"
    if proposal.design is None and found.given.asked.kind == "code":
        return f"convsmith inspect {given}   # after the lines above are in your file"
    return f"{_command()} --write proposal.{'yaml' if proposal.design is not None else 'py'}"


def _command() -> str:
    """The command as it was typed."""
    words = [word for word in options.typed() if word not in {"--json", "--quiet", "-q", "--debug"}]
    return shlex.join(("convsmith", *words))


def _print(found: Proposals, taken: Proposal | None, write: Path | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from convsmith.console import plain_console
    from convsmith.pipeline.designing import NOUNS, told
    from convsmith.reporting.formats import clean

    shape = "x".join(map(str, found.given.shape))
    assumed = f" ({found.given.assumed} assumed)" if found.given.assumed else ""
    about = f"{clean(found.given.name)}, images of {shape}{assumed}, "
    click.echo(about + options.count(found.outputs, "class", "classes"))
    if found.limits:
        most = [f"{told(limit.what, limit.most)} {NOUNS[limit.what]}" for limit in found.limits]
        click.echo(f"At most {' and '.join(most)}:")
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("", "way", "parameters", "MACs", "memory", "sees", *(["latency"] if found.seconds else [])):
        text = column == "way"
        table.add_column(column, justify="left" if text else "right", overflow="fold", no_wrap=not text)
    table.add_row("", "now", *_cells(found.before, found.before, found.seconds, found.seconds))
    for number, proposal in enumerate(found.ranked, 1):
        cells = _cells(proposal.after, found.before, proposal.seconds, found.seconds)
        table.add_row(str(number), escape(proposal.name), *cells)
    plain_console().print(table)
    for number, proposal in enumerate(found.ranked, 1):
        click.echo(f"{number}  {proposal.name}: {proposal.did} ({proposal.source})")
    for name, why in found.left_out:
        click.echo(f"-  {name}: {why.rstrip('.')}")
    if not found.ranked:
        click.echo("Nothing that was tried keeps to that.")
    _print_way(found, taken, write)


def _print_way(found: Proposals, taken: Proposal | None, write: Path | None) -> None:
    """What the figures mean, and how a proposal that is no design comes about."""
    click.echo(
        "Memory: what a training step keeps of one image. Sees: receptive field of the last maps. How accurate a "
        "proposal will be, only training tells."
    )
    if found.seconds:
        at = options.count(found.threads, "thread")
        click.echo(f"Latency: measured on this machine now, for one image, {at}, beside the network as it is.")
    if write is not None:
        click.echo(f"Written: {write}")
    elif taken is not None and taken.design is None:
        from convsmith.pipeline.rewritten import statements

        imports, lines = statements(taken)
        click.echo("This network is code and no design, so it is changed from outside. In Python, proposal 1 is:")
        for line in (*imports, f"shape = {found.given.shape}", *lines):
            click.echo(f"    {line}")


def _cells(costs: Costs, before: Costs, seconds: float | None, now: float | None) -> list[str]:
    """The figures of a row, with what they are of those of the network as it is."""
    from convsmith.pipeline.designing import FIGURES, told

    cells = [_beside(told(what, getattr(costs, what)), getattr(costs, what), getattr(before, what)) for what in FIGURES]
    field = costs.field
    cells.append("?" if field is None else "all" if field.whole else f"{costs.sees} px")
    if now is not None:
        cells.append(_beside(told("latency", seconds), seconds, now))
    return cells


def _beside(text: str, figure: float | None, before: float | None) -> str:
    """A figure, and by how much it differs from the one before."""
    if figure is None or not before or figure == before:
        return text
    return f"{text} ({100 * (figure / before - 1):+.0f} %)"
