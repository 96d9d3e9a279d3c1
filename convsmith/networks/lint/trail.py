"""Following values through a graph: what made this one, who reads it, and what lies between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from convsmith.networks.recording.graph import WRITTEN, Graph, Operation, Ref, Value

MOVED = {
    "view", "_unsafe_view", "reshape", "permute", "transpose", "t", "clone", "contiguous", "alias", "detach", "expand",
    "squeeze", "unsqueeze", "flatten", "_to_copy", "to", "lift_fresh", "_reshape_alias", "as_strided", WRITTEN,
}  # fmt: skip
"""Operations after which the numbers are the same ones, elsewhere or under another name."""
WEIGHING = {"convolution", "addmm", "mm", "bmm", "baddbmm", "linear"}
BATCH_NORMS = {
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "_batch_norm_with_update", "batch_norm",
}  # fmt: skip
NORMS = BATCH_NORMS | {"native_layer_norm", "native_group_norm", "layer_norm", "group_norm", "instance_norm"}
RECTIFIERS = {"relu", "leaky_relu", "silu", "gelu", "hardswish", "elu", "mish", "prelu", "_prelu_kernel", "clamp_min"}
SATURATING = {"sigmoid", "tanh", "hardsigmoid"}
ACTIVATIONS = RECTIFIERS | SATURATING | {"hardtanh", "softplus", "celu", "selu", "threshold"}
POOLS = {"max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "max_pool2d"}


class Trail:
    """A graph with the questions that design rules ask of it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._producer = graph.producer()
        self._readers = graph.readers()

    def origin(self, value: int) -> int:
        """The value that this one is, before it was moved or renamed."""
        while True:
            operation = self._by(value)
            if operation is None or operation.name not in MOVED or not operation.inputs:
                return value
            value = operation.inputs[0]

    def maker(self, value: int) -> Operation | None:
        """The operation that made the numbers of a value; None for the image, parameters and the like."""
        return self._by(self.origin(value))

    def readers(self, value: int) -> Iterator[Operation]:
        """The operations that do something with the numbers of a value."""
        for index in self._readers.get(value, ()):
            operation = self.graph.operations[index]
            if operation.name not in MOVED:
                yield operation
                continue
            for made in operation.outputs:
                yield from self.readers(made)

    def parameters(self, operation: Operation) -> list[Value]:
        """The parameters that an operation reads."""
        origins = [self.graph.values[self.origin(value)] for value in operation.inputs]
        return [value for value in origins if value.kind == "parameter"]

    def given(self, operation: Operation, argument: str) -> Value | None:
        """The value behind an argument, before it was moved; None where the argument was left out."""
        item = operation.arguments.get(argument)
        return self.graph.values[self.origin(item.index)] if isinstance(item, Ref) else None

    def data(self, operation: Operation) -> int | None:
        """The first input that depends on the image."""
        return next((value for value in operation.inputs if value in self.of_image), None)

    def weight(self, operation: Operation) -> Value | None:
        """The matrix or kernel of a convolution or linear layer; None where a product is one of data."""
        sized = [value for value in self.parameters(operation) if len(value.shape) > 1]
        return max(sized, key=lambda value: value.elements, default=None)

    @cached_property
    def of_image(self) -> frozenset[int]:
        """The values that depend on the image."""
        found = set(self.graph.inputs)
        for operation in self.graph.operations:
            if not found.isdisjoint(operation.inputs):
                found.update(operation.outputs)
        return frozenset(found)

    @cached_property
    def useful(self) -> frozenset[int]:
        """The operations that what the network returns depends on."""
        return self.behind(self.graph.outputs)

    def behind(self, values: Sequence[int]) -> frozenset[int]:
        """The operations that some values depend on."""
        wanted, found = list(values), set[int]()
        while wanted:
            operation = self._by(wanted.pop())
            if operation is not None and operation.index not in found:
                found.add(operation.index)
                wanted += operation.inputs
        return frozenset(found)

    @cached_property
    def layers(self) -> tuple[Operation, ...]:
        """The convolutions and linear layers that work on the image's data with weights of their own, in order."""
        return tuple(
            operation
            for operation in self.graph.operations
            if operation.name in WEIGHING and self.weight(operation) is not None and self.data(operation) is not None
        )

    @cached_property
    def layers_index(self) -> frozenset[int]:
        """Indices of `layers`."""
        return frozenset(operation.index for operation in self.layers)

    def depth(self) -> int:
        """How many layers with weights lie on the shortest way from the image to the output."""
        steps = dict.fromkeys(self.graph.inputs, 0)
        for operation in self.graph.operations:
            ways = [steps[value] for value in operation.inputs if value in steps]
            if ways:
                steps.update(dict.fromkeys(operation.outputs, min(ways) + (operation.index in self.layers_index)))
        return max((steps.get(value, 0) for value in self.graph.outputs), default=0)

    def over_images(self, operation: Operation) -> bool:
        """Whether it is a batch norm over the images of a batch; an instance norm is one over a single "image"."""
        data = self.data(operation) if operation.name in BATCH_NORMS else None
        images = self.graph.values[self.graph.inputs[0]].shape[:1]
        return data is not None and self.graph.values[data].shape[:1] == images

    def logits(self, classes: int | None = None) -> Value | None:
        """What the loss is taken of: the first output with one number a class, else the first that is no scalar."""
        outputs = [value for index in self.graph.outputs if (value := self.graph.values[index]).shape]
        fitting = [value for value in outputs if classes is not None and value.shape[1:] == (classes,)]
        return next(iter((*fitting, *outputs)), None)

    def end(self, classes: int | None = None) -> Operation | None:
        """The operation that made the logits."""
        logits = self.logits(classes)
        return None if logits is None else self.maker(logits.index)

    def _by(self, value: int) -> Operation | None:
        index = self._producer.get(value)
        return None if index is None else self.graph.operations[index]


def kernel(weight: Value) -> tuple[int, ...]:
    """The sides of a convolution's kernel; (1,) for a matrix."""
    return weight.shape[2:] or (1,)


def dense(operation: Operation) -> bool:
    """Whether every output channel reads every input channel."""
    return operation.arguments.get("groups", 1) == 1
