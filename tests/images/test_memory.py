"""The memory of audits: it saves reading, and changes nothing else."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convsmith.errors import DataError
from convsmith.images import audit, memory, open_source, readers
from convsmith.images import audit as audit_function

audit_module = sys.modules[audit_function.__module__]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVSMITH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def aged(flowers) -> Path:
    """A folder whose files were last changed an hour ago."""
    age(flowers)
    return flowers


def age(root: Path, seconds: float = 3600) -> None:
    for path in root.rglob("*.*"):
        os.utime(path, (time.time() - seconds,) * 2)


def read_paths(monkeypatch) -> list[str]:
    """Note what is decoded from here on."""
    seen: list[str] = []
    examine = readers.examine

    def note(path, **options):
        seen.append(os.path.relpath(path, Path(path).parents[1]))
        return examine(path, **options)

    monkeypatch.setattr(readers, "examine", note)
    return seen


def same(first, second) -> bool:
    (one, record), (other, again) = first, second
    arrays = zip(vars(one.scan).values(), vars(other.scan).values(), strict=True)
    return (
        one.ids == other.ids
        and np.array_equal(one.hashes, other.hashes)
        and one.twins == other.twins
        and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in arrays)
        and {**record, "remembered": 0} == {**again, "remembered": 0}
    )


def database(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache/scans").glob("*.sqlite")
    return path


def test_a_second_audit_reads_nothing_and_says_the_same(aged, monkeypatch):
    (aged / "rose/03.png").write_bytes((aged / "rose/03.png").read_bytes()[:60])
    Image.fromarray(np.zeros((4, 4), np.float32)).save(aged / "rose/deep.tiff")
    Image.new("CMYK", (9, 9)).save(aged / "rose/inks.jpg")
    age(aged)
    first = audit(*open_source(aged))
    read = read_paths(monkeypatch)
    seen = []
    second = audit(*open_source(aged), progress=lambda done, total: seen.append((done, total)))
    assert read == []
    assert first[1]["remembered"] == 0
    assert second[1]["remembered"] == 42
    assert seen[-1] == (42, 42)
    assert same(first, second)
    assert same(first, audit(*open_source(aged), memory=False))


def test_what_changed_is_read_again_and_nothing_else(aged, paint, monkeypatch):
    audit(*open_source(aged))
    paint("flowers/rose/05.png", seed=999)
    paint("flowers/tulip/new.png", seed=998)
    (aged / "tulip/07.png").unlink()
    read = read_paths(monkeypatch)
    again = audit(*open_source(aged))
    assert sorted(read) == ["rose/05.png", "tulip/new.png"]
    assert again[1]["remembered"] == 38
    assert same(again, audit(*open_source(aged), memory=False))


def test_other_pixels_of_the_same_size_and_time_are_still_noticed(aged, monkeypatch):
    path = aged / "rose/00.bmp"
    Image.new("L", (8, 8), 10).save(path)
    age(aged)
    audit(*open_source(aged))
    before = path.stat()
    time.sleep(0.02)  # more than a tick of the clock that stamps inodes
    Image.new("L", (8, 8), 200).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    read = read_paths(monkeypatch)
    clean, _ = audit(*open_source(aged))
    assert read == ["rose/00.bmp"]
    assert clean.scan.brightness[clean.ids.index("rose/00.bmp")] == pytest.approx(200 / 255)


def test_a_file_changed_a_moment_ago_is_not_remembered(aged):
    os.utime(aged / "rose/01.png")
    audit(*open_source(aged))
    assert audit(*open_source(aged))[1]["remembered"] == 39


def test_a_picture_is_held_against_its_hash_even_where_the_memory_is_wrong(aged, tmp_path, monkeypatch):
    audit(*open_source(aged))
    swapped = (aged / "rose/02.png").read_bytes()
    stamps = stamps_of(aged)
    monkeypatch.setattr(audit_module, "stamp_of", lambda path: stamps[os.fspath(path)])
    (aged / "rose/02.png").write_bytes((aged / "rose/04.png").read_bytes())
    clean, record = audit(*open_source(aged))
    assert record["remembered"] == 40
    with pytest.raises(DataError, match="not the picture it was"):
        clean.read(clean.ids.index("rose/02.png"))
    (aged / "rose/02.png").write_bytes(swapped)
    clean.read(clean.ids.index("rose/02.png"))


def stamps_of(root: Path) -> dict[str, memory.Stamp | None]:
    return {str(path): memory.stamp_of(path) for path in root.rglob("*.*")}


def test_without_memory_nothing_is_written(aged, tmp_path):
    assert audit(*open_source(aged), memory=False)[1]["remembered"] == 0
    assert not (tmp_path / "cache").exists()


def test_another_path_to_the_same_folder_is_the_same_folder(aged, tmp_path):
    audit(*open_source(aged))
    (tmp_path / "link").symlink_to(aged)
    assert audit(*open_source(tmp_path / "link"))[1]["remembered"] == 40


def test_another_decoder_reads_all_again(aged, monkeypatch):
    audit(*open_source(aged))
    monkeypatch.setattr(memory, "decoder", lambda: "Pillow 99.0 jpeg 9 webp 9")
    assert audit(*open_source(aged))[1]["remembered"] == 0
    assert audit(*open_source(aged))[1]["remembered"] == 40


def test_pixels_of_files_that_look_the_same_are_remembered_too(aged, monkeypatch):
    for name, seed in (("a.png", 1), ("b.bmp", 1), ("c.png", 2)):
        noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(noise).save(aged / "rose" / name)
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (9, 9, 3), np.uint8)[:, ::-1].copy()).save(
        aged / "rose/d.png"
    )
    age(aged)
    read = []
    decode_file = audit_module.decode_file

    def note(path, pick):
        read.append(path[-5:])
        return decode_file(path, pick)

    monkeypatch.setattr(audit_module, "decode_file", note)
    first = audit(*open_source(aged))
    assert sorted(read) == ["a.png", "b.bmp", "c.png", "d.png"]
    assert first[1]["duplicates"] == [["rose/a.png", "rose/b.bmp"]]
    again = audit(*open_source(aged))
    assert len(read) == 4
    assert again[1]["remembered"] == 44
    assert same(first, again)


@pytest.mark.parametrize("change", ["RULES", "VERSION"])
def test_other_rules_read_all_again(aged, monkeypatch, change):
    audit(*open_source(aged))
    monkeypatch.setattr(memory, change, getattr(memory, change) + 1)
    assert audit(*open_source(aged))[1]["remembered"] == 0
    assert audit(*open_source(aged))[1]["remembered"] == 40


def test_a_choice_of_planes_or_of_floats_has_a_memory_of_its_own(aged):
    Image.fromarray(np.eye(4, dtype=np.float32)).save(aged / "rose/deep.tiff")
    age(aged)
    assert len(audit(*open_source(aged))[1]["unreadable"]) == 1
    clean, record = audit(*open_source(aged), floats=True)
    assert (record["remembered"], record["unreadable"], len(clean)) == (0, [], 41)
    assert audit(*open_source(aged), floats=True)[1]["remembered"] == 41
    assert audit(*open_source(aged))[1]["remembered"] == 41


@pytest.mark.parametrize("damage", ["text", "cut", "empty", "zeros"])
def test_a_damaged_memory_is_no_error(aged, tmp_path, damage):
    first = audit(*open_source(aged))
    path = database(tmp_path)
    content = path.read_bytes()
    changed = {
        "text": b"this is no database" * 100,
        "cut": content[: len(content) // 2],
        "empty": b"",
        "zeros": content[:200] + bytes(len(content) - 200),
    }[damage]
    path.write_bytes(changed)
    clean, record = audit(*open_source(aged))
    assert np.array_equal(clean.hashes, first[0].hashes)
    notes = [note for note in record["notes"] if "memory of earlier audits was damaged" in note]
    assert len(notes) <= 1
    assert record["remembered"] == 0
    third = audit(*open_source(aged))
    assert third[1]["remembered"] == 40
    assert same(first, third)


def test_no_flipped_byte_of_the_memory_changes_what_is_said(aged, tmp_path):
    first = audit(*open_source(aged))
    path = database(tmp_path)
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name, what FROM seen ORDER BY name").fetchall()
        for k, (name, what) in enumerate(rows):
            flipped = bytearray(what)
            flipped[(k * 37) % len(what)] ^= 1 << (k % 8)
            connection.execute("UPDATE seen SET what = ? WHERE name = ?", (bytes(flipped), name))
    connection.close()
    second = audit(*open_source(aged))
    assert second[1]["remembered"] == 0
    assert same(first, second)


def test_a_memory_that_cannot_be_written_is_noted_and_all_is_read(aged, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    clean, record = audit(*open_source(aged))
    assert len(clean) == 40
    assert sum("cannot be remembered" in note for note in record["notes"]) == 1


def test_a_file_that_was_out_of_reach_is_tried_again(aged, monkeypatch):
    def refuse(path, *more, **options):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse_one(os.open, "rose/06.png", refuse))
        assert audit(*open_source(aged))[1]["unreadable"] == [{"path": "rose/06.png", "reason": "Permission denied"}]
    record = audit(*open_source(aged))[1]
    assert (record["remembered"], record["unreadable"]) == (39, [])


def refuse_one(real, ending, refuse):
    return lambda path, *more, **options: (refuse if str(path).endswith(ending) else real)(path, *more, **options)


def test_an_interrupted_audit_keeps_what_it_had_read(aged, monkeypatch):
    monkeypatch.setattr(audit_module, "_BATCH", 5)

    def interrupt(done: int, total: int) -> None:
        if done == 28:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(*open_source(aged), progress=interrupt)
    assert audit(*open_source(aged))[1]["remembered"] == 28


def test_rows_of_files_that_are_gone_are_cleared_away(aged, tmp_path, monkeypatch):
    audit(*open_source(aged))
    monkeypatch.setattr(memory, "SPARE_ROWS", 5)
    for path in [*sorted((aged / "rose").iterdir())[2:], *sorted((aged / "tulip").iterdir())[2:]]:
        path.unlink()
    audit(*open_source(aged))
    with sqlite3.connect(database(tmp_path)) as connection:
        assert connection.execute("SELECT count(*) FROM seen").fetchone() == (4,)
    connection.close()


def test_all_memories_together_stay_within_their_cap(aged, paint, tmp_path, monkeypatch):
    audit(*open_source(aged))
    oldest = database(tmp_path)
    os.utime(oldest, (1, 1))
    paint("other/a/1.png")
    paint("other/b/2.png", seed=2)
    monkeypatch.setattr(memory, "CAP", 1)
    audit(*open_source(tmp_path / "other"))
    assert not oldest.exists()
    assert database(tmp_path).exists()


AUDIT = (
    "import sys; from convsmith.images import audit, open_source; print(audit(*open_source(sys.argv[1]))[1]['notes'])"
)


def test_two_processes_at_once_lose_and_damage_nothing(aged):
    started = [
        subprocess.Popen([sys.executable, "-c", AUDIT, str(aged)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in started] == ["[]"] * 3
    assert all(process.returncode == 0 for process in started)
    assert audit(*open_source(aged))[1]["remembered"] == 40


def test_names_that_are_no_utf8_are_remembered(aged, monkeypatch):
    name = os.path.join(os.fsencode(aged), b"rose", b"\xff\xfe.png")  # noqa: PTH118 - bytes
    with open(name, "wb") as stream:  # noqa: PTH123
        stream.write((aged / "rose/00.png").read_bytes()[:-20])
    os.utime(name, (1, 1))
    first = audit(*open_source(aged))
    second = audit(*open_source(aged))
    assert second[1]["remembered"] == 41
    assert same(first, second)
