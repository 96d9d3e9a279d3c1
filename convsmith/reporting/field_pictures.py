"""Receptive fields on the user's own picture: what a stage can see, and what of that moves it most.

One picture a stage. The theoretical field of the position in the middle is a blue frame; where it reaches past the
border of the picture, so does the frame, into the padding, drawn as a light margin, and where it reaches further still,
arrowheads point to where it ends. What moves that position most is orange on the picture in grey, and its dashed frame
holds a stated share of it. Frames differ in hue, lightness and dash, so that they are told apart without colour; hues
are those of Okabe & Ito 2008, "Color universal design", the blue darker.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

BLUE, ORANGE, INK, PALE, PAPER, PADDING = (
    (0, 92, 153), (230, 159, 0), (28, 28, 28), (92, 92, 92), (255, 255, 255), (222, 222, 222),
)  # fmt: skip
SHORTEST_SIDE = 320
"""Of the picture as it is drawn, px, at the least: smaller ones are enlarged by a whole factor, with hard pixels."""
LONGEST_SIDE = 640
"""And at the most; larger ones are made smaller."""
MARGIN = 0.2
"""Of the picture's sides, how much padding is shown around it at the most."""
BRIGHTEST = 99.5
"""The percentile of weights that is drawn as full orange, for single pixels stand out far."""
SMALL = 40
"""A field that is drawn smaller than this, px, is shown once more in a corner, enlarged."""
TEXT = 14
DASH = 8
ARROW = 9
EDGE = 8
"""Padding that is shown beyond where a field ends, px."""
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True)
class FieldSeen:
    """What a stage sees of a picture.

    Args:
        name: of the stage, as it is shown.
        places: rows and columns of its maps.
        box: theoretical field of the position in the middle: first row, first column, last row, last column, in pixels
            of the picture as the network is given it; None where it is not known.
        whole: it sees all of the picture by construction.
        weights: how much each pixel moves that position, float `[H, W]`, not negative; None where not measured.
        side: pixels of the square that holds `share` of that; None where not measured.
        centre: row and column of that square's middle.
        share: of the whole effect, 0 to 1.
    """

    name: str
    places: tuple[int, int]
    box: tuple[int, int, int, int] | None
    whole: bool
    weights: np.ndarray | None = None
    side: int | None = None
    centre: tuple[float, float] = (0.0, 0.0)
    share: float = 0.95

    @property
    def sentence(self) -> str:
        """What there is to see, in words."""
        rows, columns = self.places
        maps = f"{rows} x {columns} places" if columns > 1 else f"{rows} tokens"
        if self.box is None:
            can = "what each can see is not known"
        elif self.whole:
            can = "each can see the whole picture"
        else:
            height, width = self.box[2] - self.box[0] + 1, self.box[3] - self.box[1] + 1
            can = f"each can see {height} px" if height == width else f"each can see {height} x {width} px"
        if self.side is None:
            return f"{maps}; {can}."
        return f"{maps}; {can}; {self.share:.0%} of the effect is from {self.side} px."


def field_picture(picture: np.ndarray, seen: FieldSeen) -> bytes:
    """Draw one stage's field as a PNG, with its name and sentence below.

    Args:
        picture: uint8 `[H, W, 3]` or `[H, W, 1]`, of the size at which the network is given it.
        seen: by the stage.
    """
    return _png(_drawn(picture, seen, _margins(picture, [seen])))


