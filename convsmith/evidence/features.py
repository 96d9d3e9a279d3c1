"""Frozen features: what a network's last layer is given for each image, and what its stages make on the way there.

They are computed once, in the same forward passes, and kept on disk.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from convsmith.errors import ConvsmithError
from convsmith.evidence.predict import batch_for, inference_mode
from convsmith.evidence.stage_ends import StageEnd, averages
from convsmith.images.places import cache_folder
from convsmith.networks import Head, head_inputs
from convsmith.run_folder import write_atomically

View = Literal["image", "mirror"]
Progress = Callable[[int, int], None]
DIGEST = 32
"""Bytes of the SHA-256 behind the features: one that a disk has changed is a feature like any other."""
STAGE_BYTES = 2**28
"""At the most for the features of all stages together: 36,000 images of a ResNet-50, 350,000 of an EfficientNet-Lite0;
of more images, as many are taken, evenly spaced."""


@dataclass(frozen=True)
class Frozen:
    """Features of images from a network that stays as it is.

    Args:
        views: what its last linear layer sees, float32 `[V, N, D]`.
        stages: averages over places at the end of each stage before that, of the image as it is: float32 `[R, D_s]`.
        rows: which of the N images these are, int64 `[R]`, rising.
    """

    views: np.ndarray
    stages: tuple[np.ndarray, ...]
    rows: np.ndarray


def frozen_features(
    model: nn.Module,
    head: Head,
    images: np.ndarray,
    *,
    prepare: Callable[[Tensor], Tensor],
    views: Sequence[View] = ("image",),
    ends: Sequence[StageEnd] = (),
    precision: Literal["float32", "bfloat16"] = "float32",
    identity: str,
    folder: Path | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Frozen:
    """What the last linear layer sees of every image, from the cache or computed now; norms in inference mode.

    Stages cost no pass of their own. They lie in a file of their own; where one of the two is not whole, both are
    computed anew.

    Args:
        model: left in the mode it was in.
        head: its last linear layer.
        images: evaluation pixels, uint8 `[N, C, H, W]`.
        prepare: from uint8 to what the network takes (its normalisation).
        views: `image` as it is, `mirror` left and right exchanged.
        ends: those of the stages whose features are wanted too.
        precision: that of the passes; the features are float32 in any case.
        identity: names weights, normalisation and images: whatever the features depend on beside the views.
        folder: where features lie; by default `$CONVSMITH_CACHE/features` or `~/.cache/convsmith/features`.
        progress: called with (done, total) images.
        note: called with a sentence where the folder cannot be written.

    Raises:
        ValueError: stages are wanted, but no view is `image`.
    """
    if ends and "image" not in views:
        raise ValueError(f"Stages are averaged over the image as it is, which is not among the views {tuple(views)}")
    place = folder if folder is not None else cache_folder() / "features"
    shape = (len(views), len(images), head.in_features)
    widths = [end.features for end in ends]
    rows = _spaced(len(images), STAGE_BYTES // (4 * max(1, sum(widths))))
    path = _path(place, identity, *views)
    beside = _path(place, identity, "stages", *(end.path for end in ends)) if ends else None
    known = _open(path, shape)
    stages = _open(beside, (len(rows), sum(widths))) if beside else np.empty((len(rows), 0), np.float32)
    if known is None or stages is None:
        with torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            known, stages = _compute(model, head, images, prepare, views, ends, rows, progress)
        if _keep(path, known, note) and beside:
            _keep(beside, stages, note)
    return Frozen(known, tuple(np.split(stages, np.cumsum(widths[:-1]), axis=1)) if ends else (), rows)


def _path(folder: Path, *parts: str) -> Path:
    name = hashlib.sha256("\n".join((parts[0], ",".join(parts[1:]))).encode()).hexdigest()[:32]
    return folder / f"{name}.npy"


def _spaced(count: int, most: int) -> np.ndarray:
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)


def _compute(
    model: nn.Module,
    head: Head,
    images: np.ndarray,
    prepare: Callable[[Tensor], Tensor],
    views: Sequence[View],
    ends: Sequence[StageEnd],
    rows: np.ndarray,
    progress: Progress | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Run the network once over each view, batch by batch, so that a batch's pixels are read once for all views.

    Returns:
        Features of the views, `[V, N, D]`, and of the stages, `[R, sum D_s]`.
    """
    device = next(model.parameters()).device
    features = np.empty((len(views), len(images), head.in_features), np.float32)
    stages = np.empty((len(rows), sum(end.features for end in ends)), np.float32)
    size = batch_for(images.shape[1:])
    with inference_mode(model), torch.inference_mode(), head_inputs(model, head) as taken:
        for start in range(0, len(images), size):
            share = torch.from_numpy(np.array(images[start : start + size])).to(device)
            prepared = prepare(share)
            first, last = np.searchsorted(rows, (start, start + len(share)))
            for row, view in enumerate(views):
                with averages(model, ends if view == "image" and last > first else ()) as means:
                    model(prepared.flip(-1) if view == "mirror" else prepared)
                features[row, start : start + len(share)] = taken.pop().float().cpu().numpy()
                if means:
                    stages[first:last] = torch.cat(means, 1).cpu().numpy()[rows[first:last] - start]
            if progress is not None:
                progress(min(start + size, len(images)), len(images))
    return features, stages


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


def _keep(path: Path, features: np.ndarray, note: Callable[[str], None] | None) -> bool:
    """Write them for the next run; a folder that cannot be written costs that run its time and nothing else.

    Returns:
        Whether they are kept.
    """
    buffer = io.BytesIO()
    np.save(buffer, features)
    buffer.write(hashlib.sha256(features.data).digest())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except (OSError, ConvsmithError) as error:
        if note is not None:
            note(f"Features are not kept for the next run: {error}")
        return False
    return True
