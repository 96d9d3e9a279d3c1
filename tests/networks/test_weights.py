"""Weights: found, read without running anything, and loaded completely or not at all."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import pickle
import struct
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from convsmith.errors import DataError, UsageError
from convsmith.networks import (
    Found,
    build_named,
    describe_weights,
    find_weights,
    list_models,
    load_pretrained,
    read_weights,
    sha256_of,
    size_options,
)
from convsmith.networks.published.pretrained import Pretrained
from convsmith.networks.published.weights import fetch, read_checkpoint

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "weights"
LITE = REAL / "tf_efficientnet_lite0.timm.safetensors"
SQUEEZE = REAL / "squeezenet1_0_imagenet.pth"
real = pytest.mark.skipif(not LITE.is_file(), reason="the shared weights (../shared/data/weights) are not here")
SMALL = "mobilenetv3_small_050"


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of their own, and no network."""

    def unreachable(request: object, timeout: float) -> None:
        assert timeout <= 30
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def found(path: Path) -> Found:
    return Found(path, sha256_of(path), "a file that was given", "not stated")


def saved(path: Path, name: str, outputs: int = 7, channels: int = 3) -> torch.nn.Module:
    """A network whose weights are in `path`, in inference mode."""
    torch.manual_seed(len(name))
    model = build_named(name, channels, outputs).eval()
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return model


def equal(one: torch.nn.Module, other: torch.nn.Module, size: int = 64) -> bool:
    batch = torch.rand(2, 3, size, size)
    with torch.no_grad():
        return torch.equal(one.eval()(batch), other.eval()(batch))


# Finding


def test_a_file_and_a_folder_are_found_with_their_hash(tmp_path: Path):
    saved(tmp_path / f"{SMALL}.mine.safetensors", SMALL)
    (tmp_path / f"{SMALL}.mine.pth").write_bytes(b"another form of the same")
    (tmp_path / "mobilenetv3_small_0500.pth").write_bytes(b"a longer name")
    by_folder, by_file = (find_weights(SMALL, str(path)) for path in (tmp_path, tmp_path / f"{SMALL}.mine.safetensors"))
    assert by_folder == by_file
    expected = hashlib.sha256((tmp_path / f"{SMALL}.mine.safetensors").read_bytes()).hexdigest()
    assert by_folder.sha256 == expected
    assert find_weights(SMALL, str(tmp_path), expected_sha256=expected) == by_folder
    with pytest.raises(UsageError, match="another file than before"):
        find_weights(SMALL, str(tmp_path), expected_sha256="0" * 64)


def test_a_folder_with_several_weights_or_none_says_which_it_has(tmp_path: Path):
    for name in ("resnet18.a.pth", "resnet18.b.pth", "resnet18d.pth", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=r"several weights of resnet18: resnet18.a.pth, resnet18.b.pth\."):
        find_weights("resnet18", str(tmp_path))
    with pytest.raises(UsageError, match=r"no weights of resnet34; its weights are resnet18.a.pth") as caught:
        find_weights("resnet34", str(tmp_path))
    assert "resnet34.safetensors" in caught.value.mend
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        find_weights("resnet18", str(tmp_path / "absent.pth"))


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0"])
def test_without_a_network_it_ends_at_once_with_both_ways_out(name: str, caches: Path):
    describe_weights(name)  # loading the library takes longer than what is measured
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        find_weights(name)
    assert time.monotonic() - started < 5
    assert "are not on this machine" in caught.value.message
    assert "--weights FILE" in caught.value.mend
    assert "--weights none" in caught.value.mend
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["convnet-small", "vit_tiny_patch16_18x2"])
def test_where_nothing_is_published_it_says_so(name: str, caches: Path):
    known = timm.list_models(pretrained=False)
    name = name if name == "convnet-small" else next(each for each in known if not timm.is_model_pretrained(each))
    with pytest.raises(UsageError, match="No pretrained weights of"):
        find_weights(name)


def test_weights_in_torchs_cache_are_used_without_a_network_and_a_damaged_file_is_named(caches: Path):
    folder = caches / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    path = folder / "squeezenet1_0-b66bff10.pth"
    path.write_bytes(b"half of it")
    with pytest.raises(DataError, match="is damaged: its SHA-256 begins with") as caught:
        find_weights("squeezenet1_0")
    assert "b66bff10" in caught.value.message
    (row,) = list_models("torchvision/squeezenet1_0")
    assert (row.weights, row.where) == ("here", str(path))


def test_weights_in_the_hubs_cache_are_checked_against_their_own_name(caches: Path):
    repository = caches / "hub" / "models--timm--resnet18.a1_in1k"
    for folder in ("refs", "blobs", "snapshots/abc"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    content = b"the weights"
    digest = hashlib.sha256(content).hexdigest()
    blob = repository / "blobs" / digest
    blob.write_bytes(content)
    (repository / "snapshots" / "abc" / "model.safetensors").symlink_to(blob)
    assert find_weights("resnet18").sha256 == digest
    assert find_weights("resnet18").licence == "apache-2.0"
    blob.write_bytes(b"other weights")
    with pytest.raises(DataError, match="is damaged"):
        find_weights("resnet18")


def published(address: str, sha256: str) -> Pretrained:
    weights = describe_weights("torchvision/squeezenet1_0")
    assert weights is not None
    return dataclasses.replace(weights, url=address, sha256=sha256)


def test_a_file_is_fetched_into_the_cache_when_its_hash_is_the_published_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    server = tmp_path / "net-12345678.pth"
    server.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    path = fetch(published(server.as_uri(), digest[:8]))
    assert path.read_bytes() == b"weights"
    path.unlink()
    with pytest.raises(DataError, match="not what was published"):
        fetch(published(server.as_uri(), "00000000"))
    with pytest.raises(DataError, match="cannot be reached"):
        fetch(published((tmp_path / "absent.pth").as_uri(), ""))
    assert list(path.parent.iterdir()) == []


# Reading


class Harm:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net.bin"])
def test_a_pickle_with_code_is_refused_and_not_run(name: str, older: bool, tmp_path: Path):
    path = tmp_path / name
    content = {"weight": torch.ones(2), "extra": Harm(tmp_path / "harm")}
    torch.save(content, path, _use_new_zipfile_serialization=not older)
    with pytest.raises(DataError, match="would run code") as caught:
        read_weights(path)
    assert "state_dict" in caught.value.mend
    assert not (tmp_path / "harm").exists()
    with path.open("rb") as file:
        torch.load(file, weights_only=False)
    assert (tmp_path / "harm").is_dir()  # it is what it pretends to be


def test_a_plain_pickle_with_code_is_refused_and_not_run(tmp_path: Path):
    path = tmp_path / "net.pt"
    path.write_bytes(pickle.dumps(Harm(tmp_path / "harm"), protocol=2))
    with pytest.raises(DataError, match=r"net\.pt"):
        read_weights(path)
    assert not (tmp_path / "harm").exists()


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


BROKEN = {
    "endless header": header(b"{}", 1 << 62),
    "header longer than the file": header(b'{"a": 1}', 1000),
    "not JSON": header(b"{nonsense"),
    "data that is not there": header(
        json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    ),
    "offsets that overlap": header(
        json.dumps({k: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for k in "ab"}).encode()
    ) + bytes(4),
    "deep nesting": header(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
    "short": b"{}",
    "empty": b"",
    "a page": b"<!doctype html><html>not found</html>",
    "half a zip": b"PK\x03\x04" + bytes(100),
    "half a pickle": b"\x80\x02}q\x00",
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_file_is_refused_in_bounded_memory(kind: str, suffix: str, tmp_path: Path):
    resource = pytest.importorskip("resource")
    path = tmp_path / f"net{suffix}"
    path.write_bytes(BROKEN[kind])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError) as caught:
        read_weights(path)
    assert path.name in caught.value.message
    assert len(str(caught.value).splitlines()) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_file_that_would_unpack_to_more_than_it_is_is_refused(tmp_path: Path):
    path, bomb = tmp_path / "net.pth", tmp_path / "bomb.pth"
    torch.save({"weight": torch.zeros(4_000_000)}, path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for item in whole.infolist():
            packed.writestr(item.filename, whole.read(item))
    assert bomb.stat().st_size < 100_000
    assert len(read_weights(path)) == 1
    with pytest.raises(DataError, match="would unpack to"):
        read_weights(bomb)


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path):
    path = tmp_path / "net.pth"
    torch.save({"weight": torch.zeros(1).expand(1 << 40)}, path)
    with pytest.raises(DataError, match="would take more"):
        read_weights(path)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_ema", "state_dict_ema"])
def test_weights_within_a_training_checkpoint_are_taken_out_and_that_is_said(key: str, tmp_path: Path):
    path = tmp_path / "checkpoint.pth.tar"
    weights = {"module.a": torch.ones(2), "module.b": torch.zeros(3)}
    content = {key: weights, "epoch": 3, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}}}
    torch.save(content, path)
    read = read_checkpoint(path)
    assert read.tensors.keys() == {"a", "b"}
    assert any(repr(key) in note for note in read.notes)
    assert any("'module.'" in note for note in read.notes)


