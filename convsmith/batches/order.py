"""In which order images are seen, and by which process: arithmetic on (seed, epoch, step), so nothing is stored.

Everything rests on one global order per epoch. Steps are spans of it, and processes share a span in whole groups of
eight consecutive positions, the unit within which operations may pair images. So the number of processes changes
neither which images form a step nor what is drawn for them.
"""

from __future__ import annotations

import numpy as np

from convsmith.batches.philox import keys_of, operation_id, philox, split_seed, uniform
from convsmith.errors import UsageError

GROUP = 8


def permutation(n: int, *, seed: int, epoch: int, purpose: str = "order") -> np.ndarray:
    """Return the order in which epoch `epoch` sees `n` images: int64 `[n]`, a function of the arguments alone.

    Each index gets a random 64-bit word whose lowest bits are replaced by the index itself; sorting the words sorts the
    indices. No two words are equal, so every sorting algorithm, of any library on any machine, gives the same order
    (and a plain sort is three times as fast as an argsort). With 10^6 images 44 random bits remain.

    Args:
        n: how many images; below 2^32.
        seed: in [0, 2^64).
        epoch: in [0, 2^32).
        purpose: permutations for different purposes are independent of one another.
    """
    words = philox((np.arange(-(-n // 2)), operation_id(purpose), epoch, 0), split_seed(seed))
    index = np.uint64((1 << max(n - 1, 0).bit_length()) - 1)
    ranks = np.empty((2, words.shape[1]), np.uint64)
    np.bitwise_or(words[0::2] << np.uint64(32), words[1::2], out=ranks)
    ranks = (ranks.reshape(-1)[:n] & ~index) | np.arange(n, dtype=np.uint64)
    ranks.sort()
    return (ranks & index).astype(np.int64)


def balanced(weights: np.ndarray, classes: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Return which images epoch `epoch` sees, in its order, where some shall be seen more often than others.

    The epoch keeps its length N. Image i is expected N w_i / sum(w) times, and no epoch strays from that by chance as
    independent draws do: of e expected copies each image gets floor(e) or ceil(e), so that no image of a class comes
    a third time before all came twice, and each class as a whole gets the whole number below or above what is
    expected of it. Which images get the copy more changes from epoch to epoch.

    To that end the images are laid end to end on a line, class by class and within a class in random order, each as
    long as the copies expected of it; the points u, u + 1, ..., u + N - 1, with one random u in [0, 1), pick the
    images on which they fall. All of it is a function of the arguments alone.

    Args:
        weights: float `[N]`, 0 or more; 1 / (images of its class) shows all classes equally often.
        classes: int `[N]`; only which images belong together matters.
        seed, epoch: as in `permutation`.

    Returns:
        int64 `[N]`.

    Source: systematic sampling with unequal probabilities, Madow 1949, "On the theory of systematic sampling, II".
    """
    n = len(weights)
    order = permutation(n, seed=seed, epoch=epoch, purpose="balanced")
    line = order[np.argsort(classes[order], kind="stable")]
    ends = np.cumsum(weights[line].astype(np.float64))
    ends *= n / ends[-1]
    u = uniform(keys_of(epoch, 0, 1), "balanced offset", seed, 1)[0, 0]
    picked = np.ceil(ends - u).clip(0, n).astype(np.int64)  # how many points lie before each end
    picked[ends == ends[-1]] = n  # whatever rounding says: the last end is N, and nothing of weight 0 comes after it
    drawn = np.repeat(line, np.diff(picked, prepend=0))
    return drawn[permutation(n, seed=seed, epoch=epoch)]


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Return how many batches an epoch over `n` images has.

    A last batch below eight images joins the one before: it could not be shared among processes in whole groups, and
    batch norm estimates poorly from it.

    Args:
        n: how many images, at least one.
        batch_size: over all processes; a multiple of eight, except that fewer than eight images may form any one batch.

    Raises:
        UsageError: no images, or a batch size that is not a positive multiple of eight.
    """
    if n < 1:
        raise UsageError(
            "There are no images to make batches of.", mend="Check the role or the limit they were selected by."
        )
    if batch_size < 1 or (batch_size % GROUP and n >= GROUP):
        below = max(GROUP, batch_size // GROUP * GROUP)
        raise UsageError(
            f"The batch size is {batch_size}, but must be a multiple of {GROUP}, the unit processes share.",
            mend=f"Use {below} or {below + GROUP}.",
        )
    full, rest = divmod(n, batch_size)
    return full if full and rest < GROUP else full + 1


def span(step: int, n: int, batch_size: int) -> tuple[int, int]:
    """Return the positions `[start, stop)` of the epoch's order that form step `step`, counted from 0 in each epoch.

    Raises:
        UsageError: the epoch has no such step.
    """
    steps = steps_per_epoch(n, batch_size)
    if not 0 <= step < steps:
        raise UsageError(
            f"step is {step}, but an epoch over {n} images in batches of {batch_size} has steps 0 to {steps - 1}."
        )
    return step * batch_size, n if step == steps - 1 else (step + 1) * batch_size


def rank_span(start: int, stop: int, rank: int, world: int) -> tuple[int, int]:
    """Return the part of the positions `[start, stop)` that process `rank` of `world` takes.

    The parts follow each other in rank order and hold whole groups of eight, as evenly as that allows, the first ranks
    taking what is left over. An incomplete last group joins the one before it, so that no rank estimates its batch norm
    from a handful of images. A rank may be left with nothing (`start == stop`).
    """
    if not 0 <= rank < world:
        raise UsageError(f"rank is {rank}, but must be in [0, {world}), the number of processes.")
    groups = max(1, (stop - start) // GROUP)
    each, extra = divmod(groups, world)
    first = rank * each + min(rank, extra)
    last = first + each + (rank < extra)
    return (
        stop if first == groups else start + first * GROUP,
        stop if last == groups else start + last * GROUP,
    )
