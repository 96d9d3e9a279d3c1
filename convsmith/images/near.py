"""Photos that are nearly the same: re-encoded, scaled, cropped by a little, mirrored, brightened.

Two steps, both on sketches (`images.sketch`), so that no file is read again.

    search    every picture, whole and each of four corners cut off, is laid on every other by its pattern of 32
              numbers, as it is and mirrored: one blocked matrix product each. Pairs above 0.85 are candidates, 0.01 to
              0.1 % of all.
    proof     the candidates' detail is correlated under 49 crops of the first picture and in both mirrorings. The best
              is the `likeness`; from `NEAR` on the pair is named.

Calibrated on 800 photos with 17,600 pictures derived from them, on flowers of one class as strangers, and on 60,000
small pictures enlarged fourfold: `benchmarks/leaks.py` measures what is found and what is named in error.

What has too little to be recognised by is not compared at all: pictures below 32 px on a side, plain walls, digits,
most pages of text and line drawings (`sketch.textured`). Of those only equal pictures are found, by `images.audit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from convsmith.images.dataset import ROLES, Dataset
from convsmith.images.sketch import (
    MIRROR,
    MIRRORED_PATTERN,
    SKETCH,
    TOP_TO_BOTTOM,
    WHOLE,
    coarse_patterns,
    fine_details,
    plain_share,
    sketch,
    textured,
)
from convsmith.images.threads import Progress, in_threads

__all__ = ["COMPARED", "SKETCH", "Near", "leaks", "near_duplicates", "near_records", "sketch"]

COMPARED = 200_000  # up to so many pictures each is compared with all others: about eight minutes of one core
# Likeness from which on a pair is named. Of pictures derived from photos 99.5 % have 0.8 and more; strangers among 800
# photos have 0.65 at most, and among the 1.8 thousand million pairs of 60,000 small pictures a few have up to 0.77.
NEAR = 0.76

# Top, left and side of what is cut from the first picture. The first lies between the whole and its middle nine tenths,
# and its pattern resembles both; the corners lie between those of 0.9 and of 0.95.
_CUTS = ((0.015, 0.015, 0.97), (0.0, 0.0, 0.925), (0.0, 0.075, 0.925), (0.075, 0.0, 0.925), (0.075, 0.075, 0.925))
_CROPS = ((0.0, 1.0), (0.0, 0.95), (0.025, 0.95), (0.05, 0.95), (0.0, 0.9), (0.05, 0.9), (0.1, 0.9))
_ALIKE = 0.85  # correlation of patterns that makes a candidate: 0.2 % of derived pictures lie below
_ROWS, _COLUMNS = 256, 2048  # of a block of the matrix product: 2 MB, so that it stays in the processor's cache
_CANDIDATES = 64  # kept for each picture, the likest
_PLAIN, _PLAIN_PRICE = 0.2, 0.4  # an even background is likeness for nothing: beyond this share more of it is asked
_AT_ONCE = 1024  # sketches described at a time, to bound memory
_AT_A_TIME = 32  # sketches described under all crops at a time: 50 kB each, and as much again in between
_COPIES = 64  # pairs between two sets of equal pictures that are all listed
_LISTED = 8  # of one picture's near duplicates, so many are put on record, the likest


@dataclass(frozen=True, eq=False)
class Near:
    """Pairs of near duplicates.

    Args:
        pairs: int64 `[M, 2]`, ascending, the first index below the second.
        likeness: float32 `[M]`, correlation of their detail where they lie best on each other, 0.76 to 1.
        mirrored: bool `[M]`, one is the other's mirror image (and perhaps cropped besides).
        compared: how many pictures were compared; the others are too small or too plain.
        limited: there were more than `COMPARED`, so each was held only against the pictures most like it in one
            respect, and pairs may be missing.
    """

    pairs: np.ndarray
    likeness: np.ndarray
    mirrored: np.ndarray
    compared: int = 0
    limited: bool = False

    def says(self) -> str:
        """One sentence on what was compared, or nothing where no picture was."""
        if not self.compared:
            return ""
        told = f"{self.compared:,} pictures were compared for near duplicates"
        if self.limited:
            told += (
                f"; being more than {COMPARED:,}, each only with those nearest to it in how its light falls from top to"
                " bottom, so some pairs may be missing"
            )
        return f"{told}."


@threadpool_limits.wrap(limits=1, user_api="blas")  # blocks take a thread each; threads below threads only wait
def near_duplicates(
    sketches: np.ndarray, hashes: np.ndarray | None = None, *, progress: Progress | None = None
) -> Near:
    """Find pictures that are nearly the same.

    Found are copies re-encoded as JPEG of quality 30 or more, at half to double size, cropped to nine tenths of each
    side or more (about the middle, to a side or to a corner), mirrored, or with brightness and contrast changed a
    little; likewise two shots of one scene a moment apart. Pictures of which more than 64 others look alike (frames of
    a film) are linked with the 64 likest of them.

    Time grows with the square of the number of pictures: 10,000 take 1.5 s of one core, 60,000 take 44 s; blocks are
    spread over all processors. Memory grows with the number: 2 kB each beside the sketches, and 6 MB for each thread.
    Beyond `COMPARED` pictures, time is held where it is there, and the result is `limited`: at twice as many, 78 % of
    crops of photos were still found.

    Args:
        sketches: uint8 `[N, SKETCH]`, of `sketch`.
        hashes: uint8 `[N, 32]`, `Dataset.contents`. Pairs of equal ones are left out, as they are no near duplicates
        but the same.
        progress: called with (pictures done, pictures compared).

    Returns:
        The pairs. The order of the pictures makes no difference to them.
    """
    if sketches.dtype != np.uint8 or sketches.ndim != 2 or sketches.shape[1] != SKETCH:
        raise ValueError(f"sketches are {sketches.dtype} {list(sketches.shape)}; expected uint8 [N, {SKETCH}]")
    members = _equal(hashes) if hashes is not None else [np.array([i]) for i in range(len(sketches))]
    first = np.array([group[0] for group in members], np.int64)
    chosen = np.flatnonzero(_on_all(textured, sketches[first]))
    rows = first[chosen]
    limited = len(rows) > COMPARED
    if limited:
        order = np.argsort(_on_all(_fall_of_light, sketches[rows]), kind="stable")
        chosen, rows = chosen[order], rows[order]
    found = _search(sketches[rows], progress)
    a, b, likeness, mirrored = _once(*found)
    pairs, origin = _with_copies(chosen[a], chosen[b], members)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    compared = sum(len(members[i]) for i in chosen)
    return Near(pairs[order], likeness[origin][order], mirrored[origin][order], compared, limited)


def leaks(dataset: Dataset, near: Near) -> list[dict[str, object]]:
    """List pictures that stand on both sides of a split, the same or nearly.

    For each two roles, every picture of the smaller one that has a counterpart in the other is listed once, with the
    best of
    them: an equal picture before a near one, then the likest, then the first by id.

    Args:
        dataset: with roles and hashes; pictures without a role are on no side.
        near: of its pictures, in its order.

    Returns:
        Records of `first`, `first_role`, `second`, `second_role` (the smaller role's), `kind` (`same`, `near` or
        `mirrored`) and `likeness` (1 for the same); the same first, then by likeness.
    """
    roles = np.array([ROLES.index(role) if role in ROLES else -1 for role in dataset.roles], np.int64)
    sizes = np.bincount(roles[roles >= 0], minlength=len(ROLES))
    best: dict[tuple[int, int], tuple[float, str, int, str]] = {}

    def offer(own: int, other: int, likeness: float, kind: str) -> None:
        key = (own, int(roles[other]))
        value = (-likeness if kind != "same" else -2.0, dataset.ids[other], other, kind)
        if key not in best or value < best[key]:
            best[key] = value

    def is_smaller(own: int, other: int) -> bool:
        return (sizes[roles[own]], -roles[own]) < (sizes[roles[other]], -roles[other])

    for own, other in _same_across(dataset, roles):
        if is_smaller(own, other):
            offer(own, other, 1.0, "same")
    across = np.flatnonzero((roles[near.pairs] >= 0).all(axis=1) & (roles[near.pairs[:, 0]] != roles[near.pairs[:, 1]]))
    for k in across.tolist():
        a, b = near.pairs[k].tolist()
        own, other = (a, b) if is_smaller(a, b) else (b, a)
        offer(own, other, float(near.likeness[k]), "mirrored" if near.mirrored[k] else "near")
    ordered = sorted(best.items(), key=lambda item: (item[1][0], dataset.ids[item[0][0]], item[1][1]))
    return [
        {
            "first": dataset.ids[other],
            "first_role": dataset.roles[other],
            "second": dataset.ids[own],
            "second_role": dataset.roles[own],
            "kind": kind,
            "likeness": 1.0 if kind == "same" else round(-value, 3),
        }
        for (own, _), (value, _, other, kind) in ordered
    ]


def near_records(dataset: Dataset, near: Near) -> list[dict[str, object]]:
    """Write near duplicates as records, the likest first.

    Of a picture with more than eight near duplicates the eight likest are written, and likewise the eight likest that
    bear another label.

    Args:
        dataset: the pictures.
        near: of them, in their order.

    Returns:
        Records of `first`, `second` (ids), `likeness`, `mirrored` and `labels_differ`.
    """
    differ = dataset.targets[near.pairs[:, 0]] != dataset.targets[near.pairs[:, 1]]
    both = np.concatenate([near.pairs[:, 0], near.pairs[:, 1]])
    listed = np.zeros(len(near.pairs), bool)
    listed[_likest(both * 2 + np.tile(differ, 2), np.tile(near.likeness, 2), _LISTED) % max(len(near.pairs), 1)] = True
    rows = np.flatnonzero(listed)
    ordered = sorted(rows.tolist(), key=lambda k: (-near.likeness[k], *(dataset.ids[i] for i in near.pairs[k])))
    return [
        {
            "first": dataset.ids[near.pairs[k, 0]],
            "second": dataset.ids[near.pairs[k, 1]],
            "likeness": round(float(near.likeness[k]), 3),
            "mirrored": bool(near.mirrored[k]),
            "labels_differ": bool(differ[k]),
        }
        for k in ordered
    ]


def _search(sketches: np.ndarray, progress: Progress | None) -> tuple[np.ndarray, ...]:
    """Hold every sketch against every other, or those within reach: directed pairs, their likeness, and whether
    mirrored."""
    count = len(sketches)
    nothing = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, bool)
    if count < 2:
        return nothing
    patterns = _on_all(lambda part: coarse_patterns(part, (WHOLE, *_CUTS)), sketches)
    whole, *cuts = (np.ascontiguousarray(patterns[:, k]) for k in range(patterns.shape[1]))
    reach = _reach(count)

    def block(number: int) -> tuple[np.ndarray, ...]:
        begin, end = number * _ROWS, min((number + 1) * _ROWS, count)
        nearest = (max(0, begin - reach), min(count, end + reach))
        own, other = _candidates([cut[begin:end] for cut in cuts], whole, begin, nearest)
        return _prove(sketches, own + begin, other)

    parts: list[tuple[np.ndarray, ...]] = [nothing]
    for number, part in enumerate(in_threads(block, -(-count // _ROWS))):
        parts.append(part)
        if progress is not None:
            progress(min((number + 1) * _ROWS, count), count)
    return tuple(np.concatenate(values) for values in zip(*parts, strict=True))


def _candidates(
    cuts: list[np.ndarray], whole: np.ndarray, begin: int, nearest: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Find what resembles the rows of a block, cut in any way: int64 rows within the block, and their counterparts.

    With the even frequencies' product E and the odd ones' O, E + O is the correlation as it is and E - O that with the
    mirror image; E + |O| is the larger.
    """
    split = whole.shape[1] - MIRRORED_PATTERN
    rows = len(cuts[0])
    buffers = np.empty((3, rows * _COLUMNS), np.float32)
    own, other, scores = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    for start in range(nearest[0], nearest[1], _COLUMNS):
        columns = whole[start : min(start + _COLUMNS, nearest[1])].T
        best, even, odd = (buffer[: rows * columns.shape[1]].reshape(rows, -1) for buffer in buffers)
        best.fill(_ALIKE)
        for cut in cuts:
            np.matmul(cut[:, :split], columns[:split], out=even)
            np.matmul(cut[:, split:], columns[split:], out=odd)
            np.abs(odd, out=odd)
            even += odd
            np.maximum(best, even, out=best)
        hits = np.flatnonzero(best > _ALIKE)
        row, column = np.divmod(hits, columns.shape[1])
        apart = row + begin != column + start
        own = np.concatenate([own, row[apart]])
        other = np.concatenate([other, column[apart] + start])
        scores = np.concatenate([scores, best.reshape(-1)[hits[apart]]])
        if len(own) > 2 * _CANDIDATES * rows:
            kept = _likest(own, scores, _CANDIDATES)
            own, other, scores = own[kept], other[kept], scores[kept]
    kept = _likest(own, scores, _CANDIDATES)
    return own[kept], other[kept]


