"""A design with one thing changed, checked as if it had been written so; and where its parts are."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from convsmith.design import BLOCKS, Concat, ConvNet, Node, Residual, Stage, Style, channels_after, parse, tree
from convsmith.design import Place as Standing
from convsmith.design import Sequence as Nodes
from convsmith.errors import UsageError

Place = int | Literal["stem"]
"""A stage by its number, from 0, or the stem."""
EVEN = 8
ROOM = 4
"""Widths are rounded by an eighth at the most: to so many times the even number that they stay a multiple of."""


def stage_number(design: ConvNet, text: str) -> int:
    """The number, from 0, of a stage that is named as people do: `stage3` is the third, and `stages.2` its path.

    Raises:
        UsageError: there is no such stage.
    """
    counted, path = re.fullmatch(r"stage(\d+)", text), re.fullmatch(r"stages\.(\d+)", text)
    number = int(counted[1]) - 1 if counted else int(path[1]) if path else -1
    if not 0 <= number < len(design.stages):
        there = f"are stage1 to stage{len(design.stages)}" if design.stages else "there are none"
        raise UsageError(f"There is no stage {text!r} in this design.", mend=f"Its stages {there}.")
    return number


def named(place: Place) -> str:
    """A place as people name it."""
    return "the stem" if place == "stem" else f"stage{place + 1}"


def stage_widths(design: ConvNet) -> tuple[int, ...]:
    """The channels that leave each stage."""
    root = tree(design, 3, 1)
    assert isinstance(root, Nodes)
    parts, channels, found = dict(root.parts), 3, []
    if "stem" in parts:
        channels = channels_after(parts["stem"], channels)
    stages = parts.get("stages")
    for _, nodes in stages.parts if isinstance(stages, Nodes) else ():
        channels = channels_after(nodes, channels)
        found.append(channels)
    return tuple(found)


def stage_at(design: ConvNet, number: int) -> Stage:
    """A stage by its number.

    Raises:
        UsageError: there is none.
    """
    if not 0 <= number < len(design.stages):
        has = f"Its last is {len(design.stages) - 1}; the first is 0." if design.stages else "It has none."
        raise UsageError(f"There is no stage {number} in this design.", mend=has)
    return design.stages[number]


def option_of(stage: Stage, option: str) -> Any:
    """The value of a block's option, given or its default.

    Raises:
        UsageError: the block has none of that name.
    """
    parameters = inspect.signature(BLOCKS[stage.block].load()).parameters
    if option not in parameters:
        able = [name for name in BLOCKS if takes(name, option)]
        raise UsageError(f"Blocks of kind {stage.block!r} have no {option}.", mend=f"These do: {', '.join(able)}.")
    return dict(stage.options).get(option, parameters[option].default)


def takes(block: str, option: str) -> bool:
    """Whether a kind of block has an option."""
    return option in inspect.signature(BLOCKS[block].load()).parameters


def skips(block: str) -> bool:
    """Whether a kind of block has a residual branch, which stochastic depth can skip."""
    return _sums(BLOCKS.build(block, Standing(8, 8, 2 if block == "pool" else 1, Style())))


# -------------------------------------------------------------------------------------------------------------- changes


def edited(design: ConvNet, **changes: Any) -> ConvNet:
    """The design with other values of its fields.

    Raises:
        UsageError: it would be no network.
    """
    return parse({**design.model_dump(), **changes})


def with_stages(design: ConvNet, start: int, stop: int, stages: Sequence[Mapping[str, Any]]) -> ConvNet:
    """The design with other stages in the place of those from `start` up to `stop`."""
    old = [stage.model_dump() for stage in design.stages]
    rows: list[Mapping[str, Any]] = [*old[:start], *stages, *old[stop:]]
    changed = edited(design, stages=rows, stochastic_depth=0.0)
    drops = design.stochastic_depth > 0 and _sums(tree(changed, 3, 1))
    return edited(changed, stochastic_depth=design.stochastic_depth) if drops else changed


def _sums(node: Node) -> bool:
    """Whether there is a residual branch in it, which stochastic depth can skip."""
    parts = node.parts if isinstance(node, (Nodes, Concat)) else ()
    return isinstance(node, Residual) or any(_sums(part) for _, part in parts)


def with_stage(design: ConvNet, number: int, **changes: Any) -> ConvNet:
    """The design with other values of a stage's fields."""
    return with_stages(design, number, number + 1, [{**stage_at(design, number).model_dump(), **changes}])


def with_option(design: ConvNet, number: int, option: str, value: Any) -> ConvNet:
    """The design with another value of an option of a stage's blocks."""
    stage = stage_at(design, number)
    option_of(stage, option)
    return with_stage(design, number, options={**dict(stage.options), option: value})


