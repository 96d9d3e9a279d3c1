"""Rules about sizes: what is seen of the image, what is thrown away, what works on padding, what a kernel costs."""

from __future__ import annotations

import math

from convsmith.networks.lint.rule import IMAGES, Evidence, Example, Rule, Seen, named, plural
from convsmith.networks.lint.trail import ACTIVATIONS, NORMS, Trail, dense, kernel
from convsmith.networks.receptive import last_map
from convsmith.networks.recording.graph import Operation

SEES = 0.5
"""Share of the image's side that the last map should see at least."""
BEYOND = 2.0
"""Times the image's side, from which a layer's field, before the layer, is far more than there is."""
BEYOND_SHARE = 0.5
LEFT = 0.5
"""Share of the image's numbers that the first layer should leave at least."""
ENLARGED = 2.0


def _field_too_small(evidence: Evidence) -> Seen | None:
    fields, side, trail = evidence.fields, min(evidence.shape[1:]), evidence.inference
    end = last_map(trail.graph, fields)
    field = fields.of(end) if end is not None else None
    mixed = any(_mixes_places(evidence, operation) for operation in trail.layers)
    if field is None or field.whole or mixed:
        return None
    widest = max(field.height.size, field.width.size)
    if widest >= SEES * side:
        return None
    return Seen(
        f"Before it pools, no place sees more than {widest} of the {side} px of an image ({widest / side:.0%}).",
        (), {"field": widest, "side": side},
    )  # fmt: skip


def _field_beyond(evidence: Evidence) -> Seen | None:
    fields, side = evidence.fields, max(evidence.shape[1:])
    late, total, places = 0, 0, []
    for operation in _convolutions(evidence.inference):
        macs = evidence.macs.get(operation.index, 0)
        total += macs
        weight, data = evidence.inference.weight(operation), evidence.inference.data(operation)
        field = fields.of(data) if data is not None else None
        if weight is None or field is None or field.whole or max(kernel(weight)) == 1:
            continue
        if min(field.height.size, field.width.size) >= BEYOND * side:
            late += macs
            places.append(operation.module)
    if not total or late < BEYOND_SHARE * total:
        return None
    return Seen(
        f"{plural(len(places), 'convolution')} of {late / total:.0%} of the multiply-adds look around although what "
        f"they are given sees {BEYOND:.0f} times the image's side already: {named(places)}.",
        tuple(places), {"share_of_macs": round(late / total, 3), "side": side},
    )  # fmt: skip


def _map_below_kernel(evidence: Evidence) -> Seen | None:
    trail, places, weights = evidence.inference, [], 0
    for operation in _convolutions(trail):
        weight, data = trail.weight(operation), trail.data(operation)
        if weight is None or data is None or not dense(operation) or operation.arguments["transposed"]:
            continue
        sides = trail.graph.values[data].shape[2:]
        spans = [(k - 1) * d + 1 for k, d in zip(kernel(weight), operation.arguments["dilation"], strict=True)]
        if all(side < span for side, span in zip(sides, spans, strict=True)):
            places.append(operation.module)
            weights += weight.elements
    if not places:
        return None
    return Seen(
        f"{plural(len(places), 'convolution')} with {weights / max(evidence.total, 1):.0%} of the parameters on maps "
        f"smaller than the kernel, which reads padding: {named(places)}.",
        tuple(places), {"parameters": weights, "share": round(weights / max(evidence.total, 1), 3)},
    )  # fmt: skip


def _unread_pixels(evidence: Evidence) -> Seen | None:
    trail, main, side = evidence.inference, [], []
    for operation in trail.graph.operations:
        if not _skips(operation, trail) or _shifted(operation, trail):
            continue
        others = _other_readers(operation, trail)
        (side if any(not _skips(other, trail) for other in others) else main).append((operation.module, operation))
    found = main or side
    if not found:
        return None
    share = max(_unread(operation, trail) for _, operation in found)
    places = [place for place, _ in found]
    where = "" if main else " of shortcuts, whose input another branch reads whole"
    says = f"Up to {share:.0%} of the input is never looked at by {plural(len(places), 'layer')}{where}: "
    return Seen(f"{says}{named(places)}.", tuple(places), {"unread": round(share, 3)}, None if main else "hint")


