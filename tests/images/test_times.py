"""When images were taken: texts become moments, and are found in columns, names and what cameras wrote."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convsmith.errors import DataError, UsageError
from convsmith.images import Dataset, audit, open_source
from convsmith.images.times import moments, with_times

DAY = 86_400.0
Painter = Callable[..., Path]


def one(text: str) -> float:
    return float(moments([text], lambda i: "here")[0])


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-02", DAY),
        ("19700102", DAY),
        ("1970:01:02 00:00:10", DAY + 10),
        ("1970/01/02", DAY),
        ("1970-02", 31 * DAY),
        ("1971", 365 * DAY),
        ("1970-01-02T01:00", DAY + 3600),
        ("1970-01-02T01:00:00+01:00", DAY),
        ("1970-01-01T22:30:00-0130", DAY),
        ("1970-01-02T00:00:00Z", DAY),
        ("1970-01-02 00:00:00.250", DAY + 0.25),
        ("19700102_000130", DAY + 90),
        ("19700102T000130", DAY + 90),
        ("1969-12-31", -DAY),
        ("17", 17.0),
        ("-2.5e3", -2500.0),
        ("1700000000", 1.7e9),
    ],
)
def test_a_date_in_any_of_the_listed_forms_is_its_second_since_1970_and_a_number_itself(text: str, moment: float):
    assert one(text) == moment


@given(
    st.datetimes(datetime(1800, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC)),
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(["%Y-%m-%dT%H:%M:%S.%f%z", "%Y%m%d_%H%M%S.%f%z", "%Y:%m:%d %H:%M:%S.%f%z"]),
)
def test_whatever_is_written_is_read_back(moment: datetime, minutes: int, form: str):
    """The oracle is the standard library's own second since 1970."""
    local = moment.astimezone(timezone(timedelta(minutes=minutes)))
    if 1800 <= local.year < 2200:
        assert one(local.strftime(form)) == pytest.approx(moment.timestamp(), abs=2e-6)


def test_dates_of_different_precision_are_compared_as_dates_and_other_numbers_as_numbers():
    mixed = moments(["2024", "2023-12-31", "20240102", "2024-02"], lambda i: "")
    assert np.argsort(mixed).tolist() == [1, 0, 2, 3]
    assert moments(["2024", "17", "20240102"], lambda i: "").tolist() == [2024.0, 17.0, 20240102.0]


