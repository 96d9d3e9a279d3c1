"""What a network holds and costs: parameters, multiply-adds, memory and receptive field, of each layer and in all.

All but parameters is read from a pass over tensors without data (see `graph`), which needs no memory, works for any
module and leaves it as it was. What cannot be known is None, and a sentence says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parameter import is_lazy

from convsmith.errors import UsageError
from convsmith.networks.counting.discards import discarded
from convsmith.networks.counting.macs import macs_of
from convsmith.networks.counting.memory import inference_bytes, kept_by_call
from convsmith.networks.receptive import Field, Fields, receptive_fields
from convsmith.networks.recording.graph import Graph, Operation, record
from convsmith.networks.recording.imagined import ValuesNeeded
from convsmith.networks.recording.untouched import undisturbed, zeros

FUNCTIONAL = "functional"
"""The type of a row for what a module that has others within it computes itself."""


@dataclass(frozen=True)
class Parameters:
    """How many numbers a network holds.

    Args:
        trainable: those the optimiser may change; shared ones count once.
        total: trainable and frozen ones; buffers, such as batch norm's running statistics, are not parameters.
    """

    trainable: int
    total: int

    @property
    def frozen(self) -> int:
        """Those that the optimiser may not change."""
        return self.total - self.trainable


@dataclass(frozen=True)
class Layer:
    """A call of a module that calls no other, or what one that does computes itself.

    Args:
        call: index in `Graph.calls`.
        path, type: of the module; the type is `FUNCTIONAL` for the work of a module that has others within it.
        output: shape of what it returns, the batch first; None where that is no tensor.
        parameters: that are used first here.
        macs: multiply-adds for the batch; None where a product's are not known.
        activation_bytes: what training keeps because of this call and not because of one before it.
        discards: of the numbers that came in, the share that is not read, or has no room in what comes out; None where
            no convolution, pooling or resampling makes the image smaller. Slicing is not looked at.
        field: receptive field of what it returns.
    """

    call: int
    path: str
    type: str
    output: tuple[int, ...] | None
    parameters: int
    macs: int | None
    activation_bytes: int | None
    discards: float | None
    field: Field | None


@dataclass(frozen=True)
class Analysis:
    """What is known of a network without running it.

    Args:
        name: as it was given.
        shape: of one image, `(channels, height, width)`.
        batch: images in the recorded pass; all counts are for the batch.
        graph: of the pass.
        layers: in the order of their calls.
        parameters: of the whole network, unused ones included.
        unused: names of the parameters that the pass does not read.
        macs: multiply-adds; None where a product's are not known.
        unknown: a sentence for all that is not known.
        fields: receptive fields of all values.
        activation_bytes: what training keeps between the forward and the backward pass, also in modules that are only
            called in training; None where the network cannot be trained so.
        inference_bytes: the most memory at any moment of the pass.
    """

    name: str
    shape: tuple[int, ...]
    batch: int
    graph: Graph
    layers: tuple[Layer, ...]
    parameters: Parameters
    unused: tuple[str, ...]
    macs: int | None
    unknown: tuple[str, ...]
    fields: Fields
    activation_bytes: int | None
    inference_bytes: int

    def to_json(self) -> dict[str, Any]:
        """All but the graph, in plain types."""
        return {
            "name": self.name,
            "input": list(self.shape),
            "batch": self.batch,
            "parameters": {**asdict(self.parameters), "frozen": self.parameters.frozen},
            "unused": list(self.unused),
            "macs": self.macs,
            "activation_bytes": self.activation_bytes,
            "inference_bytes": self.inference_bytes,
            "gates": list(self.fields.gates),
            "unknown": list(self.unknown),
            "layers": [asdict(layer) for layer in self.layers],
        }


def analyse(model: nn.Module, shape: Sequence[int], *, name: str = "", batch: int = 1) -> Analysis:
    """Find out what a network holds and costs, without running it.

    Args:
        model: any module that takes one tensor; left as it was.
        shape: of one image, `(channels, height, width)`.
        name: to be shown.
        batch: images at once.

    Raises:
        UsageError: the network asks for values of the image, or fails on images of this size.
    """
    graph = record(model, shape, batch=batch)
    macs, fields = macs_of(graph), receptive_fields(graph)
    unknown = [*_unknown_products(graph, macs), *_unknown_fields(graph, fields)]
    try:
        kept = _kept(model, shape, batch)
    except UsageError as error:
        kept = None
        unknown.append(f"What training keeps is not known: {error.message}")
    read = {value.name for value in graph.values if value.kind == "parameter"}
    return Analysis(
        name, tuple(shape), batch, graph, tuple(_layers(graph, macs, fields, kept)), count_parameters(model),
        tuple(name for name, _ in model.named_parameters() if name not in read),
        None if None in macs.values() else sum(filter(None, macs.values())), tuple(unknown), fields,
        None if kept is None else sum(kept.values()), inference_bytes(graph, model),
    )  # fmt: skip


def count_parameters(model: nn.Module) -> Parameters:
    """Count a model's parameters; those not yet given a shape (lazy modules) count as none."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters() if not is_lazy(p)]
    return Parameters(sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes))


