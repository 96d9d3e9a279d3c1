"""Named sets, IDX files and limits."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from convsmith.errors import DataError, ResourceError, UsageError
from convsmith.images import SOURCES, open_source, sources
from convsmith.images.idx import open_idx, read_idx


def idx(values: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, values.ndim])
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.astype(np.uint8).tobytes()
    )


def write_set(
    folder: Path, *, count: int = 40, packed: bool = False, parts: tuple[str, ...] = ("train", "t10k")
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for k, part in enumerate(parts):
        images = np.random.default_rng(k).integers(0, 256, (count, 5, 4), np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", np.arange(count) % 10)):
            content, path = idx(values), folder / f"{part}-{name}-ubyte"
            Path(f"{path}.gz" if packed else path).write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A small set in the role of Fashion-MNIST, with its true checksums, and no copy installed."""
    folder = write_set(tmp_path / "published", packed=True)
    sums = {path.name[:-3]: hashlib.sha256(read_idx(path)).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(sources, "FASHION_FILES", sums)
    monkeypatch.setattr(sources, "FASHION_URL", f"{folder.as_uri()}/")
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", tmp_path / "no-system")
    monkeypatch.setenv("CONVSMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVSMITH_DATA", raising=False)
    return folder


def test_digits_are_the_ones_of_scikit_learn_scaled_to_bytes():
    from sklearn.datasets import load_digits

    dataset, notes = open_source("digits")
    values = load_digits().images[7]
    assert len(dataset) == 1797
    assert dataset.classes == tuple("0123456789")
    assert dataset.ids[0] == "digits/0000"
    assert dataset.read(7).shape == (8, 8, 1)
    assert dataset.read(7)[..., 0].tolist() == [[round(v * 255 / 16) for v in row] for row in values]
    assert set(dataset.roles) == {""}
    assert notes.skipped == ()


def test_every_named_set_has_a_summary_and_a_source():
    assert set(SOURCES) == {"digits", "fashion-mnist"}
    assert all(entry.summary and entry.source for entry in SOURCES.values())


def test_a_near_miss_of_a_name_is_answered_with_the_name():
    with pytest.raises(UsageError, match="digit is neither") as caught:
        open_source("digit")
    assert caught.value.mend == "Did you mean digits?"


def test_a_folder_of_the_same_name_is_said_to_be_reached_otherwise(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "./digits" in open_source("digits")[1].notes[0]


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_idx_files_is_read_plain_or_gzipped(tmp_path, packed):
    dataset, _ = open_source(write_set(tmp_path / "mine", packed=packed))
    assert len(dataset) == 80
    assert dataset.classes == tuple("0123456789")
    assert dataset.ids[40] == "mine/test/00000"
    assert dataset.roles[39:41] == ("train", "test")
    expected = np.random.default_rng(1).integers(0, 256, (40, 5, 4), np.uint8)
    assert np.array_equal(dataset.read(41)[..., 0], expected[1])


def test_train_alone_among_idx_files_is_left_to_be_split(tmp_path):
    assert set(open_source(write_set(tmp_path, parts=("train",)))[0].roles) == {""}


def test_a_gzipped_copy_beside_the_plain_file_is_no_second_set(tmp_path):
    write_set(tmp_path)
    write_set(tmp_path, packed=True)
    assert len(open_source(tmp_path)[0]) == 80


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "begins with nothing"),
        (b"\x89PNG\r\n\x1a\n", "not an IDX file of unsigned bytes"),
        (b"\0\0\x0d\1" + struct.pack(">I", 1) + bytes(4), "unsigned bytes"),
        (idx(np.zeros((2, 3)))[:-1], r"states \[2, 3\], 6 bytes, but holds 5"),
        (idx(np.zeros((2, 3))) + b"x", "holds more"),
        (b"\0\0\x08\3" + struct.pack(">I", 9), "states"),
        (b"\0\0\x08\3" + b"xx", "states"),
        (b"\0\0\x08\4" + b"\xff" * 16 + b"more", "but holds 4"),
    ],
)
def test_a_broken_idx_file_is_refused_with_the_numbers(tmp_path, content, says):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_idx(path)


def test_a_truncated_gzip_is_refused(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx(np.arange(200)))[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(path)


def test_images_without_labels_and_sizes_that_differ_are_refused(tmp_path):
    folder = write_set(tmp_path)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(3)))
    with pytest.raises(DataError, match=r"\[40, 5, 4\], its labels \[3\]"):
        open_source(folder)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="no labels beside it") as caught:
        open_source(folder)
    assert "t10k-labels-idx1-ubyte" in caught.value.mend


