"""Layers of a recipe, one over the other: named recipes, files, what was typed, and what no longer holds below."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from convsmith.design.files import EXPONENTIAL, PlainLoader
from convsmith.errors import UsageError
from convsmith.registry import suggestion

MAX_BYTES = 1_000_000

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "quick": {"train": {"epochs": 8, "tune_every": 0}},
    "plain": {"augment": {"preset": "none"}, "train": {"average": None, "label_smoothing": 0.0, "clip": None}},
}
"""Named recipes: `quick` for a first look, `plain` without augmentation, averaging or smoothing, to compare with."""

PACE: Mapping[str, Any] = dict.fromkeys(
    ("train.warmup_steps", "train.average", "train.report_every", "train.checkpoint_every", "train.tune_every"), "auto"
)
"""What follows from the number of steps, where a plan has chosen it."""

BY_WEIGHTS: Mapping[str, Any] = {
    **dict.fromkeys(("image.size", "image.keep", "image.mean", "image.std"), "auto"),
    **dict.fromkeys((f"transfer.{key}" for key in ("mode", "frozen_stages", "stage_rate", "frozen_norms")), "auto"),
    **dict.fromkeys(("augment.preset", "augment.symmetry"), "auto"),
    "augment.operations": None,
    **dict.fromkeys(
        ("train.batch", "train.optimizer", "train.schedule", "train.label_smoothing", "train.blend"), "auto"
    ),
}
"""What a plan chooses by whether the network starts from weights, and from which."""

DERIVED: Mapping[str, Mapping[str, Any]] = {
    "model": {"network": None},
    "weights.source": {"weights.sha256": None},
    "augment.preset": {"augment.operations": None},
    "augment.symmetry": {"augment.operations": None},
    "train.epochs": {"train.budget": None, "train.steps": None},
    "train.budget": {"train.epochs": "auto", "train.steps": None},
    "train.steps": {"train.epochs": "auto", "train.budget": None},
    "train.batch": {"train.steps": None},
    "data.limit": {"train.steps": None},
    "data.folds": {"data.fold": None, "data.repeat": None, "data.repeats": None},
}
"""A key that a layer sets, and what becomes of the keys below that layer that followed from its former value."""


def load_layer(text: str) -> Mapping[str, Any]:
    """The mapping behind `--recipe`: a name of `RECIPES` or a YAML file."""
    if text in RECIPES:
        return RECIPES[text]
    path = Path(text)
    if not path.is_file():
        raise UsageError(f"There is no recipe {text!r}, neither a file nor a name.", mend=suggestion(text, RECIPES))
    if path.stat().st_size > MAX_BYTES:
        raise UsageError(f"{path} has {path.stat().st_size:,} bytes; a recipe has at most {MAX_BYTES:,}.")
    return parse_yaml(path.read_text(encoding="utf-8", errors="replace"))


def parse_assignments(assignments: Iterable[str]) -> Mapping[str, Any]:
    """Turn `("train.epochs=30", ...)` into one nested mapping; values are YAML scalars or lists."""
    merged: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {assignment!r} is not KEY=VALUE.", mend="Write for example --set train.epochs=30.")
        merged = merge(merged, nested(key.strip(), parse_yaml(value, whole=False)))
    return merged


def parse_yaml(text: str, *, whole: bool = True) -> Any:
    """Parse YAML by the safe loader without tags and aliases; with `whole`, it must be a mapping."""
    if len(text) > MAX_BYTES:
        raise UsageError(f"The recipe has {len(text):,} characters; it has at most {MAX_BYTES:,}.")
    try:
        value = yaml.load(text, Loader=PlainLoader)  # noqa: S506 - a SafeLoader that refuses even more
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"The recipe is not plain YAML: {reason}.",
            mend="Look at brackets, quotes and colons there. Tags (!name) and aliases (*name) are refused.",
        ) from None
    if whole and not isinstance(value, Mapping):
        raise UsageError(
            f"A recipe is a mapping of sections, not {type(value).__name__}.",
            mend="Write for example `train: {epochs: 30}`.",
        )
    return value


def seconds(text: str) -> float:
    """Seconds of a length of time such as `90s`, `5m`, `1h30m` or a bare number of seconds."""
    parts = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not text.strip() or parts is None:
        raise ValueError(f"{text!r} is no length of time; write 90s, 5m or 1h30m")
    hours, minutes, rest = (float(part or 0) for part in parts.groups())
    return hours * 3600 + minutes * 60 + rest


def layer(changes: Mapping[str, Any], *, over: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Dotted keys and their values as one nested layer, over the mapping given."""
    merged = dict(over or {})
    for key, value in changes.items():
        merged = merge(merged, nested(key, value))
    return merged


def typed_layer(options: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """What a command says of the recipe: its options, as dotted keys and their values, and its `--set KEY=VALUE`.

    Raises:
        UsageError: an assignment cannot be read, or says of a key what an option does not.
    """
    assigned = parse_assignments(assignments)
    for key, value in options.items():
        stated: Any = assigned
        for part in key.split("."):  # an assignment may well be of null, so what is not there is told by itself
            stated = stated.get(part, value) if isinstance(stated, Mapping) else value
        if stated != value:
            raise UsageError(f"An option says {key}={value}, and --set {key}={stated}.", mend="Give one of them.")
    return layer(options, over=assigned)


def nested(key: str, value: Any) -> dict[str, Any]:
    """`nested("train.epochs", 3)` is `{"train": {"epochs": 3}}`."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


class Dumper(yaml.SafeDumper):
    def represent_text(self, text: str) -> yaml.ScalarNode:
        """PyYAML writes some line breaks (U+0085) unquoted, and then reads a space."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


Dumper.add_representer(str, Dumper.represent_text)


Dumper.add_implicit_resolver("tag:yaml.org,2002:float", *EXPONENTIAL)


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        replace = not (isinstance(below, Mapping) and isinstance(value, Mapping)) or "name" in value
        merged[key] = value if replace else merge(below, value)  # type: ignore[arg-type]
    return merged


def without_derived(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> Mapping[str, Any]:
    """`lower` without what followed there from keys that `upper` sets anew. What is off there stays off."""
    asked = {key for key in DERIVED if at(upper, key, default=...) is not ...}
    asked -= {
        key for key in ("train.epochs", "train.budget", "train.steps") if at(upper, key) is None
    }  # off: no length
    if not isinstance(at(lower, "train.epochs"), int) and at(lower, "train.budget") is None:
        asked -= {"train.batch", "data.limit"}  # steps that were asked for, not counted
    stale: dict[str, Any] = {}
    for key in sorted(asked):
        stale |= DERIVED[key]
    if at(lower, "train.steps") is not None and ("train.steps" in stale or "train.steps" in asked):
        stale |= PACE  # only a recipe with steps has been through a plan; else someone asked for these
    other = "weights.source" in asked and at(upper, "weights.source") != at(lower, "weights.source")
    anew = BY_WEIGHTS if other and at(lower, "train.steps") is not None else {}
    for key, value in {**stale, **anew}.items():
        former = at(lower, key)
        # What was off stays off, but for what follows from weights; a head alone was fitted in no step.
        if key in anew or (former is not None and (former != 0 or key == "train.steps")):
            lower = merge(lower, nested(key, value))
    return lower


def at(node: Any, key: str, default: Any = None) -> Any:
    """The value at a dotted key of nested mappings."""
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return default
        node = node[part]
    return node
