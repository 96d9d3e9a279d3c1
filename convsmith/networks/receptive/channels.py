"""Channels that do not all draw on the same, as after two branches were put side by side: what some of them draw on.

A spread holds for all channels together. That is what a map draws on, and where channels are mixed again, as by a dense
convolution, what each draws on. Where some are taken out of a map whose branches differ, these are followed back to the
branches that they come from; where that is not possible, it is not known.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from convsmith.networks.receptive.computing import PRODUCTS
from convsmith.networks.receptive.following import pointwise, rule_of
from convsmith.networks.receptive.parts import Parts, corresponding
from convsmith.networks.receptive.reading import Reading
from convsmith.networks.receptive.spread import Spread, UnfollowedError, alike, joined, resized, unsqueezed
from convsmith.networks.recording.graph import Operation, Ref

LOST = "it takes some of the channels of branches that draw on different parts of the image"
MERGED = "channels of branches that draw on different parts of the image become places"
DEEP = 400
"""Operations in a row that are followed back at the most."""


def mark(reading: Reading, operation: Operation, where: str) -> None:
    """Note of an operation's results that their channels may differ in what they draw on, where they may.

    Where such channels become places, each place draws on less than all channels together, and how much is not known.
    """
    if any(value in reading.apart for value in operation.inputs):
        dense = operation.name in LINEAR or (_convolves(operation) and operation.arguments["groups"] == 1)
        parted = not dense
    else:
        parted = operation.name in JOINING and _parts(reading, operation)
    if parted:
        reading.apart.update(value for value in operation.outputs if value in reading.spreads)
    for value in operation.outputs if operation.name in MERGING else ():
        if value in reading.apart and any(map(_merges, reading.spreads[value].dims)):
            reading.bounds.setdefault(value, f"{where}: {MERGED}")


def taken(reading: Reading, operation: Operation, spreads: Sequence[Spread]) -> Sequence[Spread | None]:
    """What results draw on that are some of the channels of a map; None where that is nothing.

    Raises:
        UnfollowedError: these channels cannot be followed back.
    """
    source = operation.arguments.get("self")
    if operation.name not in TAKING or not isinstance(source, Ref) or source.index not in reading.apart:
        return spreads
    if operation.name in NUMBERED:
        raise UnfollowedError(LOST)
    dim = operation.arguments.get("dim", 0)
    if reading.spreads[source.index].placed(dim):
        return spreads
    back = _Back(reading)
    try:
        return [back.through(value, np.ones([1] * len(reading.shape(value)), bool)) for value in operation.outputs]
    except (IndexError, KeyError, ValueError) as error:  # of a form that is not foreseen here
        raise UnfollowedError(LOST) from error


@dataclass
class _Back:
    """Follows some of a value's channels back to where they come from."""

    reading: Reading
    known: dict[tuple[int, bytes, tuple[int, ...]], Spread | None] = field(default_factory=dict)
    depth: int = 0

    def of(self, value: int, mask: np.ndarray) -> Spread | None:
        """What those numbers of a value draw on where a mask is true, as if all of it did; None where on nothing."""
        spread = self.reading.spreads.get(value)
        if spread is None or mask.all() or value not in self.reading.apart:
            return spread
        if not mask.any():
            return None
        key = value, mask.tobytes(), mask.shape
        if key not in self.known:
            self.known[key] = self.through(value, mask)
        return self.known[key]

    def through(self, value: int, mask: np.ndarray) -> Spread | None:
        """The same, by the operation that makes the value."""
        operation = self.reading.graph.operations[self.reading.producer[value]]
        spread = self.reading.spreads.get(value)
        beside = spread is not None and any(spread.placed(dim) for dim in range(mask.ndim) if mask.shape[dim] > 1)
        self.depth += 1
        try:
            if beside or self.depth > DEEP:
                raise UnfollowedError(LOST)
            if operation.name in JOINING and not self._placed(operation):
                return self._joined(operation, mask)
            if operation.name in TAKING and operation.name not in NUMBERED:
                return self._taken(operation, value, mask)
            return self._alike(operation, value, mask)
        finally:
            self.depth -= 1

    def _placed(self, operation: Operation) -> bool:
        if operation.name == "stack":
            return False
        dim = operation.arguments["dim"]
        found = (self.reading.of(argument) for argument in operation.arguments["tensors"])
        return any(spread.placed(dim) for spread in found if spread is not None)

    def _joined(self, operation: Operation, mask: np.ndarray) -> Spread | None:
        """Of several tensors, those that the mask leaves something of."""
        shape = self.reading.made(operation)
        dim = operation.arguments["dim"] % len(shape)
        stacked, start, found = operation.name == "stack", 0, []
        for argument in operation.arguments["tensors"]:
            given = self.reading.shape(argument)
            if given == (0,):
                continue
            length = 1 if stacked else given[dim]
            share = mask if mask.shape[dim] == 1 else mask.take(range(start, start + length), dim)
            start += length
            spread = self.of(argument.index, np.asarray(share.any(dim)) if stacked else share) if share.any() else None
            if spread is not None:
                found.append(resized(unsqueezed(spread, dim) if stacked else spread, dim, shape[dim]))
        return joined(found, shape) if found else None

    def _taken(self, operation: Operation, value: int, mask: np.ndarray) -> Spread | None:
        """A share of a tensor, along a dimension of channels or of places."""
        source: int = operation.arguments["self"].index
        shape, given = self.reading.shape(value), self.reading.shape(source)
        dim = operation.arguments.get("dim", 0) % len(given)
        gone = len(shape) < len(given)
        within = np.expand_dims(mask, dim) if gone else mask
        if not self.reading.spreads[source].placed(dim):
            wide = np.zeros([given[dim] if axis == dim else length for axis, length in enumerate(within.shape)], bool)
            wide[(slice(None),) * dim + (_places(operation, value, given[dim], self.reading),)] = within
            within = wide
        return self._again(operation, value, {source: self.of(source, within)})

    def _alike(self, operation: Operation, value: int, mask: np.ndarray) -> Spread | None:
        """An operation that leaves channels as they are, or puts them elsewhere."""
        turned = TURNED.get(operation.name) or (_spread_over if pointwise(operation.target) else None)
        if turned is None:
            raise UnfollowedError(LOST)
        inputs = [source for source in operation.inputs if source in self.reading.spreads]
        return self._again(
            operation, value,
            {source: self.of(source, turned(self.reading, operation, mask, source)) for source in inputs},
        )  # fmt: skip

    def _again(self, operation: Operation, value: int, given: Mapping[int, Spread | None]) -> Spread | None:
        """What an operation's result draws on if its inputs draw on no more than is given."""
        there = {source: spread for source, spread in given.items() if spread is not None}
        if not there:
            return None
        spreads = ChainMap(there, {key: held for key, held in self.reading.spreads.items() if key not in given})
        reading = replace(self.reading, spreads=spreads, gates={}, statistics={})
        rule = rule_of(operation)
        assert rule is not None  # it has been followed before
        made = rule(reading, operation)
        return made[operation.outputs.index(value)]


