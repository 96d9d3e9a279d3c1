"""Frozen features: what they are, that they are computed once, and that what is kept is never trusted blindly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from convsmith.batches import Normalize
from convsmith.evidence import Frozen, StageEnd, View, frozen_features, stage_ends
from convsmith.evidence import features as room
from convsmith.networks import find_head, replace_head

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
IMAGES = np.random.default_rng(0).integers(0, 256, (11, 3, 32, 32), np.uint8)
BOTH: tuple[View, ...] = ("image", "mirror")


class Counted:
    """Features of one network, and how many forward passes they took.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Path, name: str = "test_resnet") -> None:
        torch.manual_seed(0)
        self.model: nn.Module = timm.create_model(name, drop_rate=0.5)
        self.head = find_head(self.model, (3, 32, 32))
        self.folder = folder
        self.passes = 0
        self.notes: list[str] = []
        self.model.register_forward_pre_hook(self._count)

    def _count(self, module: nn.Module, inputs: object) -> None:
        self.passes += 1

    def __call__(self, identity: str = "", views: tuple[View, ...] = BOTH, images: np.ndarray = IMAGES) -> np.ndarray:
        return self.frozen((), identity, views, images).views

    def frozen(
        self,
        ends: tuple[StageEnd, ...],
        identity: str = "",
        views: tuple[View, ...] = BOTH,
        images: np.ndarray = IMAGES,
    ) -> Frozen:
        return frozen_features(
            self.model, self.head, images, prepare=Normalize(MEAN, STD), views=views, ends=ends, identity=identity,
            folder=self.folder, note=self.notes.append,
        )  # fmt: skip

    def ends(self) -> tuple[StageEnd, ...]:
        """Those before what the head is given; finding them takes passes that are not counted."""
        found = stage_ends(self.model, self.head, (3, 32, 32))[:-1]
        self.passes = 0
        return found


@pytest.fixture
def features(tmp_path: Path) -> Counted:
    return Counted(tmp_path / "features")


