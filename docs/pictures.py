"""Take the documentation's pictures of a report: `python docs/pictures.py RUN`.

Opens `RUN/report.html` in headless Chromium and writes PNG files, each below 300 kB, to docs/pictures. Needs Chromium
on the PATH and `pip install convsmith[browser]`.
"""

from __future__ import annotations

import io
import shutil
import sys
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


def main(arguments: list[str]) -> int:
    """Take all pictures of one run and say what was written; 2 where the call is wrong."""
    if len(arguments) != 1:
        print("Usage: python docs/pictures.py RUN", file=sys.stderr)
        return 2
    report = Path(arguments[0]) / "report.html"
    chromium = shutil.which("chromium")
    if not report.is_file():
        print(f"There is no {report}. `convsmith report {arguments[0]}` makes it.", file=sys.stderr)
        return 2
    if chromium is None:
        print("There is no `chromium` on the PATH. On Debian: apt-get install chromium.", file=sys.stderr)
        return 2
    PLACE.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for name, width, height, scheme in SCREENS:
            page = shown(browser, report, width, height, scheme)
            save(name, page.screenshot())
            page.close()
        page = shown(browser, report, 1280, 900, "light")
        for name, anchor in SECTIONS:
            part = page.locator(f"#{anchor}")
            if part.count():
                save(name, part.screenshot())
        browser.close()
    return 0


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