def test_averaged_weights_are_preferred(tmp_path: Path):
    torch.save({"model": {"a": torch.zeros(1)}, "model_ema": {"a": torch.ones(1)}}, tmp_path / "net.pth")
    assert read_weights(tmp_path / "net.pth")["a"].item() == 1


@pytest.mark.parametrize("content", [[torch.ones(1)], {}, {"weight": 3}, torch.ones(2)])
def test_a_file_without_named_tensors_is_refused(content: object, tmp_path: Path):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(DataError):
        read_weights(tmp_path / "net.pth")


def test_the_ending_of_a_name_is_not_believed(tmp_path: Path):
    save_file({"a": torch.ones(2)}, tmp_path / "net.pth")
    torch.save({"a": torch.ones(2)}, tmp_path / "net.safetensors")
    for name in ("net.pth", "net.safetensors"):
        assert torch.equal(read_weights(tmp_path / name)["a"], torch.ones(2))


# Loading


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "name",
    [SMALL, "dla46_c", "torchvision/mnasnet0_5", "torchvision/densenet121", "torchvision/googlenet", "convnet-tiny"],
)
def test_saved_weights_give_the_same_network_with_as_many_outputs(name: str, suffix: str, tmp_path: Path):
    path = tmp_path / f"net{suffix}"
    model = saved(path, name)
    loaded = load_pretrained(name, found(path), 3)
    assert equal(loaded, model)
    assert not any(isinstance(value, dict) and "state_dict" in value for value in vars(loaded).values())


def test_densenets_old_names_and_second_heads_are_understood(tmp_path: Path):
    model = build_named("torchvision/densenet121", 3, 4)
    old = {
        key.replace("norm1.", "norm.1.").replace("conv1.", "conv.1.").replace("norm2.", "norm.2.")
        .replace("conv2.", "conv.2.") if "denselayer" in key else key: value
        for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")
    }  # fmt: skip
    torch.save(old, tmp_path / "densenet.pth")
    assert equal(load_pretrained("torchvision/densenet121", found(tmp_path / "densenet.pth"), 3), model)
    model = build_named("torchvision/googlenet", 3, 4)
    torch.save({**model.state_dict(), "aux1.fc2.weight": torch.ones(4, 2)}, tmp_path / "googlenet.pth")
    notes: list[str] = []
    assert equal(load_pretrained("torchvision/googlenet", found(tmp_path / "googlenet.pth"), 3, notes=notes), model)
    assert "1 tensors of auxiliary classifiers" in notes[0]


