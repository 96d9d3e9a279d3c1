"""What a design becomes: shapes, names, counts, initial values."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convsmith import design
from convsmith.design import Conv, Flatten, GridPool, Linear, Norm, Place, Pool, Residual, Sequence, Style
from convsmith.errors import UsageError
from convsmith.networks import MODELS, build, build_design, count_parameters, fit_design, size_options


def sequence(*nodes: design.Node) -> Sequence:
    return Sequence(parts=tuple((str(number), node) for number, node in enumerate(nodes)))


def block(name: str, in_channels: int, width: int, stride: int = 1, **options) -> design.Node:
    return design.BLOCKS.build(name, Place(in_channels, width, stride, Style()), **options)


LENET_LIKE = (Conv(width=10, padding=0, bias=True), Norm(), Conv(width=20, padding=0, bias=True), Norm(), Pool())
TEACHING = (Conv(width=16, bias=True), Pool(), Conv(width=32, bias=True), Pool(), Flatten(side=8))


@pytest.mark.parametrize(
    ("node", "in_channels", "parameters"),
    [
        (Conv(width=20, bias=True), 10, 1_820),
        (Conv(width=16, bias=True), 8, 1_168),
        (Conv(width=32, bias=True), 3, 896),
        (Conv(width=64, bias=True), 1, 640),
        (Conv(width=64), 32, 18_432),
        (Conv(width=64, bias=True), 32, 18_496),
        (sequence(Conv(width=32, groups=32), Conv(width=64, kernel=1)), 32, 2_336),
        (sequence(Conv(width=32, groups=32, bias=True), Conv(width=64, kernel=1, bias=True)), 32, 2_432),
        (sequence(Conv(width=16, kernel=1, bias=True), Conv(width=64, bias=True)), 64, 10_320),
        (Conv(width=64, bias=True), 64, 36_928),
        (Linear(width=10), 2_880, 28_810),
        (Linear(width=10), 20, 210),
        (Linear(width=100), 784, 78_500),
        (Linear(width=100, bias=False), 784, 78_400),
        (Norm(), 10, 20),
        (block("residual", 64, 64), 64, 73_984),
        (block("residual", 64, 128, 2), 64, 230_144),
        (block("residual", 64, 128, 2, shortcut="pool"), 64, 230_144),
        (sequence(*LENET_LIKE, Flatten(side=12), Linear(width=10)), 1, 30_790),
        (sequence(*LENET_LIKE, GridPool(), Flatten(), Linear(width=10)), 1, 2_190),
        (sequence(*TEACHING, Linear(width=128), Linear(width=10)), 3, 268_650),
    ],
)
def test_parameters_are_those_worked_out_by_hand(node, in_channels, parameters):
    model, _ = build(node, in_channels)
    assert count_parameters(model).total == parameters


@pytest.mark.parametrize(
    ("node", "side", "result"),
    [
        (Conv(width=1, padding=0), 28, 26),
        (Pool(), 26, 13),
        (Pool(), 15, 8),
        (Conv(width=1, padding=0), 32, 30),
        (Conv(width=1, padding=0, stride=2), 32, 15),
        (Conv(width=1, padding=0, dilation=2), 5, 1),
        (Conv(width=1), 7, 7),
        (Conv(width=1, kernel=5, dilation=2), 9, 9),
        (Conv(width=1, stride=2), 7, 4),
    ],
)
def test_sides_are_those_worked_out_by_hand(node, side, result):
    assert build(node, 1)[0](torch.zeros(1, 1, side, side)).shape[2:] == (result, result)


def test_pooling_by_hand():
    image = torch.tensor([[[[3.0, 7.0], [4.0, 9.0]]]])
    assert build(Pool(kind="max"), 1)[0](image).item() == build(GridPool(kind="max"), 1)[0](image).item() == 9
    assert build(Pool(kind="average"), 1)[0](image).item() == build(GridPool(), 1)[0](image).item() == 5.75
    odd = torch.ones(1, 1, 3, 3)
    assert torch.equal(build(Pool(kind="average"), 1)[0](odd), torch.ones(1, 1, 2, 2))  # no zeros are averaged in


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (7, 1), (16, 1), (24, 1), (32, 2), (48, 3), (40, 2), (512, 32)]
)
def test_groups_of_channels_are_never_small(channels, groups):
    norm, _ = build(Norm(kind="group"), channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups


def test_a_residual_block_is_its_body_plus_its_shortcut():
    model, _ = build(block("residual", 3, 8, 2), 3)
    x = torch.randn(4, 3, 8, 8)
    model.eval()
    assert torch.equal(model(x), torch.relu(model.body(x) + model.shortcut(x)))
    same, _ = build(block("residual", 8, 8), 8)
    y = torch.randn(4, 8, 8, 8)
    same.eval()
    assert torch.equal(same(y), torch.relu(same.body(y) + y))


def test_a_zero_gamma_makes_each_residual_block_start_as_its_shortcut():
    model = build_design(design.doubling(width=8, depth=2, stages=1, zero_gamma=True), 3, 10)
    x = torch.rand(2, 8, 6, 6)
    assert torch.equal(model.get_submodule("stages")(x), x)


def test_parameters_are_named_after_their_place():
    names = dict(build_design(design.doubling(width=8, depth=2, stages=2), 1, 10).named_parameters())
    assert {
        "stem.conv.weight",
        "stages.0.1.body.conv1.weight",
        "stages.1.0.shortcut.norm.bias",
        "head.linear.bias",
    } <= set(names)


def test_branches_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"adds 16 channels of its body to 8 .*1x1 convolution to 16"):
        build(Residual(body=Conv(width=16)), 8)


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(UsageError, match=r"3 groups cannot have 8 channels in.*divides 4"):
        build(Conv(width=12, groups=3), 8)


def test_convolutions_start_with_the_variance_of_he_et_al():
    torch.manual_seed(0)
    conv, _ = build(Conv(width=128), 64)
    weight = conv.get_parameter("weight")
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)
    assert abs(weight.mean().item()) < 0.001


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(sorted(name for name, entry in design.BLOCKS.items() if not entry.tags)),
    in_channels=st.integers(1, 12),
    width=st.integers(4, 12),
    stride=st.integers(1, 3),
    side=st.integers(1, 13),
    norm=st.sampled_from(["batch", "group", "layer", "none"]),
)
def test_every_block_leaves_the_width_and_divides_the_sides(kind, in_channels, width, stride, side, norm):
    node = design.BLOCKS.build(kind, Place(in_channels, width, stride, Style(norm=norm)))
    model, channels = build(node, in_channels)
    divided = -(-side // stride)
    assert model(torch.zeros(3, in_channels, side, side)).shape == (3, width, divided, divided)
    assert channels == width


@pytest.mark.parametrize("shortcut", ["conv", "pool", "pad"])
@pytest.mark.parametrize("side", range(4, 12))
def test_all_shortcuts_fit_odd_and_even_sides(shortcut, side):
    model, _ = build(block("residual", 2, 4, 2, shortcut=shortcut), 2)
    assert model(torch.zeros(2, 2, side, side)).shape[2] == -(-side // 2)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 33)])
class TestEveryModel:
    """What holds for each row of the table of models."""

    def make(self, name: str, channels: int, size: int, outputs: int = 7) -> nn.Module:
        torch.manual_seed(0)
        return MODELS.build(name, channels, outputs, **size_options(name, size))

    def test_gives_one_row_of_logits_for_each_image(self, name, channels, size):
        assert self.make(name, channels, size)(torch.randn(3, channels, size, size)).shape == (3, 7)

    def test_starts_near_the_loss_of_guessing(self, name, channels, size):
        logits = self.make(name, channels, size, 10)(torch.randn(64, channels, size, size))
        assert F.cross_entropy(logits, torch.arange(64) % 10).item() == pytest.approx(math.log(10), abs=0.15)

    def test_sends_a_gradient_to_every_parameter(self, name, channels, size):
        model = self.make(name, channels, size)
        F.cross_entropy(model(torch.randn(8, channels, size, size)), torch.arange(8) % 7).backward()
        silent = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert silent == []

    def test_gives_the_same_in_channels_last(self, name, channels, size):
        model, x = self.make(name, channels, size).eval(), torch.randn(4, channels, size, size)
        with torch.no_grad():
            expected = model(x)
            got = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)

    def test_is_close_in_bfloat16(self, name, channels, size):
        model, x = self.make(name, channels, size).eval(), torch.randn(4, channels, size, size)
        with torch.no_grad():
            expected = model(x)
            with torch.autocast("cpu", torch.bfloat16):
                got = model(x)
        assert got.dtype == torch.bfloat16
        assert (got.float() - expected).abs().max() < 0.05 * expected.abs().max()

    def test_images_of_a_batch_do_not_mix(self, name, channels, size):
        model, x = self.make(name, channels, size).eval(), torch.randn(4, channels, size, size)
        with torch.no_grad():
            torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-6)

    def test_its_state_goes_round(self, name, channels, size):
        first, second = self.make(name, channels, size), MODELS.build(name, channels, 7, **size_options(name, size))
        x = torch.randn(4, channels, size, size)
        assert not torch.equal(first.eval()(x), second.eval()(x))
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(x), second(x))

    def test_one_seed_gives_one_network(self, name, channels, size):
        one, two = self.make(name, channels, size).state_dict(), self.make(name, channels, size).state_dict()
        assert all(torch.equal(one[key], two[key]) for key in one)

    def test_refuses_an_option_it_does_not_know(self, name, channels, size):
        with pytest.raises(UsageError, match="has no option 'widht'"):
            MODELS.build(name, channels, 7, widht=8)


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_pyramid_of_two_stages_has_the_parameters_of_its_formula(width, depth):
    w, v = width, 2 * width
    stem = 3 * w * 9 + 2 * w
    first = depth * (2 * 9 * w * w + 4 * w)
    second = 9 * w * v + 9 * v * v + w * v + 6 * v + (depth - 1) * (2 * 9 * v * v + 4 * v)
    model = MODELS.build("convnet", 3, 5, width=width, depth=depth, stages=2)
    assert count_parameters(model).total == stem + first + second + 5 * v + 5


@pytest.mark.parametrize(
    "options", [{"head": "flatten"}, {"head": "max"}, {"norm": "group"}, {"norm": "none"}, {"dropout": 0.5}]
)
def test_the_options_of_convnet_train(options):
    torch.manual_seed(0)
    model = MODELS.build("convnet", 1, 4, width=16, stages=2, **options)
    x, y = torch.randn(32, 1, 8, 8), torch.arange(32) % 4
    x[:, :, :4] += y[:, None, None, None].float() - 1.5
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert (model.eval()(x).argmax(1) == y).float().mean() > 0.9


def test_a_wrong_value_of_an_option_is_a_usage_error():
    with pytest.raises(UsageError, match=r"stem\.width.*given: -1"):
        MODELS.build("convnet", 1, 10, width=-1)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(4, 256),
    channels=st.sampled_from([1, 3]),
    images=st.integers(1, 10**6),
    classes=st.integers(1, 2000),
)
def test_the_automatic_design_suits_any_task(size, channels, images, classes):
    fitted, reason = fit_design(size, channels, images, classes)
    assert fitted.stride <= size
    assert str(size) in reason
    assert all(stage.width % 8 == 0 for stage in fitted.stages)
    assert all(a.width <= b.width for a, b in zip(fitted.stages, fitted.stages[1:], strict=False))


def test_the_automatic_design_grows_with_the_task():
    def size_of(size: int, channels: int, images: int, classes: int) -> int:
        network, _ = fit_design(size, channels, images, classes)
        return count_parameters(build_design(network, channels, classes)).total

    digits, fashion, colour = size_of(8, 1, 1_258, 10), size_of(28, 1, 51_000, 10), size_of(32, 3, 42_500, 10)
    assert digits < fashion < colour
    assert size_of(64, 3, 42_500, 10) >= colour
    assert size_of(32, 3, 300, 10) < colour


def test_the_last_stage_is_as_wide_as_there_are_classes():
    assert fit_design(28, 1, 50_000, 128).design.stages[-1].width == 128
    assert fit_design(28, 1, 50_000, 300).design.stages[-1].width == 304
    assert fit_design(28, 1, 50_000, 5_000).design.stages[-1].width == 512
