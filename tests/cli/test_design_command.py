"""`convsmith design`: what is typed, printed and written, and that `train` takes what was written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typed import only_run, typed

from convsmith.design import doubling, read, write
from convsmith.networks import build_design, count_parameters, load_own
from convsmith.networks.rewriting.operations import deepen, shrink, swap_block, widen

LINE = "conv 1->8 k3 p1 | relu | maxpool 2 | conv 16 k3 p1 | relu | flatten | linear 32 | relu | linear 10"
TRAINING = ("--epochs", 1, "--limit", 200, "--set", "train.batch=32", "--set", "train.precision=float32",
            "--set", "train.memory_format=contiguous")  # fmt: skip


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A small design for digits."""
    path = tmp_path / "network.yaml"
    path.write_text(write(doubling(width=16, depth=1, stages=2)))
    return path


def proposed(*arguments: object) -> dict[str, dict[str, object]]:
    """Proposals by name."""
    done = typed("design", *arguments, "--json")
    assert done.code == 0, done.err
    return {proposal["name"]: proposal for proposal in done.json["proposals"]}


def test_a_design_that_saves_half_is_written_read_and_trained(network: Path, tmp_path: Path):
    file = tmp_path / "smaller.yaml"
    done = typed("design", network, "--input", "1x8x8", "--outputs", 10, "--save", "50%", "--take", 2, "--write", file)
    assert done.code == 0, done.err
    second = re.search(r"^2  (.+): (.+) \(", done.out, re.MULTILINE)
    assert second is not None
    assert f"({second[2]})" in file.read_text()
    whole = count_parameters(build_design(read(network), 1, 10)).total
    assert count_parameters(build_design(read(file), 1, 10)).total <= whole / 2
    assert f"Next: convsmith train DATA --model {file}" in done.err
    trained = typed("train", "digits", "--model", file, "--runs", tmp_path / "runs", *TRAINING)
    assert trained.code == 0, trained.err
    run = only_run(tmp_path / "runs")
    again = typed("design", run, "--shrink", "stage2:0.5", "--json").json  # a run's design goes on from there
    assert again["proposals"][0]["design"] == shrink(read(file), 0.5, stage=1).model_dump(mode="json")
    assert (again["input"], again["outputs"], again["input_assumed"]) == ([1, 8, 8], 10, False)


def test_figures_stand_before_and_after_with_the_share_saved(network: Path):
    done = typed("design", network, "--input", "1x8x8", "--outputs", 10, "--save", "0.5")
    now = next(line for line in done.out.splitlines() if " now " in line)
    # Stem 176, first stage 4,672, second 14,528 with its shortcut, head 330: 19,706.
    assert now.split()[1:3] == ["19.7", "k"]
    assert "At most 9.85 k parameters:" in done.out
    rows = re.findall(r"^\d  .+?  +([\d.]+) k \(-(\d+) %\)", done.out, re.MULTILINE)
    assert rows
    for figure, share in rows:
        assert float(figure) <= 9.86
        assert int(share) >= 50
    assert done.out.index("Memory: what a training step keeps") > done.out.index("now")
    assert f"Next: convsmith design {network} --input 1x8x8 --outputs 10 --save 0.5 --write proposal.yaml" in done.err
    assert typed("design", network, "--input", 8, "--quiet").err == ""


def test_half_of_the_parameters_is_saved_where_nothing_is_asked(network: Path):
    told = typed("design", network, "--input", "1x8x8", "--outputs", 10, "--json").json
    assert told["limits"] == {"parameters": told["before"]["parameters"] / 2}


def test_operations_are_done_in_the_stages_that_are_named(network: Path):
    arguments = (
        network,
        "--input",
        8,
        "--outputs",
        10,
        "--widen",
        "1.5",
        "--shrink",
        "stage2:0.5",
        "--deepen",
        "stage1",
    )
    (only,) = proposed(*arguments, "--deepen", "stage2:2", "--swap", "stage1:separable").values()
    before = read(network)
    expected = deepen(deepen(shrink(widen(before, 1.5), 0.5, stage=1), 0), 1, blocks=2)
    assert only["design"] == swap_block(expected, 0, "separable").model_dump(mode="json")
    (spread,) = proposed(network, "--input", 8, "--dilate", "stage2:3", "--output-stride", 1).values()
    assert spread["did"] == "dilate stage2 3; output-stride 1"


@pytest.mark.slow
def test_limits_are_kept_in_any_unit(network: Path):
    limits = ("--limit", "parameters=12k", "--limit", "macs=0.5M", "--limit", "memory=20KiB", "--limit", "latency=30s")
    told = typed("design", network, "--input", "1x8x8", "--outputs", 10, *limits, "--json").json
    assert told["limits"] == {"parameters": 12_000, "macs": 500_000, "memory": 20_480, "latency": 30}
    assert told["proposals"]
    for proposal in told["proposals"]:
        after = proposal["after"]
        assert after["parameters"] <= 12_000
        assert after["macs"] <= 500_000
        assert after["memory"] <= 20_480
        assert 0 < after["seconds"] < 30
    done = typed("design", network, "--input", 8, "--limit", "latency=30s", "--widen", 2)
    assert re.search(
        r"Latency: measured on this machine now, for one image, \d+ threads?, beside the network", done.out
    )


