"""The page of the design studio: its commands and its Python run, and its pictures are those of the script."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typed import typed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "design-studio.md").read_text()
FAULTY = 6


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.S | re.M)


@pytest.mark.slow  # designs are built and measured: 20 s
def test_every_command_of_the_page_runs(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "examples" / "designs", tmp_path / "examples" / "designs")
    monkeypatch.chdir(tmp_path)
    commands = "".join(blocks("sh")).splitlines()
    assert len(commands) >= 8
    for command in commands:
        words = shlex.split(command)
        done = typed(*words[1:])
        assert done.code in ({0, FAULTY} if words[1] == "lint" else {0}), (command, done.err)
    assert {path.name for path in tmp_path.iterdir()} >= {"network.html", "network.mmd", "smaller.yaml"}


def test_the_python_of_the_page_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    for code in blocks("python"):
        exec(code, names)
    assert names["shown"].parameters == 11_689_512
    images = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        same = names["lenet"].eval()(images), names["wider"].eval()(images)
        assert names["grey"](torch.rand(1, 1, 64, 64)).shape == (1, 1000)
    torch.testing.assert_close(*same, atol=1e-4, rtol=1e-4)


def test_every_picture_is_there_small_and_made_by_the_script():
    used = set(re.findall(r"\]\(pictures/([^)]+)\)", PAGE))
    assert used
    for name in used:
        assert (ROOT / "docs" / "pictures" / name).stat().st_size < 300_000
        assert f'"{name.partition("-")[0].partition(".")[0]}"' in (ROOT / "docs" / "pictures.py").read_text()
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
