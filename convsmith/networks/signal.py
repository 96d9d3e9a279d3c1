"""How large the signal is at each depth of a network, measured on a real forward pass.

Where its variance falls or grows from layer to layer, so does the gradient's, and a deep network does not begin to
learn (Glorot & Bengio 2010; He et al. 2015, section 2.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from convsmith.errors import UsageError
from convsmith.networks.counting.analysis import undisturbed
from convsmith.networks.initialisation import CONVOLUTIONS, NORMS
from convsmith.records import Record


@dataclass(frozen=True)
class Signal(Record):
    """What came out of one call of a module.

    Args:
        path: of the module; one that is called twice has two signals.
        type: the name of its class.
        kind: `weights` of a convolution or linear layer, `norm`, or `other`: activations, pooling, sums.
        mean, variance: over images, channels and positions; `None` where a value is not finite.
    """

    path: str
    type: str
    kind: Literal["weights", "norm", "other"]
    mean: float | None
    variance: float | None


def signal_through_depth(model: nn.Module, images: Tensor, *, training: bool = True) -> tuple[Signal, ...]:
    """Measure the signal behind each layer of a network, in the order of the calls.

    A block whose own forward does something with its layers' results, such as a residual sum, has a signal too. The
    network and the random states are left as they were.

    Args:
        model: any network.
        images: `[N, C, H, W]` as the network takes them, normalised; some dozen are plenty.
        training: norms use these images' own statistics, as they will in the first step; for a trained network, False
            has those that it learned.

    Raises:
        UsageError: a single image in training mode, which has no statistics.
    """
    if training and len(images) < 2:
        raise UsageError(
            "The signal of one image has no statistics that a batch norm could use.", mend="Give two images or more."
        )
    signals: list[Signal] = []
    with undisturbed(model, training=training), torch.no_grad(), _listening(model, signals):
        model(images)
    return tuple(signals)


@contextmanager
def _listening(model: nn.Module, signals: list[Signal]) -> Iterator[None]:
    """Fill a list during forward passes inside; the hooks are gone afterwards."""
    last: list[tuple[Tensor, int]] = []

    def heard(path: str, module: nn.Module, output: Any) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return
        # A container passes on the very tensor that its last layer made; one changed in place has another version.
        if last and output is last[0][0] and output._version == last[0][1]:
            return
        last[:] = [(output, output._version)]
        signals.append(_signal(path, module, output))

    with ExitStack() as hooks:
        for path, module in model.named_modules():
            hook = module.register_forward_hook(lambda module, inputs, output, path=path: heard(path, module, output))
            hooks.callback(hook.remove)
        yield


def _signal(path: str, module: nn.Module, output: Tensor) -> Signal:
    kind: Literal["weights", "norm", "other"] = "other"
    if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
        kind = "weights"
    elif isinstance(module, NORMS):
        kind = "norm"
    # Rounding of the sums would show where the variance is small beside the mean, so that these are in float64.
    variance, mean = torch.var_mean(output.double(), correction=0)
    finite = bool(torch.isfinite(variance))
    return Signal(
        path, type(module).__name__, kind, mean.item() if finite else None, variance.item() if finite else None
    )