def theirs(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """The same by timm's own means, in inference mode."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.no_grad():
        maps = model.eval().forward_features((torch.from_numpy(images.copy()) / 255 - mean) / std)  # type: ignore[operator]
        return model.forward_head(maps, pre_logits=True).numpy()  # type: ignore[operator]


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_features_are_what_the_network_pools_for_the_image_and_its_mirror(name: str, tmp_path: Path):
    features = Counted(tmp_path, name)
    found = features()
    assert found.dtype == np.float32
    assert found.shape == (2, 11, features.head.in_features)
    assert found[0] == pytest.approx(theirs(features.model, IMAGES), abs=1e-4)
    assert found[1] == pytest.approx(theirs(features.model, IMAGES[..., ::-1]), abs=1e-4)
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_one_pass_for_each_view_and_none_the_second_time(features: Counted):
    first = features()
    assert features.passes == 2
    second = features()
    assert features.passes == 2
    assert np.array_equal(first, second)
    features(views=("image",))
    assert features.passes == 3


def test_the_network_is_left_as_it_was(features: Counted):
    features.model.train()
    features.model.layer1.eval()  # type: ignore[union-attr]
    before = {name: tensor.clone() for name, tensor in features.model.state_dict().items()}
    modes = [module.training for module in features.model.modules()]
    features()
    assert modes == [module.training for module in features.model.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in features.model.state_dict().items())
    assert not features.model.get_submodule(features.head.path)._forward_pre_hooks


def test_another_identity_or_other_views_are_other_features(features: Counted):
    features("one network")
    features("another network")
    features("one network", views=("image",))
    assert len(list(features.folder.iterdir())) == 3
    assert features.passes == 5


def wrong_shape(path: Path) -> None:
    np.save(path, np.load(path)[:, :5])


def wrong_type(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float64))


def not_a_number(path: Path) -> None:
    np.save(path, np.full_like(np.load(path), np.nan))


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)


DAMAGE = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "cut in its header": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "one bit": flipped,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("these are no features"),
    "like an archive": lambda path: path.write_bytes(b"PK\x03\x04 and then nothing"),
    "another shape": wrong_shape,
    "another type": wrong_type,
    "not a number": not_a_number,
    "pickled": pickled,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_features_are_computed_anew_and_replaced(damage: str, features: Counted):
    expected = features()
    (path,) = features.folder.iterdir()
    DAMAGE[damage](path)
    assert np.array_equal(features(), expected)
    assert features.passes == 4
    if damage == "a folder":  # which is somebody's, and stays
        assert "not kept" in features.notes[0]
        return
    assert np.array_equal(features(), expected)
    assert features.passes == 4


def test_a_folder_that_cannot_be_written_is_said_and_costs_nothing_else(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    features = Counted(tmp_path / "file" / "features")
    first = features()
    assert len(features.notes) == 1
    assert "not kept for the next run" in features.notes[0]
    assert np.array_equal(features(), first)
    assert features.passes == 4


def test_a_new_head_of_other_classes_sees_the_same_features(features: Counted):
    before = features("before")
    features.head = replace_head(features.model, features.head, 3)
    assert np.array_equal(features("after"), before)


def test_progress_counts_the_images_once(features: Counted):
    told: list[tuple[int, int]] = []
    frozen_features(
        features.model, features.head, np.repeat(IMAGES, 30, axis=0), prepare=Normalize(MEAN, STD), views=BOTH,
        identity="", folder=features.folder, progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told[-1] == (330, 330)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) > 1


def their_stages(model: nn.Module, images: np.ndarray) -> list[np.ndarray]:
    """Averages of what timm calls the features of stages, without those that the head is given."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.no_grad():
        pixels = (torch.from_numpy(images.copy()) / 255 - mean) / std
        maps = model.eval().forward_intermediates(pixels, intermediates_only=True)  # type: ignore[operator]
    return [each.mean((2, 3)).numpy() for each in maps[:-1]]


@pytest.mark.parametrize("views", [BOTH, ("mirror", "image"), ("image",)])
def test_stages_of_the_image_come_with_the_passes_that_features_take_anyway(
    views: tuple[View, ...], features: Counted, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(room, "batch_for", lambda shape: 4)
    ends = features.ends()
    frozen = features.frozen(ends, views=views)
    assert features.passes == 3 * len(views)
    for found, expected in zip(frozen.stages, their_stages(features.model, IMAGES), strict=True):
        assert found.dtype == np.float32
        assert found == pytest.approx(expected, abs=1e-4)
    assert np.array_equal(frozen.views, features("alone", views=views))
    assert not any(module._forward_hooks for module in features.model.modules())


def test_stages_of_passes_in_bfloat16_are_the_same_to_its_precision(features: Counted):
    exact = features.frozen(features.ends())
    rounded = frozen_features(
        features.model, features.head, IMAGES, prepare=Normalize(MEAN, STD), ends=features.ends(), precision="bfloat16",
        identity="rounded", folder=features.folder,
    )  # fmt: skip
    for found, expected in zip(rounded.stages, exact.stages, strict=True):
        assert found.dtype == np.float32
        assert not np.array_equal(found, expected)
        assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_kept_stages_need_no_pass_and_each_damaged_file_is_replaced(features: Counted):
    ends = features.ends()
    first = features.frozen(ends)
    for number, path in enumerate([None, *sorted(features.folder.iterdir())]):
        if path is not None:
            flipped(path)
        again = features.frozen(ends)
        assert features.passes == 2 + 2 * number
        for found, expected in zip((again.views, *again.stages), (first.views, *first.stages), strict=True):
            assert np.array_equal(found, expected)
    assert features.passes == 6
    features()
    assert features.passes == 6


def test_of_more_images_than_memory_is_given_to_the_stages_of_some_evenly_spaced_are_kept(
    features: Counted, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(room, "batch_for", lambda shape: 4)
    ends = features.ends()
    whole = features.frozen(ends, "all")
    assert list(whole.rows) == list(range(11))
    monkeypatch.setattr(room, "STAGE_BYTES", 3 * 4 * sum(end.features for end in ends) + 100)
    for views in (BOTH, BOTH):  # computed, and read
        some = features.frozen(ends, views=views)
        assert list(some.rows) == [0, 5, 10]
        assert some.views.shape == whole.views.shape
        for found, expected in zip(some.stages, whole.stages, strict=True):
            assert np.array_equal(found, expected[[0, 5, 10]])


def test_a_folder_that_cannot_be_written_is_said_once_for_features_and_stages(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    features = Counted(tmp_path / "file" / "features")
    features.frozen(features.ends())
    assert len(features.notes) == 1


def test_stages_without_the_image_among_the_views_are_refused(features: Counted):
    ends = features.ends()
    with pytest.raises(ValueError, match="not among the views"):
        features.frozen(ends, views=("mirror",))