def field_sheet(picture: np.ndarray, stages: Sequence[FieldSeen], *, columns: int = 3) -> bytes:
    """Draw all stages, in their order, on one sheet as a PNG, with a key below.

    Args:
        picture: as for `field_picture`.
        stages: one or more.
        columns: of the sheet, at the most.
    """
    drawn = [_drawn(picture, seen, _margins(picture, stages)) for seen in stages]
    columns = min(columns, len(drawn))
    width, height = drawn[0].width + TEXT, max(one.height for one in drawn) + TEXT
    rows = math.ceil(len(drawn) / columns)
    key = _written([(KEY, PALE)], columns * width - 2 * TEXT)
    sheet = Image.new("RGB", (columns * width + TEXT, rows * height + key.height + 2 * TEXT), PAPER)
    for number, one in enumerate(drawn):
        sheet.paste(one, (TEXT + number % columns * width, TEXT + number // columns * height))
    sheet.paste(key, (TEXT, rows * height + TEXT))
    return _png(sheet)


KEY = (
    "Blue frame: what the place in the middle can see, by the network's layers; grey around a picture is padding. "
    "Orange: the pixels that move it most. Dashed frame: where most of that effect comes from."
)


def _drawn(picture: np.ndarray, seen: FieldSeen, margins: tuple[int, int]) -> Image.Image:
    """A stage's drawing with its caption; above and below, left and right, so much padding is shown."""
    rows, columns = picture.shape[:2]
    scale = max(1, math.ceil(SHORTEST_SIDE / min(rows, columns)))
    factor = scale if scale * max(rows, columns) <= LONGEST_SIDE else LONGEST_SIDE / max(rows, columns)
    whole = Image.new("RGB", (columns + 2 * margins[1], rows + 2 * margins[0]), PADDING)
    whole.paste(_toned(picture, seen.weights), (margins[1], margins[0]))
    size = (round(whole.width * factor), round(whole.height * factor))
    canvas = whole.resize(size, Image.Resampling.NEAREST if factor == scale else Image.Resampling.LANCZOS)
    frames = [Frame(seen.box, BLUE, gap=4)] if seen.box is not None else []
    if seen.side is not None:
        row, column = (math.ceil(middle - (seen.side - 1) / 2) for middle in seen.centre)
        frames.append(Frame((row, column, row + seen.side - 1, column + seen.side - 1), ORANGE, dash=DASH))
    for frame in frames:
        _draw(canvas, frame, margins, factor)
    if seen.box is not None and max(seen.box[2] - seen.box[0], seen.box[3] - seen.box[1]) * factor < SMALL:
        _inset(canvas, whole, frames, margins)
    return _captioned(canvas, seen)


def _margins(picture: np.ndarray, stages: Sequence[FieldSeen]) -> tuple[int, int]:
    """How much padding to show, so that fields that end in it are seen to: rows, columns."""
    rows, columns = picture.shape[:2]
    boxes = [seen.box for seen in stages if seen.box is not None]
    past = [
        max((max(-box[i], box[i + 2] - side + 1) for box in boxes), default=-1) for i, side in ((0, rows), (1, columns))
    ]
    above, before = (
        0 if width < 0 else min(int(MARGIN * side), width + EDGE)
        for width, side in zip(past, (rows, columns), strict=True)
    )
    return above, before


def _toned(picture: np.ndarray, weights: np.ndarray | None) -> Image.Image:
    """The picture in pale grey, with orange where pixels move the stage; by the square root, so that weak ones show."""
    grey = (picture @ LUMA if picture.shape[2] == 3 else picture[..., 0].astype(np.float64))[..., None]
    toned = np.repeat(70 + 0.7 * grey, 3, axis=2)
    if weights is not None and weights.max() > 0:
        brightest = np.percentile(weights[weights > 0], BRIGHTEST)
        cover = np.sqrt(weights / brightest).clip(max=1)[..., None]
        # The picture's lightness stays in the orange, so that what lies there can still be made out.
        toned = (1 - cover) * toned + cover * np.array(ORANGE) * (0.5 + 0.5 * grey / 255)
    return Image.fromarray(np.rint(toned).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Frame:
    """A frame around pixels.

    Args:
        box: first row, first column, last row, last column.
        colour: of the line.
        dash: its length, px; 0 for a solid line.
        gap: how far outside of the pixels it is drawn, px, so that two frames around the same pixels are both seen.
    """

    box: tuple[int, int, int, int]
    colour: tuple[int, int, int]
    dash: int = 0
    gap: int = 0


def _draw(canvas: Image.Image, frame: Frame, origin: tuple[int, int], factor: float) -> None:
    """Draw a frame on a light edge, which shows on dark and on light pictures, or arrowheads to where it is."""
    top, left, bottom, right = frame.box
    y0, x0 = ((edge + before) * factor - frame.gap for edge, before in zip((top, left), origin, strict=True))
    y1, x1 = ((edge + before + 1) * factor + frame.gap for edge, before in zip((bottom, right), origin, strict=True))
    draw = ImageDraw.Draw(canvas)
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    draw.line(corners, PAPER, width=5, joint="curve")
    for (xa, ya), (xb, yb) in pairwise(corners):
        length = max(1.0, math.hypot(xb - xa, yb - ya))
        for start in np.arange(0, length, 2 * frame.dash) if frame.dash else (0.0,):
            ends = (start / length, min(1.0, (start + frame.dash) / length) if frame.dash else 1.0)
            draw.line([(xa + (xb - xa) * end, ya + (yb - ya) * end) for end in ends], frame.colour, width=3)
    width, height = canvas.size
    tips = ((x0 < 0, (0, height / 2), (1, 0)), (x1 > width, (width - 1, height / 2), (-1, 0)))
    tips += ((y0 < 0, (width / 2, 0), (0, 1)), (y1 > height, (width / 2, height - 1), (0, -1)))
    for beyond, (x, y), (inward, down) in tips:
        if beyond:
            base, side = (x + ARROW * inward, y + ARROW * down), (ARROW * down, ARROW * inward)
            head = [(x, y), (base[0] + side[0], base[1] + side[1]), (base[0] - side[0], base[1] - side[1])]
            draw.polygon(head, frame.colour, PAPER)


def _inset(canvas: Image.Image, whole: Image.Image, frames: Sequence[Frame], origin: tuple[int, int]) -> None:
    """Put what lies around a small field into the corner of the picture, enlarged."""
    top, left, bottom, right = frames[0].box
    side = 2 * (max(bottom - top, right - left) + 1) + 8
    row, column = (
        start + before - (side - (stop - start + 1)) // 2
        for start, stop, before in ((top, bottom, origin[0]), (left, right, origin[1]))
    )
    enlarged = max(1, min(canvas.size) // 3 // side)
    part = whole.crop((column, row, column + side, row + side))
    part = part.resize((side * enlarged, side * enlarged), Image.Resampling.NEAREST)
    for frame in frames:
        _draw(part, frame, (origin[0] - row, origin[1] - column), enlarged)
    edged = ImageOps.expand(ImageOps.expand(part, 2, INK), 3, PAPER)
    factor = canvas.width / whole.width
    corner = (canvas.width - round(origin[1] * factor), canvas.height - round(origin[0] * factor))
    canvas.paste(edged, (corner[0] - edged.width, corner[1] - edged.height))


def _captioned(drawn: Image.Image, seen: FieldSeen) -> Image.Image:
    caption = _written([(seen.name, INK), (seen.sentence, PALE)], drawn.width)
    canvas = Image.new("RGB", (drawn.width, drawn.height + caption.height + TEXT // 2), PAPER)
    canvas.paste(drawn, (0, 0))
    canvas.paste(caption, (0, drawn.height + TEXT // 2))
    return canvas


def _written(paragraphs: Sequence[tuple[str, tuple[int, int, int]]], width: int) -> Image.Image:
    """Text in lines of at most `width` px."""
    font = ImageFont.load_default(TEXT)
    lines: list[tuple[str, tuple[int, int, int]]] = []
    for text, colour in paragraphs:
        line = ""
        for word in text.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append((line, colour))
                longer = word
            line = longer
        lines.append((line, colour))
    step = round(1.4 * TEXT)
    canvas = Image.new("RGB", (width, step * len(lines)), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, (line, colour) in enumerate(lines):
        draw.text((0, number * step), line, colour, font=font)
    return canvas


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
