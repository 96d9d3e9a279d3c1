"""The recipe: all that makes a run, as frozen data.

Names come from tables, never from import paths, because a configuration that can name code is code execution. `auto`
is resolved by `pipeline.plan`, which says why; `None` means off. Layers: default < named < file < what was typed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from convsmith.design import ConvNet
from convsmith.errors import UsageError
from convsmith.registry import suggestion

Auto = Literal["auto"]
Fit = Literal["crop", "pad", "stretch"]
Scalar = bool | int | float | str | None
Value = TypeVar("Value")
MAX_BYTES = 1_000_000


def settled(value: Value | Auto) -> Value:
    """The value of a key that the plan has resolved.

    Raises:
        UsageError: it is still `auto`: the recipe never went through a plan.
    """
    if value == "auto":
        raise UsageError("This recipe still holds `auto`.", mend="Train with it, or use the recipe.yaml of a run.")
    return value  # type: ignore[return-value]


class Section(BaseModel):
    """A part of the recipe: frozen; unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Named(Section):
    """A row of a table with its options. In YAML a bare name stands for one without options."""

    name: str
    options: Mapping[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Data(Section):
    """Which images, and how they are divided."""

    source: str | None = None
    images: str | None = Field(default=None, description="the folder that a table's paths are relative to")
    label: str | None = Field(default=None, description="the table's column of labels")
    group: str | None = Field(default=None, description="a table's column, `parent`, or a regular expression")
    split: str | None = Field(default=None, description="the table's column of roles")
    time: str | None = Field(default=None, description="a table's column, `exif`, or a regular expression")
    labels: str | None = Field(default=None, description="a file of reviewed labels, laid over those of the source")
    channels: tuple[int, ...] | None = Field(default=None, description="which pages of multi-page files to read")
    limit: int | None = Field(default=None, ge=2)
    split_seed: int = Field(default=0, ge=0, lt=2**32)
    folds: int | None = Field(default=None, ge=2, le=1000, description="of a cross-validation, or of one run of it")
    repeats: int | None = Field(default=None, ge=1, le=1000, description="how often a cross-validation draws folds")
    fold: int | None = Field(default=None, ge=1, description="the one that a run tests, from 1")
    repeat: int | None = Field(default=None, ge=1, description="which drawing of folds a run is of, from 1")
    fingerprint: str | None = None


class Image(Section):
    """What the network sees."""

    size: int | Auto = "auto"
    channels: Literal[1, 3] | Auto = "auto"
    fit: Fit | Auto = "auto"
    keep: float | Auto = Field(default="auto", description="share of the shorter side that `crop` keeps")
    range: tuple[float, float] | Auto | None = Field(default="auto", description="values that become 0 and 255")
    mean: tuple[float, ...] | Auto = "auto"
    std: tuple[float, ...] | Auto = "auto"

    @field_validator("size")
    @classmethod
    def _size(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 4 <= value <= 4096:
            raise ValueError(f"{value} px is outside 4 to 4096")
        return value

    @field_validator("keep")
    @classmethod
    def _keep(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0.1 <= value <= 1.0:
            raise ValueError(f"{value} is outside 0.1 to 1")
        return value

    @field_validator("range")
    @classmethod
    def _range(cls, value: tuple[float, float] | str | None) -> tuple[float, float] | str | None:
        if isinstance(value, tuple) and not value[0] < value[1]:
            raise ValueError(f"{value[0]} is not below {value[1]}")
        return value

    @field_validator("std")
    @classmethod
    def _std(cls, value: tuple[float, ...] | str) -> tuple[float, ...] | str:
        if not isinstance(value, str) and not all(item > 0 for item in value):
            raise ValueError("each must be above 0")
        return value


class Weights(Section):
    """What the network starts from: nothing, weights that were published with it, a file of them, or a run."""

    source: str | None = Field(default="auto", description="published, a file, a folder, a run; null is from scratch")
    sha256: str | None = Field(default=None, description="of the file; another one is refused")


class Unfreeze(Section):
    """A stage of the network that waits before it is trained."""

    stage: str
    at: float = Field(ge=0, lt=1, description="share of all steps from which on it is trained")


class Transfer(Section):
    """How a network that has weights is fitted to new classes."""

    mode: Literal["probe", "finetune"] | Auto | None = Field(
        default="auto", description="a linear head on frozen features, or fine-tuning from there; null trains all"
    )
    decays: tuple[float, ...] = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    """Weight decays of the linear head, of which the tune images choose one."""
    frozen_stages: int | Auto = Field(default="auto", description="stages, from the image on, that are not trained")
    stage_rate: float | Auto = Field(default="auto", description="factor of the learning rate from stage to stage")
    frozen_norms: bool | Auto = Field(default="auto", description="whether all norms keep their running statistics")
    unfreeze: tuple[Unfreeze, ...] = Field(default=(), description="stages that are frozen until a share of the steps")

    @field_validator("decays")
    @classmethod
    def _decays(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or min(value) <= 0:
            raise ValueError("at least one, each above 0")
        return value

    @field_validator("frozen_stages", "stage_rate")
    @classmethod
    def _stage(cls, value: float | str, info: Any) -> float | str:
        least, most = (0, 100) if info.field_name == "frozen_stages" else (0.01, 1.0)
        if not isinstance(value, str) and not least <= value <= most:
            raise ValueError(f"{value} is outside {least} to {most}")
        return value


class Augment(Section):
    """What is done to training images: a preset by name, or the operations themselves."""

    preset: str = "auto"
    symmetry: Literal["none", "left-right", "any"] | Auto = Field(
        default="auto", description="which mirrors and turns leave the class as it is"
    )
    operations: tuple[Named, ...] | None = None


class Train(Section):
    """How the network is trained. Lengths are in epochs, or in steps once a budget has been turned into them."""

    epochs: int | Auto | None = Field(default="auto", description="passes over the images; null where the steps rule")
    steps: int | None = Field(default=None, ge=0)
    budget: float | None = Field(default=None, gt=0, description="seconds of wall clock for the whole command")
    batch: int | Auto = "auto"
    optimizer: Named | Auto = "auto"
    schedule: Named | Auto = "auto"
    warmup_steps: int | Auto = "auto"
    label_smoothing: float | Auto = "auto"
    balance: Literal["none", "weights", "sampler"] | Auto = Field(
        default="auto", description="what makes up for classes of different size"
    )
    focal: float | None = Field(default=None, gt=0, le=5, description="gamma of the focal loss; null is cross-entropy")
    average: float | Auto | None = Field(default="auto", description="decay of the moving average; null is off")
    blend: float | Auto = Field(default="auto", description="share of the fine-tuned weights in those that are used")
    clip: float | None = Field(default=None, gt=0, description="largest gradient norm")
    precision: Literal["float32", "bfloat16"] | Auto = "auto"
    memory_format: Literal["contiguous", "channels_last"] | Auto = "auto"
    device: str = "auto"
    threads: int | Auto = "auto"
    report_every: int | Auto = "auto"
    checkpoint_every: int | Auto = "auto"
    tune_every: int | Auto = Field(default="auto", description="steps between looks at the tune images; 0 is never")
    log_ids: bool = False
    deterministic: bool = Field(default=False, description="refuse operations that differ from run to run on a GPU")

    @field_validator("budget", mode="before")
    @classmethod
    def _budget(cls, value: Any) -> Any:
        return seconds(value) if isinstance(value, str) else value

    @field_validator("epochs", "batch", "warmup_steps", "threads", "report_every", "checkpoint_every", "tune_every")
    @classmethod
    def _count(cls, value: int | str, info: Any) -> int | str:
        least = 0 if info.field_name in {"warmup_steps", "tune_every"} else 1
        if isinstance(value, int) and value < least:
            raise ValueError(f"{value} is below {least}")
        return value

    @field_validator("blend")
    @classmethod
    def _blend(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0.0 < value <= 1.0:
            raise ValueError(f"{value} is outside 0 to 1")
        return value

    @field_validator("label_smoothing", "average")
    @classmethod
    def _share(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float) and not 0.0 <= value < 1.0:
            raise ValueError(f"{value} is outside 0 to 1")
        return value


class Recipe(Section):
    """Everything that makes a run.

    Raises:
        UsageError: from the constructors `from_layers` and `from_yaml`, for keys, types and values that do not fit.
    """

    schema_version: Literal[1] = 1
    name: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**64)
    data: Data = Data()
    image: Image = Image()
    model: Named | Auto = "auto"
    network: ConvNet | None = None
    weights: Weights = Weights()
    transfer: Transfer = Transfer()
    augment: Augment = Augment()
    train: Train = Train()

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """Merge mappings, the later over the earlier, and check the result.

        A resolved recipe holds what was asked beside what followed from it, such as epochs beside steps. Where a later
        layer sets the one, the other no longer holds and goes, by `DERIVED`, unless that layer sets it, too.
        """
        merged: dict[str, Any] = {}
        for each in layers:
            merged = _merge(_without_derived(merged, each), each)
        return cls._checked(merged)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Read a recipe from YAML; tags that name code, aliases and files over 1 MB are refused."""
        return cls.from_layers(parse_yaml(text))

    def to_yaml(self) -> str:
        """The recipe as YAML that `from_yaml` reads back to an equal recipe."""
        plain = self.model_dump(mode="json")
        return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None)

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """A copy with dotted keys replaced, such as `{"train.epochs": 30}`, checked again."""
        return self._checked(layer(changes, over=self.model_dump()))

    @classmethod
    def _checked(cls, merged: Mapping[str, Any]) -> Self:
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise _usage_error(cls, error, merged) from None


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
        merged = _merge(merged, nested(key.strip(), parse_yaml(value, whole=False)))
    return merged


def parse_yaml(text: str, *, whole: bool = True) -> Any:
    """Parse YAML by the safe loader without tags and aliases; with `whole`, it must be a mapping."""
    if len(text) > MAX_BYTES:
        raise UsageError(f"The recipe has {len(text):,} characters; it has at most {MAX_BYTES:,}.")
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader that refuses even more
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"The recipe is not plain YAML: {reason}.", mend="Tags (!name) and aliases (*name) are refused."
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
        merged = _merge(merged, nested(key, value))
    return merged


def nested(key: str, value: Any) -> dict[str, Any]:
    """`nested("train.epochs", 3)` is `{"train": {"epochs": 3}}`."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):  # a few of them, nested, expand to gigabytes
            raise yaml.YAMLError(f"the alias *{event.anchor} is not allowed")
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError(f"the tag {event.tag} is not allowed")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    def represent_text(self, text: str) -> yaml.ScalarNode:
        """PyYAML writes some line breaks (U+0085) unquoted, and then reads a space."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


# YAML 1.1 reads 1e-3 as a text; everyone who types it means the number.
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
    )


def _merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        replace = not (isinstance(below, Mapping) and isinstance(value, Mapping)) or "name" in value
        merged[key] = value if replace else _merge(below, value)  # type: ignore[arg-type]
    return merged


def _without_derived(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> Mapping[str, Any]:
    """`lower` without what followed there from keys that `upper` sets anew. What is off there stays off."""
    asked = {key for key in DERIVED if _at(upper, key, default=...) is not ...}
    asked -= {
        key for key in ("train.epochs", "train.budget", "train.steps") if _at(upper, key) is None
    }  # off: no length
    if not isinstance(_at(lower, "train.epochs"), int) and _at(lower, "train.budget") is None:
        asked -= {"train.batch", "data.limit"}  # steps that were asked for, not counted
    stale: dict[str, Any] = {}
    for key in sorted(asked):
        stale |= DERIVED[key]
    if _at(lower, "train.steps") is not None and ("train.steps" in stale or "train.steps" in asked):
        stale |= PACE  # only a recipe with steps has been through a plan; else someone asked for these
    other = "weights.source" in asked and _at(upper, "weights.source") != _at(lower, "weights.source")
    anew = BY_WEIGHTS if other and _at(lower, "train.steps") is not None else {}
    for key, value in {**stale, **anew}.items():
        former = _at(lower, key)
        # What was off stays off, but for what follows from weights; a head alone was fitted in no step.
        if key in anew or (former is not None and (former != 0 or key == "train.steps")):
            lower = _merge(lower, nested(key, value))
    return lower


def _at(node: Any, key: str, default: Any = None) -> Any:
    """The value at a dotted key of nested mappings."""
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return default
        node = node[part]
    return node


def _usage_error(model: type[BaseModel], error: ValidationError, given: Mapping[str, Any]) -> UsageError:
    faults = error.errors()
    first, key = faults[0], _key(faults[0]["loc"], given)
    if first["type"] == "extra_forbidden":
        return UsageError(f"The recipe has no key {key!r}.", mend=_close_keys(key, _keys(model)))
    if first["type"] == "missing":
        glued = isinstance(first["input"], Mapping) and any(":" in str(name) for name in first["input"])
        mend = "In YAML a space follows each colon: {name: resnet18}." if glued else f"Add it: {key}=VALUE."
        return UsageError(f"Recipe key {key!r} is missing.", mend=mend)
    own = [fault for fault in faults if _key(fault["loc"], given) == key]
    said = [fault["msg"].removeprefix("Value error, ") for fault in own if fault["type"] == "value_error"]
    reason = said[0] if said else f"it takes {' or '.join(dict.fromkeys(map(_taken, own)))}"
    value = _at(given, key, first["input"])
    shown = repr(value)
    shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
    return UsageError(f"Recipe key {key!r} cannot be {shown}: {reason}.")


_TAKEN = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list of values",
    "none": "nothing (null)",
    "model": "a section, whose keys are named one by one, as in image.size=224",
    "dict": "keys with values",
    "mapping": "keys with values",
}
"""What a key takes, by the first word of pydantic's type of error."""
_BOUNDS = {"ge": "at least {}", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}


def _taken(fault: Any) -> str:
    """What would have been right, in words that need no knowledge of Python."""
    context = fault.get("ctx") or {}
    for bound, words in _BOUNDS.items():
        if bound in context:
            return words.format(f"{context[bound]:g}")
    if fault["type"] == "literal_error":
        return str(context["expected"])
    return _TAKEN.get(fault["type"].partition("_")[0]) or str(fault["msg"])


def _close_keys(wrong: str, keys: list[str]) -> str:
    """The keys that are close to a wrong one, else those of its section, else the sections: all would be a page."""
    section = wrong.partition(".")[0]
    tops = sorted({key.partition(".")[0] for key in keys})
    within = [key for key in keys if key.startswith(f"{section}.")]
    if difflib.get_close_matches(wrong, keys, n=1, cutoff=0.6):
        return suggestion(wrong, keys)
    return suggestion(wrong, within) if within else suggestion(wrong, tops)


def _key(location: Iterable[str | int], given: Any) -> str:
    """The dotted key of a fault: pydantic names the alternatives it tried, too, which are no keys of what was given."""
    parts = list(location)
    key = []
    for part in parts:
        if isinstance(given, Mapping) and part in given:
            given = given[part]  # type: ignore[index]
        elif isinstance(given, (list, tuple)) and isinstance(part, int) and part < len(given):
            given = given[part]
        elif not (isinstance(given, Mapping) and part is parts[-1]):  # a missing key stays
            continue
        key.append(str(part))
    return ".".join(key)


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section) and inner is not Named:
            keys += _keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys
