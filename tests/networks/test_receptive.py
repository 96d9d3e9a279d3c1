"""Receptive fields are those of the literature and of the gradients, in every position, and unknown where unknown."""

import operator

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from gradient_oracle import by_gradient, fields_of, said, seen, within
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from convsmith.errors import UsageError
from convsmith.networks.receptive import Axis, last_map, receptive_fields
from convsmith.networks.recording.graph import record


class Function(nn.Module):
    """A function as a network."""

    def __init__(self, function, *modules):
        super().__init__()
        self.parts, self.function = nn.ModuleList(modules), function

    def forward(self, images):
        return self.function(images, *self.parts)


def conv(kernel, *, channels=(1, 1), **options):
    return nn.Conv2d(*channels, kernel, **options)


def final(model, *shape):
    """The field of the last map of a network, and all fields."""
    graph = record(model, shape)
    fields = receptive_fields(graph)
    value = last_map(graph, fields)
    assert value is not None
    assert fields.of(value) is not None, fields.reason(value)
    return fields.of(value), fields


def built(name):
    """A network without the time and memory that its weights take."""
    with torch.device("meta"):
        if name.startswith("torchvision "):
            return getattr(torchvision.models, name.removeprefix("torchvision "))(weights=None)
        return timm.create_model(name)


# Figures that are published, or were found by others with other means.


@pytest.mark.parametrize(
    ("name", "side", "size"),
    [
        ("torchvision alexnet", 224, 195), ("torchvision vgg16", 224, 212), ("torchvision resnet18", 64, 435),
        ("resnet18", 64, 435), ("efficientnet_lite0", 64, 851), ("dla34", 64, 623),
        *(
            pytest.param(name, 64, size, marks=pytest.mark.slow)  # a second each
            for name, size in (("torchvision resnet50", 427), ("densenet121", 2071), ("repvgg_a0", 535))
        ),
    ],
)  # fmt: skip
def test_known_networks_have_the_field_that_is_known_of_them(name, side, size):
    field, fields = final(built(name), 3, side, side)
    assert (field.height.size, field.width.size) == (size, size)
    assert (field.height.stride, field.even, field.whole) == (32, True, False)
    assert (fields.gates, fields.statistics) == ((), ())


def test_a_network_whose_gates_are_hard_to_follow_is_right_or_unknown():
    """Split attention: radix softmax over channels of a pooled map. Gradients give 135."""
    graph = record(built("resnest14d"), (3, 64, 64))
    fields = receptive_fields(graph)
    field = fields.of(last_map(graph, fields))
    assert field is None or field.height.size == field.width.size == 135


@pytest.mark.parametrize(
    ("strides", "sizes"), [((1, 1, 1), [3, 5, 7]), ((1, 2, 1), [3, 5, 9]), ((2, 2, 2), [3, 7, 15])]
)
def test_a_field_grows_by_the_kernel_less_one_times_all_strides_before(strides, sizes):
    layers = nn.Sequential(*(conv(3, stride=stride) for stride in strides))
    graph, fields, _ = fields_of(layers, 1, 32, 32)
    assert [fields.of(call.outputs[0]).height.size for call in graph.calls if call.leaf] == sizes


def test_a_dilated_residual_toy_sees_15_and_a_toy_with_a_pooling_function_8():
    dilated = Function(
        lambda x, a, b, c: (y := a(x)) + c(b(y)),
        conv(3, padding=1), conv(3, padding=2, dilation=2), conv(3, padding=4, dilation=4),
    )  # fmt: skip
    assert final(dilated, 1, 40, 40)[0].height == Axis(15, 1, 0)
    pooled = Function(lambda x, a, b: b(F.max_pool2d(a(x), 2)), conv(3, padding=1), conv(3, padding=1))
    assert final(pooled, 1, 40, 40)[0].width == Axis(8, 2, 0.5)


def test_height_and_width_are_told_apart():
    layers = nn.Sequential(conv((1, 7), stride=(1, 2), padding=(0, 3)), conv((5, 3), dilation=(3, 1)))
    field, _ = final(layers, 1, 40, 50)
    assert (field.height, field.width) == (Axis(13, 1, 6), Axis(11, 2, 2))


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet", "test_efficientnet",
        *(
            pytest.param(name, marks=pytest.mark.slow)  # seconds each
            for name in (
                "resnet50d", "seresnet33ts", "ecaresnet26t", "skresnet18", "resnetblur18", "mobilenetv3_small_050",
                "regnety_002", "dla46_c", "hrnet_w18_small", "cs3darknet_focus_s", "selecsls42b", "tresnet_m",
                "fasternet_t0", "resnest14d", "torchvision squeezenet1_1", "torchvision shufflenet_v2_x0_5",
            )
        ),
    ],
)  # fmt: skip
def test_real_networks_agree_with_their_gradients(name):
    field, _ = final(built(name), 3, 256, 256)
    torchvision_name = name.removeprefix("torchvision ")
    model = timm.create_model(name) if torchvision_name == name else getattr(torchvision.models, torchvision_name)()
    side = -(-(field.height.size + 100) // 32) * 32  # some networks take multiples of 32 only
    for axis, said_of in enumerate((field.height, field.width)):
        found = by_gradient.measured(model, side, axis=axis)
        assert (found.size, found.stride, found.offset) == (said_of.size, said_of.stride, said_of.offset)


# Every position of small networks against its gradients.


def blocks(x):
    """Windows of 2 x 2 as Swin cuts them, mixed within, and put together again."""
    n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
    x = x + x.mean(1, keepdim=True)
    return x.view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c).permute(0, 3, 1, 2)


