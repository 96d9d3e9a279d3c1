"""The pixel cache: the same bytes as one by one, made once, never half."""

from __future__ import annotations

import errno
import os
import threading
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from convsmith.errors import DataError, ResourceError
from convsmith.images import Dataset, assign_roles, audit, cache, evaluation_pixels, open_source, pixel_cache
from convsmith.images.threads import in_threads

LAYOUT = {"size": 8, "fit": "crop", "channels": 3}


@pytest.fixture
def audited(flowers) -> Dataset:
    return assign_roles(audit(*open_source(flowers))[0])


def one_by_one(dataset: Dataset, layout=LAYOUT) -> np.ndarray:
    return np.stack([evaluation_pixels(dataset.read(i), **layout).transpose(2, 0, 1) for i in range(len(dataset))])


def forbid(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the pictures were made again")

    monkeypatch.setattr(cache, "_write", refuse)


def test_the_cache_holds_the_evaluation_pixels_in_the_order_of_the_data_set(audited, tmp_path):
    pixels = pixel_cache(audited, **LAYOUT, folder=tmp_path / "c")
    assert pixels.shape == (40, 3, 8, 8)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert not pixels.flags.writeable
    assert np.array_equal(pixels, one_by_one(audited))
    turned = audited.select(np.arange(40)[::-1])
    assert np.array_equal(pixel_cache(turned, **LAYOUT, folder=tmp_path / "c"), pixels[::-1])
    assert len(list((tmp_path / "c").iterdir())) == 2


def test_a_later_run_reuses_it(audited, tmp_path, monkeypatch):
    first = pixel_cache(audited, **LAYOUT, folder=tmp_path / "c")
    forbid(monkeypatch)
    assert np.array_equal(pixel_cache(audited, **LAYOUT, folder=tmp_path / "c"), first)


@pytest.mark.parametrize("change", [{"size": 9}, {"fit": "pad"}, {"channels": 1}, {"keep": 0.8}])
def test_another_size_fit_keep_or_channel_count_is_another_cache(audited, tmp_path, change):
    pixel_cache(audited, **LAYOUT, folder=tmp_path / "c")
    layout = {**LAYOUT, **change}
    assert np.array_equal(pixel_cache(audited, **layout, folder=tmp_path / "c"), one_by_one(audited, layout))
    assert len(list((tmp_path / "c").iterdir())) == 2


def test_newer_rules_make_a_new_cache(audited, tmp_path, monkeypatch):
    pixel_cache(audited, **LAYOUT, folder=tmp_path / "c")
    monkeypatch.setattr(cache, "RULES", cache.RULES + 1)
    pixel_cache(audited, **LAYOUT, folder=tmp_path / "c")
    assert len(list((tmp_path / "c").iterdir())) == 2


def test_another_decoder_makes_a_new_cache_of_files_and_none_of_pictures_in_memory(audited, tmp_path, monkeypatch):
    digits, layout = audit(*open_source("digits", limit=30))[0], {"size": 16, "fit": "crop", "channels": 1}
    pixel_cache(audited, **LAYOUT, folder=tmp_path / "files")
    pixel_cache(digits, **layout, folder=tmp_path / "arrays")
    monkeypatch.setattr(cache, "decoder", lambda: "Pillow 99.0 jpeg 9 webp 9")
    pixel_cache(audited, **LAYOUT, folder=tmp_path / "files")
    pixel_cache(digits, **layout, folder=tmp_path / "arrays")
    assert (len(list((tmp_path / "files").iterdir())), len(list((tmp_path / "arrays").iterdir()))) == (2, 1)


def test_other_planes_of_the_same_files_are_another_cache(audited, tmp_path):
    layout = {**LAYOUT, "channels": 1}
    seen = []
    for plane in (0, 2):
        picked = replace(audited, pixels=replace(audited.pixels, pick=(plane,)))
        seen.append(pixel_cache(picked, **layout, folder=tmp_path / "c"))
        assert np.array_equal(seen[-1], one_by_one(picked, layout))
    assert not np.array_equal(*seen)
    assert len(list((tmp_path / "c").iterdir())) == 2


@pytest.mark.parametrize("damage", ["short", "empty", "header", "zeros", "other"])
def test_a_damaged_cache_is_made_again(audited, tmp_path, damage):
    expected = np.array(pixel_cache(audited, **LAYOUT, folder=tmp_path / "c"))
    (path,) = (tmp_path / "c").iterdir()
    content = path.read_bytes()
    if damage == "other":
        np.save(path, np.zeros((3, 3, 8, 8), np.uint8))
    else:
        path.write_bytes(
            {
                "short": content[:-1],
                "empty": b"",
                "header": b"\0" * 80 + content[80:],
                "zeros": content[:128] + bytes(len(content) - 128),
            }[damage]
        )
    assert np.array_equal(pixel_cache(audited, **LAYOUT, folder=tmp_path / "c"), expected)


def test_pictures_in_memory_that_fit_need_no_file(tmp_path):
    dataset, _ = audit(*open_source("digits"))
    part = dataset.select([5, 3, 1700])
    pixels = pixel_cache(part, size=8, fit="crop", channels=1, folder=tmp_path / "c")
    assert np.array_equal(pixels, one_by_one(part, {"size": 8, "fit": "crop", "channels": 1}))
    assert not pixels.flags.writeable
    assert dataset.pixels.images.flags.writeable
    assert not (tmp_path / "c").exists()


def test_pictures_in_memory_of_another_size_are_brought_to_it(tmp_path):
    dataset = audit(*open_source("digits", limit=30))[0]
    layout = {"size": 16, "fit": "stretch", "channels": 3}
    assert np.array_equal(pixel_cache(dataset, **layout, folder=tmp_path / "c"), one_by_one(dataset, layout))


def test_the_folder_follows_the_environment(audited, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVSMITH_CACHE", str(tmp_path / "mine"))
    pixel_cache(audited, **LAYOUT)
    assert [path.suffix for path in (tmp_path / "mine/pixels").iterdir()] == [".npy"]


def test_a_folder_that_cannot_be_written_is_said_and_memory_used(audited, tmp_path):
    (tmp_path / "blocked").write_text("a file where a folder should be")
    notes: list[str] = []
    pixels = pixel_cache(audited, **LAYOUT, folder=tmp_path / "blocked" / "c", note=notes.append)
    assert np.array_equal(pixels, one_by_one(audited))
    assert not pixels.flags.writeable
    assert "cannot be written" in notes[0]
    assert len(notes) == 1


def test_too_little_disk_is_refused_before_anything_is_decoded(audited, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: usage(10**9, 10**9, cache.SPARE))
    seen = []
    with pytest.raises(ResourceError, match="40 images of 8 x 8 need 64 MB") as caught:
        pixel_cache(audited, **LAYOUT, folder=tmp_path / "c", progress=lambda done, total: seen.append(done))
    assert "CONVSMITH_CACHE" in caught.value.mend
    assert caught.value.exit_code == 5
    assert seen == []


def test_a_disk_that_fills_while_writing_is_a_resource_error_and_leaves_nothing(audited, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(ResourceError):
        pixel_cache(audited, **LAYOUT, folder=tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_an_interrupt_while_writing_leaves_nothing_and_no_thread(audited, tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        pixel_cache(audited, **LAYOUT, folder=tmp_path / "c", progress=interrupt)
    assert list((tmp_path / "c").iterdir()) == []
    assert threading.active_count() == before


def test_a_file_lost_since_the_audit_is_named_and_leaves_nothing(audited, flowers, tmp_path):
    (flowers / "tulip/07.png").unlink()
    with pytest.raises(DataError, match=r"tulip/07.png: the file is not there"):
        pixel_cache(audited, **LAYOUT, folder=tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_a_cache_needs_an_audit(flowers):
    with pytest.raises(ValueError, match="audited"):
        pixel_cache(open_source(flowers)[0], **LAYOUT)


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_threads_give_every_result_once_and_in_order(count):
    seen = []
    assert list(in_threads(lambda i: i * i, count, lambda *state: seen.append(state))) == [i * i for i in range(count)]
    assert seen == [(i + 1, count) for i in range(count)]


def test_what_is_not_begun_is_dropped_when_the_caller_stops():
    begun = []
    results = in_threads(lambda i: begun.append(i), 10_000)
    next(results)
    results.close()
    assert len(begun) < 1_000


def test_deep_pictures_are_cached_by_their_range(tmp_path):
    for i, name in enumerate("aabb"):
        (tmp_path / "root" / name).mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(i).integers(0, 5000, (20, 16), np.uint16)
        Image.fromarray(values).save(tmp_path / "root" / name / f"{i}.png")
    dataset, _ = audit(*open_source(tmp_path / "root"))
    seen = {}
    for limits in ((0, 5000), (1000, 3000)):
        layout = {**LAYOUT, "range": limits}
        seen[limits] = pixel_cache(dataset, **layout, folder=tmp_path / "c")
        assert np.array_equal(seen[limits], one_by_one(dataset, layout))
    assert not np.array_equal(*seen.values())
    with pytest.raises(DataError, match="no range"):
        pixel_cache(dataset, **LAYOUT, folder=tmp_path / "c")


def test_pictures_in_memory_that_fit_are_still_cropped_where_less_is_kept(tmp_path):
    dataset = audit(*open_source("digits", limit=30))[0]
    layout = {"size": 8, "fit": "crop", "channels": 1, "keep": 0.75}
    pixels = pixel_cache(dataset, **layout, folder=tmp_path / "c")
    assert np.array_equal(pixels, one_by_one(dataset, layout))
    assert not np.array_equal(pixels, one_by_one(dataset, {**layout, "keep": 1.0}))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_threads_that_take_several_at_a_time_give_the_same(count):
    seen = []
    results = in_threads(lambda i: i * i, count, lambda *state: seen.append(state), chunk=8)
    assert list(results) == [i * i for i in range(count)]
    assert seen == [(i + 1, count) for i in range(count)]
