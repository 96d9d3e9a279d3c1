"""The last layer of a network: found by running it, replaced for other classes, and what goes into it.

A head is the layer whose output is the network's output. Three kinds are known:

    linear   an `nn.Linear`, as in most networks
    conv     a 1x1 convolution on the pooled features (DPN, DLA, BiT), which is the same arithmetic
    maps     a 1x1 convolution on the features' maps, averaged afterwards (SqueezeNet). With a ReLU between, it is no
             linear function of averaged features, so it stays as it is until it is replaced; the new head averages
             first and then is linear.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from convsmith.errors import UsageError
from convsmith.networks.counting.analysis import undisturbed, zeros

AFTER_MAPS = (nn.ReLU, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity, nn.Dropout)
"""What may follow a 1x1 convolution on maps for it to count as a head; all of it goes when the head is replaced."""


@dataclass(frozen=True)
class Head:
    """The layer that gives the logits.

    Args:
        path: its name in the network, as `get_submodule` takes it.
        in_features: numbers that it sees of each image.
        outputs: logits that it gives.
        kind: see the module's docstring.
    """

    path: str
    in_features: int
    outputs: int
    kind: Literal["linear", "conv", "maps"] = "linear"


def find_head(model: nn.Module, shape: Sequence[int]) -> Head:
    """Find the head by one forward pass in inference mode; the network stays as it was.

    Args:
        model: any module that gives one row of logits for each image.
        shape: of one image, `(channels, height, width)`.

    Raises:
        UsageError: no linear layer or 1x1 convolution gives the output.
    """
    made: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    with undisturbed(model, training=False), torch.no_grad(), ExitStack() as hooks:
        for path, module in model.named_modules():
            if isinstance(module, nn.Linear) or _pointwise(module):
                hooks.enter_context(_heard(module, path, made))
        images = zeros(model, (2, *shape))
        # Zeros would let an activation after the layer pass for nothing; equal numbers twice mean the same layer.
        images = images + torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(images)
        output = model(images)
        head = _giving(model, made, output)
    if head is not None:
        return head
    raise UsageError(
        f"{type(model).__name__} has no linear layer whose output is its own output; {_found(made, output)}",
        mend="End it with `self.head = nn.Linear(features, outputs)` and return what that gives, or train it without "
        "weights (`--weights none`).",
    )


def replace_head(model: nn.Module, head: Head, outputs: int) -> Head:
    """Put a new, freshly initialised head in the place of `head`, with a bias, drawn from PyTorch's current seed.

    Args:
        model: changed in place.
        head: as `find_head` gave it for this model.
        outputs: logits of the new one.

    Returns:
        The new head; where maps were averaged after a 1x1 convolution, they now are averaged before a linear layer.
    """
    old = model.get_submodule(head.path)
    weight = _weight(old)
    like = {"device": weight.device, "dtype": weight.dtype}
    if head.kind == "conv":
        new: nn.Module = nn.Conv2d(head.in_features, outputs, 1, **like)
    else:
        new = nn.Linear(head.in_features, outputs, **like)
    new.train(old.training)
    if head.kind != "maps":
        model.set_submodule(head.path, new, strict=True)
        return Head(head.path, head.in_features, outputs, head.kind)
    parent, _, name = head.path.rpartition(".")
    before = list(model.get_submodule(parent).children())[: int(name)]
    # The average comes first: dropout of features, not of single positions, whose average would hide it.
    whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), *before, new)
    whole.train(old.training)
    model.set_submodule(parent, whole, strict=True)
    return Head(f"{parent}.{len(whole) - 1}", head.in_features, outputs)


def set_head(model: nn.Module, head: Head, weight: Tensor, bias: Tensor) -> None:
    """Write `weight` `[outputs, in_features]` and `bias` `[outputs]` into a head of kind `linear` or `conv`.

    Raises:
        ValueError: other shapes, or a head whose maps are averaged after it.
    """
    layer = model.get_submodule(head.path)
    if head.kind == "maps" or tuple(weight.shape) != (head.outputs, head.in_features) or layer.bias is None:
        raise ValueError(f"{head} cannot take a weight of shape {tuple(weight.shape)} and a bias")
    with torch.no_grad():
        _weight(layer).copy_(weight.reshape(_weight(layer).shape))
        layer.bias.copy_(bias)  # type: ignore[operator]


@contextmanager
def head_inputs(model: nn.Module, head: Head) -> Iterator[list[Tensor]]:
    """Collect what goes into the head: one `[N, in_features]` float32 tensor for each forward pass inside.

    It is taken after dropout, which in inference mode does nothing; maps come averaged. The list is the caller's to
    empty, and what it holds is cut from the graph.
    """
    taken: list[Tensor] = []

    def take(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features = inputs[0].detach().float()
        if head.kind == "maps":
            features = features.mean(dim=(2, 3))
        taken.append(features.reshape(len(features), -1))

    hook = model.get_submodule(head.path).register_forward_pre_hook(take)
    try:
        yield taken
    finally:
        hook.remove()


@contextmanager
def _heard(module: nn.Module, path: str, made: list[tuple[str, nn.Module, Tensor, Tensor]]) -> Iterator[None]:
    """Note each output of `module` inside, and a copy of it as it was then."""

    def hear(module: nn.Module, inputs: object, output: Tensor) -> None:
        made.append((path, module, output, output.clone()))

    hook = module.register_forward_hook(hear)
    try:
        yield
    finally:
        hook.remove()


def _pointwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1


def _same(output: Tensor, given: Tensor, kept: Tensor) -> bool:
    """Whether the network's output is a layer's, at most reshaped, and was not written to afterwards."""
    return (
        given.numel() == output.numel()
        and given.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
        and torch.equal(output.reshape(-1), kept.reshape(-1))
    )


def _giving(model: nn.Module, made: Sequence[tuple[str, nn.Module, Tensor, Tensor]], output: object) -> Head | None:
    """The last of the layers in `made` that gives the network's output."""
    if not isinstance(output, Tensor) or output.ndim != 2:
        return None
    for path, module, given, kept in reversed(made):
        if isinstance(module, nn.Linear):
            if _same(output, given, kept):
                return Head(path, module.in_features, module.out_features)
        elif isinstance(module, nn.Conv2d):
            if _same(output, given, kept):
                return Head(path, module.in_channels, module.out_channels, "conv")
            if _averaged(model, path, kept, output):
                return Head(path, module.in_channels, module.out_channels, "maps")
    return None


def _averaged(model: nn.Module, path: str, maps: Tensor, output: Tensor) -> bool:
    """Whether what follows a convolution in its `Sequential` averages its maps, and that is the network's output."""
    parent, _, name = path.rpartition(".")
    holder = model.get_submodule(parent)
    if not (parent and isinstance(holder, nn.Sequential) and name.isdigit()):
        return False
    after = list(holder.children())[int(name) + 1 :]
    if not all(isinstance(layer, AFTER_MAPS) for layer in after):
        return False
    if not any(isinstance(layer, nn.AdaptiveAvgPool2d) for layer in after):
        return False
    for layer in after:
        maps = nn.functional.relu(maps) if isinstance(layer, nn.ReLU) else layer(maps)
    return torch.equal(maps.reshape(-1), output.reshape(-1))


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _found(made: Sequence[tuple[str, nn.Module, Tensor, Tensor]], output: object) -> str:
    if not isinstance(output, Tensor):
        return f"it returned {type(output).__name__}."
    linear = [path for path, module, _, _ in made if isinstance(module, nn.Linear)]
    if not linear:
        return "there is no linear layer in it."
    return f"the last one it ran is {linear[-1]!r}, and something else makes {list(output.shape)} of what that gives."
