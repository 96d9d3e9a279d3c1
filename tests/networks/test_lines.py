"""Networks written as a line: what PyTorch would build, and errors that name the word, its place and the mend."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convsmith.errors import UsageError
from convsmith.networks import count_parameters
from convsmith.networks.lines.reading import WORDS, line, looks_like_line, read_line

EVERY = (
    "pad 1 reflect | conv 3->8 k3x5 s2x1 p1 d1 g1 replicate nobias | bn | relu | dwconv k3 same | gn 4 | leaky-relu | "
    "deconv 8->6 k3 s2 p1 o1 | in | silu | maxpool 3 s2 p1 | avgpool 2 ceil | gelu | upsample 2 bilinear | hardswish | "
    "dropout2d 0.1 | gridmax 4 | tanh | gridavg 2 | sigmoid | identity | gap | gmp | flatten | bn | dropout 0.5 | "
    "linear 6->5 nobias | softmax | log-softmax"
)


def refused(text: str, shape: tuple[int | None, ...] = (3, 32, 32), outputs: int | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_line(text, shape, outputs=outputs)
    return caught.value


def test_a_line_builds_what_the_layers_of_pytorch_build():
    text = (
        "conv 3->16 k7 s2 p3 | bn | relu | maxpool 3 s2 p1 | conv 24 k3 same d2 g2 nobias | gap | flatten | linear 10"
    )
    made = read_line(text, (None, 64, 64)).network()
    same = nn.Sequential(
        nn.Conv2d(3, 16, 7, 2, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(16, 24, 3, padding=2, dilation=2, groups=2, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(24, 10),
    )  # fmt: skip
    same.load_state_dict(dict(zip(same.state_dict(), made.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(made.eval()(images), same.eval()(images))
    assert list(dict(made.named_children())) == [
        "conv1", "bn1", "relu1", "maxpool1", "conv2", "gap1", "flatten1", "linear1"
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 37, 29)])
def test_the_sizes_followed_while_reading_are_those_of_the_network(shape: tuple[int, int, int]):
    read = read_line(EVERY, shape)
    assert {layer.text.split()[0] for layer in read.layers} == set(WORDS)
    followed, images = shape, torch.randn(2, *shape)
    network = read.network().eval()
    for layer, module in zip(read.layers, network, strict=True):
        images = module(images)
        followed = layer.after(followed)
        assert followed == tuple(images.shape[1:]), layer.text


@pytest.mark.parametrize(
    ("text", "shape", "parameters"),
    [
        ("conv 10->20 k3", (10, None, None), 1_820),
        ("conv 3->32 k3", (3, None, None), 896),
        ("conv 32->64 k3 nobias", (32, None, None), 18_432),
        ("dwconv k3 nobias | conv 64 k1 nobias", (32, None, None), 2_336),
        ("dwconv k3 | conv 64 k1", (32, None, None), 2_432),
        ("conv 64->16 k1 | conv 64 k3", (64, None, None), 10_320),
        ("flatten | linear 784->100", (1, 28, 28), 78_500),
        ("flatten | linear 100 nobias", (1, 28, 28), 78_400),
        ("conv 1->10 k3 | bn | conv 20 k3 | bn | maxpool 2 | flatten | linear 2,880->10", (None, 28, 28), 30_790),
        ("conv 1->10 k3 | bn | conv 20 k3 | bn | gap | flatten | linear 10", (None, 28, 28), 2_190),
        ("conv 3->16 k3 p1 | maxpool 2 | conv 32 k3 p1 | maxpool 2 | flatten | linear 2048->128 | linear 10",
         (None, 32, 32), 268_650),
    ],
)  # fmt: skip
def test_the_figures_every_build_must_reproduce(text: str, shape: tuple[int | None, ...], parameters: int):
    assert count_parameters(read_line(text, shape).network()).total == parameters


def test_the_sum_behind_each_size_is_told_where_sizes_are_known():
    sums = read_line("conv 3->8 k7 s2 p3 | relu | maxpool 3 s2 | gap", (None, 224, 224)).sums()
    assert list(sums) == ["conv1", "maxpool1"]
    assert sums["conv1"].startswith("(224 + 2*3 - 1*(7-1) - 1)/2 + 1 = 112.5, rounded down to 112")
    assert read_line("conv 3->8 k7").sums() == {}


@pytest.mark.parametrize(
    ("text", "says", "mend"),
    [
        ("conv 64 | relu | conv 64 kk3", "Layer 3 of the line, `conv 64 kk3`: word 3, 'kk3', is not", "k3, s1"),
        ("cnov 64", "Layer 1 of the line, `cnov 64`: word 1, 'cnov', is no layer", "conv"),
        ("conv 64 | | relu", "Layer 2 of the line is empty", "Take out one `|`"),
        ("relu 3", "word 2, '3', is not understood", "takes no further word"),
        ("conv 64 s0", "word 3, 's0', is below 1", ""),
        ("conv k3", "does not say how many channels it leaves", "conv 64 k3"),
        ("conv 16 | conv 8->3", "takes 8 channels, but 16 come in", "`conv 16->3`"),
        ("conv 8 g3", "cannot part 3 channels in and 8 out into 3", "divides 1"),
        ("conv 8 k4 same", "cannot pad an even span", "odd kernel"),
        ("maxpool 2 p2", "pads by 2", "p1"),
        ("avgpool 2 d2", "cannot be dilated", "d"),
        ("deconv 8 k2 s1 o1", "adds 1 at the end", "o0"),
        ("flatten | conv 3", "what comes in is flat", "before `flatten`"),
        ("conv 8 | linear 10", "maps of 8x30x30 come in", "`flatten | linear 10`"),
        ("gn", "into how many groups", "gn 32"),
        ("conv 8 | gn 3", "into 3 groups", "divides 8"),
        ("dropout 1.5", "a share from 0 to below 1", "dropout 0.5"),
        ("flatten | linear", "how many values it gives", "linear 10"),
    ],
)
def test_what_cannot_be_understood_is_named_with_its_place_and_the_mend(text: str, says: str, mend: str):
    error = refused(text)
    assert says in error.message
    assert mend in error.mend


def test_a_window_that_does_not_fit_is_refused_with_the_sum_and_what_would_fit():
    error = refused("conv 8 k3 | maxpool 2 | conv 8 k7", (3, 8, 8))
    assert "(3 + 2*0 - 1*(7-1) - 1)/1 + 1 = -3: a window that spans 7 does not fit in 3" in error.message
    assert error.mend == "Use k3 or p2 or an image of 16x16."
    for mended, size in (("k3", 8), ("k7 p2", 8), ("k7", 16)):
        read_line(f"conv 8 k3 | maxpool 2 | conv 8 {mended}", (3, size, size))
    with pytest.raises(UsageError):
        read_line("conv 8 k3 | maxpool 2 | conv 8 k7", (3, 15, 15))


def test_features_that_do_not_fit_are_refused_with_the_number_and_the_image_that_would_fit():
    text = "conv 1->10 k3 | conv 20 k3 | maxpool 2 | flatten | linear 2,880->10"
    error = refused(text, (None, 32, 32))
    assert "takes 2,880 features, but 3,920 (20x14x14) come in" in error.message
    assert error.mend == "Write `linear 3920->10`, or give it an image of 29x29."
    read_line(text, (None, 29, 29))
    read_line(text.replace("2,880->10", "3920->10"), (None, 32, 32))


def test_what_only_an_image_decides_is_asked_for():
    assert "does not say how many channels come in" in refused("conv 8", (None, None, None)).message
    assert "without the size of the images" in refused("conv 3->8 | flatten | linear 10", (None, None, None)).message


def test_as_a_model_its_last_layer_gives_the_classes():
    network = line(1, 7, layers="conv 4 k3 | relu | flatten | linear", side=9)
    assert network(torch.zeros(2, 1, 9, 9)).shape == (2, 7)


def test_lines_are_told_from_names_and_files():
    assert looks_like_line("conv 3->64 k7")
    assert looks_like_line("relu | relu")
    assert not any(map(looks_like_line, ("resnet50", "conv", "mine.py:Net", "runs/conv net")))
