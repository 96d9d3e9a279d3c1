"""A trained network made wider or deeper without changing what it answers (Chen et al. 2016, "Net2Net").

Wider: channels of the old network are repeated, and what reads them shares their weight among the repetitions. Repeated
channels would learn the same for ever, so the shares are made unequal, by noise that sums to nothing over them; the
paper adds noise to the weights themselves, which changes the answers a little. Deeper: a new block of a residual kind
has the last scale of its branch at zero, and a plain convolution starts as the identity.

What is kept are the answers in inference mode. A new plain convolution with batch norm keeps them by that norm's
running statistics; the first step of training, which takes the batch's, moves them. Residual blocks keep them in
training too.

Where it cannot be done, it is refused with the reason: layer norm and CBAM average over channels, so all must be
repeated equally often (a whole factor); group norm must find the same channels in its groups; ECA mixes neighbouring
channels; what comes before a new block must be left as it is by that block's activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from convsmith import design
from convsmith.errors import UsageError
from convsmith.networks.blocks import LayerScale, NonLocal
from convsmith.networks.convnet import build_design
from convsmith.networks.rewriting.nothing import ending, start_as_nothing

DROPPING = (design.Dropout, design.DropBlock, design.StochasticDepth)
"""Nodes that do nothing in inference mode, whatever their rate."""
PASSING = (
    design.Activation, design.Pool, design.FractionalPool, design.BlurPool, design.Median, design.GridPool,
    design.PadSides, *DROPPING,
)  # fmt: skip
"""Nodes without weights that treat each channel by itself."""
MAKING = (design.Conv, design.Linear, design.ClassMaps)
Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True)
class Channels:
    """Which channels of the old network those of the new one repeat.

    Args:
        sources: int64 `[new]`, the old one's number; -1 is a channel that the old network has not.
        old: how many the old network has.
    """

    sources: Tensor
    old: int

    @property
    def counts(self) -> Tensor:
        """How often each old channel is there, int64 `[old]`."""
        return torch.bincount(self.sources[self.sources >= 0], minlength=self.old)

    @property
    def even(self) -> bool:
        """Whether all are repeated equally often, and none is new."""
        return bool((self.counts == self.counts[0]).all()) and bool((self.sources >= 0).all())

    @property
    def unchanged(self) -> bool:
        """Whether they are the old network's."""
        return torch.equal(self.sources, torch.arange(self.old))

    def flattened(self, positions: int) -> Channels:
        """The same of vectors in which the positions of each channel lie side by side."""
        offsets = torch.arange(positions)
        spread = torch.where(self.sources[:, None] < 0, -1, self.sources[:, None] * positions + offsets)
        return Channels(spread.flatten(), self.old * positions)


def grow_network(
    model: nn.Module,
    old: design.ConvNet,
    new: design.ConvNet,
    *,
    in_channels: int,
    outputs: int,
    noise: float = 0.01,
) -> nn.Module:
    """Build a wider or deeper design that answers what a network of the old one answers.

    Args:
        model: built from `old`; left as it was.
        old, new: designs that differ in widths, and in blocks at the end of stages.
        in_channels, outputs: of both.
        noise: how unequal the shares of repeated channels are, in deviations of the weights they share; drawn, like
            the new blocks, from PyTorch's current seed.

    Returns:
        A new network in the mode of `model`. Its answers in inference mode are equal up to rounding.

    Raises:
        UsageError: `model` is not of `old`, the designs differ in another way, or the function cannot be kept.
    """
    with torch.device("meta"):
        expected = {name: value.shape for name, value in build_design(old, in_channels, outputs).state_dict().items()}
    if {name: value.shape for name, value in model.state_dict().items()} != expected:
        raise UsageError(
            "The network is not one of the old design: its parameters have other names or shapes.",
            mend="Give the design that it was built from, with its channels of images and classes.",
        )
    grown = build_design(new, in_channels, outputs)
    nodes = design.tree(old, in_channels, outputs), design.tree(new, in_channels, outputs)
    with torch.no_grad():
        image = Channels(torch.arange(in_channels), in_channels)
        _Growing(noise).grow(nodes[0], nodes[1], model, grown, image)
    return grown.train(model.training)


