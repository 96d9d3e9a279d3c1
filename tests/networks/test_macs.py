"""Multiply-adds worked out by hand, published, or counted by PyTorch on a real run; and none where they are unknown."""

import pytest
import timm
import torch
from torch import nn
from torch.backends import mkldnn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from convsmith.networks import count_macs
from convsmith.networks.counting.analysis import analyse
from convsmith.networks.counting.macs import macs_of
from convsmith.networks.recording.graph import record


class Does(nn.Module):
    """A network that is one function of images and some parts."""

    def __init__(self, function, *parts) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x):
        return self.function(x, *self.parts)


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def attention(x, keys):
    heads = tokens(x).unflatten(2, (2, -1)).transpose(1, 2)
    return F.scaled_dot_product_attention(heads, heads[:, :, ::2], keys(heads[:, :, ::2]))


def recurrent(x, layer):
    return layer(tokens(x))[0]


PRODUCTS = {
    "convolution with groups, stride and dilation": (nn.Conv2d(6, 9, (3, 5), (2, 1), (1, 2), (1, 2), 3), (6, 9, 9)),
    "transposed convolution": (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), (4, 5, 5)),
    "convolution over tokens": (Does(lambda x, conv: conv(x.flatten(2)), nn.Conv1d(4, 8, 3)), (4, 3, 3)),
    "linear over the last dimension": (nn.Linear(7, 5), (3, 4, 7)),
    "linear without bias": (nn.Sequential(nn.Flatten(), nn.Linear(12, 5, bias=False)), (3, 2, 2)),
    "matrix products": (Does(lambda x: x.flatten(2) @ tokens(x)), (3, 4, 4)),
    "einsum": (Does(lambda x: torch.einsum("nchw,ndhw->ncd", x, x * 2)), (3, 4, 4)),
    "baddbmm": (Does(lambda x: torch.baddbmm(x[:, 0], x[:, 0], x[:, 1])), (3, 4, 4)),
    "attention": (Does(attention, nn.Linear(4, 6)), (8, 4, 4)),
    "attention of torch": (
        Does(lambda x, layer: layer(*3 * [tokens(x)])[0], nn.MultiheadAttention(8, 2, batch_first=True)),
        (8, 3, 3),
    ),
    "two-way LSTM of two layers": (
        Does(recurrent, nn.LSTM(5, 6, 2, bidirectional=True, batch_first=True)),
        (5, 2, 3),
    ),
    "GRU": (Does(recurrent, nn.GRU(5, 6, batch_first=True)), (5, 2, 3)),
}


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_cost_what_pytorch_counts_on_a_real_run(name):
    model, shape = PRODUCTS[name]
    counter = FlopCounterMode(display=False)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:  # attention and recurrent layers in steps, which its counter can see
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), mkldnn.flags(enabled=False), counter:
            model.eval()(torch.zeros(2, *shape))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    counted = macs_of(record(model, shape, batch=2))
    assert None not in counted.values()
    assert sum(filter(None, counted.values())) == counter.get_total_flops() // 2 > 0


@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        (Does(lambda x: torch.mv(x[0, 0], x[0, 1, 0])), (2, 3, 4), 12),
        (Does(lambda x: torch.dot(x[0, 0, 0], x[0, 1, 0])), (2, 3, 4), 4),
        (Does(lambda x: torch.addmv(x[0, 0, :, 0], x[0, 0], x[0, 1, 0])), (2, 3, 4), 12),
        (Does(lambda x: torch.addbmm(x[0, 0], x[0], x[0])), (2, 3, 3), 54),
        (nn.Sequential(nn.BatchNorm2d(4), nn.SiLU(), nn.Upsample(scale_factor=2), nn.AvgPool2d(2)), (4, 4, 4), 0),
        (Does(lambda x: F.normalize(x) * x.norm()), (4, 4, 4), 0),
    ],
)
def test_other_products_and_what_is_none_by_hand(model, shape, macs):
    assert count_macs(model, shape) == macs


def test_a_deformable_convolution_multiplies_as_often_as_a_plain_one():
    from torchvision.ops import DeformConv2d

    layer = DeformConv2d(4, 6, 3, padding=1)
    model = Does(lambda x, conv: conv(x, x.new_zeros(1, 18, 5, 5)), layer)
    assert count_macs(model, (4, 5, 5)) == 25 * 6 * 4 * 9


@pytest.mark.parametrize(
    ("function", "target"),
    [
        (lambda x: torch.fft.rfft2(x).abs(), "aten._fft_r2c.default"),
        (lambda x: torch.cdist(x, x), "aten._cdist_forward.default"),
        (lambda x: torch.linalg.inv(x), "aten.linalg_inv_ex.default"),
        (lambda x: F.bilinear(x, x, torch.ones(2, 4, 4)), "aten._trilinear.default"),
    ],
)
def test_an_unknown_kind_of_product_is_said_to_be_unknown(function, target):
    inner = Does(function)
    model = nn.Sequential(nn.Conv2d(1, 1, 1), inner)
    assert count_macs(model, (1, 4, 4)) is None
    analysis = analyse(model, (1, 4, 4))
    assert analysis.macs is None
    assert [layer.macs for layer in analysis.layers] == [16, None]
    assert any(sentence.startswith(f"1 computes {target}") for sentence in analysis.unknown)


@pytest.mark.parametrize(
    ("name", "side", "macs"),
    [
        ("efficientnet_b0", 224, 0.386),
        ("vit_small_patch16_224", 224, 4.599),
        *(
            pytest.param(*row, marks=pytest.mark.slow)  # a second each
            for row in (
                ("resnet50", 224, 4.089), ("densenet121", 224, 2.834), ("convnext_tiny", 224, 4.456),
                ("maxvit_tiny_tf_224", 224, 5.552), ("tf_efficientnetv2_b0", 192, 0.528),
                ("resnetv2_50x1_bit", 224, 4.089),
            )
        ),
    ],
)  # fmt: skip
def test_known_networks_cost_what_is_published_of_them(name, side, macs):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert count_macs(model, (3, side, side)) / 1e9 == pytest.approx(macs, abs=5e-4)
