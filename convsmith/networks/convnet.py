"""From a design to a module: one recursive function over the tree of nodes."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from convsmith import design
from convsmith.errors import UsageError
from convsmith.networks.blocks import NODES, Concat, Residual
from convsmith.networks.layers import LAYERS


def build(node: design.Node, in_channels: int) -> tuple[nn.Module, int]:
    """Build a node and everything below it, initialised.

    Args:
        node: a leaf, a sequence, a residual sum or branches that are joined.
        in_channels: channels (or, after flattening, features) of what goes in.

    Returns:
        A plain module whose parameters are named after the tree's parts, and the channels that it leaves.

    Raises:
        UsageError: the two branches of a residual sum leave different numbers of channels.
    """
    match node:
        case design.Sequence():
            return _sequence(node, in_channels)
        case design.Residual():
            return _residual(node, in_channels)
        case design.Concat():
            built = {name: build(part, in_channels) for name, part in node.parts}
            return Concat({name: module for name, (module, _) in built.items()}), sum(c for _, c in built.values())
        case _:
            table = NODES if node.type in NODES else LAYERS
            return table.build(node.type, node, in_channels)


def build_design(network: design.ConvNet, in_channels: int, outputs: int) -> nn.Module:
    """Build a design for images of `in_channels` channels and `outputs` logits; its children are stem, stages, head."""
    return build(design.tree(network, in_channels, outputs), in_channels)[0]


def _sequence(node: design.Sequence, channels: int) -> tuple[nn.Module, int]:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for name, part in node.parts:
        modules[name], channels = build(part, channels)
    return nn.Sequential(modules), channels


def _residual(node: design.Residual, in_channels: int) -> tuple[nn.Module, int]:
    body, width = build(node.body, in_channels)
    shortcut, channels = build(node.shortcut, in_channels) if node.shortcut else (nn.Identity(), in_channels)
    if channels != width:
        raise UsageError(
            f"A residual sum adds {width} channels of its body to {channels} of its shortcut.",
            mend=f"Give it a 1x1 convolution to {width} channels as the shortcut.",
        )
    after, width = build(node.after, width) if node.after else (nn.Identity(), width)
    return Residual(body, shortcut, after), width
