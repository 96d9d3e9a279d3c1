"""Networks changed from outside: what they answered before is found again in what they answer after."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convsmith.errors import UsageError
from convsmith.networks.rewriting.surgery import (
    change_head,
    change_input_channels,
    change_output_stride,
    change_resolution,
    dilate_last,
)


class Bodied(nn.Module):
    """Layers, and a linear head on what they leave, pooled."""

    def __init__(self, *layers: nn.Module, channels: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Beside(nn.Module):
    """A strided convolution beside pooling and a 1x1 convolution, as in ResNet-D."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, 2, 1)
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        self.match = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.match(self.pool(x))


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2)


def conv(channels: int = 6, stride: int = 1, **ways: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, 6, 3, stride, 1, **ways)


def stem() -> tuple[nn.Module, ...]:
    """Divides by 4."""
    return nn.Conv2d(3, 6, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)


NETWORKS: dict[str, tuple[nn.Module, ...]] = {
    "strided convolutions": (conv(stride=2), nn.ReLU(), conv(), conv(stride=2), nn.ReLU(), conv(groups=2)),
    "wide and depthwise kernels": (nn.Conv2d(6, 6, 5, 2, 2, groups=6), conv(), nn.Conv2d(6, 6, 7, 2, 3), conv()),
    "pooling that pads": (nn.MaxPool2d(3, 2, 1), conv(), nn.MaxPool2d(3, 2, 1), conv()),
    "pooling that lets windows hang over": (
        nn.MaxPool2d(3, 2, ceil_mode=True), conv(), nn.MaxPool2d(2, 2, ceil_mode=True), conv()),
    "pooling that leaves a border out": (nn.MaxPool2d(2, 2), conv(), nn.AvgPool2d(2, 2), conv()),
    "a pooled shortcut": (Beside(), nn.ReLU(), Beside(), conv()),
    "kernels without padding": (nn.Conv2d(6, 6, 3, 2), conv(), nn.Conv2d(6, 6, 2, 2), conv(dilation=1)),
}  # fmt: skip


