"""How large a given model's signal is at each depth: as its values stand, and as rules would draw them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from convsmith.errors import UsageError
from convsmith.networks.initialisation import INITIALISATIONS, initialise
from convsmith.networks.recording.untouched import duplicate
from convsmith.networks.signal import signal_through_depth
from convsmith.pipeline.given_model import Given
from convsmith.reporting.inspection import Depths
from convsmith.training import untouched

OWN = "own"
"""Stands for the values that the model has."""
IMAGES = 16
PIXELS = 64 * 224 * 224
"""At most so many are measured at once, over all images, so that large images stay within memory."""


def signals_of(given: Given, names: Sequence[str]) -> tuple[Depths, ...]:
    """Measure a model's signal through depth, once for each way of starting its values.

    The images are independent normal numbers of deviation 1, as Glorot & Bengio 2010 and He et al. 2015 assume them.
    Where values are drawn, norms use the statistics of these images, as in the first step of training; where they were
    loaded, those that they learned.

    Args:
        given: opened with values; it stays as it was.
        names: `own`, or rows of `INITIALISATIONS`, each measured on a copy.

    Raises:
        UsageError: no such rule, the network fails on images of its size, or it cannot be copied.
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name != OWN:
            INITIALISATIONS[name]
    channels, height, width = given.shape
    count = max(2, min(IMAGES, PIXELS // (height * width)))
    images = torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(0))
    return tuple(_measured(given, name, images) for name in names)


def _measured(given: Given, name: str, images: torch.Tensor) -> Depths:
    model, says = given.model, given.weights or "as it was given"
    loaded = bool(given.weights) and not given.drawn
    if name != OWN:
        with untouched():
            model = duplicate(given.model)
            initialise(model, name)
        entry, loaded = INITIALISATIONS[name], False
        says = f"drawn anew: {entry.summary} ({entry.source})"
    try:
        signals = signal_through_depth(model, images, training=not loaded)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"The network fails on {len(images)} images of {'x'.join(map(str, given.shape))}: {error}",
            mend="Give another size with --input, or leave --signal out.",
        ) from error
    return Depths(name, says, len(images), tuple(signal.to_json() for signal in signals))
