"""Which attention is masked by a constant: what its positions draw on is then less than all, and not known."""

from __future__ import annotations

from collections.abc import Collection

from convsmith.networks.receptive.computing import PRODUCTS
from convsmith.networks.receptive.following import SETS, decisive, pointwise
from convsmith.networks.receptive.reading import Reading
from convsmith.networks.recording.graph import WRITTEN, Operation, Ref

MASKED = "a mask may hide positions from attention"
FUSED = ("attn_mask", "attn_bias")
GIVEN = {
    "index": ("self",),
    "index_select": ("self",),
    "gather": ("self",),
    "embedding": ("weight",),
}
"""The inputs from which numbers are taken, of operations whose others only say which."""


def bound(reading: Reading, operation: Operation, where: str) -> None:
    """Note of an operation's results that their spreads are bounds, where they are.

    They are behind masked attention, until all positions of a map are mixed without a mask: together, these draw on
    what they would draw on anyhow.
    """
    bounded = [value for value in operation.inputs if value in reading.bounds]
    begun = _masked(reading, operation)
    if not bounded and not begun:
        return
    reason = reading.bounds[bounded[0]] if bounded else f"{where}: {MASKED}"
    weights = any(value in reading.hidden for value in bounded)
    before = any(reading.spreads[value].pooled() for value in bounded if value in reading.spreads)
    for output in operation.outputs:
        spread = reading.spreads.get(output)
        if spread is not None and (begun or weights or before or not spread.pooled()):
            reading.bounds[output] = reason
            if (begun and "attention" not in operation.name) or (weights and operation.name not in PRODUCTS):
                reading.hidden.add(output)


def _masked(reading: Reading, operation: Operation) -> bool:
    """Whether an operation puts constants to the products of queries and keys, which may take some of them away.

    A mask is made of constants; a bias that is learnt hides nothing.
    """
    if "attention" in operation.name:
        given = (operation.arguments.get(name) for name in FUSED)
        return any(_constant(reading, value.index) for value in given if isinstance(value, Ref))
    if not pointwise(operation.target) or not any(_pairs(reading, value) for value in operation.inputs):
        return False
    return any(_constant(reading, value) for value in operation.inputs if reading.shape(value)[-1:] != (1,))


def _pairs(reading: Reading, value: int) -> bool:
    """Whether the last dimension and another one are of the same places: those of queries and of keys."""
    spread = reading.spreads.get(value)
    if spread is None or not spread.dims:
        return False
    kinds = [{part.places & 3 for part in parts if part.extent > 1} - {0} for parts in spread.dims]
    return any(_meet(kinds[-1], others) for others in kinds[:-1])


def _meet(some: Collection[int], others: Collection[int]) -> bool:
    return any(one & other for one in some for other in others)


def _constant(reading: Reading, value: int) -> bool:
    """Whether a value that the image does not decide holds numbers that are not made with parameters."""
    known: dict[int, bool] = {}
    producer = reading.producer
    pending = [value]
    while pending:
        index = pending[-1]
        about = reading.graph.values[index]
        operation = producer.get(index)
        if not reading.free(index) or about.elements < 2 or operation is None:
            known[index] = reading.free(index) and about.elements > 1 and about.kind in ("buffer", "constant")
            pending.pop()
            continue
        made = reading.graph.operations[operation]
        sources = _sources(made)
        left = [source for source in sources if source not in known]
        if left:
            pending += left
            continue
        several = any if pointwise(made.target) or made.target == WRITTEN else all
        known[index] = not sources or several(known[source] for source in sources)
        pending.pop()
    return known[value]


def _sources(operation: Operation) -> tuple[int, ...]:
    """The inputs that numbers come from."""
    if operation.name in SETS:
        return tuple(decisive(operation))
    names = GIVEN.get(operation.name)
    if names is None:
        return operation.inputs
    given = (operation.arguments.get(name) for name in names)
    return tuple(value.index for value in given if isinstance(value, Ref))
