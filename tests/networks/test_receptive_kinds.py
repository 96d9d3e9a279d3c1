"""What receptive fields say beside numbers: whole, gates, statistics, unknown, stages, and where a position lies."""

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from gradient_oracle import fields_of
from torch import nn

from convsmith.networks.receptive import Axis, last_map, receptive_fields, stage_maps
from convsmith.networks.recording.graph import record


class Part(nn.Module):
    """A function as a module, with modules of its own."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, images):
        return self.function(self, images)


def conv(channels=(2, 2), kernel=3, **options):
    return nn.Conv2d(*channels, kernel, padding=kernel // 2, **options)


def gated(function):
    return nn.Sequential(conv(), Part(function, squeeze=nn.Conv2d(2, 2, 1), excite=nn.Linear(2, 2)), conv())


def field_of(model, *shape):
    _, fields, output = fields_of(model, *shape)
    return fields.of(output), fields


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: x * self.squeeze(F.adaptive_avg_pool2d(x, 1)).sigmoid(),
        lambda self, x: x * self.excite(x.mean((2, 3)))[:, :, None, None].expand_as(x),
        lambda self, x: x.mul(self.excite(F.avg_pool2d(x, x.shape[2:]).flatten(1)).view(1, 2, 1, 1)),
        lambda self, x: x * (1 + torch.norm(x, dim=(2, 3), keepdim=True)),
        lambda self, x: x / x.amax((2, 3), keepdim=True),
        lambda self, x: F.conv2d(x, self.excite(x.mean((2, 3))).view(2, 1, 1, 1), groups=2),
    ],
    ids=["squeeze-excite", "expanded", "pooled and flattened", "response", "divided", "weights from the image"],
)
def test_a_global_branch_that_multiplies_a_local_map_is_a_gate_and_leaves_the_field_local(function):
    field, fields = field_of(gated(function), 2, 12, 12)
    assert (field.height, field.whole) == (Axis(5, 1, 0), False)
    assert fields.gates == ("1",)


def test_a_global_branch_that_is_added_makes_the_field_whole():
    field, fields = field_of(gated(lambda self, x: x + self.squeeze(x.mean((2, 3), keepdim=True))), 2, 12, 10)
    assert field.whole
    assert (field.height, field.width) == (Axis(12, 0, 5.5), Axis(10, 0, 4.5))
    assert fields.gates == ()


def test_a_gate_between_neighbours_is_part_of_the_field():
    field, fields = field_of(gated(lambda self, x: x * self.squeeze(F.avg_pool2d(x, 3, 1, 1)).sigmoid()), 2, 12, 12)
    assert field.height == Axis(7, 1, 0)
    assert fields.gates == ()


class Attention(nn.Module):
    """Self-attention over all positions, by its parts or by torch's own function."""

    def __init__(self, *, fused):
        super().__init__()
        self.fused, self.qkv = fused, nn.Linear(4, 12)

    def forward(self, images):
        n, c, h, w = images.shape
        tokens = images.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).reshape(n, h * w, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        by_parts = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        mixed = F.scaled_dot_product_attention(q, k, v) if self.fused else by_parts
        return mixed.transpose(1, 2).reshape(n, h, w, c).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "last",
    [
        Attention(fused=True),
        Attention(fused=False),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveMaxPool2d(1),
        nn.AvgPool2d(6),
        nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 5)),
        Part(lambda self, x: x.softmax(2).softmax(3)),
        Part(lambda self, x: self.mix(x.flatten(2)).view_as(x), mix=nn.Linear(36, 36)),
        Part(lambda self, x: F.interpolate(x.mean((2, 3), keepdim=True), size=6)),
    ],
    ids=["fused", "attention", "pool", "maximum", "window", "flattened", "softmax", "mixer", "spread out"],
)
def test_behind_what_mixes_all_positions_the_field_is_the_whole_image(last):
    field, _ = field_of(nn.Sequential(conv((1, 4), stride=2), last), 1, 12, 12)
    assert field.whole
    assert field.height == field.width == Axis(12, 0, 5.5)


@pytest.mark.parametrize(
    "last",
    [
        nn.MaxPool2d(6),
        nn.Conv2d(4, 4, 6),
        Part(lambda self, x: x[:, :, 3, 3]),
        Part(lambda self, x: x[:, :, :2].mean((2, 3))),
        Part(lambda self, x: x.mean(3)),
    ],
    ids=["maximum", "kernel", "one position", "part of it", "one side"],
)
def test_what_does_not_mix_all_positions_of_a_map_is_not_whole_by_construction(last):
    assert not field_of(nn.Sequential(conv((1, 4), stride=2), last), 1, 12, 12)[0].whole


