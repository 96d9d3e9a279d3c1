"""`convsmith inspect`: tables, JSON, pages and drawings of a model in any form, and `train` with the same forms."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from torch import nn
from typed import SMALL, only_run, typed

import convsmith
from convsmith.errors import UsageError

LINE = "conv 1->10 k3 | bn | conv 10->20 k3 | bn | maxpool 2 | flatten | linear 10"
PLAIN = [word for pair in zip(SMALL[::2], SMALL[1::2], strict=True) if "convnet" not in pair[1] for word in pair]


def test_a_line_is_shown_with_its_sums_totals_and_what_to_type_next():
    done = typed("inspect", LINE, "--input", 28)
    assert done.code == 0, done.err
    assert "30,790 (all trainable)" in done.out
    assert "(28 + 2*0 - 1*(3-1) - 1)/1 + 1 = 26" in done.out
    line = next(line for line in done.out.splitlines() if line.startswith("linear1"))
    assert line.split()[-6:] == ["28.8", "k", "5.9", "%", "KiB", "all"] or "28,810" in line
    assert "--html network.html --open" in done.err
    assert typed("inspect", LINE, "--input", 28, "--quiet").err == ""


def test_without_a_size_the_one_assumed_is_said():
    done = typed("inspect", "conv 3->8 k3 | relu")
    assert "3x224x224 is assumed. --input CxHxW says another." in done.out
    assert "assumed" not in typed("inspect", "conv 3->8 k3 | relu", "--input", "32x20").out
    assert "The images are assumed to have 3 channels" in typed("inspect", "conv 8 k3", "--input", 32).out


def test_json_holds_every_layer_and_the_memory(tmp_path: Path):
    told = typed("inspect", LINE, "--input", 28, "--batch", 4, "--json").json
    assert told["parameters"]["total"] == 30_790
    assert [layer["path"] for layer in told["layers"]][-1] == "linear1"
    assert told["layers"][-1]["parameters"] == 28_810
    assert told["training_memory"]["batch"] == 4
    assert {(each["precision"], each["optimizer"]) for each in told["training_memory"]["steps"]} == {
        (precision, optimizer) for precision in ("float32", "bfloat16") for optimizer in ("sgd", "momentum", "adamw")
    }
    assert told["sums"]["maxpool1"].endswith("= 12")
    pair = typed("inspect", LINE, "--against", "convnet-tiny", "--input", "1x28x28", "--json").json
    assert set(pair) == {"model", "against"}


def test_a_second_model_stands_beside_it():
    done = typed("inspect", LINE, "--input", 28, "--against", LINE.replace("20", "40"))
    assert done.code == 0, done.err
    row = next(line for line in done.out.splitlines() if line.startswith("parameters"))
    assert row.split()[1:4] == ["30,790", "61,450", "+30,660"]
    assert "conv2" in done.out[done.out.index("layers that differ") :]


def test_blocks_are_opened_on_request():
    every, blocks, parts = (typed("inspect", "convnet-tiny", "--input", 8, *more).out
                            for more in (("--all",), ("--depth", 3), ("--depth", 1)))  # fmt: skip
    assert "stages.1.0.body.conv1" in every
    assert "stages.1.0" in blocks
    assert "stages.1.0.body" not in blocks
    assert "stages.1" not in parts
    totals = {next(line for line in text.splitlines() if "trainable" in line) for text in (every, blocks, parts)}
    assert len(totals) == 1


def test_page_and_mermaid_are_written(tmp_path: Path):
    page, drawing = tmp_path / "net.html", tmp_path / "net.mmd"
    done = typed("inspect", LINE, "--input", 28, "--html", page, "--mermaid", drawing)
    assert done.code == 0, done.err
    assert page.read_text().startswith("<!doctype html>")
    assert "convsmith inspect" in page.read_text()
    assert drawing.read_text().startswith("flowchart TD")
    assert str(page) in done.err
    assert "convsmith train DATA --model" in done.err


def test_a_size_that_does_not_fit_ends_with_the_sum_and_the_mend():
    done = typed("inspect", "conv 8 k3 | maxpool 2 | conv 8 k7", "--input", "1x8x8")
    assert done.code == 2
    assert "a window that spans 7 does not fit in 3" in done.err
    assert "an image of 16x16" in done.err
    assert typed("inspect", LINE, "--input", "28 px").code == 2


def test_a_run_is_inspected_and_its_network_and_a_line_are_trained(run: Path, insects: Path, tmp_path: Path):
    recorded = json.loads((run / "manifest.json").read_bytes())
    told = typed("inspect", run, "--json").json
    assert told["parameters"]["total"] == recorded["model"]["parameters"]
    assert told["input_assumed"] is False
    assert typed("inspect", "first", "--runs", run.parent, "--json").json["input"] == told["input"]
    line = "conv 4 k3 p1 | bn | relu | maxpool 4 | flatten | linear"
    done = typed("train", insects, "--model", line, "--epochs", 1, "--runs", tmp_path, *PLAIN)
    assert done.code == 0, done.err
    trained = only_run(tmp_path)
    assert typed("predict", trained, insects / "ant" / "000.png").code == 0
    assert typed("inspect", trained, "--json").json["layers"][0]["path"] == "conv1"
    planned = typed("train", insects, "--model", run, "--dry-run", "--json", "--epochs", 1, *PLAIN).json
    assert planned["recipe"]["model"]["name"] == "convnet"
    assert planned["recipe"]["model"]["options"] == {"width": 8, "stages": 2}


def test_what_stages_see_is_drawn_on_the_users_picture(
    run: Path, insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    picture = insects / "ant" / "000.png"
    line = "conv 3->4 k3 p1 | relu | maxpool 2 | conv 4 k3 p1 | relu"
    done = typed("inspect", line, "--input", 24, "--on", picture)
    assert done.code == 0, done.err
    assert "drawn at random" in done.out
    assert re.search(r"^relu2 +12 x 12 places; .* 8 px", done.out, re.M)
    assert (tmp_path / "000-fields.png").read_bytes().startswith(b"\x89PNG")
    done = typed("inspect", run, "--on", picture, "--html", "run.html")
    assert done.code == 0, done.err
    page = (tmp_path / "run.html").read_text()
    assert "Values of the network: as trained." in page
    assert page.count('src="data:image/png;base64,') == len(re.findall(r"\d places; ", done.out))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000-fields.png", "run.html"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--weights", "none"), "--weights is for --on"),
        (("--open",), "--open opens the page, and none is written"),
        (("--on", "absent.png"), "absent.png"),
        (("--input", "1x20x24", "--on", "absent.png"), "squares of one or three channels"),
    ],
)
def test_options_that_go_with_nothing_are_refused(words: tuple[str, ...], says: str):
    done = typed("inspect", "conv 4 k3 | relu", "--input", 20, *words)
    assert done.code in (2, 3)
    assert says in done.err


def test_in_python_a_network_shows_itself_as_text_and_in_a_notebook():
    found = convsmith.inspect(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), input_shape=(3, 16, 16))
    assert found.to_json()["parameters"]["total"] == 224
    assert "224 (all trainable)" in str(found)
    assert "<table>" in found._repr_html_()
    pair = convsmith.inspect("conv 3->8 k3", against="conv 3->4 k3", input_shape=16)
    assert "B is conv 3->4 k3" in str(pair)
    assert "<table>" in pair._repr_html_()
    with pytest.raises(UsageError):
        convsmith.inspect("conv 3->8 k3", input_shape=(3, 4, 5, 6))


def test_the_signal_through_depth_is_told_and_drawn_for_each_way_of_starting(tmp_path: Path):
    page = tmp_path / "net.html"
    line = "conv 3->16 k3 p1 | relu | conv 16 k3 p1 | relu | conv 16 k3 p1 | relu | gap | flatten | linear 4"
    words = ("inspect", line, "--input", "16", "--signal", "kaiming-normal-fan-in", "--signal", "normal-0.01")
    done = typed(*words, "--html", page)
    assert done.code == 0, done.err
    assert done.out.count("16 images of normal numbers") == 2
    found = typed(*words, "--json").json["signal"]
    kept, small = (
        [each["variance"] for each in found[name] if each["type"] == "Conv2d"]
        for name in ("kaiming-normal-fan-in", "normal-0.01")
    )
    assert 0.3 < kept[-1] / kept[0] < 3  # what He et al. 2015 keep
    assert small[-1] / small[0] < 1e-3  # variance 1e-4 times 144 inputs, half of them zero, squared: about 5e-5
    assert page.read_text().count('lines signal"') == 2


def test_a_signal_of_no_known_rule_is_refused_with_the_rules_there_are():
    done = typed("inspect", "conv 3->8 k3 | gap | flatten | linear 2", "--input", "16", "--signal", "kaiming-normal-in")
    assert done.code == 2
    assert "kaiming-normal-fan-in" in done.err
