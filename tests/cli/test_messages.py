"""Whatever is wrong with a call: a line or two that name the thing and the mend, the right exit code, no traceback."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
from pictures_made import class_folder
from PIL import Image
from safetensors.torch import save_file
from typed import SMALL, Typed, trained, typed

SMALLEST = "mobilenetv3_small_050"
NET = """\
from torch import nn

class Net(nn.Sequential):
    def __init__(self, in_channels, outputs, width=4):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * 64, outputs))
"""
FILES = {
    "fine.py": NET,
    "wrong_shape.py": "from torch import nn\n\ndef Net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 7))\n",
    "raises.py": "raise RuntimeError('no such luck')\n",
    "syntax.py": "def Net(:\n",
    "list.yaml": "- 1\n",
    "typo.yaml": "train:\n  epoch: 3\n",
    "code.yaml": "name: !!python/object/apply:os.system ['true']\n",
    "words.txt": "no image\n",
    "text.pth": "no weights, only text\n",
    "text.safetensors": "no weights, only text\n",
    "headless.csv": "ant/000.png,ant\nbee/000.png,bee\n",
    "twice.csv": "path,label\nant/000.png,ant\nant/000.png,bee\n",
    "gone.csv": "path,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(20)),
    "wasp.csv": "id,label\nant/000.png,wasp\n",
    "stranger.csv": "id,label\nant/999.png,bee\n",
}


class Payload:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


@pytest.fixture(scope="module")
def place(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad data, weights, code, recipes and runs."""
    root = tmp_path_factory.mktemp("place")
    for name, text in FILES.items():
        (root / name).write_text(text)
    _make_data(root)
    _make_weights(root)
    _make_runs(root, run)
    return root


def _make_data(root: Path) -> None:
    class_folder(root / "good")
    class_folder(root / "one", classes=("ant",))
    class_folder(root / "few", each=1, classes=("ant", "bee"))
    class_folder(root / "hole", each=3)
    (root / "hole" / "dog").mkdir()
    (root / "empty").mkdir()
    class_folder(root / "films", each=3)
    for path in (root / "films").rglob("*.png"):
        path.rename(path.with_suffix(".mp4"))
    class_folder(root / "floats", each=3)
    for path in (root / "floats").rglob("*.png"):
        Image.fromarray(np.zeros((8, 8), np.float32)).save(path.with_suffix(".tiff"))
        path.unlink()
    (root / "flat").mkdir()
    shutil.copy(root / "good" / "ant" / "000.png", root / "flat" / "000.png")
    for name in ("ant", "bee"):
        (root / "broken" / name).mkdir(parents=True)
        (root / "broken" / name / "0.jpg").write_bytes(b"<html>")
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        archive.writestr("ant/000.png", "")
    names = sorted(path.relative_to(root / "good").as_posix() for path in (root / "good").rglob("*.png"))
    rows = [f"{name},{name[:3]},{i},d{i // 5},{'left' if i % 2 else 'right'}" for i, name in enumerate(names)]
    (root / "good.csv").write_text("path,species,weight,donor,side\n" + "\n".join(rows))
    (root / "hollow.csv").write_text("path,label\n" + "\n".join(f"{name}," for name in names))


