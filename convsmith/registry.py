"""Visible tables of named functions: how models, augmentations, optimisers, rules and sections are plugged in."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from convsmith.errors import UsageError


@dataclass(frozen=True)
class Entry:
    """One row of a table.

    Args:
        name: what users type.
        build: the function, or `"package.module:function"`, which is imported when first used.
        summary: one line for listings.
        source: where the idea comes from (paper, equation, page); empty where it is common knowledge.
        tags: words to filter by.
    """

    name: str
    build: Callable[..., Any] | str
    summary: str
    source: str = ""
    tags: tuple[str, ...] = ()

    def load(self) -> Callable[..., Any]:
        """Return the function, importing it where the table names it lazily."""
        if not isinstance(self.build, str):
            return self.build
        module, _, function = self.build.partition(":")
        return getattr(importlib.import_module(module), function)


class Registry(Mapping[str, Entry]):
    """A table of `Entry` rows, read by name.

    Args:
        kind: what the rows are, in the singular, for messages ("model", "augmentation").
        entries: the rows; two of one name raise `ValueError`.
    """

    def __init__(self, kind: str, entries: Iterable[Entry]) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            if entry.name in self._entries:
                raise ValueError(f"two entries of the {kind} table are named {entry.name!r}")
            self._entries[entry.name] = entry

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise self._unknown(name) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def build(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call the function named `name`; options that it does not take raise `UsageError` before anything runs."""
        self.check(name, options)
        function = self[name].load()
        try:
            inspect.signature(function).bind(*arguments, **options)
        except TypeError as error:  # one that is missing, or that names what the arguments already give
            raise UsageError(f"{self.kind} {name!r} cannot be made with these options: {error}.") from None
        return function(*arguments, **options)

    def check(self, name: str, options: Mapping[str, Any]) -> None:
        """Raise `UsageError` where `name` is unknown or its function has no parameter of some option's name."""
        parameters = inspect.signature(self[name].load()).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return
        for option in options:
            if option not in parameters:
                raise UsageError(
                    f"{self.kind} {name!r} has no option {option!r}.",
                    mend=suggestion(option, [key for key, value in parameters.items() if _optional(value)]),
                )

    def _unknown(self, name: str) -> UsageError:
        return UsageError(f"There is no {self.kind} named {name!r}.", mend=suggestion(name, self._entries))


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """Say which known names are close to a wrong one, or list them all where none is."""
    names = sorted(known)
    if not names:
        return "It takes none."
    close = difflib.get_close_matches(str(wrong), names, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(names)}."


def _optional(parameter: inspect.Parameter) -> bool:
    return parameter.default is not parameter.empty
