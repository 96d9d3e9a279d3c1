"""The lessons: every command of theirs is run, and every figure that stands below one is held against what it says."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from typed import Typed, typed

from convsmith.networks.kernels.match import likenesses, threshold

LESSONS = Path(__file__).parents[2] / "docs" / "lessons"
NAMES = ("kernels.md", "pooling-and-stride.md", "receptive-field.md")
WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "weights" / "tf_efficientnet_lite0.timm.safetensors"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$|^((?:\|[^\n]*\|\n)+)", re.S | re.M)


@dataclass
class Step:
    """Commands, the lines that they are said to print, and the table below them, as rows by column."""

    commands: list[str]
    lines: list[str]
    table: list[dict[str, str]]


def steps(lesson: str) -> list[Step]:
    found: list[Step] = []
    for kind, body, table in BLOCK.findall((LESSONS / lesson).read_text()):
        if kind == "sh":
            found.append(Step(body.strip().splitlines(), [], []))
        elif kind == "text":
            found[-1].lines += body.strip().splitlines()
        elif table:
            rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.strip().splitlines()]
            found[-1].table = [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
    return found


def run(command: str, *more: str) -> Typed:
    words = shlex.split(command)
    assert words[0] == "convsmith"
    done = typed(*words[1:], *more)
    assert done.code == 0, (command, done.err)
    return done


def one_line(text: str) -> str:
    return " ".join(text.split())


def figures(record: dict[str, Any]) -> dict[str, dict[str, str]]:
    """What `inspect` says of each layer, in the words of the lessons' tables."""
    told = {
        "*all*": {
            "parameters": f"{record['parameters']['total']:,}",
            "gives": "",
            "sees": "",
            "stride": "",
            "multiply-adds": f"{record['macs']:,}",
        }
    }
    for layer in record["layers"]:
        field = layer["field"]
        parts = layer["path"].split(".")
        for path in {
            ".".join(parts[: depth + 1]) for depth in range(len(parts))
        }:  # a block sees what its last layer does
            told[path] = {
                "gives": " × ".join(map(str, layer["output"][1:])),
                "parameters": f"{layer['parameters']:,}",
                "multiply-adds": f"{layer['macs']:,}" if layer["macs"] is not None else "",
                "sees": str(field["height"]["size"]) if field else "",
                "stride": str(field["height"]["stride"]) if field else "",
            }
    return told


def check(step: Step) -> None:
    """Run a step's commands and hold what it says against what they say."""
    printed: list[str] = []
    for command in step.commands:
        if step.table:
            told = figures(run(command, "--json").json)
            for row in step.table:
                wanted = {name: text for name, text in row.items() if name != "layer"}
                assert {name: told[row["layer"]][name] for name in wanted} == wanted, command
        else:
            printed += map(one_line, run(command).out.splitlines())
    for line in step.lines:
        places = [place for place, text in enumerate(printed) if one_line(line) in text]
        assert places, (step.commands, line)
        printed = printed[places[0] :]


@pytest.mark.parametrize("lesson", NAMES)
def test_every_command_that_trains_nothing_runs_and_says_what_the_lesson_says(lesson, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = [
        step for step in steps(lesson) if not any("train" in command or "--run" in command for command in step.commands)
    ]
    assert len(done) >= 10
    for step in done:
        check(step)


@pytest.mark.slow  # trains a network: 10 s
@pytest.mark.parametrize("lesson", NAMES[:1])
def test_every_command_that_trains_runs_and_says_what_the_lesson_says(lesson, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = [step for step in steps(lesson) if any("convsmith train" in command for command in step.commands)]
    assert len(trained) == 1
    check(trained[0])


def test_a_wrong_figure_in_a_lesson_is_found():
    with pytest.raises(AssertionError):
        check(Step(['convsmith kernels "3 7 / 4 9" --pool max'], ["Output: 1 x 1, values 8 to 8"], []))
    row = {"layer": "conv1", "parameters": "81"}
    with pytest.raises(AssertionError):
        check(Step(['convsmith inspect "conv 1->8 k3" --input 28'], [], [row]))
    check(Step(['convsmith inspect "conv 1->8 k3" --input 28'], [], [{**row, "parameters": "80"}]))


@pytest.mark.parametrize("lesson", NAMES)
def test_a_lesson_has_questions_with_answers_and_links_and_pictures_that_exist(lesson):
    text = (LESSONS / lesson).read_text()
    questions = re.findall(r"\*\*Question (\d+)\.\*\*", text)
    assert [int(number) for number in questions] == list(range(1, len(questions) + 1))
    assert len(questions) >= 6
    assert text.count("<details><summary>Answer</summary>") == text.count("</details>") == len(questions)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (LESSONS / target).is_file(), target
    assert len(steps(lesson)) >= 10


def test_every_picture_is_used_small_and_made_by_the_script():
    used = {name for lesson in NAMES for name in re.findall(r"\]\(pictures/([^)]+)\)", (LESSONS / lesson).read_text())}
    there = {path.name: path.stat().st_size for path in (LESSONS / "pictures").iterdir()}
    assert used == set(there)
    assert max(there.values()) < 300_000
    script = (LESSONS / "pictures.py").read_text()
    assert all(f'"{Path(name).stem}"' in script for name in used)


@pytest.mark.real_data
@pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"no {WEIGHTS}")
def test_the_filters_that_photos_by_the_million_taught_are_as_many_as_the_lesson_says():
    filters = load_file(WEIGHTS)["conv_stem.weight"]
    near = [each for each in likenesses(filters) if each.near]
    text = (LESSONS / "kernels.md").read_text()
    assert f"{len(near)} are near one" in one_line(text)
    assert f"of the {len(filters)} first filters" in one_line(text)
    random = np.random.default_rng(4).normal(size=(2000, *filters.shape[1:]))
    assert np.mean([each.near for each in likenesses(random)]) < 0.01
    assert threshold(3, 3) == 0.8
    assert sum(each.kernel in {"gaussian", "box"} for each in near) > len(near) / 2
