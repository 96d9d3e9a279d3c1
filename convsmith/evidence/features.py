"""Frozen features: what a network's last layer is given for each image, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from convsmith.errors import ConvsmithError
from convsmith.evidence.predict import batch_for, inference_mode
from convsmith.images.places import cache_folder
from convsmith.networks import Head, head_inputs
from convsmith.run_folder import write_atomically

View = Literal["image", "mirror"]
Progress = Callable[[int, int], None]
DIGEST = 32
"""Bytes of the SHA-256 behind the features: one that a disk has changed is a feature like any other."""


def frozen_features(
    model: nn.Module,
    head: Head,
    images: np.ndarray,
    *,
    prepare: Callable[[Tensor], Tensor],
    views: Sequence[View] = ("image",),
    precision: Literal["float32", "bfloat16"] = "float32",
    identity: str,
    folder: Path | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> np.ndarray:
    """What the last linear layer sees of every image, from the cache or computed now; norms in inference mode.

    Args:
        model: left in the mode it was in.
        head: its last linear layer.
        images: evaluation pixels, uint8 `[N, C, H, W]`.
        prepare: from uint8 to what the network takes (its normalisation).
        views: `image` as it is, `mirror` left and right exchanged.
        precision: that of the passes; the features are float32 in any case.
        identity: names weights, normalisation and images: whatever the features depend on beside the views.
        folder: where features lie; by default `$CONVSMITH_CACHE/features` or `~/.cache/convsmith/features`.
        progress: called with (done, total) images.
        note: called with a sentence where the folder cannot be written.

    Returns:
        float32 `[len(views), N, D]`.
    """
    place = folder if folder is not None else cache_folder() / "features"
    name = hashlib.sha256(f"{identity}\n{','.join(views)}".encode()).hexdigest()[:32]
    path = place / f"{name}.npy"
    shape = (len(views), len(images), head.in_features)
    known = _open(path, shape)
    if known is not None:
        return known
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        computed = _compute(model, head, images, prepare, views, progress)
    _keep(path, computed, note)
    return computed


def _compute(
    model: nn.Module,
    head: Head,
    images: np.ndarray,
    prepare: Callable[[Tensor], Tensor],
    views: Sequence[View],
    progress: Progress | None,
) -> np.ndarray:
    """Run the network once over each view, batch by batch, so that a batch's pixels are read once for all views."""
    device = next(model.parameters()).device
    features = np.empty((len(views), len(images), head.in_features), np.float32)
    size = batch_for(images.shape[1:])
    with inference_mode(model), torch.inference_mode(), head_inputs(model, head) as taken:
        for start in range(0, len(images), size):
            share = torch.from_numpy(np.array(images[start : start + size])).to(device)
            prepared = prepare(share)
            for row, view in enumerate(views):
                model(prepared.flip(-1) if view == "mirror" else prepared)
                features[row, start : start + len(share)] = taken.pop().float().cpu().numpy()
            if progress is not None:
                progress(min(start + size, len(images)), len(images))
    return features


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Read features that are whole: of this shape, followed by their own SHA-256."""
    try:
        kept = np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as stream:
            stream.seek(-DIGEST, os.SEEK_END)
            digest = stream.read()
    except (OSError, ValueError, EOFError, OverflowError):  # none, or cut short, or no longer an array
        return None
    if kept.shape != shape or kept.dtype != np.float32:
        return None
    features = np.array(kept)
    return features if hashlib.sha256(features.data).digest() == digest else None


def _keep(path: Path, features: np.ndarray, note: Callable[[str], None] | None) -> None:
    """Write them for the next run; a folder that cannot be written costs that run its time and nothing else."""
    buffer = io.BytesIO()
    np.save(buffer, features)
    buffer.write(hashlib.sha256(features.data).digest())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except (OSError, ConvsmithError) as error:
        if note is not None:
            note(f"Features are not kept for the next run: {error}")