def count_macs(model: nn.Module, input_shape: Sequence[int]) -> int | None:
    """Count the multiply-adds of convolutions and products for one input, in inference mode; see `macs`.

    Args:
        model: any module.
        input_shape: shape of one input without the batch, `(channels, height, width)` for an image.

    Returns:
        None where the network holds a product of a kind whose multiply-adds are not known.
    """
    found = macs_of(record(model, input_shape)).values()
    return None if None in found else sum(filter(None, found))


def activation_bytes(model: nn.Module, input_shape: Sequence[int], batch: int, *, probe: int = 4) -> int:
    """The bytes that a training step keeps between its forward and backward pass.

    What autograd keeps is summed, each storage once, the network's own left out. The gradients' own temporary memory
    and the workspace of kernels come on top. A network that needs real images, since it asks for their values or uses
    other libraries, is run with `probe` of them, and the result scaled.

    Args:
        model: any module whose output, or outputs, are tensors.
        input_shape: shape of one input without the batch.
        batch: inputs per step, at least 2 where there is batch norm.
        probe: inputs in a measured pass, at least 2, since batch norm refuses to train on a single value.
    """
    try:
        return sum(kept_by_call(model, input_shape, batch=batch).values())
    except UsageError:
        return round(_measured_bytes(model, (probe, *input_shape)) * batch / probe)


def _measured_bytes(model: nn.Module, shape: tuple[int, ...]) -> int:
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor  # held by the graph until the output dies, so that no address is used twice

    with undisturbed(model, training=True), torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(zeros(model, shape))
        total = sum(saved.values())
        del output
    return total


def _kept(model: nn.Module, shape: Sequence[int], batch: int) -> Mapping[tuple[str, int], int]:
    """What training keeps because of each call. Batch norm does not train on one number: that is two less one more."""
    try:
        return kept_by_call(model, shape, batch=batch)
    except ValuesNeeded:
        raise
    except UsageError:
        if batch > 1:
            raise
    two, three = (kept_by_call(model, shape, batch=size) for size in (2, 3))
    return {call: 2 * size - three[call] for call, size in two.items()}


def _unknown_products(graph: Graph, macs: Mapping[int, int | None]) -> list[str]:
    unknown = (graph.operations[index] for index, count in macs.items() if count is None)
    places = dict.fromkeys((operation.module or "The network", operation.target) for operation in unknown)
    return [f"{module} computes {target}, whose multiply-adds are not known here." for module, target in places]


def _unknown_fields(graph: Graph, fields: Fields) -> list[str]:
    values = (*(value for call in graph.calls if call.leaf for value in call.outputs), *graph.outputs)
    reasons = dict.fromkeys(fields.reason(value) for value in values if fields.unknown(value))
    return [f"Receptive fields get lost: {reason}." for reason in reasons]


def _discards(operations: Sequence[Operation], graph: Graph, fields: Fields) -> float | None:
    """The most that one of these operations discards; a gate's look at all of the image takes nothing away."""
    shares: list[float] = []
    for operation in operations:
        share = discarded(operation, graph)
        gate = any(f"{operation.module}.".startswith(f"{path}.") for path in fields.gates)
        if share is not None and not (gate and set(graph.values[operation.outputs[0]].shape[2:]) <= {1}):
            shares.append(share)
    return max(shares, default=None)


def _layers(
    graph: Graph, macs: Mapping[int, int | None], fields: Fields, kept: Mapping[tuple[str, int], int] | None
) -> list[Layer]:
    """A row for each call that calls no other, and for each other call that costs something by itself."""
    own: dict[int, list[Operation]] = {call.index: [] for call in graph.calls}
    parameters = Counter[int]()
    seen: set[int] = set()
    for operation in graph.operations:
        own.setdefault(operation.call, []).append(operation)
        for value in (graph.values[index] for index in operation.inputs if index not in seen):
            parameters[operation.call] += value.elements if value.kind == "parameter" else 0
        seen.update(operation.inputs)
    times = Counter[str]()
    rows: list[tuple[int, Layer]] = []
    for call in graph.calls:
        counts = [macs[operation.index] for operation in own[call.index] if operation.index in macs]
        discards = _discards(own[call.index], graph, fields)
        bytes_kept = None if kept is None else kept.get((call.path, times[call.path]), 0)
        times[call.path] += 1
        if call.leaf or counts or discards is not None or bytes_kept or parameters[call.index]:
            returned = call.outputs if call.leaf else own[call.index][-1].outputs if own[call.index] else ()
            layer = Layer(
                call.index, call.path, call.type if call.leaf else FUNCTIONAL,
                graph.values[returned[0]].shape if returned else None, parameters[call.index],
                None if None in counts else sum(filter(None, counts)), bytes_kept, discards,
                fields.of(returned[0]) if returned else None,
            )  # fmt: skip
            place = call.start if call.leaf or not own[call.index] else own[call.index][-1].index
            rows.append((place, layer))
    return [layer for _, layer in sorted(rows, key=lambda row: row[0])]