def attended(x):
    """Softmax attention over the columns of each row."""
    tokens = x[0].transpose(0, 1)  # [H, C, W]
    return (tokens @ (tokens.transpose(1, 2) @ tokens)).transpose(0, 1)[None]


def tokens(x, linear):
    """Through `[N, H*W, C]` and back."""
    n, c, h, w = x.shape
    return linear(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(n, c, h, w)


EVERYWHERE = {
    "strided": conv(3, stride=2, padding=1),
    "dilated": conv((3, 2), dilation=(2, 3), padding=2),
    "depthwise": nn.Conv2d(2, 2, 3, padding=1, groups=2),
    "transposed": nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1, output_padding=1),
    "transposed with gaps": nn.ConvTranspose2d(1, 1, 2, stride=3),
    "transposed and dilated": nn.ConvTranspose2d(1, 1, 3, stride=2, dilation=2),
    "max pool, ceiling": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max pool, dilated": nn.MaxPool2d(2, 1, dilation=3, padding=1),
    "average pool": nn.AvgPool2d(3, 2, padding=1),
    "adaptive, even": nn.AdaptiveAvgPool2d((6, 3)),
    "adaptive, uneven": nn.AdaptiveAvgPool2d((5, 7)),
    "adaptive, larger": nn.AdaptiveAvgPool2d((20, 13)),
    "adaptive maximum": nn.AdaptiveMaxPool2d((5, 4)),
    "nearest": Function(lambda x: F.interpolate(x, scale_factor=2)),
    "nearest, uneven": Function(lambda x: F.interpolate(x, size=(17, 5))),
    "bilinear": Function(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "bilinear, corners": Function(lambda x: F.interpolate(x, size=(23, 10), mode="bilinear", align_corners=True)),
    "enlarged and convolved": nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2), conv(3, padding=1)),
    "sum of strides": Function(lambda x, a: x + F.interpolate(a(x), scale_factor=2), conv(4, stride=2, padding=1)),
    "residual": Function(lambda x, a, b: a(x) + b(a(x)), conv(3, padding=1), conv(5, padding=2)),
    "concatenated": Function(lambda x, a, b: torch.cat([a(x), b(x), x], 1), conv(3, padding=1), conv(1)),
    "divided": Function(lambda x: operator.add(*x.chunk(2, 1))[:, :1]),
    "sliced": Function(lambda x: x[:, :, 1::3, 2:-2]),
    "flipped": Function(lambda x: x.flip(2)),
    "rolled": Function(lambda x: torch.roll(x, (2, -3), (2, 3))),
    "stacked sides": Function(lambda x: torch.cat([x[:, :, :4], x[:, :, :4]], 2)),
    "channels last": Function(lambda x, a: a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Linear(2, 3)),
    "tokens": Function(tokens, nn.Linear(2, 2)),
    "windows": Function(blocks),
    "windows, then convolved": nn.Sequential(conv(3, stride=2, padding=1), Function(blocks), nn.AvgPool2d(2)),
    "row attention": Function(attended),
    "transposed picture": Function(lambda x: x.transpose(2, 3)),
    "pixel shuffle": nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.PixelShuffle(2)),
    "pixel unshuffle": nn.PixelUnshuffle(2),
    "unfolded": Function(lambda x: F.unfold(x, 3, padding=1, stride=2)),
    "unfolded by hand": Function(lambda x: x.unfold(2, 3, 2).unfold(3, 2, 1)),
    "padded": Function(lambda x: F.pad(x, (2, 1, -1, 3))),
    "repeated": Function(lambda x: x.repeat(1, 2, 2, 1)),
    "means of rows": Function(lambda x: x.mean(2, keepdim=True) + x),
    "flattened": Function(lambda x, a: a(x.flatten(1)), nn.Linear(24, 5)),
    "one position": Function(lambda x: x[:, :, 3, 2]),
    "several batches' worth": Function(lambda x: x.reshape(4, 1, -1, x.shape[3])),
}
SHAPES = {
    "depthwise": (2, 12, 9), "divided": (2, 12, 9), "channels last": (2, 12, 9), "tokens": (2, 4, 6),
    "windows": (1, 8, 6), "windows, then convolved": (1, 16, 24), "sum of strides": (1, 12, 8),
    "enlarged and convolved": (1, 12, 8), "pixel unshuffle": (1, 12, 8), "flattened": (1, 4, 6), "unfolded": (1, 9, 8),
    "row attention": (2, 4, 6), "transposed with gaps": (1, 5, 4),
}  # fmt: skip


