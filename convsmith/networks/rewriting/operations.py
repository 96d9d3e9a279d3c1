"""Operations on a design: each takes a `ConvNet` and returns another; `operate` measures what it did.

Widths are rounded so that they stay as even as they were and divide into the groups that read them; where a change
leaves a block that cannot stand in its place, the schema says why and nothing is returned.

Which of them keep the function of a trained network is told in `networks.rewriting.growing`. A design is a row of
stages, each of which reads the one before: long skips over several stages, and a decoder that enlarges maps again,
cannot be said in it, so no operation here adds them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from convsmith.design import BLOCKS, ConvNet, FlattenHead
from convsmith.errors import UsageError
from convsmith.networks.counting.costs import Difference, design_costs
from convsmith.networks.rewriting.editing import (
    Place,
    divided_more,
    divides,
    edited,
    named,
    option_of,
    places,
    scaled,
    skips,
    stage_at,
    stage_widths,
    takes,
    undivided,
    with_option,
    with_stage,
    with_stages,
)
from convsmith.registry import Entry, Registry

Context = Literal["non-local", "squeeze-excite", "cbam", "eca"]


@dataclass(frozen=True)
class Change:
    """A design after an operation, and what that did.

    Args:
        design: the new one.
        difference: measured on both as they are built, for images of the size that was given.
    """

    design: ConvNet
    difference: Difference


def operate(design: ConvNet, operation: str, shape: Sequence[int], *, outputs: int, **options: Any) -> Change:
    """Apply an operation of `OPERATIONS` and measure both designs, built without values.

    Args:
        design: stays as it is.
        operation: its name.
        shape: of one image, `(channels, height, width)`.
        outputs: classes.
        options: of the operation.

    Raises:
        UsageError: no such operation or option, or one that this design cannot take.
    """
    changed = OPERATIONS.build(operation, design, **options)
    return Change(changed, Difference(design_costs(design, shape, outputs), design_costs(changed, shape, outputs)))


# ------------------------------------------------------------------------------------------------------ width and depth


def widen(design: ConvNet, factor: float, *, stage: int | None = None) -> ConvNet:
    """Multiply the channels of one stage, or of all the network (Zagoruyko & Komodakis 2016).

    Args:
        factor: above 1.
        stage: its number; None is stem, stages and hidden linear layers.
    """
    _within("factor", factor, factor > 1, "more than 1; `shrink` makes narrower")
    return scaled(design, factor, stage)


def shrink(design: ConvNet, factor: float, *, stage: int | None = None) -> ConvNet:
    """The same with a factor between 0 and 1: fewer channels (Howard et al. 2017, section 3.3, "width multiplier")."""
    _within("factor", factor, 0 < factor < 1, "between 0 and 1; `widen` makes wider")
    return scaled(design, factor, stage)


def deepen(design: ConvNet, stage: int, *, blocks: int = 1) -> ConvNet:
    """Add blocks of the same kind at the end of a stage.

    A stage of plain blocks that pool has only one in which there is something to pool; those that are added to it stand
    in a stage of their own behind it, without pooling, and keep the size.
    """
    _within("blocks", blocks, blocks >= 1, "at least 1; `shallow` removes them")
    old = stage_at(design, stage)
    if old.block == "plain" and option_of(old, "pool") != "none":
        rest = {key: value for key, value in old.options if key not in ("pool", "padding")}
        added = {"block": "plain", "width": old.width, "depth": blocks, "options": rest}
        return with_stages(design, stage + 1, stage + 1, [added])
    return with_stage(design, stage, depth=old.depth + blocks)


def shallow(design: ConvNet, stage: int, *, blocks: int = 1) -> ConvNet:
    """Take blocks away from the end of a stage, which keeps one at least."""
    depth = stage_at(design, stage).depth
    _within("blocks", blocks, 1 <= blocks < depth, f"at least 1 and less than {depth}, which {named(stage)} has")
    return with_stage(design, stage, depth=depth - blocks)


# ----------------------------------------------------------------------------------------------------------- resolution


def keep_resolution(design: ConvNet, place: Place, *, dilate: bool = True) -> ConvNet:
    """Let a stage, or the stem, keep the size of what comes instead of dividing it.

    Pooling, patches and transitions that divided go with the stride; of a stem that pools, the pooling.

    Args:
        place: where.
        dilate: whether it and all stages behind it spread their kernels by as much, where their blocks can, so that
            they see as far as before (Yu & Koltun 2016; Chen et al. 2018, "DeepLab", section 3.1).
    """
    divided = divides(design, place)
    if divided == 1:
        raise UsageError(f"{named(place).capitalize()} keeps the size already.", mend=_strided(design))
    changed = undivided(design, place)
    first = 0 if place == "stem" else place
    for number in range(first, len(changed.stages)):
        if dilate and takes(changed.stages[number].block, "dilation"):
            changed = _dilated(changed, number, divided)
    return changed


def output_stride(design: ConvNet, stride: int, *, dilate: bool = True) -> ConvNet:
    """Divide the image by `stride` in all and no more: stages keep the size, from the last one on.

    Args:
        stride: a product of the strides that come first, such as 16 or 8 for a network of 32.
        dilate: as in `keep_resolution`.
    """
    whole = design.stride
    if whole <= stride:
        raise UsageError(f"The network divides its images by {whole} already.", mend="Give a smaller stride.")
    while design.stride > stride:
        dividing: list[Place] = [place for place in places(design) if divides(design, place) > 1]
        if not dividing:
            break
        design = keep_resolution(design, dividing[-1], dilate=dilate)
    if design.stride != stride:
        raise UsageError(
            f"A stage that keeps the size leaves {design.stride} of {whole}, and none leaves {stride}.",
            mend=f"Give {design.stride}." if design.stride > 1 else "",
        )
    return design


def move_stride(design: ConvNet, source: Place, target: Place) -> ConvNet:
    """Let another place divide the image: later for maps that stay large, earlier for what costs less.

    Args:
        source: the stage, or the stem, that divides now.
        target: the one that is to divide instead, by its own stride times that of `source`.
    """
    divided = divides(design, source)
    if divided == 1 or source == target:
        raise UsageError(f"{named(source).capitalize()} has no stride to give to another.", mend=_strided(design))
    return undivided(divided_more(design, target, divided), source)


# ------------------------------------------------------------------------------------------------------ receptive field


def dilate(design: ConvNet, stage: int, factor: int) -> ConvNet:
    """Spread the kernels of a stage: the same weights see further (Yu & Koltun 2016)."""
    _within("factor", factor, factor > 1, "a whole number above 1")
    return _dilated(design, stage, factor)


def set_kernel(design: ConvNet, place: Place, kernel: int) -> ConvNet:
    """Give the convolutions of a stage, or of the stem, another size."""
    if place != "stem":
        wide = stage_at(design, place).block == "inception"
        return with_option(design, place, "wide" if wide else "kernel", kernel)
    if design.stem is None or design.stem.kind == "patchify":
        raise UsageError("There is no stem whose kernel is free.", mend="Name a stage.")
    return edited(design, stem={**design.stem.model_dump(), "kernel": kernel})


def add_context(design: ConvNet, stage: int, *, kind: Context = "non-local") -> ConvNet:
    """Let a stage know of the whole image.

    Args:
        kind: `non-local` puts a block behind the stage in which each position sees all (Wang et al. 2018), and which
            starts as nothing. `squeeze-excite`, `cbam` and `eca` weigh channels by what the whole image shows, in each
            block of the stage: a gate, which the receptive field does not count.
    """
    old = stage_at(design, stage)
    if kind == "non-local":
        return with_stages(design, stage + 1, stage + 1, [{"block": "non-local"}])
    if kind == "squeeze-excite" and takes(old.block, "squeeze"):
        return with_option(design, stage, "squeeze", 0.25)  # as in Tan & Le 2019
    return with_option(design, stage, "attention", kind)


# --------------------------------------------------------------------------------------------------------------- blocks


def swap_block(design: ConvNet, stage: int, block: str, *, options: Mapping[str, Any] | None = None) -> ConvNet:
    """Build a stage of another kind of block, of the same width, depth and stride.

    Args:
        block: a name from `design.BLOCKS`.
        options: of the new block; those of the old one that it knows too stay.
    """
    old, entry = stage_at(design, stage), BLOCKS[block]
    if {"keeps", "grows"} & set(entry.tags):
        raise UsageError(f"Blocks of kind {block!r} do not leave a width that is asked for.", mend="Name another kind.")
    kept = {key: value for key, value in old.options if key in inspect.signature(entry.load()).parameters}
    return with_stage(
        design, stage, block=block, width=stage_widths(design)[stage], options={**kept, **(options or {})},
        stochastic_depth=old.stochastic_depth if skips(block) else None,
    )  # fmt: skip


def set_groups(design: ConvNet, stage: int, groups: int) -> ConvNet:
    """Divide the convolutions of a stage into groups that do not see each other's channels (Xie et al. 2017)."""
    return with_option(design, stage, "groups", groups)


