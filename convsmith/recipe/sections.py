"""The sections of a recipe and their keys: all that makes a run, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator

from convsmith.design import ConvNet
from convsmith.recipe.faults import usage_error
from convsmith.recipe.layers import Dumper, layer, merge, parse_yaml, seconds, without_derived
from convsmith.recipe.section import Auto, Named, Section

Fit = Literal["crop", "pad", "stretch"]


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
    initialisation: str | None = Field(
        default=None, description="how weights are drawn from scratch; null is the network's own way"
    )


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
    steps: int | None = Field(default=None, ge=0, le=10**9)
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
            merged = merge(without_derived(merged, each), each)
        return cls._checked(merged)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Read a recipe from YAML; tags that name code, aliases and files over 1 MB are refused."""
        return cls.from_layers(parse_yaml(text))

    def to_yaml(self) -> str:
        """The recipe as YAML that `from_yaml` reads back to an equal recipe."""
        plain = self.model_dump(mode="json")
        return yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None)

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """A copy with dotted keys replaced, such as `{"train.epochs": 30}`, checked again."""
        return self._checked(layer(changes, over=self.model_dump()))

    @classmethod
    def _checked(cls, merged: Mapping[str, Any]) -> Self:
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise usage_error(cls, error, merged) from None
