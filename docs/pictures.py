"""Take the documentation's pictures of pages: `python docs/pictures.py [RUN]`.

Makes the pages of `convsmith inspect`, `lint` and `kernels` anew, and takes the report of a run where one is named;
opens them in headless Chromium and writes PNG files, each below 300 kB, to docs/pictures. Needs Chromium on the PATH,
and `pip install convsmith[browser]`.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

PLACE = Path(__file__).parent / "pictures"
LARGEST = 300_000
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
#: File name, width and height of the window, colour scheme.
SCREENS = [("report", 1280, 720, "light"), ("report-dark", 1280, 720, "dark"), ("report-narrow", 400, 860, "light")]
#: File name and the anchor of the section that it shows.
SECTIONS = [
    ("report-figures", "figures"), ("report-classes", "classes"), ("report-confusions", "confusions"),
    ("report-mistakes", "mistakes"), ("report-training", "training"), ("report-plan", "plan"),
]  # fmt: skip
DEEP = " | ".join(["conv 3->16 k3 p1", *["relu", "conv 16 k3 p1"] * 12, "gap", "flatten", "linear 10"])
POOR = (
    "conv 3->48 k7 s4 p3 | bn | relu | conv 64 k4 s2 | dropout 0.3 | bn | relu | flatten | linear 4096 | relu | "
    "linear 10 | softmax"
)
#: File name, the command that writes the page, and the sections to take besides the first screen.
STUDIO: list[tuple[str, list[str], list[str]]] = [
    ("inspect", ["inspect", "resnet50"], ["sees", "cost", "memory"]),
    ("signal", ["inspect", DEEP, "--input", "32", "--signal", "kaiming-normal-fan-in", "--signal", "xavier-normal",
                "--signal", "normal-0.01"], ["signal"]),
    ("lint", ["lint", POOR, "--input", "64"], []),
    ("kernels", ["kernels", "flower", "--kernel", "sobel-vertical", "--at", "120,160"], []),
]  # fmt: skip


def main(arguments: list[str]) -> int:
    """Take all pictures and say what was written; 2 where the call is wrong."""
    if len(arguments) > 1:
        print("Usage: python docs/pictures.py [RUN]", file=sys.stderr)
        return 2
    report = Path(arguments[0]) / "report.html" if arguments else None
    chromium = shutil.which("chromium")
    if report is not None and not report.is_file():
        print(f"There is no {report}. `convsmith report {arguments[0]}` makes it.", file=sys.stderr)
        return 2
    if chromium is None:
        print("There is no `chromium` on the PATH. On Debian: apt-get install chromium.", file=sys.stderr)
        return 2
    PLACE.mkdir(exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for name, words, sections in STUDIO:
            written = Path(folder) / f"{name}.html"
            command = [sys.executable, "-m", "convsmith", *words, "--html", written.name]
            subprocess.run(
                command, cwd=folder, check=False, capture_output=True
            )  # lint ends with 6 where it finds errors
            if name != "signal":
                first(browser, written, name, 1280, 800, "light")
            parts(browser, written, [(anchor if anchor == name else f"{name}-{anchor}", anchor) for anchor in sections])
        if report is not None:
            for screen in SCREENS:
                first(browser, report, *screen)
            parts(browser, report, SECTIONS)
        browser.close()
    return 0


def first(browser: Browser, file: Path, name: str, width: int, height: int, scheme: str) -> None:
    """Take a page's first screen."""
    page = shown(browser, file, width, height, scheme)
    save(name, page.screenshot())
    page.close()


def parts(browser: Browser, file: Path, sections: list[tuple[str, str]]) -> None:
    """Take sections of a page, where it has them."""
    page = shown(browser, file, 1280, 900, "light")
    for name, anchor in sections:
        part = page.locator(f"#{anchor}")
        if part.count():
            save(name, part.screenshot())
    page.close()


def shown(browser: Browser, report: Path, width: int, height: int, scheme: str) -> Page:
    """Open the report in a window of this size, drawn with twice the pixels."""
    window = {"width": width, "height": height}
    page = browser.new_page(viewport=window, color_scheme=scheme, device_scale_factor=2)  # type: ignore[arg-type]
    page.goto(report.resolve().as_uri())
    return page


def save(name: str, png: bytes) -> None:
    """Write a picture in 256 colours, and in half the pixels where it would still be too large."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    written = packed(image)
    if len(written) > LARGEST:
        written = packed(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS))
    file = PLACE / f"{name}.png"
    file.write_bytes(written)
    print(f"{file}  {len(written) // 1000} kB")


def packed(image: Image.Image) -> bytes:
    """Return PNG bytes with a palette of 256 colours."""
    out = io.BytesIO()
    few = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
