"""By what a picture is known: SHA-256 of its pixels, where it lies in memory; the file's own, where it is one."""

from __future__ import annotations

import hashlib

import numpy as np


def pixel_hash(pixels: np.ndarray) -> bytes:
    """Hash a picture by what is seen: SHA-256 over its shape (three little-endian uint32), its type where that is not
    uint8 (`<u2`, `<f4`), and its bytes in C order, little-endian.

    Args:
        pixels: `[H, W, C]`, of any type that `decode` gives.

    Returns:
        32 bytes, equal for equal pixels, whatever the file format they came from.
    """
    digest = hashlib.sha256(np.array(pixels.shape, "<u4").tobytes())
    if pixels.dtype != np.uint8:
        stored = pixels.dtype.newbyteorder("<")
        digest.update(stored.str.encode())
        pixels = pixels.astype(stored, copy=False)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()
