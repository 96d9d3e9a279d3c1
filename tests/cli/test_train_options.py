"""What is typed after `train` reaches the recipe, the plan and the images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pictures_made import class_folder
from safetensors.torch import save_file
from typed import SMALL, only_run, trained, typed

NETWORK = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes, twelve each, and a table of them beside it."""
    root = class_folder(tmp_path_factory.mktemp("options") / "photos", each=12, size=(40, 32))
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    rows = [f"{name},{name[:3]},p{i // 2},{('train', 'test', 'val')[i // 2 % 3]}" for i, name in enumerate(names)]
    (root.parent / "photos.csv").write_text("where,what,who,part\n" + "\n".join(rows))
    return root


def planned(*words: object) -> dict[str, Any]:
    """The plan of a command, with its resolved recipe."""
    done = typed("train", *words, "--weights", "none", *SMALL, "--dry-run", "--json")
    assert done.code == 0, done.err
    return done.json


@pytest.mark.parametrize(
    ("words", "section", "key", "value"),
    [
        (("--size", 16), "image", "size", 16),
        (("--fit", "pad"), "image", "fit", "pad"),
        (("--fit", "stretch"), "image", "fit", "stretch"),
        (("--symmetry", "any"), "augment", "symmetry", "any"),
        (("--symmetry", "none"), "augment", "symmetry", "none"),
        (("--limit", 18), "data", "limit", 18),
        (("--epochs", 7), "train", "epochs", 7),
        (("--set", "train.balance=weights"), "train", "balance", "weights"),
    ],
)
def test_a_flag_stands_in_the_recipe_and_is_said_to_be_asked_for(
    words: tuple[object, ...], section: str, key: str, value: object, photos: Path
):
    assert planned(photos, *words)["recipe"][section][key] == value


def test_turns_are_drawn_only_where_symmetry_allows_them(photos: Path):
    def operations(symmetry: str) -> str:
        return json.dumps(planned(photos, "--symmetry", symmetry)["recipe"]["augment"]["operations"])

    assert operations("none") != operations("left-right") != operations("any")


@pytest.mark.slow
def test_a_table_with_columns_and_its_own_split_is_trained_on(photos: Path, tmp_path: Path):
    words = ("--images", photos, "--label", "what", "--group", "who", "--split", "part", "--weights", "none")
    run = trained(photos.parent / "photos.csv", tmp_path / "runs", *words, "--epochs", 1)
    rows = [row.split(",") for row in (run / "split.csv").read_text().splitlines()[1:]]
    manifest = json.loads((run / "manifest.json").read_bytes())
    assert manifest["classes"] == ["ant", "bee", "cat"]
    assert {role for _, role, *_ in rows} == {"train", "tune", "test"}
    sides: dict[str, set[str]] = {}
    for _, role, _, group, _ in rows:
        sides.setdefault(group, set()).add(role)
    assert all(len(roles) == 1 for roles in sides.values()), "a group stands on two sides"
    again = typed("train", "--recipe", run / "recipe.yaml", "--dry-run", "--json")
    assert again.json["recipe"]["data"]["label"] == "what"
    assert again.json["recipe"]["data"]["fingerprint"] == manifest["data"]["fingerprint"]


def test_reviewed_labels_change_what_is_learnt(photos: Path, tmp_path: Path):
    (tmp_path / "reviewed.csv").write_text("id,label\nant/000.png,bee\nant/001.png,exclude\n")
    words = ("--labels", tmp_path / "reviewed.csv", "--weights", "none", "--epochs", 1)
    run = trained(photos, tmp_path / "runs", *words)
    rows = {row.split(",")[0]: row.split(",")[2] for row in (run / "split.csv").read_text().splitlines()[1:]}
    assert rows["ant/000.png"] == "bee"
    assert "ant/001.png" not in rows
    assert len(rows) == 35


def test_the_users_own_run_is_a_start_for_new_classes(run: Path, tmp_path: Path):
    data = class_folder(tmp_path / "others", classes=("dog", "elk"), each=10)
    words = ("train", data, "--weights", "first", "--runs", run.parent, "--epochs", 1, "--name", "second")
    done = typed(*words, *[word for word in SMALL if "convnet" not in word][-4:])
    try:
        assert done.code == 0, done.err
        made = next(path for path in run.parent.iterdir() if "second" in path.name)
        assert json.loads((made / "manifest.json").read_bytes())["classes"] == ["dog", "elk"]
        assert json.loads((made / "manifest.json").read_bytes())["weights"]["source"] == str(run.resolve())
    finally:
        for path in run.parent.iterdir():
            if "second" in path.name:
                shutil.rmtree(path)


@pytest.mark.slow
def test_published_weights_are_used_and_the_list_of_runs_names_the_network(photos: Path, tmp_path: Path):
    torch.manual_seed(0)
    file = tmp_path / f"{NETWORK}.safetensors"
    save_file({key: value.contiguous() for key, value in timm.create_model(NETWORK).state_dict().items()}, file)
    words = ("--model", NETWORK, "--weights", file, "--size", 32, "--epochs", 1, "--set", "transfer.mode=probe")
    done = typed("train", photos, *words, "--runs", tmp_path / "runs", "--quiet")
    assert done.code == 0, done.err
    run = only_run(tmp_path / "runs")
    assert json.loads((run / "manifest.json").read_bytes())["weights"]["source"] == str(file)
    (row,) = typed("runs", "--runs", tmp_path / "runs", "--json").json
    assert NETWORK in row["network"]
    assert row["result"].startswith("accuracy ")
    assert row["data"] == str(photos)
    table = typed("runs", "--runs", tmp_path / "runs")
    assert NETWORK in table.out


def test_the_command_is_kept_as_it_was_typed_and_the_hint_can_be_pasted(photos: Path, tmp_path: Path):
    runs = tmp_path / "my runs"
    done = typed("train", photos, "--weights", "none", "--epochs", 1, "--runs", runs, *SMALL)
    assert done.code == 0, done.err
    command = json.loads((only_run(runs) / "manifest.json").read_bytes())["command"]
    assert command == [
        "convsmith",
        "train",
        str(photos),
        "--weights",
        "none",
        "--epochs",
        "1",
        "--runs",
        str(runs),
        *SMALL,
    ]
    assert f"convsmith predict '{only_run(runs)}' PICTURE.jpg" in done.err


def test_evaluate_takes_a_table_too(run: Path, insects: Path, tmp_path: Path):
    rows = [line.split(",") for line in (run / "split.csv").read_text().splitlines()[1:]]
    held = [(name, label) for name, role, label, *_ in rows if role == "test"]
    (tmp_path / "held.csv").write_text("file,animal\n" + "\n".join(",".join(pair) for pair in held))
    words = ("--data", tmp_path / "held.csv", "--images", insects, "--label", "animal")
    assert typed("evaluate", run, *words, "--json").json["n"] == len(held)
