"""Which channels of a network belong together, read from its graph.

What adds two maps needs as many channels in both; a norm or a depthwise convolution has a number for each channel that
comes. Such channels form a group that can only change together: all that a stage of a ResNet adds up is one group, and
the channels within each of its blocks are others. A group that something reads in a way that is not known here, such as
a shuffle, the heads of attention or a convolution in groups, is held: it keeps its number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from convsmith.networks.recording.graph import Graph, Operation, Ref

Parts = tuple[tuple[int, int], ...]
"""Groups one after another, as `(group, channels)`."""


@dataclass(frozen=True)
class Lane:
    """Where the channels of a value are.

    Args:
        axis: dimension.
        parts: groups in it.
        inner: numbers of each channel that lie side by side, as after flattening.
    """

    axis: int
    parts: Parts
    inner: int = 1


@dataclass(frozen=True)
class Slot:
    """A dimension of a parameter or buffer with a number, or several, for each channel.

    Args:
        name: of the parameter or buffer.
        axis: dimension.
        parts, inner: as in `Lane`.
        makes: whether the channels are made here, and not read.
    """

    name: str
    axis: int
    parts: Parts
    inner: int = 1
    makes: bool = False


@dataclass
class Coupling:
    """Groups of channels, found by going through a graph once.

    Args:
        graph: of a pass in inference mode.
        lanes: by value; a value without one has channels of which nothing is known.
        slots: all that must change with the groups.
    """

    graph: Graph
    lanes: dict[int, Lane] = field(default_factory=dict)
    slots: list[Slot] = field(default_factory=list)
    _held: set[int] = field(default_factory=set)
    _roots: list[int] = field(default_factory=list)
    _turned: dict[int, str] = field(default_factory=dict)  # the values that are a parameter transposed

    def new(self, channels: int) -> Parts:
        """Channels of a group of their own."""
        self._roots.append(len(self._roots))
        return ((len(self._roots) - 1, channels),)

    def root(self, group: int) -> int:
        """The group that stands for all that this one was joined with."""
        while self._roots[group] != group:
            group = self._roots[group]
        return group

    def join(self, lanes: Sequence[Lane]) -> bool:
        """Let the channels of values change together; False where they do not match one by one."""
        first = lanes[0]
        for other in lanes[1:]:
            if [size for _, size in first.parts] != [size for _, size in other.parts] or first.inner != other.inner:
                return False
            for (one, _), (two, _) in zip(first.parts, other.parts, strict=True):
                one, two = sorted((self.root(one), self.root(two)))
                self._roots[two] = one
        return True

    def hold(self, parts: Parts) -> None:
        """Let channels stay as many as they are."""
        self._held.update(group for group, _ in parts)

    def free(self) -> dict[int, int]:
        """The groups that may change, by their root, and how many channels they have."""
        held = {self.root(group) for group in self._held}
        sizes = {self.root(group): size for slot in self.slots for group, size in slot.parts}
        return {group: size for group, size in sizes.items() if group not in held}

    def lane(self, operation: Operation, argument: str) -> Lane | None:
        """Where the channels of an argument are."""
        reference = operation.arguments.get(argument)
        return self.lanes.get(reference.index) if isinstance(reference, Ref) else None

    def named(self, operation: Operation, argument: str) -> str:
        """The parameter or buffer that an argument is, by its name; empty where it is none."""
        reference = operation.arguments.get(argument)
        if not isinstance(reference, Ref):
            return ""
        return self._turned.get(reference.index, "") or self.graph.values[reference.index].name

    def turn(self, operation: Operation) -> bool:
        """Take note of a parameter that is transposed, as linear layers do."""
        name = self.named(operation, "self")
        if name:
            self._turned[operation.outputs[0]] = name
        return bool(name)

    def shape(self, value: int) -> tuple[int, ...]:
        """Of a value."""
        return self.graph.values[value].shape

    def slot(self, name: str, axis: int, lane: Lane, *, makes: bool = False) -> None:
        """Let a dimension of a parameter change with channels; without a name, there is none."""
        if name:
            self.slots.append(Slot(name, axis, lane.parts, lane.inner, makes))


def couple(graph: Graph) -> Coupling:
    """Find the groups of channels of a recorded network; those of the image and of its answers are held."""
    found = Coupling(graph)
    for image in graph.inputs:
        found.lanes[image] = Lane(1, found.new(found.shape(image)[1]))
        found.hold(found.lanes[image].parts)
    for operation in graph.operations:
        follow = RULES.get(operation.name)
        if follow is None or not follow(found, operation):
            for value in (*operation.inputs, *operation.outputs):
                if value in found.lanes:
                    found.hold(found.lanes.pop(value).parts if value in operation.outputs else found.lanes[value].parts)
    for value in graph.outputs:
        if value in found.lanes:
            found.hold(found.lanes[value].parts)
    _hold_shared(found)
    return found


def _hold_shared(found: Coupling) -> None:
    """Parameters that are used twice, for channels that need not be equal, keep their shape."""
    first: dict[tuple[str, int], Slot] = {}
    for slot in found.slots:
        other = first.setdefault((slot.name, slot.axis), slot)
        if [found.root(group) for group, _ in slot.parts] != [found.root(group) for group, _ in other.parts]:
            found.hold(slot.parts)
            found.hold(other.parts)


# ---------------------------------------------------------------------------------------------------------------- rules


def _convolution(found: Coupling, operation: Operation) -> bool:
    weight, bias, lane = (
        found.named(operation, "weight"),
        found.named(operation, "bias"),
        found.lane(operation, "input"),
    )
    shape = found.shape(operation.inputs[1])
    if operation.arguments["transposed"] or not weight or (lane is not None and lane.axis != 1):
        return False
    groups = operation.arguments["groups"]
    if groups == shape[0] > 1 and shape[1] == 1:
        if lane is None:
            return False
        found.slot(weight, 0, lane)
        found.slot(bias, 0, lane)
        found.lanes[operation.outputs[0]] = lane
        return True
    if groups > 1:
        return False
    if lane is not None:
        found.slot(weight, 1, lane)
    made = Lane(1, found.new(shape[0]))
    found.slot(weight, 0, made, makes=True)
    found.slot(bias, 0, made)
    found.lanes[operation.outputs[0]] = made
    return True


def _linear(found: Coupling, operation: Operation) -> bool:
    names = ("mat1", "mat2", "self") if operation.name == "addmm" else ("self", "mat2", "")
    lane, weight, bias = (
        found.lane(operation, names[0]),
        found.named(operation, names[1]),
        found.named(operation, names[2]),
    )
    last = len(found.shape(operation.outputs[0])) - 1
    if not weight or (lane is not None and lane.axis != last):
        return False
    if lane is not None:
        found.slot(weight, 1, lane)
    made = Lane(last, found.new(found.shape(operation.outputs[0])[last]))
    found.slot(weight, 0, made, makes=True)
    found.slot(bias, 0, made)
    found.lanes[operation.outputs[0]] = made
    return True


def _norm(found: Coupling, operation: Operation) -> bool:
    """Batch norm, and layer norm over channels that are the last dimension."""
    lane = found.lane(operation, "input")
    normalized = operation.arguments.get("normalized_shape")
    if lane is None or (
        normalized is not None and (len(normalized) > 1 or lane.axis != len(found.shape(operation.inputs[0])) - 1)
    ):
        return False
    for argument in ("weight", "bias", "running_mean", "running_var"):
        found.slot(found.named(operation, argument), 0, lane)
    found.lanes[operation.outputs[0]] = lane
    return True


def _pointwise(found: Coupling, operation: Operation) -> bool:
    """Operations that leave dimensions where they are, of one value or of several that are laid over each other."""
    result = found.shape(operation.outputs[0])
    laned = {value: found.lanes[value] for value in operation.inputs if value in found.lanes}
    # Counted from the last dimension on, as broadcasting does.
    behind = {len(found.shape(value)) - lane.axis for value, lane in laned.items()}
    if len(behind) != 1 or not found.join(list(laned.values())):
        return False
    back, lane = behind.pop(), next(iter(laned.values()))
    for value in operation.inputs:
        shape = found.shape(value)
        if value in laned or len(shape) < back or shape[len(shape) - back] == 1:
            continue
        known = found.graph.values[value]
        if not known.name or shape[len(shape) - back] != sum(size for _, size in lane.parts) * lane.inner:
            return False
        found.slot(known.name, len(shape) - back, lane)
    if operation.name == "constant_pad_nd" and any(operation.arguments["pad"][2 * back - 2 : 2 * back]):
        return False
    for output in operation.outputs:
        found.lanes[output] = Lane(len(result) - back, lane.parts, lane.inner)
    return True


def _restrided(found: Coupling, operation: Operation) -> bool:
    same = found.shape(operation.inputs[0]) == found.shape(operation.outputs[0])
    return same and _pointwise(found, operation)


def _averaged(found: Coupling, operation: Operation) -> bool:
    lane, axes = found.lane(operation, "self"), operation.arguments.get("dim")
    if lane is None or axes is None:
        return False
    rank = len(found.shape(operation.inputs[0]))
    gone = {axis % rank for axis in ([axes] if isinstance(axes, int) else axes)}
    if lane.axis in gone:
        return False
    before = 0 if operation.arguments.get("keepdim") else sum(axis < lane.axis for axis in gone)
    found.lanes[operation.outputs[0]] = Lane(lane.axis - before, lane.parts, lane.inner)
    return True


def _concatenated(found: Coupling, operation: Operation) -> bool:
    lanes = [found.lanes.get(item.index) for item in operation.arguments["tensors"]]
    known = [lane for lane in lanes if lane is not None]
    axes, axis = {lane.axis for lane in known}, operation.arguments["dim"] % len(found.shape(operation.outputs[0]))
    if len(known) < len(lanes) or len(axes) != 1:
        return False
    if axes != {axis}:
        found.lanes[operation.outputs[0]] = known[0]
        return found.join(known)
    parts = tuple(part for lane in known for part in lane.parts)
    found.lanes[operation.outputs[0]] = Lane(axis, parts)
    return all(lane.inner == 1 for lane in known)


def _viewed(found: Coupling, operation: Operation) -> bool:
    """Another shape in which channels are a dimension still, or lie together with the positions behind them."""
    value = operation.inputs[0]
    lane, given, made = found.lanes.get(value), found.shape(value), found.shape(operation.outputs[0])
    if lane is None:
        return False
    ahead = math.prod(given[: lane.axis])
    for behind in range(lane.axis + 1, len(given) + 1):
        joined = math.prod(given[lane.axis : behind])
        for axis in range(len(made)):
            if math.prod(made[:axis]) == ahead and made[axis] == joined:
                inner = lane.inner * math.prod(given[lane.axis + 1 : behind])
                found.lanes[operation.outputs[0]] = Lane(axis, lane.parts, inner)
                return True
    return False


def _permuted(found: Coupling, operation: Operation) -> bool:
    lane = found.lane(operation, "self")
    if lane is None:
        return operation.name == "t" and found.turn(operation)
    rank = len(found.shape(operation.inputs[0]))
    order = list(range(rank))
    if operation.name == "permute":
        order = [axis % rank for axis in operation.arguments["dims"]]
    else:
        one, other = (0, 1) if operation.name == "t" else (operation.arguments["dim0"], operation.arguments["dim1"])
        order[one], order[other] = order[other], order[one]
    found.lanes[operation.outputs[0]] = Lane(order.index(lane.axis), lane.parts, lane.inner)
    return True


def _named(rule: Callable[[Coupling, Operation], bool], *names: str) -> Iterator[tuple[str, Callable[..., bool]]]:
    return ((name, rule) for name in names)


RULES: Mapping[str, Callable[[Coupling, Operation], bool]] = dict([
    *_named(_convolution, "convolution"),
    *_named(_linear, "addmm", "mm"),
    *_named(_norm, "native_batch_norm", "_native_batch_norm_legit_no_training", "native_layer_norm"),
    *_named(
        _pointwise, "relu", "leaky_relu", "hardtanh", "silu", "gelu", "hardswish", "hardsigmoid", "sigmoid", "tanh",
        "elu", "mish", "softplus", "clamp", "clamp_min", "clone", "alias", "detach", "_to_copy", "add", "sub", "mul",
        "div",
        "max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "upsample_nearest2d", "upsample_bilinear2d",
        "constant_pad_nd", "reflection_pad2d", "replication_pad2d",
    ),
    *_named(_restrided, "as_strided"),
    *_named(_averaged, "mean", "amax", "sum"),
    *_named(_concatenated, "cat"),
    *_named(_viewed, "view", "_unsafe_view"),
    *_named(_permuted, "permute", "transpose", "t"),
])  # fmt: skip
"""How channels go through an operation, by its name; where a rule returns False, all that it touches is held."""
