"""CSV files of paths and labels, tidy and untidy."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convsmith.errors import DataError, UsageError
from convsmith.images import FilePixels, audit, open_source


def plant(folder: Path, *names: str) -> Path:
    """Small pictures, each of its own."""
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as stream:
            Image.fromarray(np.full((2, 3), k, np.uint8)).save(stream, "PNG")
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    """Twenty pictures, `00.png` to `19.png`."""
    return plant(tmp_path / "photos", *(f"{i:02d}.png" for i in range(20)))


def table(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def body(*labels: str) -> list[str]:
    return [f"{i:02d}.png,{label}" for i, label in enumerate(labels)]


CATS_AND_DOGS = body(*(["cat", "dog"] * 10))


def test_paths_and_labels_become_a_data_set(photos):
    dataset, notes = open_source(table(photos / "t.csv", "path,label", *reversed(CATS_AND_DOGS)))
    assert dataset.ids == tuple(f"{i:02d}.png" for i in range(20))
    assert dataset.classes == ("cat", "dog")
    assert dataset.targets.tolist() == [0, 1] * 10
    assert set(dataset.roles) == set(dataset.groups) == {""}
    assert isinstance(dataset.pixels, FilePixels)
    assert dataset.read(7).shape == (2, 3, 1)
    assert dataset.read(7).max() == 7
    assert notes.skipped == ()
    assert notes.notes == (
        "Column `path` is the path of each image.",
        "Column `label` is the label; say --label to choose another.",
    )


def test_a_table_can_be_limited_audited_and_fingerprinted_like_a_folder(photos, tmp_path):
    path = table(tmp_path / "t.csv", "path,label", *CATS_AND_DOGS)
    part, _ = open_source(path, images=photos, limit=10)
    assert part.counts() == {"": {"cat": 5, "dog": 5}}
    assert part.ids == open_source(path, images=photos, limit=10)[0].ids
    for i in range(20):
        target = tmp_path / f"folder/{'cat' if i % 2 == 0 else 'dog'}/{i:02d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((photos / f"{i:02d}.png").read_bytes())
    folder, _ = audit(*open_source(tmp_path / "folder"))
    lines = [f"{identifier},{identifier.split('/')[0]}" for identifier in folder.ids]
    listed, _ = audit(*open_source(table(tmp_path / "folder/t.csv", "path,label", *lines)))
    assert listed.fingerprint == folder.fingerprint != ""


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ending", [".csv", ".TSV"])
def test_delimiter_and_byte_order_mark_are_told_by_content(photos, delimiter, encoding, ending):
    lines = ["path,label", *body(*["größe", "naïve"] * 10)]
    path = table(photos / f"t{ending}", *(line.replace(",", delimiter) for line in lines), encoding=encoding)
    assert open_source(path)[0].classes == ("größe", "naïve")


def test_quoted_fields_may_hold_delimiters_and_lines_are_counted_as_an_editor_counts_them(photos):
    lines = [f'"{i:02d}.png","{"a,b" if i % 2 else "c"}","two\nlines"' for i in range(20)]
    path = table(photos / "t.csv", '"path","label","note"', *lines, '"19.png",c,x')
    with pytest.raises(DataError, match=r"19\.png is a,b on line 40 and c on line 42"):
        open_source(path)


@pytest.mark.parametrize(
    ("content", "says", "mend"),
    [
        ("path,label\n1.png,café\n".encode("latin-1"), "not UTF-8: byte 0xe9 in line 2", "CSV UTF-8"),
        ("path,label\n".encode("utf-16"), "UTF-16", "UTF-8"),
        (b"PAR1\0\0\0", "not a text file", "CSV"),
        (b"", "is empty", "path,label"),
        (b"\n\n", "is empty", "path,label"),
        (b"path label\n1.png cat\n", "one column, path label", "Two are needed"),
        (b"00.png,cat\n01.png,dog\n", "names no columns", "path,label"),
        (b"path,label,label\n", "two columns named label", "Rename"),
        (b"path,label\n", "no rows below", "Add rows"),
        (b'path,label\n"00.png,cat\n01.png,dog\n', "cannot be read as CSV at line 2", "quotation mark"),
        (b"path,label\n00.png,\n01.png,  \n", "2 rows, not one with a label", "--label COLUMN"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_mend(photos, content, says, mend):
    (photos / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        open_source(photos / "t.csv")
    assert mend in caught.value.mend


@pytest.mark.parametrize(
    ("header", "path", "label"),
    [
        ("Image Path;Species;weight", "Image Path", "Species"),
        ("weight;filename;CLASS", "filename", "CLASS"),
        ("id;imageFile;target;label", "imageFile", "label"),
        ("x;file;dx", "file", "dx"),
    ],
)
def test_columns_are_guessed_by_name_whatever_their_case_and_said(photos, header, path, label):
    columns = header.split(";")
    rows = [
        ";".join(f"{i:02d}.png" if c == path else "ab"[i % 2] if c == label else str(i) for c in columns)
        for i in range(20)
    ]
    dataset, notes = open_source(table(photos / "t.csv", header, *rows))
    assert dataset.classes == ("a", "b")
    assert f"Column `{path}` is the path of each image." in notes.notes
    assert f"Column `{label}` is the label; say --label to choose another." in notes.notes


def test_a_column_of_paths_is_found_by_what_it_holds(photos):
    rows = [f"{i},{i:02d}.png,{'ab'[i % 2]}" for i in range(20)]
    dataset, notes = open_source(table(photos / "t.csv", "image,stored,label", *rows))
    assert len(dataset) == 20
    assert "Column `stored` is the path of each image." in notes.notes


def test_of_two_columns_the_one_that_is_no_path_is_the_label(photos):
    assert open_source(table(photos / "t.csv", "path,creature", *CATS_AND_DOGS))[0].classes == ("cat", "dog")


def test_where_no_column_is_the_label_by_its_name_it_is_asked_for(photos):
    path = table(photos / "t.csv", "path,creature,x", *(f"{line},1" for line in CATS_AND_DOGS))
    with pytest.raises(UsageError, match="it has path, creature, x") as caught:
        open_source(path)
    assert "--label COLUMN" in caught.value.mend
    assert open_source(path, label="Creature")[0].classes == ("cat", "dog")


@pytest.mark.parametrize("option", ["label", "group", "split"])
def test_a_wrong_column_name_is_answered_with_the_columns_and_the_closest(photos, option):
    path = table(photos / "t.csv", "path,species", *CATS_AND_DOGS)
    with pytest.raises(UsageError, match=rf"no column specie for --{option}; it has path, species") as caught:
        open_source(path, **{option: "specie"})
    assert caught.value.mend == "Did you mean species?"
    assert caught.value.exit_code == 2


def test_groups_are_suggested_and_used_only_when_asked_for(photos):
    rows = [f"{line},{' p' + str(i // 5) if i else ''}" for i, line in enumerate(CATS_AND_DOGS)]
    path = table(photos / "t.csv", "path,label,patientId", *rows)
    dataset, notes = open_source(path)
    assert set(dataset.groups) == {""}
    assert any("--group patientId keeps the images of each on one side" in note for note in notes.notes)
    dataset, notes = open_source(path, group="patientid")
    assert dataset.groups == ("", *(f"p{i // 5}" for i in range(1, 20)))
    assert not any("--group" in note for note in notes.notes)


def test_a_group_rule_may_be_a_regular_expression_or_parent_too(tmp_path):
    names = [f"p{i // 5}/{i:02d}.png" for i in range(20)]
    plant(tmp_path, *names)
    path = table(tmp_path / "t.csv", "path,label", *(f"{name},{'ab'[i % 2]}" for i, name in enumerate(names)))
    expected = tuple(f"p{i // 5}" for i in range(20))
    assert open_source(path, group="parent")[0].groups == expected
    assert open_source(path, group=r"^(p\d)/")[0].groups == expected


@pytest.mark.parametrize(
    ("values", "roles"),
    [
        (("train", "VAL", "Test"), ("train", "tune", "test")),
        (("Training", "validation", "testing"), ("train", "tune", "test")),
        (("train", "tune", "test"), ("train", "tune", "test")),
        (("train", "valid", "valid"), ("train", "test", "test")),
        (("train", "test", "train"), ("train", "test", "train")),
        (("train", "train", "train"), ("", "", "")),
        (("test", "test", "test"), ("test", "test", "test")),
        (("", "", ""), ("", "", "")),
    ],
)
def test_splits_have_the_synonyms_of_folders(photos, values, roles):
    rows = [f"{line},{values[i % 3]}" for i, line in enumerate(body(*["a", "a", "a", "b", "b", "b"] * 3))]
    dataset, _ = open_source(table(photos / "t.csv", "path,label,split", *rows), split="split")
    assert dataset.roles == roles * 6


def test_a_split_column_is_guessed_by_name_and_content(photos):
    rows = [f"{line},{['train', 'test'][i // 2 % 2]},{i % 5}" for i, line in enumerate(CATS_AND_DOGS)]
    dataset, notes = open_source(table(photos / "t.csv", "path,label,set,fold", *rows))
    assert dataset.roles[:4] == ("train", "train", "test", "test")
    assert "Column `set` states the split; say --split to choose another." in notes.notes
    numbers = [f"{line},{i % 5}" for i, line in enumerate(CATS_AND_DOGS)]
    assert set(open_source(table(photos / "n.csv", "path,label,fold", *numbers))[0].roles) == {""}


def test_other_values_of_a_split_are_an_error_with_their_lines(photos):
    rows = [f"{line},{'3' if i in (4, 7) else 'train'}" for i, line in enumerate(CATS_AND_DOGS)]
    with pytest.raises(DataError, match=r"holds 3 \(lines 6, 9\)") as caught:
        open_source(table(photos / "t.csv", "path,label,fold", *rows), split="fold")
    assert "train" in caught.value.mend


def test_odd_rows_are_counted_by_line_with_the_first_five_as_examples(tmp_path):
    photos = plant(tmp_path / "photos", *(f"sub/{i:03d}.png" for i in range(100)))
    rows = [f"sub/{i:03d}.png,{'ab'[i % 2]}" for i in range(100)]
    rows[0] += "  "
    rows[1] = "sub/001.png"
    for i in range(2, 10):
        rows[i] = f"sub\\{i:03d}.png,{'ab'[i % 2]}"
    rows[10] = "sub/010.png,"
    rows[11] = "nowhere.png,b"
    rows[12] = "../escape.png,a"
    rows[13] = "C:\\photos\\x.png,b"
    rows[14] = "sub/scan.dcm,a"
    rows[15] = "sub,a"
    (photos / "sub/scan.dcm").write_bytes(b"")
    rows += ["", ",", "sub/020.png,a"]
    dataset, notes = open_source(table(tmp_path / "t.csv", "path,label", *rows), images=photos)
    assert len(dataset) == 93
    assert "sub/002.png" in dataset.ids
    assert notes.notes[2:] == (
        "5 rows left out because the file cannot be taken: lines 13, 14, 15, 16, 17.",
        "1 row without a label left out: line 12.",
        "1 row with too few fields left out: line 3.",
        "1 row with spaces around the label, which are taken off: line 2.",
        "1 row left out because an earlier one names the same file: line 104.",
        "8 rows with backslashes, read as /: lines 4, 5, 6, 7, 8, ….",
    )
    assert dict(notes.skipped) == {
        "sub/001.png": "line 3: too few fields",
        "sub/010.png": "line 12: no label",
        "nowhere.png": "line 13: the file is not there",
        "../escape.png": "line 14: leads out of the folder of images",
        "C:\\x5cphotos\\x5cx.png": "line 15: an absolute Windows path",
        "sub/scan.dcm": "line 16: DICOM, which is not read",
        "sub": "line 17: not a file",
    }


def test_a_tenth_of_the_files_missing_is_an_error_and_less_is_not(photos):
    rows = [*CATS_AND_DOGS, "gone1.png,cat", "gone2.png,dog"]
    assert len(open_source(table(photos / "t.csv", "path,label", *rows))[0]) == 20
    with pytest.raises(DataError, match=r"3 of the 23 files .* such as gone1.png \(line 22") as caught:
        open_source(table(photos / "t.csv", "path,label", *rows, "gone3.png,dog"))
    assert "--images DIR" in caught.value.mend


def test_paths_may_leave_the_folder_only_to_come_back(photos, tmp_path):
    plant(tmp_path / "photos-outside", "x.png")
    rows = CATS_AND_DOGS.copy()
    rows[0] = f"{photos}/00.png,cat"
    rows[1] = "../photos/01.png,dog"
    rows[2] = "./sub/../02.png,cat"
    rows[3] = "../photos-outside/x.png,dog"
    dataset, notes = open_source(table(tmp_path / "t.csv", "path,label", *rows), images=photos)
    assert dataset.ids == tuple(f"{i:02d}.png" for i in range(20) if i != 3)
    assert notes.skipped == (("../photos-outside/x.png", "line 5: leads out of the folder of images"),)
    (tmp_path / "link").symlink_to("photos", target_is_directory=True)
    rows[0] = f"{tmp_path}/link/00.png,cat"
    assert len(open_source(table(tmp_path / "t.csv", "path,label", *rows), images=tmp_path / "link")[0]) == 19


def test_links_out_of_the_folder_are_refused_and_those_within_followed(photos, tmp_path):
    outside = plant(tmp_path / "outside", "x.png")
    (photos / "out.png").symlink_to(outside / "x.png")
    (photos / "in.png").symlink_to("00.png")
    (photos / "away").symlink_to(outside, target_is_directory=True)
    (photos / "dead.png").symlink_to("nowhere.png")
    plant(photos, *(f"more/{i}.png" for i in range(20)))
    rows = [*CATS_AND_DOGS, *(f"more/{i}.png,cat" for i in range(20))]
    rows += ["out.png,cat", "in.png,cat", "away/x.png,cat", "dead.png,cat"]
    dataset, notes = open_source(table(photos / "t.csv", "path,label", *rows))
    assert len(dataset) == 41
    assert "in.png" in dataset.ids
    assert [path for path, _ in notes.skipped] == ["away/x.png", "dead.png", "out.png"]
    assert "leads out" in dict(notes.skipped)["out.png"]


def test_one_file_in_rows_that_disagree_is_an_error_naming_the_lines(photos):
    rows = [*CATS_AND_DOGS, "./00.png,cat", "03.png,cat"]
    with pytest.raises(DataError, match=r"03.png is dog on line 5 and cat on line 23 \(1 such, line 23\)") as caught:
        open_source(table(photos / "t.csv", "path,label", *rows))
    assert "Keep the row" in caught.value.mend
    split = [f"{line},train" for line in CATS_AND_DOGS]
    with pytest.raises(DataError, match=r"00\.png is train on line 2 and test on line 22"):
        open_source(table(photos / "s.csv", "path,label,split", *split, "00.png,cat,test"))


def test_labels_that_are_numbers_are_ordered_as_names(photos):
    dataset, _ = open_source(table(photos / "t.csv", "path,label", *body(*["10", "2", "9", "1"] * 5)))
    assert dataset.classes == ("1", "10", "2", "9")
    assert [dataset.classes[t] for t in dataset.targets[:4]] == ["10", "2", "9", "1"]


def test_labels_that_are_all_different_or_too_many_are_no_classes(photos, tmp_path):
    with pytest.raises(DataError, match="20 different labels in 20 rows") as caught:
        open_source(table(photos / "t.csv", "path,label,kind", *(f"{line},x" for line in body(*map(str, range(20))))))
    assert "--label COLUMN" in caught.value.mend
    (tmp_path / "many").mkdir()
    for i in range(2002):
        (tmp_path / f"many/{i}.png").touch()
    rows = [f"many/{i}.png,{i // 2}" for i in range(2002)]
    with pytest.raises(DataError, match="1,001 different labels in 2,002 rows"):
        open_source(table(tmp_path / "t.csv", "path,label", *rows))
    assert len(open_source(table(tmp_path / "t.csv", "path,label", *rows[:2000]))[0].classes) == 1000


def test_one_class_is_refused_unless_it_is_for_evaluation(photos):
    path = table(photos / "t.csv", "path,label", *body(*["cat"] * 20))
    with pytest.raises(DataError, match=r"holds 1 class \(cat\); at least 2 are needed"):
        open_source(path)
    assert open_source(path, min_classes=1)[0].classes == ("cat",)
    assert len(open_source(table(photos / "t.csv", "path,label", *body("cat", "dog")), min_classes=1)[0]) == 2


def test_a_class_that_is_not_in_train_is_left_out_and_listed(photos):
    rows = [f"{line},{'train' if i < 14 else 'test'}" for i, line in enumerate(CATS_AND_DOGS)]
    rows[17] = "17.png,yak,test"
    dataset, notes = open_source(table(photos / "t.csv", "path,label,split", *rows))
    assert dataset.classes == ("cat", "dog")
    assert "17.png" not in dataset.ids
    assert any("Class yak is in test but not in train: 1 image left out" in note for note in notes.notes)
    assert notes.skipped == (("17.png", "line 19: class yak is in test but not in train"),)


def test_hostile_labels_are_escaped_and_twins_refused(photos):
    labels = ["</script>", "a\x1bb"] * 10
    assert open_source(table(photos / "t.csv", "path,label", *body(*labels)))[0].classes == ("</script>", "a\\x1bb")
    with pytest.raises(DataError, match="Two labels are both shown as"):
        open_source(table(photos / "t.csv", "path,label", *body(*["caf\u00e9", "cafe\u0301"] * 10)))
    _, notes = open_source(table(photos / "t.csv", "path,label", *body(*["Cat", "cat"] * 10)))
    assert any("Cat and cat differ only in case" in note for note in notes.notes)


def test_names_composed_otherwise_than_on_the_disk_are_found(tmp_path):
    plant(tmp_path, *(f"caf\u00e9{i}.png" for i in range(4)))
    rows = [f"cafe\u0301{i}.png,{'ab'[i % 2]}" for i in range(4)]
    dataset, _ = open_source(table(tmp_path / "t.csv", "path,label", *rows))
    assert dataset.ids == tuple(f"caf\u00e9{i}.png" for i in range(4))
    assert dataset.read(0).shape == (2, 3, 1)


def test_a_folder_of_images_that_is_not_there_is_a_usage_error(photos, tmp_path):
    with pytest.raises(UsageError, match="nowhere, is not there") as caught:
        open_source(table(photos / "t.csv", "path,label", *CATS_AND_DOGS), images=tmp_path / "nowhere")
    assert "--images" in caught.value.mend


@pytest.mark.parametrize("option", ["images", "label", "split"])
def test_options_of_tables_are_refused_for_other_sources(photos, option):
    with pytest.raises(UsageError, match=rf"--{option} belongs to a CSV file, and digits is none"):
        open_source("digits", **{option: "x"})


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("a.parquet", "Save it as CSV"),
        ("a.xlsx", "Save it as CSV"),
        ("instances.json", "CSV with the columns path and label"),
        ("a.tar", "Unpack"),
        ("a.czi", "Export it as TIFF or PNG"),
        ("a.nd2", "Export it as TIFF or PNG"),
        ("a.dcm", "Export it as PNG"),
        ("a.h5", "from_arrays"),
        ("data_batch_1", "from_arrays"),
        ("a.txt", "a .csv file"),
    ],
)
def test_other_files_are_named_with_what_to_do(tmp_path, name, mend):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / name)
    assert mend in caught.value.mend


def test_a_hundred_thousand_rows_take_a_time_that_grows_with_them(tmp_path):
    for i in range(100):
        (tmp_path / f"d{i}").mkdir()
        for j in range(10):
            (tmp_path / f"d{i}/{j}.png").touch()

    def seconds(count: int) -> float:
        rows = (f"d{i % 100}/{i // 100 % 10}.png,{'abcd'[i % 4]}" for i in range(count))
        path = table(tmp_path / "t.csv", "path,label", *rows)
        start = time.process_time()
        assert len(open_source(path)[0]) == 1000
        return time.process_time() - start

    seconds(1000)
    least = min(seconds(20_000) for _ in range(3))
    assert seconds(100_000) < 15 * least  # five times the rows; work that grows with their square would take 25 times