def _make_weights(root: Path) -> None:
    tensors = {key: value.contiguous() for key, value in timm.create_model(SMALLEST).state_dict().items()}
    save_file(tensors, root / f"{SMALLEST}.safetensors")
    whole = (root / f"{SMALLEST}.safetensors").read_bytes()
    (root / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (root / "code.pth").write_bytes(pickle.dumps({"weights": Payload()}, protocol=2))
    (root / "bare").mkdir()


def _make_runs(root: Path, run: Path) -> None:
    for name in ("whole", "unfinished", "damaged", "unread", "bare", "torn"):
        shutil.copytree(run, root / "made" / name)
    made = root / "made"
    lines = (made / "unfinished" / "log.jsonl").read_text().splitlines(keepends=True)
    (made / "unfinished" / "log.jsonl").write_text("".join(lines[:-1]))
    (made / "damaged" / "manifest.json").write_text("{")
    (made / "unread" / "recipe.yaml").write_text("{[")
    shutil.rmtree(made / "bare" / "checkpoints")
    (made / "bare" / "checkpoints").mkdir()
    for path in made.glob("torn/checkpoints/*/weights.safetensors"):
        path.write_bytes(path.read_bytes()[:-9])
    (root / "file").write_text("in the place of a folder\n")
    own = trained(root / "good", root / "own-runs", "--epochs", 1, "--model", f"{root / 'fine.py'}:Net", "--quiet")
    own.rename(root / "own")


TIMM = f"train good --model {SMALLEST}"
CASES = [
    # what there is to read
    ("train absent", 2, "absent is neither a data set by name nor a folder", "Check the path"),
    ("train goof", 2, "goof is neither", "Did you mean good?"),
    ("train digit", 2, "digit is neither", "Did you mean digits?"),
    ("data ./god", 2, "god is neither", "Did you mean good"),
    ("train empty", 3, "empty holds no images", "one folder per class"),
    ("data empty", 3, "empty holds no images", "one folder per class"),
    ("train hole", 3, "hole has 1 class folder without a single image: dog", "remove the folder"),
    ("train films", 3, "9 files such as ant/000.mp4 (a video)", "Save its frames as JPEG"),
    ("train one", 3, "one holds 1 class (ant)", "folder of its own"),
    ("train few", 3, "2 images of 2 classes cannot fill", "Add images"),
    ("train broken", 3, "can be read", "ant/0.jpg"),
    ("train flat", 3, "flat holds 1 image without labels", "one folder per class"),
    ("train floats", 3, "floating point", "--set image.range=[LOW,HIGH]"),
    ("train words.txt", 3, "words.txt is a file", "one folder per class"),
    ("train flat/000.png", 3, "000.png is one image", "one folder per class"),
    ("train photos.zip", 3, "photos.zip is an archive", "Unpack it"),
    ("train good --limit 5", 2, "limit of 5 images is too small for 3 classes", "at least 9"),
    # tables
    ("train good.csv", 3, "cannot be taken from", "--images DIR"),
    ("train gone.csv", 3, "20 of the 20 files", "--images DIR"),
    ("train good.csv --images nowhere", 2, "The folder of images, nowhere", "--images"),
    ("train good.csv --images good --label specie", 2, "no column specie for --label", "Did you mean species"),
    ("train good.csv --images good --label weight", 3, "60 different labels in 60 rows", "--label COLUMN"),
    ("train good.csv --images good --label species --split side", 3, "holds left, right", "Use train"),
    ("train good.csv --images good --label species --group dono", 2, "no column dono", "Did you mean donor?"),
    ("train hollow.csv --images good", 3, "60 rows, not one with a label", "--label COLUMN"),
    ("train twice.csv --images good", 3, "ant/000.png is ant on line 2 and bee on line 3", "Keep the row"),
    ("train headless.csv --images good", 3, "names no columns", "path,label above it"),
    ("train good --images good", 2, "--images belongs to a CSV file", "Leave it out"),
    ("train good --label species", 2, "--label belongs to a CSV file", "Leave it out"),
    ("train good --split side", 2, "--split belongs to a CSV file", "Leave it out"),
    ("data good --labels nowhere.csv", 2, "nowhere.csv, is not there", "Check the path"),
    ("train good --labels wasp.csv", 3, "wasp is not a class", "Known: ant, bee, cat"),
    ("train good --labels stranger.csv", 3, "no image ant/999.png", "Did you mean ant/"),
    ("train good --labels good.csv", 2, "no column id for --labels", "it has path, species"),
    # groups
    ("train good --group '(ant'", 2, "neither `parent` nor a regular expression", r"(patient\d+)_"),
    ("train good --group donor", 2, "'donor' has 0 capturing groups", "Only a CSV file has columns"),
    ("train good --group '(zebra)'", 3, "not one image of", "Give a rule that fits the paths"),
    ("train good --group '(.)'", 3, "cannot fill", "finer rule"),
    ("train digits --group parent", 2, "lie in no folders", "Leave --group out"),
    # networks, weights, code
    ("train good --model resnet", 2, "no model named 'resnet'", "Did you mean resnet"),
    ("train good --model convnet-tny", 2, "no model named 'convnet-tny'", "Did you mean convnet-tiny"),
    ("train good --model keras/vgg16", 2, "no library of networks 'keras'", "timm/NAME"),
    ("data good --model resnet-18x", 2, "no model named 'resnet-18x'", "resnet18"),
    (f"{TIMM} --weights nowhere", 2, "--weights nowhere", "a file of weights, a RUN of yours"),
    (f"{TIMM} --weights text.pth", 3, "text.pth is neither a safetensors file", ".safetensors, .pth"),
    (f"{TIMM} --weights text.safetensors", 3, "text.safetensors is damaged, or no safetensors", "--weights FILE"),
    (f"{TIMM} --weights cut.safetensors", 3, "cut.safetensors is damaged or cut short", "Fetch the file again"),
    (f"{TIMM} --weights code.pth", 3, "code.pth is refused: it holds more than tensors", "torch.save"),
    (f"{TIMM} --weights bare", 2, f"bare has no weights of {SMALLEST}", "--weights FILE"),
    (f"train good --model resnet18 --weights {SMALLEST}.safetensors", 3, "does not fit", f"--model {SMALLEST}"),
    (f"train good --weights {SMALLEST}.safetensors", 2, "no network that they belong to", "Add --model NAME"),
    (
        f"train good --model convnet --weights {SMALLEST}.safetensors",
        2,
        "published weights for convnet",
        "--weights RUN",
    ),
    (f"train good --model fine.py:Net --weights {SMALLEST}.safetensors", 2, "your own network", "--weights RUN"),
    ("train good --weights made/bare", 4, "no checkpoint to start from", "convsmith resume"),
    ("train good --weights made/torn", 4, "No checkpoint in", "convsmith train --recipe"),
    ("train good --weights first", 2, "--weights first", "a RUN of yours"),
    (f"train good --weights none --set 'model={{name: {SMALLEST}, options: {{drop_rte: 1}}}}'", 2, "drop_rte", "model"),
    ("train good --set 'model={name: convnet, options: {widht: 3}}'", 2, "no option 'widht'", "Did you mean width?"),
    ("train good --set 'model={name:convnet}'", 2, "'model.name' is missing", "a space follows each colon"),
    ("train good --model fine.py", 2, "names a file but not what in it", "fine.py:NAME"),
    ("train good --model absent.py:Net", 2, "absent.py cannot be read", "Did you mean "),
    ("train good --model fine.py:Nett", 2, "fine.py has nothing named 'Nett'", "Did you mean Net?"),
    ("train good --model raises.py:Net", 2, "RuntimeError: no such luck", "Correct that line"),
    ("train good --model syntax.py:Net", 2, "syntax.py is not valid Python", "Correct that line"),
    ("train good --model wrong_shape.py:Net", 2, "[2, 3] was expected", "the argument `outputs`"),
    ("train good --model fine.py:Net --arg widht=8", 2, "no argument 'widht'", "Did you mean width?"),
    ("train good --model fine.py:Net --arg width", 2, "'width' is not NAME=VALUE", "--arg width=32"),
    ("train good --arg width=8", 2, "--arg is for a network of your own", "--model FILE.py:NAME"),
    # options and recipes
    ("train good --epoch 3", 2, "convsmith train has no option --epoch", "Did you mean --epochs?"),
    ("train good --wieghts none", 2, "no option --wieghts", "Did you mean --weights"),
    ("train good --epochs 0", 2, "--epochs 0: a whole number of at least 1", "convsmith train --help"),
    ("train good --limit x", 2, "--limit x: a whole number of at least 2", "convsmith train --help"),
    ("train good --size 3", 2, "--size 3: a whole number of at least 4", "convsmith train --help"),
    ("train good --size 100000", 2, "image.size", "4 to 4096"),
    ("train good --fit cut", 2, "--fit: 'cut'", "'crop', 'pad', 'stretch'"),
    ("data good --symmetry both", 2, "--symmetry: 'both'", "'none', 'left-right', 'any'"),
    ("train good bad", 2, "unexpected extra argument (bad)", "needs quotes"),
    ("train good --epochs 3 --budget 1m", 2, "both say how long", "Give one of them"),
    ("train good --epochs 3 --set train.epochs=4", 2, "train.epochs=3, and --set train.epochs=4", "Give one of them"),
    ("train good --epochs 3 --set train.epochs=null", 2, "and --set train.epochs=None", "Give one of them"),
    ("data good --size 64 --set image.size=96", 2, "image.size=64, and --set image.size=96", "Give one of them"),
    ("train good --model resnet18 --set model=resnet50", 2, "model=resnet18, and --set model=resnet50", "Give one"),
    ("predict own ''", 2, "An empty path was given", "the current one is `.`"),
    ("evaluate own --code fine.py --data ''", 2, "An empty path was given", "the current one is `.`"),
    ("data ''", 2, "An empty path was given", "the current one is `.`"),
    ("predict own good --json --format csv", 2, "--json and --format csv are two forms", "Give one of them"),
    ("train good --budget soon", 2, "'soon' is no length of time", "90s, 5m or 1h30m"),
    ("train good --budget 1s", 2, "A budget of 1 s leaves no time", "Give at least"),
    ("train good --set train.epoch=3", 2, "no key 'train.epoch'", "Did you mean train.epochs"),
    ("train good --set foo=1", 2, "no key 'foo'", "Known: augment, data, image"),
    ("data good --set image=1", 2, "'image' cannot be 1", "image.size=224"),
    ("train good --set train.epochs", 2, "'train.epochs' is not KEY=VALUE", "--set train.epochs=30"),
    ("train good --set train.batch=many", 2, "'train.batch' cannot be 'many'", "a whole number or 'auto'"),
    ("train good --set train.optimizer=adamm", 2, "no optimiser named 'adamm'", "Did you mean adamw?"),
    ("train good --set augment.preset=photo", 2, "no augmentation preset 'photo'", "Did you mean photos?"),
    ("train good --recipe quik", 2, "no recipe 'quik'", "Did you mean quick?"),
    ("train good --recipe list.yaml", 2, "mapping of sections, not list", "train: {epochs: 30}"),
    ("train good --recipe typo.yaml", 2, "no key 'train.epoch'", "Did you mean train.epochs"),
    ("train good --recipe code.yaml", 2, "not plain YAML", "Tags (!name)"),
    ("train --recipe quick", 2, "names the images", "convsmith train DATA"),
    ("train good --device gpu", 2, "no device 'gpu'", "--device cpu, or auto"),
    ("train good --device meta", 2, "no device 'meta'", "--device cpu, or auto"),
    ("trian good", 2, "no command 'trian'", "Did you mean train?"),
    ("frobnicate", 2, "no command 'frobnicate'", "Those there are: data, train"),
    ("data", 2, "Missing argument 'DATA'", "Write: convsmith data DATA"),
    ("models --limit 0", 2, "--limit 0", "convsmith models --help"),
    ("models --weights nowhere", 2, "nowhere is not a folder", "holds files of weights"),
    # runs
    ("report absent --runs nowhere", 2, "There are no runs in", "convsmith train digits"),
    ("train good --weights none --size 64 --set train.batch=1000000000", 2, "of memory", "train.batch=N"),
    ("train good --weights none --set train.steps=99999999999", 2, "train.steps", ""),
    ("report absnt --runs made", 2, "no run 'absnt' in made", "The latest: "),
    ("report unfinihed --runs made", 2, "no run 'unfinihed'", "Did you mean unfinished?"),
    ("report made/unfinished", 4, "made/unfinished is not finished", "convsmith resume made/unfinished"),
    ("evaluate made/unfinished", 4, "made/unfinished is not finished", "convsmith resume made/unfinished"),
    ("report made/damaged", 4, "manifest.json cannot be read", "from a copy"),
    ("evaluate made/damaged", 4, "manifest.json cannot be read", "from a copy"),
    ("predict made/damaged flat", 4, "manifest.json cannot be read", "from a copy"),
    ("predict made/unread flat", 4, "made/unread/recipe.yaml is damaged", "from a copy"),
    ("predict made/bare flat", 4, "made/bare has no checkpoint yet", "convsmith resume made/bare"),
    ("predict made/torn flat", 4, "is damaged", "convsmith train --recipe made/torn/recipe.yaml"),
    ("resume made/whole", 4, "made/whole is finished", "report.html"),
    ("resume made/unread", 4, "made/unread is finished", "report.html"),
    ("resume own", 4, "own is finished", "report.html"),
    ("evaluate made/whole --data nowhere", 2, "nowhere is neither", "Check the path"),
    ("evaluate made/whole --data flat", 3, "without labels", "one folder per class"),
    ("evaluate made/whole --limit 9", 2, "--limit is for other images", "Add --data FOLDER"),
    ("predict own flat", 2, "your own code, which is never run unasked", "--code FILE.py"),
    ("evaluate own --data good", 2, "your own code", "--code FILE.py"),
    ("predict own flat --code raises.py", 2, "raises.py has changed", "keeps a copy"),
    ("predict own flat --code fin.py", 2, "fin.py cannot be read", "Did you mean fine.py?"),
    ("predict made/whole flat --code fine.py", 2, "not from a file of code", "Leave --code out"),
    # predict
    ("predict", 2, "Neither a run nor a picture", "convsmith predict RUN PATHS"),
    ("predict made/whole", 2, "No picture was named", "one path a line"),
    ("predict flat/000.png --runs made", 2, "000.png is none", "convsmith predict last flat/000.png"),
    ("predict made/whole gone.png", 2, "no file or folder gone.png", "Check the path"),
    ("predict made/whole empty", 2, "empty holds no images", "Extensions read"),
    ("predict made/whole flat --device tpu", 2, "no device 'tpu'", "--device cpu"),
    ("predict made/whole flat --format xml", 2, "--format: 'xml'", "'table', 'csv', 'json'"),
    ("predict made/whole good --sort-into good/sorted", 2, "good/sorted lies in good", "a folder beside it"),
    ("predict made/whole good --sort-into good", 2, "good lies in good", "a folder beside it"),
    ("predict made/whole flat --sort-into words.txt", 2, "words.txt is a file", "Give a folder"),
    ("predict made/whole flat --sort-into words.txt/in", 2, "words.txt is a file", "Give a folder"),
    ("predict --model resnet flat", 2, "no model named 'resnet'", "Did you mean resnet"),
    ("predict --model convnet flat", 2, "nobody has published weights for", "convsmith models PATTERN"),
    ("predict --model resnet18", 2, "No picture was named", "Give files, folders"),
    ("predict --model resnet18 --weights none flat", 2, "Without weights", "--weights FILE"),
    ("predict --model resnet18 --weights nowhere flat", 2, "nowhere cannot be read", "--weights FILE"),
    (f"predict --model resnet18 --weights {SMALLEST}.safetensors flat", 3, "does not fit", f"--model {SMALLEST}"),
    ("predict --model made/whole flat", 2, "made/whole is a run", "convsmith predict made/whole flat"),
    ("predict --model resnet18 made/whole flat", 2, "are two networks", "Leave one of them out"),
    (f"predict --weights {SMALLEST}.safetensors made/whole flat", 2, "a network by name", "Add --model NAME"),
    # where runs lie
    ("train good --runs file", 2, "'file' is a file", "--runs DIR"),
    ("train good --runs file/in", 4, "file cannot be written to", "--runs DIR"),
    ("data good --runs file/in", 4, "file cannot be written to", "--runs DIR"),
    ("runs --runs file", 2, "'file' is a file", "--runs DIR"),
]
IDS = [f"{number:03d} {case[0]}" for number, case in enumerate(CASES)]


@pytest.mark.parametrize(("call", "code", "thing", "mend"), CASES, ids=IDS)
def test_a_wrong_call_names_the_thing_and_the_mend(
    call: str, code: int, thing: str, mend: str, place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    done = typed(*shlex.split(call))
    assert_told(done, code, thing, mend)
    assert sorted(place.iterdir()) == before, "a refused call left something behind"


def assert_told(done: Typed, code: int, thing: str, mend: str) -> None:
    """The message names the thing and the mend, in three lines at the most, and nothing else comes."""
    assert done.code == code, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "not foresee" not in done.err
    lines = [line for line in done.err.rstrip().splitlines() if not line.endswith("…")]  # stages that were begun
    assert lines[0].startswith("Error: "), lines
    assert 1 <= len(lines) <= 3, lines
    assert all(len(line) <= 400 for line in lines), [len(line) for line in lines]
    told = " ".join(done.err.split())
    assert thing in told
    assert mend in told
    assert lines[-1].endswith((".", "?", "`", "]")) or "convsmith " in lines[-1], "neither a sentence nor a command"


def test_what_was_misspelt_is_told_before_the_images_are_read(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    for words in ("--model resnet", "--set train.optimizer=adamm", "--device gpu", "--set augment.preset=photo"):
        for command in ("train", "train --dry-run"):
            done = typed(*shlex.split(f"{command} good {words}"))
            assert done.code == 2
            assert "Reading" not in done.err


def test_weights_that_are_on_a_hub_out_of_reach_are_told_with_both_ways_out(place: Path):
    """In a process of its own: the hub's client reads its address once."""
    environment = {
        **os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9",
        "HF_HOME": str(place / "hub"), "TORCH_HOME": str(place / "torch"),
    }  # fmt: skip
    words = [sys.executable, "-m", "convsmith", "train", "good", "--model", SMALLEST]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    told = Typed(done.returncode, done.stdout, done.stderr)
    assert_told(told, 3, f"{SMALLEST} are not on this machine, and their server cannot be reached", "--weights FILE")
    assert "--weights none" in done.stderr


@contextlib.contextmanager
def small_files(most: int) -> Iterator[None]:
    """Within, the system refuses to write a file of more bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_ends_with_five(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    for words in (
        ("train", "good", "--runs", tmp_path / "runs", "--epochs", 1, *SMALL),
        ("data", "good", "--runs", tmp_path / "pages"),
        ("predict", "made/whole", tmp_path / "large.png", "--sort-into", tmp_path / "sorted", "--quiet"),
    ):
        with small_files(20_000):
            done = typed(*words)
        assert done.code == 5, done.err
        assert "The disk is full: " in done.err
        assert "Free some space" in done.err
        assert "Traceback" not in done.err
    assert [path.name for path in (tmp_path / "sorted").rglob("*") if path.is_file()] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_told(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    (tmp_path / "shut").mkdir(mode=0o500)
    for words in ("train good --runs", "data good --runs"):
        assert_told(typed(*words.split(), tmp_path / "shut"), 4, "cannot be written to", "--runs DIR")
    done = typed("predict", "made/whole", "flat", "--sort-into", tmp_path / "shut" / "in")
    assert_told(done, 2, "cannot be written to", "--sort-into DIR")
    class_folder(tmp_path / "locked")
    (tmp_path / "locked").chmod(0o000)
    try:
        assert typed("data", tmp_path / "locked").code == 3
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_a_read_only_source_is_enough_and_stays_as_it_is(run: Path, tmp_path: Path):
    source = class_folder(tmp_path / "source")
    paths = [source, *source.rglob("*")]
    for path in paths:
        path.chmod(0o500 if path.is_dir() else 0o400)
    before = {path: path.stat().st_mtime_ns for path in paths}
    try:
        for words in (
            ("data", source, "--runs", tmp_path / "runs"),
            ("train", source, "--runs", tmp_path / "runs", "--epochs", 1, *SMALL),
            ("predict", run, source, "--sort-into", tmp_path / "sorted"),
            ("evaluate", run, "--data", source, "--limit", 60),
        ):
            assert typed(*words).code in {0, 3 if words[0] == "evaluate" else 0}
        assert {path: path.stat().st_mtime_ns for path in [source, *source.rglob("*")]} == before
    finally:
        for path in paths:
            path.chmod(0o700)


def test_weights_that_would_run_code_ran_none(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    assert typed("train", "good", "--model", SMALLEST, "--weights", "code.pth").code == 3
    assert not (place / "unpickled").exists()
    pickle.loads(Path("code.pth").read_bytes())  # noqa: S301 - our own
    (place / "unpickled").rmdir()  # so it is code that would have run


def test_without_data_train_explains_itself_and_offers_digits():
    done = typed("train")
    assert done.code == 2
    assert "convsmith train digits" in done.err
    assert "digits" in done.out
    assert "a folder" in done.out


def test_debug_adds_the_traceback_and_keeps_the_exit_code(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    done = typed("train", "one", "--debug")
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
