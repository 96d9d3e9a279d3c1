"""Rules about what follows what: biases, norms, activations, dropout, and what stands at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from convsmith.networks.lint.rule import Evidence, Example, Rule, Seen, named, plural
from convsmith.networks.lint.trail import (
    ACTIVATIONS,
    BATCH_NORMS,
    NORMS,
    POOLS,
    SATURATING,
    WEIGHING,
    Trail,
    dense,
    kernel,
)
from convsmith.networks.recording.graph import Operation, Value

DEEP_WITHOUT_SHORTCUT = 50
SATURATED = 5
CLAMPS = {"hardtanh", "clamp", "clamp_min", "clamp_max"}
WIDE = 10.0
"""Units between bounds, from which on they leave room for a confident answer: e ** 10 to one."""


def _bias_before_norm(evidence: Evidence) -> Seen | None:
    trail, wasted, places, kinds = evidence.inference, 0, [], set[str]()
    for operation in trail.layers:
        bias = trail.given(operation, "bias") if operation.name == "convolution" else trail.given(operation, "self")
        if bias is None or bias.kind != "parameter" or len(bias.shape) != 1:
            continue
        readers = list(trail.readers(operation.outputs[0]))
        if readers and all(reader.name in BATCH_NORMS for reader in readers):
            wasted += bias.elements
            places.append(operation.module)
            kinds |= {"batch norm" if trail.over_images(reader) else "instance norm" for reader in readers}
    if not places:
        return None
    norm = kinds.pop() if len(kinds) == 1 else "norm"
    return Seen(
        f"{plural(len(places), 'layer')} with a bias that the {norm} behind takes out again: {named(places)}. "
        f"{plural(wasted, 'parameter')} do nothing.",
        tuple(places), {"parameters": wasted},
    )  # fmt: skip


def _norm_after_activation(evidence: Evidence) -> Seen | None:
    trail, places = evidence.inference, []
    for operation in _norms(trail, BATCH_NORMS):
        data = trail.data(operation)
        maker = trail.maker(data) if data is not None else None
        if maker is not None and maker.name in ACTIVATIONS:
            places.append(operation.module)
    if not places:
        return None
    return Seen(f"{plural(len(places), 'norm')} directly behind an activation: {named(places)}.", tuple(places))


def _norm_after_norm(evidence: Evidence) -> Seen | None:
    trail, places = evidence.inference, []
    for operation in _norms(trail, NORMS):
        data = trail.data(operation)
        maker = trail.maker(data) if data is not None else None
        if data is None or maker is None or maker.name != operation.name:
            continue
        alone = len(list(trail.readers(maker.outputs[0]))) == 1
        if alone and trail.graph.values[maker.outputs[0]].shape == trail.graph.values[data].shape:
            places.append(f"{operation.module} behind {maker.module}")
    if not places:
        return None
    return Seen(f"{plural(len(places), 'norm')} directly behind another of its kind: {named(places)}.", tuple(places))


def _dropout_before_norm(evidence: Evidence) -> Seen | None:
    trail = evidence.training
    if trail is None:
        return None
    passing = WEIGHING | ACTIVATIONS | POOLS | {"add", "mul", "div", "cat"}
    places = []
    for dropped in _dropouts(trail):
        found = _reached(trail, dropped, passing, trail.over_images)
        if found is not None:
            places.append(f"{dropped.module} before {found.module}")
    if not places:
        return None
    return Seen(f"Dropout feeds a batch norm: {named(places)}.", tuple(places))


def _softmax_before_loss(evidence: Evidence) -> Seen | None:
    return _ended(evidence, {"_softmax", "softmax", "_safe_softmax"}, "a softmax")


def _log_softmax_before_loss(evidence: Evidence) -> Seen | None:
    return _ended(evidence, {"_log_softmax", "log_softmax"}, "a log-softmax")


def _activation_on_logits(evidence: Evidence) -> Seen | None:
    return _ended(evidence, ACTIVATIONS | CLAMPS, "an activation")


def _dropout_on_logits(evidence: Evidence) -> Seen | None:
    trail = evidence.training
    if trail is None:
        return None
    end = trail.end(evidence.classes)
    if end is None or all(end.index != dropped.index for dropped in _dropouts(trail)):
        return None
    return Seen(f"Dropout is the last thing that happens to the logits ({named([end.module])}).", (end.module,))


def _linear_chain(evidence: Evidence) -> Seen | None:
    trail, places = evidence.inference, []
    for operation in trail.layers:
        before = _only_behind(operation, trail)
        if before is None or before.index not in trail.layers_index or not (dense(operation) and dense(before)):
            continue
        first, second = trail.weight(before), trail.weight(operation)
        if first is None or second is None or before.name != operation.name:
            continue
        between = _outputs(before, trail)
        room = min(first.elements // between, second.elements // between)
        if _same_way(first, second):
            room = min(_inputs(before, trail), _outputs(operation, trail))
        elif before not in (trail.maker(value) for value in operation.inputs):  # a linear bottleneck ends in a norm
            continue
        if between >= room:  # fewer channels between would be a factorisation, which saves something
            places.append(f"{before.module} and {operation.module}")
    if not places:
        return None
    return Seen(f"Two linear layers with nothing between them are one: {named(places)}.", tuple(places))


def _saturating(evidence: Evidence) -> Seen | None:
    trail = evidence.inference
    if any(operation.name in NORMS for operation in trail.graph.operations):
        return None
    places = []
    for operation in trail.graph.operations:
        data = trail.data(operation) if operation.name in SATURATING else None
        maker = trail.maker(data) if data is not None else None
        if maker is not None and maker.index in trail.layers_index:
            readers = [reader.name for reader in trail.readers(operation.outputs[0])]
            if "mul" not in readers:  # a gate
                places.append(operation.module)
    if len(places) < SATURATED:
        return None
    return Seen(
        f"{len(places)} layers end in sigmoid or tanh, and no norm keeps their inputs near 0: {named(places)}.",
        tuple(places), {"layers": len(places)},
    )  # fmt: skip


def _deep_without_shortcut(evidence: Evidence) -> Seen | None:
    depth = evidence.inference.depth()
    if depth < DEEP_WITHOUT_SHORTCUT:
        return None
    return Seen(
        f"The shortest way from the image to the output leads through {depth} layers with weights.",
        (), {"depth": depth, "threshold": DEEP_WITHOUT_SHORTCUT},
    )  # fmt: skip


def _ended(evidence: Evidence, names: set[str], what: str) -> Seen | None:
    trail = evidence.training or evidence.inference  # the loss is taken of what is returned in training
    end = trail.end(evidence.classes)
    if end is None or end.name not in names or (end.name in CLAMPS and not _confining(end)):
        return None
    return Seen(f"The network ends in {what} ({named([end.module])}).", (end.module,))


def _confining(operation: Operation) -> bool:
    """Whether bounds allow numbers of one sign only, or such as lie close together."""
    low, high = (operation.arguments.get(name, operation.arguments.get(f"{name}_val")) for name in ("min", "max"))
    if any(not isinstance(bound, (int, float)) for bound in (low, high) if bound is not None):
        return False
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    return bounds[0] >= 0 or bounds[1] <= 0 or bounds[1] - bounds[0] < WIDE


def _norms(trail: Trail, names: set[str]) -> Iterator[Operation]:
    for operation in trail.graph.operations:
        if operation.name in names:
            yield operation


def _dropouts(trail: Trail) -> list[Operation]:
    """The operations whose results have numbers, and not whole images, set to zero at random."""
    found = []
    for operation in trail.graph.operations:
        if operation.name == "native_dropout":
            found.append(operation)
        elif operation.name == "bernoulli":
            mask = trail.graph.values[operation.outputs[0]]
            if mask.elements > mask.shape[0]:  # else whole branches: stochastic depth
                products = (reader for reader in trail.readers(mask.index) if reader.name == "mul")
                scaled = (
                    r for one in trail.readers(mask.index) if one.name == "div" for r in trail.readers(one.outputs[0])
                )
                found += [*products, *(reader for reader in scaled if reader.name == "mul")]
    return found


def _reached(
    trail: Trail, start: Operation, passing: set[str], wanted: Callable[[Operation], bool]
) -> Operation | None:
    """The first operation that is `wanted` and is reached through operations of `passing` alone."""
    waiting, seen = list(start.outputs[:1]), set[int]()
    while waiting:
        for reader in trail.readers(waiting.pop()):
            if wanted(reader):
                return reader
            if reader.name in passing and reader.index not in seen:
                seen.add(reader.index)
                waiting += reader.outputs[:1]
    return None


def _only_behind(operation: Operation, trail: Trail) -> Operation | None:
    """What made the input of an operation, batch norms aside, and is read by nothing else."""
    while (data := trail.data(operation)) is not None:
        maker = trail.maker(data)
        if maker is None or len(list(trail.readers(maker.outputs[0]))) > 1:
            return None
        if not trail.over_images(maker):
            return maker
        operation = maker
    return None


def _same_way(first: Value, second: Value) -> bool:
    """Whether two kernels look around along the same axis: not so 1xk and kx1, or one that looks at a place alone."""
    return any(min(sides) > 1 for sides in zip(kernel(first), kernel(second), strict=False))


def _inputs(operation: Operation, trail: Trail) -> int:
    data = trail.data(operation)
    assert data is not None
    return trail.graph.values[data].shape[1 if operation.name == "convolution" else -1]


def _outputs(operation: Operation, trail: Trail) -> int:
    return trail.graph.values[operation.outputs[0]].shape[1 if operation.name == "convolution" else -1]


_TAIL = "gap | flatten | linear 10"
_PLAIN = "conv 16 k3 p1 | relu | "

ORDER_RULES = (
    Rule(
        "bias-before-norm", "hint", "A bias that batch norm takes out again", _bias_before_norm,
        why="Batch norm subtracts the mean of each channel, and with it whatever the layer before has added; its own "
        "shift does the bias's work. The bias costs memory and time and has no gradient.",
        mend="Make the layer before the norm without a bias: `bias=False`, or `nobias` in a written line.",
        source="Ioffe & Szegedy 2015, “Batch normalization”, section 3.2",
        broken=Example(f"conv 16 k3 p1 | bn | relu | {_TAIL}"),
        healthy=Example(f"conv 16 k3 p1 nobias | bn | relu | {_TAIL}"),
    ),
    Rule(
        "norm-after-activation", "hint", "Batch norm behind an activation", _norm_after_activation,
        why="A rectifier's output has no negative numbers, so its distribution is lopsided, and a norm makes it "
        "neither symmetric nor Gaussian; before the activation, where it belongs by the paper, it decides which half "
        "of the numbers passes. Some networks train as well this way round: it is a hint.",
        mend="Put the norm between the layer and its activation.",
        source="Ioffe & Szegedy 2015, “Batch normalization”, section 3.2",
        broken=Example(f"conv 16 k3 p1 | relu | bn | {_TAIL}"),
        healthy=Example(f"conv 16 k3 p1 nobias | bn | relu | {_TAIL}"),
    ),
    Rule(
        "norm-after-norm", "hint", "A norm behind a norm", _norm_after_norm,
        why="What the first one has shifted and scaled, the second shifts and scales anew, so the first does nothing "
        "but cost time, and its parameters have hardly any gradient; mostly a layer between was forgotten.",
        mend="Take one of them out, or put the layer that was meant between them.",
        source="Ioffe & Szegedy 2015, “Batch normalization”, section 3: a normalised activation stays so",
        broken=Example(f"conv 16 k3 p1 nobias | bn | bn | relu | {_TAIL}"),
        healthy=Example(f"conv 16 k3 p1 nobias | bn | relu | {_TAIL}"),
    ),
    Rule(
        "dropout-before-norm", "warning", "Dropout that feeds a batch norm", _dropout_before_norm,
        why="Dropout changes the variance of what it passes on in training and not in use, so the running variance "
        "that the norm has gathered is wrong when the network predicts.",
        mend="Move dropout behind the last batch norm, or drop whole branches instead (stochastic depth).",
        source="Li et al. 2019, “Understanding the disharmony between dropout and batch normalization”",
        broken=Example(f"conv 16 k3 p1 | relu | dropout 0.3 | conv 16 k3 p1 nobias | bn | relu | {_TAIL}"),
        healthy=Example("conv 16 k3 p1 nobias | bn | relu | gap | flatten | dropout 0.3 | linear 10"),
    ),
    Rule(
        "softmax-before-loss", "error", "A softmax before the cross-entropy", _softmax_before_loss,
        why="Cross-entropy takes logits and applies a softmax of its own. A softmax of a softmax can name no class "
        "with more than e / (e + K - 1), 23 % for ten classes; gradients are small everywhere, and the loss ends far "
        "above zero while the curves look healthy.",
        mend="Return the logits, and apply softmax only where probabilities are shown.",
        source="Bridle 1990, “Probabilistic interpretation of feedforward classification network outputs”",
        broken=Example(f"{_PLAIN}{_TAIL} | softmax"),
        healthy=Example(f"{_PLAIN}{_TAIL}"),
    ),
    Rule(
        "log-softmax-before-loss", "hint", "A log-softmax before the cross-entropy", _log_softmax_before_loss,
        why="Log-softmax of a log-softmax is the same numbers again, so nothing is wrong but the name: what is "
        "returned are no logits, and the work is done twice.",
        mend="Return the logits, or train with the negative log-likelihood.",
        source="log-softmax is idempotent: its exponentials sum to 1 already",
        broken=Example(f"{_PLAIN}{_TAIL} | log-softmax"),
        healthy=Example(f"{_PLAIN}{_TAIL}"),
    ),
    Rule(
        "activation-on-logits", "warning", "An activation on the logits", _activation_on_logits,
        why="Logits are evidence for and against. A rectifier deletes what speaks against a class, and where it is at "
        "zero, nothing is learnt; a sigmoid keeps logits within one unit of each other, so no class of ten can get "
        "more than 23 %.",
        mend="Take the activation off the last layer.",
        source="Karpathy 2019, “A recipe for training neural networks”",
        broken=Example(f"{_PLAIN}{_TAIL} | relu"),
        healthy=Example(f"{_PLAIN}{_TAIL}"),
    ),
    Rule(
        "dropout-on-logits", "warning", "Dropout on the logits", _dropout_on_logits,
        why="Dropout behind the last layer sets logits to zero at random, that of the true class too: no features "
        "become more robust by it, the loss becomes noise.",
        mend="Move it in front of the last layer.",
        source="Srivastava et al. 2014, “Dropout”, section 4: dropout is applied to the inputs of a layer",
        broken=Example(f"{_PLAIN}{_TAIL} | dropout 0.5"),
        healthy=Example(f"{_PLAIN}gap | flatten | dropout 0.5 | linear 10"),
    ),
    Rule(
        "linear-chain", "warning", "Two linear layers with nothing between", _linear_chain,
        why="The product of two matrices is a matrix: without an activation between, two layers can express nothing "
        "that one cannot, at a higher price. A batch norm between two kernels that look around changes nothing of it. "
        "Nothing is said where fewer channels lie between them, or one kernel looks along and the other across: a "
        "factorisation saves work.",
        mend="Put an activation (and a norm) between them, or make them one.",
        source="Goodfellow, Bengio & Courville 2016, “Deep learning”, section 6.1",
        broken=Example("conv 32 k3 p1 | conv 32 k3 p1 | relu | gap | flatten | linear 10"),
        healthy=Example("conv 32 k3 p1 | relu | conv 32 k3 p1 | relu | gap | flatten | linear 10"),
    ),
    Rule(
        "saturating-activations", "warning", "Many sigmoids or tanhs in a row", _saturating,
        why="Where a sigmoid is flat its gradient is near zero, and it is a quarter at the most: through many of them, "
        "the first layers learn next to nothing.",
        mend="Use ReLU or SiLU, with a norm before it.",
        source="Glorot & Bengio 2010, “Understanding the difficulty of training deep feedforward neural networks”",
        broken=Example("conv 8 k3 p1 | sigmoid | " * 6 + _TAIL),
        healthy=Example("conv 8 k3 p1 | relu | " * 6 + _TAIL),
    ),
    Rule(
        "deep-without-shortcut", "warning", "A deep network without shortcuts", _deep_without_shortcut,
        why="Deep plain networks train worse than shallow ones, even on their training images: of He et al. 56 "
        "layers were worse than 20, and 34 than 18. The rule speaks from 50 on; some networks of 34 are trained well.",
        mend="Add the input of each block to its output (a residual block), or use fewer layers.",
        source="He et al. 2016, “Deep residual learning for image recognition”, figures 1 and 4",
        broken=Example("conv 8 k3 p1 nobias | bn | relu | " * 52 + _TAIL),
        healthy=Example("conv 8 k3 p1 nobias | bn | relu | " * 12 + _TAIL),
    ),
)  # fmt: skip
