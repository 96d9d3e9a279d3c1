"""Reviewed labels laid over a data set."""

from __future__ import annotations

import pytest

from convsmith.errors import DataError, UsageError
from convsmith.images import audit, open_source, with_labels


@pytest.fixture
def reviewed(tmp_path):
    def write(*rows: str, header: str = "id,label"):
        path = tmp_path / "reviewed.csv"
        path.write_text("\n".join([header, *rows]) + "\n")
        return path

    return write


def labels(dataset) -> dict[str, str]:
    return {name: dataset.classes[target] for name, target in zip(dataset.ids, dataset.targets, strict=True)}


def contents(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*.png")}


def test_labels_are_replaced_and_images_left_out_without_touching_anything(flowers, reviewed):
    before, files = open_source(flowers)[0], contents(flowers)
    path = reviewed("rose/00.png,tulip", "rose/01.png, rose ", "tulip/02.png,-", "tulip/03.png,Exclude")
    after, notes = with_labels(before, path)
    expected = labels(before) | {"rose/00.png": "tulip"}
    del expected["tulip/02.png"], expected["tulip/03.png"]
    assert labels(after) == expected
    assert notes == [f"4 labels from {path}: 1 differ from the source's, 2 images left out."]
    assert contents(flowers) == files
    assert labels(before)["rose/00.png"] == "rose"
    clean, _ = audit(after)
    assert clean.fingerprint != audit(before)[0].fingerprint
    assert clean.scan is None or len(clean.scan.bytes) == len(clean) == 38


def test_labels_hold_before_a_limit_is_drawn(flowers, reviewed):
    path = reviewed(*(f"rose/{i:02d}.png,-" for i in range(10)))
    dataset, notes = open_source(flowers, labels=path, limit=12)
    assert len(dataset) == 12
    assert not set(dataset.ids) & {f"rose/{i:02d}.png" for i in range(10)}
    assert notes.notes[-1].endswith("10 images left out.")


def test_other_columns_and_any_order_are_fine(flowers, reviewed):
    path = reviewed("x;tulip;rose/00.png", header="comment;Label;ID")
    assert labels(with_labels(open_source(flowers)[0], path)[0])["rose/00.png"] == "tulip"


def test_a_class_called_exclude_is_a_class(paint, tmp_path, reviewed):
    for name in ("keep/1.png", "keep/2.png", "exclude/3.png"):
        paint(f"root/{name}")
    dataset, _ = with_labels(open_source(tmp_path / "root")[0], reviewed("keep/1.png,exclude"))
    assert labels(dataset)["keep/1.png"] == "exclude"


@pytest.mark.parametrize(
    ("rows", "says", "mend"),
    [
        (["rosé/00.png,rose"], "line 2: .* has no image rosé/00.png", "rose/00.png"),
        (["rose/00.pmg,rose"], "has no image rose/00.pmg", "Did you mean rose/0"),
        (["qqqq,rose"], "has no image qqqq", "Ids look like rose/00.png"),
        (["rose/00.png,rose", "rose/01.png,tulpi"], "line 3: tulpi is not a class", "Did you mean tulip?"),
        (["rose/00.png,rose", "rose/00.png,tulip"], "is rose on line 2 and tulip on line 3", "Keep the row"),
        (["rose/00.png,", "rose/01.png"], r"2 rows without an id or a label: lines 2, 3", "dash"),
        ([f"rose/{i:02d}.png,-" for i in range(20)], "leaves no image of rose", "Keep some"),
    ],
)
def test_rows_that_cannot_be_meant_are_errors_with_their_line(flowers, reviewed, rows, says, mend):
    with pytest.raises(DataError, match=says) as caught:
        with_labels(open_source(flowers)[0], reviewed(*rows))
    assert mend in caught.value.mend


def test_the_same_row_twice_is_one(flowers, reviewed):
    path = reviewed("rose/00.png,tulip", "rose/00.png,tulip")
    assert with_labels(open_source(flowers)[0], path)[1][0].startswith("1 label ")


def test_a_missing_file_and_missing_columns_are_usage_errors(flowers, tmp_path, reviewed):
    dataset = open_source(flowers)[0]
    with pytest.raises(UsageError, match=r"nowhere.csv, is not there"):
        with_labels(dataset, tmp_path / "nowhere.csv")
    with pytest.raises(UsageError, match="has no column label"):
        with_labels(dataset, reviewed("rose/00.png,rose", header="id,lable"))