def _narrow_start(evidence: Evidence) -> Seen | None:
    trail = evidence.inference
    first = next(iter(_convolutions(trail)), None)
    data = trail.data(first) if first is not None else None
    if first is None or data is None or trail.graph.values[data].shape != (IMAGES, *evidence.shape):
        return None
    left, given = trail.graph.values[first.outputs[0]].elements // IMAGES, math.prod(evidence.shape)
    if left >= LEFT * given:
        return None
    return Seen(
        f"The first layer ({first.module}) leaves {left:,} of the image's {given:,} numbers ({left / given:.0%}).",
        (first.module,), {"left": left, "given": given},
    )  # fmt: skip


def _even_kernel(evidence: Evidence) -> Seen | None:
    trail, places = evidence.inference, []
    for operation in _convolutions(trail):
        weight = trail.weight(operation)
        sides = kernel(weight) if weight is not None else ()
        steps = operation.arguments["stride"]
        if any(side % 2 == 0 and step == 1 for side, step in zip(sides, steps, strict=False)):
            places.append(operation.module)
    if not places:
        return None
    return Seen(
        f"{plural(len(places), 'convolution')} of stride 1 with an even kernel: {named(places)}.", tuple(places)
    )


def _large_kernel(evidence: Evidence) -> Seen | None:
    trail, places, saved = evidence.inference, [], 0
    for operation in list(_convolutions(trail))[1:]:
        weight = trail.weight(operation)
        if weight is None or not dense(operation) or min(kernel(weight)) <= 3 or operation.arguments["transposed"]:
            continue
        outputs, inputs, *sides = weight.shape
        steps = (max(sides) - 1) // 2
        stacked = 9 * outputs * (inputs + (steps - 1) * outputs)
        if stacked < weight.elements and max(operation.arguments["stride"]) < max(sides):
            places.append(operation.module)
            saved += weight.elements - stacked
    if not places:
        return None
    return Seen(
        f"{plural(len(places), 'convolution')} beyond the first with a kernel above 3x3: {named(places)}. As 3x3 "
        f"kernels one behind the other, which see as much, they would have {saved:,} parameters less.",
        tuple(places), {"parameters_saved": saved},
    )  # fmt: skip


def _uneven_padding(evidence: Evidence) -> Seen | None:
    trail, places = evidence.inference, []
    for operation in trail.graph.operations:
        arguments = operation.arguments
        if operation.name == "convolution" and not arguments["transposed"] and operation.index in trail.layers_index:
            weight = trail.weight(operation)
            sides = kernel(weight) if weight is not None else ()
        elif operation.name.startswith(("max_pool2d", "avg_pool2d")):
            sides = tuple(arguments["kernel_size"])
        else:
            continue
        data = trail.data(operation)
        if data is None or len(sides) != 2:
            continue
        stride = arguments["stride"] or sides
        for axis, side in enumerate(trail.graph.values[data].shape[2:]):
            border, step = arguments["padding"][axis % len(arguments["padding"])], stride[axis % len(stride)]
            spread = arguments.get("dilation", (1,))
            span = (sides[axis % len(sides)] - 1) * spread[axis % len(spread)] + 1
            if step > 1 and border > 0 and (side + 2 * border - span) % step:
                places.append(operation.module)
                break
    if not places:
        return None
    height, width = evidence.shape[1:]
    return Seen(
        f"At {height}x{width}, the padding of {plural(len(places), 'strided layer')} is used on one side only: "
        f"{named(places)}.",
        tuple(places), {"layers": len(places)},
    )  # fmt: skip


def _enlarged_images(evidence: Evidence) -> Seen | None:
    side, shown = evidence.side, min(evidence.shape[1:])
    if side is None or shown < ENLARGED * side:
        return None
    return Seen(
        f"Images of about {side} px are enlarged to {shown}: {(shown / side) ** 2:.0f} times the multiply-adds for "
        "nothing new to see.",
        (), {"side": side, "shown": shown},
    )  # fmt: skip


def _convolutions(trail: Trail) -> list[Operation]:
    return [operation for operation in trail.layers if operation.name == "convolution"]


def _skips(operation: Operation, trail: Trail) -> bool:
    """Whether the windows of a convolution or a pooling leave gaps between them."""
    return _unread(operation, trail) > 0


def _shifted(operation: Operation, trail: Trail) -> bool:
    """Whether it reads a shifted copy of what others read as well: two such layers share the positions among them."""
    data = trail.data(operation)
    maker = trail.maker(data) if data is not None else None
    if maker is None or maker.name not in {"constant_pad_nd", "slice"}:
        return False
    return len(list(trail.readers(maker.inputs[0]))) > 1