class _Growing:
    """Goes through both trees and both networks at once; each step returns the channels that it leaves."""

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def grow(
        self,
        old: design.Node,
        new: design.Node,
        source: nn.Module,
        target: nn.Module,
        given: Channels,
        wanted: Channels | None = None,
    ) -> Channels:
        """Fill `target` from `source`.

        Args:
            given: channels that come in.
            wanted: channels that must leave, where a sum asks for them.
        """
        if old.type != new.type:
            raise UsageError(
                f"The designs differ in more than widths and added blocks: a {old.type} and a {new.type}.",
                mend="Widen all stages that a sum goes through: a block that changes channels may be built otherwise.",
            )
        match old, new:
            case design.Sequence(), design.Sequence():
                return self._sequence(old, new, source, target, given, wanted)
            case design.Residual(), design.Residual():
                return self._residual(old, new, source, target, given, wanted)
            case design.Concat(), design.Concat():
                names = [name for name, _ in old.parts]
                _same("branches", names, [name for name, _ in new.parts])
                pairs = zip(old.parts, new.parts, strict=True)
                return _joined([
                    self.grow(one, other, source.get_submodule(name), target.get_submodule(name), given)
                    for (name, one), (_, other) in pairs
                ])  # fmt: skip
            case design.Conv(), design.Conv():
                same = ("kernel", "stride", "padding", "dilation", "bias", "padding_mode")
                _same("convolutions", *([getattr(node, key) for key in same] for node in (old, new)))
                return self._convolved(_is(source, nn.Conv2d), _is(target, nn.Conv2d), given, wanted)
            case (design.Linear(), design.Linear()) | (design.ClassMaps(), design.ClassMaps()):
                return self._weighted(source, target, given, wanted)
        return self._leaf(old, new, source, target, given)

    def _leaf(
        self, old: design.Node, new: design.Node, source: nn.Module, target: nn.Module, given: Channels
    ) -> Channels:
        """Layers that leave the channels that come, or more of them by their own rule."""
        match old, new:
            case design.Flatten(), design.Flatten():
                _same("grids", old.side, new.side)
                return given.flattened(old.side**2)
            case design.PadChannels(), design.PadChannels():
                return _padded(old, new, given)
        if given.unchanged and old == new:
            target.load_state_dict(source.state_dict())
            return given
        match old, new:
            case (design.Norm(), design.Norm()) | (design.LayerScale(), design.LayerScale()):
                return _by_channel(source, target, given)
            case design.SqueezeExcite(), design.SqueezeExcite():
                inner = self._weighted(source.get_submodule("fc1"), target.get_submodule("fc1"), given, None)
                return self._weighted(source.get_submodule("fc2"), target.get_submodule("fc2"), inner, given)
            case design.Cbam(), design.Cbam():
                return self._attended(source, target, given)
            case design.NonLocal(), design.NonLocal():
                return self._related(_is(source, NonLocal), _is(target, NonLocal), given)
        if not isinstance(old, PASSING):
            raise UsageError(f"A layer of kind {old.type!r} cannot be made wider so that the network answers the same.")
        if not isinstance(old, DROPPING):
            _same(f"layers ({old.type})", old, new)
        return given

    def _sequence(
        self,
        old: design.Sequence,
        new: design.Sequence,
        source: nn.Module,
        target: nn.Module,
        given: Channels,
        wanted: Channels | None,
    ) -> Channels:
        names = [name for name, _ in old.parts]
        _same("layers", names, [name for name, _ in new.parts][: len(names)])
        making = [place for place, (_, node) in enumerate(old.parts) if _makes(node)]
        for place, (name, node) in enumerate(new.parts):
            module = target.get_submodule(name)
            if place < len(names):
                asked = wanted if making and place == making[-1] else None
                given = self.grow(old.parts[place][1], node, source.get_submodule(name), module, given, asked)
            elif place and name.isdigit():
                added = start_as_nothing(node, module, ending(new.parts[place - 1][1]))
                given = _joined([given, Channels(torch.full((added,), -1), 0)])
            else:
                raise UsageError(f"The new design has a layer {name!r} that the old one has not.")
        return given

    def _residual(
        self,
        old: design.Residual,
        new: design.Residual,
        source: nn.Module,
        target: nn.Module,
        given: Channels,
        wanted: Channels | None,
    ) -> Channels:
        beside = source.get_submodule("shortcut"), target.get_submodule("shortcut")
        if old.shortcut is not None and new.shortcut is not None:
            asked = wanted or _repeated(_width(old.body, given), _width(new.body, given))
            sums = self.grow(old.shortcut, new.shortcut, *beside, given, asked if _makes(old.shortcut) else None)
        elif new.shortcut is not None:
            sums = self._projected(
                new.shortcut, beside[1], given, wanted or _repeated(given.old, _width(new.body, given))
            )
        elif old.shortcut is None:
            sums = given
        else:
            raise UsageError("A shortcut with weights would be left out where the new design has the identity.")
        bodies = source.get_submodule("body"), target.get_submodule("body")
        body = self.grow(old.body, new.body, *bodies, given, sums)
        if not torch.equal(body.sources, sums.sources):
            raise UsageError("The channels of a sum cannot be repeated in the same order on both sides.")
        return sums

    def _projected(self, node: design.Node, target: nn.Module, given: Channels, left: Channels) -> Channels:
        """A shortcut with weights where there was the identity, since channels are no longer as many as come."""
        layers = node.parts if isinstance(node, design.Sequence) else ()
        for name, layer in layers:
            module = target.get_submodule(name)
            if isinstance(module, nn.Conv2d) and module.kernel_size == module.stride == (1, 1):
                identity = torch.eye(given.old)[:, :, None, None]
                module.weight.copy_(self._shared(identity, module.weight, given, left.sources))
                if module.bias is not None:
                    module.bias.zero_()
            else:
                start_as_nothing(layer, module, "none")
        return left

    def _convolved(self, source: nn.Conv2d, target: nn.Conv2d, given: Channels, wanted: Channels | None) -> Channels:
        if source.groups == 1:
            _same("groups", source.groups, target.groups)
            return self._weighted(source, target, given, wanted)
        if source.groups == source.in_channels == source.out_channels and target.groups == target.in_channels:
            return _by_channel(source, target, given)
        _same("groups", source.groups, target.groups)
        left = wanted or _repeated(source.out_channels, target.out_channels)
        groups = source.groups
        inward, outward = given.sources.chunk(groups), left.sources.chunk(groups)
        sizes = given.old // groups, left.old // groups
        weights = target.weight.chunk(groups)
        for group in range(groups):
            own = [part - group * size for part, size in zip((inward[group], outward[group]), sizes, strict=True)]
            if any(bool(((part < 0) | (part >= size)).any()) for part, size in zip(own, sizes, strict=True)):
                raise UsageError("The groups of a convolution would have to see other channels than they do.")
            rows = slice(group * sizes[1], (group + 1) * sizes[1])
            inside = Channels(own[0], sizes[0])
            weights[group].copy_(self._shared(source.weight[rows], weights[group], inside, own[1]))
        _copied(source.bias, target.bias, left.sources)
        return left

    def _weighted(self, source: nn.Module, target: nn.Module, given: Channels, wanted: Channels | None) -> Channels:
        """A convolution or linear layer that reads all channels."""
        old, new = source.get_parameter("weight"), target.get_parameter("weight")
        left = wanted or _repeated(old.shape[0], new.shape[0])
        new.copy_(self._shared(old, new, given, left.sources))
        _copied(getattr(source, "bias", None), getattr(target, "bias", None), left.sources)
        return left

    def _shared(self, old: Tensor, new: Tensor, given: Channels, rows: Tensor) -> Tensor:
        """Weights `[new outputs, new inputs, ...]` by which repeated channels sum to what one did."""
        counts = given.counts.clamp(min=1)
        known, columns = given.sources >= 0, given.sources.clamp(min=0)
        shape = (1, -1, *([1] * (old.ndim - 2)))
        share = torch.where(known, 1 / counts[columns], 0.0).to(old).view(shape)
        weights = old[rows.clamp(min=0)][:, columns] * share
        if self.noise and bool((counts > 1).any()):
            drawn = torch.randn_like(weights) * self.noise * old.std(unbiased=False) * known.view(shape)
            sums = torch.zeros((len(rows), *old.shape[1:])).to(old).index_add_(1, columns, drawn)
            weights += drawn - (sums / counts.view(shape))[:, columns] * known.view(shape)
        fresh = (rows < 0).view(-1, *([1] * (old.ndim - 1)))
        return torch.where(fresh, new, weights)

    def _attended(self, source: nn.Module, target: nn.Module, given: Channels) -> Channels:
        _needs_even(given, "CBAM averages over channels")
        inner = self._weighted(source.get_submodule("channel.fc1"), target.get_submodule("channel.fc1"), given, None)
        self._weighted(source.get_submodule("channel.fc2"), target.get_submodule("channel.fc2"), inner, given)
        target.get_submodule("spatial").load_state_dict(source.get_submodule("spatial").state_dict())
        return given

    def _related(self, source: NonLocal, target: NonLocal, given: Channels) -> Channels:
        """Likeness is a sum over compared channels, divided by the root of their number where a softmax follows."""
        if not (isinstance(source.query, nn.Conv2d) and isinstance(target.query, nn.Conv2d)):
            raise UsageError("Likeness of features as they are grows with their number, so it cannot be kept.")
        compared = self._weighted(source.query, target.query, given, None)
        self._weighted(_is(source.key, nn.Conv2d), _is(target.key, nn.Conv2d), given, compared)
        scale = 1 / compared.counts[compared.sources].to(source.query.weight)
        if source.softmax:
            scale = scale * (len(compared.sources) / compared.old) ** 0.5
        target.query.weight.mul_(scale.view(-1, 1, 1, 1))
        if target.query.bias is not None:
            target.query.bias.mul_(scale)
        if not isinstance(source.value, nn.Conv2d):
            return given
        return self._weighted(source.value, target.value, given, None)