# -------------------------------------------------------------------------------------------------------------- strides


def divides(design: ConvNet, place: Place) -> int:
    """What a place divides the image by that it can do without: of a stem that pools, the pooling."""
    if place != "stem":
        return stage_at(design, place).stride
    stem = design.stem
    if stem is None or (stem.kind == "patchify" and stem.pool == "none"):
        return 1
    return 2 if stem.pool != "none" else stem.stride


def places(design: ConvNet) -> list[Place]:
    """The stem, and the stages, from image to head."""
    return ["stem", *range(len(design.stages))]


def divided_more(design: ConvNet, place: Place, factor: int) -> ConvNet:
    """The design with a place that divides the image by `factor` times what it did."""
    if place == "stem":
        if design.stem is None or design.stem.kind == "patchify":
            raise UsageError("There is no stem whose stride is free.", mend="Name a stage.")
        return edited(design, stem={**design.stem.model_dump(), "stride": design.stem.stride * factor})
    stage = stage_at(design, place)
    unable = stage.downsample == "stride" and "unstrided" in BLOCKS[stage.block].tags
    how = "average" if unable else stage.downsample
    return with_stage(design, place, stride=stage.stride * factor, downsample=how)


def undivided(design: ConvNet, place: Place) -> ConvNet:
    """The design with a place that keeps the size; a stage that did nothing but pool is gone."""
    if place == "stem":
        assert design.stem is not None
        changes = {"pool": "none"} if design.stem.pool != "none" else {"stride": 1}
        return edited(design, stem={**design.stem.model_dump(), **changes})
    stage = stage_at(design, place)
    options = {key: value for key, value in stage.options if not (stage.block == "plain" and key == "pool")}
    if stage.block == "pool" and options.get("kernel") is None:
        return with_stages(design, place, place + 1, [])
    return with_stage(design, place, stride=1, downsample="stride", options=options)


# --------------------------------------------------------------------------------------------------------------- widths


def scaled(design: ConvNet, factor: float, stage: int | None = None) -> ConvNet:
    """The design with channels multiplied, in one stage or in all of it, hidden linear layers included."""
    if stage is not None:
        return with_stages(design, stage, stage + 1, [_scaled_stage(design, stage, factor)])
    stem, head = design.stem, design.head.model_dump()
    rows = [_scaled_stage(design, number, factor) for number in range(len(design.stages))]
    changes: dict[str, Any] = {"stages": rows}
    if stem is not None:
        hidden = {"hidden": scaled_width(stem.hidden, factor)} if stem.hidden is not None else {}
        width = scaled_width(stem.width, factor, _read_in(design, 0))
        changes["stem"] = {**stem.model_dump(), "width": width, **hidden}
    if head.get("hidden"):
        changes["head"] = {**head, "hidden": tuple(scaled_width(width, factor) for width in head["hidden"])}
    return edited(design, **changes)


def _scaled_stage(design: ConvNet, number: int, factor: float) -> dict[str, Any]:
    stage = stage_at(design, number)
    row, options = stage.model_dump(), dict(stage.options)
    if stage.block == "dense":
        options["growth"] = scaled_width(option_of(stage, "growth"), factor)
    elif stage.block == "inception" and options.get("branches"):
        six = tuple(scaled_width(width, factor) for width in option_of(stage, "branches"))
        options["branches"], row["width"] = six, six[0] + six[2] + six[4] + six[5]
        return {**row, "options": options}
    if stage.width is not None:
        row["width"] = scaled_width(stage.width, factor, math.lcm(_needed(stage), _read_in(design, number + 1)))
    return {**row, "options": options}


def _read_in(design: ConvNet, number: int) -> int:
    """What the channels that come into a stage must be a multiple of, for its first convolution's groups."""
    if number >= len(design.stages) or design.stages[number].block != "plain":
        return 1
    return option_of(design.stages[number], "groups")


def _needed(stage: Stage) -> int:
    """What a stage's width must be a multiple of, for the groups of its own convolutions."""
    groups = option_of(stage, "groups") if takes(stage.block, "groups") else 1
    if stage.block != "bottleneck" or groups == 1:
        return groups
    return max(1, round(groups / option_of(stage, "ratio")))


def scaled_width(width: int, factor: float, multiple: int = 1) -> int:
    """A number of channels times a factor, about as even as it was: multiples of 8 stay so, where there is room.

    Args:
        multiple: that it must be of, for groups.
    """
    even = math.gcd(width, EVEN)
    while even > 1 and even * ROOM > width * factor:
        even //= 2
    even = math.lcm(even, multiple)
    return max(even, even * math.floor(width * factor / even + 0.5))
