"""Multiply-adds of each operation of a network.

Convolutions, products of matrices and attention are counted, as is the habit in papers (He et al. 2016, table 1);
norms, activations, pooling, interpolation and other element-wise work is not. Products with the zeros of a padding are
counted, as everyone does. A kind of product whose multiply-adds depend on the algorithm, or that is not known here,
has none rather than a wrong number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import prod

from convsmith.networks.recording.graph import WRITTEN, Graph, Operation, Ref

Formula = Callable[[Operation, Graph], int]


def macs_of(graph: Graph) -> Mapping[int, int | None]:
    """Multiply-adds of the operations that are products, by their index.

    Returns:
        the count for the recorded batch; None where what is computed is a product of a kind that is not known.
    """
    found: dict[int, int | None] = {}
    for operation in graph.operations:
        formula = FORMULAS.get(_kind(operation.name))
        if formula is not None:
            found[operation.index] = formula(operation, graph)
        elif _unknown_product(operation):
            found[operation.index] = None
    return found


def _shape(operation: Operation, graph: Graph, argument: str) -> tuple[int, ...]:
    reference = operation.arguments[argument]
    if not isinstance(reference, Ref):
        raise TypeError(f"{operation.target}: {argument} is {reference!r}, and a tensor was expected.")
    return graph.values[reference.index].shape


def _made(operation: Operation, graph: Graph) -> int:
    return graph.values[operation.outputs[0]].elements


def _convolution(operation: Operation, graph: Graph) -> int:
    weight = _shape(operation, graph, "weight")
    if operation.arguments.get("transposed"):  # each number of the input meets all weights of its channel
        return prod(_shape(operation, graph, "input")) * prod(weight[1:])
    return _made(operation, graph) * prod(weight[1:])


def _inner(argument: str) -> Formula:
    """Each number of the result is a sum over the last dimension of this matrix."""
    return lambda operation, graph: _made(operation, graph) * _shape(operation, graph, argument)[-1]


def _all_of(argument: str) -> Formula:
    """Each number of this tensor is used once."""
    return lambda operation, graph: prod(_shape(operation, graph, argument))


def _addbmm(operation: Operation, graph: Graph) -> int:
    return prod(_shape(operation, graph, "batch1")) * _shape(operation, graph, "batch2")[-1]


def _dot_product_attention(operation: Operation, graph: Graph) -> int:
    """Queries times keys, and the shares times the values; a mask saves nothing."""
    queries, values = _shape(operation, graph, "query"), _shape(operation, graph, "value")
    return prod(queries[:-1]) * values[-2] * (queries[-1] + values[-1])


def _recurrent_layer(operation: Operation, graph: Graph) -> int:
    """Each position meets the weights of the input and those of the state before it."""
    positions = prod(_shape(operation, graph, "input")[:-1])
    return positions * (prod(_shape(operation, graph, "weight0")) + prod(_shape(operation, graph, "weight1")))


FORMULAS: Mapping[str, Formula] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "cudnn_convolution": _convolution,
    "deform_conv2d": _convolution,
    "mm": _inner("self"),
    "bmm": _inner("self"),
    "mv": _all_of("self"),
    "dot": _all_of("self"),
    "vdot": _all_of("self"),
    "addmm": _inner("mat1"),
    "_addmm_activation": _inner("mat1"),
    "baddbmm": _inner("batch1"),
    "addmv": _all_of("mat"),
    "addbmm": _addbmm,
    "linear": _inner("input"),
    "mkldnn_rnn_layer": _recurrent_layer,
    "scaled_dot_product": _dot_product_attention,
}
"""What a product costs, by the name of the operation."""

_PRODUCT = re.compile(
    r"(^|_)(\w?mm|\w?mv|matmul|conv|conv\dd|convolution|attention|rnn|lstm|gru|einsum|tensordot|trilinear|dist|cdist|fft"
    r"|linalg|inverse|cholesky|qr|svd|lu)(_|$)"
)
_LIBRARIES = {"aten", "prims", "prim", "torchvision", WRITTEN}
_ELEMENTWISE = {"linalg_vector_norm", "linalg_cross"}


def _kind(name: str) -> str:
    """The name of an operation; one for all of attention's, of which each device has its own."""
    return "scaled_dot_product" if name.startswith("_scaled_dot_product_") else name


def _unknown_product(operation: Operation) -> bool:
    if operation.target.split(".")[0] not in _LIBRARIES:
        return True
    return operation.name not in _ELEMENTWISE and _PRODUCT.search(operation.name) is not None
