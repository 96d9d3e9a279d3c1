"""The table of layers: every row through the conformance suite, and beside a case worked by hand or another library."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convsmith import design
from convsmith.errors import UsageError
from convsmith.networks import build
from convsmith.networks.layers import LAYER_KINDS, LAYERS, layer_parameters, layer_shape
from convsmith.testing import LAYER_CHECKS, LayerCase

IMAGE = (8, 9, 12)
CONV = {"in_channels": 8, "out_channels": 6, "kernel_size": 3}
CASES = {
    "conv": [
        CONV,
        {**CONV, "padding": 1, "stride": 2, "bias": False},
        {**CONV, "padding": "same", "dilation": 2},
        {**CONV, "padding": 1, "padding_mode": "reflect", "groups": 2},
        {**CONV, "padding": 2, "padding_mode": "replicate", "kernel_size": (3, 5)},
        {**CONV, "padding": 1, "padding_mode": "circular"},
    ],
    "conv-same": [{**CONV, "stride": 2}, {**CONV, "stride": 3, "dilation": 2, "groups": 2}],
    "conv-winograd": [
        {"in_channels": 8, "out_channels": 6},
        {"in_channels": 8, "out_channels": 5, "tile": 2, "padding": 0, "bias": False},
        {"in_channels": 8, "out_channels": 5, "tile": 2, "padding_mode": "circular"},
    ],
    "transposed-conv": [{**CONV, "stride": 2}, {**CONV, "stride": 3, "padding": 1, "output_padding": 1, "groups": 2}],
    "linear": [{"in_features": 12, "out_features": 5}, {"in_features": 12, "out_features": 5, "bias": False}],
    "flatten": [{}],
    "batch-norm": [{"num_features": 8}, {"num_features": 8, "affine": False}],
    "group-norm": [{"num_groups": 2, "num_channels": 8}],
    "layer-norm": [{"num_channels": 8}],
    "instance-norm": [{"num_features": 8}, {"num_features": 8, "affine": True}],
    "max-pool": [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}],
    "average-pool": [{"kernel_size": 2, "ceil_mode": True}, {"kernel_size": 3, "stride": 2, "padding": 1}],
    "adaptive-max-pool": [{"output_size": 4}],
    "adaptive-average-pool": [{"output_size": (2, 5)}],
    "fractional-max-pool": [{"kernel_size": 2, "output_ratio": 0.7}],
    "stochastic-pool": [{"kernel_size": 2, "ceil_mode": True}, {"kernel_size": 3, "stride": 2}],
    "blur-pool": [{"channels": 8}, {"channels": 8, "filt_size": 5, "stride": 3}],
    "dropout": [{"p": 0.3}],
    "spatial-dropout": [{"p": 0.3}],
    "drop-block": [{"p": 0.3, "block_size": 3}, {"p": 0.1, "block_size": 7}],
    "stochastic-depth": [{"p": 0.3, "mode": "row"}],
    "squeeze-excite": [{"input_channels": 8, "squeeze_channels": 2}],
    "cbam": [{"channels": 8, "rd_ratio": 0.25}, {"channels": 8, "rd_ratio": 0.5, "spatial_kernel_size": 3}],
    "eca": [{"channels": 8}],
}
PLAIN = [name for name in LAYER_KINDS if name not in CASES]
ROWS = [(name, options) for name in LAYER_KINDS for options in CASES.get(name, [{}])]


def layer(name: str, **options) -> nn.Module:
    return LAYER_KINDS.build(name, **options)


@pytest.mark.parametrize(("name", "options"), ROWS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(ROWS)])
def test_every_layer_conforms(name, options):
    case = LayerCase(
        lambda: layer(name, **options),
        shape=IMAGE,
        output=layer_shape(name, IMAGE, **options),
        parameters=layer_parameters(name, **options),
        random="random" in LAYER_KINDS[name].tags,
    )
    for check in LAYER_CHECKS:
        check(case)


def test_only_layers_without_needs_are_tried_without_options():
    assert set(CASES) <= set(LAYER_KINDS)
    for name in PLAIN:
        assert layer_parameters(name) == 0
        assert name.startswith("global-") or layer_shape(name, IMAGE) == IMAGE


def test_a_formula_takes_the_layer_s_own_defaults_and_refuses_what_it_does_not_take():
    assert layer_shape("blur-pool", (3, 9, 9)) == (3, 5, 5)
    assert layer_parameters("group-norm", num_groups=2, num_channels=10) == 20
    with pytest.raises(UsageError, match=r"no option 'strides'.*Did you mean stride"):
        layer_parameters("conv", in_channels=3, out_channels=4, kernel_size=3, strides=2)
    with pytest.raises(UsageError, match=r"no layer named 'convv'.*conv"):
        layer_shape("convv", (3, 4, 4))


NINE = torch.arange(1.0, 10).view(1, 1, 3, 3)
PADDED = {
    "reflect": "5 4 5 6 5 / 2 1 2 3 2 / 5 4 5 6 5 / 8 7 8 9 8 / 5 4 5 6 5",
    "replicate": "1 1 2 3 3 / 1 1 2 3 3 / 4 4 5 6 6 / 7 7 8 9 9 / 7 7 8 9 9",
    "circular": "9 7 8 9 7 / 3 1 2 3 1 / 6 4 5 6 4 / 9 7 8 9 7 / 3 1 2 3 1",
    "zeros": "0 0 0 0 0 / 0 1 2 3 0 / 0 4 5 6 0 / 0 7 8 9 0 / 0 0 0 0 0",
}


@pytest.mark.parametrize("mode", PADDED)
def test_paddings_are_those_written_out_by_hand(mode):
    expected = [[float(value) for value in row.split()] for row in PADDED[mode].split("/")]
    seeing = layer("conv", in_channels=1, out_channels=1, kernel_size=1, padding=1, padding_mode=mode, bias=False)
    of_design = build(design.Conv(width=1, kernel=1, padding=1, padding_mode=mode), 1)[0]
    for conv in (seeing, of_design):
        nn.init.ones_(conv.weight)
        assert conv(NINE)[0, 0].tolist() == expected


def test_same_padding_adds_more_behind_than_before():
    conv = layer("conv-same", in_channels=1, out_channels=1, kernel_size=2, stride=2, bias=False)
    nn.init.ones_(conv.weight)
    assert conv(NINE)[0, 0].tolist() == [[12.0, 9.0], [15.0, 9.0]]


def test_a_transposed_convolution_is_the_gradient_of_a_convolution():
    transposed = layer("transposed-conv", in_channels=4, out_channels=2, kernel_size=3, stride=2, bias=False)
    x, image = torch.randn(2, 4, 5, 5), torch.randn(2, 2, 11, 11, requires_grad=True)
    (gradient,) = torch.autograd.grad(F.conv2d(image, transposed.weight, stride=2), image, x)
    torch.testing.assert_close(transposed(x), gradient)


@pytest.mark.parametrize(
    ("name", "options", "axes"),
    [
        ("batch-norm", {"num_features": 4}, (0, 2, 3)),
        ("layer-norm", {"num_channels": 4}, (1,)),
        ("instance-norm", {"num_features": 4}, (2, 3)),
        ("group-norm", {"num_groups": 1, "num_channels": 4}, (1, 2, 3)),
    ],
)
def test_norms_normalise_over_their_axes(name, options, axes):
    x = (torch.randn(3, 4, 5, 6) + 2) * 3
    whole = x.double().numpy()
    expected = (whole - whole.mean(axes, keepdims=True)) / whole.std(axes, keepdims=True)
    np.testing.assert_allclose(layer(name, **options)(x).detach().numpy(), expected, atol=1e-4)


FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky-relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "relu6": lambda x: np.clip(x, 0, 6),
    "silu": lambda x: x * scipy.special.expit(x),
    "gelu": lambda x: x * scipy.special.ndtr(x),
    "hard-swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hard-sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "tanh": np.tanh,
    "sigmoid": scipy.special.expit,
    "softmax": lambda x: scipy.special.softmax(x, axis=1),
    "log-softmax": lambda x: scipy.special.log_softmax(x, axis=1),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_are_their_formulas(name):
    x = torch.linspace(-8, 8, 60, dtype=torch.float64).view(2, 3, 2, 5)
    expected = FORMULAS[name](x.numpy())
    np.testing.assert_allclose(layer(name)(x).numpy(), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(build(design.Activation(kind=name), 3)[0](x).numpy(), expected, rtol=1e-6, atol=1e-9)


def test_every_activation_has_its_formula():
    assert {name for name, kind in LAYER_KINDS.items() if "activation" in kind.tags} <= set(FORMULAS)


def test_pooling_of_four_values_by_hand():
    four = torch.tensor([[[[3.0, 7.0], [4.0, 9.0]]]])
    for name in ("max-pool", "adaptive-max-pool", "global-max-pool"):
        assert layer(name, **options_of(name)).eval()(four).item() == 9
    for name in ("average-pool", "adaptive-average-pool", "global-average-pool"):
        assert layer(name, **options_of(name)).eval()(four).item() == 5.75


def options_of(name: str) -> dict[str, int]:
    return {"max-pool": {"kernel_size": 2}, "average-pool": {"kernel_size": 2}}.get(
        name, {} if name.startswith("global") else {"output_size": 1}
    )


def test_stochastic_pooling_draws_in_proportion_and_means_by_it():
    pool = layer("stochastic-pool", kernel_size=2)
    window = torch.tensor([[1.0, 0.0], [5.0, -3.0]])
    many = window.repeat(1, 1, 60, 60)
    torch.manual_seed(0)
    drawn = pool(many)
    assert set(drawn.unique().tolist()) == {1.0, 5.0}
    assert (drawn == 5).float().mean().item() == pytest.approx(5 / 6, abs=0.03)  # 900 draws: four deviations are 0.05
    assert pool.eval()(many).unique().item() == pytest.approx(1 / 6 + 25 / 6)


def test_stochastic_pooling_of_nothing_positive_is_zero_with_a_gradient_of_zero():
    pool = layer("stochastic-pool", kernel_size=2)
    for mode in (True, False):
        x = torch.tensor([[[[-1.0, 0.0], [-2.0, 0.0]]]], requires_grad=True)
        result = pool.train(mode)(x)
        result.sum().backward()
        assert result.item() == 0
        assert not x.grad.any()  # type: ignore[union-attr]


def test_stochastic_pooling_sends_the_gradient_to_the_value_it_drew():
    x = torch.tensor([[[[2.0, 3.0], [4.0, 1.0]]]], requires_grad=True)
    result = layer("stochastic-pool", kernel_size=2)(x)
    result.backward()
    assert torch.equal(x.grad, (x.detach() == result.detach()).float())  # type: ignore[arg-type]


def test_fractional_windows_cover_the_image_in_order():
    x = torch.arange(20.0).view(1, 1, 20, 1).expand(1, 1, 20, 20)
    pool = layer("fractional-max-pool", kernel_size=2, output_ratio=0.7)
    steps = pool(x)[0, 0, :, 0].diff()
    assert set(steps.tolist()) <= {1.0, 2.0}  # the paper's sequences of ones and twos
    assert pool(x)[0, 0, -1, 0] == 19


@pytest.mark.parametrize("size", [3, 5, 7])
def test_blurring_is_a_binomial_filter_at_every_other_position(size):
    x = torch.randn(1, 2, 12, 13)
    binomial = np.array([math.comb(size - 1, k) for k in range(size)]) / 2 ** (size - 1)
    blurred = x.numpy()
    for axis in (2, 3):
        blurred = scipy.ndimage.convolve1d(blurred, binomial, axis=axis, mode="mirror")
    expected = torch.from_numpy(blurred[:, :, ::2, ::2])
    torch.testing.assert_close(layer("blur-pool", channels=2, filt_size=size)(x), expected)
    torch.testing.assert_close(build(design.BlurPool(kernel=size), 2)[0](x), expected)


@pytest.mark.parametrize("channels", [8, 24, 40, 100, 256])
def test_cbam_narrows_by_its_ratio_rounded_and_not_below_one(channels):
    counted = sum(parameter.numel() for parameter in layer("cbam", channels=channels).parameters())
    assert layer_parameters("cbam", channels=channels) == counted


def test_channels_are_squeezed_and_excited_as_in_the_paper():
    module = layer("squeeze-excite", input_channels=6, squeeze_channels=2)
    x = torch.randn(3, 6, 4, 5)
    first, second = module.fc1, module.fc2
    hidden = torch.relu(F.linear(x.mean((2, 3)), first.weight.flatten(1), first.bias))
    gates = torch.sigmoid(F.linear(hidden, second.weight.flatten(1), second.bias))
    torch.testing.assert_close(module(x), x * gates[:, :, None, None])


def test_cbam_weighs_channels_and_then_positions_as_in_the_paper():
    module = layer("cbam", channels=8, rd_ratio=0.25).eval()
    x = torch.randn(2, 8, 6, 5)
    narrow, wide = (weight.flatten(1) for weight in (module.channel.fc1.weight, module.channel.fc2.weight))

    def perceptron(pooled: Tensor) -> Tensor:
        return F.linear(torch.relu(F.linear(pooled, narrow)), wide)

    channels = torch.sigmoid(perceptron(x.mean((2, 3))) + perceptron(x.amax((2, 3))))
    weighed = x * channels[:, :, None, None]
    maps = torch.stack([weighed.mean(1), weighed.amax(1)], 1)
    positions = torch.sigmoid(module.spatial.conv.bn(F.conv2d(maps, module.spatial.conv.conv.weight, padding=3)))
    torch.testing.assert_close(module(x), weighed * positions)


@pytest.mark.parametrize(("channels", "kernel"), [(8, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)])
def test_eca_convolves_along_the_channels_with_the_kernel_of_the_authors(channels, kernel):
    module = layer("eca", channels=channels)
    assert layer_parameters("eca", channels=channels) == kernel
    x = torch.randn(2, channels, 3, 3)
    weights = module.conv.weight.detach().numpy().ravel()
    means = scipy.ndimage.correlate1d(x.mean((2, 3)).numpy(), weights, axis=1, mode="constant")
    torch.testing.assert_close(module(x), x * torch.sigmoid(torch.from_numpy(means))[:, :, None, None])


def test_dropping_keeps_the_mean_and_drops_its_share():
    torch.manual_seed(0)
    ones = torch.ones(200, 16, 14, 14)
    for name, options in (("dropout", {"p": 0.3}), ("spatial-dropout", {"p": 0.3}), ("drop-block", {"p": 0.1})):
        result = layer(name, **options)(ones)
        assert result.mean().item() == pytest.approx(1, abs=0.03)
        assert (result == 0).float().mean().item() == pytest.approx(options["p"], abs=0.02)


def test_spatial_dropout_drops_channels_and_drop_block_squares():
    torch.manual_seed(0)
    channels = layer("spatial-dropout", p=0.5)(torch.ones(8, 8, 5, 5)) == 0
    assert torch.equal(channels.all(dim=(2, 3)), channels.any(dim=(2, 3)))
    dropped = (layer("drop-block", p=0.1, block_size=3)(torch.ones(8, 8, 12, 12)) == 0).float()
    eroded = F.pad(1 - F.max_pool2d(1 - dropped, 3, 1), (1, 1, 1, 1))
    whole = F.max_pool2d(eroded, 3, 1, padding=1)  # what is left by an opening: whole squares of three
    assert dropped.any()
    assert torch.equal(whole, dropped)


@pytest.mark.parametrize("side", range(1, 9))
def test_drop_block_takes_images_smaller_than_its_blocks(side):
    torch.manual_seed(0)
    result = layer("drop-block", p=0.5, block_size=7)(torch.ones(20, 4, side, side))
    assert 0 < (result == 0).float().mean() < 1


def test_drop_block_of_an_even_side_is_refused():
    with pytest.raises(UsageError, match=r"4x4.*no middle.*3 or 5"):
        layer("drop-block", p=0.1, block_size=4)


def test_stochastic_depth_leaves_a_block_as_it_is_in_expectation():
    torch.manual_seed(0)
    x, branch = torch.randn(20_000, 3), torch.randn(20_000, 3) + 1
    drop = layer("stochastic-depth", p=0.4, mode="row")
    assert torch.equal(x + drop(torch.zeros_like(x)), x)  # a zero branch leaves x: the skip is never scaled
    dropped = drop(branch)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], branch[kept] / 0.6)
    assert torch.equal((dropped == 0).all(dim=1), (dropped == 0).any(dim=1))  # image by image
    torch.testing.assert_close(dropped.mean(0), branch.mean(0), rtol=0.05, atol=0)
    assert torch.equal(drop.eval()(branch), branch)


def test_every_leaf_of_a_design_is_in_one_table():
    from convsmith.networks.blocks import NODES

    joined = {"sequence", "residual", "concat"}
    kinds = {
        node.model_fields["type"].default for node in design.Frozen.__subclasses__() if "type" in node.model_fields
    }
    assert kinds - joined == set(LAYERS) | set(NODES)
    assert not set(LAYERS) & set(NODES)


LEAVES = [
    (design.Conv(width=6, groups=2, padding_mode="circular", dilation=2), IMAGE, 8 * 6 // 2 * 9),
    (design.TransposedConv(width=6, bias=True), IMAGE, 8 * 6 * 4 + 6),
    (design.Norm(kind="layer"), IMAGE, 16),
    (design.Norm(kind="instance"), IMAGE, 16),
    (design.Norm(kind="group"), IMAGE, 16),
    (design.Pool(kind="stochastic"), IMAGE, 0),
    (design.Pool(kind="max", kernel=3), IMAGE, 0),
    (design.Pool(kind="average", kernel=3, stride=1), IMAGE, 0),
    (design.FractionalPool(), IMAGE, 0),
    (design.BlurPool(stride=3, kernel=5), IMAGE, 0),
    (design.GridPool(kind="max", side=3), IMAGE, 0),
    (design.Dropout(rate=0.2, spatial=True), IMAGE, 0),
    (design.DropBlock(rate=0.2), IMAGE, 0),
    (design.StochasticDepth(rate=0.2), IMAGE, 0),
    (design.SqueezeExcite(rate=0.25, activation="silu", gate="hard-sigmoid"), IMAGE, 2 * 16 + 2 + 8),
    (design.SqueezeExcite(width=3), IMAGE, 2 * 24 + 3 + 8),
    (design.Cbam(rate=0.5, kernel=3), IMAGE, 2 * 32 + 18 + 2),
    (design.Eca(), IMAGE, 3),
    (design.Eca(kernel=5), IMAGE, 5),
]
LEFT = {
    "conv": (6, 9, 12),
    "transposed-conv": (6, 18, 24),
    "fractional-pool": (8, 6, 8),
    "blur-pool": (8, 3, 4),
    "grid-pool": (8, 3, 3),
}


@pytest.mark.parametrize(
    ("node", "shape", "parameters"), LEAVES, ids=[f"{node.type}-{n}" for n, (node, *_) in enumerate(LEAVES)]
)
def test_every_leaf_of_a_design_becomes_its_layer(node, shape, parameters):
    module, channels = build(node, shape[0])
    stride = getattr(node, "stride", 1)
    divided = (8, -(-9 // stride), -(-12 // stride)) if node.type == "pool" else shape
    result = module(torch.randn(2, *shape))
    assert result.shape[1:] == LEFT.get(node.type, divided)
    assert channels == result.shape[1]
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters


@pytest.mark.parametrize("padding", [None, 1])
def test_a_mean_never_counts_the_padding(padding):
    pool, _ = build(design.Pool(kind="average", kernel=3, padding=padding), 1)
    assert torch.equal(pool(torch.ones(1, 1, 7, 7)), torch.ones(1, 1, 4, 4))


def test_nodes_use_what_they_are_given():
    excite, _ = build(design.SqueezeExcite(rate=0.25, activation="silu", gate="hard-sigmoid"), 8)
    assert (type(excite.activation), type(excite.scale_activation)) == (nn.SiLU, nn.Hardsigmoid)
    drop, _ = build(design.DropBlock(rate=0.2, size=5), 8)
    assert (drop.p, drop.block_size) == (0.2, 5)
    depth, _ = build(design.StochasticDepth(rate=0.2), 8)
    assert (depth.p, depth.mode) == (0.2, "row")
    zero, _ = build(design.Norm(kind="instance", zero=True), 8)
    assert not zero.weight.any()
    grouped, _ = build(design.Conv(width=64, groups=64), 64)
    assert grouped.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.1)  # fan-out of one channel's group
