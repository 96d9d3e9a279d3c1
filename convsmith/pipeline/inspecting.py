"""Looks at a given model, and gathers what is shown of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from convsmith.errors import UsageError
from convsmith.networks.counting.analysis import Analysis, analyse
from convsmith.networks.counting.memory import Optimizer, Precision, training_memory
from convsmith.networks.drawing import blocks, draw
from convsmith.networks.lines.mismatch import explaining_sizes
from convsmith.networks.outline import every, fold, rows, seen
from convsmith.networks.receptive import last_map
from convsmith.pipeline.build import ModelFunction
from convsmith.pipeline.given_model import Given, image_shape, open_model, open_module
from convsmith.pipeline.through_depth import signals_of
from convsmith.reporting.inspection import Depths, Inspection, Last, SideBySide, Step

if TYPE_CHECKING:
    from convsmith.pipeline.seen_on import SeenOn

BATCH = 32
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "momentum", "adamw")


def inspect(
    model: str | nn.Module | ModelFunction,
    *,
    input_shape: str | int | Sequence[int] | None = None,
    against: str | nn.Module | ModelFunction | None = None,
    batch: int = 32,
    outputs: int | None = None,
    signal: Sequence[str] = (),
    runs: str | Path = "runs",
) -> Inspection | SideBySide:
    """Find out what a network is made of, costs and sees, without training or running it.

    Args:
        model: a name, a run, `FILE.py:NAME`, a design's YAML file, a line of layers, a network, or a function
            `(in_channels, outputs) -> nn.Module`.
        input_shape: of one image: `(channels, height, width)`, a side in px, or `"3x224x224"`; by default the model's
            own, else 3x224x224.
        against: another model, to be shown beside it.
        batch: images in a step of training, for its memory.
        outputs: classes, where the model does not say them; by default 1,000.
        signal: ways of starting the values for which the variance behind each layer is measured, in real passes: `own`
            or rows of `convsmith.networks.INITIALISATIONS`.
        runs: where runs are looked up by name.

    Returns:
        What was found; it prints as a table, and shows itself in notebooks.

    Raises:
        UsageError: there is no such model, it cannot be built, or it does not take such images.

    Example:
        >>> inspect("conv 1->10 k3 | gap | flatten | linear 10", input_shape=28).parameters
        210
    """
    shape = image_shape(input_shape)

    def looked(asked: str | nn.Module | ModelFunction) -> Inspection:
        if isinstance(asked, str):
            values = "own" if signal else None
            given = open_model(asked, input_shape=shape, outputs=outputs, runs=Path(runs), weights=values)
        else:
            given = open_module(asked, input_shape=shape, outputs=outputs)
        return look(given, batch=batch, depths=signals_of(given, signal) if signal else ())

    return looked(model) if against is None else SideBySide(looked(model), looked(against))


def look(
    given: Given,
    *,
    batch: int = BATCH,
    depth: int | None = None,
    memory: bool = True,
    on: SeenOn | None = None,
    depths: tuple[Depths, ...] = (),
) -> Inspection:
    """Look at a model without running it.

    Args:
        given: as `open_model` returned it; left as it was.
        batch: images in a training step.
        depth: levels of modules that the folded table opens; None is as many as fit a screen.
        memory: whether to find out what training takes, which takes about as long as the rest.
        on: a picture that its receptive fields were drawn on.
        depths: the signal through its depth.

    Raises:
        UsageError: the network asks for values of the image, or fails on images of this size.
    """
    with explaining_sizes(given.model, given.shape):
        analysis = analyse(given.model, given.shape, name=given.name)
    units = fold(analysis, depth=depth)
    steps, why = _steps(given, batch) if memory else ((), "")
    notes = [_assumption(given), *analysis.unknown, why, _unused(analysis)]
    return Inspection(
        name=given.name,
        shape=given.shape,
        notes=tuple(note for note in notes if note),
        rows=rows(analysis, every(analysis)),
        folded=rows(analysis, units),
        trainable=analysis.parameters.trainable,
        frozen=analysis.parameters.frozen,
        macs=analysis.macs,
        activation_bytes=analysis.activation_bytes,
        inference_bytes=analysis.inference_bytes,
        batch=batch,
        steps=steps,
        gates=analysis.fields.gates if analysis.fields else (),
        statistics=analysis.fields.statistics if analysis.fields else (),
        drawing=draw(analysis, units),
        blocks=blocks(analysis, units),
        sums=given.line.sums() if given.line else {},
        record=_record(given, analysis, batch, steps, depths),
        last=_last(analysis),
        pictures=on.stages if on else (),
        values=given.weights if on else "",
        depths=depths,
    )


def _last(analysis: Analysis) -> Last | None:
    value = None if analysis.fields is None else last_map(analysis.graph, analysis.fields)
    if value is None or analysis.fields is None:
        return None
    shape = analysis.graph.values[value].shape[1:]
    return Last(tuple(shape), seen(analysis.fields.of(value)), analysis.fields.reason(value))


def _steps(given: Given, batch: int) -> tuple[tuple[Step, ...], str]:
    """The memory of a training step by precision and optimiser, and why there is none."""
    steps = []
    try:
        for precision in PRECISIONS:
            taken = training_memory(given.model, given.shape, batch=batch, optimizer="none", precision=precision)
            for optimizer in OPTIMIZERS:
                each = taken.under(optimizer)
                steps.append(
                    Step(
                        precision, optimizer, each.weights, each.gradients, each.optimizer, each.activations, each.peak
                    )
                )
    except UsageError as error:
        return (), f"The memory of training is not known: {error.message}"
    return tuple(steps), ""


def _assumption(given: Given) -> str:
    if not given.assumed:
        return ""
    other = "--input CxHxW says another."
    if given.assumed.endswith("channels"):
        return f"The images are assumed to have {given.assumed}. {other}"
    return f"No size of image was given, and the model names none: {given.assumed} is assumed. {other}"


def _unused(analysis: Analysis) -> str:
    if not analysis.unused:
        return ""
    names = ", ".join(analysis.unused[:3]) + (
        f" and {len(analysis.unused) - 3} more" if len(analysis.unused) > 3 else ""
    )
    return f"The pass does not read {names}."


def _record(
    given: Given, analysis: Analysis, batch: int, steps: tuple[Step, ...], depths: tuple[Depths, ...]
) -> Mapping[str, Any]:
    """All of it in plain types."""
    training = {"batch": batch, "steps": [asdict(step) for step in steps]}
    extra: dict[str, Any] = {"sums": given.line.sums()} if given.line else {}
    if depths:
        extra["signal"] = {each.name: list(each.signals) for each in depths}
    return {**analysis.to_json(), "input_assumed": bool(given.assumed), "training_memory": training, **extra}
