"""`predict`: files, folders, a list on standard input; what cannot be read never hides the rest."""

from __future__ import annotations

import csv
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typed import trained, typed

from convsmith.images import open_source


def recorded(run: Path, split: str = "test") -> dict[str, tuple[np.ndarray, str]]:
    """Logits and pixel hash by id, as the run recorded them."""
    with np.load(run / "predictions" / f"{split}.npz", allow_pickle=False) as arrays:
        rows = zip(arrays["ids"], arrays["logits"], arrays["pixels"], strict=True)
        return {str(name): (logits, pixels.tobytes().hex()) for name, logits, pixels in rows}


def assert_as_recorded(run: Path, files: dict[str, Path], batch: int) -> None:
    """`predict` gives the recorded pixels, and logits within 1e-4 of the largest."""
    known = recorded(run)
    rows = typed("predict", run, *files.values(), "--json", "--batch", batch).json
    assert [row["path"] for row in rows] == [str(path) for path in files.values()]
    for name, row in zip(files, rows, strict=True):
        logits, pixels = known[name]
        assert row["pixels"] == pixels
        assert np.abs(np.array(row["logits"]) - logits).max() <= 1e-4 * np.abs(logits).max()


@pytest.mark.parametrize("batch", [1, 64])
def test_the_runs_own_images_get_the_recorded_pixels_and_logits(batch: int, run: Path, insects: Path):
    assert_as_recorded(run, {name: insects / name for name in recorded(run)}, batch)


@pytest.mark.slow
@pytest.mark.real_data
def test_fashion_mnist_written_as_png_gets_the_recorded_pixels_and_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shared = Path("/usr/share/datasets/fashion-mnist")
    known = [Path(os.environ.get("CONVSMITH_DATA", "/nowhere")) / "fashion-mnist", shared]
    if not any(folder.is_dir() for folder in known):
        pytest.skip("fashion-mnist is not on this machine")
    run = trained("fashion-mnist", tmp_path / "runs", "--limit", 600, "--epochs", 1, "--set", "train.batch=64")
    dataset, _ = open_source("fashion-mnist", limit=600)
    rows = {name: row for row, name in enumerate(dataset.ids)}
    files = {}
    for name in list(recorded(run))[:80]:
        files[name] = tmp_path / f"{name.replace('/', '-')}.png"
        Image.fromarray(dataset.read(rows[name])[..., 0]).save(files[name])
    for batch in (1, 64):
        assert_as_recorded(run, files, batch)


def test_a_folder_is_all_its_images_and_dash_reads_paths(run: Path, insects: Path, tmp_path: Path):
    shutil.copytree(insects, tmp_path / "mixed")
    for name in ("._000.png", "notes.txt", ".DS_Store"):
        (tmp_path / "mixed" / name).write_bytes(b"no image")
    assert len(typed("predict", run, tmp_path / "mixed", "--json").json) == 60
    rows = typed("predict", run, insects / "ant", "--json").json
    assert [row["path"] for row in rows] == sorted(map(str, (insects / "ant").iterdir()))
    listed = "".join(f"{row['path']}\n" for row in rows[:3]) + "\n"
    assert typed("predict", run, "-", "--json", stdin=listed).json == rows[:3]


def test_an_answer_holds_class_probability_and_the_next_best(run: Path, insects: Path):
    (row,) = typed("predict", run, insects / "bee" / "003.png", "--json").json
    assert row["class"] in {"ant", "bee", "cat"}
    assert row["top"][0]["class"] == row["class"]
    assert sum(item["probability"] for item in row["top"]) == pytest.approx(1, abs=1e-5)
    assert row["probability"] == max(item["probability"] for item in row["top"])
    assert row["error"] is None


def test_an_unreadable_file_among_good_ones_is_named_and_the_others_answered(run: Path, insects: Path, tmp_path: Path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"<html>")
    gone = tmp_path / "gone.png"
    good = insects / "cat" / "001.png"
    paths = f"{good}\n{bad}\n{gone}\n{good}\n"
    done = typed("predict", run, "-", "--json", "--batch", 2, stdin=paths)
    assert done.code == 3
    first, second, third, last = done.json
    assert first["class"] == last["class"] is not None
    assert second["class"] is None
    assert str(bad) in second["error"]
    assert str(gone) in third["error"]
    assert "2 of 4 pictures could not be read" in done.err
    table = typed("predict", run, good, bad, "--format", "table")
    assert table.code == 3
    assert "unreadable" in table.out


def test_csv_is_what_a_pipe_gets_and_keeps_odd_names(run: Path, insects: Path, tmp_path: Path):
    odd = tmp_path / 'a, "b" ☃.png'
    odd.write_bytes((insects / "ant" / "000.png").read_bytes())
    done = typed("predict", run, odd)
    header, row = list(csv.reader(io.StringIO(done.out)))
    assert header == ["path", "class", "probability", "error"]
    assert row[0] == str(odd)
    assert 0 < float(row[2]) <= 1
    assert typed("predict", run, odd, "--format", "csv").out == done.out


def test_a_name_that_is_not_utf8_is_answered(run: Path, insects: Path, tmp_path: Path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    Path(odd).write_bytes((insects / "ant" / "000.png").read_bytes())
    (row,) = typed("predict", run, odd, "--json").json
    assert row["path"].endswith(r"\xff.png")
    assert row["error"] is None


@pytest.mark.parametrize(
    ("paths", "words"), [((), "No picture was named"), (("gone.png",), "no file or folder gone.png")]
)
def test_nothing_to_predict_is_refused(paths: tuple[str, ...], words: str, run: Path):
    done = typed("predict", run, *paths)
    assert done.code == 2
    assert words in done.err


def test_an_empty_folder_is_refused_and_an_empty_list_gets_no_rows(run: Path, tmp_path: Path):
    done = typed("predict", run, tmp_path)
    assert done.code == 2
    assert "holds no images" in done.err
    assert typed("predict", run, "-", "--json", stdin="").json == []


def test_a_link_to_nothing_in_a_folder_gets_a_row_with_the_reason(run: Path, insects: Path, tmp_path: Path):
    shutil.copytree(insects / "bee", tmp_path / "bee")
    (tmp_path / "bee" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    done = typed("predict", run, tmp_path / "bee", "--json")
    assert done.code == 3
    (row,) = [row for row in done.json if row["path"].endswith("gone.png")]
    assert row["class"] is None
    assert row["error"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_folder_that_cannot_be_opened_is_named_and_not_passed_over(run: Path, insects: Path, tmp_path: Path):
    shutil.copytree(insects / "bee", tmp_path / "all" / "bee")
    (tmp_path / "all" / "closed").mkdir(mode=0)
    for command in (("predict", run, tmp_path / "all"), ("data", tmp_path / "all")):
        done = typed(*command)
        assert done.code == 3
        assert "cannot be opened: Permission denied" in " ".join(done.err.split())