# ------------------------------------------------------------------------------------------------------------- channels


def _repeated(old: int, new: int) -> Channels:
    """The old channels in their order, each as often as room allows; groups stay within themselves."""
    if new < old:
        raise UsageError(
            f"{old} channels do not fit into {new} without losing what some of them say.",
            mend="Grow to a wider design; a narrower one is trained anew.",
        )
    return Channels(torch.arange(new) * old // new, old)


def _joined(parts: Sequence[Channels]) -> Channels:
    sources, before = [], 0
    for part in parts:
        sources.append(torch.where(part.sources < 0, -1, part.sources + before))
        before += part.old
    return Channels(torch.cat(sources), before)


def _padded(old: design.PadChannels, new: design.PadChannels, given: Channels) -> Channels:
    zeros, wanted = old.width - given.old, new.width - len(given.sources)
    if wanted and not zeros:
        raise UsageError("A shortcut would have to pad with channels of zeros that the old network has not.")
    filled = given.old + torch.arange(wanted) % max(zeros, 1)
    return Channels(torch.cat([given.sources, filled]), old.width)


def _by_channel(source: nn.Module, target: nn.Module, given: Channels) -> Channels:
    """Layers whose numbers belong to one channel each: norms, factors, depthwise convolutions."""
    match source, target:
        case nn.GroupNorm(), nn.GroupNorm():
            _grouped_alike(source, target, given)
        case ((nn.BatchNorm2d() | nn.InstanceNorm2d() | nn.Conv2d() | LayerScale()), _):
            pass
        case _:
            _needs_even(given, "layer norm averages over channels")
    new = target.state_dict()
    for name, value in source.state_dict().items():
        if value.ndim:
            _copied(value, new[name], given.sources)
        else:
            new[name].copy_(value)
    return given


def _grouped_alike(source: nn.GroupNorm, target: nn.GroupNorm, given: Channels) -> None:
    size = given.old // source.num_groups
    for part in given.sources.chunk(target.num_groups):
        group = int(part[0]) // size
        counts = torch.bincount(part.clamp(min=0), minlength=given.old)[group * size : (group + 1) * size]
        if bool((part < 0).any()) or int(counts.sum()) < len(part) or bool((counts != counts[0]).any()):
            raise UsageError(
                "Group norm would average over other channels than before, so the answers cannot be kept.",
                mend="Train the wider design anew, or use batch norm.",
            )


def _needs_even(given: Channels, why: str) -> None:
    if not given.even:
        raise UsageError(
            f"{why[0].upper()}{why[1:]}, so each must be repeated equally often, and not {given.old} channels as "
            f"{len(given.sources)}.",
            mend="Widen by a whole factor, such as 2.",
        )


def _copied(source: Tensor | None, target: Tensor | None, sources: Tensor) -> None:
    if source is not None and target is not None:
        fresh = (sources < 0).view(-1, *([1] * (source.ndim - 1)))
        target.copy_(torch.where(fresh, target, source[sources.clamp(min=0)]))


def _makes(node: design.Node) -> bool:
    """Whether a node decides which channels leave it, rather than leaving those that come."""
    match node:
        case design.Sequence():
            return any(_makes(part) for _, part in node.parts)
        case design.Residual():
            return node.shortcut is not None and _makes(node.shortcut)
        case design.Conv():
            return node.groups != node.width or node.width == 1
    return isinstance(node, (*MAKING, design.Concat))


def _width(node: design.Node, given: Channels) -> int:
    return design.channels_after(node, len(given.sources))


def _is(module: nn.Module, kind: type[Layer]) -> Layer:
    if not isinstance(module, kind):
        raise TypeError(f"{type(module).__name__} where {kind.__name__} was expected")
    return module


def _same(what: str, one: object, other: object) -> None:
    if one != other:
        raise UsageError(f"The designs differ in more than widths and added blocks: {what} {one} and {other}.")
