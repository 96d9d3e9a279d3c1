"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from convsmith.pipeline import Code
    from convsmith.run_folder import RunFolder

Command = Callable[..., Any]

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet = click.option("--quiet", "-q", is_flag=True, help="No progress and no hints, only results, notes and errors.")
device = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto.")
open_ = click.option("--open", "open_", is_flag=True, help="Open the report in a browser.")
code = click.option(
    "--code", metavar="FILE.py", help="The run's own network code, needed where it has one; its hash is checked."
)
run = click.argument("run", metavar="RUN")
_runs = click.option(
    "--runs", "runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where runs lie."
)
_debug = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")


def common(command: Command) -> Command:
    """`--runs`, `--quiet` and `--debug`, which every command has."""
    return _runs(quiet(_debug(command)))


def found(name: str, runs: Path) -> RunFolder:
    """The run that a user named."""
    from convsmith.run_folder import find_run

    return find_run(name, runs)


def own_code(path: str | None) -> Code | None:
    """The file given by `--code`; its name, options and hash come from the run."""
    from convsmith.pipeline import Code

    return Code(Path(path), "", {}) if path else None


def hint(text: str, *, quiet: bool) -> None:
    """Say on standard error what to type next."""
    if not quiet:
        click.echo(click.style("Next: ", fg="green", bold=True) + text, err=True)
