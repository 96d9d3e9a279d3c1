"""The designs in examples/designs beside the networks that they name: parameters, multiply-adds, outputs.

Weights go from one network to the other by a rule that knows neither's names: the n-th parameter or buffer that a
forward pass reads becomes the n-th that the other's reads, reshaped where a linear layer over channels is a 1x1
convolution here. Each size must agree, and none may be left over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from convsmith import design
from convsmith.networks import build_design, count_parameters
from convsmith.networks.counting.macs import macs_of
from convsmith.networks.recording.graph import Graph, record

DESIGNS = Path(__file__).parents[2] / "examples" / "designs"


def built(name: str, in_channels: int = 3, outputs: int = 1000) -> nn.Module:
    """The network of a design without values."""
    with torch.device("meta"):
        return build_design(design.read(DESIGNS / f"{name}.yaml"), in_channels, outputs)


def published(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return torchvision.models.get_model(name, **options)


def cost(model: nn.Module, graph: Graph) -> tuple[int, int]:
    """Parameters and multiply-adds."""
    macs = macs_of(graph)
    known = [count for count in macs.values() if count is not None]
    assert len(known) == len(macs)
    return count_parameters(model).total, sum(known)


def read_in_order(model: nn.Module, graph: Graph) -> list[Tensor]:
    """Parameters and buffers in the order in which the recorded forward pass first reads them."""
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    read = (graph.values[index] for operation in graph.operations for index in operation.inputs)
    names = dict.fromkeys(value.name for value in read if value.kind in ("parameter", "buffer"))
    return [held[name] for name in names]


def filled(model: nn.Module) -> None:
    """Draw values so that what goes through neither dies out nor grows, with nothing at its default."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.ndim > 1 and tensor[0].numel() > 1:
                bound = (6 / tensor[0].numel()) ** 0.5
                tensor.uniform_(-bound, bound)
            elif tensor.is_floating_point():
                low, high = (-0.2, 0.2) if "bias" in name or "mean" in name else (0.5, 1.5)
                tensor.uniform_(low, high)