def _prove(sketches: np.ndarray, own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, ...]:
    """Keep the candidates whose detail agrees under some crop of the first: pairs, likeness, and whether mirrored."""
    likeness, mirrored = np.zeros(len(own), np.float32), np.zeros(len(own), bool)
    rows, begins = np.unique(own, return_index=True)  # `own` ascends
    bounds = [*begins.tolist(), len(own)]
    for start in range(0, len(rows), _AT_A_TIME):
        some = rows[start : start + _AT_A_TIME]
        crops = fine_details(sketches[some], _CROPS)
        first = bounds[start]
        partners, place = np.unique(other[first : bounds[start + len(some)]], return_inverse=True)
        details = _in_parts(lambda part: fine_details(part)[:, 0], sketches[partners])
        for k in range(len(some)):
            begin, end = bounds[start + k], bounds[start + k + 1]
            against = details[place[begin - first : end - first]]
            straight = (crops[k] @ against.T).max(axis=0)
            turned = (crops[k] @ (against * MIRROR).T).max(axis=0)
            likeness[begin:end] = np.minimum(np.maximum(straight, turned), 1)
            mirrored[begin:end] = turned > straight
    hopeful = np.flatnonzero(likeness >= NEAR)
    own, other, likeness, mirrored = own[hopeful], other[hopeful], likeness[hopeful], mirrored[hopeful]
    plain = np.maximum(_in_parts(plain_share, sketches[own]), _in_parts(plain_share, sketches[other]))
    named = likeness >= NEAR + _PLAIN_PRICE * np.maximum(plain - _PLAIN, 0)
    return own[named], other[named], likeness[named], mirrored[named]


