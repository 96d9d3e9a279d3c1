"""Proposals in the place of a network: all keep to what was asked for, counted on the networks as they are built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from costs_counted import counted
from torch import nn

from convsmith.design import ConvNet, parse, read_text, write
from convsmith.errors import UsageError
from convsmith.networks import build_design, build_named, count_parameters
from convsmith.networks.rewriting.narrowing import narrow
from convsmith.networks.rewriting.operations import shrink
from convsmith.networks.rewriting.savings import rewrite
from convsmith.networks.rewriting.surgery import change_output_stride, dilate_last
from convsmith.pipeline.designing import Limit, Proposal, Proposals, Wish, design_of, propose
from convsmith.pipeline.given_model import Given, open_model, open_module

pytestmark = pytest.mark.slow  # each proposal is built and counted again; the command's own tests stay ordinary

SHAPE = (3, 16, 16)


def pyramid(block: str = "residual", *, depth: int = 2, **others: object) -> ConvNet:
    stage = {"block": block, "depth": depth, "options": {"kernel": 5} if block == "plain" else {}}
    rows = [{**stage, "width": 16}, {**stage, "width": 32, "stride": 2}]
    return parse({"stem": {"width": 16}, "stages": rows, **others})


def opened(design: ConvNet, folder: Path) -> Given:
    path = folder / "network.yaml"
    path.write_text(write(design))
    return open_model(str(path), input_shape=SHAPE, outputs=5)


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 5, 2, 2), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 5),
    )  # fmt: skip


def made(proposal: Proposal, model: nn.Module) -> nn.Module:
    """The network of a proposal, by its own design or Python."""
    if proposal.design is not None:
        return build_design(proposal.design, SHAPE[0], 5)
    names = {
        "narrow": narrow,
        "rewrite": rewrite,
        "change_output_stride": change_output_stride,
        "dilate_last": dilate_last,
    }
    for call in proposal.calls:
        model = eval(call, {**names, "model": model, "shape": SHAPE})
    return model


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Proposals:
    """Proposals that save half of a residual pyramid's parameters."""
    return propose(opened(pyramid(), tmp_path_factory.mktemp("halved")), Wish(saves=(("parameters", 0.5),)))


WAYS = {
    "residual": {"fewer channels", "fewer blocks", "depthwise separable blocks", "1x1 bottlenecks"},
    "bottleneck": {"fewer channels", "fewer blocks", "convolutions in groups"},
    "plain": {
        "fewer channels",
        "fewer blocks",
        "depthwise separable blocks",
        "convolutions in groups",
        "smaller kernels",
    },
}


@pytest.mark.parametrize("block", ["residual", "bottleneck", "plain"])
def test_every_proposal_for_a_design_saves_half_of_its_parameters(block: str, tmp_path: Path, halved: Proposals):
    found = halved
    if block != "residual":
        head = {"kind": "flatten", "grid": 8} if block == "plain" else {"kind": "average"}
        design = pyramid(block, depth=4 if block == "bottleneck" else 1, head=head)
        found = propose(opened(design, tmp_path), Wish(saves=(("parameters", 0.5),)))
    before = counted(found.given.model, SHAPE)
    assert (found.before.parameters, found.before.macs, found.before.memory) == before
    ways = {proposal.name for proposal in found.ranked}
    assert len(ways) >= 2
    assert ways <= WAYS[block]
    for proposal in found.ranked:
        after = counted(made(proposal, nn.Identity()), SHAPE)
        assert after == (proposal.after.parameters, proposal.after.macs, proposal.after.memory)
        assert after[0] <= before[0] / 2
        assert proposal.design is not None
        assert read_text(write(proposal.design)) == proposal.design


@pytest.mark.parametrize(("what", "place"), [("macs", 1), ("memory", 2)])
def test_every_proposal_saves_a_third_of_what_was_named(what: str, place: int, tmp_path: Path):
    given = opened(pyramid(depth=1), tmp_path)
    before = counted(given.model, SHAPE)
    found = propose(given, Wish(saves=((what, 0.3),)))  # type: ignore[arg-type]
    assert len(found.ranked) >= 2
    for proposal in found.ranked:
        assert counted(made(proposal, nn.Identity()), SHAPE)[place] <= 0.7 * before[place]


def test_every_proposal_for_a_network_that_is_code_saves_half_of_its_parameters():
    model = module()
    before = counted(module(), SHAPE)
    found = propose(open_module(model, input_shape=SHAPE), Wish(saves=(("parameters", 0.5),)))
    assert len(found.ranked) >= 2
    for proposal in found.ranked:
        after = counted(made(proposal, module()), SHAPE)
        assert after == (proposal.after.parameters, proposal.after.macs, proposal.after.memory)
        assert after[0] <= before[0] / 2
    assert {name for name, _ in found.left_out} | {proposal.name for proposal in found.ranked} == {
        "fewer channels", "depthwise, then 1x1, in place of full convolutions",
        "1x1 to a quarter of the channels first", "convolutions in 4 groups",
        "3x3 in place of larger kernels", "global average pooling before linear layers",
    }  # fmt: skip


def test_those_that_cost_least_in_all_come_first(halved: Proposals):
    products = []
    for proposal in halved.ranked:
        after = proposal.after
        assert after.macs is not None
        assert after.memory is not None
        products.append(after.parameters * after.macs * after.memory)
    assert products == sorted(products)


