"""The user's own network: trained, copied, hashed, and never run unasked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typed import SMALL, only_run, typed

CODE = """\
from torch import nn


class Net(nn.Module):
    def __init__(self, in_channels, outputs, width=4):
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(width, outputs),
        )

    def forward(self, images):
        return self.layers(images)
"""


@pytest.fixture(scope="module")
def own(insects: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of `net.py:Net` with width 8, and that file."""
    root = tmp_path_factory.mktemp("own")
    code = root / "net.py"
    code.write_text(CODE)
    plain = [word for pair in zip(SMALL[::2], SMALL[1::2], strict=True) if "convnet" not in pair[1] for word in pair]
    words = ("--model", f"{code}:Net", "--arg", "width=8", "--epochs", 2, "--runs", root / "runs", *plain)
    done = typed("train", insects, *words)
    assert done.code == 0, done.err
    return only_run(root / "runs"), code


def test_it_is_copied_into_the_run_with_its_hash(own: tuple[Path, Path]):
    run, code = own
    assert (run / "code.py").read_bytes() == code.read_bytes()
    model = json.loads((run / "manifest.json").read_bytes())["model"]
    assert model["code_sha256"] == hashlib.sha256(code.read_bytes()).hexdigest()
    assert model["code"]["options"] == {"width": 8}
    assert model["parameters"] == (3 * 9 + 1) * 8 + (8 + 1) * 3
    assert "net.py" not in (run / "recipe.yaml").read_text()


def test_predict_without_code_is_refused_and_with_it_works(own: tuple[Path, Path], insects: Path):
    run, code = own
    picture = insects / "ant" / "000.png"
    done = typed("predict", run, picture)
    assert done.code == 2
    assert "--code FILE.py" in done.err
    for given in (code, run / "code.py"):
        assert typed("predict", run, picture, "--code", given).code == 0


def test_a_changed_file_is_refused(own: tuple[Path, Path], insects: Path, tmp_path: Path):
    run, _ = own
    changed = tmp_path / "net.py"
    changed.write_text(CODE + "\n# another day\n")
    for command in (("predict", run, insects / "ant" / "000.png"), ("evaluate", run, "--data", insects)):
        done = typed(*command, "--code", changed)
        assert done.code == 2
        assert "has changed" in done.err


def test_resume_asks_for_the_code_and_checks_it(own: tuple[Path, Path], tmp_path: Path):
    run, code = own
    (run / "results.json").rename(run / "results.json.away")
    try:
        done = typed("resume", run)
        assert done.code == 2
        assert "--code FILE.py" in done.err
        changed = tmp_path / "net.py"
        changed.write_text(CODE.replace("ReLU", "Tanh"))
        assert "has changed" in typed("resume", run, "--code", changed).err
        done = typed("resume", run, "--code", code)
        assert done.code == 0, done.err
        assert (run / "results.json").read_bytes() == (run / "results.json.away").read_bytes()
    finally:
        (run / "results.json.away").unlink()


def test_code_for_a_run_that_needs_none_is_refused(run: Path, own: tuple[Path, Path], insects: Path):
    done = typed("predict", run, insects / "ant" / "000.png", "--code", own[1])
    assert done.code == 2
    assert "not from a file of code" in done.err


def test_training_it_again_from_the_recipe_needs_the_model_named(own: tuple[Path, Path], tmp_path: Path):
    run, code = own
    recipe = ("--recipe", run / "recipe.yaml", "--runs", tmp_path / "runs")
    assert typed("train", *recipe).code == 2
    done = typed("train", *recipe, "--model", f"{code}:Net", "--arg", "width=8")
    assert done.code == 0, done.err
    again = only_run(tmp_path / "runs")
    one, other = (next(iter(sorted(each.glob("checkpoints/*/weights.safetensors")))) for each in (run, again))
    assert one.read_bytes() == other.read_bytes()