@pytest.mark.parametrize("side", [64, 75])
@pytest.mark.parametrize("stride", [8, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_at_a_smaller_stride_the_old_values_stand_where_they_stood_with_others_between(
    name: str, stride: int, side: int
):
    model = Bodied(*stem(), *NETWORKS[name]).eval()
    shape = (3, side, side)
    done = change_output_stride(model, shape, stride)
    image = torch.randn(2, *shape)
    with torch.no_grad():
        before, after = model.body(image), done.model.get_submodule("body")(image)
    step = 16 // stride
    assert after.shape[2] > before.shape[2]
    torch.testing.assert_close(after[:, :, ::step, ::step], before, rtol=1e-5, atol=1e-6)
    assert done.difference.parameters == 0
    assert done.difference.macs is not None
    assert done.difference.macs > 0
    assert done.difference.after.stride == stride


def test_layers_that_changed_are_named_and_the_network_is_left_as_it_was():
    model = Bodied(*stem(), *NETWORKS["strided convolutions"])
    done = change_output_stride(model, (3, 64, 64), 8)
    assert done.layers == ("body.6", "body.8")
    layers = [model.get_submodule(path) for path in done.layers]
    assert [(layer.stride, layer.dilation) for layer in layers] == [((2, 2), (1, 1)), ((1, 1), (1, 1))]
    changed = [done.model.get_submodule(path) for path in done.layers]
    assert [(layer.stride, layer.dilation) for layer in changed] == [((1, 1), (1, 1)), ((1, 1), (2, 2))]


def test_the_last_kernels_spread_see_further_by_hand():
    model = Bodied(*stem(), conv(stride=2), conv(), nn.Conv2d(6, 6, 1))
    done = dilate_last(model, (3, 64, 64), 3)
    assert done.layers == ("body.4",)
    assert done.difference.sees == (3 - 1) * 2 * 8
    assert (done.difference.parameters, done.difference.macs) == (0, 0)


@pytest.mark.parametrize("paths", [1, 2])
def test_one_grey_channel_answers_what_it_did_as_three_and_so_do_repeated_ones(paths: int):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ways = nn.ModuleList(nn.Conv2d(3, 6, 3) for _ in range(paths))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([way(x) for way in self.ways]).sum(0)

    model = Bodied(Twice(), nn.ReLU()).eval()
    image, grey = torch.rand(2, 3, 9, 9), torch.rand(2, 1, 9, 9)
    with torch.no_grad():
        summed = change_input_channels(model, (3, 9, 9), 1).model
        torch.testing.assert_close(summed(grey), model(grey.expand(-1, 3, -1, -1)))
        more = change_input_channels(model, (3, 9, 9), 5, how="repeat")
        torch.testing.assert_close(more.model(torch.cat([image, image[:, :2]], 1)), model(image))
    assert more.difference.parameters == paths * 6 * 2 * 9
    assert len(more.layers) == paths


def test_a_mean_of_weights_is_a_third_of_their_sum():
    model = Bodied(nn.Conv2d(3, 6, 3))
    summed, mean = (
        change_input_channels(model, (3, 9, 9), 2, how=how).model.get_parameter("body.0.weight")
        for how in ("sum", "average")
    )
    torch.testing.assert_close(summed, 3 * mean)
    torch.testing.assert_close(summed[:, 1], model.get_parameter("body.0.weight").sum(1))


def test_a_head_gives_other_logits_and_all_else_stays():
    model = Bodied(*stem())
    done = change_head(model, (3, 32, 32), 9)
    assert done.layers == ("head",)
    assert done.model(torch.rand(1, 3, 32, 32)).shape == (1, 9)
    assert done.difference.parameters == 5 * 7
    torch.testing.assert_close(done.model.get_parameter("body.0.weight"), model.get_parameter("body.0.weight"))


def test_another_size_is_measured_and_transformers_are_told_of_it():
    done = change_resolution(Bodied(*stem()), (3, 32, 32), 64, 48)
    assert done.difference.after.macs == 7 * 7 * 3 * 6 * (32 * 24) + 6 * 4
    import timm

    vit = timm.create_model("test_vit", pretrained=False, num_classes=4).eval()
    larger = change_resolution(vit, (3, 160, 160), 192, 128).model
    assert larger(torch.rand(1, 3, 192, 128)).shape == (1, 4)
    assert vit(torch.rand(1, 3, 160, 160)).shape == (1, 4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: change_output_stride(Bodied(*stem()), (3, 32, 32), 4), "divides its images by 4 already"),
        (lambda: change_output_stride(Bodied(*stem(), Functional()), (3, 32, 32), 4), "by 4 already"),
        (lambda: change_output_stride(Bodied(*stem(), Functional(), conv()), (3, 32, 32), 4), "no module for conv"),
        (lambda: change_output_stride(Bodied(*stem(), conv(stride=2)), (3, 32, 32), 3), "3 is no stride between"),
        (lambda: change_output_stride(Bodied(*stem(), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)), (3, 64, 64), 4),
         "averages over a padding"),
        (lambda: change_output_stride(Bodied(*stem(), conv(stride=2, padding_mode="reflect")), (3, 64, 64), 4),
         "pads by 'reflect'"),
        (lambda: dilate_last(Bodied(nn.Conv2d(3, 6, 1)), (3, 8, 8), 2), "no convolution whose kernel"),
        (lambda: dilate_last(Bodied(*stem()), (3, 8, 8), 1), "factor is 1"),
        (lambda: change_input_channels(Bodied(nn.BatchNorm2d(3), nn.Conv2d(3, 6, 1)), (3, 8, 8), 1),
         "read by native_batch_norm in body.0"),
        (lambda: change_resolution(Bodied(*stem(), nn.Flatten(2), nn.Linear(64, 6), nn.Unflatten(2, (2, 3))),
                                   (3, 32, 32), 64, 64), "fails on images of 3x64x64"),
    ],
)  # fmt: skip
def test_what_cannot_be_changed_from_outside_is_refused(call: Any, said: str):
    with pytest.raises(UsageError, match=said):
        call()
