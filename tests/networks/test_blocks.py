"""Every block: shape, gradient, half precision, memory layout, export, parameters; and what each computes, by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter, uniform_filter
from torch import Tensor, nn
from torchvision.models.googlenet import Inception

from convsmith import design
from convsmith.design import BLOCKS, Place, Style, channels_after
from convsmith.errors import UsageError
from convsmith.networks import build, count_parameters
from convsmith.networks.blocks import NODES, Median, NonLocal, PadSides
from convsmith.networks.layers import LAYERS

BATCH, LAYER = Style(), Style(norm="layer", activation="gelu")


@dataclass(frozen=True)
class Case:
    """A block at a place, and its parameters as worked out by hand from the channels that come and leave."""

    block: str
    parameters: int
    channels: int = 8
    width: int = 8
    stride: int = 1
    style: Style = BATCH
    drop: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def node(self) -> design.Node:
        place = Place(self.channels, self.width, self.stride, self.style, self.drop)
        return BLOCKS.build(self.block, place, **self.options)

    def make(self) -> nn.Module:
        """The block with values drawn anew, so that no scale that starts at zero hides what is before it."""
        torch.manual_seed(0)
        model, _ = build(self.node, self.channels)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.uniform_(0.5, 1.5)
        return model

    def image(self, side: int = 9) -> Tensor:
        return torch.randn(2, self.channels, side, side, generator=torch.Generator().manual_seed(1))

    def __str__(self) -> str:
        options = "".join(f"-{value}" for value in self.options.values())
        return f"{self.block}{options}-{self.channels}-{self.width}-s{self.stride}{'-drop' if self.drop else ''}"


CASES = [
    Case("plain", 9 * 64 + 16),
    Case("plain", 9 * 8 * 12 + 24, width=12, stride=2, options={"pool": "max", "dropout": 0.2}),
    Case("plain", 9 * 8 * 12 + 24, width=12, stride=3, options={"pool": "average", "dropping": "squares"}),
    Case("plain", 25 * 8 * 8 // 4 + 16, options={"kernel": 5, "groups": 4, "dilation": 2}),
    Case("residual", 73_984, 64, 64),
    Case("residual", 230_144, 64, 128, 2),
    Case("residual", 230_144, 64, 128, 2, options={"shortcut": "pool"}),
    Case("residual", 230_144 - 64 * 128 - 2 * 128, 64, 128, 2, options={"shortcut": "pad"}),
    Case("residual", 18 * 64 + 32, drop=0.3, options={"dropout": 0.1}),
    Case("residual", 73_984 + 2 * 64 * 4 + 4 + 64, 64, 64, options={"attention": "squeeze-excite"}),
    Case("residual", 73_984 + 2 * 64 * 4 + 2 * 49 + 2, 64, 64, options={"attention": "cbam"}),
    Case("residual", 73_984 + 3, 64, 64, options={"attention": "eca"}),
    Case("bottleneck", 75_008, 64, 256),
    Case("bottleneck", 8 * 8 + 9 * 8 * 2 + 8 * 16 + 2 * (8 + 8 + 16) + 8 * 16 + 32, 8, 16, 2,
         options={"ratio": 0.5, "groups": 4}),
    Case("preactivation", 73_984, 64, 64),
    Case("preactivation", 16 + 9 * 8 * 12 + 24 + 9 * 144 + 8 * 12, 8, 12, 2, options={"dropout": 0.1}),
    Case("inception", 163_328 + 2 * (64 + 96 + 128 + 16 + 32 + 32), 192, 256),
    Case("inception", 8 * 2 + 8 * 1 + 9 * 3 + 8 * 2 + 25 * 2 * 2 + 8 * 1 + 2 * (2 + 1 + 3 + 2 + 2 + 1), 8, 8, 2,
         options={"branches": (2, 1, 3, 2, 2, 1)}),
    Case("dense", 16 + 8 * 16 + 32 + 9 * 16 * 4, options={"growth": 4}),
    Case("dense", 16 + 9 * 8 * 4, options={"growth": 4, "expansion": 0, "dropout": 0.1}),
    Case("separable", 288 + 2_048 + 2 * 32 + 2 * 64, 32, 64),
    Case("separable", 72 + 16 + 96 + 24, width=12, stride=2, options={"dilation": 2}),
    Case("mbconv", 5_136, 16, 24),
    Case("mbconv", 2 * (8 * 32) + 25 * 32 + 2 * (32 + 32 + 8) + 32 * 2 + 2 + 2 * 32 + 32, drop=0.3,
         options={"expansion": 4, "kernel": 5, "squeeze": 0.25}),
    Case("mbconv", 72 + 16 + 8 * 12 + 24, 8, 12, 2, options={"expansion": 1}),
    Case("fused-mbconv", 9 * 8 * 32 + 64 + 32 * 12 + 24, width=12, stride=2),
    Case("fused-mbconv", 9 * 64 + 16, options={"expansion": 1}),
    Case("convnext", 49 * 8 + 8 + 16 + 8 * 32 + 32 + 32 * 8 + 8 + 8, style=LAYER, drop=0.3),
    Case("convnext", 16 + 4 * 8 * 12 + 12 + (49 + 1) * 12 + 24 + 2 * 48 * 12 + 60 + 12, 8, 12, 2, LAYER),
    Case("non-local", 3 * (8 * 4 + 4) + 4 * 8 + 16),
    Case("non-local", 3 * (8 * 8 + 8) + 8 * 8 + 16, options={"ratio": 1.0, "likeness": "dot"}),
    Case("denoise", 2 * (8 * 4 + 4) + 64 + 16),
    Case("denoise", 64 + 16, options={"filter": "dot"}),
    Case("denoise", 64 + 16, options={"filter": "mean"}),
    Case("denoise", 64 + 16, options={"filter": "median"}),
    Case("pool", 0, stride=2),
    Case("pool", 0, stride=2, options={"kind": "average", "kernel": 3}),
    Case("pool", 0, stride=2, options={"kind": "stochastic"}),
    Case("norm-act", 16),
]  # fmt: skip


def test_every_block_has_a_case():
    assert {case.block for case in CASES} == set(BLOCKS)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestEveryBlock:
    """What holds for each row of the table of blocks."""

    def test_it_has_the_parameters_worked_out_by_hand(self, case: Case):
        assert count_parameters(case.make()).total == case.parameters

    def test_it_leaves_the_channels_that_the_design_expects_and_divides_sides_rounding_up(self, case: Case):
        channels = channels_after(case.node, case.channels)
        if not {"keeps", "grows"} & set(BLOCKS[case.block].tags):
            assert channels == case.width
        model = case.make().eval()
        for side in (12, 13):
            divided = -(-side // case.stride)
            with torch.no_grad():
                assert model(case.image(side)).shape == (2, channels, divided, divided)

    def test_it_sends_a_gradient_to_every_parameter_and_to_the_image(self, case: Case):
        model, image = case.make(), case.image().requires_grad_()
        if case.drop or "dropout" in case.options:
            model.eval()  # no image of the two may be dropped
        model(image).square().sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
        assert image.grad is not None
        assert image.grad.abs().sum() > 0

    def test_it_is_close_in_bfloat16(self, case: Case):
        model, image = case.make().eval(), case.image()
        with torch.no_grad():
            expected, got = model(image), model.bfloat16()(image.bfloat16())
        assert got.dtype == torch.bfloat16
        assert (got.float() - expected).abs().max() < 0.05 * expected.abs().max()

    def test_it_gives_the_same_in_channels_last(self, case: Case):
        model, image = case.make().eval(), case.image()
        with torch.no_grad():
            expected = model(image)
            got = model.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())

    def test_it_exports(self, case: Case):
        model, image = case.make().eval(), case.image()
        with torch.no_grad():
            exported = torch.export.export(model, (image,)).module()
            torch.testing.assert_close(exported(image), model(image), rtol=1e-4, atol=1e-5)


def test_every_node_of_a_design_is_built_by_one_table():
    kinds = {kind.model_fields["type"].default for kind in get_args(get_args(design.Node)[0])}
    assert not set(NODES) & set(LAYERS)
    assert kinds - {"sequence", "residual", "concat"} == set(NODES) | set(LAYERS)


def run(model: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(image)


def test_a_preactivation_block_is_its_input_plus_two_units_of_norm_activation_convolution():
    case = Case("preactivation", 0)
    model, x = case.make().eval(), case.image()
    body = model.get_submodule("body")
    first = body.get_submodule("conv1")(F.relu(body.get_submodule("norm1")(x)))
    second = body.get_submodule("conv2")(F.relu(body.get_submodule("norm2")(first)))
    torch.testing.assert_close(run(model, x), x + second)


def test_a_shortcut_of_option_a_averages_and_adds_channels_of_zeros():
    case = Case("residual", 0, 2, 5, 2, options={"shortcut": "pad"})
    x = case.image(4)
    shortcut = run(case.make().get_submodule("shortcut"), x)
    assert torch.equal(shortcut[:, :2], F.avg_pool2d(x, 2))
    assert torch.equal(shortcut[:, 2:], torch.zeros(2, 3, 2, 2))
    with pytest.raises(ValueError, match="cannot take 8 channels to 4: use `conv`"):
        Case("residual", 0, 8, 4, options={"shortcut": "pad"}).make()
    with pytest.raises(UsageError, match="cannot make 4 channels of 8"):
        build(design.PadChannels(width=4), 8)


def test_stochastic_depth_leaves_an_image_as_it_was_or_adds_the_scaled_branch():
    model = Case("mbconv", 0, style=Style(norm="none"), drop=0.5).make().train()
    x = torch.randn(32, 8, 5, 5)
    with torch.no_grad():
        added, branch = model(x) - x, model.get_submodule("body")[:-1](x)  # type: ignore[index]
    dropped = (added == 0).flatten(1).all(dim=1)
    assert 4 < dropped.sum() < 28
    torch.testing.assert_close(added[~dropped], 2 * branch[~dropped], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("block", "order"),
    [
        ("plain", "conv norm activation X"),
        ("residual", "conv norm activation X conv norm activation"),
        ("preactivation", "norm activation conv norm activation X conv"),
        ("dense", "norm activation conv norm activation conv X"),
        ("separable", "conv norm activation conv norm activation X"),
    ],
)
def test_dropout_stands_where_the_papers_have_it_and_drops_what_is_asked_for(block: str, order: str):
    kinds = {"values": design.Dropout(rate=0.3), "channels": design.Dropout(rate=0.3, spatial=True)}
    kinds["squares"] = design.DropBlock(rate=0.3)  # type: ignore[assignment]
    for kind, node in kinds.items():
        options = {"dropout": 0.3} if block in ("dense", "separable") else {"dropout": 0.3, "dropping": kind}
        layers = design.leaves(Case(block, 0, options=options).node)
        expected = kinds["values"] if block in ("dense", "separable") else node
        assert [layer.type for layer in layers] == order.replace("X", expected.type).split()
        assert expected in layers
    assert not {"dropout", "drop-block"} & {layer.type for layer in design.leaves(Case(block, 0).node)}


def test_an_inception_block_is_torchvisions_where_its_wide_branch_is_3x3_as_there():
    options = {"branches": (4, 3, 6, 2, 4, 2), "wide": 3}
    ours = Case("inception", 0, 8, 16, options=options).make()
    theirs = Inception(8, *options["branches"]).eval()  # type: ignore[misc]
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    held = ours.state_dict()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), held.values(), strict=True)))
    image = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(run(ours, image), run(theirs, image))


def test_branches_that_do_not_fit_the_width_are_refused():
    with pytest.raises(ValueError, match=r"leave 16 channels \(4 \+ 6 \+ 4 \+ 2\), not 15"):
        Case("inception", 0, 8, 15, options={"branches": (4, 3, 6, 2, 4, 2)}).make()
    with pytest.raises(ValueError, match="has 2 numbers; it takes 6"):
        Case("inception", 0, 8, 16, options={"branches": (4, 3)}).make()


def test_without_numbers_an_inception_block_has_the_proportions_of_the_papers_first():
    given = Case("inception", 0, 192, 256, options={"branches": (64, 96, 128, 16, 32, 32)})
    assert Case("inception", 0, 192, 256).node == given.node


def test_a_dense_block_keeps_what_came_in_front_of_what_is_new():
    case = Case("dense", 0, options={"growth": 3})
    x = case.image()
    out = run(case.make(), x)
    assert torch.equal(out[:, :8], x)
    assert out.shape[1] == 11


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("embedded", [True, False])
def test_a_non_local_mean_is_the_sum_over_all_pairs(softmax: bool, embedded: bool):
    torch.manual_seed(0)
    model = NonLocal(6, width=4 if embedded else None, value=5 if embedded else None, softmax=softmax)
    x = torch.randn(2, 6, 3, 4)
    query, key, value = (part(x).flatten(2) for part in (model.query, model.key, model.value))
    expected = torch.zeros_like(value)
    for here in range(12):
        alike = torch.stack([(query[:, :, here] * key[:, :, there]).sum(1) for there in range(12)], dim=1)
        weights = (alike / query.shape[1] ** 0.5).softmax(1) if softmax else alike / 12
        expected[:, :, here] = (weights[:, None] * value).sum(2)
    torch.testing.assert_close(run(model, x), expected.unflatten(2, (3, 4)))


def test_blocks_of_attention_and_denoising_start_as_the_identity():
    for name in ("non-local", "denoise"):
        model, _ = build(BLOCKS.build(name, Place(8, 8, 1, BATCH)), 8)
        x = torch.randn(2, 8, 6, 6)
        assert torch.equal(run(model, x), x)


def test_the_filters_of_denoising_are_scipys():
    x = torch.randn(1, 2, 7, 6)
    images = x[0].numpy()
    medians = run(Median(), x)[0].numpy()
    assert (medians == [median_filter(image, 3, mode="nearest") for image in images]).all()
    mean, _ = build(design.Pool(kind="average", stride=1, kernel=3), 2)
    for got, image in zip(run(mean, x)[0], images, strict=True):
        torch.testing.assert_close(got[1:-1, 1:-1], torch.from_numpy(uniform_filter(image, 3)[1:-1, 1:-1]))


def test_patches_cover_sides_that_they_do_not_divide():
    padded = run(PadSides(4), torch.ones(1, 1, 5, 8))
    assert padded.shape == (1, 1, 8, 8)
    assert padded.sum() == 40
    whole = torch.ones(1, 1, 8, 4)
    assert run(PadSides(4), whole) is whole


def test_a_convnext_block_starts_near_its_input_by_its_layer_scale():
    model, _ = build(BLOCKS.build("convnext", Place(8, 8, 1, LAYER)), 8)
    x = torch.randn(2, 8, 6, 6)
    assert 0 < (run(model, x) - x).abs().max() < 1e-4


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_convolutions_of_blocks_pad_as_the_network_says(mode: str):
    node = BLOCKS.build("plain", Place(3, 4, 1, Style(norm="none", activation="none", padding_mode=mode)))  # type: ignore[arg-type]
    model, _ = build(node, 3)
    x = torch.randn(1, 3, 5, 5)
    padded = F.pad(x, (1, 1, 1, 1), mode="constant" if mode == "zeros" else mode)
    conv = model.get_submodule("conv")
    expected = F.conv2d(padded, conv.get_parameter("weight"), conv.get_parameter("bias"))
    torch.testing.assert_close(run(model, x), expected)
