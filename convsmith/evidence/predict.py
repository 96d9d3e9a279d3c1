"""Run a trained network over images and leave arrays. All predictions are made here, in float32, by one rule."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from convsmith.batches import Batch
from convsmith.tasks import Task

BATCH_SIZE = 256
PIXELS = 32 * 224 * 224
"""At the most in one batch: activations of 32 photos stay near the processor; with 64 at a time each took longer."""


def predict(
    model: nn.Module,
    task: Task,
    images: np.ndarray,
    *,
    prepare: Callable[[Tensor], Tensor],
    batch_size: int | None = None,
) -> dict[str, np.ndarray]:
    """Predict every image, in order.

    Args:
        model: used in inference mode and left in the mode it was in.
        task: says what a prediction is.
        images: evaluation pixels, uint8 `[N, C, H, W]`.
        prepare: from uint8 to what the network takes (its normalisation).
        batch_size: images at a time, as many as `batch_for` says by default; the logits differ by rounding only.

    Returns:
        The task's arrays by name, each with N first.
    """
    device = next(model.parameters()).device
    batch_size = batch_size or batch_for(images.shape[1:])
    parts: list[dict[str, np.ndarray]] = []
    with inference_mode(model), torch.inference_mode():
        for start in range(0, len(images), batch_size):
            # a copy, because the pixels may be a read-only map of a file, which torch warns about
            share = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
            arrays = task.predict(model, Batch.of_images(prepare(share)))
            parts.append({name: tensor.cpu().numpy() for name, tensor in arrays.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def batch_for(shape: Sequence[int]) -> int:
    """How many images of shape `[C, H, W]` to predict at a time."""
    return max(8, min(BATCH_SIZE, PIXELS // (shape[-2] * shape[-1])))


@contextlib.contextmanager
def inference_mode(model: nn.Module) -> Iterator[None]:
    """Within, every module is in inference mode; after, each is in the mode it was in before, frozen ones too."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
