"""FAULTS 70: NO_COLOR, pipes, terminals that know only ASCII, and readers that have seen enough."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from pictures_made import class_folder

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def snow(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with classes in several scripts, whose page and runs lie beside it."""
    return class_folder(tmp_path_factory.mktemp("terminals") / "☃", classes=("☃", "зима", "e\u0301te\u0301"), each=6)


def words_of(command: str, snow: Path, run: Path) -> list[str]:
    return {
        "data": ["data", str(snow), "--runs", str(snow.parent / "runs")],
        "models": ["models", "resnet1*"],
        "doctor": ["doctor", "--runs", str(snow.parent / "runs")],
        "runs": ["runs", "--runs", str(run.parent)],
        "predict": ["predict", str(run), str(snow), "--format", "table"],
    }[command]


@pytest.mark.parametrize(
    "command",
    ["runs", *(pytest.param(command, marks=pytest.mark.slow) for command in ("data", "doctor", "models", "predict"))],
)
def test_an_ascii_pipe_whose_reader_leaves_gets_plain_text_and_no_traceback(command: str, snow: Path, run: Path):
    """Once read to the end, and once to the first line, by the same shell, so that both hold for every command."""
    typed = subprocess.list2cmdline([sys.executable, "-m", "convsmith", *words_of(command, snow, run)])
    environment = {**os.environ, **ASCII}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{typed} | head -n 1"], capture_output=True, env=environment, check=False
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == 1
    assert told.isascii()
    for fault in (b"\x1b", b"Traceback", b"Exception ignored", b"UnicodeEncodeError", b"Broken pipe"):
        assert fault not in told


@pytest.mark.parametrize(
    ("command", "name"), [pytest.param("data", rb"\xe2\x98\x83", marks=pytest.mark.slow), ("predict", rb"\u2603")]
)
def test_names_in_any_script_come_whole_through_an_ascii_pipe(command: str, name: bytes, snow: Path, run: Path):
    words = [sys.executable, "-m", "convsmith", *words_of(command, snow, run)]
    done = subprocess.run(words, capture_output=True, env={**os.environ, **ASCII}, check=False)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout
    assert b"Traceback" not in done.stderr


def on_a_terminal(words: list[str], **environment: str) -> str:
    """What a command shows on a terminal of its own."""
    child, descriptor = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-m", "convsmith", *words], {**os.environ, **environment})
    shown = b""
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.waitpid(child, 0)
    os.close(descriptor)
    return shown.decode()


def colours(text: str) -> set[str]:
    """The colours asked for: 30 to 37 and 90 to 97 of the ECMA-48 codes; bold and the like are none."""
    codes = [code for part in text.split("\x1b[")[1:] for code in part.partition("m")[0].split(";")]
    return {code for code in codes if code.isdigit() and (30 <= int(code) <= 49 or 90 <= int(code) <= 107)}


def test_colours_are_for_terminals_that_want_them(run: Path):
    plain = {key: "" for key in ("NO_COLOR", "CI") if key in os.environ}
    for words in (["runs", "--runs", str(run.parent)], ["report", "absent", "--runs", str(run.parent)]):
        assert colours(on_a_terminal(words, TERM="xterm-256color", **plain))
        assert not colours(on_a_terminal(words, TERM="xterm-256color", NO_COLOR="1"))
        assert not colours(on_a_terminal(words, TERM="dumb"))