def _once(a: np.ndarray, b: np.ndarray, likeness: np.ndarray, mirrored: np.ndarray) -> tuple[np.ndarray, ...]:
    """Keep of every pair the direction, first or second cropped, in which it is likest."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    order = np.lexsort((mirrored, -likeness, high, low))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
    kept = order[new]
    return low[kept], high[kept], likeness[kept], mirrored[kept]


def _likest(groups: np.ndarray, scores: np.ndarray, most: int) -> np.ndarray:
    """Return the places of the `most` highest scores of each group, by group and then by falling score."""
    order = np.lexsort((-scores, groups))
    ordered = groups[order]
    starts = np.searchsorted(ordered, ordered)
    return order[np.arange(len(order)) - starts < most]


def _equal(hashes: np.ndarray) -> list[np.ndarray]:
    """Group pictures by their hash: ascending rows, the groups by their first."""
    keys = np.ascontiguousarray(hashes).view(f"V{hashes.shape[1]}").reshape(-1)
    _, group = np.unique(keys, return_inverse=True)
    order = np.argsort(group, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else []
    return sorted(groups, key=lambda rows: int(rows[0]))


def _with_copies(a: np.ndarray, b: np.ndarray, members: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Spread pairs over equal pictures: int64 `[M, 2]` ascending pairs and int64 `[M]`, the pair each came from.

    Between two large sets each picture is paired with the first of the other only, lest the pairs be their product.
    """
    pairs, origin = [], []
    for k, (one, two) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        left, right = members[one].tolist(), members[two].tolist()
        if len(left) * len(right) <= _COPIES:
            linked = [(i, j) for i in left for j in right]
        else:
            linked = [(i, right[0]) for i in left] + [(left[0], j) for j in right[1:]]
        pairs += [(min(pair), max(pair)) for pair in linked]
        origin += [k] * len(linked)
    return np.array(pairs, np.int64).reshape(-1, 2), np.array(origin, np.int64)