def difference(ours: nn.Module, theirs: nn.Module, graphs: tuple[Graph, Graph], side: int) -> float:
    """Copy weights by the rule, and return the largest difference of outputs relative to the largest output."""
    ours, theirs = (model.to_empty(device="cpu").eval() for model in (ours, theirs))
    filled(theirs)
    targets, sources = (read_in_order(*pair) for pair in zip((ours, theirs), graphs, strict=True))
    with torch.inference_mode():
        for source, target in zip(sources, targets, strict=True):
            target.data.copy_(source.reshape(target.shape))
        image = torch.randn(2, 3, side, side)
        expected = theirs(image)
        assert (expected[0] - expected[1]).abs().max() > 0.01 * expected.abs().max()  # it depends on the image
        return ((ours(image) - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(
    ("name", "reference", "parameters", "macs"),
    [
        ("resnet50", "resnet50", 25_557_032, 4_089_184_256),
        pytest.param("densenet121", "densenet121", 7_978_856, 2_834_161_664, marks=pytest.mark.slow),
        ("mobilenet-v2", "mobilenet_v2", 3_504_872, 300_774_272),
        pytest.param("efficientnet-b0", "efficientnet_b0", 5_288_548, 385_814_752, marks=pytest.mark.slow),
        ("convnext-tiny", "convnext_tiny", 28_589_128, 4_455_531_264),
    ],
)
def test_a_design_is_the_network_that_it_names(name: str, reference: str, parameters: int, macs: int):
    ours, theirs = built(name), published(reference)
    graphs = record(ours, (3, 224, 224)), record(theirs, (3, 224, 224))
    assert cost(ours, graphs[0]) == cost(theirs, graphs[1]) == (parameters, macs)
    assert difference(ours, theirs, graphs, 64) < 1e-4


@pytest.mark.slow
def test_a_few_more_words_make_it_timms_se_resnext_with_a_deep_stem_and_averaging_shortcuts():
    options = {"ratio": 0.5, "groups": 32, "attention": "squeeze-excite", "shortcut": "pool"}
    widths = [(256, 1), (512, 2), (1024, 2), (2048, 2)]
    rows = [{"block": "bottleneck", "width": w, "depth": 2, "stride": s, "options": options} for w, s in widths]
    stem = {"kind": "deep", "width": 64, "stride": 2, "pool": "max"}
    with torch.device("meta"):
        ours = build_design(design.parse({"stem": stem, "stages": rows}), 3, 1000)
        theirs = timm.create_model("seresnext26d_32x4d")
    graphs = record(ours, (3, 224, 224)), record(theirs, (3, 224, 224))
    assert cost(ours, graphs[0]) == cost(theirs, graphs[1])
    assert difference(ours, theirs, graphs, 64) < 1e-4


def test_vgg16_has_the_parameters_and_macs_of_torchvisions():
    ours, theirs = built("vgg16"), published("vgg16_bn")
    assert (
        cost(ours, record(ours, (3, 224, 224)))
        == cost(theirs, record(theirs, (3, 224, 224)))
        == (138_365_992, 15_470_264_320)
    )


def test_vgg_a_sixteenth_as_wide_gives_the_outputs_of_torchvisions():
    """The whole one has 138 million weights, 103 of them in one layer; widths are all that differs here."""
    values = design.read(DESIGNS / "vgg16.yaml").model_dump()
    values["stem"]["width"] //= 16
    for stage in values["stages"]:
        stage["width"] = stage["width"] and stage["width"] // 16
    values["head"]["hidden"] = (64, 64)
    layout = [4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32, "M", 32, 32, 32, "M"]
    with torch.device("meta"):
        ours = build_design(design.parse(values), 3, 10)
        features = torchvision.models.vgg.make_layers(layout, batch_norm=True)  # type: ignore[arg-type]
        theirs = torchvision.models.VGG(features, init_weights=False)
        theirs.classifier[0], theirs.classifier[3] = nn.Linear(32 * 49, 64), nn.Linear(64, 64)
        theirs.classifier[6] = nn.Linear(64, 10)
    graphs = record(ours, (3, 224, 224)), record(theirs, (3, 224, 224))
    assert difference(ours, theirs, graphs, 224) < 1e-4


def googlenet_of_torchvision() -> design.ConvNet:
    """Torchvision's has 3x3 convolutions where the paper has 5x5."""
    values = design.read(DESIGNS / "googlenet.yaml").model_dump()
    for stage in values["stages"]:
        if stage["block"] == "inception":
            stage["options"]["wide"] = 3
    return design.parse(values)


@pytest.mark.slow
def test_googlenet_has_the_parameters_of_torchvisions_once_its_wide_branch_is_as_narrow():
    with torch.device("meta"):
        ours = build_design(googlenet_of_torchvision(), 3, 1000)
    theirs = published("googlenet", aux_logits=False, init_weights=False)
    assert count_parameters(ours).total == count_parameters(theirs).total == 6_624_904
    sizes = [tensor.numel() for tensor in read_in_order(ours, record(ours, (3, 64, 64)))]
    assert sizes == [tensor.numel() for tensor in read_in_order(theirs, record(theirs, (3, 64, 64)))]


def lenet() -> int:
    """5x5 convolutions 1 -> 6 and 6 -> 16 and linear layers 400 -> 120 -> 84 -> 10, all with bias."""
    return (25 + 1) * 6 + (25 * 6 + 1) * 16 + (400 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10


def wide_resnet() -> int:
    """Each of three groups of four: norms before, convolutions without bias, one 1x1 shortcut; a norm at the end."""
    total, channels = 3 * 16 * 9, 16
    for width in (160, 320, 640):
        total += 2 * channels + 9 * channels * width + 2 * width + 9 * width**2 + channels * width
        total += 3 * (4 * width + 18 * width**2)
        channels = width
    return total + 2 * 640 + (640 + 1) * 10


@pytest.mark.parametrize(
    ("name", "channels", "side", "worked_out", "stated"),
    [
        ("lenet", 1, 28, lenet, 61_706),
        ("wide-resnet-28-10", 3, 32, wide_resnet, 36_479_194),  # 36.5 M in the paper's table 4
        ("mlp", 1, 28, lambda: 785 * 256 + 257 * 256 + 257 * 10, 269_322),
    ],
)
def test_a_design_has_the_parameters_worked_out_by_hand(
    name: str, channels: int, side: int, worked_out: Callable[[], int], stated: int
):
    model = built(name, channels, 10)
    assert count_parameters(model).total == worked_out() == stated
    assert model(torch.zeros(2, channels, side, side, device="meta")).shape == (2, 10)


def test_every_example_is_a_design_that_is_written_and_read_again():
    files = sorted(DESIGNS.glob("*.yaml"))
    assert len(files) >= 10
    for file in files:
        network = design.read(file)
        assert design.read_text(design.write(network)) == network
        assert file.read_text().startswith("# ")


def test_the_page_beside_the_examples_names_every_kind_that_a_design_knows():
    page = (DESIGNS / "README.md").read_text()
    heads = [
        kind for head in get_args(get_args(design.Head)[0]) for kind in get_args(head.model_fields["kind"].annotation)
    ]
    stems = get_args(design.Stem.model_fields["kind"].annotation)
    shared = [name for name in design.ConvNet.model_fields if name not in ("stem", "stages", "head")]
    for word in (*design.BLOCKS, *heads, *stems, *get_args(design.Downsample)):
        assert f"`{word}`" in page, word
    assert [name for name in shared if name not in page] == []
    example = page.split("\n\n")[2].replace("\n    ", "\n")
    assert design.read_text(example.removeprefix("    ")).stride == 4
