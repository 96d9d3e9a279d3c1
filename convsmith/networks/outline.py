"""A network's layers folded to blocks and stages: read from its analysis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from convsmith.networks.counting.analysis import FUNCTIONAL, Analysis, Layer
from convsmith.networks.recording.graph import Call, Operation, Ref
from convsmith.reporting.inspection import Row, Seen

if TYPE_CHECKING:
    from convsmith.networks.receptive import Field

FEW, MANY = 6, 40
"""Rows: a folded network has at most the one, and at least the other where that is possible."""


def fold(analysis: Analysis, *, depth: int | None = None) -> tuple[int, ...]:
    """Choose the calls that are rows of the table and boxes of the drawing, so that each layer is in one of them.

    Args:
        analysis: of the network.
        depth: levels of modules that are opened; None opens as many as leave a table that fits a screen.

    Returns:
        indices in `Graph.calls`, in the order of execution.
    """
    tree = Tree(analysis)
    levels = range(1, 1 + max((tree.depth(call) for call in analysis.graph.calls), default=1))
    if depth is not None:
        return tree.opened(depth)
    cuts = [tree.opened(level) for level in levels]
    fitting = [cut for cut in cuts if len(cut) <= MANY] or cuts[:1]
    best = max(fitting, key=len, default=())
    if len(best) < FEW and len(fitting) < len(cuts) and len(cuts[len(fitting)]) <= 2 * MANY:
        return cuts[len(fitting)]
    return best


def every(analysis: Analysis) -> tuple[int, ...]:
    """The calls that call no other: the table of all layers."""
    return tuple(call.index for call in analysis.graph.calls if call.leaf)


def rows(analysis: Analysis, units: Sequence[int]) -> tuple[Row, ...]:
    """A row for each of some calls, and for what the modules above them compute themselves."""
    tree = Tree(analysis)
    home = tree.homes(units)
    gathered: dict[tuple[int, bool], list[Layer]] = {}
    for layer in analysis.layers:
        if layer.type != "Identity":
            unit = home.get(layer.call)
            gathered.setdefault((layer.call, True) if unit is None else (unit, False), []).append(layer)
    return tuple(_row(analysis, layers, tree, analysis.graph.calls[key[0]]) for key, layers in gathered.items())


def seen(field: Field | None) -> Seen | None:
    """A receptive field as it is shown."""
    if field is None:
        return None
    return Seen(field.height.size, field.width.size, field.height.stride, field.height.offset, field.whole)


class Tree:
    """Which call is within which."""

    def __init__(self, analysis: Analysis) -> None:
        self.calls = analysis.graph.calls
        self.children: dict[int, list[int]] = {}
        for call in self.calls:
            self.children.setdefault(call.parent, []).append(call.index)
        self.costly: set[int] = set()
        """Calls that make others which have weights or cost something."""
        for layer in analysis.layers:
            call = layer.call if layer.type == FUNCTIONAL else self.calls[layer.call].parent
            if layer.type == FUNCTIONAL and layer.parameters:
                call = self.calls[call].parent
            while (layer.parameters or layer.macs != 0) and call >= 0:
                self.costly.add(call)
                call = self.calls[call].parent

    def depth(self, call: Call) -> int:
        """How many calls it is within."""
        return 0 if call.parent < 0 else 1 + self.depth(self.calls[call.parent])

    def atomic(self, call: Call) -> bool:
        """Whether it is shown as one: nothing within it has weights of its own or costs anything.

        So it is with a norm and its activation, or a pooling and its flattening.
        """
        return call.leaf or (call.parent >= 0 and call.index not in self.costly)

    def below(self, call: Call) -> tuple[int, ...]:
        """The calls that it makes itself."""
        return tuple(self.children.get(call.index, ()))

    def leaves(self, call: Call) -> tuple[int, ...]:
        """The atomic calls within it."""
        return tuple(self._opened(call, 1_000))

    def opened(self, depth: int) -> tuple[int, ...]:
        """The calls that are seen when so many levels are opened."""
        return tuple(self._opened(self.calls[0], depth)) if self.calls else ()

    def _opened(self, call: Call, depth: int) -> Iterator[int]:
        for index in self.below(call):
            child = self.calls[index]
            if depth <= 1 or self.atomic(child):
                yield index
            else:
                yield from self._opened(child, depth - 1)

    def homes(self, units: Sequence[int]) -> dict[int, int]:
        """For each call within one of some calls, that one."""
        found: dict[int, int] = {}
        for unit in units:
            waiting = [unit]
            while waiting:
                call = waiting.pop()
                found[call] = unit
                waiting += self.children.get(call, ())
        return found


def _row(analysis: Analysis, layers: Sequence[Layer], tree: Tree, call: Call) -> Row:
    counts = [layer.macs for layer in layers]
    kept = [layer.activation_bytes for layer in layers]
    single = len(layers) == 1 and layers[0].call == call.index
    own = single and layers[0].type == FUNCTIONAL
    output, field = (layers[0].output, layers[0].field) if single else _returned(analysis, call)
    gates = analysis.fields.gates if analysis.fields else ()
    shares = [
        layer.discards for layer in layers if layer.path not in gates and (single or _alike(layer.output, output))
    ]
    return Row(
        call.path, layers[0].type if single else call.type,
        "its own operations" if own else detail(analysis, call) if tree.atomic(call) else call.type, len(layers),
        None if output is None else tuple(output[1:]), sum(layer.parameters for layer in layers),
        None if None in counts else sum(filter(None, counts)), None if None in kept else sum(filter(None, kept)),
        max((share for share in shares if share is not None), default=None), seen(field),
    )  # fmt: skip


def _alike(one: Sequence[int] | None, other: Sequence[int] | None) -> bool:
    """Whether both are maps of one size, if the last are maps: what is pooled on the way is no loss of the block."""
    return other is not None and (len(other) != 4 or (one is not None and one[2:] == other[2:]))


def _returned(analysis: Analysis, call: Call) -> tuple[tuple[int, ...] | None, Field | None]:
    if not call.outputs:
        return None, None
    value = call.outputs[0]
    return analysis.graph.values[value].shape, analysis.fields.of(value) if analysis.fields else None


def detail(analysis: Analysis, call: Call) -> str:
    """What a layer does, in words; its type where there are none."""
    operations = analysis.graph.operations[call.start : call.stop]
    return next((told for operation in operations if (told := words(operation, analysis))), call.type)


def words(operation: Operation, analysis: Analysis) -> str:
    """What a convolution, a pooling or a product does; empty for other operations."""
    arguments = operation.arguments
    if operation.name == "convolution" and isinstance(arguments["weight"], Ref):
        weight = analysis.graph.values[arguments["weight"].index].shape
        groups = arguments["groups"]
        depthwise = groups > 1 and groups == analysis.graph.values[operation.inputs[0]].shape[1]
        kind = "depthwise" if depthwise else "transposed conv" if arguments["transposed"] else "conv"
        more = [f"stride {_side(arguments['stride'])}"] if max(arguments["stride"]) > 1 else []
        more += [f"dilation {_side(arguments['dilation'])}"] if max(arguments["dilation"]) > 1 else []
        more += [f"{groups} groups"] if groups > 1 and not depthwise else []
        return ", ".join([f"{_sides(weight[2:])} {kind}", *more])
    if operation.name.startswith(("max_pool", "avg_pool")):
        kernel, stride = arguments["kernel_size"], arguments["stride"] or arguments["kernel_size"]
        name = "max-pool" if operation.name.startswith("max") else "average pool"
        return f"{_sides(kernel)} {name}, stride {_side(stride)}"
    if operation.name == "addmm" or operation.name == "mm":
        weight = analysis.graph.values[operation.inputs[-1]].shape
        return f"linear {weight[0]:,} → {weight[1]:,}"
    pooled = "adaptive" in operation.name or (
        operation.name == "mean" and len(operation.arguments.get("dim") or ()) == 2
    )
    return "global average" if pooled and "max" not in operation.name else ""


def _sides(sides: Sequence[int]) -> str:
    down, across = (sides[0], sides[0]) if len(sides) == 1 else (sides[0], sides[1])
    return f"{down}×{across}"


def _side(sides: Sequence[int]) -> str:
    return str(sides[0]) if len(set(sides)) == 1 else _sides(sides)
