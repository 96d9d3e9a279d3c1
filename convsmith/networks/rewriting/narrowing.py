"""Any network with fewer channels, the weights of those that stay kept.

Which stay is decided by the size of the weights that make them (Li et al. 2017, "Pruning filters for efficient
convnets", section 3.1). What the network answers is not kept: it is to be trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from convsmith.errors import UsageError
from convsmith.networks.recording.graph import record
from convsmith.networks.recording.untouched import duplicate
from convsmith.networks.rewriting.coupling import Coupling, Slot, couple
from convsmith.networks.rewriting.editing import scaled_width


def narrow(model: nn.Module, shape: Sequence[int], factor: float) -> nn.Module:
    """A copy of a network with fewer channels in all groups that can have fewer; see `coupling`.

    Args:
        model: of any library, with or without values; left as it was.
        shape: of one image, `(channels, height, width)`.
        factor: share of its channels that each group keeps, about.

    Raises:
        UsageError: no group can have fewer, the network's code needs the number that it has, or it cannot be copied.
    """
    if not 0 < factor < 1:
        raise UsageError(f"factor is {factor:g}; it must be between 0 and 1.")
    found, changed = couple(record(model, shape)), duplicate(model)
    tensors = {**dict(changed.named_parameters()), **dict(changed.named_buffers())}
    kept = _kept(found, tensors, factor)
    if not kept:
        raise UsageError(f"{type(model).__name__} has no channels that could be fewer.")
    for slot in {(slot.name, slot.axis): slot for slot in found.slots}.values():
        if any(found.root(group) in kept for group, _ in slot.parts):
            _cut(changed, slot, _indices(found, slot, kept))
    try:
        record(changed, shape)
    except UsageError as error:
        raise UsageError(
            f"{type(model).__name__} cannot have fewer channels, since its own code needs as many: {error.message}"
        ) from None
    return changed


def _kept(found: Coupling, tensors: Mapping[str, Tensor], factor: float) -> dict[int, Tensor]:
    """The channels that stay, in their order, of each group that loses some."""
    sizes: dict[int, Tensor] = {}
    for slot in found.slots:
        if slot.makes:
            weight = tensors[slot.name].detach()
            made = weight.transpose(0, slot.axis).flatten(1).abs().sum(1)
            group = found.root(slot.parts[0][0])
            sizes[group] = sizes[group] + made if group in sizes else made
    kept = {}
    for group, channels in found.free().items():
        left = scaled_width(channels, factor)
        if left < channels and group in sizes:
            size = sizes[group]
            best = torch.arange(left) if size.is_meta else size.argsort(descending=True, stable=True)[:left].cpu()
            kept[group] = best.sort().values
    return kept


def _indices(found: Coupling, slot: Slot, kept: Mapping[int, Tensor]) -> Tensor:
    parts, before = [], 0
    for group, channels in slot.parts:
        parts.append(kept.get(found.root(group), torch.arange(channels)) + before)
        before += channels
    return (torch.cat(parts)[:, None] * slot.inner + torch.arange(slot.inner)).flatten()


def _cut(model: nn.Module, slot: Slot, indices: Tensor) -> None:
    path, _, name = slot.name.rpartition(".")
    module = model.get_submodule(path)
    old = getattr(module, name)
    new = old.detach().index_select(slot.axis, indices.to(old.device))
    setattr(module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    if name == "weight":
        _renumber(module, new)


def _renumber(module: nn.Module, weight: Tensor) -> None:
    """Tell a layer how many channels its weight has now."""
    match module:
        case nn.Conv2d():
            if module.groups > 1:  # in groups that are cut, which are depthwise, there is one for each channel
                module.groups = weight.shape[0]
            module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
        case nn.Linear():
            module.out_features, module.in_features = weight.shape
        case nn.BatchNorm2d() | nn.BatchNorm1d() | nn.InstanceNorm2d():
            module.num_features = len(weight)
        case nn.LayerNorm():
            module.normalized_shape = tuple(weight.shape)
