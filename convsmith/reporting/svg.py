"""The strokes that charts are drawn with: elements of inline SVG, escaped, in classes instead of styles."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

from convsmith.reporting.formats import clean


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return one element; text is cleaned and escaped, `Markup` is taken as it is, `_` in attribute names means `-`."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(clean(short(value)))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = "".join(child if isinstance(child, Markup) else escape(clean(child)) for child in children)
    return Markup(f"<{tag}{written}>{inner}</{tag}>" if inner else f"<{tag}{written}/>")


def chart(parts: Iterable[Markup], height: float, described: str, kind: str, *, links: bool = False) -> Markup:
    """A drawing in its frame, described for those who do not see it; one that holds links is no picture but a group."""
    role = "group" if links else "img"
    drawing = element("svg", *parts, width="100%", height=height, role=role, aria_label=described, overflow="visible")
    return element("div", drawing, class_=f"chart {kind}")


def upright(kind: str, share: float, top: float, bottom: float) -> Markup:
    """An upright line at a share of the width."""
    return element("line", class_=kind, x1=at(share), x2=at(share), y1=top, y2=bottom)


def label(words: str, share: float, y: float, kind: str) -> Markup:
    """Text at a place that hangs to the side with more room, so that 60 % of the chart's width is always enough."""
    if share > 0.6:
        return text(words, at(share), y, kind, "end", dx=6 if share < 0.98 else 0)
    return text(words, at(share), y, kind, "start" if share < 0.4 else "middle", dx=-2 if 0.02 < share < 0.4 else 0)


def text(words: str, x: str, y: float, kind: str, anchor: str, dx: float | None = None) -> Markup:
    """Text at a place; `dx` moves it by pixels, since `x` is a share of the width."""
    return element("text", words, class_=kind, x=x, y=y, dx=dx or None, text_anchor=anchor)


def curve(kind: str, points: Iterable[tuple[float, float]], height: float) -> Markup:
    """A line through points given as shares of the width and, from below, of the height."""
    path = "".join(
        f"{'M' if position == 0 else 'L'}{short(1000 * x)} {short(100 - 100 * y)}"
        for position, (x, y) in enumerate(points)
    )
    line = element("path", class_=f"curve {kind}", d=path)
    box = {"viewBox": "0 0 1000 100", "preserveAspectRatio": "none", "overflow": "visible"}
    return element("svg", line, x=0, y=0, width="100%", height=height, **box)


def at(share: float) -> str:
    """A share of the width, as SVG writes it."""
    return f"{short(100 * min(max(share, 0.0), 1.0))}%"


def short(value: object) -> object:
    """Two decimals are finer than a pixel, and keep the file small."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
