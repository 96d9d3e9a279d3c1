"""Networks made wider or deeper that answer as before, and those that cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convsmith import design
from convsmith.errors import UsageError
from convsmith.networks import build_design
from convsmith.networks.rewriting.growing import grow_network
from convsmith.networks.rewriting.operations import add_context, deepen, widen


def pyramid(block: str = "residual", *, options: dict[str, Any] | None = None, stride: int = 2, **others: Any):
    """Three channels to five, in two stages of two blocks."""
    stage = {"block": block, "width": 8, "depth": 2, "options": options or {}}
    rows = [stage, {**stage, "width": 12, "stride": stride}]
    return design.parse({"stem": {"width": 8}, "stages": rows, **others})


def dense(**others: Any) -> design.ConvNet:
    stage = {"block": "dense", "depth": 2, "options": {"growth": 4, "expansion": 2}}
    rows = [stage, {**stage, "stride": 2, "downsample": "transition"}, {"block": "norm-act"}]
    return design.parse({"stem": {"width": 8}, "stages": rows, **others})


def trained(network: design.ConvNet) -> nn.Module:
    """A network in which nothing is as it began: norms have statistics and scales, biases and factors are not zero."""
    torch.manual_seed(1)
    model = build_design(network, 3, 5).eval()
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.ndim == 1 or "scale" in name:
                low, high = (-0.3, 0.3) if name.endswith(("bias", "mean")) else (0.5, 1.5)
                tensor.uniform_(low, high)
            elif "linear" in name:
                tensor.mul_(30)
    return model


def apart(old: design.ConvNet, new: design.ConvNet, *, training: bool = False, **options: Any) -> float:
    """The largest difference of the answers of a trained network and the one grown from it, relative to the answers."""
    model = trained(old)
    torch.manual_seed(2)
    grown = grow_network(model, old, new, in_channels=3, outputs=5, **options)
    image = torch.rand(3, 3, 12, 12)
    with torch.no_grad():
        expected, got = (each.train(training)(image) for each in (model, grown))
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()  # it depends on the image
    return ((got - expected).abs().max() / expected.abs().max()).item()


WIDENED = [
    ("plain", pyramid("plain"), 1.5),
    ("plain in groups", pyramid("plain", options={"groups": 4}), 1.5),
    ("residual", pyramid(), 1.5),
    ("residual of zeros", pyramid(options={"shortcut": "pad"}), 2),
    ("residual pooled", pyramid(options={"shortcut": "pool", "attention": "squeeze-excite"}), 1.25),
    ("residual with cbam", pyramid(options={"attention": "cbam"}), 2),
    ("bottleneck in groups", pyramid("bottleneck", options={"ratio": 0.5, "groups": 2}), 1.5),
    ("preactivation", pyramid("preactivation"), 1.5),
    ("inception", pyramid("inception"), 2),
    ("dense", dense(), 1.5),
    ("separable", pyramid("separable"), 1.5),
    ("mbconv", pyramid("mbconv", options={"squeeze": 0.25}, activation="silu"), 1.5),
    ("fused-mbconv", pyramid("fused-mbconv", activation="gelu"), 1.5),
    ("convnext", pyramid("convnext", norm="layer", activation="gelu"), 2),
    ("convnext with batch norm", pyramid("convnext", activation="gelu"), 1.5),
    ("instance norm", pyramid(norm="instance"), 1.5),
    ("no norm", pyramid(norm="none"), 1.5),
    ("group norm of one group", pyramid(norm="group"), 2),
    ("non-local", add_context(pyramid(), 1), 1.5),
    ("class maps", pyramid(head={"kind": "class-maps"}), 1.5),
    ("flattened", pyramid(head={"kind": "flatten", "grid": 2, "hidden": (6,)}), 1.5),
    ("both poolings", pyramid(head={"kind": "both"}), 1.5),
]  # fmt: skip


@pytest.mark.parametrize(("old", "factor"), [case[1:] for case in WIDENED], ids=[case[0] for case in WIDENED])
def test_a_wider_network_answers_as_before(old: design.ConvNet, factor: float):
    new = widen(old, factor)
    assert apart(old, new) < 1e-5


def test_one_stage_may_be_made_wider_alone():
    old = pyramid()
    assert apart(old, widen(old, 2, stage=0)) < 1e-5  # whose first block had no weights in its shortcut
    assert apart(old, widen(old, 1.5, stage=1)) < 1e-5


DEEPENED = [
    ("residual", pyramid(), 1),
    ("residual without norm", pyramid(norm="none"), 1),
    ("residual with attention", pyramid(options={"attention": "cbam"}), 0),
    ("bottleneck", pyramid("bottleneck"), 1),
    ("preactivation", pyramid("preactivation", activation="silu"), 1),
    ("mbconv whose branches are skipped", pyramid("mbconv", activation="silu", stochastic_depth=0.2), 1),
    ("fused-mbconv of one convolution", pyramid("fused-mbconv", options={"expansion": 1}, activation="silu"), 1),
    ("convnext", pyramid("convnext", norm="layer", activation="gelu"), 1),
    ("plain", pyramid("plain"), 0),
    ("plain in groups without norm", pyramid("plain", options={"groups": 2}, norm="none"), 1),
    ("separable", pyramid("separable"), 1),
    ("dense", dense(), 1),
]


@pytest.mark.parametrize(("old", "stage"), [case[1:] for case in DEEPENED], ids=[case[0] for case in DEEPENED])
def test_a_deeper_network_answers_as_before(old: design.ConvNet, stage: int):
    assert apart(old, deepen(old, stage, blocks=2)) < 1e-5


def test_a_network_grows_both_ways_at_once_and_gains_a_non_local_stage():
    old = pyramid()
    assert apart(old, add_context(deepen(widen(old, 1.5), 1), 1)) < 1e-5


def test_residual_networks_answer_as_before_in_training_too():
    old = pyramid()
    assert apart(old, deepen(widen(old, 2), 1), training=True) < 1e-4


def test_a_plain_convolution_with_batch_norm_does_not_in_training():
    old = pyramid("plain")
    assert apart(old, deepen(old, 0), training=True) > 1e-3


def gradients(noise: float) -> tuple[Tensor, Tensor]:
    """Of the first convolution's filters that are repeated, those of the one and of the other."""
    old = pyramid()
    grown = grow_network(trained(old), old, widen(old, 2), in_channels=3, outputs=5, noise=noise)
    torch.nn.functional.cross_entropy(grown(torch.rand(4, 3, 12, 12)), torch.arange(4)).backward()
    gradient = grown.get_parameter("stem.conv.weight").grad
    assert gradient is not None
    return gradient[::2], gradient[1::2]


