"""`convsmith models`: lists by pattern, as a table and as JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torchvision
from typed import typed


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_without_a_pattern_our_own_are_listed_and_how_to_search_the_others():
    done = typed("models")
    assert done.code == 0
    lines = done.out.splitlines()
    listed = [line.split()[0] for line in lines]
    assert listed[:5] == ["name", "convnet", "convnet-tiny", "convnet-small", "convnet-medium"]
    assert {"simple", "simple-gap", "lightweight", "mlp"} <= set(listed)
    assert f"{len(timm.list_models()):,} of timm" in done.err
    assert f"{len(torchvision.models.list_models(module=torchvision.models))} of torchvision" in done.err
    assert "convsmith models 'resnet*'" in done.err
    assert "convsmith train DATA --model convnet" in done.err


def test_a_pattern_lists_all_libraries_with_size_licence_and_weights(tmp_path: Path):
    (tmp_path / "resnet18.mine.safetensors").write_bytes(b"x")
    rows = typed("models", "resnet1[08]", "--weights", tmp_path, "--json").json
    assert {(row["name"], row["weights"], row["library"]) for row in rows} == {
        ("resnet18", "here", "timm"),
        ("torchvision/resnet18", "here", "torchvision"),
    }
    assert {row["parameters"] for row in rows} == {11_689_512}
    assert rows[0]["input_size"] == [3, 224, 224]
    assert rows[0]["where"] == str(tmp_path / "resnet18.mine.safetensors")
    table = typed("models", "resnet1[08]")
    assert table.out.splitlines()[1].split() == ["resnet18", "11.7", "M", "224x224", "hub", "apache-2.0"]
    assert "torchvision/resnet18" in table.out


def test_more_than_the_limit_is_said_not_shown():
    done = typed("models", "timm/vgg*", "--limit", 2)
    assert len(done.out.splitlines()) == 3
    count = len(timm.list_models("vgg*"))
    assert f"{count - 2} more fit; see them with --limit {count}" in done.err


@pytest.mark.parametrize("pattern", ["no such*", "keras/*", ""])
def test_a_pattern_that_fits_nothing_says_so(pattern: str):
    pattern = pattern or "[q][q]"
    done = typed("models", pattern)
    assert (done.code, done.out) == (0, "")
    assert pattern in done.err
    assert typed("models", pattern, "--json").json == []


def test_a_folder_of_weights_that_is_none_is_refused(tmp_path: Path):
    done = typed("models", "resnet18", "--weights", tmp_path / "absent")
    assert done.code == 2
    assert "is not a folder" in done.err
