"""What loads what: quick commands stay quick, and everything from the report down works without torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = ("torch", "torchvision", "timm", "scipy", "sklearn", "matplotlib")
LOADED = f"import json, sys; print('LOADED', json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is not installed here")

sys.meta_path.insert(0, Refuse())
"""
COMMAND = """
from convsmith.cli.commands import run
code = run({words!r})
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def loaded(code: str) -> list[str]:
    """Which heavy packages some code loads, in a fresh interpreter."""
    done = python(f"{code}\n{LOADED}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("LOADED ")[2])


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["train"], ["predict", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]):
    assert loaded(COMMAND.format(words=words)) == []


def test_importing_convsmith_loads_nothing_heavy():
    assert loaded("import convsmith; dir(convsmith); convsmith.Estimate; convsmith.Recipe; convsmith.Finding") == []


def test_the_time_of_help_is_shown(capsys: pytest.CaptureFixture[str]):
    began = time.perf_counter()
    assert python(COMMAND.format(words=["--help"])).returncode == 0
    with capsys.disabled():
        print(f"\nconvsmith --help: {time.perf_counter() - began:.2f} s")  # noqa: T201 - it is measured to be read


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pictures_made import class_folder
    from typed import trained

    folder = tmp_path_factory.mktemp("imports")
    return trained(class_folder(folder / "insects"), folder / "runs", "--epochs", 2)


def test_runs_loads_nothing_heavy(run: Path):
    assert loaded(COMMAND.format(words=["runs", "--runs", str(run.parent)])) == []


def test_report_rebuilds_the_same_page_where_torch_cannot_be_imported(run: Path):
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    (run / "findings.json").unlink(missing_ok=True)
    code = WITHOUT_TORCH + COMMAND.format(words=["report", str(run)])
    done = python(f"{code}\nassert code == 0\ntry:\n    import torch\nexcept ImportError:\n    print('REFUSED')")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("REFUSED\n")
    assert (run / "report.html").read_bytes() == before
    assert (run / "findings.json").is_file()


def test_evaluate_shows_the_same_figures_where_torch_cannot_be_imported(run: Path):
    before = (run / "results.json").read_bytes()
    (run / "results.json").unlink()
    done = python(f"{WITHOUT_TORCH}{COMMAND.format(words=['evaluate', str(run)])}\nassert code == 0")
    assert done.returncode == 0, done.stderr
    assert "9 test images" in done.stdout
    assert (run / "results.json").read_bytes() == before


def test_every_name_of_the_library_can_be_loaded():
    import convsmith

    for name in convsmith.__all__:
        assert getattr(convsmith, name) is not None
    assert set(dir(convsmith)) == set(convsmith.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = convsmith.trian


def test_python_m_convsmith_is_the_command():
    done = subprocess.run([sys.executable, "-m", "convsmith", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("convsmith, version ")
