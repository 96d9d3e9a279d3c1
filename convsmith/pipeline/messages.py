"""What the pipeline tells whoever listens (the command line, a notebook): small values, never printed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["stage", "note", "planned", "created", "training", "finished"]


@dataclass(frozen=True)
class Message:
    """One thing worth telling.

    Args:
        kind: `stage` (a long part begins), `note` (something to know), `planned` (the plan stands), `created` (the run
            folder stands), `training` (an event of the loop), `finished`.
        text: a sentence for a person.
        values: what goes with it: `done` and `total` of a stage, the plan, the event's figures.
    """

    kind: Kind
    text: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[Message], None]


def silent(message: Message) -> None:
    """A listener that ignores everything."""
