"""Files that strangers hand over: nothing in them is executed, and what is shown of them is inert."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
import struct
from pathlib import Path

import pytest
from pictures_made import class_folder
from typed import trained, typed

from convsmith import pipeline
from convsmith.errors import Interrupted
from convsmith.pipeline import Message
from convsmith.recipe import Recipe
from convsmith.run_folder import RunFolder, dump_json

MARK = "executed"


class Malicious:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def unfinished(uninterrupted: Path, tmp_path: Path) -> Path:
    """A copy of the run without its end, so that `resume` takes it up."""
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    (run / "results.json").unlink()
    return run


def replace(run: Path, name: str, content: bytes) -> None:
    """Put content into every checkpoint, with digests that match, as whoever made the run could."""
    for folder in (run / "checkpoints").iterdir():
        (folder / name).write_bytes(content)
        record = json.loads((folder / "digest.json").read_bytes())
        record["sha256"][name] = hashlib.sha256(content).hexdigest()
        record.pop("record", None)
        own = hashlib.sha256(dump_json(record)).hexdigest()
        (folder / "digest.json").write_bytes(dump_json({**record, "record": own}))


def test_a_pickle_in_state_pt_is_refused_and_not_executed(unfinished: Path, pictures: Path, tmp_path: Path):
    mark = tmp_path / MARK
    replace(unfinished, "state.pt", pickle.dumps({"step": Malicious(mark)}, protocol=2))
    done = typed("resume", unfinished)
    assert done.code == 4
    assert "refused" in done.err
    assert not mark.exists()
    assert typed("predict", unfinished, pictures / "ant" / "000.png").code == 0  # it reads the weights alone
    assert not mark.exists()
    pickle.loads(pickle.dumps(Malicious(mark)))  # noqa: S301 - the trap does work
    assert mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 12) + b'{"a": [1, 2}',
        struct.pack("<Q", 90)
        + b'{"w": {"dtype": "F32", "shape": [1000000000, 1000000000], "data_offsets": [0, 4]}}'.ljust(90)
        + bytes(4),
        b"",
    ],
    ids=["a header of 4 EiB", "a broken header", "a shape beyond the file", "nothing"],
)
def test_a_corrupt_safetensors_header_is_refused(content: bytes, unfinished: Path, pictures: Path):
    replace(unfinished, "weights.safetensors", content)
    done = typed("predict", unfinished, pictures / "ant" / "000.png")
    assert done.code == 4
    assert "cannot be read" in done.err
    assert "Traceback" not in done.err


def test_python_objects_in_a_recipe_are_refused_and_not_executed(unfinished: Path, pictures: Path, tmp_path: Path):
    mark = tmp_path / MARK
    hostile = f'name: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ["{mark}"]]\n'
    (tmp_path / "recipe.yaml").write_text(hostile)
    (unfinished / "recipe.yaml").write_text(hostile)
    for code, command in (
        (2, ("train", pictures, "--recipe", tmp_path / "recipe.yaml", "--runs", tmp_path / "runs")),
        (2, ("train", pictures, "--set", hostile.strip().replace(": ", "=", 1), "--runs", tmp_path / "runs")),
        (4, ("resume", unfinished)),  # what a run holds was not typed: the run is damaged
        (4, ("predict", unfinished, pictures / "ant" / "000.png")),
    ):
        done = typed(*command)
        assert done.code == code, done.err
        assert "not plain YAML" in done.err
    assert not mark.exists()


@pytest.mark.parametrize(
    "assignment",
    [
        "model=os.system",
        "model={name: 'os:system'}",
        "model={name: subprocess.run, options: {args: [touch, executed]}}",
        "train.optimizer=torch.optim.SGD",
        "train.schedule=builtins.exec",
        "augment.operations=[{name: os.system}]",
    ],
)
def test_import_paths_are_no_names(assignment: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    done = typed("train", pictures, "--set", assignment)
    assert done.code == 2
    assert "There is no" in done.err
    assert not (tmp_path / MARK).exists()


def test_a_recipe_that_says_own_does_not_run_code_by_itself(pictures: Path, tmp_path: Path):
    done = typed("train", pictures, "--set", "model=own", "--runs", tmp_path / "runs")
    assert done.code == 2
    assert "never run unasked" in done.err


def test_pickled_predictions_are_refused_and_not_executed(uninterrupted: Path, tmp_path: Path):
    run, mark = tmp_path / "run", tmp_path / MARK
    shutil.copytree(uninterrupted, run)
    for content in (pickle.dumps(Malicious(mark)), b"PK\x03\x04 not a zip"):
        (run / "predictions" / "test.npz").write_bytes(content)
        done = typed("evaluate", run)
        assert done.code == 4
        assert "cannot be read" in done.err
    assert not mark.exists()


def test_hostile_class_names_are_inert_in_the_report(tmp_path: Path):
    name = "<img src=x onerror=alert(1)>"
    pictures = class_folder(tmp_path / "pictures", classes=(name, "'\"><script>alert(2)<", "{{ 7 * 7 }}"))
    run = trained(pictures, tmp_path / "runs", "--epochs", 1)
    page = (run / "report.html").read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "{{ 7 * 7 }}" in page
    closing = "</script><img src=x onerror=alert(1)>"
    for record in ("manifest.json", "results.json", "audit.json", "findings.json", "plan.json"):
        path = run / record
        path.write_text(path.read_text().replace(json.dumps(name)[1:-1], closing))
    assert typed("report", run).code == 0
    page = (run / "report.html").read_text()
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in page
    assert not re.search(r"<img[^>]*onerror", page)
    assert "<script>alert" not in page


def test_a_run_with_images_of_hostile_names_shows_them_escaped(pictures: Path, tmp_path: Path):
    hostile = tmp_path / "pictures"
    shutil.copytree(pictures, hostile)
    (hostile / "ant" / "000.png").rename(hostile / "ant" / "[red]a\n\x1b[31mb&lt;.png")
    done = typed("train", hostile, "--runs", tmp_path / "runs", "--epochs", 1, "--name", "../../evil <b>")
    assert done.code == 0, done.err
    (run,) = (tmp_path / "runs").iterdir()
    assert "/" not in run.name
    assert "\x1b[31mb" not in done.out + done.err


def test_the_listener_sees_what_it_is_told_and_nothing_hides_its_errors(pictures: Path, tmp_path: Path):
    def listen(message: Message) -> None:
        if message.kind == "training":
            raise Interrupted("enough")

    recipe = Recipe().updated({"data.source": str(pictures), "model": "convnet-tiny", "train.epochs": 1})
    with pytest.raises(Interrupted, match="enough"):
        pipeline.train(recipe, runs=tmp_path / "runs", tell=listen)
    assert not RunFolder(next((tmp_path / "runs").iterdir())).finished
