"""Operations on a design: what they change by hand, what they do not, and that what is measured is what is built."""

from __future__ import annotations

from typing import Any

import pytest
from costs_counted import counted

from convsmith import design
from convsmith.design import ConvNet, parse
from convsmith.errors import UsageError
from convsmith.networks import build_design
from convsmith.networks.counting.costs import design_costs
from convsmith.networks.rewriting.editing import stage_number, stage_widths
from convsmith.networks.rewriting.operations import (
    OPERATIONS,
    add_context,
    deepen,
    dilate,
    keep_resolution,
    move_stride,
    operate,
    output_stride,
    pool_head,
    set_kernel,
    shrink,
    swap_block,
    widen,
)
from convsmith.networks.zoo import simple_design


def pyramid(block: str = "residual", *, options: dict[str, Any] | None = None, **others: Any) -> ConvNet:
    """8, 16 and 32 channels in three stages, the last two of stride 2."""
    rows = [
        {"block": block, "width": 8 * 2**number, "stride": 2 if number else 1, "options": options or {}}
        for number in range(3)
    ]
    return parse({"stem": {"width": 8}, **others, "stages": rows})


def dense() -> ConvNet:
    stage = {"block": "dense", "depth": 2, "options": {"growth": 8}}
    rows = [stage, {**stage, "stride": 2, "downsample": "transition"}, {"block": "norm-act"}]
    return parse({"stem": {"width": 16}, "stages": rows})


