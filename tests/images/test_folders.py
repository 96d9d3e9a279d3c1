"""Class folders, tidy and untidy."""

from __future__ import annotations

import json
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convsmith.errors import DataError, UsageError
from convsmith.images import assign_roles, audit, id_to_path, open_source, path_to_id


def dot(path: str | Path) -> None:
    """The smallest picture, where only names matter."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("wb") as stream:
        Image.new("L", (1, 1)).save(stream, "PNG")


def plant(root: Path, *names: str) -> Path:
    for name in names:
        dot(root / name)
    return root


def reasons(notes) -> dict[str, str]:
    return dict(notes.skipped)


def test_one_folder_per_class_gives_ids_labels_and_pictures(flowers):
    dataset, notes = open_source(flowers)
    assert dataset.classes == ("rose", "tulip")
    assert dataset.ids[0] == "rose/00.png"
    assert dataset.ids[-1] == "tulip/19.png"
    assert dataset.targets.tolist() == [0] * 20 + [1] * 20
    assert set(dataset.roles) == {""}
    assert np.array_equal(dataset.read(21), np.asarray(Image.open(flowers / "tulip/01.png")))
    assert notes.skipped == ()


def test_classes_are_in_the_order_of_their_names_as_text(tmp_path):
    dataset, _ = open_source(plant(tmp_path, "10/a.png", "2/a.png", "B/a.png", "a/a.png"))
    assert dataset.classes == ("10", "2", "B", "a")


def test_nested_folders_belong_to_their_class_and_extensions_take_any_case(tmp_path):
    dataset, _ = open_source(plant(tmp_path, "cat/2019/may/a.JPG", "cat/b.JpEg", "dog/c.png", "dog/deep/d.TIFF"))
    assert dataset.ids == ("cat/2019/may/a.JPG", "cat/b.JpEg", "dog/c.png", "dog/deep/d.TIFF")
    assert [dataset.classes[t] for t in dataset.targets] == ["cat", "cat", "dog", "dog"]


@pytest.mark.parametrize(
    "names", [("train", "val"), ("Training", "validation"), ("train", "TESTING"), ("train", "valid")]
)
def test_train_with_one_other_part_makes_that_the_test_set(tmp_path, names):
    first, second = names
    dataset, notes = open_source(
        plant(tmp_path, f"{first}/a/1.png", f"{first}/b/2.png", f"{second}/a/3.png", f"{second}/b/4.png")
    )
    assert dict(zip(dataset.ids, dataset.roles, strict=True)) == {
        f"{first}/a/1.png": "train",
        f"{first}/b/2.png": "train",
        f"{second}/a/3.png": "test",
        f"{second}/b/4.png": "test",
    }
    assert any("is the test set" in note for note in notes.notes) == second.lower().startswith("val")


def test_given_all_three_parts_val_tunes(tmp_path):
    names = [f"{part}/{name}/{part}.png" for part in ("train", "val", "test") for name in "ab"]
    dataset, _ = open_source(plant(tmp_path, *names))
    assert {identifier.split("/")[0]: role for identifier, role in zip(dataset.ids, dataset.roles, strict=True)} == {
        "train": "train",
        "val": "tune",
        "test": "test",
    }


def test_train_alone_is_one_folder_to_be_split(tmp_path):
    dataset, notes = open_source(plant(tmp_path, "train/a/1.png", "train/b/2.png"))
    assert set(dataset.roles) == {""}
    assert dataset.classes == ("a", "b")
    assert "Only train/ is there" in notes.notes[0]


def test_classes_that_happen_to_be_called_train_and_test_are_classes(tmp_path):
    dataset, _ = open_source(plant(tmp_path, "train/1.png", "plane/2.png", "test/3.png"))
    assert dataset.classes == ("plane", "test", "train")


def test_two_names_for_one_part_are_refused(tmp_path):
    with pytest.raises(DataError, match="both val/ and validation/"):
        open_source(plant(tmp_path, "train/a/1.png", "val/a/1.png", "validation/a/1.png"))


def test_an_empty_part_is_refused(tmp_path):
    root = plant(tmp_path, "train/a/1.png", "train/b/1.png")
    (root / "val/a").mkdir(parents=True)
    with pytest.raises(DataError, match="val holds no images"):
        open_source(root)


def test_junk_is_passed_over_and_listed(tmp_path):
    junk = ["a/.DS_Store", "a/._x.png", "__MACOSX/a/1.png", "a/.ipynb_checkpoints/1.png", "b/Thumbs.db", ".git/x.png"]
    other = {
        "a/notes.txt": "not an image",
        "b/shot.heic": "convert",
        "b/more.zip": "unpack",
        "README.md": "not an image",
    }
    dataset, notes = open_source(plant(tmp_path, "a/1.png", "b/1.png", "loose.png", *junk, *other))
    assert dataset.ids == ("a/1.png", "b/1.png")
    assert dataset.classes == ("a", "b")
    found = reasons(notes)
    assert "no label" in found.pop("loose.png")
    assert all(part in found.pop(path) for path, part in other.items())
    assert len(found) == len(junk)
    assert set(found.values()) == {"hidden or left by another program"}


def test_a_loop_of_links_is_counted_once(tmp_path):
    root = plant(tmp_path / "root", "cat/a.png", "dog/b.png")
    (root / "cat/loop").symlink_to("..", target_is_directory=True)
    (root / "cat/again").symlink_to("../dog", target_is_directory=True)
    (root / "dog/again").symlink_to("../cat", target_is_directory=True)
    (root / "cat/self").symlink_to("self")
    dataset, notes = open_source(root)
    assert dataset.ids == ("cat/a.png", "dog/b.png")
    assert set(reasons(notes)) == {"cat/loop", "cat/again", "dog/again", "cat/self"}


def test_links_out_of_the_root_are_refused_and_links_within_followed(tmp_path):
    outside = plant(tmp_path / "root-outside", "x.png")
    root = plant(tmp_path / "root", "cat/a.png", "dog/b.png", ".store/kept.png")
    (root / "cat/out.png").symlink_to(outside / "x.png")
    (root / "dog/out").symlink_to(outside, target_is_directory=True)
    (root / "dog/in.png").symlink_to("../cat/a.png")
    (root / "dog/stored").symlink_to("../.store", target_is_directory=True)
    dataset, notes = open_source(root)
    assert dataset.ids == ("cat/a.png", "dog/b.png", "dog/in.png", "dog/stored/kept.png")
    assert "leads out" in reasons(notes)["cat/out.png"]
    assert "leads out" in reasons(notes)["dog/out"]


def test_a_link_to_the_root_itself_is_a_root(tmp_path):
    plant(tmp_path / "root", "cat/a.png", "dog/b.png")
    (tmp_path / "link").symlink_to("root", target_is_directory=True)
    assert open_source(tmp_path / "link")[0].ids == ("cat/a.png", "dog/b.png")


def test_a_pipe_among_the_images_does_not_hang(tmp_path):
    root = plant(tmp_path, "cat/a.png", "dog/b.png")
    os.mkfifo(root / "cat/pipe.png")
    assert "neither a file" in reasons(open_source(root)[1])["cat/pipe.png"]


def test_a_class_missing_from_a_part_is_listed_and_one_missing_from_train_is_left_out(tmp_path):
    dataset, notes = open_source(plant(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "val/new/1.png"))
    assert dataset.classes == ("a", "b")
    assert dataset.ids == ("train/a/1.png", "train/b/1.png", "val/a/1.png")
    assert any("Class b has no images in test" in note for note in notes.notes)
    assert any("Class new is in test but not in train: 1 image left out" in note for note in notes.notes)
    assert "not in train" in reasons(notes)["val/new/1.png"]


def test_an_empty_class_is_an_error_that_names_it(tmp_path):
    root = plant(tmp_path, "cat/a.png", "dog/a.png", "yak/readme.txt")
    (root / "emu").mkdir()
    with pytest.raises(DataError, match=r"2 class folders without a single image: emu, yak") as caught:
        open_source(root)
    assert "remove the folder" in caught.value.mend


def test_one_class_only_is_refused_unless_it_is_for_evaluation(tmp_path):
    root = plant(tmp_path, "cat/a.png")
    with pytest.raises(DataError, match=r"holds 1 class \(cat\); at least 2 are needed"):
        open_source(root)
    assert open_source(root, min_classes=1)[0].classes == ("cat",)


def test_unlabelled_images_and_empty_folders_are_refused_with_a_picture_of_what_is_wanted(tmp_path):
    with pytest.raises(DataError, match="holds no images") as caught:
        open_source(tmp_path)
    assert f"{tmp_path}/cat/1.jpg" in caught.value.mend
    with pytest.raises(DataError, match="2 images without labels"):
        open_source(plant(tmp_path, "1.png", "2.png"))


@pytest.mark.parametrize(
    ("name", "mend"), [("x.zip", "Unpack"), ("x.png", "one folder per class"), ("x.bin", "a .csv file")]
)
def test_a_file_in_place_of_a_folder_is_refused_by_kind(tmp_path, name, mend):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / name)
    assert mend in caught.value.mend
    assert caught.value.exit_code == 3


def test_a_missing_path_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="neither a data set by name nor a folder or file that exists") as caught:
        open_source(tmp_path / "nowhere")
    assert caught.value.exit_code == 2


def test_hostile_names_survive_json_npz_and_the_way_back(tmp_path):
    names = [
        "cat/new\nline.png",
        "cat/🐈‍⬛.png",
        b"cat/\xff\xfe.png",
        "dog/back\\xffslash.png",
        "dog/</script>.png",
        "dog/é.png",
    ]
    encoded = sorted(name if isinstance(name, bytes) else name.encode() for name in names)
    for name in encoded:
        dot(tmp_path / "root" / os.fsdecode(name))
    dataset, _ = open_source(tmp_path / "root")
    assert sorted(os.fsencode(id_to_path(identifier)) for identifier in dataset.ids) == encoded
    assert "cat/\\xff\\xfe.png" in dataset.ids
    assert "cat/new\\x0aline.png" in dataset.ids
    assert tuple(json.loads(json.dumps(dataset.ids))) == dataset.ids
    np.savez(tmp_path / "ids.npz", ids=np.array(dataset.ids))
    assert tuple(np.load(tmp_path / "ids.npz")["ids"].tolist()) == dataset.ids
    clean, record = audit(dataset)
    assert len(clean) == 6
    json.dumps(record).encode()
    assert clean.fingerprint


def test_an_unreadable_file_of_hostile_name_is_listed(tmp_path):
    root = plant(tmp_path / "root", "cat/a.png", "dog/a.png")
    (root / "cat" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    _, record = audit(*open_source(root))
    assert record["unreadable"] == [{"path": "cat/\\xff.png", "reason": "the file is empty"}]


@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_an_id_leads_back_to_any_path_and_is_plain_text(name):
    identifier = path_to_id(os.fsdecode(name))
    assert os.fsencode(id_to_path(identifier)) == name
    assert len(identifier.encode().splitlines()) <= 1


@given(st.binary(min_size=1, max_size=8), st.binary(min_size=1, max_size=8))
def test_different_paths_have_different_ids(one, other):
    assert (path_to_id(os.fsdecode(one)) == path_to_id(os.fsdecode(other))) == (one == other)


def test_class_names_that_look_the_same_are_refused_and_those_that_differ_in_case_noted(tmp_path):
    _, notes = open_source(plant(tmp_path / "case", "Cat/a.png", "cat/a.png"))
    assert any("Cat and cat differ only in case" in note for note in notes.notes)
    with pytest.raises(DataError, match="composed differently"):
        open_source(plant(tmp_path / "twins", "caf\u00e9/a.png", "cafe\u0301/a.png"))


def test_a_file_that_vanishes_or_changes_during_the_run_is_named(flowers):
    dataset, _ = audit(*open_source(flowers))
    shutil.copy(flowers / "rose/01.png", flowers / "rose/00.png")
    with pytest.raises(DataError, match=r"rose/00.png is not the picture it was"):
        dataset.read(0)
    (flowers / "rose/00.png").unlink()
    with pytest.raises(DataError, match=r"rose/00.png: the file is not there") as caught:
        dataset.read(0)
    assert "Put it back" in caught.value.mend


def test_many_folders_are_listed_in_bounded_time_and_depth(tmp_path):
    deep = "/".join(["d"] * 900)
    root = plant(tmp_path / "root", "cat/a.png", "dog/b.png")
    path = root / "cat"
    for name in deep.split("/"):
        path = path / name
        if len(str(path)) > 3900:
            break
        path.mkdir()
    dot(path.parent / "end.png")
    assert len(open_source(root)[0]) == 3


def test_one_wrapping_folder_is_seen_through_and_said(tmp_path):
    root = plant(tmp_path / "a", "photos/cat/1.png", "photos/dog/2.png", "README.txt", "LICENSE")
    dataset, notes = open_source(root)
    assert dataset.classes == ("cat", "dog")
    assert dataset.ids == ("photos/cat/1.png", "photos/dog/2.png")
    assert notes.notes == ("The class folders lie in photos/, the only folder there.",)
    assert dataset.read(0).shape == (1, 1, 1)
    names = [f"set/images/{part}/{name}/{part}.png" for part in ("train", "test") for name in "ab"]
    dataset, notes = open_source(plant(tmp_path / "b", *names))
    assert dataset.classes == ("a", "b")
    assert dataset.roles == ("test", "test", "train", "train")
    assert "set/images/" in notes.notes[0]


def test_a_class_folder_with_folders_in_it_is_no_wrapping_folder(tmp_path):
    for name, files in {
        "beside": ("cat/1.png", "cat/a/2.png", "cat/b/3.png"),
        "deep": ("cat/a/2.png",),
        "parts": ("cat/train/1.png", "cat/val/2.png"),
    }.items():
        with pytest.raises(DataError, match=r"holds 1 class \(cat\)"):
            open_source(plant(tmp_path / name, *files))


def test_a_folder_called_train_is_no_wrapping_folder(tmp_path):
    dataset, notes = open_source(plant(tmp_path, "data/train/a/1.png", "data/train/b/2.png"))
    assert dataset.classes == ("a", "b")
    assert "Only train/ is there" in notes.notes[1]


def test_parts_inside_the_classes_are_a_split(tmp_path):
    names = [f"{name}/{part}/{k}.png" for name in "ab" for part in ("train", "val", "test") for k in range(2)]
    dataset, notes = open_source(plant(tmp_path, *names, "loose.png"))
    assert dataset.classes == ("a", "b")
    roles = dict(zip(dataset.ids, dataset.roles, strict=True))
    assert roles["a/train/0.png"] == "train"
    assert roles["a/val/1.png"] == "tune"
    assert roles["b/test/0.png"] == "test"
    assert list(reasons(notes)) == ["loose.png"]


def test_parts_inside_the_classes_keep_the_rules_of_those_outside(tmp_path):
    dataset, notes = open_source(
        plant(tmp_path / "root", "a/Train/1.png", "a/valid/deep/2.png", "b/Train/3.png", "c/valid/4.png")
    )
    assert dict(zip(dataset.ids, dataset.roles, strict=True)) == {
        "a/Train/1.png": "train",
        "a/valid/deep/2.png": "test",
        "b/Train/3.png": "train",
    }
    assert any("valid/ is the test set" in note for note in notes.notes)
    assert any("Class b has no images in test" in note for note in notes.notes)
    assert any("Class c is in test but not in train" in note for note in notes.notes)
    (tmp_path / "root/d").mkdir()
    with pytest.raises(DataError, match="without a single image: d"):
        open_source(tmp_path / "root")


def test_parts_in_some_classes_only_are_folders_like_others_and_said(tmp_path):
    dataset, notes = open_source(plant(tmp_path, "a/train/1.png", "a/val/2.png", "b/3.png"))
    assert set(dataset.roles) == {""}
    assert dataset.classes == ("a", "b")
    assert "train/, val/ lie in some classes" in notes.notes[0]


def test_images_beside_the_parts_of_a_split_are_listed(tmp_path):
    _, notes = open_source(
        plant(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png", "loose.png", "more/a/1.png")
    )
    assert set(reasons(notes)) == {"loose.png", "more"}


def test_what_is_not_read_is_named_with_what_to_do(tmp_path):
    for name in ("a/1.czi", "b/2.czi", "b/3.dcm"):
        plant(tmp_path / "microscope", name)
    with pytest.raises(DataError, match=r"2 files such as a/1\.czi") as caught:
        open_source(tmp_path / "microscope")
    assert "Bio-Formats" in caught.value.mend
    with pytest.raises(DataError, match=r"holds no images, but 1 file such as shard.tar \(an archive\)") as caught:
        open_source(plant(tmp_path / "shards", "shard.tar"))
    assert "Unpack" in caught.value.mend


def test_unlabelled_images_beside_a_table_are_answered_with_the_call(tmp_path):
    root = plant(tmp_path / "root", "1.png", "2.png")
    with pytest.raises(DataError, match="without labels") as caught:
        open_source(root)
    assert "CSV file with the columns path and label" in caught.value.mend
    (root / "labels.csv").write_text("path,label\n1.png,a\n2.png,b\n")
    with pytest.raises(DataError, match="without labels") as caught:
        open_source(root)
    assert f"{root}/labels.csv --images {root}" in caught.value.mend
    assert len(open_source(root / "labels.csv", images=root, min_classes=1)[0]) == 2


def test_many_missing_and_many_empty_classes_are_said_in_one_sentence(tmp_path):
    names = [f"train/c{k:03d}/1.png" for k in range(60)] + ["test/c000/2.png", "test/c001/2.png"]
    names += [f"test/x{k}/1.png" for k in range(9)]
    notes = open_source(plant(tmp_path, *names))[1].notes
    assert notes == (
        "58 classes have no images in test (c002, c003, c004, c005, c006, …): nothing is measured there.",
        "9 classes are in test but not in train (x0, x1, x2, x3, x4, …): 9 images left out.",
    )
    for k in range(300):
        (tmp_path / f"train/e{k:03d}").mkdir()
    with pytest.raises(DataError, match=r"300 class folders .*: e000, e001, e002, e003, e004, ….") as caught:
        open_source(tmp_path)
    assert len(caught.value.message) < 300


def cost(root: Path) -> tuple[float, int]:
    """Processor seconds and peak bytes of listing a folder."""
    tracemalloc.start()
    start = time.process_time()
    open_source(root)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak


def foliage(root: Path, count: int) -> Path:
    """Class folders `cat` and `dog` of as many folders below them, with a picture in every tenth."""
    for name in ("cat", "dog"):
        for k in range(count // 2):
            folder = root / name / f"{k:06d}"
            folder.mkdir(parents=True)
            if k % 10 == 0:
                (folder / "1.png").touch()
    return root


def test_time_and_memory_grow_with_the_number_of_folders_and_no_faster(tmp_path):
    small, large = foliage(tmp_path / "small", 600), foliage(tmp_path / "large", 3000)
    cost(small)
    (least, first), (most, second) = min(cost(small) for _ in range(3)), min(cost(large) for _ in range(3))
    assert most < 15 * least  # five times the folders; work that grows with their square would take 25 times
    assert second < 8 * first


@pytest.mark.slow
def test_a_hundred_thousand_folders_are_listed_in_bounded_time_and_memory(tmp_path):
    seconds, peak = cost(foliage(tmp_path, 100_000))
    assert seconds < 60
    assert peak < 200 * 2**20


def test_thousands_of_empty_class_folders_are_an_error_of_one_line(tmp_path):
    for k in range(3000):
        (tmp_path / f"c{k:04d}").mkdir()
    with pytest.raises(DataError) as caught:
        open_source(tmp_path)
    assert len(str(caught.value)) < 500


REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "flowers5-mini"


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared photos (../shared/data/flowers5-mini) are not here")
def test_real_photos_are_audited_and_split(tmp_path):
    clean, record = audit(*open_source(REAL))
    dataset = assign_roles(clean)
    assert record["images"] == 737
    assert record["unreadable"] == []
    assert record["duplicates"] == []
    assert record["channels"]["3"] == 737
    assert {role: sum(counts.values()) for role, counts in dataset.counts().items()} == {
        "train": 501,
        "tune": 88,
        "test": 148,
    }
