"""What all parts of a recipe are made of, and how a value is read that a plan has resolved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from convsmith.errors import UsageError

Auto = Literal["auto"]
Scalar = bool | int | float | str | None
Value = TypeVar("Value")


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
