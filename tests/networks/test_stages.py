"""Stages: each parameter in exactly one, at the strides that the architectures are known for."""

from __future__ import annotations

import pytest
import torch

from convsmith.networks import build_named, find_head, stages

NAMES = {
    "resnet18": 64,
    "tf_efficientnet_lite0": 96,
    "mobilenetv3_small_100": 64,
    "convnext_atto": 64,
    "densenet121": 64,
    "regnetx_002": 64,
    "ghostnet_100": 64,
    "vit_tiny_patch16_224": 224,
    "deit_tiny_distilled_patch16_224": 224,
    "dla46_c": 32,
    "torchvision/squeezenet1_1": 64,
    "torchvision/swin_t": 64,
    "convnet-small": 28,
    "convnet-tiny": 8,
}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_exactly_one_stage_and_strides_grow(name: str):
    model = build_named(name, 3, 5)
    found = stages(model, (3, NAMES[name], NAMES[name]))
    held = [parameter for stage in found for parameter in stage.parameters]
    assert sorted(held) == sorted(key for key, _ in model.named_parameters())
    owners = [path for stage in found for path in stage.modules]
    assert len(owners) == len(set(owners))
    assert {path for path, module in model.named_modules() if list(module.buffers(recurse=False))} <= set(owners)
    assert [stage.stride for stage in found] == sorted(stage.stride for stage in found)
    assert found[-1].name == "head"
    assert len({stage.name for stage in found}) == len(found) >= 3
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_resnet_falls_into_its_four_layers():
    model = build_named("resnet18", 3, 5)
    found = {stage.name: {path.split(".")[0] for path in stage.modules} for stage in stages(model, (3, 64, 64))}
    assert found == {
        "stem": {"conv1", "bn1"},
        "stride-4": {"layer1"},
        "stride-8": {"layer2"},
        "stride-16": {"layer3"},
        "stride-32": {"layer4"},
        "head": {"fc"},
    }


def test_a_vision_transformer_is_cut_into_four_parts_of_three_blocks():
    found = stages(build_named("vit_tiny_patch16_224", 3, 5), (3, 224, 224))
    assert [stage.name for stage in found] == ["part-1", "part-2", "part-3", "part-4", "head"]
    for stage, expected in zip(found, ({0, 1, 2}, {3, 4, 5}, {6, 7, 8}, {9, 10, 11}), strict=False):
        assert {int(path.split(".")[1]) for path in stage.modules if path.startswith("blocks.")} == expected
    assert "pos_embed" in found[0].parameters
    assert found[-1].parameters == ("head.weight", "head.bias")


def test_small_images_give_the_same_stages_as_large_ones():
    model = build_named("resnet18", 3, 5)
    assert stages(model, (3, 32, 32)) == stages(model, (3, 224, 224))


def test_the_layers_after_pooling_belong_to_the_head_with_the_last_one():
    model = build_named("mobilenetv3_small_100", 3, 5)
    *_, head = stages(model, (3, 64, 64))
    assert head.modules == ("conv_head", "classifier")
    assert find_head(model, (3, 64, 64)).path == "classifier"


def test_a_shared_parameter_is_held_once():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 3, 3, stride=2, padding=1), torch.nn.Conv2d(3, 3, 3, stride=2, padding=1),
        torch.nn.Conv2d(3, 3, 3, stride=2, padding=1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(3, 2),
    )  # fmt: skip
    model[1].weight = model[0].weight
    held = [parameter for stage in stages(model, (3, 64, 64)) for parameter in stage.parameters]
    assert sorted(held) == sorted(key for key, _ in model.named_parameters())
