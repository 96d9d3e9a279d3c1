"""Judges a given model by the design rules, alone or together with the images it is meant for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from convsmith.networks.lines.mismatch import explaining_sizes
from convsmith.networks.lint import Evidence
from convsmith.networks.lint import lint as faults
from convsmith.pipeline.build import ModelFunction
from convsmith.pipeline.given_model import Given, Partly, image_shape, open_model, open_module, read_model
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


def lint(
    model: str | nn.Module | ModelFunction,
    *,
    input_shape: str | int | Sequence[int] | None = None,
    data: str | Path | None = None,
    batch: int | None = None,
    outputs: int | None = None,
    off: Collection[str] = (),
    runs: str | Path = "runs",
) -> list[Finding]:
    """Find faults in a network's design, without training or running it.

    Args:
        model: a name, a run, `FILE.py:NAME`, a design's YAML file, a line of layers, a network, or a function
            `(in_channels, outputs) -> nn.Module`.
        input_shape: of one image: `(channels, height, width)`, a side in px, or `"3x224x224"`; by default the model's
            own, else 3x224x224.
        data: images it is meant for, whose classes and sizes are judged with it.
        batch: images in a step on each device.
        outputs: classes; by default those of the data, else what the model is made for, else 1,000.
        off: ids of rules that are not asked.
        runs: where runs are looked up by name.

    Returns:
        The gravest first; each says what it saw, and holds figures, layers and the mend.

    Raises:
        UsageError: there is no such model or rule, it cannot be built, or it does not take such images.

    Example:
        >>> [finding.rule for finding in lint("conv 3->8 k7 | gap | flatten | linear 8 | softmax", input_shape=9)]
        ['softmax-before-loss']
    """
    images = None if data is None else Data(source=str(data))
    shape = image_shape(input_shape)
    found = judge(model, data=images, input_shape=shape, outputs=outputs, batch=batch, off=off, runs=Path(runs))
    return list(found.findings)


def judge(
    model: str | nn.Module | ModelFunction,
    *,
    data: Data | None = None,
    input_shape: Partly = (None, None, None),
    outputs: int | None = None,
    batch: int | None = None,
    off: Collection[str] = (),
    tell: Listener = silent,
    runs: Path = Path("runs"),
    **opening: Any,
) -> Judged:
    """Open a model and judge it.

    Args:
        model: a MODEL, see `given_model`, a network, or a function that makes one.
        data: images it is meant for; they are read and looked at as before a training.
        input_shape: of one image; see `open_model`.
        outputs: classes; those of the data where None.
        batch: images a step on each device.
        off: ids of rules that are switched off.
        tell: who listens to the look at the data.
        runs: where runs are looked up by name.
        opening: further arguments of `open_model`: `options` and `code`.

    Raises:
        UsageError, DataError, RunError: as `open_model`, the look at the data and `lint` do.
    """
    classes = side = None
    if data is not None:
        from convsmith.pipeline.preparing import prepare

        prepared = prepare(data, tell)
        classes = len(prepared.dataset.classes)
        side = int(min(prepared.audit["sizes"][axis]["median"] for axis in ("width", "height")))
    if isinstance(model, str):
        trained = read_model(model, options=opening.get("options"), runs=runs).kind == "run"
        wanted = outputs if outputs is not None or trained else classes
        given = open_model(model, input_shape=input_shape, outputs=wanted, runs=runs, **opening)
    else:
        given = open_module(model, input_shape=input_shape, outputs=outputs or classes)
    with explaining_sizes(given.model, given.shape):
        found = faults(Evidence(given.model, given.shape, batch, classes, side), off=off)
    return Judged(given, tuple(found), (data.source or "") if data else "", classes, side)
