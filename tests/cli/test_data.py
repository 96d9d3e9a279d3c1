"""`convsmith data`: what it tells, the page it writes, what it remembers, and that its hint is a command that works."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures_made import class_folder
from PIL import Image
from typed import SMALL, Typed, typed

from convsmith.cli.data import SAID

SIZE = (160, 128)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A smooth picture, in which near duplicates can be told from strangers."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def photos(root: Path, *, each: int = 12, size: tuple[int, int] = SIZE) -> Path:
    """Two classes of pictures, three of each patient."""
    for k, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for i in range(each):
            picture(100 * k + i, size).save(root / name / f"patient{10 * k + i // 3:02d}_{i:03d}.png")
    return root


def messy(root: Path) -> Path:
    """The same, and something of every kind that is worth a line."""
    photos(root)
    (root / "cat" / "page.jpg").write_bytes(b"<html>")
    (root / ".DS_Store").write_bytes(b"x")
    (root / "notes.txt").write_text("x")
    shutil.copy(root / "cat" / "patient00_000.png", root / "dog" / "patient10_wrong.png")
    shutil.copy(root / "cat" / "patient00_001.png", root / "cat" / "patient00_copy.png")
    picture(2).save(root / "cat" / "patient00_again.jpg", quality=90)
    picture(50).convert("L").save(root / "dog" / "patient14_grey.png")
    picture(51).convert("CMYK").save(root / "dog" / "patient14_print.jpg")
    return root


def line(done: Typed, label: str) -> str:
    """The lines of a label, joined."""
    found = [each for each in done.out.splitlines() if each.startswith(f"{label}:")]
    assert found, done.out
    return "\n".join(found)


def test_the_counts_are_those_of_the_folder_and_add_up():
    photos(Path("photos"))
    done = typed("data", "photos")
    assert done.code == 0, done.err
    first, header, *rows = done.out.splitlines()
    assert first == "24 images of 2 classes, 160 px wide and 128 px high"
    assert header.split() == ["class", "train", "tune", "test", "in", "all"]
    for row, name in zip(rows, ("cat", "dog"), strict=False):
        label, *numbers = row.split()
        assert label == name
        assert sum(map(int, numbers[:3])) == int(numbers[3]) == len(list(Path("photos", name).iterdir()))
    assert line(done, "Split").startswith("Split: 67/17/17 by class")
    assert "A network will see" in done.out
    assert "Symmetry left-right" in done.out
    assert "Labels disagree" not in done.out
    assert "Unreadable" not in done.out


def test_everything_strange_has_one_line_with_its_number_and_an_example():
    messy(Path("photos"))
    done = typed("data", "photos")
    assert done.code == 0, done.err
    assert line(done, "Labels disagree").startswith("Labels disagree: 1 set of")
    assert "cat/patient00_000.png = dog/patient10_wrong.png" in line(done, "Labels disagree")
    assert line(done, "Unreadable").startswith("Unreadable: 1 file left out: cat/page.jpg (a web page")
    assert "cat/patient00_001.png = cat/patient00_copy.png" in line(done, "Copies")
    assert "cat/patient00_002.png ~ cat/patient00_again.jpg" in line(done, "Near duplicates")
    assert "grey, 1 file: " in line(done, "Converted")
    assert "cmyk, 1 file: " in line(done, "Converted")
    assert line(done, "Passed over").startswith("Passed over: 2 files: .DS_Store (")
    assert "patient" in line(done, "Groups")
    for fact in ("page.jpg", "patient10_wrong"):
        assert "Note" not in "".join(each for each in done.out.splitlines() if fact in each), "a fact is told twice"


def test_notes_that_are_left_out_are_those_that_the_audit_makes():
    """Or the list of what is told elsewhere would be a list of nothing."""
    messy(Path("photos"))
    Path("photos/train").mkdir()
    for name in ("cat", "dog"):
        Path("photos", name).rename(Path("photos/train", name))
    class_folder(Path("photos/test"), classes=("cat", "dog"), each=3, size=(160, 128))
    shutil.copy("photos/train/cat/patient01_003.png", "photos/test/cat/leaked.png")
    frames = [picture(60), picture(61)]
    frames[0].save("photos/test/dog/moving.gif", save_all=True, append_images=frames[1:])
    notes = typed("data", "photos", "--json").json["notes"]
    for part in SAID:
        assert any(part in note for note in notes), part
    done = typed("data", "photos")
    assert "train/cat/patient01_003.png (train)" in line(done, "Leaks")
    assert "test/cat/leaked.png (test)" in line(done, "Leaks")


def test_json_holds_the_whole_audit_and_what_will_be_seen():
    messy(Path("photos"))
    done = typed("data", "photos", "--json")
    told = done.json
    assert told["images"] == sum(sum(counts.values()) for counts in told["roles"].values()) == 29
    assert [item["path"] for item in told["unreadable"]] == ["cat/page.jpg"]
    assert told["forms"]["cmyk"]["n"] == 1
    assert told["label_conflicts"] == [["cat/patient00_000.png", "dog/patient10_wrong.png"]]
    assert Path(told["page"]).is_file()
    assert json.loads(Path(told["page"]).with_name("audit.json").read_bytes())["images"] == 29
    assert "px" in told["seen"]


def test_the_page_shows_samples_and_the_next_command_and_opens_offline():
    photos(Path("photos"))
    done = typed("data", "photos", "--runs", "kept")
    (page,) = Path("kept/data").glob("photos-*/data.html")
    assert line(done, "Page with pictures").endswith(str(page))
    html = page.read_text()
    assert html.count("data:image/") >= 12
    assert "convsmith train photos --runs kept" in html
    assert 'src="http' not in html
    assert (page.with_name("split.csv")).read_text().count("\n") == 25


def test_the_second_call_reads_no_file_again_and_tells_the_same():
    photos(Path("photos"))
    for path in Path("photos").rglob("*.png"):  # what was written a moment ago might change within the clock's step
        os.utime(path, (1_700_000_000, 1_700_000_000))
    first, second = typed("data", "photos", "--json"), typed("data", "photos", "--json")
    assert first.json["remembered"] == 0
    assert second.json["remembered"] == 24
    assert {**first.json, "remembered": 24} == second.json


def test_a_group_keeps_its_images_on_one_side_and_the_hint_asks_no_more():
    photos(Path("photos"), each=30)
    done = typed("data", "photos", "--group", r"(patient\d+)_", "--json")
    assert done.json["groups"]["n"] == 20
    assert done.json["suspected_groups"] == []
    rows = [row.split(",") for row in (Path(done.json["page"]).with_name("split.csv")).read_text().splitlines()[1:]]
    sides: dict[str, set[str]] = {}
    for _, role, _, group, _ in rows:
        sides.setdefault(group, set()).add(role)
    assert len(sides) == 20
    assert all(len(roles) == 1 for roles in sides.values())
    assert {next(iter(roles)) for roles in sides.values()} == {"train", "tune", "test"}


def test_a_suggested_group_can_be_typed_as_it_stands():
    photos(Path("photos"), each=30)
    told = line(typed("data", "photos"), "Groups").splitlines()[0]
    option = shlex.split(told[told.index("--group") :].rstrip("."))
    assert typed("data", "photos", *option, "--json").json["groups"]["n"] == 20


def test_a_table_is_read_by_its_columns():
    photos(Path("photos"))
    names = sorted(path.relative_to("photos").as_posix() for path in Path("photos").rglob("*.png"))
    rows = "".join(f"{name},{name[:3]},{name[4:13]},{i}\n" for i, name in enumerate(names))
    Path("photos.csv").write_text(f"file,animal,donor,weight\n{rows}")
    done = typed("data", "photos.csv", "--images", "photos", "--label", "animal", "--group", "donor", "--json")
    assert done.code == 0, done.err
    assert done.json["images"] == 24
    assert done.json["groups"] == {"rule": "donor", "n": 8, "largest": 3}
    guessed = typed("data", "photos.csv", "--images", "photos", "--label", "animal")
    assert "file" in line(guessed, "Note")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--size", 32), "32 x 32 px in colour (as asked)"),
        (("--set", "image.size=40", "--set", "image.channels=1"), "40 x 40 px in grey"),
        (("--fit", "pad"), "pad (as asked)"),
        (("--symmetry", "any"), "Symmetry any: as asked."),
        (("--symmetry", "none", "--weights", "none"), "Symmetry none: as asked."),
        (("--model", "resnet18"), "128 x 128 px in colour (the weights were made for 224 px"),
        (("--model", "vit_tiny_patch16_224"), "224 x 224 px in colour (the weights were made for 224 px)"),
        (("--limit", 8), "8 images of 2 classes"),
    ],
)
def test_what_is_asked_for_is_what_will_be_seen(words: tuple[object, ...], says: str):
    photos(Path("photos"))
    done = typed("data", "photos", *words)
    assert done.code == 0, done.err
    assert says in done.out


def test_reviewed_labels_are_laid_over_and_said():
    photos(Path("photos"))
    Path("reviewed.csv").write_text("id,label\ncat/patient00_000.png,dog\ncat/patient00_001.png,-\n")
    done = typed("data", "photos", "--labels", "reviewed.csv", "--json")
    assert done.json["images"] == 23
    counts = {name: sum(part.get(name, 0) for part in done.json["roles"].values()) for name in ("cat", "dog")}
    assert counts == {"cat": 10, "dog": 13}
    assert any(note.startswith("2 labels from ") for note in done.json["notes"])


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--size", "16", "--fit", "stretch", "--symmetry", "none"),
        ("--group", r"(patient\d+)_", "--name", "my photos; rm -rf"),
        ("--set", "image.size=20", "--runs", "kept here"),
    ],
)
def test_the_hint_is_a_command_that_trains(words: tuple[str, ...]):
    photos(Path("my photos"), each=30, size=(40, 32))
    done = typed("data", "my photos", *words, "--json", "--debug")
    (hint,) = [each for each in done.err.splitlines() if each.startswith("Next: ")]
    typed_again = shlex.split(hint.removeprefix("Next: "))
    assert typed_again[:2] == ["convsmith", "train"]
    small = ("--weights", "none", "--epochs", 1, *SMALL)
    trained = typed(*typed_again[1:], *small, "--quiet")
    assert trained.code == 0, trained.err
    assert "--json" not in hint
    changed = typed("data", "my photos", *words)
    assert "Since the run " in changed.out


def test_hostile_names_change_nothing_but_themselves():
    """Markup, control characters, turned text and bytes that are no UTF-8, in names (FAULTS 17-21, 64)."""
    root = Path("photos")
    odd = "[red]x[bold]", "\u202eevil", "</script><img onerror=alert(1)>".replace("/", "\u2215"), "☃ a\nb\x1b[31m"
    for k, name in enumerate(odd):
        (root / name).mkdir(parents=True)
        for i in range(4):
            picture(10 * k + i).save(root / name / f"{i}.png")
    shutil.copy(root / odd[0] / "0.png", root / odd[0] / "[bold]copy\x1b[2J.png")
    shutil.copy(root / odd[0] / "1.png", os.fsencode(root / odd[0]) + b"/\xff.png")
    done = typed("data", "photos")
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    assert "[red]x[bold]" in done.out
    assert "[bold]copy" in line(done, "Copies")
    assert r"\xff.png" in line(done, "Copies")
    (page,) = Path("runs/data").glob("*/data.html")
    html = page.read_text()
    assert "<img onerror" not in html
    assert "\u202e" not in html


def test_quiet_says_nothing_but_the_result():
    photos(Path("photos"))
    done = typed("data", "photos", "--quiet")
    assert done.err == ""
    assert done.out
