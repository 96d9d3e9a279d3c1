"""A network as data: what is accepted, what is refused and how, and what it expands into."""

import inspect
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from convsmith.design import (
    BLOCKS,
    Conv,
    ConvNet,
    Pool,
    Residual,
    Sequence,
    StochasticDepth,
    channels_after,
    doubling,
    leaves,
    parse,
    read_text,
    tree,
    write,
)
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

DOWNSAMPLINGS = ["max", "average", "blur", "patchify", "transition"]


@st.composite
def stages(draw: st.DrawFn) -> dict[str, Any]:
    """A stage of any block, with a width and a stride where the block takes them."""
    block = draw(st.sampled_from(sorted(BLOCKS)))
    tags = BLOCKS[block].tags
    named = "kernel" in inspect.signature(BLOCKS[block].load()).parameters
    free = [] if "unstrided" in tags else ["stride"]
    return {
        "block": block,
        "width": None if {"keeps", "grows"} & set(tags) else draw(st.integers(4, 64)),
        "depth": draw(st.integers(1, 3)),
        "stride": draw(st.integers(1, 3)),
        "downsample": draw(st.sampled_from([*free, *DOWNSAMPLINGS])),
        "options": draw(st.sampled_from([{}, {"kernel": 5}] if block != "pool" else [{"kernel": 3}])) if named else {},
    }


stems = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"width": st.integers(1, 64), "kernel": st.sampled_from([1, 3, 7]), "pool": st.sampled_from(["none", "max"])}
    ),
    st.fixed_dictionaries({"kind": st.just("deep"), "width": st.integers(1, 64), "stride": st.integers(1, 3)}),
    st.fixed_dictionaries({"kind": st.just("patchify"), "width": st.integers(1, 64), "stride": st.integers(2, 5)}),
)
heads = st.one_of(
    st.fixed_dictionaries({"kind": st.sampled_from(["average", "max", "both"]), "dropout": st.floats(0, 0.9)}),
    st.fixed_dictionaries(
        {"kind": st.just("flatten"), "grid": st.integers(1, 8), "hidden": st.lists(st.integers(1, 9))}
    ),
    st.fixed_dictionaries({"kind": st.just("class-maps"), "classifier": st.sampled_from(["before", "after"])}),
)
designs = st.fixed_dictionaries(
    {
        "stem": stems,
        "stages": st.lists(stages(), min_size=1, max_size=4),
        "head": heads,
        "norm": st.sampled_from(["batch", "group", "layer", "instance", "none"]),
        "activation": st.sampled_from(["relu", "silu", "gelu", "none"]),
        "zero_gamma": st.booleans(),
        "bias": st.booleans(),
        "padding_mode": st.sampled_from(["zeros", "reflect"]),
    }
)


@settings(max_examples=40, deadline=None)
@given(designs)
def test_a_design_survives_yaml_and_its_own_file(values):
    design = parse(values)
    text = yaml.safe_dump(design.model_dump(mode="json"))
    assert parse(yaml.safe_load(text)) == design == read_text(write(design))
    assert hash(parse(yaml.safe_load(text))) == hash(design)
    assert len(design.describe().splitlines()) == 1


def test_yaml_as_people_write_it_is_read():
    design = parse(yaml.safe_load(SMALL))
    assert design.describe() == (
        "conv3x3 16, 2 x residual 16, 2 x residual 32 shortcut=pool /2, average, dropout 0.1, linear (batch norm, relu)"
    )
    assert design.stride == 2


