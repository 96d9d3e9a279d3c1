"""Size mismatches in any network: where they come from, with the sum, and mends that mend."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.errors import UsageError
from convsmith.networks import check_output
from convsmith.networks.lines.mismatch import explaining_sizes, size_error
from convsmith.networks.recording.graph import record


class Sum(nn.Module):
    """Two branches that halve, one of them with a padding."""

    def __init__(self, padding: int = 0, channels: int = 8) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, 2, padding)
        self.side = nn.Conv2d(3, channels, 1, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images) + self.side(images)


class UNet(nn.Module):
    """Two halvings down and up again, with what was there before set beside."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, padding=1)
        self.mid = nn.Conv2d(4, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.join = nn.ConvTranspose2d(8, 4, 2, 2)

    def forward(self, images: Tensor) -> Tensor:
        first = self.down(images)
        second = self.mid(F.max_pool2d(first, 2))
        third = self.mid(F.max_pool2d(second, 2))
        return torch.cat([self.join(torch.cat([self.up(third), second], 1)), first], 1)


def lenet(features: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(features, 10),
    )  # fmt: skip


def works(model: nn.Module, *shape: int) -> bool:
    try:
        model.eval()(torch.zeros(1, *shape))
    except RuntimeError:
        return False
    return True


def test_a_linear_layer_for_other_images_is_told_the_number_and_the_size_that_fit():
    found = size_error(lenet(400), (1, 28, 28))
    assert found is not None
    assert found.place == "6"
    assert found.says == "it takes 400 features, but 16x4x4 maps (from layer 4), flattened, are 256"
    assert found.mend == "Use in_features=256 here or images of 32x32."
    assert works(lenet(256), 1, 28, 28)
    assert works(lenet(400), 1, 32, 32)


def test_a_sum_of_unequal_branches_is_told_both_sums_and_the_padding_that_makes_them_equal():
    found = size_error(Sum(), (3, 57, 57))
    assert found is not None
    assert "it adds 8x28x28 (from body) and 8x29x29 (from side)" in found.says
    assert "28x28 is (57 + 2*0 - 1*(3-1) - 1)/2 + 1 = 28" in found.says
    assert found.mend.startswith("Use a padding of 1 in body")
    assert works(Sum(padding=1), 3, 57, 57)


def test_a_u_net_is_told_a_size_that_all_its_halvings_divide():
    found = size_error(UNet(), (3, 30, 30))
    assert found is not None
    assert "it joins 4x14x14 (from up) and 4x15x15" in found.says
    assert found.mend == "Use images of 32x32."
    assert works(UNet(), 3, 32, 32)
    assert not works(UNet(), 3, 31, 31)


@pytest.mark.parametrize(
    ("model", "shape", "says", "mend"),
    [
        (nn.Sequential(nn.Conv2d(3, 16, 5), nn.Conv2d(8, 3, 3)), (3, 9, 9), "takes 8 channels, but what comes in "
         "(from layer 0) has 16", "in_channels=16"),
        (nn.Conv2d(3, 16, 5), (1, 9, 9), "takes 3 channels, but the images have 1", "--input 3xHxW"),
        (nn.Sequential(nn.MaxPool2d(4), nn.Conv2d(3, 8, 5)), (3, 8, 8), "a window that spans 5 does not fit in 2",
         "a kernel of 2 or images of at least 20x20"),
        (nn.Sequential(nn.Conv2d(3, 16, 5), nn.BatchNorm2d(8)), (3, 9, 9), "made for 8 channels, but 16 come in",
         "16 here"),
        (nn.Sequential(nn.Conv2d(3, 16, 5), nn.GroupNorm(2, 8)), (3, 9, 9), "made for 8 channels, but 16 come in",
         "16 here"),
        (nn.Sequential(nn.Conv2d(3, 16, 5), nn.Linear(16, 10)), (3, 9, 9), "maps of 16x5x5 come in", "x.flatten(1)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(10, 4), nn.Linear(5, 4)), (1, 2, 5), "takes 5 features, but 4 come in",
         "in_features=4"),
        (Sum(padding=1, channels=4), (3, 8, 8), "it adds 8x4x4 (from body) and 4x4x4 (from side)",
         "1x1 convolution from 4 to 8"),
    ],
)  # fmt: skip
def test_each_kind_of_mismatch_is_named_with_its_mend(model: nn.Module, shape: tuple[int, ...], says: str, mend: str):
    found = size_error(model, shape)
    assert found is not None
    assert says in found.says
    assert mend in found.mend


def test_maps_that_are_viewed_as_too_long_rows_are_told_their_number():
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.conv(images).view(-1, 100)

    found = size_error(Viewing(), (3, 8, 8))
    assert found is not None
    assert found.says == "4x6x6 maps (from conv) are 144 numbers, which make no rows of 100"
    assert found.mend == "Use 144 in place of 100 or images of 7x7."


def test_a_network_that_works_or_fails_of_something_else_is_told_nothing(caplog: pytest.LogCaptureFixture):
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise KeyError("no size")

    with caplog.at_level(logging.ERROR):
        assert size_error(lenet(256), (1, 28, 28)) is None
        assert size_error(Broken(), (1, 28, 28)) is None
        assert size_error(lenet(1), (1, 28, 28)) is not None
    assert not caplog.records


def test_a_pass_that_fails_for_its_size_is_refused_with_the_sum_and_another_failure_as_it_is(
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level(logging.ERROR), pytest.raises(UsageError) as caught, explaining_sizes(lenet(400), (1, 28, 28)):
        record(lenet(400), (1, 28, 28))
    assert caught.value.message.startswith("Sequential fails on images of 1x28x28 in 6 (Linear): it takes 400 features")
    assert caught.value.mend == "Use in_features=256 here or images of 32x32."
    assert not caplog.records
    asks = UsageError("another matter")
    with pytest.raises(UsageError) as caught, explaining_sizes(lenet(256), (1, 28, 28)):
        raise asks
    assert caught.value is asks


def test_training_is_refused_with_the_same_explanation():
    with pytest.raises(UsageError) as caught:
        check_output(lenet(400), channels=1, size=28, outputs=10)
    assert "in 6: it takes 400 features, but 16x4x4 maps (from layer 4), flattened, are 256" in caught.value.message
    assert caught.value.mend == "Use in_features=256 here or images of 32x32."
