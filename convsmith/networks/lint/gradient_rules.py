"""Rules about what can be learnt: parameters that no gradient reaches, and networks that are one linear map."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from convsmith.networks.lint.rule import IMAGES, Evidence, Example, Rule, Seen, named, plural
from convsmith.networks.lint.trail import BATCH_NORMS, MOVED, WEIGHING, Trail
from convsmith.networks.recording.graph import Operation, Ref
from convsmith.networks.recording.imagined import imagined, tensors_in

LINEAR = MOVED | WEIGHING | BATCH_NORMS | {
    "add", "sub", "neg", "cat", "stack", "mean", "sum", "avg_pool2d", "_adaptive_avg_pool2d", "mul", "div", "slice",
    "select", "split", "split_with_sizes", "constant_pad_nd", "upsample_bilinear2d", "upsample_nearest2d",
}  # fmt: skip
"""Operations that are linear in one input, or affine."""
JOINING = MOVED | {"add", "sub", "cat", "stack"}
"""Those that are linear in all their inputs together."""


def _no_gradient(evidence: Evidence) -> Seen | None:
    parameters = dict(evidence.model.named_parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters.values()):
        says = f"All {evidence.total:,} parameters are frozen, so there is nothing to train."
        return Seen(says, (), {"parameters": evidence.total})
    trail = evidence.training
    if trail is None:
        return None
    values = trail.graph.values
    read = {values[index].name for place in trail.useful for index in trail.graph.operations[place].inputs}
    asked = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad and name in read}
    reached = _reached(evidence) if asked else None
    lost = {} if reached is None else {name: part for name, part in asked.items() if name not in reached}
    if not lost:
        return None
    count = sum(parameter.numel() for parameter in lost.values())
    owners = [name.rpartition(".")[0] for name in lost]
    return Seen(
        f"{plural(count, 'parameter')} of {evidence.total:,} are to be trained and used, and no gradient reaches them: "
        f"{named(owners)}.",
        tuple(lost), {"parameters": count},
    )  # fmt: skip


def _reached(evidence: Evidence) -> set[str] | None:
    """Names of the parameters that what the network returns in training has a gradient for; None: not known."""
    with torch.inference_mode(False), imagined(evidence.model, training=True) as fake, torch.enable_grad():
        try:
            output = evidence.model(fake.images(IMAGES, evidence.shape))
        except Exception:  # any error of the network's code: the graph of inference is judged all the same
            return None
        waiting: list[object] = [tensor.grad_fn for tensor in tensors_in(output)]
        own = {id(parameter): name for name, parameter in fake.parameters.items()}
        found = {own[id(tensor)] for tensor in tensors_in(output) if id(tensor) in own}
        seen = set[object]()
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if "CheckpointFunction" in type(node).__name__:  # what is behind it, it finds in the backward pass
                return None
            leaf = own.get(id(getattr(node, "variable", None)))
            found |= set() if leaf is None else {leaf}
            waiting += [before for before, _ in getattr(node, "next_functions", ())]
    return found


def _no_activation(evidence: Evidence) -> Seen | None:
    trail = evidence.inference
    layers = [operation for operation in trail.layers if operation.index in trail.useful]
    if len(layers) < 2 or not all(_linear(operation, trail) for operation in _of_image(trail)):
        return None
    return Seen(
        f"Nothing between the image and the output is non-linear: {plural(len(layers), 'layer')} are one linear map.",
        tuple(operation.module for operation in layers), {"layers": len(layers)},
    )  # fmt: skip


def _of_image(trail: Trail) -> Iterator[Operation]:
    for operation in trail.graph.operations:
        if operation.index in trail.useful and trail.data(operation) is not None:
            yield operation


def _linear(operation: Operation, trail: Trail) -> bool:
    arguments = operation.arguments
    given = [item.index for item in arguments.values() if isinstance(item, Ref) and item.index in trail.of_image]
    if operation.name not in LINEAR or arguments.get("training", arguments.get("train", False)):
        return False
    if operation.name == "div" and ("rounding_mode" in arguments or trail.data(operation) != operation.inputs[0]):
        return False
    return len(given) == 1 or operation.name in JOINING  # a square is given the same one twice


class _Detached(nn.Module):
    """A frozen body was tried, and `no_grad` forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, images):
        with torch.no_grad():
            features = self.body(images).relu().mean((2, 3))
        return self.head(features)


class _Attached(_Detached):
    def forward(self, images):
        features = self.body(images).relu().mean((2, 3))
        return self.head(features)


_TAIL = "gap | flatten | linear 10"

GRADIENT_RULES = (
    Rule(
        "no-gradient", "warning", "Parameters that no gradient reaches", _no_gradient,
        why="A `detach()`, a `no_grad()` or an `argmax` between them and the output cuts them off: they keep the "
        "values they were given at the start, while the network seems to train. With all of them frozen, training "
        "cannot begin.",
        mend="Take out what cuts them off; where they are meant to stay, say so: `requires_grad_(False)`.",
        source="PyTorch, “Autograd mechanics”, locally disabling gradient computation",
        broken=Example(make=_Detached), healthy=Example(make=_Attached),
    ),
    Rule(
        "no-activation", "warning", "A network without a non-linearity", _no_activation,
        why="Convolutions, averages and norms one behind the other are one linear map of the image: such a network "
        "separates classes by a plane in the space of pixels, whatever its depth.",
        mend="Put an activation behind each norm, or each layer.",
        source="Goodfellow, Bengio & Courville 2016, “Deep learning”, section 6.1",
        broken=Example(f"conv 16 k3 p1 nobias | bn | conv 32 k3 s2 p1 nobias | bn | {_TAIL}"),
        healthy=Example(f"conv 16 k3 p1 nobias | bn | relu | conv 32 k3 s2 p1 nobias | bn | relu | {_TAIL}"),
    ),
)  # fmt: skip
