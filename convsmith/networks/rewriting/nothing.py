"""New blocks in a trained network that start by leaving what comes as it is, so that it answers as before.

A residual block has the last scale or weights of its branch at zero; the gradient still reaches them, and through them,
after a step, all of the branch. A dense block is read with weights of zero, which is for those behind it to do. A plain
convolution is the identity (Chen et al. 2016, section 2.4).
"""

from __future__ import annotations

from torch import nn

from convsmith import design
from convsmith.errors import UsageError

IDEMPOTENT = ("relu", "relu6", "none")
"""Activations that leave their own results as they are."""
ZERO_AT_ZERO = ("relu", "leaky-relu", "relu6", "silu", "gelu", "hard-swish", "tanh")


def start_as_nothing(node: design.Node, module: nn.Module, after: str) -> int:
    """Let a new block leave what comes as it is.

    Args:
        node, module: the block.
        after: the activation that what comes went through, see `ending`.

    Returns:
        How many channels it leaves behind those that came.

    Raises:
        UsageError: it cannot.
    """
    match node:
        case design.Sequence():
            return sum(start_as_nothing(part, module.get_submodule(name), after) for name, part in node.parts)
        case design.Residual(shortcut=None):
            if isinstance(node.after, design.Activation):
                _needs_idempotent(node.after.kind, after)
            _silence(node.body, module.get_submodule("body"))
            return 0
        case design.Concat(parts=(("old", design.Sequence(parts=())), ("new", new))):
            return design.channels_after(new, 0)  # its last convolution says so
        case design.Conv(stride=1) if node.kernel % 2 and node.padding in (None, node.dilation * (node.kernel // 2)):
            if isinstance(module, nn.Conv2d) and module.in_channels == module.out_channels:
                nn.init.dirac_(module.weight, module.groups)
                if module.bias is not None:
                    module.bias.zero_()
                return 0
        case design.Norm(kind="batch"):
            assert isinstance(module, nn.BatchNorm2d)
            module.weight.fill_((1 + module.eps) ** 0.5)  # against running statistics of mean 0 and variance 1
            return 0
        case design.Activation():
            _needs_idempotent(node.kind, after)
            return 0
        case design.Dropout() | design.DropBlock() | design.StochasticDepth():
            return 0
    raise UsageError(
        f"A new block with a layer of kind {node.type!r} cannot start as nothing, so the answers cannot be kept.",
        mend="Residual, bottleneck, pre-activation, MBConv, ConvNeXt, dense and plain blocks with batch norm can.",
    )


def _silence(node: design.Node, module: nn.Module) -> None:
    """Let a residual branch leave zeros, by the last scale or weights in it."""
    parts = node.parts if isinstance(node, design.Sequence) else ()
    for name, part in reversed(parts):
        layer = module.get_submodule(name)
        match part:
            case design.Activation() if part.kind in ZERO_AT_ZERO:
                continue
            case design.StochasticDepth() | design.Dropout() | design.SqueezeExcite() | design.Cbam() | design.Eca():
                continue  # nought stays nought
            case design.Norm() | design.Conv() | design.LayerScale():
                for parameter in layer.parameters():
                    parameter.zero_()
                return
        break
    raise UsageError("A new block's residual branch cannot start at zero, so the answers cannot be kept.")


def _needs_idempotent(kind: str, after: str) -> None:
    if kind not in IDEMPOTENT or kind != after:
        raise UsageError(
            f"A new block ends in {kind}, which changes what comes after {after}, so the answers cannot be kept.",
            mend="ReLU leaves its own results as they are; so do blocks without activation after the sum.",
        )


def ending(node: design.Node) -> str:
    """The activation that what leaves a block went through last; what pools or drops values keeps it so."""
    match node:
        case design.Activation():
            return node.kind
        case design.Residual():
            return ending(node.after) if node.after is not None else "none"
        case design.Sequence():
            kept = (design.Pool, design.Dropout, design.DropBlock)
            last = next((part for _, part in reversed(node.parts) if not isinstance(part, kept)), None)
            return ending(last) if last is not None else "none"
    return "none"
