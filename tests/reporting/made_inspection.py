"""A network that was looked at, written by hand: every kind of figure, unknown ones too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from convsmith.reporting.inspection import Block, Drawing, Inspection, Last, Node, Row, Seen, Step

HOSTILE = 'x"]<script>alert(1)</script>\u202e|"'


def row(path: str, output: tuple[int, ...] | None, **values: Any) -> Row:
    """A row with little in it."""
    given = {"type": "Conv2d", "detail": "3×3 conv", "layers": 1, "parameters": 0, "macs": 0, "activation_bytes": 0,
             "discards": None, "field": None}  # fmt: skip
    return Row(path=path, output=output, **{**given, **values})


ROWS = (
    row("stem", (8, 32, 32), parameters=224, macs=221_184, activation_bytes=32_768, field=Seen(3, 3, 1.0, 0.0, False)),
    row("block", (16, 16, 16), type="Residual", detail="Residual", layers=7, parameters=3_680, macs=900_000,
        activation_bytes=65_536, discards=0.75, field=Seen(9, 9, 2.0, 0.5, False)),
    row("attention", (16, 16, 16), type="Odd", detail="Odd", parameters=64, macs=None, activation_bytes=None),
    row("head", (10,), type="Linear", detail="linear 16 → 10", parameters=170, macs=160, activation_bytes=64,
        field=Seen(32, 32, 0.0, 15.5, True)),
)  # fmt: skip
DRAWING = Drawing(
    (
        Node("image", "", "input", (3, 32, 32)),
        Node("stem", "3×3 conv", "product", (8, 32, 32), 0.2),
        Node("block", "Residual", "block", (16, 16, 16), 0.8),
        Node("pool", "2×2 max-pool, stride 2", "pool", (8, 16, 16), 0.0),
        Node("joined", "", "merge", (24, 16, 16), 0.0),
        Node("output", "", "output", (10,)),
    ),
    ((0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5)),
)


def inspection(**changes: Any) -> Inspection:
    """The network, with some of it changed."""
    made = Inspection(
        name="toy",
        shape=(3, 32, 32),
        notes=("attention computes aten.odd, whose multiply-adds are not known here.",),
        rows=ROWS,
        folded=ROWS,
        trainable=4_000,
        frozen=138,
        macs=None,
        activation_bytes=98_368,
        inference_bytes=120_000,
        batch=32,
        steps=tuple(
            Step(precision, optimizer, 16_552, 16_552, 0, 3_000_000, 3_100_000)
            for precision in ("float32", "bfloat16")
            for optimizer in ("sgd", "momentum", "adamw")
        ),
        gates=("block.gate",),
        statistics=(),
        drawing=DRAWING,
        blocks=(Block("Residual", ("block", "other"), DRAWING),),
        last=Last((16, 16, 16), Seen(9, 9, 2.0, 0.5, False)),
        sums={"stem": "(32 + 2*1 - 1*(3-1) - 1)/1 + 1 = 32"},
        record={"name": "toy"},
    )
    return replace(made, **changes)
