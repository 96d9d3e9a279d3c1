"""Designs as files: YAML that people write, read with the line of each fault, and written as short as they write it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from convsmith.design.convnet import ConvNet, faults
from convsmith.errors import UsageError

MAX_BYTES = 1_000_000
EXPONENTIAL = (re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789"))
"""Numbers such as 1e-3, which YAML 1.1 reads as a text; everyone who types it means the number."""


class Refused(yaml.YAMLError):
    """YAML that is well-formed and not taken; the text alone, without the lines around it."""

    def __init__(self, problem: str, problem_mark: yaml.Mark) -> None:
        super().__init__(problem)
        self.problem = problem
        self.problem_mark = problem_mark


class PlainLoader(yaml.SafeLoader):
    """YAML without tags, which could name code, and without aliases, a few of which expand to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise Refused(f"the alias *{event.anchor} is not allowed", event.start_mark)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise Refused(f"the tag {tag} is not allowed", event.start_mark)
        return super().compose_node(parent, index)


PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", *EXPONENTIAL)


def read(path: Path | str) -> ConvNet:
    """Read a design from a YAML file.

    Raises:
        UsageError: there is no such file, it is no plain YAML, or it describes no network; each fault is named with
            its line and key.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_BYTES else ""
    except OSError as error:
        raise UsageError(f"The design {path} cannot be read: {error.strerror}.", mend="Name a YAML file.") from None
    except UnicodeDecodeError:
        raise UsageError(f"The design {path} is no text in UTF-8.", mend="Name a YAML file.") from None
    if size > MAX_BYTES:
        raise UsageError(f"{path} has {size:,} bytes; a design has at most {MAX_BYTES:,}.")
    return read_text(text, name=str(path))


def read_text(text: str, *, name: str = "design") -> ConvNet:
    """Read a design from the text of a YAML file, which messages call `name`."""
    loader = PlainLoader(text)
    try:
        root = loader.get_single_node()
        values = None if root is None else loader.construct_document(root)
    except (yaml.MarkedYAMLError, Refused) as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise UsageError(
            f"{name}{line}: not plain YAML: {error.problem}.",
            mend="Look at brackets, quotes and colons there. Tags (!name) and aliases (*name) are refused.",
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise UsageError(f"{name}: not plain YAML: {' '.join(str(error).split())[:300]}.") from None
    finally:
        loader.dispose()
    if root is None or not isinstance(values, dict):
        given = "empty" if values is None else f"a {type(values).__name__}"
        raise UsageError(f"{name} is {given}, and a design has keys.", mend="Begin with `stem: {width: 16}`.")
    for line, key in _twice(root):
        raise UsageError(f"{name}, line {line}: the key {key!r} is there a second time.", mend="Keep one of them.")
    try:
        return ConvNet.model_validate(values)
    except ValidationError as error:
        told = [_told(root, location, text) for location, text in faults(error)]
        raise UsageError(f"{name}: " + "; ".join(told) + ".") from None


def _twice(node: yaml.Node) -> Iterator[tuple[int, str]]:
    """Keys that a mapping has already, with their lines; YAML itself would keep the last."""
    below = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        below = [value for _, value in node.value]
        for place, (key, _) in enumerate(node.value):
            if key.value in keys[:place]:
                yield key.start_mark.line + 1, key.value
    for child in below:
        yield from _twice(child)


def write(design: ConvNet) -> str:
    """A design as YAML that `read` takes, without what goes without saying."""
    values = design.model_dump(mode="json", exclude_defaults=True)
    values["stages"] = [{key: value for key, value in stage.items() if value != {}} for stage in values["stages"]]
    if "head" in values:
        values["head"] = {"kind": design.head.kind, **values["head"]}
    lines = [_block("stem", values.pop("stem"))]
    rows = [f"  - {_flow(stage)}\n" for stage in values.pop("stages")]
    lines.append("stages:\n" + "".join(rows) if rows else "stages: []\n")
    return "".join([*lines, *(_block(key, value) for key, value in values.items())])


def _block(key: str, value: Any) -> str:
    return f"{key}: {_flow(value)}\n"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _told(root: yaml.Node, location: Sequence[str | int], text: str) -> str:
    """A fault with its line and key. A network's own checks name the place at the head of their text."""
    if not location:
        place, colon, rest = text.partition(": ")
        if colon and re.fullmatch(r"[a-z_]+(\.\w+)*", place):
            location, text = [int(step) if step.isdigit() else step for step in place.split(".")], rest
    line, key = _found(root, location)
    return f"line {line}, {key}: {text}" if key else f"line {line}: {text}"


def _found(node: yaml.Node, location: Sequence[str | int]) -> tuple[int, str]:
    """The line of the deepest node on the way, and the keys to it; alternatives that pydantic names are no keys."""
    line, steps = node.start_mark.line + 1, []
    for step in location:
        below = None
        if isinstance(node, yaml.MappingNode):
            below = next(((key, value) for key, value in node.value if key.value == str(step)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            below = (node.value[step], node.value[step])
        if below is not None:
            line, node = below[0].start_mark.line + 1, below[1]
            steps.append(str(step))
        elif step is location[-1]:  # a key that is missing is named all the same
            steps.append(str(step))
    return line, ".".join(steps)
