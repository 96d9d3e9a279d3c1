"""Grad-CAM is CAM where CAM exists, finds the feature maps of real networks, and leaves nothing behind."""

import copy

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import nn

from convsmith.batches import Normalize
from convsmith.errors import UsageError
from convsmith.evaluation import Predictions
from convsmith.evidence import grad_cam, leave_maps
from convsmith.evidence.gradcam import colour_table, last_feature_maps, overlay
from convsmith.run_folder import RunFolder


class Pooled(nn.Module):
    """Convolutions, global average pooling, a linear head: the network that Zhou et al. explain without gradients."""

    def __init__(self, channels=3, outputs=4):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.5)
        )
        self.head = nn.Linear(8, outputs)
        self.features[1].running_mean.normal_(0, 0.2)
        nn.init.normal_(self.head.weight)

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


def images_of(n=5, channels=3, size=12):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, channels, size, size)).astype(np.float32))


def cam(net, images, classes):
    """Zhou et al. 2016, equation 2, cut at zero and scaled."""
    with torch.no_grad():
        maps = torch.einsum("nk,nkhw->nhw", net.head.weight[torch.tensor(classes)], net.eval().features(images)).relu()
        return (maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-30)).numpy()


def test_with_global_pooling_and_a_linear_head_it_is_the_class_activation_map():
    net, classes = Pooled().train(), [0, 1, 2, 3, 1]
    found = grad_cam(net, images_of(), classes)
    assert found.shape == (5, 6, 6)
    assert found.dtype == np.float32
    assert (found.min(), found.max()) == (0, 1)
    np.testing.assert_allclose(found, cam(copy.deepcopy(net), images_of(), classes), atol=1e-6)
    assert not np.allclose(found, grad_cam(net, images_of(), [1, 0, 0, 0, 0]))


def test_many_images_are_explained_as_each_alone():
    net, images = Pooled(), images_of(70)
    whole = grad_cam(net, images, np.arange(70) % 4)
    for i in (0, 33, 69):
        np.testing.assert_allclose(grad_cam(net, images[i : i + 1], [i % 4])[0], whole[i], atol=1e-6)


def test_nothing_is_left_behind():
    net = Pooled().train()
    net.features[1].eval()
    net(images_of()).sum().backward()
    grads = [parameter.grad.clone() for parameter in net.parameters()]
    state, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    grad_cam(net, images_of(), [0] * 5)
    with pytest.raises(UsageError, match="network knows 0 to 3"):
        grad_cam(net, images_of(), [4] * 5)
    assert all(torch.equal(p.grad, grad) for p, grad in zip(net.parameters(), grads, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_frozen_parameters_change_nothing_and_stay_without_gradients():
    net, frozen = Pooled(), Pooled().requires_grad_(False)
    assert np.array_equal(grad_cam(net, images_of(), [2] * 5), grad_cam(frozen, images_of(), [2] * 5))
    for model in (net, frozen):
        assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        expected = grad_cam(net, images_of(), [2] * 5)
    with torch.inference_mode():
        assert np.array_equal(grad_cam(frozen, images_of(), [2] * 5), expected)


def test_a_network_of_other_weights_has_another_map():
    """The sanity check of Adebayo et al. 2018, which maps that only trace edges do not pass."""
    net, images = Pooled(), images_of(20)
    first = grad_cam(net, images, [0] * 20)
    torch.manual_seed(9)
    for layer in (net.head, net.features[0]):
        nn.init.normal_(layer.weight)
        after = grad_cam(net, images, [0] * 20)
        pairs = [
            (one.ravel(), other.ravel()) for one, other in zip(first, after, strict=True) if one.any() and other.any()
        ]
        assert len(pairs) >= 15
        assert np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs]) < 0.5


