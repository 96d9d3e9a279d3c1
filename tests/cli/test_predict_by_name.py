"""`predict --model NAME` with published weights, and `predict --sort-into`: copies, and nothing but copies."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from pictures_made import class_folder
from PIL import Image
from safetensors.torch import save_file
from timm.data.imagenet_info import ImageNetInfo
from typed import Typed, trained, typed

from convsmith.cli.sorting import LONGEST, folder_names

NETWORK = "mobilenetv3_small_050"
SHARED = Path(__file__).parents[3] / "shared" / "data"
PHOTOS, LITE = SHARED / "imagenet-check-63", SHARED / "weights" / "tf_efficientnet_lite0.timm.safetensors"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights for a small network of timm, with its thousand classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / f"{NETWORK}.safetensors"
    save_file({key: value.contiguous() for key, value in timm.create_model(NETWORK).state_dict().items()}, path)
    return path


def test_a_network_by_name_answers_as_timm_itself_does(weights: Path, tmp_path: Path):
    """The oracle is timm's own network on the pixels that its configuration prescribes, made here with Pillow alone."""
    noise = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    file = tmp_path / "photo.png"
    Image.fromarray(noise).resize((300, 240), Image.Resampling.BICUBIC).save(file)
    done = typed("predict", "--model", NETWORK, "--weights", weights, file, "--json")
    assert done.code == 0, done.err
    (row,) = done.json
    model = timm.create_model(NETWORK, pretrained=True, pretrained_cfg_overlay={"file": str(weights)}).eval()
    cfg = model.pretrained_cfg
    whole = round(224 / cfg["crop_pct"])
    with Image.open(file) as picture:
        scaled = picture.resize((round(300 * whole / 240), whole), Image.Resampling.BICUBIC)
    left, top = (scaled.width - 224) // 2, (scaled.height - 224) // 2
    pixels = np.asarray(scaled.crop((left, top, left + 224, top + 224)), np.float32) / 255
    normal = (pixels - np.array(cfg["mean"], np.float32)) / np.array(cfg["std"], np.float32)
    with torch.inference_mode():
        logits = model(torch.from_numpy(normal.transpose(2, 0, 1)[None]))[0].numpy()
    ours = np.array(row["logits"])
    assert np.corrcoef(ours, logits)[0, 1] > 0.99
    assert row["class"] == ImageNetInfo().index_to_description(int(ours.argmax()))
    assert f"convsmith train FOLDER --model {NETWORK} --weights" in done.err


@pytest.mark.real_data
@pytest.mark.skipif(not (PHOTOS.is_dir() and LITE.is_file()), reason="the shared photos and weights are not here")
def test_lite0_names_at_least_59_of_63_photos():
    rows = typed("predict", "--model", "tf_efficientnet_lite0", "--weights", LITE, PHOTOS, "--json").json
    info = ImageNetInfo()
    by_id = {info.index_to_label_name(i): info.index_to_description(i) for i in range(info.num_classes())}
    right = [row["class"] == by_id[Path(row["path"]).name.partition("_")[0]] for row in rows]
    assert len(right) == 63
    assert sum(right) >= 59


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below, by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_picture_is_copied_to_its_class_and_the_originals_stay(run: Path, insects: Path, tmp_path: Path):
    before = tree(insects)
    done = typed("predict", run, insects, "--sort-into", tmp_path / "sorted", "--json")
    assert done.code == 0, done.err
    assert tree(insects) == before
    assert "60 copies in " in done.err
    for row in done.json:
        name = Path(row["path"]).name
        copies = (tmp_path / "sorted" / row["class"]).glob(f"{Path(name).stem}*.png")
        assert Path(row["path"]).read_bytes() in [copy.read_bytes() for copy in copies]
    assert len(tree(tmp_path / "sorted")) == 60


def test_sorting_twice_leaves_what_once_leaves(run: Path, insects: Path, tmp_path: Path):
    left = []
    for _ in range(2):
        assert typed("predict", run, insects, "--sort-into", tmp_path / "sorted").code == 0
        left.append(tree(tmp_path / "sorted"))
    assert left[0] == left[1]


def test_nothing_that_is_there_is_overwritten(run: Path, insects: Path, tmp_path: Path):
    picture = insects / "ant" / "000.png"
    label = typed("predict", run, picture, "--json").json[0]["class"]
    own = tmp_path / "sorted" / label
    own.mkdir(parents=True)
    (own / "000.png").write_bytes(b"mine")
    (own / "000-2.png").symlink_to(tmp_path / "elsewhere.png")
    assert typed("predict", run, picture, "--sort-into", tmp_path / "sorted").code == 0
    assert (own / "000.png").read_bytes() == b"mine"
    assert not (tmp_path / "elsewhere.png").exists()
    assert (own / "000-3.png").read_bytes() == picture.read_bytes()


def test_what_cannot_be_read_is_not_copied_and_the_code_is_three(run: Path, insects: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(b"<html>")
    shutil.copy(insects / "bee" / "001.png", tmp_path / "in" / "good.png")
    done = typed("predict", run, tmp_path / "in", "--sort-into", tmp_path / "sorted")
    assert done.code == 3
    assert [Path(name).name for name in tree(tmp_path / "sorted")] == ["good.png"]
    assert "1 copy in " in done.err


def test_classes_of_any_name_get_folders_inside_the_target(tmp_path: Path):
    odd = ("..", "☃ 🐝", "[bold]x")
    run = trained(class_folder(tmp_path / "in", classes=("a", *odd[1:])), tmp_path / "runs", "--epochs", 20)
    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["classes"][manifest["classes"].index("a")] = "../x/y"  # as a table's label may be
    (run / "manifest.json").write_text(json.dumps(manifest))
    done: Typed = typed("predict", run, tmp_path / "in", "--sort-into", tmp_path / "deep" / "sorted")
    assert done.code == 0, done.err
    made = {path.name for path in (tmp_path / "deep" / "sorted").iterdir()}
    assert made == {"_x_y", "☃ 🐝", "[bold]x"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"sorted"}


@pytest.mark.parametrize(
    "names",
    [
        ("a/b", "a:b", "a_b", "A_B"),
        ("..", ".", "", " ", "..."),
        ("x\n", "x\t", "con."),
        ("🐝" * 100, "🐝" * 100 + "a", "é" * 300),
        ("../../etc", "/etc/passwd", "C:\\x", "\ud800"),
    ],
)
def test_folders_are_different_plain_names_of_a_length_that_disks_take(names: tuple[str, ...], tmp_path: Path):
    folders = folder_names(names)
    assert list(folders) == list(names)
    assert len({folder.casefold() for folder in folders.values()}) == len(names)
    for folder in folders.values():
        assert folder not in {"", ".", ".."}
        assert "/" not in folder
        assert folder.isprintable()
        assert len(os.fsencode(folder)) <= LONGEST + 8
        (tmp_path / folder).mkdir()
        assert (tmp_path / folder).parent == tmp_path


@pytest.mark.parametrize(
    "make", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"x")], ids=["folder", "file"]
)
def test_a_picture_named_like_a_run_is_asked_for_with_the_run(
    make: Callable[[Path], object], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "my photos")
    done = typed("predict", "my photos", "--runs", run.parent)
    assert done.code == 2
    assert "convsmith predict last 'my photos'" in done.err