@pytest.mark.parametrize(
    ("norm", "listed"),
    [
        (nn.BatchNorm2d(4), False),
        (nn.GroupNorm(2, 4), True),
        (nn.InstanceNorm2d(4), True),
        (nn.LayerNorm([4, 6, 6]), True),
        (Part(lambda self, x: self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.LayerNorm(4)), False),
        (Part(lambda self, x: self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.RMSNorm(4)), False),
        (nn.BatchNorm2d(4, track_running_stats=False), True),
    ],
    ids=["batch", "group", "instance", "all", "channels", "root mean square", "batch, of its own statistics"],
)
def test_norms_leave_the_field_alone_and_those_that_look_at_all_positions_are_listed(norm, listed):
    field, fields = field_of(nn.Sequential(conv((1, 4), stride=2), norm, conv((4, 4))), 1, 12, 12)
    assert field.height == Axis(7, 2, 0)
    assert (fields.statistics == ("1",)) is listed


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (Part(lambda self, x: x.cumsum(3)), "cumsum in 1: positions one after the other"),
        (Part(lambda self, x: x[:, :, torch.tensor([0, 3, 1])]), "index in 1: positions picked by number"),
        (Part(lambda self, x: F.fold(F.unfold(x, 2), (12, 12), 2)), "col2im in 1: this operation is not followed"),
        (
            Part(lambda self, x: F.grid_sample(x, x.new_zeros(1, 5, 5, 2), align_corners=False)),
            "grid_sampler_2d in 1: this operation is not followed",
        ),
        (Part(lambda self, x: torch.fft.rfft2(x).real), "_fft_r2c in 1: this operation is not followed"),
        (Part(lambda self, x: x.as_strided((1, 2, 5, 5), (288, 144, 1, 12))), "memory read in an order of its own"),
    ],
)
def test_what_is_not_known_is_said_with_its_reason_and_spreads(part, says):
    model = nn.Sequential(conv((2, 2)), part, nn.ReLU())
    graph, fields, output = fields_of(model, 2, 12, 12)
    assert fields.of(output) is fields.at(output) is fields.reach(output) is None
    assert says in fields.reason(output)
    first = next(call for call in graph.calls if call.path == "0").outputs[0]
    assert fields.of(first).height.size == 3
    assert last_map(graph, fields) == output  # and not the last one that is known


def test_what_is_done_with_values_that_all_see_the_same_needs_no_rule():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), Part(lambda self, x: torch.fft.rfft(x.flatten()).real))
    assert field_of(model, 4, 8, 8)[0].whole


def test_what_does_not_come_from_the_image_has_no_field():
    position = Part(lambda self, x: x + self.place.weight.view(1, 1, 8, 8), place=nn.Linear(8, 8))
    graph, fields, output = fields_of(nn.Sequential(position, Part(lambda self, x: torch.zeros_like(x))), 1, 8, 8)
    parameter = next(value.index for value in graph.values if value.kind == "parameter")
    for value in (parameter, output):
        assert fields.of(value) is None
        assert fields.reason(value) == "it does not depend on the image"
    assert fields.of(graph.operations[-2].outputs[0]).height == Axis(1, 1, 0)


def test_memory_written_through_a_view_is_followed_where_nothing_else_is_read():
    def halves(self, x):
        x = self.conv(x)
        left, right = x.chunk(2, 1)
        left.relu_()
        return torch.cat([right, x], 1)

    assert field_of(Part(halves, conv=conv()), 2, 12, 12)[0].height == Axis(3, 1, 0)

    def border(self, x):
        x = x.clone()
        x[:, :, 2:4] += self.conv(x)[:, :, 5:7]
        return x * 1

    _, fields, output = fields_of(Part(border, conv=conv()), 2, 12, 12)
    assert "memory written through a view" in fields.reason(output)


def test_a_network_that_takes_no_images_has_no_fields():
    graph = record(nn.Linear(4, 2), (4,))
    assert receptive_fields(graph).reason(graph.outputs[0]) == "the input [1, 4] is not a batch of images"