def test_repeated_channels_learn_different_things_thanks_to_unequal_shares():
    one, other = gradients(0.0)
    torch.testing.assert_close(one, other)
    one, other = gradients(0.01)
    assert (one - other).abs().max() > 1e-3 * one.abs().max()


def test_new_blocks_receive_a_gradient():
    old = pyramid()
    grown = grow_network(trained(old), old, deepen(old, 0), in_channels=3, outputs=5)
    torch.nn.functional.cross_entropy(grown(torch.rand(4, 3, 12, 12)), torch.arange(4)).backward()
    gradient = grown.get_parameter("stages.0.2.body.norm2.weight").grad
    assert gradient is not None
    assert gradient.abs().min() > 0


def test_the_old_network_is_left_as_it_was_and_the_new_one_is_in_its_mode():
    old = pyramid()
    model = trained(old)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grown = grow_network(model, old, widen(old, 2), in_channels=3, outputs=5)
    assert not grown.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (pyramid("convnext", norm="layer"), lambda old: widen(old, 1.5), "Layer norm averages over channels"),
        (pyramid(options={"attention": "cbam"}), lambda old: widen(old, 1.5), "CBAM averages over channels"),
        (pyramid(options={"attention": "eca"}), lambda old: widen(old, 2), "kind 'eca' cannot be made wider"),
        (widen(pyramid(norm="group"), 2), lambda old: widen(old, 2), "Group norm would average over other channels"),
        (pyramid(activation="silu"), lambda old: deepen(old, 1), "ends in silu.*cannot be kept"),
        (pyramid("plain", norm="layer"), lambda old: deepen(old, 1), "kind 'norm' cannot start as nothing"),
        (pyramid("inception"), lambda old: deepen(old, 1), "kind 'concat' cannot start as nothing"),
        (pyramid(), lambda old: design.parse({**old.model_dump(), "stem": {"width": 4}}), "8 channels do not fit"),
        (pyramid(), lambda old: design.parse({**old.model_dump(), "activation": "silu"}), "relu.*silu"),
        (pyramid(), lambda old: pyramid("preactivation"), "The designs differ in more than widths"),
        (pyramid("mbconv"), lambda old: widen(old, 2, stage=0), "a residual and a sequence.*Widen all stages"),
    ],
)  # fmt: skip
def test_what_cannot_answer_as_before_is_refused(old: design.ConvNet, new: Any, said: str):
    with pytest.raises(UsageError, match=said):
        grow_network(trained(old), old, new(old), in_channels=3, outputs=5)


def test_a_network_of_another_design_is_refused():
    with pytest.raises(UsageError, match="not one of the old design"):
        grow_network(trained(pyramid()), widen(pyramid(), 2), widen(pyramid(), 4), in_channels=3, outputs=5)
