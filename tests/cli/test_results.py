"""`runs`, `report`, `evaluate`, and how runs are named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pictures_made import class_folder
from typed import typed


@pytest.fixture
def several(run: Path, tmp_path: Path) -> Path:
    """Three runs: two whole ones and one whose manifest is broken."""
    runs = tmp_path / "runs"
    for name in ("2026-01-01-first-00000001", "2026-01-02-second-00000002", "2026-01-03-broken-00000003"):
        shutil.copytree(run, runs / name, copy_function=shutil.copyfile)
    (runs / "2026-01-03-broken-00000003" / "manifest.json").write_text("{")
    (runs / "no run").mkdir()
    return runs


def test_runs_lists_them_all_with_results_a_broken_one_too(several: Path):
    done = typed("runs", "--runs", several, "--json")
    rows = done.json
    assert [row["run"].split("-")[3] for row in rows] == ["first", "second", "broken"]
    assert rows[0]["result"].startswith("accuracy ")
    assert rows[0]["time"].endswith(" s")
    assert "insects" in rows[0]["data"]
    assert "cannot be read" in rows[2]["result"]
    table = typed("runs", "--runs", several)
    assert table.code == 0
    assert "cannot be read" in " ".join(table.out.split())


@pytest.mark.parametrize("record", ["{}", "[]", '{"splits": {}}', '{"splits": {"test": {"metrics": {}}}}'])
def test_a_run_with_senseless_results_does_not_hide_the_others(record: str, several: Path):
    (several / "2026-01-02-second-00000002" / "results.json").write_text(record)
    done = typed("runs", "--runs", several, "--json")
    assert done.code == 0, done.err
    assert "cannot be read" in done.json[1]["result"]
    assert done.json[0]["result"].startswith("accuracy ")


def test_no_runs_says_so_and_offers_the_first(tmp_path: Path):
    done = typed("runs", "--runs", tmp_path / "runs")
    assert done.code == 0
    assert "There are no runs" in done.out
    assert "convsmith train digits" in done.err
    assert typed("runs", "--runs", tmp_path / "runs", "--json").json == []


def test_a_run_is_named_by_path_name_prefix_or_last(several: Path):
    def found(name: object) -> str:
        done = typed("report", name, "--runs", several, "--json")
        assert done.code == 0, done.err
        return Path(done.json["report"]).parent.name

    assert found(several / "2026-01-01-first-00000001") == "2026-01-01-first-00000001"
    assert found("first") == found("fir") == found("2026-01-01") == "2026-01-01-first-00000001"
    shutil.rmtree(several / "2026-01-03-broken-00000003")
    assert found("last") == "2026-01-02-second-00000002"
    ambiguous = typed("report", "2026", "--runs", several)
    assert ambiguous.code == 2
    assert "2 runs are called" in ambiguous.err
    assert typed("report", "third", "--runs", several).code == 2


def test_evaluate_shows_the_figures_anew_from_the_records(run: Path):
    before = (run / "results.json").read_bytes()
    (run / "results.json").unlink()
    done = typed("evaluate", run)
    assert done.code == 0, done.err
    assert "9 test images" in done.out
    assert "Wilson" in done.out
    assert "bee" in done.out
    assert (run / "results.json").read_bytes() == before


def test_evaluate_measures_other_images_and_leaves_the_records(run: Path, tmp_path: Path):
    other = class_folder(tmp_path / "other", classes=("bee", "cat"), each=4, seed=3)
    done = typed("evaluate", run, "--data", other, "--json")
    assert done.code == 0, done.err
    assert done.json["n"] == 8
    assert done.json["confusion"][0] == [0, 0, 0]
    held = [json.loads(path.read_bytes()) for path in run.glob("evaluations/*/results.json")]
    assert [record["splits"]["evaluation"]["n"] for record in held if record["source"] == str(other)] == [8]
    strange = typed("evaluate", run, "--data", class_folder(tmp_path / "dogs", classes=("ant", "dog"), each=2))
    assert strange.code == 3
    assert "dog" in strange.err


def first_of(run: Path, role: str) -> str:
    """The id of the first image that played some part."""
    return next(line.split(",")[0] for line in (run / "split.csv").read_text().splitlines() if f",{role}," in line)


def test_images_that_were_learnt_from_are_left_out_and_counted(run: Path, insects: Path):
    done = typed("evaluate", run, "--data", insects, "--json")
    assert done.code == 0, done.err
    roles = [line.split(",")[1] for line in (run / "split.csv").read_text().splitlines()[1:]]
    train, tune = roles.count("train"), roles.count("tune")
    assert done.json["n"] == roles.count("test") == 9
    assert f"{train + tune} of 60 images were used to train or to choose and are left out" in " ".join(done.err.split())
    held = [json.loads(path.read_bytes()) for path in run.glob("evaluations/*/results.json")]
    assert [item["seen"] for item in held if item["source"] == str(insects)] == [{"train": train, "tune": tune}]


def test_images_that_were_all_learnt_from_measure_nothing_whatever_they_are_called(
    run: Path, insects: Path, tmp_path: Path
):
    for role in ("train", "tune"):
        name = first_of(run, role)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(insects / name, (tmp_path / name).with_name(f"another_{role}.png"))
    done = typed("evaluate", run, "--data", tmp_path)
    assert done.code == 3
    assert "All 2 images" in done.err
    assert "has not seen" in done.err


def test_a_folder_named_like_markup_is_shown_as_it_is(run: Path, tmp_path: Path):
    other = class_folder(tmp_path / "[red]x[" / "red]", classes=("bee",), each=2, seed=4)
    done = typed("evaluate", run, "--data", other)
    assert done.code == 0, done.err
    assert "[red]x[/red] images" in "".join(done.out.split("\n"))


@pytest.mark.parametrize("command", ["report", "evaluate"])
def test_a_run_that_did_not_end_has_no_figures_to_show(command: str, several: Path):
    run = several / "2026-01-01-first-00000001"
    lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(lines[:-1]))
    before = (run / "report.html").read_bytes()
    done = typed(command, run)
    assert done.code == 4
    assert "is not finished" in done.err
    assert f"convsmith resume {run}" in " ".join(done.err.split())
    assert (run / "report.html").read_bytes() == before
    assert typed("runs", "--runs", several, "--json").json[0]["result"] == "not finished"


@pytest.mark.parametrize("lost", [("test", "tune"), ("test",), ("tune",)])
def test_figures_of_other_images_never_take_the_place_of_those_that_were_lost(
    run: Path, tmp_path: Path, lost: tuple[str, ...]
):
    shutil.copytree(run, tmp_path / "run")
    for split in lost:
        (tmp_path / "run" / "predictions" / f"{split}.npz").unlink()
    before = (tmp_path / "run" / "results.json").read_bytes()
    done = typed("evaluate", tmp_path / "run")
    assert done.code == 4
    assert f"predictions/{lost[0]}.npz is not there any more" in " ".join(done.err.split())
    assert (tmp_path / "run" / "results.json").read_bytes() == before


def test_the_runs_own_images_are_measured_as_they_were(run: Path, insects: Path, tmp_path: Path):
    for line in (run / "split.csv").read_text().splitlines()[1:]:
        name, role, *_ = line.split(",")
        if role == "test":
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(insects / name, tmp_path / name)
    (tmp_path / "bee" / "trained_on.png").write_bytes((insects / first_of(run, "train")).read_bytes())
    recorded = json.loads((run / "results.json").read_bytes())["splits"]["test"]
    again = typed("evaluate", run, "--data", tmp_path, "--json").json
    assert again["confusion"] == recorded["confusion"]
    assert again["metrics"]["accuracy"] == recorded["metrics"]["accuracy"]


def test_quiet_commands_say_nothing_on_standard_error(run: Path, insects: Path):
    commands = (("report", run), ("evaluate", run), ("predict", run, insects / "ant"), ("runs", "--runs", run.parent))
    for words in commands:
        assert typed(*words, "--quiet").err == ""
        assert "Next: " in typed(*words).err


def shell(words: list[str], *, pipe: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = f"{sys.executable} -m convsmith {' '.join(words)} {pipe}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.slow
def test_pipes_ascii_terminals_and_head_get_no_colour_and_no_traceback(run: Path, insects: Path, tmp_path: Path):
    """FAULTS 70, in one process for each condition."""
    snow = class_folder(tmp_path / "snow", classes=("☃",), each=1)
    name = next(snow.rglob("*.png"))
    for environment in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"NO_COLOR": "1"}):
        done = shell(["predict", str(run), str(name), "--format", "table"], **environment)
        assert done.returncode == 0, done.stderr
        assert b"\x1b[" not in done.stdout + done.stderr
        assert b"Traceback" not in done.stderr
    many = [str(insects)] * 40
    done = shell(["predict", str(run), *many, "--json"], pipe="| head -n 1")
    assert done.stdout == b"[\n"
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
