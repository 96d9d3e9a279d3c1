"""The list of commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NoReturn

import click

from convsmith import __version__
from convsmith.cli.options import coloured
from convsmith.errors import ConvsmithError, Interrupted, UsageError

STARTED = time.monotonic()
"""When the command began, for budgets; the interpreter's own start before it is a few hundredths of a second."""

COMMANDS = {
    "data": ("convsmith.cli.data:data", "Tell what is in a folder of images, before any training."),
    "train": ("convsmith.cli.train:train", "Train a network on a folder of images or a named set."),
    "resume": ("convsmith.cli.train:resume", "Go on with a run that was stopped or killed."),
    "runs": ("convsmith.cli.results:runs", "List runs with their results."),
    "report": ("convsmith.cli.results:report", "Rebuild a run's report from its records."),
    "evaluate": ("convsmith.cli.results:evaluate", "Show a run's figures, or measure it on other images."),
    "predict": ("convsmith.cli.predict:predict", "Name what is on pictures."),
    "kernels": (
        "convsmith.cli.kernels:kernels",
        "Lay a kernel on a picture and see every sum; see what a run has learnt.",
    ),
    "lint": ("convsmith.cli.lint:lint", "Find faults in a network's design before it is trained."),
    "models": ("convsmith.cli.models:models", "List networks by name, with their weights."),
    "inspect": ("convsmith.cli.inspect:inspect", "Tell what a network is made of, costs and sees."),
    "design": (
        "convsmith.cli.design:design",
        "Propose networks that cost less, see further, are wider or deeper; each measured.",
    ),
    "doctor": ("convsmith.cli.doctor:doctor", "Look at this machine, and say what is missing."),
}


class Commands(click.Group):
    """Loads a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), function)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in COMMANDS and not word.startswith("-"):
            raise UsageError(
                f"There is no command {word!r}.",
                mend=_close(word, COMMANDS) or f"Those there are: {', '.join(COMMANDS)}.",
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="convsmith")
def convsmith() -> None:
    """From a folder of images to a convolutional network that can be trusted.

    Begin with `convsmith train digits`, which needs no network and takes less than a minute.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run a command and end the process with its exit code (see `convsmith.errors`)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    leave(run(arguments))


def leave(code: int) -> NoReturn:
    """End without tearing Python down.

    Taking PyTorch apart would cost half a second of every command. And of several processes, gloo's threads may still
    drop their last reference to a tensor then: a thread that asks for the interpreter's lock while it is torn down
    aborts the process, which torchrun takes for a failure (seen once in about ten runs).
    """
    # Tells pools to end, and waits for a checkpoint that is being written; plain joins would wait for idle pools.
    threading._shutdown()  # type: ignore[attr-defined]
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run a command; errors become a message and a mend on standard error, the traceback only with `--debug`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names in any script on a terminal that knows only ASCII
    try:
        result: Any = convsmith.main(args=arguments, prog_name="convsmith", standalone_mode=False, obj=tuple(arguments))
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (BrokenPipeError, SystemExit):  # the reader, such as `head`, has seen enough; click makes an exit of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        return 0
    except click.ClickException as error:
        return _told(*_clicked(error), error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort) as stop:
        cause = stop if isinstance(stop, Interrupted) else stop.__cause__ or stop.__context__  # click wraps it
        if isinstance(cause, Interrupted):
            return _told(cause.message, cause.mend, cause.exit_code)
        return _told("Stopped.", "", 130)
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return _told(*_explained(error))


def _clicked(error: click.ClickException) -> tuple[str, str]:
    """Message and mend of an error in how the command was typed, which click found."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "convsmith"
    see = f"See what it takes: {command} --help"
    if isinstance(error, click.NoSuchOption):
        known = [name for each in context.command.params for name in each.opts] if context else []
        return f"{command} has no option {error.option_name}.", _close(error.option_name, known) or see
    parameter = getattr(error, "param", None)
    if isinstance(error, click.MissingParameter) and context:
        pieces = [piece for piece in context.command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
        return f"{error.format_message().rstrip('.')}.", f"Write: {' '.join((command, *pieces))}"
    if isinstance(error, click.BadParameter) and parameter is not None:
        name = parameter.opts[0]
        if isinstance(parameter.type, click.IntRange):
            value = error.message.partition(" is not ")[0].strip("'")
            return f"{name} {value}: a whole number of at least {parameter.type.min} is needed.", see
        if isinstance(parameter.type, click.Path):
            what = "folder: {name} DIR" if parameter.type.dir_okay else "file: {name} FILE"
            return f"{name}: {error.message}", f"Choose another {what.format(name=name)}."
        return f"{name}: {error.message}", see
    if "extra argument" in error.format_message():
        see = f"A name with spaces needs quotes around it. {see}"
    return f"{error.format_message().rstrip('.')}.", see


def _close(wrong: str, known: Iterable[str]) -> str:
    """A question after the known words that are close to a wrong one; empty where none is."""
    close = difflib.get_close_matches(wrong, list(known), n=2, cutoff=0.6)
    return f"Did you mean {' or '.join(close)}?" if close else ""


def _explained(error: Exception) -> tuple[str, str, int]:
    """Message, mend and exit code of any error."""
    if isinstance(error, ConvsmithError):
        return error.message, error.mend, error.exit_code
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "Memory ran out.", "Use a smaller --set train.batch or --limit, or close other programs.", 5
    where = f"{type(error).__name__}: {error}"
    return f"An error that Convsmith did not foresee: {where}", "See where with --debug, and please report it.", 1


def _told(message: str, mend: str, code: int) -> int:
    lines = [coloured("Error: ", "red") + message if code not in {130, 143} else message]
    if mend:
        lines.append("  " + mend)
    click.echo("\n".join(lines), err=True)
    return code
