"""Telling a person what happens: the plan with its reasons, then progress, on a terminal, in a notebook or in a log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from convsmith.console import plain_console
from convsmith.pipeline.messages import Message

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
        self.console = plain_console(stderr=True)
        self._bar: Bar | None = None
        self._task: Any = None
        self._said = 0.0
        self._figures: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_bar()

    def __call__(self, message: Message) -> None:
        if self.quiet and message.kind != "note":
            return
        getattr(self, f"_{message.kind}")(message)

    def _stage(self, message: Message) -> None:
        done, total = message.values.get("done"), message.values.get("total")
        if total is None:
            self._end_bar()
            self.console.print(f"[dim]{escape(message.text)} …[/]")
        elif self.console.is_terminal and total > 2000:
            self._advance(message.text, done or 0, total, "")

    def _note(self, message: Message) -> None:
        self._end_bar()
        self.console.print(f"[yellow]Note:[/] {escape(message.text)}")

    def _planned(self, message: Message) -> None:
        if self.plan:
            print_plan(message.values["plan"], message.values["audit"], message.values["classes"], err=True)

    def _created(self, message: Message) -> None:
        self.console.print(f"Run {escape(message.text)}")

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
        elif time.monotonic() - self._said > SPARSE_SECONDS or (event.step == total and event.kind != "tune"):
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


def figures_line(values: Mapping[str, float]) -> str:
    """Figures of training in one line: losses, the tune images' accuracy, speed."""
    parts = [f"{key} {values[key]:.3f}" for key in sorted(values) if key.startswith("loss")]
    if "accuracy" in values:
        parts.append(f"tune accuracy {values['accuracy']:.1%}")
    if "images_per_second" in values:
        parts.append(f"{values['images_per_second']:,.0f} images/s")
    return "  ".join(parts)


def print_plan(plan: Any, audit: Mapping[str, Any], classes: Sequence[str], *, err: bool = False) -> None:
    """The data in a line, then every choice with its reason, then what it will take."""
    console = plain_console(stderr=err)
    roles = ", ".join(f"{sum(counts.values()):,} {role}" for role, counts in audit["roles"].items())
    console.print(f"[bold]{audit['images']:,} images of {len(classes)} classes[/] ({roles})")
    for key in ("unreadable", "skipped", "duplicates"):
        if audit[key]:
            console.print(f"[yellow]{len(audit[key]):,} {key}[/]: see audit.json and the report")
    for note in audit["notes"]:
        console.print(f"[yellow]Note:[/] {escape(note)}")
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("choice", "value", "because"):
        table.add_column(column, overflow="fold")
    for choice in plan.choices:
        table.add_row(escape(choice.name), escape(shown(choice.value)), f"[dim]{escape(choice.reason)}[/]")
    console.print(table)
    for finding in plan.findings:
        tone = "bold red" if finding.severity == "error" else "yellow"
        console.print(f"[{tone}]Design:[/] {escape(finding.says)} [dim]{escape(str(finding.evidence['mend']))}[/]")
    console.print(f"[bold]Estimated[/]: {estimate_line(plan.estimate)}")


def estimate_line(estimate: Mapping[str, float]) -> str:
    """Time and memory in words."""
    seconds = duration(estimate["seconds"])
    speed = f"{estimate['steps']:,} steps at {estimate['images_per_second']:,.0f} images/s"
    return f"{seconds} in all, {speed}, {estimate['memory_bytes'] / 2**20:,.0f} MiB for images and training"


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