def test_no_more_is_taken_than_must_be(halved: Proposals):
    (narrower,) = [proposal for proposal in halved.ranked if proposal.name == "fewer channels"]
    factor = float(narrower.did.rpartition(" ")[2])
    one_step_more = build_design(shrink(pyramid(), factor + 1 / 32), 3, 5)
    assert count_parameters(one_step_more).total > halved.before.parameters / 2


def test_a_way_that_does_not_go_far_enough_says_how_far_it_goes(tmp_path: Path):
    found = propose(opened(pyramid(depth=2), tmp_path), Wish(saves=(("parameters", 0.95),)))
    assert [proposal.name for proposal in found.ranked] == ["fewer channels"]
    why = dict(found.left_out)
    assert why["fewer blocks"].startswith("at its end there are ")
    assert why["fewer blocks"].endswith(" parameters")


def test_operations_that_were_asked_for_are_all_done_and_then_limits_kept(tmp_path: Path):
    wish = Wish((("widen", {"factor": 2}), ("deepen", {"stage": "stage2", "blocks": 1})))
    given = opened(pyramid(depth=1), tmp_path)
    (alone,) = propose(given, wish).ranked
    assert (alone.name, alone.did) == ("as asked", "widen 2; deepen stage2 1")
    assert alone.design is not None
    assert [(stage.width, stage.depth) for stage in alone.design.stages] == [(32, 1), (64, 2)]
    most = 60_000
    limited = propose(given, Wish(wish.operations, limits=(Limit("parameters", most),)))
    assert limited.ranked
    for proposal in limited.ranked:
        assert proposal.name.startswith("as asked, ")
        assert counted(made(proposal, nn.Identity()), SHAPE)[0] <= most


def test_all_ways_to_see_further_see_as_far_as_was_asked_and_keep_to_the_limit(tmp_path: Path):
    most, far = 30_000, 40
    given = opened(pyramid(depth=1), tmp_path)
    found = propose(given, Wish(sees=far, limits=(Limit("parameters", most),)))
    assert found.before.sees is not None
    assert found.before.sees < far
    ways = {proposal.name.partition(",")[0] for proposal in found.ranked}
    assert {"more blocks", "dilation", "larger kernels", "a non-local block"} <= ways
    for proposal in found.ranked:
        field = proposal.after.field
        assert field is not None
        assert field.whole or min(field.height.size, field.width.size) >= far
        assert proposal.after.parameters <= most
    (dilated,) = propose(open_module(module(), input_shape=SHAPE), Wish(sees=40)).ranked
    assert dilated.calls == ("dilate_last(model, shape, 8).model",)
    # 3x3 at stride 1, 5x5, 3x3 at stride 2 spread eight times, and 2x2 at stride 2 to be averaged.
    assert dilated.after.sees == 1 + 2 + 4 + 2 * 8 * 2 + 1 * 2


def test_code_is_shrunk_and_its_stride_is_kept_but_it_is_not_widened():
    given = open_module(module(), input_shape=SHAPE)
    (proposal,) = propose(given, Wish((("shrink", {"factor": 0.5}), ("output-stride", {"stride": 1})))).ranked
    assert proposal.calls == ("narrow(model, shape, 0.5)", "change_output_stride(model, shape, 1).model")
    assert counted(made(proposal, module()), SHAPE)[:2] == (proposal.after.parameters, proposal.after.macs)
    with pytest.raises(UsageError, match=r"widen changes a design, and this network is code.*--shrink"):
        propose(given, Wish((("widen", {"factor": 2}),)))


def test_time_is_measured_only_where_it_is_asked_for_and_networks_then_have_values(tmp_path: Path):
    given = opened(pyramid("plain", depth=1), tmp_path)
    assert propose(given, Wish((("widen", {"factor": 2}),))).seconds is None
    found = propose(given, Wish((("shrink", {"factor": 0.5}),), limits=(Limit("latency", 60.0),)))
    assert found.seconds is not None
    assert found.threads >= 1
    (proposal,) = found.ranked
    assert proposal.seconds is not None
    assert 0 < proposal.seconds < 60
    assert propose(given, Wish(limits=(Limit("latency", 1e-9),))).ranked == ()


def test_a_share_of_what_is_not_known_is_refused():
    class Unknown(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.rfft(x).abs().mean((2, 3))

    with pytest.raises(UsageError, match="multiply-adds of Unknown are not known"):
        propose(open_module(Unknown(), input_shape=SHAPE), Wish(saves=(("macs", 0.5),)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convnet-small", {}),
        ("simple", {}),
        ("mlp", {}),
        ("convnet", {"width": 8, "stages": 2, "head": "flatten", "norm": "group"}),
    ],
)
def test_the_design_behind_a_name_is_what_the_name_builds(name: str, options: dict[str, object]):
    given = open_model(name, options=options, input_shape=SHAPE, outputs=5)
    design = design_of(given)
    assert design is not None
    named = build_named(name, 3, 5, **({"side": 16} if name in ("simple", "mlp") else {}), **options)
    shapes = [
        {key: value.shape for key, value in each.state_dict().items()} for each in (named, build_design(design, 3, 5))
    ]
    assert shapes[0] == shapes[1]


def test_code_and_lines_are_no_designs():
    assert design_of(open_module(module(), input_shape=SHAPE)) is None
    assert design_of(open_model("conv 3->8 k3 | gap | flatten | linear 5", input_shape=SHAPE)) is None
    assert design_of(open_model("torchvision/resnet18", input_shape=SHAPE)) is None
