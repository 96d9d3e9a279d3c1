"""Three runs that came out differently begin their reports differently."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from pictures_made import CLASSES, class_folder
from typed import trained

Pages = dict[str, str]


@pytest.fixture(scope="module")
def first_screens(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """The words before the first chapter of each report: of a good run, one of shuffled labels, one of 40 images."""
    root = tmp_path_factory.mktemp("screens")
    good = class_folder(root / "good", each=100)
    shuffled = root / "chance"
    names = np.random.default_rng(0).permutation(np.repeat(CLASSES, 100))
    for path, name in zip(sorted(good.rglob("*.png")), names, strict=True):
        (shuffled / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, shuffled / name / f"{path.parent.name}{path.name}")
    few = class_folder(root / "few", classes=("ant", "bee"), each=20)
    epochs = {"good": 6, "chance": 2, "few": 10}
    screens = {}
    for folder in (good, shuffled, few):
        run = trained(folder, root / "runs" / folder.name, "--epochs", epochs[folder.name])
        screens[folder.name] = first_screen((run / "report.html").read_text())
        screens[f"{folder.name} findings"] = json.dumps(json.loads((run / "findings.json").read_bytes()))
    return screens


def first_screen(page: str) -> str:
    """Text of the page's first section."""
    body = page[page.index("<main") :]
    section = body[: body.index("</section>")]
    text = re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", section, flags=re.DOTALL)
    return " ".join(text.split())


def test_the_three_first_screens_differ_in_words_and_not_only_in_numbers(first_screens: Pages):
    words = {name: re.sub(r"[\d.,%]+", "#", first_screens[name]) for name in ("good", "chance", "few")}
    assert len(set(words.values())) == 3


def test_the_good_run_says_what_it_gets_right(first_screens: Pages):
    assert "of 45 test images" in first_screens["good"] or "45" in first_screens["good"]
    assert "chance" not in first_screens["good"].lower()


def test_the_run_of_shuffled_labels_says_that_nothing_was_learnt(first_screens: Pages):
    assert re.search(r"always|guess|chance|no better", first_screens["chance"], re.IGNORECASE)


def test_the_run_of_forty_images_says_how_little_that_proves(first_screens: Pages):
    assert re.search(r"too few|few|only|small|wide", first_screens["few"], re.IGNORECASE)
