"""Predictions come in order, in inference mode, and leave the network as it was."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from convsmith.batches import Normalize
from convsmith.evidence import inference_mode, predict
from convsmith.tasks import classification

NORMALIZE = Normalize((0.5,), (0.25,))


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 16, 3))


def make_images(n):
    return np.random.default_rng(0).integers(0, 256, (n, 1, 6, 6), dtype=np.uint8)


def test_predictions_are_those_of_the_network_image_by_image():
    net, images = make_net(), make_images(11)
    arrays = predict(net, classification(), images, prepare=NORMALIZE, batch_size=4)
    with torch.no_grad():
        expected = [net.eval()(NORMALIZE(torch.from_numpy(images[i : i + 1]))).numpy() for i in range(11)]
    assert arrays["logits"].dtype == np.float32
    np.testing.assert_allclose(arrays["logits"], np.concatenate(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_batch_size_changes_logits_by_rounding_only(batch_size):
    net, images = make_net(), make_images(20)
    whole = predict(net, classification(), images, prepare=NORMALIZE)["logits"]
    parts = predict(net, classification(), images, prepare=NORMALIZE, batch_size=batch_size)["logits"]
    assert np.abs(whole - parts).max() <= 1e-4 * np.abs(whole).max()


def test_predicting_leaves_modes_statistics_and_random_generators_as_they_were():
    net = make_net().train()
    net[1].eval()  # a frozen norm stays frozen
    modes = [module.training for module in net.modules()]
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    drawn = torch.get_rng_state()
    predict(net, classification(), make_images(8), prepare=NORMALIZE)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)


def test_modes_come_back_after_an_error():
    net = make_net().train()

    def fail():
        with inference_mode(net):
            assert not any(module.training for module in net.modules())
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        fail()
    assert all(module.training for module in net.modules())


def test_read_only_pixels_are_neither_changed_nor_warned_about(tmp_path):
    images = make_images(6)
    np.save(tmp_path / "pixels.npy", images)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            arrays = predict(make_net(), classification(), mapped, prepare=NORMALIZE)
    finally:
        torch.set_warn_always(before)
    assert np.array_equal(arrays["logits"], predict(make_net(), classification(), images, prepare=NORMALIZE)["logits"])


def test_no_images_give_no_arrays():
    assert predict(make_net(), classification(), make_images(0), prepare=NORMALIZE) == {}