GAPS = {"dilated", "max pool, dilated", "transposed and dilated", "enlarged and convolved"}
"""Where at the border a tap that is in padding was the first or the last one, with gaps between it and the others."""


@pytest.mark.parametrize("name", EVERYWHERE)
def test_all_positions_of_a_small_network_draw_on_what_has_a_gradient(name):
    model, shape = EVERYWHERE[name], SHAPES.get(name, (1, 12, 9))
    graph, fields, output = fields_of(model, *shape)
    form = graph.values[output].shape
    inside = within(fields, output, form)
    assert inside.any() or name in ("flattened",)
    for found, expected in zip(said(fields, output, form), seen(model, *shape), strict=True):
        if name == "concatenated":  # channels are not told apart
            expected = np.stack([expected[0].min(1, keepdims=True), expected[1].max(1, keepdims=True)]) + 0 * found
        if name in GAPS:
            assert (found[0] <= expected[0])[expected[1] >= 0].all()
            assert (found[1] >= expected[1]).all()
            found, expected = found[:, inside], expected[:, inside]
        np.testing.assert_array_equal(found, expected)


class Block(nn.Module):
    """A residual or concatenated pair of branches."""

    def __init__(self, left, right, *, joined):
        super().__init__()
        self.left, self.right, self.joined = left, right, joined

    def forward(self, images):
        left, right = self.left(images), self.right(images)
        return torch.cat([left, right], 1)[:, 1:3] if self.joined else left + right


def branch(kernel, dilation):
    return nn.Conv2d(2, 2, kernel, padding="same", dilation=dilation)


odd = st.sampled_from([1, 3, 5])
layer = st.one_of(
    st.builds(
        lambda kernel, stride, padding, dilation: nn.Conv2d(2, 2, kernel, stride, padding, dilation),
        st.integers(1, 5), st.integers(1, 2), st.integers(0, 3), st.integers(1, 2),
    ),
    st.builds(
        lambda kind, kernel, stride, padding, ceil: kind(kernel, stride, min(padding, kernel // 2), ceil_mode=ceil),
        st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]), st.integers(2, 3), st.integers(1, 3), st.integers(0, 1),
        st.booleans(),
    ),
    st.builds(
        lambda one, other, first, second, joined: Block(branch(one, first), branch(other, second), joined=joined),
        odd, odd, st.integers(1, 3), st.integers(1, 3), st.booleans(),
    ),
    st.builds(lambda kernel: nn.ConvTranspose2d(2, 2, kernel, stride=2, padding=1), st.integers(3, 4)),
    st.builds(lambda mode: nn.Upsample(scale_factor=2, mode=mode), st.sampled_from(["nearest", "bilinear"])),
)  # fmt: skip


def agrees(layers):
    """Size, stride and offset at some positions in the middle, along both sides of the image."""
    model = nn.Sequential(*layers)
    sides = (130, 117)
    try:
        _, fields, output = fields_of(model, 2, *sides)
    except UsageError:  # an image too small for so many layers
        assume(False)
    image = torch.ones(1, 2, *sides, dtype=torch.float64, requires_grad=True)
    with by_gradient.Positive():
        maps = by_gradient.made_positive(model)(image)
    rows, columns = fields.reach(output)
    field, tried = fields.of(output), 0
    for axis, reach, side in ((0, rows, sides[0]), (1, columns, sides[1])):
        first, last = reach.first.ravel(), reach.last.ravel()
        # Where what lies between is in no padding, which has no gradient.
        inside = [i for i in range(len(first)) if first[i] >= 20 and last[i] < side - 20 and len(first) > 2]
        if not inside:
            continue
        middle = inside[max(0, len(inside) // 2 - 2) :][:4]
        assert by_gradient.extents(maps, image, axis, middle) == [(first[i], last[i]) for i in middle]
        if field.even:
            measure = field.height if axis == 0 else field.width
            assert [measure.interval(i) for i in middle] == [(first[i], last[i]) for i in middle]
        tried += 1
    return tried


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(layer, min_size=1, max_size=5))
def test_random_networks_agree_with_their_gradients(layers):
    agrees(layers)


@pytest.mark.slow  # minutes: the same over many more
@settings(max_examples=150, deadline=None)
@given(st.lists(layer, min_size=1, max_size=7))
def test_many_random_networks_agree_with_their_gradients(layers):
    agrees(layers)
