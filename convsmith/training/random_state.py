"""The random generators a network might draw from while it trains (dropout, a user's own layer): taken and put back.

Order and augmentation need none of this: they are functions of (seed, epoch, position).
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed torch on every device, numpy's legacy generator and Python's."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def capture() -> dict[str, Any]:
    """The generators' states as tensors and plain values, which weights-only loading takes."""
    _, words, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "numpy": (torch.from_numpy(np.asarray(words).astype(np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }


def restore(state: Mapping[str, Any]) -> None:
    """Put back what `capture` took."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    words, *rest = state["numpy"]
    np.random.set_state(("MT19937", words.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Within, anything may be drawn; after, the generators stand where they stood."""
    state = capture()
    try:
        yield
    finally:
        restore(state)
