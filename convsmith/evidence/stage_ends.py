"""Where the features of each stage leave it, and what they are on average over an image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convsmith.evidence.predict import inference_mode
from convsmith.networks import Head, Stage, stages

CHANNELS_FIRST, CHANNELS_LAST, TOKENS = (2, 3), (1, 2), (1,)
"""The dimensions that are places: of maps `[N, C, H, W]` and `[N, H, W, C]`, and of tokens `[N, T, D]`."""


@dataclass(frozen=True)
class StageEnd:
    """The output with which a stage ends.

    Args:
        name, stride: of the stage.
        path: of the module whose output it is; for the last end, of the head, whose input it is.
        places: the dimensions to average over; none for the last end.
        features: numbers that are left of each image.
    """

    name: str
    stride: int
    path: str
    places: tuple[int, ...]
    features: int


def stage_ends(model: nn.Module, head: Head, shape: Sequence[int]) -> tuple[StageEnd, ...]:
    """Find where each stage ends, from the image to what the head is given, which is the last end.

    A stage ends with the last block or layer that is whole before the next stage begins. What lies in a block that
    reaches into the next one is still on its way: the expansion before a strided convolution, for example. Neither
    pooling nor a module that runs more than once ends a stage, and a stage in which nothing ends is left out. What the
    head is given is the last stage's, however the network pools and norms it, unless layers with weights follow on
    pooling (VGG, MobileNetV3): then it is an end of its own, named `head`.

    Args:
        model: run on two images in inference mode, and left as it was.
        head: its last linear layer.
        shape: of one image, `(channels, height, width)`.
    """
    found = stages(model, shape)
    images = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0)).to(next(model.parameters()).device)
    calls = _calls(model, images)
    begins = [_begin(stage, calls) for stage in found] + [math.inf, math.inf]
    body = [(stage, index) for index, stage in enumerate(found) if stage.name != "head"]
    last = found[-1]
    if body and not _weighty(model, head, found[-1]):
        last = body.pop()[0]
    ended = []
    for stage, index in body:
        call = _last_call(model, calls, *begins[index : index + 3])
        if call is not None:
            ended.append((stage, call))
    ends = []
    for (stage, call), places in zip(ended, _places([call for _, call in ended], shape), strict=True):
        features = math.prod(call.shape[1:]) // math.prod(call.shape[place] for place in places)
        ends.append(StageEnd(stage.name, stage.stride, call.path, places, features))
    return (*ends, StageEnd(last.name, last.stride, head.path, (), head.in_features))


@contextmanager
def averages(model: nn.Module, ends: Sequence[StageEnd]) -> Iterator[list[Tensor]]:
    """Keep what the latest forward pass inside gave at the ends, averaged over places: float32 `[N, features]` each."""
    means = [torch.empty(0)] * len(ends)
    with ExitStack() as hooks:
        for index, end in enumerate(ends):

            def keep(
                module: nn.Module,
                inputs: object,
                output: Tensor,
                index: int = index,
                places: tuple[int, ...] = end.places,
            ) -> None:
                means[index] = _average(output.detach(), places)

            hooks.callback(model.get_submodule(end.path).register_forward_hook(keep).remove)
        yield means


def _average(output: Tensor, places: tuple[int, ...]) -> Tensor:
    # On processors the whole batch is copied to float32 first, which took 7 times as long as image by image (75 against
    # 11 ms for 32 maps of 64 channels at 112 px); float32 itself and GPUs need no copy.
    parts = output.split(1) if output.device.type == "cpu" and output.dtype != torch.float32 else (output,)
    return torch.cat([part.mean(places, dtype=torch.float32) for part in parts])


@dataclass
class _Call:
    """One run of a module: when it began and ended, and its output's shape where that is a tensor."""

    path: str
    enter: int
    leave: int = 0
    shape: tuple[int, ...] = ()


def _calls(model: nn.Module, images: Tensor) -> list[_Call]:
    """What ran in one forward pass, in the order in which it ended."""
    clock, running, done = 0, [], []

    def enter(path: str) -> None:
        nonlocal clock
        clock += 1
        running.append(_Call(path, clock))

    def leave(output: object) -> None:
        nonlocal clock
        clock += 1
        call = running.pop()
        call.leave, call.shape = clock, tuple(output.shape) if isinstance(output, Tensor) else ()
        done.append(call)

    with inference_mode(model), torch.inference_mode(), ExitStack() as hooks:
        for path, module in model.named_modules():
            hooks.callback(module.register_forward_pre_hook(lambda module, inputs, path=path: enter(path)).remove)
            hooks.callback(module.register_forward_hook(lambda module, inputs, output: leave(output)).remove)
        model(images)
    return done


def _weighty(model: nn.Module, head: Head, stage: Stage) -> bool:
    """Whether a stage holds layers with weights, which norms are not, beside the head."""
    own = {f"{head.path}.{name}" for name, _ in model.get_submodule(head.path).named_parameters()}
    return any(model.get_parameter(name).ndim > 1 for name in stage.parameters if name not in own)


def _weights(model: nn.Module, path: str) -> bool:
    return any(parameter.ndim > 1 for parameter in model.get_submodule(path).parameters())


def _begin(stage: Stage, calls: Sequence[_Call]) -> float:
    """When the first of a stage's modules ran."""
    return min((call.enter for call in calls if call.path in stage.modules), default=math.inf)


def _last_call(model: nn.Module, calls: Sequence[_Call], begin: float, border: float, beyond: float) -> _Call | None:
    """The last whole block or layer of the stage from `begin` to `border`; the next stage ends at `beyond`."""

    def chain(call: _Call) -> bool:  # of layers of this stage and of the next, which may be parted anywhere
        within = (other for other in calls if other.enter > call.enter and other.leave < border)
        module = model.get_submodule(call.path)
        return isinstance(module, nn.Sequential) and any(_weights(model, other.path) for other in within)

    reaching = [call for call in calls if begin < call.enter < border <= call.leave < beyond and not chain(call)]
    border = min([border, *(call.enter for call in reaching)])
    times = Counter(call.path for call in calls)
    last = None
    for call in calls:
        if begin <= call.leave < border and len(call.shape) in (3, 4) and call.shape[0] == 2 and times[call.path] == 1:
            kept = last is not None and math.prod(call.shape) == math.prod(last.shape)
            if kept or any(True for _ in model.get_submodule(call.path).parameters()):
                last = call
    return last


def _places(calls: Sequence[_Call], shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Tell rows and columns from channels: they have the image's proportions."""

    def misfit(call: _Call, rows: int, columns: int) -> float:
        return abs(math.log2(call.shape[rows] * shape[2] / (call.shape[columns] * shape[1])))

    leanings = [
        misfit(call, *CHANNELS_LAST) - misfit(call, *CHANNELS_FIRST) if len(call.shape) == 4 else 0.0 for call in calls
    ]
    # Where there are as many channels as rows and columns, both fit alike; a network keeps to one order.
    orders = [CHANNELS_FIRST if (leaning or sum(leanings)) >= 0 else CHANNELS_LAST for leaning in leanings]
    return [order if len(call.shape) == 4 else TOKENS for order, call in zip(orders, calls, strict=True)]
