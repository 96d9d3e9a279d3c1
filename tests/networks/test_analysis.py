"""Costs worked out by hand, tables that add up, and a model that is left as it was."""

import json
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convsmith.design import doubling
from convsmith.networks import activation_bytes, build_design, count_macs, count_parameters
from convsmith.networks.counting.analysis import FUNCTIONAL, analyse, undisturbed
from convsmith.networks.recording.imagined import ValuesNeeded


def test_shared_and_frozen_parameters_are_counted_as_such():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2), nn.BatchNorm1d(2))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    counts = count_parameters(model)
    assert (counts.trainable, counts.total) == (9 + 3 + 3 + 4, 9 + 3 + 3 + 4 + 8)


@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        (nn.Conv2d(3, 64, 7, 2, 3), (3, 224, 224), 9_408 * 112 * 112),
        (
            nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 32, 3, 1, 1), nn.Conv2d(32, 64, 3, 1, 1)),
            (3, 224, 224),
            28_512 * 112 * 112,
        ),
        (nn.Conv2d(32, 32, 3, padding=1, groups=32), (32, 10, 10), 288 * 100),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 100)), (1, 28, 28), 78_400),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)), (3, 8, 8), 0),
    ],
)
def test_multiply_adds_are_those_worked_out_by_hand(model, shape, macs):
    assert count_macs(model, shape) == macs


def test_multiply_adds_of_a_residual_net_by_hand():
    stem, first = 9 * 8 * 64, 2 * 9 * 8 * 8 * 64
    second = (9 * 8 * 16 + 9 * 16 * 16 + 8 * 16) * 16
    assert (
        count_macs(build_design(doubling(width=8, depth=1, stages=2), 1, 10), (1, 8, 8)) == stem + first + second + 160
    )


def test_activations_kept_for_the_backward_pass_by_hand():
    # A convolution keeps its input, a ReLU its result, which is also the input of the next convolution: counted once.
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 3, 1, bias=False))
    per_image = (2 + 4) * 5 * 5 * 4
    assert activation_bytes(model, (2, 5, 5), batch=10) == 10 * per_image


def test_activations_seen_through_two_views_count_once():
    # The ReLU keeps its result, and the linear layer the same numbers flattened.
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3))
    assert activation_bytes(model, (2, 5, 5), batch=10) == 10 * (2 + 4) * 5 * 5 * 4


class Restless(nn.Module):
    """Changes everything that a forward pass can change."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        with torch.no_grad():
            self.weight += 1
            self.calls += 1
            self.last = x.mean() + 1
        noise = torch.rand(1) + random.random() + np.random.rand()
        return self.norm(x + 1) * self.weight * noise


def test_measuring_leaves_no_trace():
    model = Restless()
    model.norm.eval()
    model.weight.grad = torch.full((1,), 5.0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    count_macs(model, (1, 4, 4))
    activation_bytes(model, (1, 4, 4), batch=8)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert (model.training, model.norm.training) == (True, False)
    assert model.weight.grad.item() == 5
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1], states[2]) == (random.getstate(), np.random.get_state()[1].tolist())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_all_is_put_back_after_an_error_too():
    model = nn.Dropout()
    state = torch.get_rng_state()
    with pytest.raises(TypeError), undisturbed(model, training=False):
        model(torch.rand(1) + None)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())


class Residual(nn.Module):
    """A block with work of its own: a scale, a functional activation and a sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        return x + F.relu(self.norm(self.conv(x))) * self.scale


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), Residual(8), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 5))


def test_an_analysis_says_of_each_layer_what_is_true_of_it():
    analysis = analyse(small(), (3, 16, 16), name="small")
    rows = {layer.path: layer for layer in analysis.layers}
    assert [(layer.path, layer.type) for layer in analysis.layers] == [
        ("0", "Conv2d"), ("1.conv", "Conv2d"), ("1.norm", "BatchNorm2d"), ("1", FUNCTIONAL), ("2", "MaxPool2d"),
        ("3", "Flatten"), ("4", "Linear"),
    ]  # fmt: skip
    assert [layer.output for layer in analysis.layers] == [*4 * [(1, 8, 8, 8)], (1, 8, 4, 4), (1, 128), (1, 5)]
    assert [layer.parameters for layer in analysis.layers] == [224, 584, 16, 8, 0, 0, 645]
    assert [layer.macs for layer in analysis.layers] == [216 * 64, 576 * 64, 0, 0, 0, 0, 640]
    # The image; the first map; what the norm reads and its statistics; the activation; what the pool reads, places of
    # its maxima in 64 bits; nothing; what the linear layer reads.
    assert [layer.activation_bytes for layer in analysis.layers] == [
        4 * 768, 4 * 512, 4 * 512 + 2 * 4 * 8, 4 * 512, 4 * 512 + 8 * 128, 0, 4 * 128,
    ]  # fmt: skip
    assert [layer.discards for layer in analysis.layers] == [
        pytest.approx(1 - 512 / 768),
        *3 * [None],
        0.75,
        None,
        None,
    ]
    assert [rows[path].field.height.size for path in ("0", "1.conv", "1", "2")] == [3, 7, 7, 9]
    assert rows["4"].field.whole
    assert analysis.macs == 216 * 64 + 576 * 64 + 640
    assert analysis.unused == ("1.unused.weight", "1.unused.bias")
    assert analysis.unknown == ()


