"""Where stages end, against what timm and torchvision call their features, and against hooks put there by hand."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from timm.models.densenet import DenseNet
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.feature_extraction import create_feature_extractor

from convsmith.evidence import StageEnd, averages, stage_ends
from convsmith.networks import build_named, find_head


def random_images(side: int) -> Tensor:
    return torch.randn((3, 3, side, side), generator=torch.Generator().manual_seed(1))


def ends_of(model: nn.Module, side: int) -> tuple[StageEnd, ...]:
    return stage_ends(model, find_head(model, (3, side, side)), (3, side, side))


def ours(model: nn.Module, ends: tuple[StageEnd, ...], images: Tensor) -> list[Tensor]:
    with averages(model, ends[:-1]) as means, torch.no_grad():
        model.eval()(images)
    assert [tensor.shape[1] for tensor in means] == [end.features for end in ends[:-1]]
    return means


def close(found: list[Tensor], expected: list[Tensor]) -> bool:
    return len(found) == len(expected) and all(
        one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5)
        for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "side", "last"),
    [
        ("test_resnet", 64, "stride-32"), ("test_efficientnet", 64, "stride-32"), ("test_convnext", 64, "stride-32"),
        ("regnetx_002", 64, "stride-32"), ("mobilenetv3_small_050", 64, "head"),
    ],
)  # fmt: skip
def test_stages_end_where_timm_takes_features_of_pyramids(name: str, side: int, last: str):
    model, images = timm.create_model(name).eval(), random_images(side)
    ends = ends_of(model, side)
    with torch.no_grad():
        maps = model.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
    theirs = [each.mean((2, 3)) for each in maps]
    assert close(ours(model, ends, images), theirs if last == "head" else theirs[:-1])
    assert [end.stride for end in ends[: len(theirs)]] == [side // each.shape[2] for each in maps]
    assert ends[-1].name == last


def test_tokens_of_a_vision_transformer_are_averaged_between_blocks():
    model = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=24, num_heads=2, depth=8)
    images, ends = random_images(16), ends_of(model, 16)
    with torch.no_grad():
        tokens = model.eval().forward_intermediates(  # type: ignore[operator]
            images, indices=[1, 3, 5], return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
        )
    assert close(ours(model, ends, images), [torch.cat((prefix, rest), 1).mean(1) for rest, prefix in tokens])
    assert [end.name for end in ends] == ["part-1", "part-2", "part-3", "part-4"]


def test_maps_with_channels_last_are_averaged_over_rows_and_columns_even_where_all_three_are_equal():
    model = SwinTransformer(
        img_size=64, window_size=2, embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), num_classes=5
    )
    images, ends = random_images(64), ends_of(model, 64)
    with torch.no_grad():
        maps = model.eval().forward_intermediates(images, intermediates_only=True, output_fmt="NCHW")  # type: ignore
    assert maps[0].shape[1:] == (16, 16, 16)
    assert close(ours(model, ends, images), [each.mean((2, 3)) for each in maps[:-1]])


def test_stages_of_torchvision_end_at_the_nodes_that_its_own_extractor_names():
    config = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, 24, 1), CNBlockConfig(24, 32, 1), CNBlockConfig(32, None, 1)]
    for model, side, nodes in (
        (torchvision.models.mobilenet_v2(width_mult=0.25), 64, ["1", "3", "6", "13"]),
        (ConvNeXt(config), 64, ["1", "3", "5"]),
    ):
        images, ends = random_images(side), ends_of(model, side)
        extractor = create_feature_extractor(model.eval(), [f"features.{node}" for node in nodes])
        with torch.no_grad():
            theirs = [maps.mean((2, 3)) for maps in extractor(images).values()]
        assert close(ours(model, ends, images), theirs)


def test_stages_of_a_densenet_end_with_its_transitions():
    model = DenseNet(growth_rate=4, block_config=(2, 2, 2, 2), num_classes=5).eval()
    images, ends = random_images(64), ends_of(model, 64)
    with torch.no_grad():
        theirs = [model.features[:layers](images) for layers in (2, 5, 7, 9)]
    # averages over windows of two by two have the same average
    assert close(ours(model, ends, images), [maps.mean((2, 3)) for maps in theirs])


class Chained(nn.Module):
    """A stem, a chain of layers of two stages, and layers with weights after pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.body = nn.Sequential(
            nn.Conv2d(4, 6, 3, 1, 1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU()
        )
        self.between, self.head = nn.Linear(8, 7), nn.Linear(7, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.between(self.body(self.stem(images)).mean((2, 3))))


def test_a_chain_is_parted_before_its_pooling_and_layers_after_the_last_maps_are_an_end_of_their_own():
    model = Chained().eval()
    images, ends = random_images(16), ends_of(model, 16)
    with torch.no_grad():
        first = model.body[:2](model.stem(images))
        second = model.body[2:](first.clone())
        assert close(ours(model, ends, images), [first.mean((2, 3)), second.mean((2, 3))])
    assert [(end.name, end.stride, end.features) for end in ends] == [
        ("stem", 2, 6), ("stride-4", 4, 8), ("head", 4, 7),
    ]  # fmt: skip


class Shared(nn.Module):
    """One activation after both convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.activation, self.head = nn.ReLU(), nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.activation(self.second(self.activation(self.first(images)))).mean((2, 3)))


def test_a_module_that_runs_at_two_stages_ends_neither():
    model = Shared().eval()
    images, ends = random_images(16), ends_of(model, 16)
    assert [(end.name, end.path) for end in ends] == [("stem", "first"), ("stride-4", "head")]
    with torch.no_grad():
        assert close(ours(model, ends, images), [model.first(images).mean((2, 3))])


def test_a_network_of_a_design_ends_its_first_part_with_the_blocks_of_that_resolution():
    ends = ends_of(build_named("convnet-tiny", 3, 5), 8)
    assert [(end.path, end.places) for end in ends[:-1]] == [("stages.0", (2, 3))]


def test_a_network_that_is_one_linear_layer_has_one_end():
    ends = ends_of(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), 4)
    assert [(end.name, end.features) for end in ends] == [("head", 48)]


def test_no_hook_and_no_mode_stays_behind():
    model = timm.create_model("test_resnet").train()
    model.layer1.eval()  # type: ignore[union-attr]
    modes = [module.training for module in model.modules()]
    ends = ends_of(model, 40)
    assert modes == [module.training for module in model.modules()]
    with pytest.raises(RuntimeError), averages(model, ends[:-1]):
        model(torch.zeros(1, 2, 40, 40))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
