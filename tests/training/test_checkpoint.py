"""A damaged checkpoint is passed over and said so, a hostile one is refused, and a failed save costs nothing."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import zipfile

import pytest
import torch
from torch import nn
from toys import differences, make_batches, make_loop, make_net

from convsmith.errors import CheckpointError, ResourceError, RunError
from convsmith.training import Writer, last_checkpoint, load_weights
from convsmith.training.checkpoint import copied, safetensors_ready, write_checkpoint


def save(folder, step, value=0.0, log_bytes=None):
    folder.mkdir(exist_ok=True)
    state = {"step": step, "model": {"w": torch.full((300,), value or float(step))}}
    log_bytes = step if log_bytes is None else log_bytes
    return write_checkpoint(folder, state, safetensors_ready(state["model"]), log_bytes)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "checkpoints"
    for step in (10, 20, 30):
        save(path, step)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_only_two_are_kept_and_the_newest_is_named(folder):
    assert names(folder) == ["20", "30"]
    found = last_checkpoint(folder)
    assert (found.step, found.log_bytes, found.damaged) == (30, 30, ())
    assert found.state()["model"]["w"][0] == 30
    assert json.loads((folder.parent / "last.json").read_text()) == {"checkpoint": "checkpoints/30", "step": 30}


def test_there_is_none_before_the_first(tmp_path):
    assert last_checkpoint(tmp_path / "checkpoints") is None
    (tmp_path / "checkpoints" / ".saving-5").mkdir(parents=True)
    assert last_checkpoint(tmp_path / "checkpoints") is None


# ------------------------------------------------------------------------------------------------------------- damage

FILES = ["state.pt", "weights.safetensors", "digest.json"]


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.77, 1.0])
def test_a_flipped_byte_makes_it_fall_back_and_say_so(folder, name, place):
    flip(folder / "30" / name, place)
    found = last_checkpoint(folder)
    assert found.step == 20
    assert found.state()["model"]["w"][0] == 20
    assert len(found.damaged) == 1
    assert "30" in found.damaged[0]
    assert "damaged" in found.damaged[0]


def test_no_byte_of_the_digest_file_can_change_unseen(folder):
    path = folder / "30" / "digest.json"
    whole = path.read_bytes()
    for i in range(len(whole)):
        for bit in (1, 4, 32):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ bit]) + whole[i + 1 :])
            found = last_checkpoint(folder)
            assert found.step == 20 or (found.log_bytes, found.step) == (30, 30), (i, bit)
    path.write_bytes(whole)
    assert last_checkpoint(folder).step == 30


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("length", [0, 1, 100, -2])
def test_a_truncated_newest_one_makes_it_fall_back(folder, name, length):
    path = folder / "30" / name
    path.write_bytes(path.read_bytes()[:length])
    found = last_checkpoint(folder)
    assert (found.step, len(found.damaged)) == (20, 1)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_makes_it_fall_back(folder, name):
    (folder / "30" / name).unlink()
    assert last_checkpoint(folder).step == 20


def test_where_all_are_damaged_the_error_names_each(folder):
    flip(folder / "20" / "state.pt", 0.5)
    flip(folder / "30" / "weights.safetensors", 0.5)
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* is whole.*30.*20.*Train again") as caught:
        last_checkpoint(folder)
    assert caught.value.exit_code == 4


def test_after_falling_back_the_damaged_one_is_replaced_when_its_step_comes_again(folder):
    flip(folder / "30" / "state.pt", 0.5)
    save(folder, 30)
    found = last_checkpoint(folder)
    assert (found.step, found.damaged) == (30, ())
    assert names(folder) == ["20", "30"]


def test_a_new_one_older_than_damaged_ones_is_not_deleted_with_them(folder):
    for step in ("20", "30"):
        flip(folder / step / "state.pt", 0.5)
    shutil.copytree(folder / "20", folder / "10")
    (folder / "10" / "digest.json").unlink()
    save(folder, 15)  # resumed from further back, then stopped
    assert last_checkpoint(folder).step == 15
    assert names(folder) == ["10", "15"]


def test_what_a_kill_left_behind_is_cleared_by_the_next_save(folder):
    for name in (".saving-25", ".saving-30", ".replaced-20"):
        (folder / name).mkdir()
        (folder / name / "state.pt").write_bytes(b"part")
    (folder / "notes").mkdir()
    save(folder, 40)
    assert names(folder) == ["30", "40", "notes"]


def test_saving_a_step_again_replaces_it_and_keeps_the_one_before(folder):
    save(folder, 30, value=99.0, log_bytes=7)
    found = last_checkpoint(folder)
    assert (found.step, found.log_bytes, found.state()["model"]["w"][0]) == (30, 7, 99)
    assert names(folder) == ["20", "30"]


def test_a_kill_between_the_two_renames_of_a_replacement_costs_nothing(folder):
    (folder / "30").rename(folder / ".replaced-30")
    found = last_checkpoint(folder)
    assert (found.step, found.folder.name, found.state()["model"]["w"][0]) == (30, ".replaced-30", 30)
    save(folder, 30, value=5.0)
    assert last_checkpoint(folder).state()["model"]["w"][0] == 5
    assert names(folder) == ["20", "30"]


# ---------------------------------------------------------------------------------------------------------- hostility


class Hostile:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def hostile_files(path, trace):
    """state.pt as torch would write it, and as a bare pickle."""
    torch.save({"step": 30, "model": Hostile(trace)}, path / "zip.pt")
    (path / "bare.pt").write_bytes(pickle.dumps({"step": Hostile(trace)}, protocol=2))
    torch.save({"step": Hostile(trace)}, path / "legacy.pt", _use_new_zipfile_serialization=False)
    return [path / name for name in ("zip.pt", "bare.pt", "legacy.pt")]


def test_pickled_code_is_refused_and_not_run(folder, tmp_path):
    trace = tmp_path / "ran"
    for path in hostile_files(tmp_path, trace):
        shutil.copy(path, folder / "30" / "state.pt")
        with pytest.raises(CheckpointError, match=r"state\.pt is refused: .*Only tensors and plain values"):
            last_checkpoint_unchecked(folder / "30").state()
        assert not trace.exists()
    torch.load(tmp_path / "zip.pt", weights_only=False)  # it would have run
    assert trace.exists()


def last_checkpoint_unchecked(path):
    """As if a stranger had made the digests fit."""
    from convsmith.training import Checkpoint

    return Checkpoint(path, 30, 0)


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", b"{}"])
def test_a_state_that_is_no_state_is_refused(folder, content):
    (folder / "30" / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="is refused"):
        last_checkpoint_unchecked(folder / "30").state()


def test_names_in_the_digest_file_reach_nothing_outside_the_checkpoint(folder):
    from convsmith.training.checkpoint import _digest, verify

    record = {"schema": 1, "step": 30, "log_bytes": 0, "sha256": {"../../../../etc/passwd": "0" * 64}}
    (folder / "30" / "digest.json").write_text(json.dumps({**record, "record": _digest(record)}))
    with pytest.raises(CheckpointError, match=r"30/passwd"):
        verify(folder / "30")


def test_a_state_holds_no_code_of_ours_either(tmp_path):
    loop = make_loop()
    for _ in loop.run(make_batches()):
        break
    loop_state = copied(loop.state_dict())
    path = write_checkpoint(tmp_path, loop_state, safetensors_ready(loop.model.state_dict()), 0)
    with zipfile.ZipFile(path / "state.pt") as archive:
        text = b"".join(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    assert b"convsmith" not in text
    assert differences(last_checkpoint(tmp_path).state(), loop_state) == []


# -------------------------------------------------------------------------------------------------------- safetensors


HEADERS = {
    "huge length": (2**62).to_bytes(8, "little"),
    "large length": (99_000_000).to_bytes(8, "little") + b"{",
    "no JSON": (8).to_bytes(8, "little") + b"nonsense",
    "huge tensor": (80).to_bytes(8, "little")
    + b'{"w":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,399999999996]}}'.ljust(80),
    "empty": b"",
}


def test_a_corrupt_header_is_an_error_in_bounded_memory(tmp_path):
    for name, header in HEADERS.items():
        (tmp_path / name).write_bytes(header)
    code = (
        "import pathlib, resource, sys, torch\n"
        "from convsmith.errors import CheckpointError\n"
        "from convsmith.training import load_weights\n"
        "used = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n"
        "for path in map(pathlib.Path, sys.argv[1:]):\n"
        "    try: load_weights(torch.nn.Linear(1, 1), path)\n"
        "    except CheckpointError as error: print(error.message)"
    )
    paths = [str(tmp_path / name) for name in HEADERS]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths), done.stderr
    assert all(line.startswith(f"{path} cannot be read: ") for path, line in zip(paths, lines, strict=True))


def test_weights_of_another_network_are_refused(tmp_path):
    write_checkpoint(tmp_path, {"step": 1}, safetensors_ready(make_net().state_dict()), 0)
    with pytest.raises(CheckpointError, match=r"does not fit the network: .*another recipe or code"):
        load_weights(make_net(norm=False), tmp_path / "1" / "weights.safetensors")


class Tied(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight
        self.register_buffer("empty", torch.empty(0))
        self.register_buffer("also_empty", torch.empty(0))
        self.register_buffer("column", torch.arange(9.0).view(3, 3).t())


def test_tied_channels_last_and_transposed_weights_come_back_as_they_were(tmp_path):
    source = Tied(0).to(memory_format=torch.channels_last)
    tensors, aliases = safetensors_ready(source.state_dict())
    assert aliases == {"second.weight": "first.weight"}
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    write_checkpoint(tmp_path, copied({"step": 1, "model": source.state_dict()}), (tensors, aliases), 0)
    target = Tied(1).to(memory_format=torch.channels_last)
    last_checkpoint(tmp_path).load_weights(target)
    assert target.second.weight is target.first.weight
    assert target.first.weight.is_contiguous(memory_format=torch.channels_last)
    assert differences(dict(target.state_dict()), dict(source.state_dict())) == []
    kept = last_checkpoint(tmp_path).state()["model"]
    assert differences(kept, dict(source.state_dict())) == []
    assert kept["first.weight"].is_contiguous(memory_format=torch.channels_last)


def test_copies_do_not_follow_the_live_tensors():
    net = make_net()
    state = {"a": net.state_dict(), "b": [net[0].weight, (1, None, "x")]}
    copy, (tensors, _) = copied(state), safetensors_ready(net.state_dict())
    before = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].weight.add_(1)
    assert torch.equal(copy["a"]["0.weight"], before)
    assert torch.equal(copy["b"][0], before)
    assert copy["b"][1] == (1, None, "x")
    assert torch.equal(tensors["0.weight"], before)


# --------------------------------------------------------------------------------------------------------- the writer


def test_the_loop_goes_on_while_a_checkpoint_is_written_from_a_copy(tmp_path, monkeypatch):
    from convsmith.training import checkpoint

    go = threading.Event()
    write = checkpoint.write_checkpoint
    monkeypatch.setattr(checkpoint, "write_checkpoint", lambda *a: (go.wait(30), write(*a)))
    weight = torch.zeros(3)
    writer = Writer(tmp_path / "checkpoints")
    writer.folder.mkdir()
    writer.save({"step": 1, "w": weight}, {"w": weight}, 0)
    weight += 1  # returned at once, while nothing is written yet
    assert names(writer.folder) == []
    go.set()
    writer.wait()
    assert last_checkpoint(writer.folder).state()["w"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("ends", ["save", "wait"])
def test_a_full_disk_is_raised_by_the_next_call_keeps_the_older_one_and_leaves_no_part(tmp_path, ends):
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        writer = Writer(disk / "checkpoints")
        writer.folder.mkdir()
        small, large = torch.zeros(10), torch.zeros(100_000)
        writer.save({"step": 1, "w": small}, {"w": small}, 0)
        writer.save({"step": 2, "w": large}, {"w": large}, 0)  # 400 kB twice
        call = writer.wait if ends == "wait" else lambda: writer.save({"step": 3, "w": small}, {"w": small}, 0)
        with pytest.raises(ResourceError, match=r"The disk is full: saving a checkpoint in .*what was saved before"):
            call()
        assert names(writer.folder) == ["1"]
        assert last_checkpoint(writer.folder).step == 1
        writer.save({"step": 4, "w": small}, {"w": small}, 0)  # an error is raised once
        writer.wait()
        assert names(writer.folder) == ["1", "4"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_refuses_is_a_loud_error(tmp_path):
    writer = Writer(tmp_path / "file" / "checkpoints")
    (tmp_path / "file").write_text("")
    writer.save({"step": 1}, {"w": torch.zeros(1)}, 0)
    with pytest.raises(RunError, match=r"saving a checkpoint in .* was refused"):
        writer.wait()
