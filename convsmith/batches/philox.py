"""Random numbers without a state: each draw is a function of (seed, epoch, position, operation) and of nothing else.

A generator that is advanced must be saved, handed to workers and kept in step between processes. Here there is nothing
to save: the numbers of position 4711 in epoch 3 can be asked for at any time, in any process, in any order, alone or
among thousands, and are always the same. That is what makes a resumed run, and a run on two processes, draw as the
uninterrupted run on one.

Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32-10). Checked against
the known answers its authors publish with Random123.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convsmith.errors import UsageError

ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)
MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
WEYL = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)
LANES = 8192  # counters per pass: their work space (0.5 MB) stays in the second-level cache, 1.6 times as fast for 10^6


def philox(counter: Sequence[np.ndarray | int], key: tuple[int, int]) -> np.ndarray:
    """Encipher counters into random words: the function itself, Philox4x32 with ten rounds.

    Args:
        counter: four words in [0, 2^32), each a number or an array; they are broadcast to one shape.
        key: two words in [0, 2^32).

    Returns:
        uint64 `[4, *shape]`, each word in [0, 2^32).
    """
    shape = np.broadcast_shapes(*(np.shape(word) for word in counter))
    words = np.empty((4, *shape), np.uint64)
    for index, value in enumerate(counter):
        words[index, ...] = value
    flat = words.reshape(4, -1)
    # the key grows by a Weyl sequence from round to round
    keys = (np.array(key, np.uint64)[:, None] + np.arange(ROUNDS, dtype=np.uint64)[:, None, None] * WEYL) & LOW
    for start in range(0, flat.shape[1], LANES):
        _encipher(flat[:, start : start + LANES], keys)
    return words


def _encipher(words: np.ndarray, keys: np.ndarray) -> None:
    """Run the ten rounds in place on `[4, L]`; words 0 and 2 share each call, for a call costs more than 64 numbers."""
    even, odd = words[0::2], words[1::2]
    product, high = np.empty_like(even), np.empty_like(even)
    for key in keys:
        np.multiply(even, MULTIPLIERS, out=product)
        np.right_shift(product, SHIFT, out=high)
        np.bitwise_xor(odd, key, out=odd)
        np.bitwise_xor(high[::-1], odd, out=even)
        np.bitwise_and(product[::-1], LOW, out=odd)


def operation_id(name: str) -> int:
    """Return the 32-bit id of an operation's name: the first four bytes of its BLAKE2b digest, little-endian.

    Unlike `hash`, it is the same in every process and version, so draws can be repeated from the names in a recipe.
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def split_seed(seed: int) -> tuple[int, int]:
    """Return a seed as Philox's two key words; a seed outside [0, 2^64) raises `UsageError`."""
    if not 0 <= seed < 2**64:
        raise UsageError(f"seed is {seed}, but must be in [0, 2^64).", mend="Use a seed such as 0.")
    return seed & 0xFFFFFFFF, seed >> 32


def uniform(keys: np.ndarray, operation: str | int, seed: int, count: int) -> np.ndarray:
    """Draw uniform numbers in [0, 1), `count` for each key.

    Args:
        keys: int64 `[N, 2]`: epoch and position in the epoch's global order, both in [0, 2^32).
        operation: what the numbers are for: a name (see `operation_id`) or a 32-bit id. Operations with different names
            draw independently, so adding one to a recipe leaves the draws of the others as they were.
        seed: in [0, 2^64).
        count: how many numbers per key. Asking for more leaves the first ones as they were.

    Returns:
        float64 `[N, count]`, multiples of 2^-24. Each column is contiguous, so that what is computed from a column is
        bitwise the same for one key and for many.
    """
    identity = operation_id(operation) if isinstance(operation, str) else operation
    blocks = -(-count // 4)
    words = philox((np.arange(blocks)[:, None], identity, keys[:, 0], keys[:, 1]), split_seed(seed))
    return (words.transpose(1, 0, 2).reshape(4 * blocks, len(keys))[:count] >> np.uint64(8)).T * 2.0**-24


@dataclass(frozen=True)
class Keys:
    """Which images are drawn for: what an operation's `draw` receives.

    Args:
        values: int64 `[N, 2]`: epoch and position.
        seed: the run's seed.
    """

    values: np.ndarray
    seed: int = 0

    def __len__(self) -> int:
        return len(self.values)

    def uniform(self, operation: str, count: int) -> np.ndarray:
        """Return float64 `[N, count]` in [0, 1); see `uniform`."""
        return uniform(self.values, operation, self.seed, count)


def keys_of(epoch: int, start: int, stop: int) -> np.ndarray:
    """Return int64 `[stop - start, 2]`: the keys of consecutive positions of one epoch."""
    keys = np.empty((stop - start, 2), np.int64)
    keys[:, 0] = epoch
    keys[:, 1] = np.arange(start, stop)
    return keys