def test_a_gate_that_looks_at_all_of_the_image_discards_nothing():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.conv = nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return x * self.conv(self.pool(x)).sigmoid() * x.mean((2, 3), keepdim=True).sigmoid()

    net = nn.Sequential(nn.Conv2d(4, 4, 1, 2), Gate(), nn.AdaptiveAvgPool2d(1))
    layers = analyse(net, (4, 8, 8)).layers
    assert {layer.path: layer.discards for layer in layers} == {
        "0": 0.75, "1.pool": None, "1.conv": None, "1": None, "2": 0.9375,
    }  # fmt: skip


def test_layers_add_up_to_the_whole():
    model = small()
    model[4].requires_grad_(False)
    analysis = analyse(model, (3, 16, 16), batch=3)
    assert sum(layer.parameters for layer in analysis.layers) + 12 == analysis.parameters.total
    assert analysis.parameters.frozen == 645
    assert analysis.parameters.trainable + analysis.parameters.frozen == analysis.parameters.total
    assert (
        sum(layer.macs or 0 for layer in analysis.layers) == analysis.macs == 3 * (count_macs(model, (3, 16, 16)) or 0)
    )
    assert sum(layer.activation_bytes or 0 for layer in analysis.layers) == analysis.activation_bytes
    assert analysis.activation_bytes == activation_bytes(model, (3, 16, 16), 3)


def test_a_shared_layer_has_a_row_for_each_call_and_its_parameters_once():
    shared = nn.Conv2d(4, 4, 1)
    analysis = analyse(nn.Sequential(shared, nn.ReLU(), shared), (4, 5, 5))
    assert [(layer.path, layer.parameters, layer.macs) for layer in analysis.layers] == [
        ("0", 20, 400), ("1", 0, 0), ("0", 0, 400),
    ]  # fmt: skip


def test_batch_norm_over_one_number_does_not_keep_an_image_from_being_analysed():
    model = nn.Sequential(nn.Conv2d(3, 8, 4), nn.BatchNorm2d(8), nn.ReLU())
    analysis = analyse(model, (3, 4, 4))
    assert [layer.activation_bytes for layer in analysis.layers] == [4 * 48, 4 * 8 + 2 * 4 * 8, 4 * 8]


def test_what_cannot_be_trained_is_said_and_the_rest_is_known():
    class Inference(nn.Module):
        def forward(self, x):
            if self.training:
                raise RuntimeError("for inference only")
            return F.max_pool2d(x, 2)

    analysis = analyse(Inference(), (3, 4, 4))
    assert analysis.activation_bytes is analysis.layers[0].activation_bytes is None
    assert analysis.layers[0].output == (1, 3, 2, 2)
    assert len(analysis.unknown) == 1
    assert "for inference only" in analysis.unknown[0]


def test_a_network_that_needs_real_images_is_refused_but_its_memory_is_measured():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 1, bias=False)

        def forward(self, x):
            return F.relu(self.conv(x)) if x.abs().sum() >= 0 else x

    class Leaves(Asks):
        def forward(self, x):
            return F.relu(self.conv(torch.from_numpy(x.numpy())))

    with pytest.raises(ValuesNeeded):
        analyse(Asks(), (2, 5, 5))
    with pytest.raises(ValuesNeeded, match=r"Leaves hands images to code that needs their values: .*numpy"):
        analyse(Leaves(), (2, 5, 5))
    assert activation_bytes(Asks(), (2, 5, 5), batch=10) == 10 * (2 + 4) * 25 * 4
    assert activation_bytes(Leaves(), (2, 5, 5), batch=10) == 10 * (2 + 4) * 25 * 4


def test_an_analysis_as_json_holds_its_figures():
    analysis = analyse(small(), (3, 16, 16), name="small", batch=2)
    record = json.loads(json.dumps(analysis.to_json()))
    assert (record["name"], record["input"], record["batch"]) == ("small", [3, 16, 16], 2)
    assert record["parameters"] == {"trainable": 1489, "total": 1489, "frozen": 0}
    assert (record["macs"], record["activation_bytes"]) == (analysis.macs, analysis.activation_bytes)
    assert record["inference_bytes"] == analysis.inference_bytes
    assert record["layers"][0]["field"]["height"] == {"size": 3, "stride": 2, "offset": 0.0}
    assert len(record["layers"]) == len(analysis.layers)


@pytest.mark.slow  # a network of seven billion parameters
def test_the_largest_network_of_timm_is_analysed_within_a_minute():
    import time

    import timm

    with torch.device("meta"):
        model = timm.create_model("vit_7b_patch16_dinov3")
    started = time.process_time()
    analysis = analyse(model, (3, 256, 256))
    assert time.process_time() - started < 60
    assert analysis.parameters.total == sum(parameter.numel() for parameter in model.parameters()) > 6e9
    assert analysis.macs is not None
    # Each token of 16 x 16 meets all weights but those of embeddings and norms, and the others of its head.
    tokens = 16 * 16 + 5
    assert analysis.macs > tokens * 6.7e9
