"""`convsmith lint`: faults of a network's design, found before it is trained."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from convsmith.cli import options

if TYPE_CHECKING:
    from convsmith.pipeline.linting import Judged

FAULTY = 6
"""The exit code where there is an error: a requirement is not met."""
SHORT = {"error": "error", "warning": "warn", "hint": "hint"}


@click.command()
@click.argument("model", required=False)
@click.option("--data", metavar="DATA", help="The images it is meant for: their classes and sizes are judged with it.")
@click.option("--input", "shape", metavar="CxHxW", help="Of one image; the model's own if not given.")
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Images a step on each device.")
@click.option("--outputs", type=click.IntRange(min=1), metavar="N", help="Classes; those of --data if not given.")
@click.option("--arg", "arguments", multiple=True, metavar="K=V", help="An argument of the network; repeatable.")
@click.option("--off", multiple=True, metavar="RULE", help="A rule not to ask; repeatable.")
@click.option("--list", "listed", is_flag=True, help="List the rules, and judge nothing.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a page of it.")
@options.code
@options.as_json
@options.open_
@options.common
def lint(
    model: str | None,
    *,
    data: str | None,
    shape: str | None,
    batch: int | None,
    outputs: int | None,
    arguments: tuple[str, ...],
    off: tuple[str, ...],
    listed: bool,
    html: Path | None,
    code: str | None,
    runs: Path,
    quiet: bool,
    as_json: bool,
    open_: bool,
) -> int | None:
    """Find faults in the design of MODEL: a name, a RUN, FILE.py:NAME, a design.yaml, or a line of layers.

    \b
    convsmith lint resnet50 --input 32
    convsmith lint mine.py:Net --data photos/ --batch 4
    convsmith lint "conv 3->16 k3 | bn | relu | gap | flatten | linear 10 | softmax"

    Ends with code 6 where there is an error. Nothing is trained, and nothing is said that the graph does not show.
    """
    from convsmith.errors import UsageError
    from convsmith.networks import parse_arguments
    from convsmith.pipeline.given_model import parse_shape
    from convsmith.pipeline.linting import judge
    from convsmith.pipeline.progress import Progress
    from convsmith.recipe import Data

    if listed:
        return _list(as_json=as_json)
    if model is None:
        raise UsageError("convsmith lint needs a MODEL.", mend="Name one, or see the rules with: convsmith lint --list")
    if open_ and html is None:
        raise UsageError("--open opens the page, and none is written.", mend="Add --html FILE.")
    images = Data(source=options.absolute(data)) if data is not None else None
    with Progress(quiet=quiet) as tell:
        judged = judge(
            model, data=images, input_shape=parse_shape(shape) if shape is not None else (None, None, None),
            outputs=outputs, batch=batch, off=off, tell=tell,
            options=parse_arguments(arguments), code=options.own_code(code), runs=runs,
        )  # fmt: skip
    following = _following(model, data, judged)
    if as_json:
        click.echo(json.dumps(judged.to_json(), ensure_ascii=False, indent=1))
    else:
        _print(judged)
    if html is not None:
        _write(judged, html, batch, following)
        if not as_json:
            click.echo(f"Page: {html}")
        if open_:
            click.launch(str(html))
    options.hint(following, quiet=quiet)
    return FAULTY if any(finding.severity == "error" for finding in judged.findings) else None


def _print(judged: Judged) -> None:
    from rich.markup import escape

    from convsmith.console import plain_console
    from convsmith.networks.lint import RULES
    from convsmith.reporting.formats import clean
    from convsmith.reporting.lint_page import verdict

    console = plain_console()
    size = "x".join(map(str, judged.given.shape))
    console.print(f"[bold]{escape(clean(judged.given.name))}[/] on images of {size}", soft_wrap=True)
    for finding in judged.findings:
        console.print()
        said = escape(clean(finding.says))
        console.print(f"[bold]{SHORT[finding.severity]:>5}[/]  {said}  ({finding.rule})", soft_wrap=True)
        console.print(f"       {escape(RULES[finding.rule].mend)}", soft_wrap=True)
    if judged.findings:
        console.print()
    console.print(verdict(judged.findings, len(RULES)), soft_wrap=True)


def _write(judged: Judged, path: Path, batch: int | None, following: str) -> None:
    from convsmith.networks.lint import RULES
    from convsmith.reporting.lint_page import LintRecord, render_lint
    from convsmith.run_folder import write_atomically

    with_what = [f"{judged.classes} classes of about {judged.side} px"] if judged.classes else []
    with_what += [f"{batch} images a step"] if batch else []
    record = LintRecord(
        name=judged.given.name,
        shape=judged.given.shape,
        findings=judged.findings,
        rules={rule.id: {"title": rule.title, "why": rule.why, "mend": rule.mend} for rule in RULES.values()},
        judged_with=f"For {' and '.join(with_what)}." if with_what else "",
        next_command=following,
    )
    write_atomically(path, render_lint(record).encode("utf-8"), mend="Choose another place with --html FILE.")


def _following(model: str, data: str | None, judged: Judged) -> str:
    """Mend what is wrong; else train, or look closer."""
    if any(finding.severity == "error" for finding in judged.findings):
        return shlex.join(["convsmith", "inspect", model])
    if data is not None and judged.given.run is None:
        return shlex.join(["convsmith", "train", data, "--model", model])
    return shlex.join(["convsmith", "inspect", model, "--html", "network.html"])


def _list(*, as_json: bool) -> None:
    from convsmith.networks.lint import GRAVITY, RULES

    rules = sorted(RULES.values(), key=lambda rule: GRAVITY[rule.severity])
    if as_json:
        told = [
            {key: getattr(rule, key) for key in ("id", "severity", "title", "why", "mend", "source")} for rule in rules
        ]
        click.echo(json.dumps(told, ensure_ascii=False, indent=1))
        return
    width = max(len(rule.id) for rule in rules)
    for rule in rules:
        click.echo(f"{SHORT[rule.severity]:>5}  {rule.id:<{width}}  {rule.title}")
