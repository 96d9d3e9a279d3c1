"""`convsmith predict`: name what is on pictures."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convsmith.cli import options

if TYPE_CHECKING:
    from convsmith.run_folder import RunFolder

TOP = 3
BATCH = 64


@click.command()
@click.argument("words", nargs=-1, metavar="RUN PATHS...")
@click.option("--model", metavar="NAME", help="Instead of RUN: a network with its published weights, such as resnet18.")
@click.option(
    "--weights", default="auto", metavar="SOURCE", help="With --model: its weights: auto, a file or a folder."
)
@click.option(
    "--sort-into", type=click.Path(path_type=Path), help="Copy each picture into DIR/<class>/.", metavar="DIR"
)
@click.option(
    "--format", "style", type=click.Choice(["table", "csv", "json"]), help="By default a table on a terminal, else CSV."
)
@click.option(
    "--batch", type=click.IntRange(min=1), metavar="N", default=BATCH, show_default=True, help="Pictures at a time."
)
@options.code
@options.device
@options.as_json
@options.common
def predict(
    words: tuple[str, ...],
    *,
    model: str | None,
    weights: str,
    sort_into: Path | None,
    style: str | None,
    batch: int,
    code: str | None,
    device: str,
    as_json: bool,
    runs: Path,
    quiet: bool,
) -> int | None:
    """Name what is on PATHS: files, folders (all images below them), or - to read one path a line.

    \b
    convsmith predict last photos/ --sort-into sorted/
    convsmith predict --model resnet18 --weights resnet18.safetensors photo.jpg

    A picture that cannot be read gets a row with the reason, and the exit code is then 3; the others are answered.
    """
    from convsmith.cli import sorting
    from convsmith.errors import UsageError

    _refuse(words, model, weights)
    if as_json and style not in (None, "json"):
        raise UsageError(f"--json and --format {style} are two forms.", mend="Give one of them.")
    paths = words if model else words[1:]
    folder = None if model else _run(words[0], runs)
    files = list(_files(paths))
    if sort_into is not None:
        sorting.refuse_target(sort_into, paths)
    from convsmith import pipeline

    if folder is None:
        trained = pipeline.load_published(str(model), weights, device=device)
    else:
        trained = pipeline.load_trained(folder, code=options.own_code(code), device=device)
    style = "json" if as_json else style or ("table" if sys.stdout.isatty() else "csv")
    rows = list(_rows(trained, files, batch, whole=style == "json"))
    {"json": _print_json, "csv": _print_csv, "table": _print_table}[style](rows)
    failed = sum(1 for row in rows if row["error"])
    if failed and not quiet:
        click.echo(f"{failed} of {options.count(len(rows), 'picture')} could not be read.", err=True)
    if sort_into is not None:
        there = sorting.sort_into(sort_into, rows, files, trained.classes)
        click.echo(f"{options.count(there, 'copy', 'copies')} in {sort_into}, a folder for each class.", err=True)
    if model is None:
        options.hint(f"convsmith evaluate {options.quoted(words[0])} --data FOLDER   # measure it", quiet=quiet)
    else:
        start = "" if weights == "auto" else f" --weights {options.quoted(weights)}"
        options.hint(f"convsmith train FOLDER --model {model}{start}   # fit it to your classes", quiet=quiet)
    return 3 if failed else None


def _refuse(words: tuple[str, ...], model: str | None, weights: str) -> None:
    from convsmith.errors import UsageError

    if model is None and weights != "auto":
        raise UsageError("--weights belongs to a network by name.", mend="Add --model NAME, or leave it out.")
    if model is None and not words:
        raise UsageError(
            "Neither a run nor a picture was named.", mend="Write: convsmith predict RUN PATHS, RUN being `last`."
        )
    if model is not None and weights == "none":
        raise UsageError("Without weights a network knows nothing.", mend="Give them: --weights FILE, or auto.")
    if model is not None and (model == "last" or _is_run(model)):
        rest = " ".join(map(options.quoted, (model, *words)))
        raise UsageError(
            f"{model} is a run, and --model is for networks by name.", mend=f"Write: convsmith predict {rest}"
        )
    if model is not None and words and (_is_run(words[0]) or (words[0] == "last" and not Path("last").exists())):
        raise UsageError(
            f"The run {words[0]} and --model {model} are two networks, and one is to answer.",
            mend="Leave one of them out.",
        )


def _is_run(path: str) -> bool:
    return (Path(path) / "recipe.yaml").is_file()


def _run(name: str, runs: Path) -> RunFolder:
    """The run of the first word; a picture there is told apart from a run that is not known."""
    from convsmith.errors import UsageError

    try:
        return options.found(name, runs)
    except UsageError:
        if not Path(name).exists():
            raise
        raise UsageError(
            f"The first word names the run, and {name} is none.",
            mend=f"Write: convsmith predict last {options.quoted(name)}",
        ) from None


def _files(paths: Iterable[str]) -> Iterator[str]:
    """Every picture meant, in order.

    Raises:
        UsageError: nothing was named, or a path is not there.
    """
    from convsmith.errors import UsageError
    from convsmith.images import EXTENSIONS

    if not paths:
        raise UsageError("No picture was named.", mend="Give files, folders, or - to read one path a line.")
    for path in paths:
        options.refuse_empty(path)
        if path == "-" and sys.stdin is None:
            raise UsageError(
                "There is no standard input to read paths from.", mend="Write: find … | convsmith predict …"
            )
        if path == "-":
            yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        elif Path(path).is_dir():
            inside = [item for item in _below(path) if _is_picture(item, EXTENSIONS)]
            if not inside:
                raise UsageError(f"{path} holds no images.", mend=f"Extensions read: {', '.join(sorted(EXTENSIONS))}.")
            yield from sorted(map(str, inside))
        elif Path(path).exists():
            yield path
        else:
            raise UsageError(
                f"There is no file or folder {path}.", mend="Check the path; one with spaces needs quotes around it."
            )


def _below(folder: str) -> Iterator[Path]:
    """All that lies below a folder.

    Raises:
        DataError: a folder cannot be opened; its pictures would be missing from the answers.
    """
    from convsmith.errors import DataError

    def refuse(error: OSError) -> None:
        raise DataError(
            f"The folder {error.filename} cannot be opened: {error.strerror}.",
            mend="Allow it to be read (chmod u+rx), or name the folders beside it.",
        ) from error

    for place, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(place, name) for name in names)


def _is_picture(path: Path, extensions: Container[str]) -> bool:
    """Whether a folder's entry is meant: hidden files (macOS leaves `._name.png`) are not; links to nothing are, and
    get a row among what cannot be read.
    """
    if path.suffix.lower().lstrip(".") not in extensions or path.name.startswith("."):
        return False
    return path.is_file() or (path.is_symlink() and not path.exists())


def _rows(trained: Any, files: list[str], batch: int, *, whole: bool) -> Iterator[dict[str, Any]]:
    """An answer for each file, in their order.

    Args:
        trained: the network.
        files: paths as the file system knows them.
        batch: how many pictures at a time.
        whole: with the logits of all classes, the temperature that they are divided by to give probabilities, and the
            pixels' SHA-256, which would fill the memory for many files.
    """
    from convsmith.errors import DataError
    from convsmith.images import pixel_hash
    from convsmith.images.decode import shown

    for start in range(0, len(files), batch):
        seen: dict[str, Any] = {}
        for path in files[start : start + batch]:
            try:
                seen[path] = trained.see(trained.read(path))
            except DataError as error:
                seen[path] = error
        good = [path for path, value in seen.items() if not isinstance(value, DataError)]
        logits = trained.logits([seen[path] for path in good], batch_size=batch)
        answers = dict(zip(good, logits, strict=True))
        for path in files[start : start + batch]:
            name = shown(path)
            if path not in answers:
                yield {"path": name, "class": None, "probability": None, "top": [], "error": str(seen[path])}
                continue
            row = {"path": name, **_answer(trained, answers[path]), "error": None}
            if whole:
                row["logits"] = [float(value) for value in answers[path]]
                row["temperature"] = trained.temperature or 1.0
                row["pixels"] = pixel_hash(seen[path].transpose(1, 2, 0)).hex()
            yield row


def _answer(trained: Any, logits: Any) -> dict[str, Any]:
    probabilities = trained.believed(logits[None])[0]
    order = probabilities.argsort()[::-1][:TOP]
    top = [{"class": trained.classes[i], "probability": round(float(probabilities[i]), 6)} for i in order]
    return {**top[0], "top": top}


def _print_json(rows: list[dict[str, Any]]) -> None:
    click.echo(json.dumps(rows, ensure_ascii=False, indent=1))


def _print_csv(rows: list[dict[str, Any]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "class", "probability", "error"])
    writer.writerows([row["path"], row["class"], row["probability"], row["error"]] for row in rows)
    click.echo(buffer.getvalue(), nl=False)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from convsmith.console import plain_console

    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in ("picture", "class", "probability", "next best"):
        table.add_column(column, overflow="fold")
    for row in rows:
        if row["error"]:
            table.add_row(escape(row["path"]), "[red]unreadable[/]", "", escape(row["error"]))
            continue
        rest = ", ".join(f"{item['class']} {item['probability']:.1%}" for item in row["top"][1:])
        table.add_row(escape(row["path"]), escape(row["class"]), f"{row['probability']:.1%}", escape(rest))
    plain_console().print(table)