def _parts(reading: Reading, operation: Operation) -> bool:
    """Whether tensors that are put side by side draw on different parts of the image."""
    given = [reading.of(argument) for argument in operation.arguments["tensors"] if reading.shape(argument) != (0,)]
    found = [spread for spread in given if spread is not None]
    if operation.name == "cat" and any(spread.placed(operation.arguments["dim"]) for spread in found):
        return False  # places, which are told apart
    return len(found) < len(given) or not all(alike(found[0], spread) for spread in found[1:])


def _places(operation: Operation, value: int, length: int, reading: Reading) -> slice:
    """Which positions of a dimension a share holds."""
    arguments = operation.arguments
    if operation.name == "select":
        start = arguments["index"] % length
        return slice(start, start + 1)
    if operation.name in ("slice", "narrow"):
        start, stop, step = slice(arguments.get("start"), arguments.get("end"), arguments.get("step")).indices(length)
        return slice(start, start + arguments["length"]) if "length" in arguments else slice(start, stop, step)
    place = operation.outputs.index(value)
    if operation.name == "unbind":
        return slice(place, place + 1)
    lengths = [reading.shape(output)[arguments["dim"]] for output in operation.outputs]
    return slice(sum(lengths[:place]), sum(lengths[: place + 1]))


def _merges(parts: Parts) -> bool:
    return len({bool(part.places) for part in parts if part.extent > 1}) > 1


def _convolves(operation: Operation) -> bool:
    return operation.name in ("convolution", "_convolution")


# What a mask of a result is in the place of an operation's input.


def _spread_over(reading: Reading, operation: Operation, mask: np.ndarray, source: int) -> np.ndarray:
    shape = reading.shape(source)
    mask = np.asarray(mask.any(tuple(range(mask.ndim - len(shape)))))  # all of it, where there are no more
    for dim, length in enumerate(shape):
        mask = np.asarray(mask.any(dim, keepdims=True)) if length == 1 else mask
    return mask