@pytest.mark.parametrize(
    ("change", "place", "says"),
    [
        ({"colour": 3}, "colour", "no such key"),
        ({"stem": {"width": 0}}, "stem.width", "greater than or equal to 1 (given: 0)"),
        ({"stem": {"width": 8, "kernel": 4}}, "stem", "kernel 4 is even"),
        ({"stem": {"width": 8, "hidden": 4}}, "stem", "'conv' has no hidden channels"),
        ({"stem": {"kind": "deep", "width": 8, "padding": 0}}, "stem", "takes no padding"),
        ({"stem": {"kind": "patchify", "width": 8}}, "stem", "give `stride`"),
        ({"stem": {"kind": "patchify", "width": 8, "kernel": 7, "stride": 4}}, "stem", "kernel 7 must be the stride 4"),
        ({"stages": []}, "stages", "at least one stage"),
        ({"stages": [{"width": 8, "block": "residul"}]}, "stages.0", "Did you mean residual?"),
        ({"stages": [{"width": 8, "depht": 2}]}, "stages.0.depht", "no such key"),
        ({"stages": [{"width": 8, "options": {"kernal": 5}}]}, "stages.0", "Did you mean kernel?"),
        ({"stages": [{"width": 8, "options": {"kernel": 4}}]}, "stages.0.options", "even kernel (4)"),
        (
            {"stages": [{"width": 8, "options": {"shortcut": "zero"}}]},
            "stages.0.options.shortcut",
            "'pool' or 'pad' (given: 'zero')",
        ),
        ({"stages": [{"width": 8}, {"width": 4, "options": {"shortcut": "pad"}}]}, "stages.1", "8 channels to 4"),
        (
            {"stages": [{"width": 8, "block": "bottleneck", "options": {"ratio": "big"}}]},
            "stages.0.options.ratio",
            "given: 'big'",
        ),
        ({"stages": [{"width": 8, "block": "bottleneck", "options": {"groups": 3}}]}, "stages.0", "into 3 groups"),
        ({"stages": [{"width": 8, "block": "inception", "options": {"branches": [1, 2]}}]}, "stages.0", "takes 6"),
        ({"stages": [{"width": 8, "block": "plain", "options": {"pool": "max"}}]}, "stages.0", "stride is 1"),
        ({"stages": [{"width": 8, "block": "pool", "stride": 2}]}, "stages.0", "as many channels as come"),
        ({"stages": [{"width": 8, "block": "dense"}]}, "stages.0", "`growth` says what it adds"),
        ({"stages": [{"block": "pool"}]}, "stages.0", "pools nothing"),
        ({"stages": [{"block": "dense", "stride": 2}]}, "stages.0", "cannot stride"),
        ({"stages": [{"block": "plain", "stochastic_depth": 0.1}]}, "stages.0", "no residual branch to skip"),
        ({"stages": [{"block": "plain"}], "stochastic_depth": 0.1}, "stochastic_depth", "no block of this network"),
        ({"stages": [{"width": 8, "options": {1: 2, "kernel": 3}}]}, "stages.0.options.1.0", "string (given: 1)"),
        ({"stages": [{"width": 8, "options": {"place": 1}}]}, "stages.0", "no option 'place'"),
        ({"head": {"kind": "average", "grid": 4}}, "head.average.grid", "no such key"),
        ({"head": {"kind": "mean"}}, "head", "'average', 'max', 'both', 'flatten', 'class-maps'"),
        ({"head": {"kind": "average", "dropout": float("nan")}}, "head.average.dropout", "nan"),
        ({"norm": "local"}, "norm", "given: 'local'"),
    ],
)
def test_what_is_no_network_is_refused_with_its_place(change, place, says):
    with pytest.raises(UsageError) as caught:
        parse({"stem": {"width": 8}, "stages": [{"width": 8}], **change})
    assert f" {place}: " in str(caught.value)
    assert says in str(caught.value)


def test_every_fault_is_named_at_once():
    with pytest.raises(UsageError, match=r"stem\.width.*norm"):
        parse({"stem": {"width": -1}, "stages": [{"width": 8}], "norm": "local"})


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


def test_pooling_and_transitions_stand_anywhere():
    rows = [
        {"block": "dense", "depth": 2, "options": {"growth": 12}},
        {"block": "dense", "stride": 2, "downsample": "transition", "options": {"growth": 12}},
        {"block": "pool", "stride": 2},
        {"block": "plain", "width": 10, "stride": 3, "downsample": "patchify"},
        {"block": "plain", "stride": 2, "downsample": "blur"},
    ]
    design = parse({"stem": {"width": 16, "stride": 2, "pool": "max"}, "stages": rows})
    built = nodes(design)
    channels, after = 16, []
    for stage in built.values():
        channels = channels_after(stage, channels)
        after.append(channels)
    assert after == [16 + 2 * 12, 20 + 12, 32, 10, 10]
    assert design.stride == 4 * 2 * 2 * 3 * 2
    assert [name for name, _ in built["stages.1"].parts] == ["transition", "0"]
    assert [name for name, _ in built["stages.3"].parts] == ["patches", "0"]


def test_stochastic_depth_rises_in_a_straight_line_and_a_stage_can_have_its_own():
    design = doubling(width=8, depth=2, stages=3, stochastic_depth=0.5)
    assert drops(design) == pytest.approx([0.5 / 6, 1 / 6, 0.25, 1 / 3, 2.5 / 6, 0.5])
    row = {"block": "residual", "width": 8}
    own = parse({"stem": {"width": 8}, "stages": [{**row, "depth": 2, "stochastic_depth": 0.25}, row]})
    assert drops(own) == [0.25, 0.25]
    assert drops(parse({"stem": {"width": 8}, "stages": [row], "stochastic_depth": 0.3})) == [0.3]


def drops(design: ConvNet) -> list[float]:
    return [leaf.rate for leaf in leaves(tree(design, 3, 10)) if isinstance(leaf, StochasticDepth)]


def test_without_stages_there_must_be_a_head_that_sees_all_positions():
    design = parse({"stem": None, "stages": [], "head": {"kind": "flatten", "grid": 8, "hidden": [16]}})
    assert design.describe() == "flatten 8x8, linear 16, linear (batch norm, relu)"
    assert design.stride == 1


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
