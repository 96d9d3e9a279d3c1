"""A network folded to blocks, and drawn: nothing is lost, and who reads whom is right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convsmith.networks import build_named
from convsmith.networks.counting.analysis import Analysis, analyse
from convsmith.networks.drawing import blocks, draw
from convsmith.networks.lines.reading import read_line
from convsmith.networks.outline import every, fold, rows

DEEP = {"width": 8, "depth": 3, "stages": 4}


@pytest.fixture(scope="module")
def deep() -> Analysis:
    """Twelve residual blocks."""
    return analyse(build_named("convnet", 3, 10, **DEEP), (3, 32, 32))


class Branches(nn.Module):
    """A shortcut, a gate, a join, the network's own weights, and a layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 1)
        self.gamma = nn.Parameter(torch.ones(4, 1, 1))
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images)
        inner = self.drop(self.twice(self.twice(first)) * self.gamma)
        joined = torch.cat([first + inner, first * first.mean((2, 3), keepdim=True)], 1)
        return self.head(joined.mean((2, 3)).view(-1, 8))


@pytest.mark.parametrize("depth", [None, 1, 2, 3, 9])
def test_however_it_is_folded_parameters_and_costs_add_up(deep: Analysis, depth: int | None):
    shown = rows(deep, fold(deep, depth=depth))
    assert sum(row.parameters for row in shown) == deep.parameters.total
    assert sum(row.macs or 0 for row in shown) == deep.macs
    assert sum(row.activation_bytes or 0 for row in shown) == deep.activation_bytes


def test_a_deep_network_is_folded_to_its_blocks_and_a_shallow_one_is_not(deep: Analysis):
    shown = rows(deep, fold(deep))
    assert len(shown) <= 40 < len(rows(deep, every(deep)))
    assert [row.path for row in shown if row.type == "Residual"] == [
        f"stages.{s}.{b}" for s in range(4) for b in range(3)
    ]
    third = next(row for row in shown if row.path == "stages.1.0")
    assert third.output == (16, 16, 16)
    assert third.discards == 0.75  # the 1x1 shortcut reads one position in four
    line = analyse(read_line("conv 3->4 k3 | relu | gap | flatten | linear 5", (3, 8, 8)).network(), (3, 8, 8))
    assert [row.path for row in rows(line, fold(line))] == ["conv1", "relu1", "gap1", "flatten1", "linear1"]


def test_a_row_says_what_a_layer_does_in_words():
    text = "conv 3->8 k3x5 s2 d2 | dwconv k3 | conv 8 k1 g2 | maxpool 3 s2 | deconv 4 k2 | gap | flatten | linear 5"
    network = read_line(text, (3, 64, 64)).network()
    analysis = analyse(network, (3, 64, 64))
    assert [row.detail for row in rows(analysis, every(analysis))] == [
        "3×5 conv, stride 2, dilation 2", "3×3 depthwise", "1×1 conv, 2 groups", "3×3 max-pool, stride 2",
        "2×2 transposed conv, stride 2", "global average", "Flatten", "linear 4 → 5",
    ]  # fmt: skip


def test_the_drawing_shows_who_reads_whom():
    analysis = analyse(Branches(), (3, 8, 8))
    drawn = draw(analysis, fold(analysis))
    names = [node.title for node in drawn.nodes]
    assert names == [
        "image", "first", "twice", "twice", "× gamma", "drop", "sum", "global average", "product", "joined",
        "global average", "head", "output",
    ]  # fmt: skip
    read = {to: {names[source] for source, other in drawn.edges if other == to} for _, to in drawn.edges}
    assert read[names.index("sum")] == {"first", "drop"}
    assert read[names.index("product")] == {"first", "global average"}
    assert read[names.index("joined")] == {"sum", "product"}
    assert read[names.index("head")] == {"global average"}
    assert [node.kind for node in drawn.nodes][6:10] == ["merge", "pool", "merge", "merge"]
    assert drawn.nodes[-1].output == (5,)


def test_each_kind_of_block_is_drawn_once_with_its_shortcut(deep: Analysis):
    found = blocks(deep, fold(deep))
    residual = {len(block.paths): block for block in found if block.type == "Residual"}
    assert set(residual) == {9, 3}  # with an identity as the shortcut, and with a convolution
    for count, direct in ((9, True), (3, False)):
        drawn = residual[count].drawing
        assert drawn.branches
        join = next(place for place, node in enumerate(drawn.nodes) if node.title == "sum")
        assert ((0, join) in drawn.edges) is direct
