"""What the pixels' gradients say a small network draws on: the oracle of the tests of receptive fields."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from convsmith.networks.receptive import Fields, receptive_fields
from convsmith.networks.recording.graph import Graph, record

_file = Path(__file__).parents[2] / "benchmarks" / "receptive_by_gradient.py"
_spec = importlib.util.spec_from_file_location("receptive_by_gradient", _file)
assert _spec is not None
assert _spec.loader is not None
by_gradient = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = by_gradient  # which its dataclass looks up
_spec.loader.exec_module(by_gradient)


def fields_of(model: nn.Module, *shape: int) -> tuple[Graph, Fields, int]:
    """The graph, its fields, and the value that the network returns."""
    graph = record(model, shape)
    return graph, receptive_fields(graph), graph.outputs[0]


def seen(model: nn.Module, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last row, and column, that each number of the output has a gradient from; (0, -1) where from none.

    The network is made positive first, and its maxima are averages.

    Returns:
        For rows and for columns, int `[2, *output]`.
    """
    image = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
    model = by_gradient.made_positive(model)
    with by_gradient.Positive():
        output: Tensor = model(image)
    seeds = torch.eye(output.numel(), dtype=torch.float64).reshape(output.numel(), *output.shape)
    (gradients,) = torch.autograd.grad(output, image, seeds, is_grads_batched=True)
    rows, columns = (_hull((gradients.abs().sum((1, 2, 4 - axis)) > 0).numpy(), output.shape) for axis in (0, 1))
    return rows, columns


def _hull(there: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    first, last = there.argmax(1), there.shape[1] - 1 - there[:, ::-1].argmax(1)
    nothing = ~there.any(1)
    first[nothing], last[nothing] = 0, -1
    return np.stack([first, last]).reshape(2, *shape)


def said(fields: Fields, value: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The same as `Fields` says it, cut at the image's border."""
    reach = fields.reach(value)
    assert reach is not None, fields.reason(value)
    rows, columns = (
        np.stack([np.broadcast_to(part.first.clip(min=0), shape), np.broadcast_to(part.last.clip(max=side - 1), shape)])
        for part, side in zip(reach, fields.sides, strict=True)
    )
    nothing = (rows[0] > rows[1]) | (columns[0] > columns[1])
    for found in (rows, columns):
        found[0][nothing], found[1][nothing] = 0, -1
    return rows, columns


def within(fields: Fields, value: int, shape: tuple[int, ...]) -> np.ndarray:
    """Which numbers draw on nothing outside of the image: bool, of the value's shape."""
    rows, columns = fields.reach(value) or ()
    return np.logical_and.reduce(
        [
            np.broadcast_to((part.first >= 0) & (part.last < side), shape)
            for part, side in zip((rows, columns), fields.sides, strict=True)
        ]
    )
