"""What weights start from: named rules for convolutions and linear layers, fixed ones for norms and biases.

A rule decides how the variance of the signal changes from layer to layer; `networks.signal` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from convsmith.errors import UsageError
from convsmith.networks.recording.graph import Graph, record
from convsmith.networks.winograd import WinogradConv2d
from convsmith.registry import Entry, Registry, suggestion

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, WinogradConv2d)
TRACKING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
            nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)  # fmt: skip
NORMS = (*TRACKING, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
PRODUCTS = ("convolution", "addmm", "mm", "bmm", "baddbmm")


@dataclass(frozen=True)
class Fans:
    """How many values each output of a layer is summed from, and how many outputs each input goes into.

    Those of one group where there are groups, and of the layer rather than of its stored weight where that holds inputs
    first, as a transposed convolution's does. The stride is left out, as in the papers.
    """

    inward: int
    outward: int


@dataclass(frozen=True)
class Started:
    """What a parameter starts from.

    Args:
        name: path of the parameter.
        rule: the name of a rule, a number for a constant, or "as it was" where no rule is for such a parameter.
    """

    name: str
    rule: str


def initialise(
    model: nn.Module,
    name: str,
    *,
    linear: str | None = None,
    activation: str | None = "relu",
    bias: float = 0.0,
    zero: Collection[str] = (),
) -> tuple[Started, ...]:
    """Start a network's parameters anew, in place, by one rule per type of layer.

    Weights of convolutions and linear layers are drawn by the named rules from PyTorch's random state, their biases
    are constant; norms scale by 1 and shift by 0, and their running statistics begin again. Parameters of other layers
    (embeddings, a scale per channel) stay as they were, and the result says so.

    Args:
        model: any network.
        name: a row of `INITIALISATIONS`.
        linear: another one for linear layers; `None` is the same.
        activation: a row of `LAYER_KINDS` that follows the layers, for the gain; `None` is no activation.
        bias: the constant that biases of convolutions and linear layers start from.
        zero: paths of norms that scale by 0 instead of 1; `residual_ends` finds those that end residual branches, so
            that each block starts as its shortcut (Goyal et al. 2017, section 5.1).

    Returns:
        Every parameter, shared ones once, and what it started from.

    Raises:
        UsageError: no such rule or activation, or a path that is no norm's.
    """
    gain = 1.0 if activation is None else gain_of(activation)
    rules = {CONVOLUTIONS: INITIALISATIONS[name].name, nn.Linear: INITIALISATIONS[linear or name].name}
    norms = [path for path, module in model.named_modules() if isinstance(module, NORMS)]
    for path in zero:
        if path not in norms:
            raise UsageError(f"There is no norm at {path!r} to start from zero.", mend=suggestion(path, norms))
    done: dict[int, Started] = {}
    for path, module in model.named_modules():
        rule = next((rule for kind, rule in rules.items() if isinstance(module, kind)), None)
        if isinstance(module, TRACKING):
            module.reset_running_stats()
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) in done:
                continue
            full = f"{path}.{key}" if path else key
            with torch.no_grad():
                started = _start(module, key, parameter, rule, gain, bias=bias, zeroed=path in zero)
            done[id(parameter)] = Started(full, started)
    return tuple(done.values())


def _start(
    module: nn.Module, key: str, parameter: Tensor, rule: str | None, gain: float, *, bias: float, zeroed: bool
) -> str:
    """Fill one parameter and say how."""
    if key == "weight" and rule is not None:
        INITIALISATIONS.build(rule, parameter, module, gain)
        return rule
    constant: float | None = None
    if key == "bias" and rule is not None:
        constant = bias
    elif isinstance(module, NORMS) and key in ("weight", "bias"):
        constant = float(key == "weight" and not zeroed)
    if constant is None:
        return "as it was"
    parameter.fill_(constant)
    return f"{constant:g}"


def gain_of(activation: str) -> float:
    """What weights are multiplied by so that an activation leaves the signal's mean square as it is.

    That is `1 / sqrt(E[f(z)^2])` for normal z, from which He et al. (2015, equations 7 and 15) have sqrt(2) for ReLU;
    it is integrated, so that every activation of the table has one. PyTorch's `calculate_gain` has other figures for
    tanh (5/3) and sigmoid (1). ReLU and leaky ReLU scale with their input, and so keep a signal of any size; the others
    keep one of variance 1, where norms put it, and without norms drift away from it.

    Args:
        activation: a row of `LAYER_KINDS` with that tag.

    Raises:
        UsageError: there is none of this name.
    """
    from convsmith.networks.layers.table import LAYER_KINDS  # whose builders start their weights by the rules here

    known = [name for name, kind in LAYER_KINDS.items() if "activation" in kind.tags]
    if activation not in known:
        raise UsageError(f"There is no activation named {activation!r}.", mend=suggestion(activation, known))
    z = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    values: Tensor = LAYER_KINDS.build(activation)(z[None])[0]
    return 1 / math.sqrt(torch.trapezoid(values.square() * density, z).item())


def fans(module: nn.Module) -> Fans:
    """Count the inputs of an output, and the outputs of an input, of a convolution or linear layer."""
    weight = module.get_parameter("weight")
    groups = int(getattr(module, "groups", 1))
    taps = weight[0, 0].numel()
    # A weight holds one group's channels in its second dimension, and all of the other side's in its first.
    first, second = weight.shape[0] // groups * taps, weight.shape[1] * taps
    return Fans(first, second) if isinstance(module, TRANSPOSED) else Fans(second, first)


def _kaiming(weight: Tensor, module: nn.Module, gain: float, *, outward: bool, uniform: bool) -> None:
    counted = fans(module)
    _draw(weight, gain**2 / (counted.outward if outward else counted.inward), uniform=uniform)


def _xavier(weight: Tensor, module: nn.Module, gain: float, *, uniform: bool) -> None:
    counted = fans(module)  # no gain: the paper's activations have slope 1 at zero
    _draw(weight, 2 / (counted.inward + counted.outward), uniform=uniform)


def _draw(weight: Tensor, variance: float, *, uniform: bool) -> None:
    deviation = math.sqrt(variance)
    if uniform:
        weight.uniform_(-math.sqrt(3) * deviation, math.sqrt(3) * deviation)
    else:
        weight.normal_(0, deviation)


def _orthogonal(weight: Tensor, module: nn.Module, gain: float) -> None:
    """Each group by itself, as a matrix from all the values that it reads to its outputs."""
    turned = isinstance(module, TRANSPOSED)
    for part in weight.chunk(int(getattr(module, "groups", 1))):
        matrix = torch.empty_like(part.transpose(0, 1) if turned else part, memory_format=torch.contiguous_format)
        nn.init.orthogonal_(matrix, gain)
        part.copy_(matrix.transpose(0, 1) if turned else matrix)


def _small(weight: Tensor, module: nn.Module, gain: float) -> None:
    weight.normal_(0, 0.01)


def _kaiming_row(side: str, *, uniform: bool) -> Entry:
    name = f"kaiming-{'uniform' if uniform else 'normal'}-fan-{side}"
    keeps = "the signal on its way in" if side == "in" else "the gradient on its way back"
    build = partial(_kaiming, outward=side == "out", uniform=uniform)
    return Entry(name, build, f"keeps the variance of {keeps}, by the activation's gain", "He et al. 2015, section 2.2")


INITIALISATIONS = Registry(
    "initialisation",
    [
        _kaiming_row("in", uniform=False),
        _kaiming_row("out", uniform=False),
        _kaiming_row("in", uniform=True),
        _kaiming_row("out", uniform=True),
        Entry(
            "xavier-normal",
            partial(_xavier, uniform=False),
            "between the two, without a gain: for tanh and the like",
            "Glorot & Bengio 2010, equation 12",
        ),
        Entry(
            "xavier-uniform",
            partial(_xavier, uniform=True),
            "the same, drawn evenly between two ends",
            "Glorot & Bengio 2010, equation 16",
        ),
        Entry("orthogonal", _orthogonal, "keeps the length of every input", "Saxe et al. 2014"),
        Entry(
            "normal-0.01",
            _small,
            "deviation 0.01 whatever the width: for the last layer",
            "Goyal et al. 2017, section 5.1",
        ),
    ],
)


def residual_ends(model: nn.Module, shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Find the norms that end residual branches: those whose result, perhaps gated, is added to a shallower path.

    Args:
        model: any network.
        shape: of one image, `(channels, height, width)`.

    Returns:
        Their paths, in the order of their calls.

    Raises:
        UsageError: the network fails on such an image.
    """
    graph = record(model, shape)
    producer, depth = graph.producer(), _depths(graph)
    norms = {
        value: call.path
        for call in graph.calls
        for value in call.outputs
        if isinstance(model.get_submodule(call.path), NORMS)
    }
    ends: list[str] = []
    for operation in graph.operations:
        if operation.name != "add" or len(operation.inputs) != 2:
            continue
        shallow, deep = sorted(operation.inputs, key=lambda value: depth[value])
        if depth[shallow] < depth[deep]:
            ends += _ending(graph, producer, norms, deep)
    return tuple(dict.fromkeys(ends))


def _depths(graph: Graph) -> dict[int, int]:
    """For each value, the largest number of convolutions and matrix products on a path to it."""
    depth = {value.index: 0 for value in graph.values}
    for operation in graph.operations:
        deepest = max((depth[value] for value in operation.inputs), default=0)
        for value in operation.outputs:
            depth[value] = deepest + (operation.name in PRODUCTS)
    return depth


def _ending(graph: Graph, producer: Mapping[int, int], norms: Mapping[int, str], value: int) -> Iterator[str]:
    """The norm that makes a value, or one of the factors that make it."""
    if value in norms:
        yield norms[value]
    elif value in producer and graph.operations[producer[value]].name == "mul":
        found = (end for factor in graph.operations[producer[value]].inputs
                 for end in _ending(graph, producer, norms, factor))  # fmt: skip
        yield from list(found)[:1]
