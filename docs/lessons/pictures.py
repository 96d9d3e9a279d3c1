"""Draw the pictures of the lessons: `python docs/lessons/pictures.py`.

Each is a page, made with the library's own functions, of which headless Chromium takes a picture: PNG files below 300
kB in docs/lessons/pictures. Trains a small network on the way. Needs Chromium on the PATH and
`pip install convsmith[browser]`.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from convsmith.cli.kernel_picture import open_picture
from convsmith.networks.kernels.bank import KERNELS, gaussian
from convsmith.networks.kernels.filtering import convolve, numbers, padded
from convsmith.reporting.kernel_drawings import Scale, png, scale
from convsmith.reporting.kernel_page import tile

HERE = Path(__file__).parent
SPEC = importlib.util.spec_from_file_location("report_pictures", HERE.parent / "pictures.py")
assert SPEC
assert SPEC.loader
report_pictures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(report_pictures)

STYLE = """
body { margin: 0; padding: 20px; width: max-content; background: #fdfcfa; color: #1a1c20; }
body { font: 15px/1.4 Arial, sans-serif; }
.row { display: flex; gap: 26px; } .grid { display: grid; grid-template-columns: repeat(4, 236px); gap: 22px; }
b { font-weight: 600; } span { color: #5c6068; } img { display: block; } .pixels { image-rendering: pixelated; }
table { border-collapse: collapse; margin-top: 6px; }
td { width: 34px; height: 34px; text-align: center; border: 1px solid #dfdcd5; }
td.own { background: #cfe6ee; border: 1px solid #14627d; } td.added { color: #5c6068; }
.named { display: flex; gap: 9px; align-items: center; margin-top: 6px; } .tile { width: 30px; height: 30px; }
.plus { fill: #14627d; } .minus { fill: #b23c17; } .outline { fill: none; stroke: #5c6068; }
line { stroke: #b9b5ab; stroke-width: 1.5; } line.seen { stroke: #14627d; stroke-width: 2; }
circle { fill: #fdfcfa; stroke: #8a8d93; stroke-width: 1.5; } circle.seen { fill: #14627d; stroke: #14627d; }
text { font: 15px Arial, sans-serif; fill: #1a1c20; }
"""
BANK = ("identity", "sobel-vertical", "sobel-horizontal", "laplacian-8", "gabor", "box", "sharpen", "emboss")
LONG = {"box": 9}


def bank() -> str:
    """Eight kernels on one photo."""
    picture = open_picture("flower", size=236, colour=False)
    parts = []
    for name in BANK:
        kernel = KERNELS.build(name, **({"size": LONG[name]} if name in LONG else {}))
        output = convolve(picture.values, kernel, padding="reflect")
        drawn = png(output, scale(output, kernel, picture.low, picture.high))
        size = f"<br><span>of {LONG[name]}x{LONG[name]}</span>" if name in LONG else ""
        named = f'<div class="named">{tile(kernel[None])}<b>{name}{size}</b></div>'
        parts.append(f'<div><img src="{drawn}" width="236">{named}</div>')
    return f'<div class="grid">{"".join(parts)}</div>'


def padding() -> str:
    """One picture of 3x3 under four paddings."""
    nine, parts = numbers("1 2 3 / 4 5 6 / 7 8 9"), []
    for name in ("zero", "reflect", "replicate", "circular"):
        rows = [
            "<tr>" + "".join(
                f'<td class="{"own" if 0 < i < 4 and 0 < j < 4 else "added"}">{value:.0f}</td>'
                for j, value in enumerate(row)
            ) + "</tr>"
            for i, row in enumerate(padded(nine, 1, name))
        ]  # fmt: skip
        parts.append(f"<div><b>{name}</b><table>{''.join(rows)}</table></div>")
    return f'<div class="row">{"".join(parts)}</div>'


def aliasing() -> str:
    """A roof of fine tiles, made four times smaller in two ways."""
    values = open_picture("china", size=640, colour=False).values[40:232, 190:446]
    given = Scale(0, 255, signed=False)
    blurred = convolve(values, gaussian(17, 2.0), padding="reflect")
    shown = (
        ("as it is", values),
        ("every fourth pixel", values[1::4, 1::4]),
        ("blurred, then every fourth", blurred[1::4, 1::4]),
    )
    parts = [
        f'<div><img class="pixels" src="{png(part, given)}" width="320" height="240"><b>{name}</b></div>'
        for name, part in shown
    ]
    return f'<div class="row">{"".join(parts)}</div>'


def field() -> str:
    """Which pixels of a line reach the last number, through three layers of three taps."""
    cones = _cone("stride 1 everywhere", (1, 1, 1)), _cone("stride 2 in the second layer", (1, 2, 1))
    return f'<div class="row">{"".join(cones)}</div>'


def _cone(title: str, strides: tuple[int, ...]) -> str:
    """A drawing of maps as rows of dots, each three dots feeding one above; what reaches the top is filled."""
    pixels, gap, rise, left = 13, 30, 62, 160
    places = [np.arange(pixels, dtype=float)]
    for stride in strides:
        places.append(places[-1][1:-1:stride])
    seen, plain, filled, drawn = {len(places[-1]) // 2}, [], [], []
    for layer in range(len(strides), -1, -1):
        y = 30 + rise * (len(strides) - layer)
        name = f"layer {layer}, sees {_sees(strides[:layer])}" if layer else f"picture: {len(seen)} px"
        drawn.append(f'<text x="0" y="{y + 5}">{name}</text>')
        below: set[int] = set()
        for index, place in enumerate(places[layer]):
            x, kind = left + gap * place, ' class="seen"' if index in seen else ""
            drawn.append(f'<circle{kind} cx="{x}" cy="{y}" r="8"/>')
            for child in range(strides[layer - 1] * index, strides[layer - 1] * index + 3) if layer else ():
                end = left + gap * places[layer - 1][child]
                line = f'<line{kind} x1="{x}" y1="{y}" x2="{end}" y2="{y + rise}"/>'
                (filled if index in seen else plain).append(line)
                below |= {child} if index in seen else set()
        seen = below
    under, wide, high = "".join((*plain, *filled)), left + gap * pixels, 60 + rise * len(strides)
    return f'<div><b>{title}</b><br><svg width="{wide}" height="{high}">{under}{"".join(drawn)}</svg></div>'


def _sees(strides: tuple[int, ...]) -> int:
    size, step = 1, 1
    for stride in strides:
        size, step = size + 2 * step, step * stride
    return size


def lab(folder: Path) -> Path:
    """The kernel lab's page of a digit."""
    command("kernels", "digits:7", "--kernel", "sobel-vertical", "--at", "1,2", "--html", folder / "lab.html")
    return folder / "lab.html"


def learnt(folder: Path) -> Path:
    """The page of a network trained on digits."""
    command("train", "digits", "--runs", folder / "runs", "--quiet", "--set", "train.checkpoint_every=100")
    command("kernels", "digits:7", "--run", "last", "--runs", folder / "runs", "--html", folder / "learnt.html")
    return folder / "learnt.html"


def command(*words: object) -> None:
    """Run one of Convsmith's commands."""
    subprocess.run([sys.executable, "-m", "convsmith", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


DRAWN = {"bank": bank, "padding": padding, "aliasing": aliasing, "field": field}
#: Pages of the product: what makes one, and what is shown of it: a window's height, or the end of an element.
TAKEN = {"lab": (lab, "#terms"), "learnt": (learnt, "#learnt tbody tr:nth-child(5)")}


def main(wanted: list[str]) -> int:
    """Make all pictures, or those that are named."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("There is no `chromium` on the PATH. On Debian: apt-get install chromium.", file=sys.stderr)
        return 2
    report_pictures.PLACE = HERE / "pictures"
    report_pictures.PLACE.mkdir(exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        browser = playwright.chromium.launch(executable_path=chromium, args=report_pictures.ARGUMENTS)
        for name, draw in DRAWN.items():
            if not wanted or name in wanted:
                page = browser.new_page(device_scale_factor=1.5)
                page.set_content(f"<!doctype html><style>{STYLE}</style>{draw()}")
                report_pictures.save(name, page.locator("body").screenshot())
        for name, (make, end) in TAKEN.items():
            if not wanted or name in wanted:
                page = browser.new_page(viewport={"width": 1200, "height": 900}, device_scale_factor=1.5)
                page.goto(make(folder).as_uri())
                first = page.locator("#learnt" if name == "learnt" else ".masthead").bounding_box()
                last = page.locator(end).bounding_box()
                assert first
                assert last
                box = {"x": 0, "y": first["y"], "width": 1200, "height": last["y"] + last["height"] - first["y"] + 4}
                if name == "learnt":
                    box |= {"x": first["x"] - 20, "width": 1220 - first["x"]}
                report_pictures.save(name, page.screenshot(full_page=True, clip=box))
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
