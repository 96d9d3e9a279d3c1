"""Rules about what follows what: biases, norms, activations, dropout, and what stands at the end."""

from __future__ import annotations

from collections.abc import Iterator

from convsmith.networks.lint.rule import Evidence, Example, Rule, Seen, named, plural
from convsmith.networks.lint.trail import (
    ACTIVATIONS,
    BATCH_NORMS,
    NORMS,
    POOLS,
    RECTIFIERS,
    SATURATING,
    WEIGHING,
    Trail,
    dense,
)
from convsmith.networks.recording.graph import Operation

DEEP_WITHOUT_SHORTCUT = 50
SATURATED = 5


def _bias_before_norm(evidence: Evidence) -> Seen | None:
    trail, wasted, places = evidence.inference, 0, []
    for operation in trail.layers:
        bias = trail.given(operation, "bias") if operation.name == "convolution" else trail.given(operation, "self")
        if bias is None or bias.kind != "parameter" or len(bias.shape) != 1:
            continue
        readers = list(trail.readers(operation.outputs[0]))
        if readers and all(reader.name in BATCH_NORMS for reader in readers):
            wasted += bias.elements
            places.append(operation.module)
    if not places:
        return None
    return Seen(
        f"{plural(len(places), 'layer')} with a bias that the batch norm behind takes out again: {named(places)}. "
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


def _dropout_before_norm(evidence: Evidence) -> Seen | None:
    trail = evidence.training
    if trail is None:
        return None
    passing = WEIGHING | ACTIVATIONS | POOLS | {"add", "mul", "div", "cat"}
    places = []
    for dropped in _dropouts(trail):
        found = _reached(trail, dropped, passing, BATCH_NORMS)
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
    return _ended(evidence, RECTIFIERS | SATURATING, "an activation")


def _dropout_on_logits(evidence: Evidence) -> Seen | None:
    trail = evidence.training
    if trail is None:
        return None
    places = [end.module for end in trail.ends() for dropped in _dropouts(trail) if end.index == dropped.index]
    if not places:
        return None
    return Seen(f"Dropout is the last thing that happens to the logits ({named(places)}).", tuple(places))


def _linear_chain(evidence: Evidence) -> Seen | None:
    trail, places = evidence.inference, []
    for operation in trail.layers:
        data = trail.data(operation)
        before = trail.maker(data) if data is not None else None
        if before is None or before.index not in trail.layers_index or not (dense(operation) and dense(before)):
            continue
        first, second = trail.weight(before), trail.weight(operation)
        readers = list(trail.readers(before.outputs[0]))
        if first is None or second is None or len(readers) > 1 or before.name != operation.name:
            continue
        between = _outputs(before, trail)
        room = min(first.elements // between, second.elements // between)
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
    places = [end.module for end in evidence.inference.ends() if end.name in names]
    return Seen(f"The network ends in {what} ({named(places)}).", tuple(places)) if places else None


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


def _reached(trail: Trail, start: Operation, passing: set[str], wanted: set[str]) -> Operation | None:
    """The first operation among `wanted` that is reached through operations of `passing` alone."""
    waiting, seen = list(start.outputs[:1]), set[int]()
    while waiting:
        for reader in trail.readers(waiting.pop()):
            if reader.name in wanted:
                return reader
            if reader.name in passing and reader.index not in seen:
                seen.add(reader.index)
                waiting += reader.outputs[:1]
    return None


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
        "that one cannot, at a higher price. Nothing is said where there are fewer channels between them, which is a "
        "factorisation that saves work.",
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
