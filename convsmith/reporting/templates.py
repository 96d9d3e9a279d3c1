"""The templates of the page: autoescaped, strict about missing values, every text cleaned on its way out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from convsmith.reporting import formats
from convsmith.reporting.formats import SPACE


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        id: its anchor: lower-case letters and hyphens, never from data.
        title: the heading, also in the list of contents.
        lead: what it shows, in one or two sentences.
        body: the rest, as markup that is already escaped.
    """

    id: str
    title: str
    lead: str
    body: Markup


def fill(macro: str, **values: Any) -> Markup:
    """Return a macro filled with values; text is cleaned and escaped, `Markup` is taken as it is.

    Args:
        macro: a macro of `sections.html`, or `file:macro` for one of `file.html`.
        values: the macro's arguments.
    """
    file, _, name = macro.rpartition(":")
    return Markup(getattr(environment().get_template(f"{file or 'sections'}.html").module, name)(**values))


@functools.cache
def environment() -> Environment:
    """Return the one environment of the page; it is built when first used."""
    made = Environment(
        loader=PackageLoader("convsmith.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=formats.percent, number=formats.number, plain=formats.plain, duration=formats.duration,
        size=formats.size, shorten=formats.shorten, some=formats.some, listing=_listing,
        value=value, interval=interval,
    )  # fmt: skip
    return made


def value(estimate: Mapping[str, Any], unit: str = "percent") -> str:
    """Return an estimate's value in its unit, or why there is none."""
    if estimate.get("value") is None:
        return f"not defined: {estimate.get('reason') or 'no reason was recorded'}"
    return formats.percent(estimate["value"]) if unit == "percent" else formats.number(float(estimate["value"]))


def interval(estimate: Mapping[str, Any], unit: str = "percent") -> str:
    """Return an estimate's interval as `92.6 to 93.6 %`, or an en dash where there is none."""
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return "–"
    if unit == "percent":
        ends = formats.percent(low), formats.percent(high)
        plain = not any(end[0] in "<>" for end in ends)
        return f"{ends[0].removesuffix(SPACE + '%') if plain else ends[0]} to {ends[1]}"
    return f"{formats.number(float(low))} to {formats.number(float(high))}"


def _finalize(item: Any) -> Any:
    return formats.clean(item) if isinstance(item, str) and not isinstance(item, Markup) else item


def _listing(text: str) -> Markup:
    """Text whose line breaks are its own, as a recipe's are."""
    return Markup("{}").format(formats.clean(text, keep="\n"))