@pytest.mark.parametrize("name", [SMALL, "torchvision/squeezenet1_1"])
def test_grey_images_give_what_their_colours_alike_would(name: str, tmp_path: Path):
    path = tmp_path / "net.pth"
    model = saved(path, name)
    grey = load_pretrained(name, found(path), 1).eval()
    batch = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey(batch), model(batch.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", pytest.param("torchvision/vit_b_32", marks=pytest.mark.slow)])
def test_a_position_embedding_is_resampled_to_another_size(name: str, tmp_path: Path):
    path = tmp_path / "net.pth"
    model = saved(path, name)
    loaded = load_pretrained(name, found(path), 3, **size_options(name, 96)).eval()
    with torch.no_grad():
        assert loaded(torch.rand(1, 3, 96, 96)).shape == (1, 7)
    held = loaded.state_dict()
    assert all(torch.equal(held[key], value) for key, value in model.state_dict().items() if "pos_embed" not in key)


def test_weights_without_a_head_get_one_to_be_replaced(tmp_path: Path):
    name = "vit_small_patch14_dinov2"
    model = build_named(name, 3, 0, img_size=98).eval()
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    loaded = load_pretrained(name, found(tmp_path / "net.safetensors"), 3, img_size=98).eval()
    batch = torch.rand(1, 3, 98, 98)
    with torch.no_grad():
        assert loaded(batch).shape == (1, 1)
        features = loaded.forward_head(loaded.forward_features(batch), pre_logits=True)
        torch.testing.assert_close(features, model(batch))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        (SMALL, "resnet18"),
        ("dla46_c", SMALL),  # timm loads this one loosely
        ("torchvision/squeezenet1_1", SMALL),
        ("convnet-small", SMALL),
        ("resnet18", "torchvision/squeezenet1_1"),
    ],
)
def test_weights_of_another_network_are_refused_with_the_names_that_do_not_fit(name: str, other: str, tmp_path: Path):
    plain = other.rpartition("/")[2]
    path = tmp_path / f"{plain}.mine.pth"
    saved(path, other)
    with pytest.raises(DataError) as caught:
        load_pretrained(name, found(path), 3)
    expected = build_named(name, 3, 7).state_dict()
    said = caught.value.message
    assert f"missing {next(key for key in expected if key not in read_weights(path))}" in said
    assert "and" in said
    assert f"--model {plain}" in caught.value.mend
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", [SMALL, "torchvision/squeezenet1_1", "convnet-tiny", "dla46_c"])
def test_a_single_missing_or_misshapen_tensor_is_named(name: str, tmp_path: Path):
    path = tmp_path / "net.pth"
    model = saved(path, name)
    weights = model.state_dict()
    key = [key for key in weights if key.endswith(".weight") and weights[key].ndim == 4][1]
    torch.save({each: value for each, value in weights.items() if each != key}, path)
    with pytest.raises(DataError, match=f"missing {key}"):
        load_pretrained(name, found(path), 3)
    torch.save({**weights, key: weights[key][:-1]}, path)
    with pytest.raises(DataError, match=f"{key} is "):
        load_pretrained(name, found(path), 3)


def test_timm_is_left_without_the_file_in_memory_and_its_log_as_it_was(tmp_path: Path):
    import logging

    level = logging.getLogger("timm.models").level
    saved(tmp_path / "net.pth", SMALL)
    model = load_pretrained(SMALL, found(tmp_path / "net.pth"), 3)
    assert "state_dict" not in model.pretrained_cfg
    assert logging.getLogger("timm.models").level == level


@real
@pytest.mark.real_data
def test_the_real_weights_of_lite0_load_as_timm_itself_loads_them():
    weights = find_weights("tf_efficientnet_lite0", str(REAL))
    assert weights.path.name == LITE.name
    assert weights.licence == "apache-2.0"
    expected = timm.create_model(
        "tf_efficientnet_lite0", pretrained=True, pretrained_cfg_overlay={"file": str(LITE)}, num_classes=1000
    )
    assert equal(load_pretrained("tf_efficientnet_lite0", weights, 3), expected)


@real
@pytest.mark.real_data
def test_the_real_weights_of_squeezenet_load_as_torch_itself_loads_them():
    weights = find_weights("squeezenet1_0", str(SQUEEZE))
    expected = build_named("squeezenet1_0", 3, 1000)
    expected.load_state_dict(torch.load(SQUEEZE, weights_only=True))
    assert equal(load_pretrained("squeezenet1_0", weights, 3), expected)
    with pytest.raises(DataError, match="does not fit") as caught:
        load_pretrained("tf_efficientnet_lite0", weights, 3)
    assert "squeezenet1_0" in caught.value.mend
