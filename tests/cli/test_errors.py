"""Whatever is wrong with a call: a line or two with the mend, the right exit code, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures_made import class_folder
from typed import typed

FILES = {
    "fine.py": """\
from torch import nn

class Net(nn.Sequential):
    def __init__(self, in_channels, outputs, width=4):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * 64, outputs))
""",
    "wrong_shape.py": "from torch import nn\n\ndef Net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 7))\n",
    "raises.py": "raise RuntimeError('no such luck')\n",
    "syntax.py": "def Net(:\n",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad data, code and recipes."""
    root = tmp_path_factory.mktemp("place")
    class_folder(root / "good")
    class_folder(root / "one-class", classes=("ant",))
    class_folder(root / "two-images", each=1, classes=("ant", "bee"))
    (root / "empty").mkdir()
    (root / "hollow" / "ant").mkdir(parents=True)
    (root / "hollow" / "bee").mkdir()
    (root / "words.txt").write_text("no image\n")
    for name in ("ant", "bee"):
        (root / "broken" / name).mkdir(parents=True)
        (root / "broken" / name / "0.jpg").write_bytes(b"<html>")
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / "list.yaml").write_text("- 1\n")
    (root / "typo.yaml").write_text("train:\n  epoch: 3\n")
    return root


CASES = [
    (("train", "absent"), 2, "neither a data set by name nor a folder"),
    (("train", "digit"), 2, "Did you mean digits"),
    (("train", "empty"), 3, "empty"),
    (("train", "hollow"), 3, "hollow"),
    (("train", "one-class"), 3, "ant"),
    (("train", "two-images"), 3, "cannot fill"),
    (("train", "broken"), 3, "can be read"),
    (("train", "words.txt"), 3, "one folder per class"),
    (("train", "good", "--limit", "5"), 2, "at least 9"),
    (("train", "good", "--limit", "x"), 2, "--limit"),
    (("train", "good", "--model", "resnet"), 2, "no model named 'resnet'"),
    (("train", "good", "--model", "convnet-tny"), 2, "Did you mean convnet-tiny"),
    (("train", "good", "--epoch", "3"), 2, "--epochs"),
    (("train", "good", "--epochs", "0"), 2, "--epochs"),
    (("train", "good", "--epochs", "3", "--budget", "1m"), 2, "both say how long"),
    (("train", "good", "--budget", "soon"), 2, "90s, 5m or 1h30m"),
    (("train", "good", "--set", "train.epoch=3"), 2, "Did you mean train.epochs"),
    (("train", "good", "--set", "train.epochs"), 2, "KEY=VALUE"),
    (("train", "good", "--set", "train.batch=many"), 2, "train.batch"),
    (("train", "good", "--set", "network.widht=3"), 2, "network"),
    (("train", "good", "--recipe", "quik"), 2, "Did you mean quick"),
    (("train", "good", "--recipe", "list.yaml"), 2, "mapping"),
    (("train", "good", "--recipe", "typo.yaml"), 2, "Did you mean train.epochs"),
    (("train", "--recipe", "quick"), 2, "names the images"),
    (("train", "good", "--device", "gpu"), 2, "no device 'gpu'"),
    (("train", "good", "--arg", "width=8"), 2, "network of your own"),
    (("train", "good", "--model", "fine.py"), 2, "fine.py:NAME"),
    (("train", "good", "--model", "absent.py:Net"), 2, "absent.py cannot be read"),
    (("train", "good", "--model", "fine.py:Nett"), 2, "Did you mean Net"),
    (("train", "good", "--model", "fine.py:Net", "--arg", "widht=8"), 2, "Did you mean width"),
    (("train", "good", "--model", "fine.py:Net", "--arg", "width"), 2, "NAME=VALUE"),
    (("train", "good", "--model", "raises.py:Net"), 2, "no such luck"),
    (("train", "good", "--model", "syntax.py:Net"), 2, "not valid Python"),
    (("train", "good", "--model", "wrong_shape.py:Net"), 2, "[2, 3] was expected"),
    (("resume", "last"), 2, "There are no runs"),
    (("report", "absent"), 2, "There are no runs"),
    (("predict", "absent", "words.txt"), 2, "There are no runs"),
    (("evaluate", "absent", "--data", "good"), 2, "There are no runs"),
    (("trian", "good"), 2, "trian"),
]


@pytest.mark.parametrize(("words", "code", "said"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_a_wrong_call_gets_its_mend(
    words: tuple[str, ...], code: int, said: str, place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(place)
    done = typed(*words)
    assert done.code == code, done.err
    assert said in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert "not foresee" not in done.err
    error = done.err[done.err.index("Error") :].rstrip().splitlines()
    assert len(error) <= 4, error
    assert done.out == ""
    assert not (place / "runs").exists()


def test_without_data_train_explains_itself_and_offers_digits():
    done = typed("train")
    assert done.code == 2
    assert "convsmith train digits" in done.err
    assert "digits" in done.out
    assert "a folder" in done.out


def test_debug_adds_the_traceback_and_keeps_the_exit_code(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    done = typed("train", "one-class", "--debug")
    assert done.code == 3
    assert "Traceback" in done.err
    assert "Error: " in done.err


def test_what_was_not_foreseen_says_so(place: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr("convsmith.pipeline.train", fail)
    done = typed("train", place / "good")
    assert done.code == 1
    assert "ZeroDivisionError: by nought" in done.err
    assert "--debug" in done.err
    monkeypatch.setattr("convsmith.pipeline.train", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    done = typed("train", place / "good")
    assert done.code == 5
    assert "--limit" in done.err