def _unread(operation: Operation, trail: Trail) -> float:
    """The share of positions that lie between the windows of a convolution or a pooling, the border aside."""
    arguments, sides = operation.arguments, tuple[int, ...]()
    if operation.name in {"max_pool2d_with_indices", "max_pool2d", "avg_pool2d"}:
        sides = tuple(arguments["kernel_size"])
    elif operation.index in trail.layers_index and operation.name == "convolution" and not arguments["transposed"]:
        weight = trail.weight(operation)
        sides = kernel(weight) if weight is not None else ()
    spread, steps = arguments.get("dilation", (1,) * len(sides)), arguments.get("stride") or sides
    spans = [(side - 1) * apart + 1 for side, apart in zip(sides, spread, strict=False)]
    return 1 - math.prod(min(1.0, span / step) for span, step in zip(spans, steps, strict=False))


def _other_readers(operation: Operation, trail: Trail) -> list[Operation]:
    """What else reads what a convolution is given, also before a norm and an activation of its own."""
    found, reader = list[Operation](), operation
    while (data := trail.data(reader)) is not None:
        found += [other for other in trail.readers(data) if other.index != reader.index]
        maker = trail.maker(data)
        if maker is None or maker.name not in NORMS | ACTIVATIONS:
            break
        reader = maker
    return found


def _mixes_places(evidence: Evidence, operation: Operation) -> bool:
    """Whether a linear layer reads several positions of a map at once, as after flattening."""
    trail = evidence.inference
    data = trail.data(operation)
    if operation.name == "convolution" or data is None:
        return False
    origin = trail.graph.values[trail.origin(data)].shape
    return len(origin) == 4 and math.prod(origin[2:]) > 1 and trail.graph.values[data].shape[-1] > origin[1]


_TAIL = "relu | gap | flatten | linear 10"
_DEEP = "conv 8 k3 s2 p1 | relu | " * 4 + "conv 128 k3 p1 | relu | conv 128 k3 p1 | " + _TAIL