def test_the_map_lies_on_the_thing_that_makes_the_class():
    """Class 1 is "bright": its map is where the square is, and class 0, "dark", is everywhere else."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight[:] = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
        net[0].bias[:] = torch.tensor([0.5, -0.5])
        net[4].weight[:] = torch.eye(2)
    image = torch.zeros(1, 1, 8, 8)
    image[..., 1:3, 4:7] = 1
    dark, bright = grad_cam(net, image.repeat(2, 1, 1, 1), [0, 1])
    assert np.array_equal(bright, image[0, 0].numpy())
    assert np.array_equal(dark, 1 - bright)


def test_where_no_place_speaks_for_the_class_the_map_is_zero():
    net = Pooled()
    nn.init.zeros_(net.head.weight)
    assert not grad_cam(net, images_of(), [0] * 5).any()


class Reused(nn.Module):
    """One activation after the convolution and again in the head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.act, self.conv, self.head, self.last = nn.ReLU(), nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, images):
        features = self.act(self.conv(images))
        return self.last(self.act(self.head(features.mean((2, 3)))))


def test_a_module_used_again_in_the_head_is_explained_where_it_made_maps():
    net, images = Reused(), images_of()
    layer = last_feature_maps(net, images[:1])
    assert (layer.name, layer.call) == ("act", 1)
    features = F.relu(net.conv(images)).detach().requires_grad_()
    net.last(F.relu(net.head(features.mean((2, 3)))))[:, 1].sum().backward()
    expected = (features.grad.mean((2, 3), keepdim=True) * features.detach()).sum(1).relu()
    expected = expected / expected.amax((1, 2), keepdim=True).clamp_min(1e-30)
    np.testing.assert_allclose(grad_cam(net, images, [1] * 5), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "layer", "side"),
    [
        (lambda: torchvision.models.resnet18(weights=None, num_classes=5), "layer4", 2),
        (lambda: torchvision.models.densenet121(weights=None, num_classes=5), "features", 2),
        (lambda: torchvision.models.squeezenet1_1(weights=None, num_classes=5), "classifier.2", 3),
        (lambda: timm.create_model("tf_efficientnet_lite0", num_classes=5), "bn2", 2),
        (lambda: timm.create_model("mobilenetv3_small_050", num_classes=5), "blocks", 2),
        (lambda: timm.create_model("convnext_atto", num_classes=5), "norm_pre", 2),
    ],
    ids=["resnet", "densenet", "squeezenet", "efficientnet", "mobilenet", "convnext"],
)
def test_real_networks_are_explained_at_their_last_feature_maps(make, layer, side):
    torch.manual_seed(0)
    net, images = make(), images_of(2, size=64)
    assert last_feature_maps(net, images[:1]).name == layer
    maps = grad_cam(net, images, [0, 1])
    assert maps.shape == (2, side, side)
    assert np.isfinite(maps).all()
    assert maps.max() == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(432, 4)), images_of(), [0] * 5), "no feature maps"),
        (lambda: grad_cam(nn.Conv2d(3, 4, 3), images_of(), [0] * 5), r"explains logits \[N, K\]"),
        (lambda: grad_cam(Pooled(), images_of(), [0, 1]), r"shape \[2\], but there are 5 images"),
        (lambda: grad_cam(Pooled(), images_of(), [0, 1, 2, 3, -1]), "network knows 0 to 3"),
        (lambda: grad_cam(Pooled(), images_of(0), []), "no images to explain"),
    ],
)
def test_what_cannot_be_explained_is_refused(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def oklab(colours):
    """Back from sRGB to OKLab, by the inverse of the published matrices."""
    encoded = colours / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(
        linear
        @ np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        ).T
    )
    return (
        cones
        @ np.array(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
        ).T
    )