def _same(reading: Reading, operation: Operation, mask: np.ndarray, source: int) -> np.ndarray:
    return mask


def _permuted(reading: Reading, operation: Operation, mask: np.ndarray, source: int) -> np.ndarray:
    order = list(range(mask.ndim))
    if operation.name == "permute":
        order = [dim % mask.ndim for dim in operation.arguments["dims"]]
    elif operation.name == "transpose":
        one, other = operation.arguments["dim0"], operation.arguments["dim1"]
        order[one], order[other] = order[other], order[one]
    else:
        order.reverse()
    return mask.transpose(np.argsort(order))


def _reshaped(reading: Reading, operation: Operation, mask: np.ndarray, source: int) -> np.ndarray:
    new, old = reading.made(operation), reading.shape(source)
    lengths: list[int] = []
    for made, given in corresponding(new, old):
        if all(mask.shape[dim] == 1 for dim in made):
            lengths += [1] * len(given)
            continue
        mask = np.broadcast_to(mask, [new[dim] if dim in made else size for dim, size in enumerate(mask.shape)])
        lengths += [old[dim] for dim in given]
    return mask.reshape(lengths)


def _reduced(reading: Reading, operation: Operation, mask: np.ndarray, source: int) -> np.ndarray:
    count = len(reading.shape(source))
    if mask.ndim == count:
        return mask
    dims = operation.arguments.get("dim")
    dims = [dims] if isinstance(dims, int) else list(dims or range(count))
    return np.expand_dims(mask, tuple(dim % count for dim in dims))


def _padded(reading: Reading, operation: Operation, mask: np.ndarray, source: int) -> np.ndarray:
    widths = operation.arguments["pad"]
    for place in range(len(widths) // 2):
        before, after = widths[2 * place : 2 * place + 2]
        dim = mask.ndim - 1 - place
        if mask.shape[dim] > 1:
            around = [(0, 0)] * mask.ndim
            around[dim] = (max(0, -before), max(0, -after))
            inner = mask.take(range(max(0, before), mask.shape[dim] - max(0, after)), dim)
            mask = np.pad(inner, around)
    return mask


def _multiplied(reading: Reading, operation: Operation, mask: np.ndarray, source: int) -> np.ndarray:
    given = [operation.arguments.get(name) for name in PRODUCTS[operation.name]]
    left, right, bias = (isinstance(argument, Ref) and argument.index == source for argument in given)
    if bias:
        return np.ones_like(mask)
    mixed = (1, 2) if left and right else (2,) if left else (1,)
    return np.asarray(mask.any(mixed, keepdims=True))


def _grouped(reading: Reading, operation: Operation, mask: np.ndarray, source: int) -> np.ndarray:
    shape, groups = reading.shape(source), operation.arguments["groups"]
    if mask.shape[1] == 1 or mask[:, :, 0].size != mask.size or operation.arguments["transposed"]:
        raise UnfollowedError(LOST)
    of_group = mask.reshape(mask.shape[0], groups, -1).any(2)
    return of_group.repeat(shape[1] // groups, 1).reshape(mask.shape[0], shape[1], *[1] * (len(shape) - 2))


MERGING = ("view", "_unsafe_view", "reshape", "_reshape_alias", "pixel_shuffle")
Turned = Callable[[Reading, Operation, np.ndarray, int], np.ndarray]
LINEAR = ("mm", "addmm", "linear")
JOINING = ("cat", "stack")
NUMBERED = ("index", "index_select")
TAKING = (
    "slice", "narrow", "select", "split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_split_with_sizes",
    "unbind", *NUMBERED,
)  # fmt: skip
"""Operations that take some positions along one dimension."""
_ALIKE = """
    _to_copy alias detach lift_fresh contiguous dropout native_dropout feature_dropout hardswish _prelu_kernel
    max_pool2d max_pool2d_with_indices avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d
    upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d
    native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit_no_training _batch_norm_no_update
"""
TURNED: Mapping[str, Turned] = {
    **dict.fromkeys(_ALIKE.split(), _same),
    **dict.fromkeys(("permute", "transpose", "t", "numpy_T"), _permuted),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze"), _reshaped),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "norm"), _reduced),
    **dict.fromkeys(("bmm", "baddbmm"), _multiplied),
    "constant_pad_nd": _padded,
    "expand": _spread_over,
    **dict.fromkeys(("convolution", "_convolution"), _grouped),
}