def _same_across(dataset: Dataset, roles: np.ndarray) -> list[tuple[int, int]]:
    """Pair each picture with the first, by id, equal one of every other role."""
    if dataset.contents is None:
        return []
    found = []
    for group in _equal(dataset.contents):
        if len(group) < 2:
            continue
        leaders: dict[int, int] = {}
        for i in sorted(group.tolist(), key=dataset.ids.__getitem__):
            leaders.setdefault(int(roles[i]), i)
        leaders.pop(-1, None)
        if len(leaders) > 1:
            members = [i for i in group.tolist() if roles[i] >= 0]
            found += [(i, other) for i in members for role, other in leaders.items() if role != roles[i]]
    return found


def _reach(count: int) -> int:
    """How far on either side each picture is held against others, so that it costs no more than at `COMPARED`."""
    return count if count <= COMPARED else COMPARED**2 // count // 2


def _fall_of_light(sketches: np.ndarray) -> np.ndarray:
    """Return float32 `[n]`, how much lighter the top is than the bottom: the same in the mirror, and little less
    cropped."""
    return coarse_patterns(sketches)[:, 0, TOP_TO_BOTTOM]


def _in_parts(describe: Callable[[np.ndarray], np.ndarray], sketches: np.ndarray) -> np.ndarray:
    """Describe sketches some thousands at a time."""
    parts = [describe(sketches[i : i + _AT_ONCE]) for i in range(0, max(len(sketches), 1), _AT_ONCE)]
    return np.concatenate(parts)


def _on_all(describe: Callable[[np.ndarray], np.ndarray], sketches: np.ndarray) -> np.ndarray:
    """Describe sketches some thousands at a time, on all processors."""
    count = max(1, -(-len(sketches) // _AT_ONCE))
    return np.concatenate(list(in_threads(lambda k: describe(sketches[k * _AT_ONCE : (k + 1) * _AT_ONCE]), count)))
