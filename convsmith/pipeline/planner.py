"""A recipe on its way to being resolved: each rule puts its choice here, with the reason and the measured number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convsmith.images import Dataset
from convsmith.recipe import Named, Recipe, settled
from convsmith.records import Choice, Finding, Record


@dataclass(frozen=True)
class Plan(Record):
    """A recipe without `auto`, and how it came about.

    Args:
        recipe: resolved.
        choices: every decision, in the order they were made.
        estimate: `seconds` of the whole command, `training_seconds`, `prediction_seconds_per_image`, `memory_bytes`,
            `disk_bytes`, `steps`, `images_per_second`.
        findings: errors and warnings of the design rules; hints are left to `convsmith lint`.
    """

    recipe: Recipe
    choices: tuple[Choice, ...]
    estimate: Mapping[str, float]
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `plan.json` holds it, without the recipe, which has its own file."""
        return {
            "choices": [choice.to_json() for choice in self.choices],
            "estimate": dict(self.estimate),
            "findings": [finding.to_json() for finding in self.findings],
        }


@dataclass
class Planner:
    """A recipe on its way to being resolved; rules put their choices here one after another."""

    recipe: Recipe
    dataset: Dataset
    audit: Mapping[str, Any]
    choices: list[Choice] = field(default_factory=list)

    def choose(self, key: str, value: Any, reason: str, **measured: Any) -> None:
        """Resolve one key unless the user gave it; either way it is listed."""
        given = self.value(key)
        asked = given != "auto"
        self.say(key, given if asked else value, "as asked" if asked else reason, given=asked, **measured)
        if not asked:
            self.recipe = self.recipe.updated({key: value})

    def say(self, key: str, value: Any, reason: str, *, given: bool = False, **measured: Any) -> None:
        """List a choice that the recipe holds in another form, or that was given."""
        self.choices.append(Choice(key, _shown(value), reason, {} if given else measured, given))

    def value(self, key: str) -> Any:
        """What the recipe now holds under a dotted key."""
        node: Any = self.recipe
        for part in key.split("."):
            node = getattr(node, part)
        return node

    @property
    def train_count(self) -> int:
        """How many images are trained on."""
        return len(self.dataset.indices("train"))

    @property
    def train_counts(self) -> list[int]:
        """Training images of each class."""
        return train_counts(self.dataset)

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.dataset.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image as the network sees it, `(C, H, W)`."""
        image = self.recipe.image
        return settled(image.channels), settled(image.size), settled(image.size)


def train_counts(dataset: Dataset) -> list[int]:
    """Training images of each class."""
    return np.bincount(dataset.targets[dataset.indices("train")], minlength=len(dataset.classes)).tolist()


def _shown(value: Any) -> Any:
    if isinstance(value, Named):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping) and "name" in value:
        options = ", ".join(f"{key} {item}" for key, item in value.get("options", {}).items())
        return f"{value['name']} ({options})" if options else value["name"]
    return list(value) if isinstance(value, tuple) else value
