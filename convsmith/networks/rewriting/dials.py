"""Ways to make a network cheaper, or to let it see further, each as a dial that is turned no further than is needed.

What a step does is never worked out beforehand: the network of that step is built and looked at. Whoever turns the dial
says what is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from convsmith.design import ConvNet, FlattenHead
from convsmith.errors import UsageError
from convsmith.networks.counting.analysis import count_parameters
from convsmith.networks.rewriting.editing import Place, divides, edited, named, option_of, places, stage_widths, takes
from convsmith.networks.rewriting.narrowing import narrow
from convsmith.networks.rewriting.operations import (
    add_context,
    deepen,
    dilate,
    move_stride,
    pool_head,
    set_groups,
    set_kernel,
    shallow,
    shrink,
    swap_block,
)
from convsmith.networks.rewriting.savings import NARROW, REWRITES, SMALL, candidates, rewrite
from convsmith.networks.rewriting.surgery import dilate_last

FINE = 32
"""Steps in which all channels are taken away, or would be."""
Build = Callable[[ConvNet], nn.Module]


@dataclass(frozen=True)
class Made:
    """A changed network.

    Args:
        model: as it is built.
        did: what was changed, in words.
        design: of it; None where it is no design.
        calls: Python that makes it of `model` and `shape`, an expression for each change; empty for a design.
    """

    model: nn.Module
    did: str
    design: ConvNet | None = None
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dial:
    """A way to change a network more and more.

    Args:
        name: of the way.
        source: where it is from.
        steps: how many there are.
        turn: from a step, from 1 on, to the network; raises `UsageError` where it cannot be built.
    """

    name: str
    source: str
    steps: int
    turn: Callable[[int], Made]


def least(dial: Dial, enough: Callable[[nn.Module], bool], *, gently: bool = False) -> Made | None:
    """Turn a dial as little as is enough, by halving; None where even its last step is not.

    Args:
        dial: whose steps lead one way.
        enough: what a network must be.
        gently: begin with the first steps, where later ones cost more to look at; else with the last, which tells at
            once where none is enough.
    """

    def reached(step: int) -> Made | None:
        try:
            made = dial.turn(step)
            return made if enough(made.model) else None
        except UsageError:  # no network can be built like that, or it fails on images of this size
            return None

    low, high = 1, 1 if gently else dial.steps
    best = reached(high)
    while best is None and high < dial.steps:
        low, high = high + 1, min(2 * high, dial.steps)
        best = reached(high)
    while best is not None and low < high:
        middle = (low + high) // 2
        made = reached(middle)
        if made is None:
            low = middle + 1
        else:
            best, high = made, middle
    return best


# -------------------------------------------------------------------------------------------------------------- designs


def saving_dials(design: ConvNet, build: Build) -> list[Dial]:
    """The ways to make a design cheaper: one for each kind of rewrite that it can take.

    Args:
        design: stays as it is.
        build: makes a network of a design.
    """
    stages = _by_size(design, build)
    residual = [number for number in stages if design.stages[number].block in ("residual", "preactivation")]
    wide = [number for number in stages if _kernel(design, number) > 1]
    plain = [number for number in wide if design.stages[number].block in ("plain", "fused-mbconv")]
    full = [number for number in stages if number in (*residual, *plain)]
    divisible = [number for number in wide if takes(design.stages[number].block, "groups")]
    divisible = [number for number in divisible if _divisible(design, number) % 2 == 0]
    looking: list[Place] = ["stem", *stages]
    kernels: list[Place] = [place for place in looking if _kernel(design, place) > SMALL]
    depth, early = sum(stage.depth - 1 for stage in design.stages), _early_strides(design)
    ways: list[tuple[str, str, int, Callable[[int], tuple[ConvNet, str]]]] = [
        ("fewer channels", "Howard et al. 2017", FINE - 1, partial(_narrower, design)),
        ("fewer blocks", "He et al. 2016", depth, partial(_shallower, design)),
        ("depthwise separable blocks", "Howard et al. 2017", len(full), partial(_separated, design, full)),
        ("1x1 bottlenecks", "He et al. 2016", len(residual), partial(_bottlenecked, design, residual)),
        ("convolutions in groups", "Xie et al. 2017", 6 if divisible else 0, partial(_grouped, design, divisible)),
        ("smaller kernels", "Simonyan & Zisserman 2015", len(kernels), partial(_smaller, design, kernels)),
        ("a smaller head", "Lin et al. 2014", _cells(design), partial(_pooled, design)),
        ("earlier strides", "He & Sun 2015", len(early), partial(_earlier, early)),
    ]  # fmt: skip
    return [Dial(name, source, steps, partial(_built, turn, build)) for name, source, steps, turn in ways if steps]


def seeing_dials(design: ConvNet, build: Build) -> list[Dial]:
    """The ways to let a design see further; `build` makes a network of a design."""
    looking = [
        number for number, stage in enumerate(design.stages) if _kernel(design, number) > 1 and stage.block != "pool"
    ]
    if not looking:
        return []
    last, early = looking[-1], _early_strides(design)
    spread = [number for number in looking if takes(design.stages[number].block, "dilation")]
    ways: list[tuple[str, str, int, Callable[[int], tuple[ConvNet, str]]]] = [
        ("more blocks", "He et al. 2016", 64, lambda step: (
            deepen(design, last, blocks=step), f"{step} more in {named(last)}")),
        ("dilation", "Yu & Koltun 2016", 15 if spread else 0, lambda step: (
            dilate(design, spread[-1], step + 1), f"kernels of {named(spread[-1])} spread {step + 1} times")),
        ("larger kernels", "Liu et al. 2022", 15, lambda step: (
            set_kernel(design, last, _kernel(design, last) + 2 * step),
            f"{_kernel(design, last) + 2 * step} in {named(last)}, in place of {_kernel(design, last)}")),
        ("earlier strides", "He & Sun 2015", len(early), partial(_earlier, early)),
        ("a non-local block", "Wang et al. 2018", 1, lambda step: (
            add_context(design, last), f"behind {named(last)}; each position sees all")),
    ]  # fmt: skip
    return [Dial(name, source, steps, partial(_built, turn, build)) for name, source, steps, turn in ways if steps]


def _built(turn: Callable[[int], tuple[ConvNet, str]], build: Build, step: int) -> Made:
    design, did = turn(step)
    return Made(build(design), did, design)


def _narrower(design: ConvNet, step: int) -> tuple[ConvNet, str]:
    factor = 1 - step / FINE
    return shrink(design, factor), f"all widths times {factor:g}"


def _shallower(design: ConvNet, step: int) -> tuple[ConvNet, str]:
    before = [stage.depth for stage in design.stages]
    for _ in range(step):
        depths = [stage.depth for stage in design.stages]
        design = shallow(design, max(range(len(depths)), key=lambda number: (depths[number], number)))
    after = [stage.depth for stage in design.stages]
    return design, f"{'-'.join(map(str, after))} in the stages, in place of {'-'.join(map(str, before))}"


def _separated(design: ConvNet, stages: Sequence[int], step: int) -> tuple[ConvNet, str]:
    """Those of a residual kind keep their shortcut: a depthwise convolution, 1x1, and the sum."""
    for number in stages[:step]:
        block = design.stages[number].block
        if block == "plain":
            design = swap_block(design, number, "separable")
        else:
            options: dict[str, Any] = {} if block == "fused-mbconv" else {"expansion": 1}
            design = swap_block(design, number, "mbconv", options=options)
    return design, f"in {_listed(stages[:step])}"


def _bottlenecked(design: ConvNet, stages: Sequence[int], step: int) -> tuple[ConvNet, str]:
    for number in stages[:step]:
        design = swap_block(design, number, "bottleneck")
    return design, f"in {_listed(stages[:step])}, to a quarter of the channels"


def _grouped(design: ConvNet, stages: Sequence[int], step: int) -> tuple[ConvNet, str]:
    """Each stage in as many groups as it divides into, up to two to the power of the step."""
    made: dict[int, list[Place]] = {}
    for number in stages:
        groups = math.gcd(2**step, _divisible(design, number))
        if _kernel(design, number) > 1 and option_of(design.stages[number], "groups") < groups:
            design = set_groups(design, number, groups)
            made.setdefault(groups, []).append(number)
    return design, ", ".join(f"{groups} in {_listed(made[groups])}" for groups in sorted(made, reverse=True))


def _divisible(design: ConvNet, number: int) -> int:
    """What the groups of a stage must divide."""
    widths, stage = stage_widths(design), design.stages[number]
    if stage.block == "bottleneck":
        return round(widths[number] * option_of(stage, "ratio"))
    return math.gcd(widths[number], widths[number - 1] if number else design.stem.width if design.stem else 1)


def _smaller(design: ConvNet, kernels: Sequence[Place], step: int) -> tuple[ConvNet, str]:
    for place in kernels[:step]:
        design = set_kernel(design, place, SMALL)
    return design, f"{SMALL}x{SMALL} in {_listed(kernels[:step])}"


def _cells(design: ConvNet) -> int:
    """How often the grid of a head can get smaller; its last step is one cell, which is global pooling."""
    return design.head.grid - 1 if isinstance(design.head, FlattenHead) and design.stages else 0


def _pooled(design: ConvNet, step: int) -> tuple[ConvNet, str]:
    assert isinstance(design.head, FlattenHead)
    grid = design.head.grid - step
    if grid == 1:
        return pool_head(design), "global average pooling before its linear layers"
    head = {**design.head.model_dump(), "grid": grid}
    told = f"that reads {grid}x{grid} cells in place of {design.head.grid}x{design.head.grid}"
    return edited(design, head=head), told


def _early_strides(design: ConvNet) -> list[tuple[ConvNet, str]]:
    """The design with one stride after another moved from the end to the first place that has none."""
    found, moved = [], []
    while True:
        order = places(design)
        dividing: list[Place] = [place for place in order if divides(design, place) > 1]
        free: Place | None = next((place for place in order if _may_divide(design, place)), None)
        if not dividing or free is None or order.index(dividing[-1]) <= order.index(free):
            return found
        moved.append(f"{named(dividing[-1])} to {named(free)}")
        design = move_stride(design, dividing[-1], free)
        found.append((design, f"moved from {', from '.join(moved)}"))


def _may_divide(design: ConvNet, place: Place) -> bool:
    """Whether a place divides nothing yet, and looks at all that it would skip."""
    if place == "stem":
        stem = design.stem
        return stem is not None and stem.kind != "patchify" and stem.stride == 1 and stem.pool == "none"
    stage = design.stages[place]
    return stage.stride == 1 and stage.block not in ("norm-act", "non-local", "denoise") and _kernel(design, place) > 1


def _earlier(early: Sequence[tuple[ConvNet, str]], step: int) -> tuple[ConvNet, str]:
    return early[step - 1]


def _by_size(design: ConvNet, build: Build) -> list[int]:
    """The stages, those with most parameters first."""
    if not design.stages:
        return []
    stages = build(design).get_submodule("stages")
    counts = [count_parameters(stage).total for stage in stages.children()]
    return sorted(range(len(counts)), key=lambda number: -counts[number])


def _kernel(design: ConvNet, place: Place) -> int:
    """The kernel of a place that has one to choose; 1 of others."""
    if place == "stem":
        return design.stem.kernel if design.stem is not None and design.stem.kind != "patchify" else 1
    stage = design.stages[place]
    return (option_of(stage, "kernel") or 1) if takes(stage.block, "kernel") else 1


def _listed(items: Sequence[Place]) -> str:
    names = [named(place) for place in sorted(items, key=lambda place: -1 if place == "stem" else place)]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# ------------------------------------------------------------------------------------------------------- other networks


def module_dials(model: nn.Module, shape: Sequence[int]) -> list[Dial]:
    """The ways to make any network cheaper: fewer channels, and other forms of layers, one after another."""
    found = [Dial("fewer channels", NARROW.source, FINE - 1, partial(_narrowed, model, tuple(shape)))]
    for name, entry in REWRITES.items():
        able = list(candidates(model, shape, name))
        turn = partial(_rewritten, model, tuple(shape), name, able)
        if able:
            found.append(Dial(entry.summary, entry.source, len(able), turn))
    return found


def module_seeing_dials(model: nn.Module, shape: Sequence[int]) -> list[Dial]:
    """The ways to let any network see further."""
    return [Dial("dilation", "Yu & Koltun 2016", 15, partial(_dilated, model, tuple(shape)))]


def _narrowed(model: nn.Module, shape: tuple[int, ...], step: int) -> Made:
    factor = 1 - step / FINE
    return Made(
        narrow(model, shape, factor), f"all widths times {factor:g}", None, (f"narrow(model, shape, {factor})",)
    )


def _rewritten(model: nn.Module, shape: tuple[int, ...], name: str, able: Sequence[str], step: int) -> Made:
    told = f"in {step} of {len(able)} layers, from {able[0]} on" if step > 1 else f"in the layer {able[0]}"
    call = f"rewrite(model, shape, {name!r}, layers={step})"
    return Made(rewrite(model, shape, name, layers=step), told, None, (call,))


def _dilated(model: nn.Module, shape: tuple[int, ...], step: int) -> Made:
    done = dilate_last(model, shape, step + 1)
    told = f"kernels at the smallest maps spread {step + 1} times ({len(done.layers)} layers)"
    return Made(done.model, told, None, (f"dilate_last(model, shape, {step + 1}).model",))