def test_positions_are_found_with_what_they_see_in_maps_and_among_tokens():
    _, fields, output = fields_of(conv((1, 4), stride=2), 1, 12, 8)
    place = fields.at(output)
    assert (place.index, place.box) == ((None, None, 3, 2), (5, 3, 7, 5))
    assert fields.at(output, 0, 1).box == (-1, 5, 1, 7)
    tokens = nn.Sequential(conv((1, 4), stride=2), nn.Flatten(2), Part(lambda self, x: x.transpose(1, 2)))
    _, among, sequence = fields_of(tokens, 1, 12, 8)
    assert among.at(sequence).index == (None, 3 * 4 + 2, None)
    assert among.at(sequence).box == place.box
    assert among.places(sequence) == fields.places(output) == (6, 4)


def test_windows_that_wrap_round_are_followed_position_by_position():
    """Swin's shifted windows: rolled by two, cut into windows of four, rolled back."""

    def shifted(self, x):
        x = torch.roll(x, 2, 3)
        x = x.view(1, 1, 8, 2, 4)
        return torch.roll((x + x.mean(4, keepdim=True)).view(1, 1, 8, 8), -2, 3)

    _, fields, output = fields_of(Part(shifted), 1, 8, 8)
    _, columns = fields.reach(output)
    assert columns.first.ravel().tolist() == [0, 0, 2, 2, 2, 2, 0, 0]
    assert columns.last.ravel().tolist() == [7, 7, 5, 5, 5, 5, 7, 7]
    field = fields.of(output)
    assert (field.width.size, field.width.stride, field.even) == (8, None, False)


@pytest.mark.parametrize(
    ("name", "size", "paths"),
    [
        ("torchvision resnet18", 224, ["relu", "layer1", "layer2", "layer3", "layer4"]),
        ("torchvision mobilenet_v2", 64, ["features.1", "features.3", "features.6", "features.13", "features"]),
        ("torchvision convnext_tiny", 64, ["features.1", "features.3", "features.5", "features"]),
        ("vit_tiny_patch16_224", 224, ["patch_embed", "norm"]),
    ],
)
def test_stages_end_with_the_last_whole_block_of_each_size(name, size, paths):
    with torch.device("meta"):
        made = getattr(torchvision.models, name.split()[-1], None) if name.startswith("torchvision") else None
        model = made(weights=None) if made else timm.create_model(name)
    graph = record(model, (3, size, size))
    fields = receptive_fields(graph)
    stages = stage_maps(graph, fields)
    assert [stage.path for stage in stages] == paths
    assert all(fields.places(stage.value) == stage.places for stage in stages)


def test_a_value_of_the_image_that_is_filled_in_is_drawn_on():
    filled = Part(lambda self, x: torch.zeros_like(x).fill_(x[:, :, 2:5, 3:5].mean()))
    field, fields = field_of(filled, 1, 8, 8)
    assert (field.height, field.width) == (Axis(3, 0, 3), Axis(2, 0, 3.5))

    def corner(self, x):
        x = self.conv(x).clone()
        x[:, :, 0, 0] = x.mean()
        return x

    _, fields, output = fields_of(Part(corner, conv=conv()), 2, 8, 8)
    assert "memory written through a view" in fields.reason(output)
    drawn, _ = field_of(Part(lambda self, x: torch.bernoulli(self.conv(x).sigmoid()), conv=conv()), 2, 8, 8)
    assert drawn.height == Axis(3, 1, 0)


def masked(*, by):
    """Attention over rows of four, which a constant keeps apart."""

    def attention(self, x):
        tokens = x[0].permute(1, 2, 0)  # [H, W, C]
        if by == "causal":
            return F.scaled_dot_product_attention(tokens, tokens, tokens, is_causal=True)
        if by == "fused":
            return F.scaled_dot_product_attention(tokens, tokens, tokens, attn_mask=torch.eye(4, dtype=torch.bool))
        scores = tokens @ tokens.transpose(1, 2)
        if by == "bias":
            scores = scores + self.bias.weight[torch.arange(4)]
        else:
            mask = scores.new_zeros(4, 4)
            mask[:, 2:] = -100
            scores = scores.masked_fill(mask < 0, -1e9) if by == "filled" else scores + mask
        return scores.softmax(-1) @ tokens

    return nn.Sequential(conv(), Part(attention, bias=nn.Linear(4, 4)))


@pytest.mark.parametrize("by", ["causal", "fused", "filled", "added"])
def test_what_attention_sees_under_a_mask_is_unknown(by):
    _, fields, output = fields_of(masked(by=by), 2, 4, 4)
    assert fields.of(output) is fields.at(output) is fields.reach(output) is None
    assert fields.unknown(output)
    assert "a mask may hide positions from attention" in fields.reason(output)


