"""`convsmith doctor`: what it tells agrees with what the system and the libraries tell; what is broken ends with 6."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import features
from typed import typed

from convsmith.cli import doctor


def test_it_tells_machine_versions_devices_and_storage_as_they_are(tmp_path: Path):
    done = typed("doctor", "--runs", tmp_path / "runs", "--json")
    assert done.code == 0
    told = done.json
    assert told["broken"] == []
    assert told["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert 0 < told["machine"]["memory"] <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert told["versions"]["torch"] == importlib.metadata.version("torch")
    assert told["computing"]["threads"] == torch.get_num_threads()
    assert told["computing"]["instruction_set"] == torch.backends.cpu.get_cpu_capability()
    assert len(told["computing"]["devices"]) == torch.cuda.device_count()
    assert told["pictures"]["turbo"] == features.check_feature("libjpeg_turbo")
    assert "JPEG" in told["pictures"]["formats"]
    runs, pixels, *_ = told["storage"]
    assert runs["path"] == str(tmp_path / "runs")
    assert runs["free"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert pixels["path"] == os.environ["CONVSMITH_CACHE"]
    assert not (tmp_path / "runs").exists()


def test_it_says_the_same_in_plain_lines(tmp_path: Path):
    done = typed("doctor", "--runs", tmp_path)
    assert done.code == 0
    words = [line.split()[0] for line in done.out.splitlines()]
    assert words[:5] == ["Machine", "Versions", "Devices", "Arithmetic", "Pictures"]
    assert words.count("Storage") == 4
    assert "All that is needed is here." in done.out
    assert any(line.startswith("Missing") and "HEIC" in line for line in done.out.splitlines())
    assert "convsmith train digits" in done.err


def test_what_the_caches_hold_is_added_up_without_following_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONVSMITH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "pixels").mkdir(parents=True)
    (tmp_path / "cache" / "pixels" / "a").write_bytes(bytes(1000))
    (tmp_path / "cache" / "b").write_bytes(bytes(234))
    (tmp_path / "cache" / "link").symlink_to(tmp_path / "cache" / "b")
    told = doctor.examine(tmp_path)
    assert {place["what"]: place["bytes"] for place in told["storage"]}["pixel cache"] == 1234


@pytest.mark.parametrize(
    ("version", "said"), [("2.9.1", "2.9.1 is older than 2.10"), (None, "is not installed"), ("2.10.0+cu130", "")]
)
def test_a_package_that_is_too_old_or_not_there_is_broken(
    version: str | None, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: version if name == "torch" else known(name))
    done = typed("doctor", "--runs", tmp_path)
    assert done.code == (6 if said else 0)
    broken = [line for line in done.out.splitlines() if line.startswith("Broken")]
    assert len(broken) == bool(said)
    if said:
        assert said in broken[0]
        assert "pip install" in broken[0]
        assert "All that is needed" not in done.out


def test_a_library_that_cannot_be_loaded_is_broken_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def load(name: str) -> object:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nmore")
        return SimpleNamespace()

    monkeypatch.setattr(doctor, "import_module", load)
    done = typed("doctor", "--runs", tmp_path)
    assert done.code == 6
    assert "torchvision: cannot be loaded (operator torchvision::nms does not exist)" in done.out


def test_pillow_without_jpeg_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    supported = [name for name in features.get_supported() if name != "jpg"]
    monkeypatch.setattr(features, "get_supported", lambda: supported)
    done = typed("doctor", "--runs", tmp_path)
    assert done.code == 6
    assert "was built without JPEG" in done.out


def test_little_room_and_a_folder_that_cannot_be_written_to_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    done = typed("doctor", "--runs", tmp_path)
    assert done.code == 0
    assert "room on the disk: 5 MB are left" in done.out
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: path != tmp_path)
    done = typed("doctor", "--runs", tmp_path / "runs")
    assert done.code == 6
    assert f"runs: {tmp_path} cannot be written to" in done.out
