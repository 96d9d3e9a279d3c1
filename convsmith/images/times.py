"""When each image was taken: told by a column, by the camera, or by the file's name; and such a text as a moment.

Besides a column of a CSV file, two rules can be told:

- `exif`: what the camera wrote as DateTimeOriginal, with its fraction of a second where there is one. It is the local
  time of the camera's clock; DateTime, which programs change as they save, is not taken.
- a regular expression with one capturing group, searched in the id: `_(\\d{8}_\\d{6})` finds `20240305_101500` in
  `cat/IMG_20240305_101500.jpg`.

A moment is a date (`2024-03-05`, `20240305`, `2024-03`, `2024`, years 1800 to 2199), with a time of day or without
(`2024-03-05T10:15:00.5+01:00`; without a zone it counts as UTC, without a day it is the first), or a plain number. All
of one set are of one kind. Days and months in another order are not guessed at: 03/05/2024 is two days.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
from PIL import Image

from convsmith.errors import DataError, UsageError
from convsmith.images.dataset import Dataset, FilePixels
from convsmith.images.decode import FORMATS
from convsmith.images.folders import number
from convsmith.images.patterns import Asked, compiled, found_in
from convsmith.images.threads import in_threads

ASKED = Asked("--time", "exif", "time", r"_(\d{8}_\d{6})")
MEND = "Write times as 2024-03-05, 2024-03-05T14:30:00, 2024 or plain numbers, all of one kind."
_NAMED = 3
_CHUNK = 64
_EXIF_BLOCK, _TAKEN, _FRACTION = 0x8769, 0x9003, 0x9291
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")
_DATE = re.compile(
    r"(?P<year>1[89]\d\d|2[01]\d\d)(?:(?P<mark>[-/:._]?)(?P<month>\d\d)(?:(?P=mark)(?P<day>\d\d)"
    r"(?:[T _-]{0,3}(?P<hour>\d\d)[:._-]?(?P<minute>\d\d)(?:[:._-]?(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r" ?(?P<zone>Z|[-+]\d\d:?(?:\d\d)?)?)?)?)?"
)


def with_times(dataset: Dataset, rule: str) -> Dataset:
    """Give each image the text of its time, empty where the rule finds none.

    Args:
        dataset: audited or not.
        rule: `exif`, or a regular expression with exactly one capturing group, searched in each id.

    Raises:
        UsageError: pictures in memory have no EXIF; no regular expression, or one that takes forever.
        DataError: what the regular expression finds is no time.
    """
    if rule == "exif":
        return replace(dataset, times=_by_camera(dataset))
    times = tuple(found_in(dataset.ids, compiled(rule, ASKED), ASKED))
    told = [i for i, text in enumerate(times) if text]
    moments([times[i] for i in told], lambda i: dataset.ids[told[i]])
    return replace(dataset, times=times)


def moments(texts: Sequence[str], place: Callable[[int], str]) -> np.ndarray:
    """Turn texts into moments that can be compared.

    Args:
        texts: one for each image.
        place: where a text stands, by its index, for the error.

    Returns:
        float64 `[N]`: of dates the seconds since 1970, of plain numbers these.

    Raises:
        DataError: some are empty, cannot be read, or are of another kind than the rest; the first three are named.
    """
    dates = [_date(text) for text in texts]
    values = dates
    if any(date is None for date in dates):
        numbers = [_plain(text) for text in texts]
        # A date that cannot be a number settles what the others are held to.
        dated = any(date is not None and plain is None for date, plain in zip(dates, numbers, strict=True))
        values = dates if dated else numbers
    wrong = [i for i, value in enumerate(values) if value is None]
    if wrong:
        named = ", ".join(f"{texts[i]!r} ({place(i)})" if texts[i] else f"none ({place(i)})" for i in wrong[:_NAMED])
        more = ", …" if len(wrong) > _NAMED else ""
        raise DataError(f"{number(len(wrong), 'time')} of {len(texts):,} cannot be read: {named}{more}.", mend=MEND)
    return np.array(values, np.float64)


def _date(text: str) -> float | None:
    match = _DATE.fullmatch(text)
    if match is None or (match["month"] and not match["day"] and not match["mark"]):  # 202403 may be anything
        return None
    year, month, day, hour, minute, second = (
        int(match[name] or least)
        for name, least in (("year", 1), ("month", 1), ("day", 1), ("hour", 0), ("minute", 0), ("second", 0))
    )
    try:
        moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=_zone(match["zone"]))  # 60: leap
    except ValueError:  # such as the 30th of February
        return None
    return (moment - _EPOCH).total_seconds() + float(f"0.{match['part'] or 0}") if second <= 60 else None


def _zone(text: str | None) -> timezone:
    if not text or text == "Z":
        return UTC
    digits = text[1:].replace(":", "")
    ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return timezone(-ahead if text[0] == "-" else ahead)


def _plain(text: str) -> float | None:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def _by_camera(dataset: Dataset) -> tuple[str, ...]:
    """What cameras wrote; empty also for files that cannot be read, which the audit leaves out."""
    pixels = dataset.pixels
    if not isinstance(pixels, FilePixels):
        raise UsageError(
            f"--time exif: the images of {dataset.source} lie in no files.", mend="Leave --time out, or give files."
        )
    return tuple(in_threads(lambda i: _taken(pixels, int(dataset.rows[i])), len(dataset), chunk=_CHUNK))


def _taken(pixels: FilePixels, row: int) -> str:
    try:
        with Image.open(pixels.path(row), formats=FORMATS) as image:
            block = image.getexif().get_ifd(_EXIF_BLOCK)
    except Exception:  # Pillow's readers raise nearly anything on damaged files
        return ""
    text, fraction = (str(block.get(tag, "")).strip("\0 ") for tag in (_TAKEN, _FRACTION))
    if _date(text) is None:  # a clock that was never set leaves zeros or blanks
        return ""
    return f"{text}.{fraction}" if fraction.isdigit() and len(fraction) <= 9 else text
