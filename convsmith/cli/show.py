"""What people see: the plan, progress, results. Progress goes to standard error, results to standard output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from convsmith.pipeline.messages import Message
from convsmith.records import Estimate
from convsmith.run_folder import RunFolder

SPARSE_SECONDS = 15.0


class Progress:
    """Listens to the pipeline: live bars on a terminal, sparse lines elsewhere, nothing when quiet.

    Args:
        quiet: tell nothing but notes that matter for the result.
        plan: whether to print the plan when it stands.
    """

    def __init__(self, *, quiet: bool, plan: bool = True) -> None:
        self.quiet = quiet
        self.plan = plan
        self.console = Console(stderr=True, highlight=False)
        self._bar: Bar | None = None
        self._task: Any = None
        self._said = 0.0
        self._figures: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_bar()

    def __call__(self, message: Message) -> None:
        if self.quiet:
            return
        getattr(self, f"_{message.kind}")(message)

    def _stage(self, message: Message) -> None:
        done, total = message.values.get("done"), message.values.get("total")
        if total is None:
            self._end_bar()
            self.console.print(f"[dim]{_escaped(message.text)} …[/]")
        elif self.console.is_terminal and total > 2000:
            self._advance(message.text, done or 0, total, "")

    def _note(self, message: Message) -> None:
        self._end_bar()
        self.console.print(f"[yellow]Note:[/] {_escaped(message.text)}")

    def _planned(self, message: Message) -> None:
        if self.plan:
            print_plan(message.values["plan"], message.values["audit"], message.values["classes"], err=True)

    def _created(self, message: Message) -> None:
        self.console.print(f"Run {_escaped(message.text)}")

    def _finished(self, message: Message) -> None:
        self._end_bar()

    def _training(self, message: Message) -> None:
        event = message.values["event"]
        if event.kind in {"checkpoint", "stopped", "batch"}:
            return
        self._figures.update({key: value for key, value in event.values.items() if value is not None})
        total = message.values.get("total")
        if total is None:
            return
        text = figures_line(self._figures)
        if self.console.is_terminal:
            self._advance(f"epoch {event.epoch + 1}", event.step, total, text)
        elif time.monotonic() - self._said > SPARSE_SECONDS or event.step == total:
            self._said = time.monotonic()
            self.console.print(f"step {event.step:,}/{total:,}  epoch {event.epoch}  {text}", soft_wrap=True)

    def _advance(self, title: str, done: int, total: int, text: str) -> None:
        if self._bar is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task(title, total=total, text=text)
            self._bar.start()
        self._bar.update(self._task, description=title, completed=done, total=total, text=text)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def plain_console(*, stderr: bool = False) -> Console:
    """A console that takes the terminal's width, and 120 columns where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else 120)


def figures_line(values: Mapping[str, float]) -> str:
    """Figures of training in one line: losses, the tune images' accuracy, speed."""
    parts = [f"{key} {values[key]:.3f}" for key in sorted(values) if key.startswith("loss")]
    if "accuracy" in values:
        parts.append(f"tune accuracy {values['accuracy']:.1%}")
    if "images_per_second" in values:
        parts.append(f"{values['images_per_second']:,.0f} images/s")
    return "  ".join(parts)


def print_plan(plan: Any, audit: Mapping[str, Any], classes: Sequence[str], *, err: bool) -> None:
    """The data in a line, then every choice with its reason, then what it will take."""
    console = plain_console(stderr=err)
    roles = ", ".join(f"{sum(counts.values()):,} {role}" for role, counts in audit["roles"].items())
    console.print(f"[bold]{audit['images']:,} images of {len(classes)} classes[/] ({roles})")
    for key in ("unreadable", "skipped", "duplicates"):
        if audit[key]:
            console.print(f"[yellow]{len(audit[key]):,} {key}[/]: see audit.json and the report")
    for note in audit["notes"]:
        console.print(f"[yellow]Note:[/] {_escaped(note)}")
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("choice", "value", "because"):
        table.add_column(column, overflow="fold")
    for choice in plan.choices:
        table.add_row(_escaped(choice.name), _escaped(shown(choice.value)), f"[dim]{_escaped(choice.reason)}[/]")
    console.print(table)
    console.print(f"[bold]Estimated[/]: {estimate_line(plan.estimate)}")


def estimate_line(estimate: Mapping[str, float]) -> str:
    """Time and memory in words."""
    seconds = duration(estimate["seconds"])
    speed = f"{estimate['steps']:,} steps at {estimate['images_per_second']:,.0f} images/s"
    return f"{seconds} in all, {speed}, {estimate['memory_bytes'] / 2**20:,.0f} MiB for images and training"


def plan_json(plan: Any) -> str:
    """The plan as JSON, with the resolved recipe."""
    return json.dumps({**plan.to_json(), "recipe": plan.recipe.model_dump(mode="json")}, ensure_ascii=False, indent=1)


def print_results(run: RunFolder, *, as_json: bool) -> None:
    """A run's headline figures with their intervals, and where its report lies."""
    results = run.read_json("results.json")
    if as_json:
        click.echo(
            json.dumps({"run": str(run.path), "report": str(run.report), **results}, ensure_ascii=False, indent=1)
        )
        return
    for split in ("test", "tune"):
        if split in results["splits"]:
            print_split(results["splits"][split], split)
            break
    click.echo(f"Report {run.report}")


def print_split(result: Mapping[str, Any], split: str) -> None:
    """One split's figures, a line each: value, interval, method; then classes."""
    console = plain_console()
    console.print(f"[bold]{result['n']:,} {split} images[/]")
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("figure", "value", "95 % interval", "method"):
        table.add_column(column)
    for name, values in result["metrics"].items():
        table.add_row(name.replace("_", " "), *estimate_cells(name, Estimate.from_json(values)))
    baseline = result.get("baseline")
    if baseline:
        name = f"always {baseline['class']!r}"
        table.add_row(_escaped(name), *estimate_cells("accuracy", Estimate.from_json(baseline["accuracy"])))
    console.print(table)


SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "top_2", "top_5", "ece", "precision", "recall", "f1")


def estimate_cells(name: str, estimate: Estimate) -> tuple[str, str, str]:
    """Value, interval and method as text; shares in per cent."""

    def text(number: float | None) -> str:
        if number is None:
            return "–"
        return f"{100 * number:.1f} %" if name in SHARES else f"{number:.3f}"

    if estimate.value is None:
        return "–", estimate.reason, ""
    interval = f"{text(estimate.low)} to {text(estimate.high)}" if estimate.low is not None else "–"
    return text(estimate.value), interval, estimate.method


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def shown(value: Any) -> str:
    """A recipe's value in a line."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value))
    return "off" if value is None else str(value)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
