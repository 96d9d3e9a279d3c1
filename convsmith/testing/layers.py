"""What holds for every layer, whoever wrote it: shape, count, gradient, half precision, export, memory format.

Every check makes the layer anew with one seed, so that none depends on another, and leaves the random state as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BATCH = 3


class NotConforming(AssertionError):
    """A layer does not do what all layers do; the message says what was seen and what was expected."""


@dataclass(frozen=True)
class LayerCase:
    """A layer with options of its own, and what is expected of it.

    Args:
        build: makes it; called once a check.
        shape: of one input, without the batch.
        output: of one result; `None` where it is that of the input.
        parameters: how many numbers it learns, worked out by hand.
        random: whether it draws while training; at inference none does.
        tolerance: how far results in bfloat16 may be off, as a share of the largest one.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    output: tuple[int, ...] | None = None
    parameters: int = 0
    random: bool = False
    tolerance: float = 0.02


def shape_is_as_worked_out(case: LayerCase) -> None:
    """Results have the expected shape in both modes, and the type of the input."""
    for layer, x in _modes(case):
        with torch.no_grad():
            result = layer(x)
        expected = (BATCH, *(case.output or case.shape))
        _require(tuple(result.shape) == expected, layer, f"leaves {tuple(result.shape)} instead of {expected}")
        _require(result.dtype == x.dtype, layer, f"turns {x.dtype} into {result.dtype}")


def parameters_are_as_worked_out(case: LayerCase) -> None:
    """The parameters are as many as the formula says."""
    with _made(case) as (layer, _):
        found = sum(parameter.numel() for parameter in layer.parameters())
        _require(found == case.parameters, layer, f"has {found} parameters instead of {case.parameters}")


def gradient_is_that_of_differences(case: LayerCase) -> None:
    """In float64, gradients of input and parameters equal those of small differences, and no parameter is idle."""
    for layer, x in _modes(case):
        layer, x = layer.double(), x.double().requires_grad_()
        learned = [parameter for parameter in layer.parameters() if parameter.requires_grad]

        def drawn(x: Tensor, *_: Tensor, layer: nn.Module = layer) -> Tensor:
            torch.manual_seed(1)
            return layer(x)

        right = torch.autograd.gradcheck(drawn, (x, *learned), fast_mode=True, raise_exception=False)
        _require(right, layer, f"has a gradient that differences do not confirm ({_mode(layer)})")
        weights = torch.randn_like(layer(x))  # a plain sum would be constant behind a norm
        gradients = torch.autograd.grad((layer(x) * weights).sum(), learned, allow_unused=True) if learned else ()
        for (name, _), gradient in zip(layer.named_parameters(), gradients, strict=False):
            used = gradient is not None and bool(gradient.any())
            _require(used, layer, f"has a parameter without effect: {name}")


def bfloat16_is_close(case: LayerCase) -> None:
    """Cast to bfloat16, and under autocast, it works, gives bfloat16 when cast, and is close to float32."""
    for layer, x in _modes(case):
        alike = not (layer.training and case.random)
        with torch.no_grad():
            layer, x = layer.bfloat16().float(), x.bfloat16().float()  # both sides start from the same numbers
            state = {key: value.clone() for key, value in layer.state_dict().items()}
            expected = layer(x)
            with torch.autocast("cpu", torch.bfloat16):
                mixed = layer(x).float()
            layer.load_state_dict(state)
            half = layer.bfloat16()(x.bfloat16())
        _require(half.dtype == torch.bfloat16, layer, f"cast to bfloat16 gives {half.dtype}")
        for result, how in ((half.float(), "cast to bfloat16"), (mixed, "under autocast")):
            _require(bool(torch.isfinite(result).all()), layer, f"{how} gives values that are not finite")
            if alike:
                off = _off(result, expected)
                _require(off <= case.tolerance, layer, f"{how} is off by {off:.2%} of the largest value")


