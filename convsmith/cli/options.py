"""Options that several commands share."""

from __future__ import annotations

import os
import shlex
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
device = click.option(
    "--device", metavar="NAME", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto."
)
open_ = click.option("--open", "open_", is_flag=True, help="Open the page in a browser.")
code = click.option(
    "--code", metavar="FILE.py", help="The run's own network code, needed where it has one; its hash is checked."
)
run = click.argument("run", metavar="RUN")
_runs = click.option(
    "--runs",
    "runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    metavar="DIR",
    help="Where runs lie.",
)
_debug = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")


def common(command: Command) -> Command:
    """`--runs`, `--quiet` and `--debug`, which every command has."""
    return _runs(quiet(_debug(command)))


def source(command: Command) -> Command:
    """`--images --label --group --split --labels`: how a table or a folder is to be read."""
    for option in reversed(
        (
            click.option("--images", metavar="DIR", help="The folder that a table's paths are relative to."),
            click.option("--label", metavar="COLUMN", help="The table's column of labels."),
            click.option(
                "--group",
                metavar="COLUMN|parent|REGEX",
                help="What keeps images of one patient, part or film together: they never part.",
            ),
            click.option("--split", metavar="COLUMN", help="The table's column of train, val and test."),
            click.option("--labels", metavar="FILE", help="A CSV of reviewed labels (id,label) laid over the source."),
        )
    ):
        command = option(command)
    return command


time = click.option(
    "--time",
    metavar="COLUMN|exif|REGEX",
    help="When images were taken: the latest are tested, the earliest train; not by class.",
)


def columns(
    images: str | None, label: str | None, group: str | None, split: str | None, labels: str | None
) -> dict[str, str | None]:
    """What `source` gave, as keys of the recipe's section `data`; paths become absolute."""
    return {"images": absolute(images), "label": label, "group": group, "split": split, "labels": absolute(labels)}


def absolute(path: str | None) -> str | None:
    """A path that exists by its absolute name, so that a run can be repeated from anywhere; a set's name stays."""
    if path is None:
        return None
    refuse_empty(path)
    from convsmith.images import SOURCES

    return path if path in SOURCES or not Path(path).exists() else str(Path(path).resolve())


def refuse_empty(path: str) -> None:
    """Raise `UsageError` for a path without a letter: it would mean the current folder, and is an unset variable."""
    if not path:
        from convsmith.errors import UsageError

        raise UsageError("An empty path was given.", mend="Name a file or a folder; the current one is `.`.")


def weights_source(text: str, runs: Path) -> str | None:
    """What `--weights` names: nothing, published weights, a file, a folder or a run.

    Raises:
        UsageError: neither a file, nor a folder, nor a run.
        RunError: a cross-validation, which has several networks.
    """
    from convsmith.errors import ConvsmithError, RunError, UsageError

    if text in {"none", "auto"}:
        return None if text == "none" else text
    if Path(text).exists() and not (Path(text) / "recipe.yaml").is_file():
        return str(Path(text).resolve())
    try:
        return str(found(text, runs).path.resolve())
    except RunError:
        raise
    except ConvsmithError:
        raise UsageError(
            f"--weights {text}: there is no such file, folder or run.",
            mend="Give a file of weights, a RUN of yours, auto, or none to train from scratch.",
        ) from None


def found(name: str, runs: Path, *, whole: bool = False) -> RunFolder:
    """The run that a user named.

    Args:
        name: as typed.
        runs: where runs lie.
        whole: whether it may be a cross-validation, which has runs in it and no network of its own.

    Raises:
        UsageError: none or several fit.
        RunError: it is a cross-validation, and a network is needed.
    """
    from convsmith.errors import RunError
    from convsmith.evaluation.cross_validation import is_cross_validation, runs_of
    from convsmith.run_folder import find_run

    run = find_run(name, runs)
    if whole or not is_cross_validation(run):
        return run
    parts = runs_of(run)
    again = f"convsmith train --recipe {quoted(run.path / 'given.yaml')} --set data.folds=null"
    raise RunError(
        f"{run.path} is a cross-validation of {len(parts)} runs, and has no network of its own.",
        mend=f"Name one of its runs, such as {quoted(parts[0].path)}; or train one on all images: {again}",
    )


def own_code(path: str | None) -> Code | None:
    """The file given by `--code`; its name, options and hash come from the run."""
    from convsmith.pipeline import Code

    return Code(Path(path), "", {}) if path else None


def typed() -> tuple[str, ...]:
    """The words after `convsmith` that the user typed; none where a command is called from Python."""
    return click.get_current_context().obj or ()


def count(number: int, thing: str, things: str = "") -> str:
    """`1 picture`, `1,200 pictures`; `2 copies` where the plural is given."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def quoted(path: object) -> str:
    """A path or name as a shell takes it."""
    return shlex.quote(str(path))


def hint(text: str, *, quiet: bool) -> None:
    """Say on standard error what to type next."""
    if not quiet:
        click.echo(coloured("Next: ", "green") + text, err=True)


def coloured(text: str, colour: str) -> str:
    """Bold text in a colour, for a terminal; as it is where colours are not wanted (no-color.org), or not known."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=colour, bold=True)