@pytest.mark.parametrize(
    ("texts", "wrong"),
    [
        (["2024-03-05", "03/05/2024"], "1 time of 2 cannot be read: '03/05/2024' (place 1)"),
        (["2024-03-05", "17"], "'17' (place 1)"),
        (["17", "x"], "'x' (place 1)"),
        (["2024-03-05", ""], "none (place 1)"),
        (["2024-02-30"], "'2024-02-30' (place 0)"),
        (["2024-03-05T25:00"], "'2024-03-05T25:00'"),
        (["1e999", "1"], "'1e999'"),
        (["nan", "inf"], "2 times of 2 cannot be read: 'nan' (place 0), 'inf' (place 1)"),
        (["a", "b", "c", "d"], "'c' (place 2), …"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place_and_the_mend(texts: list[str], wrong: str):
    with pytest.raises(DataError) as caught:
        moments(texts, lambda i: f"place {i}")
    assert wrong in caught.value.message
    assert "2024-03-05" in caught.value.mend


@pytest.fixture
def table(tmp_path: Path, paint: Painter) -> Path:
    """Six pictures of two classes in a CSV file with a column of days."""
    rows = [f"{paint(f'p/{k}.png', seed=k).name},{'ab'[k % 2]},2024-03-{k + 1:02d}" for k in range(6)]
    path = tmp_path / "p" / "table.csv"
    path.write_text("\n".join(["path,label,taken", *rows]))
    return path


def test_a_column_of_a_table_gives_each_image_its_time(table: Path):
    dataset, _ = open_source(table, time="Taken")
    assert dict(zip(dataset.ids, dataset.times, strict=True)) == {f"{k}.png": f"2024-03-{k + 1:02d}" for k in range(6)}
    assert open_source(table)[0].times == ()
    assert dataset.select([3, 1]).times == ("2024-03-04", "2024-03-02")


def test_times_that_cannot_be_read_are_named_by_line(table: Path):
    table.write_text(table.read_text().replace("2024-03-03", "soon").replace("2024-03-05", " "))
    with pytest.raises(DataError, match=r"2 times of 6 cannot be read: 'soon' \(line 4\), none \(line 6\)"):
        open_source(table, time="taken")


def test_a_column_that_is_not_there_and_one_file_at_two_times_are_refused(table: Path):
    with pytest.raises(UsageError, match=r"no column when for --time; it has path, label, taken"):
        open_source(table, time="when")
    table.write_text(f"{table.read_text()}\n5.png,b,2024-03-09")
    with pytest.raises(DataError, match=r"5\.png is 2024-03-06 on line 7 and 2024-03-09 on line 8"):
        open_source(table, time="taken")


def test_a_regular_expression_finds_times_in_names_of_folders_and_of_tables(table: Path, paint: Painter):
    assert open_source(table, time=r"^(\d)\.")[0].times == tuple("012345")
    for k, name in enumerate(("a/IMG_20240305_101500.png", "b/IMG_20240305_101501.png", "b/other.png")):
        folder = paint(f"named/{name}", seed=k).parents[1]
    assert open_source(folder, time=r"_(\d{8}_\d{6})")[0].times == ("20240305_101500", "20240305_101501", "")
    with pytest.raises(DataError, match=r"'IMG' \(a/IMG_20240305_101500\.png\)"):
        open_source(folder, time=r"([A-Z]+)_")


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("taken", "0 capturing groups; one holds the time"),
        (r"(\d+)_(\d+)", "2 capturing groups"),
        ("(", "neither `exif` nor a regular expression"),
        (r"(?:\d+)+(x)", "can take forever"),
    ],
)
def test_a_rule_for_folders_that_cannot_work_is_refused(rule: str, says: str, flowers: Path):
    with pytest.raises(UsageError, match="--time: ") as caught:
        open_source(flowers, time=rule)
    assert says in caught.value.message


def shot(path: Path, taken: str | None, *, fraction: str = "", changed: str = "2030:01:01 00:00:00") -> None:
    """Save a grey picture with a camera's block: when it was taken, and when a program changed it."""
    picture = Image.new("L", (8, 8), 90)
    block = picture.getexif()
    block[0x0132] = changed
    if taken is not None:
        block.get_ifd(0x8769)[0x9003] = taken
    if fraction:
        block.get_ifd(0x8769)[0x9291] = fraction
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, exif=block.tobytes())


def test_what_the_camera_wrote_is_read_from_every_format_and_nothing_else_is(tmp_path: Path):
    for k, kind in enumerate(("jpg", "png", "webp", "tif")):
        shot(tmp_path / "a" / f"{k}.{kind}", f"2024:03:05 10:15:0{k}", fraction="25" if k == 0 else "")
    shot(tmp_path / "b" / "never set.jpg", "0000:00:00 00:00:00")
    shot(tmp_path / "b" / "only changed.jpg", None)
    (tmp_path / "b" / "torn.jpg").write_bytes((tmp_path / "a" / "0.jpg").read_bytes()[:40])
    dataset, _ = open_source(tmp_path, time="exif")
    expected = ("2024:03:05 10:15:00.25", *(f"2024:03:05 10:15:0{k}" for k in (1, 2, 3)), "", "", "")
    assert dataset.times == expected
    assert audit(dataset)[0].times == expected[:-1]


def test_pictures_in_memory_were_taken_by_no_camera():
    dataset = Dataset.from_arrays(np.zeros((1, 2, 2), np.uint8), [0], ["a"])
    with pytest.raises(UsageError, match="lie in no files"):
        with_times(dataset, "exif")
    assert dataset.times == ()
