"""A network as data: what is accepted, what is refused and how, and what it expands into."""

import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from convsmith.design import BLOCKS, Conv, ConvNet, Pool, Residual, Sequence, doubling, parse, tree
from convsmith.errors import UsageError

SMALL = """
stem: {width: 16, kernel: 3, stride: 1}
stages:
  - {block: residual, width: 16, depth: 2, stride: 1}
  - {block: residual, width: 32, depth: 2, stride: 2, options: {shortcut: pool}}
head: {kind: average, dropout: 0.1}
norm: batch
activation: relu
"""

stages = st.builds(
    lambda **row: row,
    block=st.sampled_from(sorted(BLOCKS)),
    width=st.integers(1, 64),
    depth=st.integers(1, 3),
    stride=st.integers(1, 3),
    downsample=st.sampled_from(["stride", "max", "average"]),
    options=st.sampled_from([{}, {"kernel": 5}]),
)
heads = st.one_of(
    st.fixed_dictionaries({"kind": st.sampled_from(["average", "max"]), "dropout": st.floats(0, 0.9)}),
    st.fixed_dictionaries(
        {"kind": st.just("flatten"), "grid": st.integers(1, 8), "hidden": st.lists(st.integers(1, 9))}
    ),
)
designs = st.fixed_dictionaries(
    {
        "stem": st.fixed_dictionaries({"width": st.integers(1, 64), "kernel": st.sampled_from([1, 3, 7])}),
        "stages": st.lists(stages, min_size=1, max_size=4),
        "head": heads,
        "norm": st.sampled_from(["batch", "group", "none"]),
        "activation": st.sampled_from(["relu", "silu", "gelu"]),
        "zero_gamma": st.booleans(),
    }
)


@settings(deadline=None)
@given(designs)
def test_a_design_survives_yaml(values):
    design = parse(values)
    text = yaml.safe_dump(design.model_dump(mode="json"))
    assert parse(yaml.safe_load(text)) == design
    assert hash(parse(yaml.safe_load(text))) == hash(design)


def test_yaml_as_people_write_it_is_read():
    design = parse(yaml.safe_load(SMALL))
    assert design.describe() == (
        "conv3x3 16, 2 x residual 16, 2 x residual 32 shortcut=pool /2, average, dropout 0.1, linear (batch norm, relu)"
    )
    assert design.stride == 2


@pytest.mark.parametrize(
    ("change", "place", "says"),
    [
        ({"colour": 3}, "colour", "not permitted (given: 3)"),
        ({"stem": {"width": 0}}, "stem.width", "greater than or equal to 1 (given: 0)"),
        ({"stem": {"width": 8, "kernel": 4}}, "stem.kernel", "4 is even"),
        ({"stages": []}, "stages", "at least one stage"),
        ({"stages": [{"width": 8, "block": "residul"}]}, "stages.0", "Did you mean residual?"),
        ({"stages": [{"width": 8, "depht": 2}]}, "stages.0.depht", "not permitted"),
        ({"stages": [{"width": 8, "options": {"kernal": 5}}]}, "stages.0", "Did you mean kernel?"),
        ({"stages": [{"width": 8, "options": {"kernel": 4}}]}, "stages.0", "even kernel (4)"),
        ({"stages": [{"width": 8, "options": {"shortcut": "zero"}}]}, "stages.0", "known: conv, pool"),
        ({"stages": [{"width": 8, "options": {1: 2, "kernel": 3}}]}, "stages.0.options.1.0", "string (given: 1)"),
        ({"stages": [{"width": 8, "options": {"place": 1}}]}, "stages.0", "no option 'place'"),
        ({"head": {"kind": "average", "grid": 4}}, "head.average.grid", "not permitted"),
        ({"head": {"kind": "mean"}}, "head", "'average', 'max', 'flatten'"),
        ({"head": {"kind": "average", "dropout": float("nan")}}, "head.average.dropout", "nan"),
        ({"norm": "layer"}, "norm", "given: 'layer'"),
    ],
)
def test_what_is_no_network_is_refused_with_its_place(change, place, says):
    with pytest.raises(UsageError) as caught:
        parse({"stem": {"width": 8}, "stages": [{"width": 8}], **change})
    assert f" {place}: " in str(caught.value)
    assert says in str(caught.value)


def test_every_fault_is_named_at_once():
    with pytest.raises(UsageError, match=r"stem\.width.*norm"):
        parse({"stem": {"width": -1}, "stages": [{"width": 8}], "norm": "layer"})


def test_a_design_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        doubling(width=8, depth=1, stages=1).norm = "none"  # type: ignore[misc]


def test_only_the_first_block_of_a_stage_strides_and_projects():
    stage = nodes(parse(yaml.safe_load(SMALL)))["stages.1"]
    first, second = (node for _, node in stage.parts)
    assert isinstance(first, Residual)
    assert isinstance(second, Residual)
    assert [conv.stride for conv in convolutions(first.body)] == [2, 1]
    assert first.shortcut is not None
    assert [conv.stride for conv in convolutions(second)] == [1, 1]
    assert second.shortcut is None


def test_pooling_can_do_the_dividing():
    design = parse({"stem": {"width": 8}, "stages": [{"width": 8, "stride": 2, "downsample": "max", "block": "plain"}]})
    stage = nodes(design)["stages.0"]
    assert stage.parts[0] == ("pool", Pool(kind="max", stride=2))
    assert [conv.stride for conv in convolutions(stage)] == [1]
    assert design.describe().count("/2 by max pooling") == 1


def test_without_norms_convolutions_have_a_bias():
    design = doubling(width=8, depth=1, stages=2, norm="none")
    assert all(conv.bias for conv in convolutions(tree(design, 3, 10)))
    assert not any(conv.bias for conv in convolutions(tree(doubling(width=8, depth=1, stages=2), 3, 10)))


def test_doubling_halves_and_doubles():
    design = doubling(width=16, depth=2, stages=3, block="plain")
    assert [(stage.width, stage.stride, stage.depth, stage.block) for stage in design.stages] == [
        (16, 1, 2, "plain"),
        (32, 2, 2, "plain"),
        (64, 2, 2, "plain"),
    ]


def test_designs_are_checked_without_torch():
    code = "import convsmith.design, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def nodes(design: ConvNet) -> dict[str, Sequence]:
    """The stages of a design's tree by the name their parameters will have."""
    root = tree(design, 3, 10)
    assert isinstance(root, Sequence)
    found = dict(root.parts)["stages"]
    assert isinstance(found, Sequence)
    return {f"stages.{name}": node for name, node in found.parts if isinstance(node, Sequence)}


def convolutions(node) -> list[Conv]:
    if isinstance(node, Conv):
        return [node]
    if isinstance(node, Sequence):
        return [conv for _, part in node.parts for conv in convolutions(part)]
    if isinstance(node, Residual):
        below = (node.body, node.shortcut, node.after)
        return [conv for part in below if part is not None for conv in convolutions(part)]
    return []