SIZE_RULES = (
    Rule(
        "field-too-small", "warning", "The network sees a small part of the image", _field_too_small,
        why="What decides is an average over places, none of which sees enough to tell a shape: such a network goes by "
        "texture. That may be what is wanted, for defects or tissue; of things as large as the image it sees no whole.",
        mend="Add a stage, a stride or a dilation; `convsmith design MODEL --receptive-field PX` proposes which.",
        source="Luo et al. 2016, “Understanding the effective receptive field in deep CNNs”; Brendel & Bethge 2019",
        broken=Example(f"conv 16 k3 p1 | relu | conv 32 k3 p1 | relu | conv 32 k3 p1 | {_TAIL}", shape=(3, 128, 128)),
        healthy=Example(
            f"conv 16 k3 s4 p1 | relu | conv 32 k3 s4 p1 | relu | conv 32 k3 s2 p1 | {_TAIL}", shape=(3, 48, 48)
        ),
    ),
    Rule(
        "field-far-beyond", "hint", "Most of the work is done past the image's border", _field_beyond,
        why="A layer whose input has seen the whole image already can gather nothing more by looking around: kernels "
        "there are mostly depth at the price of width. Half of the network's work is spent so.",
        mend="Give larger images, take strides out of the first layers, or leave out the last stage.",
        source="Richter et al. 2021, “(Input) size matters for CNN classifiers”",
        broken=Example(_DEEP, shape=(3, 12, 12)),
        healthy=Example(_DEEP, shape=(3, 96, 96)),
    ),
    Rule(
        "map-below-kernel", "warning", "Kernels larger than what they work on", _map_below_kernel,
        why="On a map that is smaller than the kernel, most weights are multiplied with padding: they are paid for, "
        "and learn nothing but zeros' neighbours.",
        mend="Give larger images, or take out the strides of the first layers (a 7x7 stem of stride 2 and a pooling "
        "are made for 224 px).",
        source="Richter et al. 2021, “(Input) size matters for CNN classifiers”",
        broken=Example("conv 16 k3 s2 p1 | relu | " * 5 + f"conv 32 k3 p1 | {_TAIL}"),
        healthy=Example("conv 16 k3 s2 p1 | relu | " * 3 + f"conv 32 k3 p1 | {_TAIL}"),
    ),
    Rule(
        "unread-positions", "warning", "A stride that skips positions", _unread_pixels,
        why="A kernel narrower than its stride never looks at what lies between its windows: a 1x1 convolution of "
        "stride 2 throws away three quarters of what was computed for it. In a shortcut, beside a branch that reads "
        "everything, this is common and costs little.",
        mend="Use a kernel at least as wide as the stride, or average-pool first and then convolve with stride 1.",
        source="He et al. 2019, “Bag of tricks for image classification with convolutional neural networks”, section 4",
        broken=Example(f"conv 16 k3 p1 | relu | conv 32 k1 s2 | {_TAIL}"),
        healthy=Example(f"conv 16 k3 p1 | relu | conv 32 k3 s2 p1 | {_TAIL}"),
    ),
    Rule(
        "narrow-start", "hint", "The first layer leaves few numbers", _narrow_start,
        why="What the first layer does not pass on is lost to all others. Patches of 16 px with few channels, or a "
        "large stride into few channels, press an image into less than half of its numbers before anything is known "
        "of it.",
        mend="Use more channels in the first layer, or a smaller stride.",
        source="Szegedy et al. 2016, “Rethinking the Inception architecture”, section 2: avoid early bottlenecks",
        broken=Example(f"conv 16 k7 s8 p3 | relu | conv 32 k3 p1 | {_TAIL}"),
        healthy=Example(f"conv 16 k3 s2 p1 | relu | conv 32 k3 p1 | {_TAIL}"),
    ),
    Rule(
        "even-kernel", "warning", "An even kernel of stride 1", _even_kernel,
        why="An even kernel has no middle: it moves the picture by half a pixel, or needs more padding on one side "
        "than on the other, and such shifts add up from layer to layer.",
        mend="Use an odd kernel; even ones are for patches, whose stride is the kernel, and for strided layers.",
        source="Wu et al. 2019, “Convolution with even-sized kernels and symmetric padding”",
        broken=Example(f"conv 16 k4 p1 | relu | conv 32 k3 p1 | {_TAIL}"),
        healthy=Example(f"conv 16 k3 p1 | relu | conv 32 k3 p1 | {_TAIL}"),
    ),
    Rule(
        "large-kernel", "hint", "A large dense kernel beyond the first layer", _large_kernel,
        why="A 5x5 kernel has 25 weights for each pair of channels; two 3x3 ones see as far with 18, and an activation "
        "between them. Kernels that have one channel each (depthwise) are cheap at any size and are not meant.",
        mend="Stack 3x3 convolutions, or make the large one depthwise.",
        source="Simonyan & Zisserman 2015, “Very deep convolutional networks”, section 2.3",
        broken=Example(f"conv 16 k3 p1 | relu | conv 32 k7 p3 | relu | conv 32 k5 p2 | {_TAIL}"),
        healthy=Example(f"conv 16 k7 p3 | relu | conv 32 k3 p1 | relu | conv 32 k3 p1 | {_TAIL}"),
    ),
    Rule(
        "uneven-padding", "hint", "Padding that is used on one side only", _uneven_padding,
        why="Where size, kernel and stride do not come out even, a strided layer reads the padding at the top and "
        "left and never that at the bottom and right. Maps lean to one side, and weights become skewed with them. "
        "Nearly all networks do it at 224 px; at one pixel more they do not.",
        mend="Use a size for which (size + 2 padding - kernel) is a multiple of each stride: 225 px for 224.",
        source="Alsallakh et al. 2021, “Mind the pad: CNNs can develop blind spots”",
        broken=Example(f"conv 16 k3 s2 p1 | relu | conv 32 k3 s2 p1 | {_TAIL}"),
        healthy=Example(f"conv 16 k3 s2 p1 | relu | conv 32 k3 s2 p1 | {_TAIL}", shape=(3, 33, 33)),
    ),
    Rule(
        "enlarged-images", "hint", "Images much smaller than what the network is shown", _enlarged_images,
        why="Enlarging adds pixels and no detail, and multiply-adds grow with the square. With weights that were made "
        "at that size it may pay all the same, since they know things at that scale.",
        mend="Train at a smaller `--size`, or take strides out of the network's beginning.",
        source="multiply-adds of a convolution grow with the positions it is applied to",
        broken=Example(f"conv 16 k3 s2 p1 | {_TAIL}", shape=(3, 225, 225), side=28),
        healthy=Example(f"conv 16 k3 s2 p1 | {_TAIL}", shape=(3, 33, 33), side=28),
    ),
)  # fmt: skip
