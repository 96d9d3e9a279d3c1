"""Judges a given model by the design rules, alone or together with the images it is meant for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convsmith.networks.lint import Evidence, lint
from convsmith.pipeline.given_model import Given, Partly, open_model, read_model
from convsmith.pipeline.messages import Listener, silent
from convsmith.recipe import Data
from convsmith.records import Finding


@dataclass(frozen=True)
class Judged:
    """A model and what the rules say of it.

    Args:
        given: the model.
        findings: the gravest first.
        source: the images it was judged with; empty where there were none.
        classes, side: of these images: how many classes, and the median of the shorter sides in px.
    """

    given: Given
    findings: tuple[Finding, ...]
    source: str = ""
    classes: int | None = None
    side: int | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it in plain types."""
        return {
            "model": self.given.name,
            "input": list(self.given.shape),
            "data": self.source or None,
            "classes": self.classes,
            "side": self.side,
            "findings": [finding.to_json() for finding in self.findings],
        }


def judge(
    text: str,
    *,
    data: Data | None = None,
    input_shape: Partly = (None, None, None),
    outputs: int | None = None,
    batch: int | None = None,
    off: Collection[str] = (),
    tell: Listener = silent,
    **opening: Any,
) -> Judged:
    """Open a model and judge it.

    Args:
        text: a MODEL, see `given_model`.
        data: images it is meant for; they are read and looked at as before a training.
        input_shape: of one image; see `open_model`.
        outputs: classes; those of the data where None.
        batch: images a step on each device.
        off: ids of rules that are switched off.
        tell: who listens to the look at the data.
        opening: further arguments of `open_model`: `options`, `code`, `runs`.

    Raises:
        UsageError, DataError, RunError: as `open_model`, the look at the data and `lint` do.
    """
    classes = side = None
    if data is not None:
        from convsmith.pipeline.preparing import prepare

        prepared = prepare(data, tell)
        classes = len(prepared.dataset.classes)
        side = int(min(prepared.audit["sizes"][axis]["median"] for axis in ("width", "height")))
    trained = read_model(text, options=opening.get("options"), runs=opening.get("runs", Path("runs"))).kind == "run"
    wanted = outputs if outputs is not None or trained else classes
    given = open_model(text, input_shape=input_shape, outputs=wanted, **opening)
    found = lint(Evidence(given.model, given.shape, batch, classes, side), off=off)
    return Judged(given, tuple(found), (data.source or "") if data else "", classes, side)