def pool_head(design: ConvNet) -> ConvNet:
    """Average each channel over the image where the head read every position (Lin et al. 2014, section 3.2)."""
    if not isinstance(design.head, FlattenHead) or not design.stages:
        raise UsageError("There are no maps whose positions the head reads, so that there is nothing to average.")
    head = {"kind": "average", "hidden": design.head.hidden, "dropout": design.head.dropout}
    return edited(design, head=head)


def _dilated(design: ConvNet, number: int, factor: int) -> ConvNet:
    return with_option(design, number, "dilation", factor * option_of(stage_at(design, number), "dilation"))


def _strided(design: ConvNet) -> str:
    found = [named(place) for place in places(design) if divides(design, place) > 1]
    return f"These divide: {', '.join(found)}." if found else "Nothing in this design divides the image."


def _within(name: str, value: float, fits: bool, expected: str) -> None:
    if not fits:
        raise UsageError(f"{name} is {value:g}; it must be {expected}.")


OPERATIONS = Registry(
    "operation",
    [
        Entry("widen", widen, "more channels", "Zagoruyko & Komodakis 2016"),
        Entry("shrink", shrink, "fewer channels", "Howard et al. 2017, section 3.3"),
        Entry("deepen", deepen, "more blocks in a stage"),
        Entry("shallow", shallow, "fewer blocks in a stage"),
        Entry("keep-resolution", keep_resolution, "a stage that does not divide the image", "Yu & Koltun 2016"),
        Entry("output-stride", output_stride, "an image that is divided by so much and no more", "Chen et al. 2018"),
        Entry("move-stride", move_stride, "another stage that divides the image"),
        Entry("dilate", dilate, "kernels spread", "Yu & Koltun 2016"),
        Entry("kernel", set_kernel, "kernels of another size"),
        Entry("context", add_context, "positions that know of the whole image", "Wang et al. 2018; Hu et al. 2018"),
        Entry("swap", swap_block, "another kind of block"),
        Entry("groups", set_groups, "convolutions in groups", "Xie et al. 2017"),
        Entry("pool-head", pool_head, "global average pooling before the linear layers", "Lin et al. 2014"),
    ],
)
