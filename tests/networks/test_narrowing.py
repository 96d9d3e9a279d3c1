"""Networks with fewer channels: those that nothing comes of can go without changing what is answered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from convsmith.errors import UsageError
from convsmith.networks.counting.analysis import count_parameters
from convsmith.networks.published.catalogue import build_empty
from convsmith.networks.recording.graph import record
from convsmith.networks.rewriting.coupling import couple
from convsmith.networks.rewriting.narrowing import narrow

SHAPE = (3, 16, 16)


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Block(nn.Module):
    """An inverted bottleneck with a gate, added to what comes."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.widen, self.norm = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.around, self.gate = nn.Conv2d(inner, inner, 3, padding=1, groups=inner), Gate(inner)
        self.back, self.scale = nn.Conv2d(inner, channels, 1), nn.Parameter(torch.rand(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.back(self.gate(self.around(self.norm(self.widen(x)).relu())))


class Dense(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, growth, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.norm(x))], 1)


class LastDimension(nn.Module):
    """Linear layers over channels that lie last, as in ConvNeXt."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(channels, 16), nn.Linear(16, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x.permute(0, 2, 3, 1)).relu()).permute(0, 3, 1, 2)


class Shuffle(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def chained(*layers: nn.Module, flat: int = 0, channels: int = 8) -> nn.Module:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3, 2, 1)
    end = [nn.Flatten(), nn.Linear(flat or channels, 12), nn.ReLU(), nn.Linear(12, 5)]
    return nn.Sequential(first, nn.ReLU(), *layers, *([] if flat else [nn.AdaptiveAvgPool2d(1)]), *end)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a chain": lambda: chained(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(2)),
    "sums, gates and depthwise convolutions": lambda: chained(Block(8, 16), Block(8, 24), nn.Conv2d(8, 8, 3)),
    "joined branches": lambda: chained(Dense(8, 4), Dense(12, 4), nn.Conv2d(16, 8, 1), Dense(8, 8), channels=16),
    "flattened maps": lambda: chained(nn.Conv2d(8, 4, 3), nn.AvgPool2d(2), flat=36),
    "channels in the last dimension": lambda: chained(LastDimension(8), LastDimension(8)),
}


def deadened(model: nn.Module) -> tuple[nn.Module, int]:
    """Let half of the channels of each group that may change be zero wherever they are made; how many groups."""
    found = couple(record(model, SHAPE))
    gone = {group: torch.randperm(size)[: size // 2] for group, size in found.free().items()}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for slot in found.slots:
            group = found.root(slot.parts[0][0])
            if slot.axis == 0 and len(slot.parts) == 1 and group in gone and "running" not in slot.name:
                tensors[slot.name][gone[group]] = 0
    return model, len(gone)


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_of_zeros_go_and_the_answers_stay(name: str):
    model, groups = deadened(NETWORKS[name]().eval())
    assert groups >= 2
    changed = narrow(model, SHAPE, 0.5)
    image = torch.rand(3, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(changed(image), model(image))
    assert count_parameters(changed).total < 0.62 * count_parameters(model).total


def test_layers_say_how_many_channels_they_have():
    changed = narrow(chained(Block(8, 16)), SHAPE, 0.5)
    assert "Conv2d(3, 4," in repr(changed)
    assert "Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=8)" in repr(changed)
    assert "BatchNorm2d(8," in repr(changed)
    assert "Linear(in_features=4, out_features=6" in repr(changed)
    assert "Linear(in_features=6, out_features=5" in repr(changed)


def test_what_is_not_known_keeps_its_channels_and_the_rest_has_fewer():
    model = chained(nn.Conv2d(8, 8, 3), Shuffle(), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 8, 3, groups=2), channels=8)
    widths = [layer.out_channels for layer in narrow(model, SHAPE, 0.5).modules() if isinstance(layer, nn.Conv2d)]
    assert widths == [4, 8, 16, 8]


def test_the_largest_weights_stay_in_their_order():
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([3.0, -1.0, 2.0, -4.0]).view(4, 1, 1, 1).expand(4, 3, 1, 1))
    kept = narrow(model, SHAPE, 0.5).get_parameter("0.weight")
    assert kept[:, 0, 0, 0].tolist() == [3.0, -4.0]


def test_the_network_is_left_as_it_was_and_needs_no_values():
    model = build_empty("torchvision/resnet18", 3, 1000)
    before = count_parameters(model).total
    changed = narrow(model, (3, 64, 64), 0.5)
    assert count_parameters(model).total == before
    # All of ResNet-18 is one width times four kinds: half of it has about a quarter of the parameters.
    half = sum(p.numel() for p in _resnet18(32).parameters())
    assert count_parameters(changed).total == half
    assert all(parameter.is_meta for parameter in changed.parameters())


def _resnet18(width: int) -> nn.Module:
    """ResNet-18 of another width, made by torchvision's own code."""
    from torchvision.models.resnet import BasicBlock, ResNet

    class Narrow(ResNet):
        def _make_layer(self, block: type[BasicBlock], planes: int, blocks: int, stride: int = 1, dilate: bool = False):
            if self.conv1.out_channels != width:
                self.inplanes = width
                self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
                self.bn1 = nn.BatchNorm2d(width)
            return super()._make_layer(block, planes * width // 64, blocks, stride, dilate)

    with torch.device("meta"):
        model = Narrow(BasicBlock, [2, 2, 2, 2])
        model.fc = nn.Linear(8 * width, 1000)
    return model


@pytest.mark.parametrize(
    ("model", "factor", "said"),
    [
        (chained(), 1.5, "factor is 1.5"),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), 0.5, "no channels that could be fewer"),
    ],
)
def test_what_cannot_have_fewer_is_refused(model: nn.Module, factor: float, said: str):
    with pytest.raises(UsageError, match=said):
        narrow(model, SHAPE, factor)


def test_code_that_needs_its_own_number_is_refused():
    class Counts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.ones(8, 1, 1)

    class Needs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.conv(x)
            assert maps.shape[1] == 8
            return self.linear(maps.mean((2, 3)))

    with pytest.raises(UsageError, match="its own code needs as many"):
        narrow(Needs(), SHAPE, 0.5)
    held = nn.Sequential(nn.Conv2d(3, 8, 1), Counts(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UsageError, match="no channels that could be fewer"):
        narrow(held, SHAPE, 0.5)