def export_gives_the_same(case: LayerCase) -> None:
    """`torch.export` takes it for inference, and what it made gives the same for another image."""
    with _made(case) as (layer, x):
        try:
            program = torch.export.export(layer.eval(), (x,))
        except Exception as error:
            raise NotConforming(f"{layer} cannot be exported: {error}") from error
        other = torch.randn_like(x)
        with torch.no_grad():
            torch.manual_seed(1)
            expected = layer(other)
            torch.manual_seed(1)
            result = program.module()(other)
        _require(_off(result, expected) < 1e-5, layer, f"once exported is off by {_off(result, expected):.1e}")


def channels_last_gives_the_same(case: LayerCase) -> None:
    """The order of its numbers in memory changes nothing, in training neither where nothing is drawn."""
    if len(case.shape) != 3:
        return
    for layer, x in _modes(case):
        if layer.training and case.random:
            continue  # draws go in the order of the memory
        with torch.no_grad():
            state = {key: value.clone() for key, value in layer.state_dict().items()}
            expected = layer(x)
            layer.load_state_dict(state)
            last = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            result = last(x.to(memory_format=torch.channels_last))
        off = _off(result, expected)
        _require(off < 1e-5, layer, f"in channels last is off by {off:.1e} of the largest value ({_mode(layer)})")


def input_stays(case: LayerCase) -> None:
    """The input is not written to: a shortcut may read it again."""
    for layer, x in _modes(case):
        before = x.clone()
        with torch.no_grad():
            layer(x)
        _require(torch.equal(x, before), layer, f"writes to its input ({_mode(layer)})")


def images_do_not_mix(case: LayerCase) -> None:
    """At inference, an image's result does not depend on the others of its batch."""
    with _made(case) as (layer, x), torch.no_grad():
        layer.eval()
        together, alone = layer(x)[1:2], layer(x[1:2])
        off = _off(alone, together)
        _require(off < 1e-5, layer, f"mixes the images of a batch: alone, one is off by {off:.1e}")


def state_is_whole(case: LayerCase) -> None:
    """What it has learned goes through `state_dict`: another one that loads it gives the same."""
    with _made(case) as (layer, x), torch.no_grad():
        layer(x)  # in training mode, so that running statistics have moved
        torch.manual_seed(2)
        other = case.build()
        other.load_state_dict(layer.state_dict())
        results = []
        for one in (layer, other):
            torch.manual_seed(1)
            results.append(one.eval()(x))
        _require(torch.equal(*results), layer, "does not keep all that it learned in its state")


def draws_follow_the_seed(case: LayerCase) -> None:
    """One seed gives one result; only a layer that says so draws, and only in the modes that it says."""
    for layer, x in _modes(case):
        results = []
        for seed in (1, 1, 2, 3, 4):
            torch.manual_seed(seed)
            with torch.no_grad():
                results.append(layer(x))
        first, again, *others = results
        _require(torch.equal(first, again), layer, f"gives two results by one seed ({_mode(layer)})")
        draws = any(not torch.equal(first, other) for other in others)
        _require(
            draws == (case.random and layer.training),
            layer,
            f"{'draws' if draws else 'does not draw'} ({_mode(layer)})",
        )


LAYER_CHECKS: tuple[Callable[[LayerCase], None], ...] = (
    shape_is_as_worked_out,
    parameters_are_as_worked_out,
    gradient_is_that_of_differences,
    bfloat16_is_close,
    export_gives_the_same,
    channels_last_gives_the_same,
    input_stays,
    images_do_not_mix,
    state_is_whole,
    draws_follow_the_seed,
)


@contextmanager
def _made(case: LayerCase) -> Iterator[tuple[nn.Module, Tensor]]:
    """The layer in training mode and a batch for it, by one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = case.build().train()
        yield layer, torch.randn(BATCH, *case.shape)


def _modes(case: LayerCase) -> Iterator[tuple[nn.Module, Tensor]]:
    """The same in training mode, and a fresh one in inference mode."""
    for training in (True, False):
        with _made(case) as (layer, x):
            yield layer.train(training), x


def _mode(layer: nn.Module) -> str:
    return "while training" if layer.training else "at inference"


def _off(result: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    largest = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return ((result - expected).abs().max() / largest).item()


def _require(holds: bool, layer: nn.Module, seen: str) -> None:
    if not holds:
        raise NotConforming(f"{layer} {seen}.")
