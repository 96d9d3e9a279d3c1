"""A disk that may lose power: records what a program does to its files, and gives every state a crash could leave.

The model is the pessimistic reading of POSIX. What was written to a file is there for certain only after an fsync of
that file; before, any part may be missing. A name (a file or folder that was made, renamed or removed) is certain only
after an fsync of the folder that holds it; before, each such change may or may not have reached the disk, in any order.
"""

from __future__ import annotations

import itertools
import os
import shutil
from contextlib import contextmanager
from pathlib import Path


class Disk:
    """Files and folders as they are for the program, and as they are on the disk for certain.

    A folder is {"names": as seen, "certain": on disk, "pending": [(name, node or None), ...] per change}; a file is
    {"content", "certain"}.
    """

    def __init__(self):
        self.root = self.folder()

    @staticmethod
    def folder():
        return {"names": {}, "certain": {}, "pending": []}

    def node(self, parts):
        node = self.root
        for part in parts:
            node = node["names"][part]
        return node

    def change(self, folder, changes):
        """One atomic change of a folder's names: [(name, node or None for removed)]."""
        for name, node in changes:
            if node is None:
                folder["names"].pop(name, None)
            else:
                folder["names"][name] = node
        folder["pending"].append(changes)

    def settle(self, node):
        """fsync of a file or folder."""
        if "names" in node:
            node["certain"], node["pending"] = dict(node["names"]), []
        else:
            node["certain"] = node["content"]

    def states(self, node=None):
        """Every tree that may be on the disk now, each once: a file is bytes, a folder a set of (name, tree)."""
        node = self.root if node is None else node
        if "names" not in node:
            return {node["content"], node["certain"] or b""}
        found = set()
        for chosen in itertools.product((False, True), repeat=len(node["pending"])):
            names = dict(node["certain"])
            for changes in itertools.compress(node["pending"], chosen):
                for name, child in changes:
                    names.pop(name, None) if child is None else names.__setitem__(name, child)
            below = [[(name, tree) for tree in self.states(child)] for name, child in names.items()]
            found.update(frozenset(trees) for trees in itertools.product(*below))
        return found


class File:
    """An open file whose writes are recorded."""

    def __init__(self, file, node, after):
        self.file, self.node, self.after = file, node, after

    def write(self, data):
        self.node["content"] += data
        self.after()
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


class Recorder:
    """Does to a `Disk` what is done to files below `root`, and calls `after` at each operation."""

    def __init__(self, root: Path, disk: Disk, after):
        self.root, self.disk, self.after = root, disk, after
        self.real_open, self.real_replace, self.real_mkdir = Path.open, Path.replace, Path.mkdir
        self.real_fsync, self.real_rmtree = os.fsync, shutil.rmtree

    def place(self, path):
        """The folder that holds `path`, and its name there."""
        *above, name = Path(path).relative_to(self.root).parts
        return self.disk.node(above), name

    def change(self, folder, changes):
        self.disk.change(folder, changes)
        self.after()

    def open(self, path, mode="r", *arguments, **options):
        file = self.real_open(path, mode, *arguments, **options)
        if mode not in ("wb", "ab"):
            return file
        folder, name = self.place(path)
        if name not in folder["names"] or mode == "wb":
            self.change(folder, [(name, {"content": b"", "certain": None})])
        return File(file, folder["names"][name], self.after)

    def replace(self, source, target):
        (folder, old), (other, new) = self.place(source), self.place(target)
        assert folder is other, "a rename between folders is not atomic in this model"
        self.real_replace(source, target)
        self.change(folder, [(old, None), (new, folder["names"][old])])

    def mkdir(self, path, *arguments, **options):
        self.real_mkdir(path, *arguments, **options)
        folder, name = self.place(path)
        self.change(folder, [(name, Disk.folder())])

    def fsync(self, descriptor):
        self.real_fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        self.disk.settle(self.disk.node(path.relative_to(self.root).parts))
        self.after()

    def rmtree(self, path, ignore_errors=False):
        if not Path(path).exists():
            assert ignore_errors
            return
        folder, name = self.place(path)
        inner = folder["names"][name]
        if inner["names"]:  # half done; every subset of the files that are gone is as damaged as this one
            self.change(inner, [(max(inner["names"]), None)])
        self.real_rmtree(path)
        self.change(folder, [(name, None)])


@contextmanager
def recorded(root: Path, disk: Disk, monkeypatch, after):
    """Within, everything done to files below `root` is done to `disk` too; `after()` is called at each operation."""
    recorder = Recorder(root, disk, after)
    with monkeypatch.context() as patch:
        for name in ("open", "replace", "mkdir"):
            method = getattr(recorder, name)
            patch.setattr(Path, name, lambda path, *a, _method=method, **k: _method(path, *a, **k))
        patch.setattr(os, "fsync", recorder.fsync)
        patch.setattr(shutil, "rmtree", recorder.rmtree)
        yield


def lay_out(tree, path: Path):
    """Make a state real."""
    if isinstance(tree, bytes):
        path.write_bytes(tree)
        return
    path.mkdir()
    for name, below in tree:
        lay_out(below, path / name)