def test_the_colours_are_evenly_spaced_and_grow_lighter():
    table = colour_table()
    assert table.dtype == np.uint8
    lab = oklab(table.astype(float))
    steps = np.linalg.norm(np.diff(lab[::15], axis=0), axis=1)  # far enough apart for eight bits to matter little
    assert steps.std() / steps.mean() < 0.05
    assert np.all(np.diff(lab[::15, 0]) > 0)
    assert lab[0, 0] == pytest.approx(0.3, abs=0.01)
    assert lab[-1, 0] == pytest.approx(0.9, abs=0.01)


def test_a_map_lies_over_the_picture_in_grey():
    picture = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(picture.transpose(1, 2, 0)).convert("L"), int)
    plain = overlay(picture, np.zeros((4, 6)))
    assert plain.shape == (20, 30, 3)
    assert np.abs(plain.astype(int) - grey[..., None]).max() <= 1
    assert np.array_equal(overlay(picture[:1], np.zeros((4, 6)))[..., 2], picture[0])
    half = np.zeros((4, 6))
    half[:, 3:] = 1
    shown = overlay(picture, half)
    assert np.array_equal(shown[:, :12], plain[:, :12])
    colour = colour_table()[255]
    assert np.abs(shown[:, 18:].astype(int) - (0.3 * plain[:, 18:] + 0.7 * colour)).max() <= 2


def predictions(n):
    rng = np.random.default_rng(0)
    return Predictions(
        ids=np.array([f"folder/{i:05d}.png" for i in range(n)]),
        targets=rng.integers(5, size=n),
        logits=rng.normal(size=(n, 5)).astype(np.float32),
        pixels=np.zeros((n, 32), np.uint8),
        classes=tuple(f"class {i}" for i in range(5)),
        split="test",
    )


def test_maps_are_left_as_pictures_with_a_record(tmp_path):
    run, net = RunFolder(tmp_path / "run"), Pooled(outputs=5)
    (tmp_path / "run").mkdir()
    made = predictions(30)
    images = np.random.default_rng(1).integers(0, 256, (3, 3, 12, 12), dtype=np.uint8)
    normalize, ids = Normalize((0.5,) * 3, (0.25,) * 3), [str(made.ids[i]) for i in (7, 2, 29)]
    leave_maps(run, net, normalize, images, ids, made)
    record = run.read_json("evidence/maps.json")
    assert record["method"] == "Grad-CAM"
    assert "Selvaraju" in record["source"]
    assert record["layer"] == "features"
    expected = grad_cam(net, normalize(torch.from_numpy(images)), made.predicted[[7, 2, 29]])
    for entry, row, image, values in zip(record["maps"], (7, 2, 29), images, expected, strict=True):
        assert entry["id"] == made.ids[row]
        assert entry["true"] == made.classes[made.targets[row]]
        assert entry["predicted"] == made.classes[made.predicted[row]]
        shares = np.exp(made.logits[row]) / np.exp(made.logits[row]).sum()
        assert entry["probability"] == pytest.approx(shares.max(), rel=1e-5)
        with Image.open(run.evidence / entry["file"]) as picture:
            assert np.array_equal(np.asarray(picture), overlay(image, values))
    assert [entry["file"] for entry in record["maps"]] == ["maps/0001.png", "maps/0002.png", "maps/0003.png"]


def test_no_pictures_leave_an_empty_record_and_strange_ones_are_refused(tmp_path):
    run, made = RunFolder(tmp_path / "run"), predictions(4)
    (tmp_path / "run").mkdir()
    images, normalize = np.zeros((1, 3, 12, 12), np.uint8), Normalize((0.5,) * 3, (0.25,) * 3)
    leave_maps(run, Pooled(outputs=5), normalize, images[:0], [], made)
    assert run.read_json("evidence/maps.json")["maps"] == []
    with pytest.raises(UsageError, match=r"'x.png' is not among the 4 images"):
        leave_maps(run, Pooled(outputs=5), normalize, images, ["x.png"], made)
    with pytest.raises(UsageError, match="1 images came with 0 ids"):
        leave_maps(run, Pooled(outputs=5), normalize, images, [], made)