def test_a_label_beyond_the_classes_is_refused(tmp_path):
    with pytest.raises(DataError, match="label 9, but mine has 3 classes"):
        open_idx(write_set(tmp_path), name="mine", source="mine", classes=("a", "b", "c"))


def test_fashion_is_fetched_checked_and_then_found_in_the_cache(published, tmp_path):
    dataset, _ = open_source("fashion-mnist")
    assert dataset.classes[0] == "T-shirt/top"
    assert len(dataset) == 80
    assert dataset.ids[0] == "fashion-mnist/train/00000"
    for path in published.iterdir():
        path.unlink()
    assert len(open_source("fashion-mnist")[0]) == 80
    assert sorted(path.name for path in (tmp_path / "cache/data/fashion-mnist").iterdir()) == sorted(
        f"{name}.gz" for name in sources.FASHION_FILES
    )


def test_the_users_own_folder_comes_first(published, tmp_path, monkeypatch):
    write_set(tmp_path / "own/fashion-mnist")
    for path in published.iterdir():
        path.unlink()
    monkeypatch.setenv("CONVSMITH_DATA", str(tmp_path / "own"))
    assert len(open_source("fashion-mnist")[0]) == 80


def test_a_copy_with_another_checksum_is_refused(published, tmp_path, monkeypatch):
    write_set(tmp_path / "own/fashion-mnist", count=30)
    monkeypatch.setenv("CONVSMITH_DATA", str(tmp_path / "own"))
    with pytest.raises(DataError, match="its checksum differs"):
        open_source("fashion-mnist")


def test_a_download_that_is_not_the_published_file_leaves_nothing(published, tmp_path):
    (published / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((40, 5, 4)))))
    with pytest.raises(DataError, match="not the published file"):
        open_source("fashion-mnist")
    left = {path.name.removesuffix(".gz") for path in (tmp_path / "cache/data/fashion-mnist").iterdir()}
    assert left <= set(sources.FASHION_FILES) - {"train-images-idx3-ubyte"}


def test_without_a_connection_the_error_says_what_to_install_and_where_to_put_files(published, tmp_path):
    (published / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"labels-idx1-ubyte.gz is not on this machine and cannot be fetched") as caught:
        open_source("fashion-mnist")
    assert "apt install dataset-fashion-mnist" in caught.value.mend
    assert str(tmp_path / "cache/data/fashion-mnist") in caught.value.mend


def test_a_cache_folder_that_cannot_be_written_is_a_resource_error(published, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ResourceError, match="cannot be written") as caught:
        open_source("fashion-mnist")
    assert "CONVSMITH_CACHE" in caught.value.mend


@pytest.mark.real_data
@pytest.mark.skipif(
    not (sources.SYSTEM_FOLDER / "fashion-mnist").is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_the_installed_fashion_mnist_is_the_published_one(monkeypatch):
    monkeypatch.delenv("CONVSMITH_DATA", raising=False)
    dataset, _ = open_source("fashion-mnist")
    assert dataset.counts()["train"] == dict.fromkeys(sources.FASHION_CLASSES, 6000)
    assert dataset.counts()["test"] == dict.fromkeys(sources.FASHION_CLASSES, 1000)
    assert dataset.classes[dataset.targets[0]] == "Ankle boot"  # the first picture of the set, as its paper shows it


def test_a_limit_keeps_the_shares_of_the_classes_and_is_always_the_same():
    whole, _ = open_source("digits")
    part, again = (open_source("digits", limit=600)[0] for _ in range(2))
    assert part.ids == again.ids
    assert len(part) == 600
    assert set(part.ids) < set(whole.ids)
    kept, all_of = (one.counts()[""] for one in (part, whole))
    assert all(abs(kept[name] - all_of[name] / 3) < 1.01 for name in whole.classes)


def test_a_limit_keeps_the_shares_of_stated_roles(tmp_path):
    part, _ = open_source(write_set(tmp_path, count=100), limit=60)
    assert part.counts() == {"train": dict.fromkeys("0123456789", 3), "test": dict.fromkeys("0123456789", 3)}


def test_a_limit_of_all_or_more_keeps_all():
    assert len(open_source("digits", limit=1797)[0]) == len(open_source("digits", limit=5000)[0]) == 1797


def test_a_limit_below_three_per_class_is_refused_with_the_least_that_works():
    with pytest.raises(UsageError, match="29 images is too small for 10 classes") as caught:
        open_source("digits", limit=29)
    assert "at least 30" in caught.value.mend
    assert len(open_source("digits", limit=30)[0]) == 30
