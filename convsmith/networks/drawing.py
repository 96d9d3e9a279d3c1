"""How a network's layers are connected, and the inside of each kind of block, to be drawn: read from its analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

from convsmith.networks.counting.analysis import Analysis
from convsmith.networks.outline import Tree, detail, words
from convsmith.networks.recording.graph import Call, Operation
from convsmith.reporting.inspection import Block, Drawing, Kind, Node

INSIDE = 22
"""Layers up to which a block is drawn with all of them."""
PASSING = {
    "view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "detach", "alias", "clone", "unsqueeze",
    "squeeze", "slice", "select", "split", "split_with_sizes", "unbind", "_to_copy", "lift_fresh", "written", "roll",
}  # fmt: skip
"""Operations that only hand on what they are given, so that no drawing shows them."""
KINDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("product", ("convolution", "addmm", "mm", "bmm", "baddbmm", "scaled_dot_product")),
    ("pool", ("pool", "mean", "amax", "upsample")),
    ("norm", ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")),
    ("activation", ("relu", "silu", "gelu", "sigmoid", "tanh", "hardswish", "hardtanh", "elu", "softmax", "mish")),
)
MERGES = {"add": "sum", "cat": "joined", "mul": "product", "stack": "joined", "sub": "difference"}


def draw(analysis: Analysis, units: Sequence[int]) -> Drawing:
    """Draw how some calls, and what is computed between them, are connected."""
    return _draw(analysis, Tree(analysis), analysis.graph.calls[0] if analysis.graph.calls else None, units)


def blocks(analysis: Analysis, units: Sequence[int]) -> tuple[Block, ...]:
    """Draw the inside of some calls, and of the blocks within them; those that are built alike once."""
    tree = Tree(analysis)
    found: dict[object, Block] = {}

    def look(call: Call) -> None:
        if tree.atomic(call):
            return
        inside = tree.leaves(call)
        whole = len(inside) <= INSIDE
        if not whole:
            inside = tree.below(call)
        drawing = _draw(analysis, tree, call, inside)
        if whole:
            built = (call.type, tuple((node.title, node.kind) for node in drawing.nodes), drawing.edges)
        else:  # of those that differ only in how many blocks of a kind they hold, the first is drawn
            built = (call.type, tuple(dict.fromkeys(analysis.graph.calls[child].type for child in inside)))
        if built in found:
            found[built] = replace(found[built], paths=(*found[built].paths, call.path))
        elif drawing.branches or len(drawing.nodes) > 3:
            found[built] = Block(call.type, (call.path,), drawing)
        if not whole:
            for child in inside:
                look(analysis.graph.calls[child])

    for unit in units:
        look(analysis.graph.calls[unit])
    return tuple(found.values())


@dataclass
class _Sketch:
    """A drawing in the making: which node each value comes from."""

    nodes: list[Node] = field(default_factory=list)
    edges: dict[tuple[int, int], None] = field(default_factory=dict)
    origin: dict[int, int] = field(default_factory=dict)

    def add(self, node: Node, sources: Sequence[int]) -> int:
        self.nodes.append(node)
        place = len(self.nodes) - 1
        self.edges |= {(source, place): None for source in sources}
        return place


def _draw(analysis: Analysis, tree: Tree, scope: Call | None, units: Sequence[int]) -> Drawing:
    """Draw what happens within a call: some of the calls within it as one node each, and what is between them."""
    graph = analysis.graph
    depends = _depends(analysis)
    home = tree.homes(units)
    sketch = _Sketch()
    root = scope is None or scope.parent < 0
    start, stop = (0, len(graph.operations)) if scope is None else (scope.start, scope.stop)
    given = graph.inputs if root else tuple(value for value in (scope.inputs if scope else ()) if value in depends)
    first = graph.values[given[0]].shape[1:] if len(given) == 1 else None
    title = "image" if root else "what comes in" if len(given) < 2 else f"{len(given)} maps come in"
    sketch.add(Node(title, "", "input", first), ())
    costs = _costs(analysis, home)
    prefix = "" if scope is None or not scope.path else f"{scope.path}."
    events = [(graph.calls[unit].start, 0, unit) for unit in units]
    within = {index: home[operation.call] for index in range(start, stop)
              if (operation := graph.operations[index]).call in home}  # fmt: skip
    events += [(index, 1, index) for index in range(start, stop) if index not in within]
    for _, free, index in sorted(events):
        if free:
            _draw_operation(analysis, sketch, graph.operations[index], depends)
        else:
            call = graph.calls[index]
            macs = costs.get(index, 0)
            share = None if macs is None or not analysis.macs else macs / analysis.macs
            _draw_call(analysis, sketch, call, depends, call.path.removeprefix(prefix), share, tree.atomic(call))
    outputs = graph.outputs if root else scope.outputs if scope else ()
    sources = [sketch.origin.get(value, 0) for value in outputs if value in depends]
    shape = graph.values[outputs[0]].shape[1:] if outputs else None
    sketch.add(Node("output" if root else "what goes out", "", "output", shape), list(dict.fromkeys(sources)))
    return Drawing(tuple(sketch.nodes), tuple(sketch.edges))


def _draw_call(
    analysis: Analysis, sketch: _Sketch, call: Call, depends: set[int], title: str, share: float | None, atomic: bool
) -> None:
    graph = analysis.graph
    operations = graph.operations[call.start : call.stop]
    if call.type == "Identity" and not operations:
        return
    made = {value for operation in operations for value in operation.outputs}
    read = [value for operation in operations for value in operation.inputs if value in depends and value not in made]
    read = read or [value for value in call.inputs if value in depends]
    sources = dict.fromkeys(sketch.origin.get(value, 0) for value in read)
    if not sources:
        return
    shape = graph.values[call.outputs[0]].shape[1:] if call.outputs else None
    kind: Kind = _kind(operations) if atomic else "block"
    told = detail(analysis, call) if atomic else call.type
    place = sketch.add(Node(title, told, kind, shape, share), list(sources))
    sketch.origin |= dict.fromkeys(made | set(call.outputs), place)


def _draw_operation(analysis: Analysis, sketch: _Sketch, operation: Operation, depends: set[int]) -> None:
    graph = analysis.graph
    read = [value for value in operation.inputs if value in depends]
    if not read:
        return
    shape = graph.values[operation.outputs[0]].shape[1:]
    before = graph.values[read[0]].shape
    flattens = operation.name in ("view", "_unsafe_view") and len(before) == 4 and len(shape) == 1
    flattens = flattens and prod(before[1:]) == shape[0] and prod(before[2:]) > 1
    single = operation.name in ("cat", "stack") and len(read) == 1
    if single or (operation.name in PASSING and not flattens):
        place = sketch.origin.get(read[0], 0)
    else:
        kind = "merge" if operation.name in MERGES and len(read) > 1 else _kind((operation,))
        title = "flatten" if flattens else MERGES.get(operation.name, "") if kind == "merge" else ""
        title = title or _with_parameter(analysis, operation) or words(operation, analysis)
        title = title or operation.name.strip("_").replace("_", " ")
        place = sketch.add(Node(title, "", kind, shape), list(dict.fromkeys(sketch.origin.get(v, 0) for v in read)))
    sketch.origin |= dict.fromkeys(operation.outputs, place)


def _with_parameter(analysis: Analysis, operation: Operation) -> str:
    """`× gamma`: a sum or product with the network's own numbers; empty for other operations."""
    sign = {"mul": "×", "add": "+"}.get(operation.name, "")
    own = [value for index in operation.inputs if (value := analysis.graph.values[index]).kind == "parameter"]
    return f"{sign} {own[0].name.rpartition('.')[2]}" if sign and own else ""


def _depends(analysis: Analysis) -> set[int]:
    """The values that depend on the image."""
    found = set(analysis.graph.inputs)
    for operation in analysis.graph.operations:
        if not found.isdisjoint(operation.inputs):
            found.update(operation.outputs)
    return found


def _costs(analysis: Analysis, home: dict[int, int]) -> dict[int, int | None]:
    """Multiply-adds of each unit."""
    found: dict[int, int | None] = {}
    for layer in analysis.layers:
        unit = home.get(layer.call)
        if unit is not None:
            known = found.get(unit, 0)
            found[unit] = None if known is None or layer.macs is None else known + layer.macs
    return found


def _kind(operations: Sequence[Operation]) -> Kind:
    for kind, names in KINDS:
        if any(name in operation.name for operation in operations for name in names):
            return kind
    return "other"