def test_a_learnt_bias_hides_nothing_from_attention():
    field, _ = field_of(masked(by="bias"), 2, 4, 4)
    assert (field.height.size, field.width.size) == (3, 4)


def test_shifted_windows_are_unknown_until_one_window_holds_all_of_the_map():
    with torch.device("meta"):
        model = timm.models.SwinTransformer(
            img_size=64, patch_size=4, embed_dim=8, depths=(2, 2), num_heads=(1, 1), window_size=8, num_classes=2
        )
    graph = record(model, (3, 64, 64))
    fields = receptive_fields(graph)
    blocks = {call.path: call.outputs[0] for call in graph.calls if call.type == "SwinTransformerBlock"}
    assert fields.of(blocks["layers.0.blocks.0"]).height.size == 32
    assert fields.unknown(blocks["layers.0.blocks.1"])
    assert fields.of(blocks["layers.1.blocks.0"]).whole
    assert [stage.path for stage in stage_maps(graph, fields)] == ["norm"]


def branches(head, **modules):
    """3x3 beside 7x7, two channels each, and what is done with the four."""
    whole = Part(
        lambda self, x: head(self, torch.cat([self.small(x), self.large(x)], 1)),
        small=conv(), large=conv(kernel=7), **modules,
    )  # fmt: skip
    return fields_of(whole, 2, 16, 16)


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (lambda self, x: self.last(x.chunk(2, 1)[0]), 3),
        (lambda self, x: self.last(x[:, 2:]), 7),
        (lambda self, x: x[:, 1:3], 7),
        (lambda self, x: F.max_pool2d(self.norm(x).relu(), 3, 1, 1)[:, 1], 5),
        (lambda self, x: self.apart(x)[:, :2], 5),
        (lambda self, x: self.together(x)[:, :2], 7),
        (lambda self, x: (x * x.mean((2, 3), keepdim=True))[:, :2], 3),
        (lambda self, x: x.view(1, 2, 2, 16, 16).transpose(1, 2).reshape(1, 4, 16, 16)[:, ::2], 3),
        (lambda self, x: x.view(1, 2, 2, 16, 16).transpose(1, 2).reshape(1, 4, 16, 16)[:, :2], 7),
        (lambda self, x: torch.stack(x.chunk(2, 1), 1)[:, 0], 3),
        (lambda self, x: torch.bmm(x[0], torch.ones(4, 16, 16))[:2], 3),
        (lambda self, x: F.pad(x, (0, 0, 0, 0, 1, 0))[:, 1:3], 3),
    ],
    ids=[
        "chunk",
        "slice",
        "both",
        "pooled",
        "grouped",
        "dense",
        "gated",
        "shuffled",
        "shuffled, both",
        "stacked",
        "product",
        "padded",
    ],
)
def test_channels_taken_out_of_branches_draw_on_what_their_branch_does(head, size):
    made = {"last": nn.Conv2d(2, 3, 1), "norm": nn.BatchNorm2d(4), "together": nn.Conv2d(4, 4, 1)}
    _, fields, output = branches(head, apart=nn.Conv2d(4, 4, 3, padding=1, groups=2), **made)
    assert fields.of(output).height == Axis(size, 1, 0), fields.reason(output)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (lambda self, x: x[:, [0, 1]], "index in the network itself: it takes some of the channels of branches"),
        (lambda self, x: x.cumsum(1)[:, :2], "slice in the network itself: it takes some of the channels of branches"),
        (lambda self, x: F.pixel_shuffle(x, 2), "pixel_shuffle in the network itself: channels of branches"),
    ],
)
def test_channels_of_branches_that_cannot_be_followed_back_are_unknown(head, says):
    _, fields, output = branches(head)
    assert says in fields.reason(output)


def test_channels_that_hold_nothing_of_the_image_draw_on_nothing():
    beside = Part(lambda self, x: torch.cat([x, torch.ones_like(x)], 1)[:, 2:])
    _, fields, output = fields_of(beside, 2, 8, 8)
    assert fields.reason(output) == "it does not depend on the image"


def test_numbers_read_as_another_type_are_unknown_and_no_fault():
    _, fields, output = fields_of(Part(lambda self, x: x.view(torch.int16)), 1, 4, 4)
    assert "numbers read as those of another type" in fields.reason(output)
