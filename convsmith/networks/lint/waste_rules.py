"""Rules about what is paid for and does nothing, or does it at a bad price."""

from __future__ import annotations

import math

from torch import nn

from convsmith.networks.lint.rule import Evidence, Example, Rule, Seen, named, plural
from convsmith.networks.lint.trail import dense

MOST = 0.5
"""Share of all parameters, from which on one layer holds most of them."""
EIGHT = 8


def _linear_holds_most(evidence: Evidence) -> Seen | None:
    trail = evidence.inference
    for operation in trail.layers:
        data, weight = trail.data(operation), trail.weight(operation)
        if operation.name == "convolution" or data is None or weight is None:
            continue
        before = trail.graph.values[trail.origin(data)].shape
        places = math.prod(before[2:]) if len(before) == 4 and evidence.fields.is_map(trail.origin(data)) else 1
        if places > 1 and weight.elements >= MOST * evidence.total:
            pooled = weight.elements // places
            return Seen(
                f"{operation.module} reads {places} positions of {before[1]} channels and holds "
                f"{weight.elements / evidence.total:.1%} of all parameters ({weight.elements:,}); behind a global "
                f"average it would need {pooled:,}.",
                (operation.module,),
                {"parameters": weight.elements, "share": round(weight.elements / evidence.total, 4), "pooled": pooled},
            )
    return None


def _unused_parameters(evidence: Evidence) -> Seen | None:
    graphs = [trail.graph for trail in (evidence.inference, evidence.training) if trail is not None]
    read = {
        graph.values[index].name for graph in graphs for operation in graph.operations for index in operation.inputs
    }
    unused = {name: parameter.numel() for name, parameter in evidence.model.named_parameters() if name not in read}
    if not unused:
        return None
    owners = [name.rpartition(".")[0] for name in unused]
    return Seen(
        f"{sum(unused.values()):,} parameters take no part in what the network does: {named(owners)}.",
        tuple(unused), {"parameters": sum(unused.values())},
    )  # fmt: skip


def _dead_branch(evidence: Evidence) -> Seen | None:
    trail = evidence.inference
    lost = [operation for operation in trail.layers if operation.index not in trail.useful]
    if not lost or not trail.graph.outputs:  # without tensors among them, what is returned is not known
        return None
    macs = sum(evidence.macs.get(operation.index, 0) for operation in lost)
    places = [operation.module for operation in lost]
    return Seen(
        f"Computed and never used: {plural(len(lost), 'layer')}, {named(places)} ({macs:,} multiply-adds an image).",
        tuple(places), {"macs": macs},
    )  # fmt: skip


def _odd_channels(evidence: Evidence) -> Seen | None:
    trail, places, counts = evidence.inference, [], set[int]()
    for operation in trail.layers[:-1]:  # the last has as many as there are classes
        weight = trail.weight(operation)
        if weight is None or not dense(operation):
            continue
        outputs = trail.graph.values[operation.outputs[0]].shape[1 if operation.name == "convolution" else -1]
        if outputs % EIGHT and outputs > EIGHT and weight.elements >= 0.01 * evidence.total:
            places.append(operation.module)
            counts.add(outputs)
    if not places:
        return None
    sizes = ", ".join(map(str, sorted(counts)[:6]))
    return Seen(
        f"{plural(len(places), 'layer')} with channels that are no multiple of {EIGHT} ({sizes}): {named(places)}.",
        tuple(places), {"channels": sorted(counts)},
    )  # fmt: skip


class _Forgotten(nn.Module):
    """A second head that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)
        self.old_head = nn.Linear(16, 100)

    def forward(self, images):
        return self.head(self.features(images).relu().mean((2, 3)))


class _Remembered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, images):
        return self.head(self.features(images).relu().mean((2, 3)))


class _Overwritten(nn.Module):
    """The first branch's result is lost: it was to be added."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(3, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, images):
        features = self.first(images)
        features = self.second(images)
        return self.head(features.relu().mean((2, 3)))


class _Added(_Overwritten):
    def forward(self, images):
        features = self.first(images)
        features = features + self.second(images)
        return self.head(features.relu().mean((2, 3)))


_TAIL = "relu | gap | flatten | linear 10"

WASTE_RULES = (
    Rule(
        "linear-holds-most", "warning", "A linear layer over flattened maps holds most parameters", _linear_holds_most,
        why="It has a weight for each position of each channel, so it is large, learns each place anew, overfits, and "
        "takes images of one size only.",
        mend="Put global average pooling before it: `gap | flatten | linear`.",
        source="Lin et al. 2014, “Network in network”, section 3.2",
        broken=Example("conv 16 k3 p1 | relu | maxpool 2 | conv 32 k3 p1 | relu | maxpool 2 "
            "| flatten | linear 128 | relu | linear 10"),
        healthy=Example(f"conv 16 k3 p1 | relu | maxpool 2 | conv 32 k3 p1 | {_TAIL}"),
    ),
    Rule(
        "unused-parameters", "warning", "Parameters that take no part", _unused_parameters,
        why="They are stored, averaged and saved, count as the network's size, and never change; training over several "
        "processes waits for gradients that do not come.",
        mend="Delete the layers, or call them.",
        source="PyTorch, DistributedDataParallel, on unused parameters",
        broken=Example(make=_Forgotten), healthy=Example(make=_Remembered),
    ),
    Rule(
        "dead-branch", "warning", "Work whose result is never used", _dead_branch,
        why="It costs time at each image, and its weights get no gradient; mostly a sum or a concatenation was "
        "forgotten, so the network is not the one that was meant.",
        mend="Use the result, or take the branch out.",
        source="the network's own graph: what the output does not depend on",
        broken=Example(make=_Overwritten), healthy=Example(make=_Added),
    ),
    Rule(
        "channels-not-multiple-of-8", "hint", "Channels that the hardware has to fill up", _odd_channels,
        why="GPUs multiply 16-bit matrices in tiles of eight and more: a layer of 65 channels takes the time of 72. "
        "Layers with less than a hundredth of the parameters are not counted.",
        mend="Round channels to multiples of 8.",
        source="NVIDIA, “Deep learning performance guide”, convolutional layers; Howard et al. 2017 round likewise",
        broken=Example(f"conv 30 k3 p1 | relu | conv 65 k3 p1 | {_TAIL}"),
        healthy=Example(f"conv 32 k3 p1 | relu | conv 64 k3 p1 | {_TAIL}"),
    ),
)  # fmt: skip
