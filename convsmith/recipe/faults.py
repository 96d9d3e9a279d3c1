"""Faults of a recipe, as pydantic found them, in words that need no knowledge of Python."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from convsmith.errors import UsageError
from convsmith.recipe.layers import at
from convsmith.recipe.section import Named, Section
from convsmith.registry import suggestion


def usage_error(model: type[BaseModel], error: ValidationError, given: Mapping[str, Any]) -> UsageError:
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
    value = at(given, key, first["input"])
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
