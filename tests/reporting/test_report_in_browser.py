"""The report as a browser shows it: nothing loaded, nothing overlapping, nothing out of reach."""

from __future__ import annotations

import importlib.util
import shutil

import pytest
import sample_run

from convsmith.reporting import render

CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
MISSING = [name for name in ("playwright", "axe_playwright_python") if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` on the PATH: apt-get install chromium"),
    pytest.mark.skipif(bool(MISSING), reason="pip install convsmith[browser]"),
]

#: Pairs of texts whose visible boxes meet. Boxes are as high as the font's, more than the letters are: a quarter is
#: taken off. What an ancestor clips is not visible, and counts for nothing.
OVERLAPS = """() => {
  const boxes = [];
  const meet = (a, b) =>
    [Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const clips = new Map();
  const clipOf = element => {
    if (!element || element === document.body) return [-1e9, -1e9, 1e9, 1e9];
    if (clips.has(element)) return clips.get(element);
    let clip = clipOf(element.parentElement);
    if (getComputedStyle(element).overflow !== 'visible') {
      const r = element.getBoundingClientRect();
      clip = meet(clip, [r.left, r.top, r.right, r.bottom]);
    }
    clips.set(element, clip);
    return clip;
  };
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.data.trim() || node.parentElement.closest('.skip') || !node.parentElement.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const clip = clipOf(node.parentElement);
    for (const r of range.getClientRects()) {
      const flat = r.width >= r.height || !node.parentElement.hasAttribute('transform');
      const dx = flat ? 0.5 : r.width / 8, dy = flat ? r.height / 8 : 0.5;
      const box = meet([r.left + dx, r.top + dy, r.right - dx, r.bottom - dy], clip);
      if (box[2] - box[0] > 0.5 && box[3] - box[1] > 0.5) boxes.push({box, node});
    }
  }
  const found = [];
  for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
    const [a, b] = [boxes[i], boxes[j]];
    if (a.node === b.node) continue;
    const shared = meet(a.box, b.box);
    if (shared[2] - shared[0] > 0.5 && shared[3] - shared[1] > 0.5) {
      found.push([a.node.data.trim().slice(0, 40), b.node.data.trim().slice(0, 40), ...shared]);
    }
  }
  return {count: boxes.length, found};
}"""
OUTSIDE = """() => [...document.querySelectorAll('svg text, p, h1, h2, h3, img')].filter(e => {
  const r = e.getBoundingClientRect();
  return r.width && !e.closest('.skip, .scroll') && (r.right > innerWidth + 0.5 || r.left < -0.5);
}).map(e => e.textContent.slice(0, 60))"""


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture
def show(browser, tmp_path):
    """Open a page from a file and return it with what it asked for and what its console said."""
    pages = []

    def opened(text: str, width: int, scheme: str):
        file = tmp_path / "report.html"
        file.write_text(text, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        pages.append(page)
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
        page.goto(file.as_uri())
        return page, [url for url in asked if url != file.as_uri() and not url.startswith("data:")], said

    yield opened
    for page in pages:
        page.close()


VIEWS = [
    *(
        (name, width, scheme)
        for name in ("fashion", "hostile")
        for width in (1280, 400)
        for scheme in ("light", "dark")
    ),
    *((name, *view) for name in ("chance", "forty", "many") for view in ((1280, "dark"), (400, "light"))),
    ("fashion", 768, "light"),
    *((f"data {name}", *view) for name in ("odd", "hostile") for view in ((1280, "light"), (400, "dark"))),
    ("data clean", 900, "light"),
    ("hostile", 1000, "dark"),
]


@pytest.mark.parametrize(("name", "width", "scheme"), VIEWS)
def test_the_page_is_quiet_fits_and_can_be_read_by_all(show, name, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    what, _, kind = name.partition(" ")
    text = sample_run.data(kind) if what == "data" else render(sample_run.SAMPLES[name]())
    page, asked, said = show(text, width, scheme)
    for state in ("closed", "open"):
        if state == "open":
            page.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
        texts = page.evaluate(OVERLAPS)
        assert texts["count"] > 100
        assert texts["found"] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OUTSIDE) == []
    violations = Axe().run(page).response["violations"]
    assert [
        (item["id"], item["nodes"][0]["html"]) for item in violations if item["impact"] in {"serious", "critical"}
    ] == []
    assert asked == []
    assert said == []


def test_the_first_screen_answers_within_its_height(show):
    page, _, _ = show(render(sample_run.fashion()), 1280, "light")
    bottom = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.answer')].map(e => e.getBoundingClientRect().bottom))"
    )
    assert bottom <= 800


@pytest.mark.parametrize("name", ["odd", "clean"])
def test_the_first_screen_of_the_data_answers_within_its_height(show, name):
    page, _, _ = show(sample_run.data(name), 1280, "light")
    bottoms = "[...document.querySelectorAll('.answer, .contact')].map(e => e.getBoundingClientRect().bottom)"
    assert page.evaluate(f"Math.max(...{bottoms})") <= 800


def test_every_link_and_table_is_reached_by_the_tab_key(show):
    page, _, _ = show(render(sample_run.fashion()), 1280, "light")
    page.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
    places = "[...document.querySelectorAll('a, summary, .scroll, input:checked')]"
    reachable = page.evaluate(f"{places}.length")
    reached = set()
    for _ in range(reachable + 10):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(f"{places}.indexOf(document.activeElement)"))
    assert reached >= set(range(reachable))


def test_a_cell_of_the_matrix_opens_its_pictures_by_keyboard(show):
    page, _, _ = show(render(sample_run.fashion()), 1280, "light")
    link = page.locator(".chart.matrix a").first
    target = link.get_attribute("href")
    assert not page.locator(f"{target} img").first.is_visible()
    link.focus()
    page.keyboard.press("Enter")
    assert page.locator(f"{target} img").first.is_visible()
    assert page.locator("details.cell ul:visible").count() == 1


def test_the_gallery_is_put_in_the_order_that_is_chosen(show):
    page, _, _ = show(render(sample_run.fashion()), 1280, "light")
    names = """[...document.querySelectorAll('#mistakes .gallery li')]
        .sort((a, b) => getComputedStyle(a).order - getComputedStyle(b).order)
        .map(item => item.querySelector('.file').textContent)"""
    costliest = page.evaluate(names)
    page.locator("#order-name").focus()
    page.keyboard.press("Space")
    assert page.evaluate(names) == sorted(costliest)
    assert len(costliest) == 24


def test_a_finding_of_the_checks_is_possible(show):
    page, asked, _ = show(
        '<p style="margin:0">one</p><p style="margin:-16px 0 0">two</p><img src="http://127.0.0.1:9/x">', 400, "light"
    )
    assert page.evaluate(OVERLAPS)["found"]
    assert asked == ["http://127.0.0.1:9/x"]
