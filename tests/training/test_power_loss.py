"""Power may go at any operation of a save: a whole checkpoint is always there, and a finished save stays."""

import json
import shutil

import pytest
import torch
from lost_power import Disk, lay_out, recorded

from convsmith import run_folder
from convsmith.run_folder import EventLog
from convsmith.training import checkpoint as checkpoints
from convsmith.training import last_checkpoint
from convsmith.training.checkpoint import safetensors_ready, write_checkpoint


class Crashes:
    """Saves on a recorded disk, and every state in which a loss of power could leave it, with what must be found."""

    def __init__(self, tmp_path, monkeypatch):
        self.path = tmp_path / "run"
        self.path.mkdir()
        self.disk, self.states, self.allowed, self.operations = Disk(), {}, {None}, 0
        (self.path / "checkpoints").mkdir()
        self.disk.change(self.disk.root, [("checkpoints", Disk.folder())])
        self.disk.settle(self.disk.root)
        self.monkeypatch = monkeypatch

    def save(self, log, step, value):
        """Write a checkpoint as a run does; until the end, the one before or the new one may be found."""
        present = self.allowed
        self.allowed = present | {(step, value)}
        with recorded(self.path, self.disk, self.monkeypatch, self.note):
            log.append("checkpoint", step=step)
            state = {"step": step, "w": torch.tensor([value])}
            write_checkpoint(self.path / "checkpoints", state, safetensors_ready({"w": state["w"]}), log.sync())
        self.allowed = {(step, value)}
        self.note()

    def log(self):
        with recorded(self.path, self.disk, self.monkeypatch, self.note):
            log = EventLog(self.path / "log.jsonl")
        self.disk.settle(self.disk.root)  # made with the run, long before
        return log

    def note(self):
        self.operations += 1
        for tree in self.disk.states():
            self.states.setdefault(tree, (set(), self.operations))[0].add(frozenset(self.allowed))

    def faults(self, tmp_path):
        """Which of the states hold something else than they may."""
        faults = []
        for tree, (allowed, operation) in self.states.items():
            place = tmp_path / "state"
            lay_out(tree, place)
            try:
                found = last_checkpoint(place / "checkpoints")
                seen = None if found is None else (found.step, found.state()["w"].item())
                log = (place / "log.jsonl").stat().st_size if found else 0
                short = found is not None and log < found.log_bytes
                named = json.loads((place / "last.json").read_bytes())["step"] if (place / "last.json").exists() else 0
                late = found is not None and named > found.step
                if late or short or any(seen not in choices for choices in allowed):
                    faults.append((operation, seen, allowed, log, named))
            except Exception as error:
                faults.append((operation, error))
            shutil.rmtree(place)
        return faults


SAVES = {
    "the first": [(10, 1.0)],
    "one after another": [(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)],
    "the same step again": [(10, 1.0), (10, 2.0), (10, 3.0)],
    "the same step again, later": [(10, 1.0), (20, 2.0), (20, 3.0), (30, 4.0)],
}


@pytest.mark.parametrize("saves", SAVES.values(), ids=SAVES)
def test_whatever_a_loss_of_power_leaves_holds_the_last_or_the_new_checkpoint_whole(tmp_path, monkeypatch, saves):
    crashes = Crashes(tmp_path, monkeypatch)
    log = crashes.log()
    for step, value in saves:
        crashes.save(log, step, value)
    log.close()
    assert crashes.operations > 18 * len(saves)  # the recorder saw the operations,
    assert len(crashes.states) > 20 * len(saves)  # and the model is not too kind
    assert crashes.faults(tmp_path) == []


def nothing(*_):
    """What a careless save does in the place of an fsync."""


def unsynced(path, data):
    with path.open("wb") as file:
        file.write(data)


def deleting(source, target):
    """Remove the checkpoint that is about to be replaced, instead of moving it aside."""
    shutil.rmtree(source) if "replaced" in target.name else run_folder.rename(source, target)


class Untidy(EventLog):
    """Says how long the log is without forcing it to disk."""

    def sync(self):
        return self._file.tell()


CARELESS = {
    "files are not synced": [(checkpoints, "write_file", unsynced)],
    "folders are not synced": [(checkpoints, "sync_folder", nothing), (run_folder, "sync_folder", nothing)],
    "the old one is deleted first": [(checkpoints, "rename", deleting)],
    "the log is not synced": [],
}


@pytest.mark.parametrize("name", CARELESS)
def test_the_model_finds_what_a_careless_save_would_lose(tmp_path, monkeypatch, name):
    for place, function, careless in CARELESS[name]:
        monkeypatch.setattr(place, function, careless)
    crashes = Crashes(tmp_path, monkeypatch)
    log = crashes.log()
    if name == "the log is not synced":
        log.__class__ = Untidy
    # what is never settled doubles the states at each change, so one save must do there
    for value in [1.0] if "not synced" in name else [1.0, 2.0]:
        crashes.save(log, 10, value)
    log.close()
    assert crashes.faults(tmp_path) != []