def test_a_receptive_field_is_reached_or_it_is_said_how(network: Path):
    done = typed("design", network, "--input", 32, "--outputs", 10, "--receptive-field", 30)
    assert done.code == 0, done.err
    assert re.search(r"^\d  dilation: kernels of stage2 spread \d times \(Yu & Koltun 2016\)$", done.out, re.MULTILINE)
    assert re.search(r"^\d  a non-local block .* all$", done.out, re.MULTILINE)


@pytest.mark.slow
def test_a_network_that_is_code_is_changed_in_python_and_says_so(tmp_path: Path):
    done = typed("design", LINE, "--input", 8)
    assert done.code == 0, done.err
    assert "This network is code and no design, so it is changed from outside." in done.out
    assert "    shape = (1, 8, 8)\n    model = " in done.out
    file = tmp_path / "smaller.py"
    assert "--write proposal.py" in done.err
    written = typed("design", LINE, "--input", 8, "--write", file, "--json")
    (best, *_) = written.json["proposals"]
    assert (written.json["written"], best["design"]) == (str(file), None)
    model = load_own(file, "network", {}, in_channels=1, outputs=10)
    assert count_parameters(model).total == best["after"]["parameters"] <= written.json["before"]["parameters"] / 2
    assert f"Next: convsmith train DATA --model {file}:network" in written.err
    trained = typed("train", "digits", "--model", f"{file}:network", "--runs", tmp_path / "runs", *TRAINING)
    assert trained.code == 0, trained.err


def test_what_is_typed_may_hold_anything_and_the_file_is_python_all_the_same(tmp_path: Path):
    odd = tmp_path / 'a "b" \\c'
    odd.mkdir()
    file = odd / "n.py"
    assert typed("design", LINE, "--input", 8, "--write", file).code == 0
    assert load_own(file, "network", {}, in_channels=1, outputs=10) is not None
    yaml = odd / "n\nstages: 3.yaml"
    design = odd / "d.yaml"
    design.write_text(write(doubling(width=16, depth=1, stages=2)))
    assert typed("design", design, "--input", 8, "--widen", 2, "--write", yaml).code == 0
    assert read(yaml) == widen(read(design), 2)


def test_the_users_own_code_stays_theirs(tmp_path: Path):
    own = tmp_path / "mine.py"
    own.write_text(
        "from torch import nn\n"
        "def net(in_channels, outputs, width=32):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3),\n"
        "                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs))\n"
    )
    arguments = ("design", f"{own}:net", "--arg", "width=16", "--input", "1x8x8")
    done = typed(*arguments)
    assert done.code == 0, done.err
    assert (
        "    from convsmith.networks.rewriting.narrowing import narrow\n    shape = (1, 8, 8)\n    model = narrow("
        in done.out
    )
    assert f"convsmith inspect {own}:net   # after the lines above are in your file" in done.err
    refused = typed(*arguments, "--write", tmp_path / "other.py")
    assert refused.code == 2
    assert "is your own code, and stays in your file" in refused.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("convnet-tiny --save 150%", "--save 150% is no share between 0 and 1"),
        ("convnet-tiny --save much", "--save much is no share"),
        ("convnet-tiny --limit size=3", "one of parameters, macs, memory, latency"),
        ("convnet-tiny --limit macs=3MB", "'3MB' is no figure.*one of k, m, g"),
        ("convnet-tiny --limit latency=3", "'3' is no figure.*one of ms, s"),
        ("convnet-tiny --widen stage1:wide", "'wide' is no number.*--widen stage3:2"),
        ("convnet-tiny --deepen stage9", "no stage 'stage9'.*stage1 to stage2"),
        ("convnet-tiny --save 99.9% --write x.yaml", "There is no proposal 1.*higher limits"),
        ("convnet-tiny --widen 2 --take 2", "no proposal 2, but 1 in all.*--take 1 to 1"),
        ("convnet-tiny --widen 2 --write x.py", "is a design.*Write it as x.yaml"),
        ("'conv 3->8 k3 | gap | flatten | linear 5' --shrink 0.5 --write x.yaml", "no design: it is code.*x.py"),
        ("torchvision/resnet18 --deepen stage1", "deepen changes a design, and this network is code"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_mend(arguments: str, said: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = typed("design", *shlex.split(arguments), "--input", 32)
    assert done.code == 2
    assert re.search(said, done.err, re.DOTALL), done.err
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_is_found_that_is_said_and_why(network: Path):
    done = typed("design", network, "--input", "1x8x8", "--save", "99.9%")
    assert done.code == 0
    assert "Nothing that was tried keeps to that." in done.out
    assert re.search(r"^-  fewer channels: at its end there are [\d.,]+ k? ?parameters$", done.out, re.MULTILINE), (
        done.out
    )
    assert "convsmith inspect" in done.err
