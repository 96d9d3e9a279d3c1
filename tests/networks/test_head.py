"""The head: found in every family, replaced, and what goes into it, with timm's own account as the oracle."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from convsmith.errors import UsageError
from convsmith.networks import build_named, find_head, head_inputs, replace_head, set_head

TIMM = {
    "resnet18": 64,
    "tf_efficientnet_lite0": 64,
    "mobilenetv3_small_100": 64,
    "convnext_atto": 64,
    "densenet121": 64,
    "regnetx_002": 64,
    "ghostnet_100": 64,
    "vit_tiny_patch16_224": 224,
    "dla46_c": 64,
    "dpn48b": 64,
    "mixer_s32_224": 224,
    "efficientvit_b0": 64,
}
OTHERS = ["torchvision/alexnet", "torchvision/mobilenet_v3_small", "torchvision/squeezenet1_1", "convnet-small"]


def images(channels: int, size: int) -> Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", TIMM)
def test_what_goes_into_the_head_is_what_timm_says_and_the_head_makes_the_output_of_it(name: str):
    size = TIMM[name]
    model = build_named(name, 3, 7).eval()
    head = find_head(model, (3, size, size))
    assert head.outputs == 7
    layer = model.get_submodule(head.path)
    assert layer is timm_classifier(model)
    with torch.no_grad(), head_inputs(model, head) as taken:
        batch = images(3, size)
        logits = model(batch)
        expected = model.forward_head(model.forward_features(batch), pre_logits=True)
    assert len(taken) == 1
    assert taken[0].dtype == torch.float32
    torch.testing.assert_close(taken[0], expected.flatten(1))
    torch.testing.assert_close(taken[0] @ layer.weight.flatten(1).T + layer.bias, logits, rtol=1e-4, atol=1e-5)


def timm_classifier(model: nn.Module) -> nn.Module:
    found = model.get_classifier()
    return found[-1] if isinstance(found, nn.Sequential) else found


@pytest.mark.parametrize("name", [*(name for name, size in TIMM.items() if size == 64), *OTHERS])
def test_a_replaced_head_gives_other_outputs_from_the_same_features(name: str):
    model = build_named(name, 3, 7).eval()
    old = find_head(model, (3, 64, 64))
    batch = images(3, 64)
    with torch.no_grad(), head_inputs(model, old) as before:
        model(batch)
    new = replace_head(model, old, 5)
    assert new == find_head(model, (3, 64, 64))
    assert (new.outputs, new.in_features) == (5, old.in_features)
    weight, bias = torch.rand(5, new.in_features), torch.rand(5)
    set_head(model, new, weight, bias)
    with torch.no_grad(), head_inputs(model, new) as after:
        logits = model(batch)
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(logits, before[0] @ weight.T + bias)


def test_a_new_head_is_drawn_from_the_seed_and_has_a_bias():
    def made(seed: int) -> nn.Linear:
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False))
        torch.manual_seed(seed)
        replace_head(model, find_head(model, (3, 2, 2)), 4)
        return model[1]

    assert torch.equal(made(1).weight, made(1).weight)
    assert not torch.equal(made(1).weight, made(2).weight)
    assert made(1).bias.shape == (4,)


def test_squeezenet_keeps_its_own_head_until_it_is_replaced():
    model = build_named("torchvision/squeezenet1_1", 3, 7).eval()
    head = find_head(model, (3, 64, 64))
    assert (head.path, head.in_features, head.kind) == ("classifier.1", 512, "maps")
    assert bool((model(images(3, 64)) >= 0).all())  # its ReLU is still there
    assert replace_head(model, head, 5).kind == "linear"
    assert bool((model(images(3, 64)) < 0).any())


class Activated(nn.Module):
    """Its linear layer's output is written over afterwards, so that storage alone would mislead."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.linear(x.flatten(1)))


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(12, 6), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return (self.one(x.flatten(1)) + self.two(x.flatten(1))) / 2


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Activated(), "the last one it ran is 'linear'"),
        (TwoHeads(), "the last one it ran is 'two'"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "there is no linear layer in it"),
    ],
)
def test_a_network_without_a_linear_head_is_refused_with_what_was_found(model: nn.Module, said: str):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -1, 1)
    with pytest.raises(UsageError) as caught:
        find_head(model, (3, 2, 2) if not isinstance(model, nn.Sequential) else (3, 8, 8))
    assert said in caught.value.message
    assert caught.value.mend


def test_looking_for_the_head_leaves_the_network_as_it_was():
    model = timm.create_model("resnet18", num_classes=3).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    find_head(model, (3, 64, 64))
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_hook_on_the_head_goes_even_when_a_pass_fails():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    head = find_head(model, (3, 2, 2))
    with pytest.raises(RuntimeError), head_inputs(model, head):
        model(torch.zeros(1, 1, 2, 2))
    assert not model[1]._forward_pre_hooks