CASES: list[tuple[ConvNet, str, dict[str, Any]]] = [
    (pyramid(), "widen", {"factor": 1.5}),
    (pyramid("inception"), "widen", {"factor": 2}),
    (dense(), "widen", {"factor": 1.5}),
    (pyramid("bottleneck", options={"groups": 2}), "widen", {"factor": 1.25, "stage": 1}),
    (pyramid("mbconv", options={"squeeze": 0.25}, activation="silu"), "shrink", {"factor": 0.5}),
    (pyramid(head={"kind": "flatten", "grid": 2, "hidden": (16,)}), "shrink", {"factor": 0.75}),
    (pyramid("preactivation"), "deepen", {"stage": 1, "blocks": 2}),
    (pyramid("convnext", norm="layer", activation="gelu"), "deepen", {"stage": 2}),
    (simple_design(24), "deepen", {"stage": 0}),
    (pyramid("fused-mbconv"), "shallow", {"stage": 0}),
    (pyramid(), "keep-resolution", {"place": 2}),
    (pyramid("plain", options={"kernel": 5}), "output-stride", {"stride": 2}),
    (pyramid(stem={"width": 8, "stride": 2, "pool": "max"}), "output-stride", {"stride": 4}),
    (pyramid("separable"), "move-stride", {"source": 2, "target": 0}),
    (pyramid("bottleneck"), "dilate", {"stage": 2, "factor": 3}),
    (pyramid("convnext"), "kernel", {"place": 1, "kernel": 5}),
    (pyramid(), "kernel", {"place": "stem", "kernel": 7}),
    (pyramid(), "context", {"stage": 1}),
    (pyramid("bottleneck"), "context", {"stage": 2, "kind": "cbam"}),
    (pyramid("mbconv"), "context", {"stage": 1, "kind": "squeeze-excite"}),
    (pyramid(stochastic_depth=0.2), "swap", {"stage": 1, "block": "separable"}),
    (dense(), "swap", {"stage": 1, "block": "residual"}),
    (pyramid("plain"), "groups", {"stage": 1, "groups": 4}),
    (simple_design(24), "pool-head", {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "operation", "options"), CASES, ids=[f"{case[1]}-{n}" for n, case in enumerate(CASES)]
)
def test_what_is_measured_of_a_result_is_what_the_built_network_costs(
    before: ConvNet, operation: str, options: dict[str, Any]
):
    shape = (3, 24, 24)
    if operation == "shallow":
        before = deepen(before, options["stage"])
    changed = OPERATIONS.build(operation, before, **options)
    assert changed != before
    after = design_costs(changed, shape, 5)
    assert (after.parameters, after.macs, after.memory) == counted(build_design(changed, 3, 5), shape)
    assert design.read_text(design.write(changed)) == changed


def test_every_operation_is_among_these_cases():
    assert {case[1] for case in CASES} == set(OPERATIONS)


def test_wider_is_every_width_times_the_factor_and_stays_even():
    assert stage_widths(widen(pyramid(), 2)) == (16, 32, 64)
    assert stage_widths(widen(pyramid(), 1.3)) == (10, 20, 40)  # not 10.4, 20.8 and 41.6
    lenet = {
        "stem": {"width": 6},
        "stages": [{"block": "plain", "width": 10}],
        "head": {"kind": "average", "hidden": (12,)},
    }
    wider = widen(parse(lenet), 1.5)
    assert wider.stem is not None
    assert (wider.stem.width, wider.stages[0].width, wider.head.model_dump()["hidden"]) == (10, 16, (20,))
    assert stage_widths(widen(pyramid(), 2, stage=1)) == (8, 32, 32)


def test_widths_divide_into_the_groups_that_read_them():
    grouped = parse({"stem": {"width": 6}, "stages": [{"block": "plain", "width": 6, "options": {"groups": 3}}]})
    assert stage_widths(widen(grouped, 1.2)) == (6,)
    assert stage_widths(widen(grouped, 1.5)) == (12,)
    build_design(shrink(pyramid("bottleneck", options={"groups": 2}), 0.5), 3, 5)


def test_a_deeper_stage_has_one_more_residual_block_of_64_channels():
    before = parse({"stem": {"width": 64}, "stages": [{"width": 64}, {"width": 64, "stride": 2}]})
    change = operate(before, "deepen", (3, 16, 16), outputs=5, stage=1)
    assert change.difference.parameters == 73_984
    assert change.difference.macs == 2 * 9 * 64 * 64 * 8 * 8
    assert change.difference.sees == 2 * 2 * 2  # two 3x3 kernels at stride 2


def test_a_stage_that_keeps_the_size_costs_four_times_as_much_and_sees_as_far():
    change = operate(pyramid(), "keep-resolution", (3, 32, 32), outputs=5, place=2)
    before, after = change.difference.before, change.difference.after
    assert after.parameters == before.parameters
    last = (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32) * 8 * 8
    assert change.difference.macs == 3 * last
    assert (before.stride, after.stride) == (4, 2)
    # By hand: 3x3 at stride 1 three times, at stride 2 twice, of which the first strides: then two more, spread by 2.
    assert before.sees == 1 + 2 * (1 + 2 + 1) + 2 * 2 + 2 * 2 + 2 * 4
    assert after.sees == 1 + 2 * (1 + 2 + 1) + 2 * 2 + 2 * 4 + 2 * 4
    plain = keep_resolution(pyramid(), 2, dilate=False)
    assert design_costs(plain, (3, 32, 32), 5).sees == 1 + 2 * (1 + 2 + 1) + 2 * 2 + 2 * 2 + 2 * 2


def test_dilation_and_larger_kernels_widen_the_field_by_hand():
    change = operate(pyramid(), "dilate", (3, 32, 32), outputs=5, stage=2, factor=3)
    assert (change.difference.parameters, change.difference.macs) == (0, 0)
    assert change.difference.sees == 2 * (3 - 1) * (2 + 4)
    assert operate(pyramid(), "kernel", (3, 32, 32), outputs=5, place=2, kernel=7).difference.sees == (7 - 3) * (2 + 4)


def test_a_non_local_block_sees_all_and_a_gate_does_not_count():
    field = operate(pyramid(), "context", (3, 32, 32), outputs=5, stage=2).difference.after.field
    assert field is not None
    assert field.whole
    assert operate(pyramid(), "context", (3, 32, 32), outputs=5, stage=2, kind="eca").difference.sees == 0


def test_global_average_pooling_takes_the_simple_network_from_30790_to_2190_parameters():
    difference = operate(simple_design(28), "pool-head", (1, 28, 28), outputs=10).difference
    assert (difference.before.parameters, difference.after.parameters) == (30_790, 2_190)


def test_strides_move_and_their_product_stays():
    earlier = move_stride(pyramid(), 2, "stem")
    assert earlier.stem is not None
    assert (earlier.stem.stride, [stage.stride for stage in earlier.stages]) == (2, [1, 2, 1])
    assert earlier.stride == pyramid().stride
    vgg = parse({"stem": {"width": 8}, "stages": [{"block": "plain", "width": 8}, {"block": "pool", "stride": 2}]})
    assert [stage.block for stage in move_stride(vgg, 1, 0).stages] == ["plain"]  # what did nothing but pool is gone
    blocks = add_context(vgg, 1)
    assert move_stride(blocks, 1, 2).stages[1].downsample == "average"  # a non-local block cannot stride


def test_the_stride_of_all_is_what_was_asked_for():
    assert output_stride(pyramid(), 1).stride == 1
    assert [dict(stage.options) for stage in output_stride(pyramid(), 1).stages] == [
        {},
        {"dilation": 2},
        {"dilation": 4},
    ]


def test_a_swapped_stage_keeps_width_depth_stride_and_the_options_that_both_know():
    before = deepen(pyramid(options={"kernel": 5, "shortcut": "pool"}), 1)
    stage = swap_block(before, 1, "separable").stages[1]
    assert (stage.block, stage.width, stage.depth, stage.stride, dict(stage.options)) == (
        "separable",
        16,
        2,
        2,
        {"kernel": 5},
    )
    assert swap_block(dense(), 0, "residual").stages[0].width == 32  # 16 and two times 8


def test_stochastic_depth_goes_with_the_last_residual_branch():
    network = pyramid("mbconv", stochastic_depth=0.2)  # whose first block alone has the shape of what comes
    assert widen(network, 2).stochastic_depth == 0.2
    assert swap_block(network, 0, "plain").stochastic_depth == 0


def test_a_plain_stage_that_pools_is_deepened_behind_its_pooling():
    blocks = deepen(simple_design(24), 0, blocks=2).stages
    assert [(stage.block, stage.depth, stage.stride, dict(stage.options)) for stage in blocks] == [
        ("plain", 1, 2, {"padding": 0, "pool": "max"}),
        ("plain", 2, 1, {}),
    ]


def test_stages_are_named_as_people_and_paths_do():
    assert stage_number(pyramid(), "stage3") == stage_number(pyramid(), "stages.2") == 2
    with pytest.raises(UsageError, match=r"no stage 'stage4'.*stage1 to stage3"):
        stage_number(pyramid(), "stage4")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: widen(pyramid(), 0.5), "factor is 0.5.*more than 1"),
        (lambda: shrink(pyramid(), 1.5), "between 0 and 1"),
        (lambda: widen(pyramid(), 3000), "16384"),
        (lambda: deepen(pyramid(), 7), "no stage 7.*last is 2"),
        (lambda: OPERATIONS.build("shallow", pyramid(), stage=0), "blocks is 1.*less than 1, which stage1 has"),
        (lambda: keep_resolution(pyramid(), 0), "Stage1 keeps the size already.*stage2, stage3"),
        (lambda: output_stride(pyramid(), 4), "by 4 already"),
        (lambda: output_stride(pyramid(), 3), "leaves 2 of 4, and none leaves 3.*Give 2"),
        (lambda: move_stride(pyramid(), 0, 1), "Stage1 has no stride to give"),
        (lambda: move_stride(parse({"stem": None, "stages": [{"width": 8, "stride": 2}]}), 0, "stem"), "no stem"),
        (lambda: dilate(pyramid("convnext"), 1, 2), "'convnext' have no dilation.*plain, residual"),
        (lambda: dilate(pyramid(), 1, 1), "a whole number above 1"),
        (lambda: set_kernel(pyramid(), 0, 4), "even kernel"),
        (lambda: add_context(pyramid("plain"), 1, kind="cbam"), "'plain' have no attention"),
        (lambda: swap_block(pyramid(), 1, "dense"), "do not leave a width"),
        (lambda: swap_block(pyramid(), 1, "resnet"), "no block named 'resnet'"),
        (lambda: pool_head(pyramid()), "nothing to average"),
        (lambda: operate(pyramid(), "stretch", (3, 8, 8), outputs=5), "no operation named 'stretch'"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(call: Any, said: str):
    with pytest.raises(UsageError, match=said):
        call()
