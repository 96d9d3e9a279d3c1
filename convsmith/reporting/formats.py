"""How names, numbers, sizes and times are written for people.

Two things must hold everywhere: a name that comes from data cannot change how the rest of the page is read, and a
rounded number never claims more than the record does (0.99996 is not 100 %).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any

SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
#: Bidirectional controls, which would turn the text that follows them round.
_TURNING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x061C, 0x200E, 0x200F}


def clean(text: object, *, keep: str = "") -> str:
    """Return text in which controls, direction overrides and lone surrogates are visible escapes such as `\\u202e`.

    Args:
        text: anything; `str` is applied first.
        keep: control characters that stay as they are, for example the newlines of a listing.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in keep or not _unsafe(character) else _escape(character) for character in text
    )


def _unsafe(character: str) -> bool:
    return ord(character) in _TURNING or unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}


def _escape(character: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return short.get(character, f"\\u{ord(character):04x}")


def shorten(text: object, length: int) -> str:
    """Return cleaned text of at most `length` characters; the middle gives way, since both ends of a name tell most."""
    whole = clean(text)
    if len(whole) <= length:
        return whole
    tail = (length - 1) // 3
    return whole[: length - 1 - tail] + "…" + whole[len(whole) - tail :]


def fit(text: object, width: float) -> str:
    """Return cleaned text at most about `width` times its font size wide; the middle gives way, as in `shorten`."""
    whole = clean(text)
    if text_width(whole) <= width:
        return whole
    room = width - _width("…")
    head = _within(whole, 0.62 * room)
    tail = _within(whole[::-1], 0.38 * room)[::-1]
    return head.rstrip() + "…" + tail.lstrip()


def text_width(text: str) -> float:
    """Return about how wide a text is in a sans serif, in font sizes; rather too much than too little."""
    return sum(map(_width, text))


def _within(text: str, width: float) -> str:
    used = 0.0
    for position, character in enumerate(text):
        used += _width(character)
        if used > width:
            return text[:position]
    return text


def _width(character: str) -> float:
    if unicodedata.combining(character):
        return 0.0
    if ord(character) > 0x2E7F:
        return 1.3 if ord(character) > 0xFFFF else 1.0
    if character in "mwMW@%—…":
        return 0.9
    return (
        0.3
        if character in "iljtf.,:;|!'/ ()[]“”‘’"
        else 0.72
        if character.isupper() or ord(character) > 0x24F
        else 0.57
    )


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as a percentage; one that is not quite 0 or 1 never rounds to it."""
    if share is None:
        return "–"
    least = 10.0**-digits
    if 0.0 < share < least / 200:
        return f"<{SPACE}{least:.{digits}f}{SPACE}%"
    if 1.0 - least / 200 < share < 1.0:
        return f">{SPACE}{100 - least:.{digits}f}{SPACE}%"
    return f"{100 * share:.{digits}f}{SPACE}%".replace("-", MINUS)


def number(value: Any, digits: int = 3) -> str:
    """Return a number with thousands separated, `digits` decimals for fractions; other values as cleaned text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS)
    if not isinstance(value, float):
        return clean(value)
    if value and (abs(value) < 10.0**-digits or abs(value) >= 1e7):
        return f"{value:.3g}".replace("-", MINUS)
    return f"{value:,.{digits}f}".replace("-", MINUS)


def plain(value: Any) -> str:
    """Return any value of a record in words: scalars as `number`, the rest spelt out."""
    if value is None:
        return "off"
    if isinstance(value, float):
        return f"{value:,.4g}".replace("-", MINUS)
    if isinstance(value, Mapping):
        if set(value) == {"name", "options"}:
            options = plain(value["options"]) if value["options"] else ""
            return f"{clean(value['name'])} ({options})" if options else clean(value["name"])
        return ", ".join(f"{clean(key).replace('_', ' ')} {plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or "none"
    return number(value)


def duration(seconds: float | None) -> str:
    """Return a length of time as people say it: `8.3 s`, `4 min 12 s`, `2 h 05 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f}{SPACE}s" if seconds < 10 else f"{seconds:.0f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min {rest:02d}{SPACE}s"
    return f"{minutes // 60}{SPACE}h {minutes % 60:02d}{SPACE}min"


def size(count: float | None) -> str:
    """Return a number of bytes in the largest unit that keeps it above one."""
    if count is None:
        return "–"
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f}{SPACE}{unit}"
        count /= 1024
    return f"{count:,.1f}{SPACE}GiB"


def date(text: object) -> str:
    """Return the day of an ISO time, such as `21 November 2025`; what is no ISO time comes back cleaned."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return clean(text)
    return f"{moment.day} {moment:%B %Y}"


def sentence(text: object) -> str:
    """Return text with a capital at its beginning and a full stop at its end."""
    whole = str(text).strip()
    return whole[:1].upper() + whole[1:] + ("" if whole.endswith((".", "!", "?", ":")) or not whole else ".")


def some(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: `1 image`, `1,203 images`."""
    return f"{count:,}{SPACE}{one if count == 1 else many or one + 's'}"
