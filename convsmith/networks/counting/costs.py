"""What a network costs in four figures and what it sees, before a change and after it; and how long it takes here."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from convsmith.design import ConvNet
from convsmith.networks.convnet import build_design
from convsmith.networks.counting.analysis import Analysis, analyse, count_macs, count_parameters
from convsmith.networks.receptive import Field, last_map, receptive_fields
from convsmith.networks.recording.graph import record

Quantity = Literal["parameters", "macs", "memory", "latency"]
TURNS = 5
SECONDS = 0.4
MOST_TURNS = 30


@dataclass(frozen=True)
class Costs:
    """What a network costs for one image, and how much of it a position of its last maps sees.

    Args:
        parameters: all of them.
        macs: multiply-adds; None where a product's are not known.
        memory: bytes of activations that a training step keeps of each image; None where it cannot be trained so.
        field: receptive field of the last map; None where it is not known.
    """

    parameters: int
    macs: int | None
    memory: int | None
    field: Field | None

    @property
    def sees(self) -> int | None:
        """Pixels along the longer side of the receptive field; None where it is not known."""
        return None if self.field is None else max(self.field.height.size, self.field.width.size)

    @property
    def stride(self) -> float | None:
        """Pixels from one position of the last map to the next; None where it is not known."""
        return None if self.field is None else self.field.height.stride

    def to_json(self) -> dict[str, Any]:
        """All of it in plain types."""
        whole = self.field.whole if self.field is not None else None
        figures = {"parameters": self.parameters, "macs": self.macs, "memory": self.memory}
        return {**figures, "receptive_field": self.sees, "sees_all": whole, "stride": self.stride}


@dataclass(frozen=True)
class Difference:
    """What a change did, measured on both networks."""

    before: Costs
    after: Costs

    @property
    def parameters(self) -> int:
        """Parameters more; negative is saved."""
        return self.after.parameters - self.before.parameters

    @property
    def macs(self) -> int | None:
        """Multiply-adds more."""
        return _less(self.after.macs, self.before.macs)

    @property
    def memory(self) -> int | None:
        """Bytes more that training keeps of each image."""
        return _less(self.after.memory, self.before.memory)

    @property
    def sees(self) -> int | None:
        """Pixels more that a position of the last map sees."""
        return _less(self.after.sees, self.before.sees)


def costs(model: nn.Module, shape: Sequence[int]) -> Costs:
    """Find out what a network costs, without running it.

    Args:
        model: any module that takes one tensor, with or without values; left as it was.
        shape: of one image, `(channels, height, width)`.

    Raises:
        UsageError: it asks for values of the image, or fails on images of this size.
    """
    return costs_from(analyse(model, shape))


def costs_from(known: Analysis) -> Costs:
    """The costs of a network that was analysed."""
    last = last_map(known.graph, known.fields)
    field = None if last is None else known.fields.of(last)
    return Costs(known.parameters.total, known.macs, known.activation_bytes, field)


def design_costs(design: ConvNet, shape: Sequence[int], outputs: int) -> Costs:
    """What a design costs for images of `shape` and so many classes, built without values."""
    return costs(bare(design, shape, outputs), shape)


def field_of(model: nn.Module, shape: Sequence[int]) -> Field | None:
    """The receptive field of a network's last map by itself, which takes less time than all its costs."""
    graph = record(model, shape)
    fields = receptive_fields(graph)
    last = last_map(graph, fields)
    return None if last is None else fields.of(last)


def bare(design: ConvNet, shape: Sequence[int], outputs: int) -> nn.Module:
    """A design as a module whose parameters have shapes and no values."""
    with torch.device("meta"):
        return build_design(design, shape[0], outputs)


def cost_of(model: nn.Module, shape: Sequence[int], what: Quantity) -> int | None:
    """One figure of `costs` by itself, where it takes less time; not latency, which is measured by a `Clock`."""
    match what:
        case "parameters":
            return count_parameters(model).total
        case "macs":
            return count_macs(model, shape)
        case "memory":
            return analyse(model, shape).activation_bytes
        case _:
            raise ValueError(f"{what} is no figure of a network by itself")


class Clock:
    """Times networks on this machine beside one that all are compared with, taking turns.

    A machine that slows down slows both, so that the ratio stays; times are given as this ratio of the first one's.

    Args:
        model: with values; what all are compared with.
        shape: of one image, `(channels, height, width)`.
    """

    def __init__(self, model: nn.Module, shape: Sequence[int]) -> None:
        self._model = model
        self._image = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
        self.seconds, _ = self._race(model, model)
        self.threads = torch.get_num_threads()

    def time(self, model: nn.Module) -> float:
        """Seconds in which a network answers for one image, in inference mode, the median of several."""
        first, other = self._race(self._model, model)
        return self.seconds * other / first

    def _race(self, *models: nn.Module) -> tuple[float, float]:
        racing = [copy.deepcopy(model).eval() for model in models]
        taken: tuple[list[float], ...] = tuple([] for _ in racing)
        with torch.inference_mode():
            for model in racing:
                model(self._image)  # the first time, kernels are chosen and memory is asked for
            started = time.perf_counter()
            while True:
                turns, spent = len(taken[0]), time.perf_counter() - started
                if turns >= MOST_TURNS or (turns >= TURNS and spent >= SECONDS):
                    break
                for model, times in zip(racing, taken, strict=True):
                    before = time.perf_counter()
                    model(self._image)
                    times.append(time.perf_counter() - before)
        return statistics.median(taken[0]), statistics.median(taken[1])


def _less(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one - other
