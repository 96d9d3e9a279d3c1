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


@contextmanager
def recorded(root: Path, disk: Disk, monkeypatch, after):
    """Within, everything done to files below `root` is done to `disk` too; `after()` is called at each operation."""
    def parts(path):
        return Path(path).relative_to(root).parts

    def parent(path):
        *above, name = parts(path)
        return disk.node(above), name

    class File:
        def __init__(self, file, node):
            self.file, self.node = file, node

        def write(self, data):
            self.node["content"] += data
            after()
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    real = {"open": Path.open, "replace": Path.replace, "mkdir": Path.mkdir, "fsync": os.fsync, "rmtree": shutil.rmtree}

    def open_(path, mode="r", *args, **kwargs):
        file = real["open"](path, mode, *args, **kwargs)
        if mode not in ("wb", "ab"):
            return file
        folder, name = parent(path)
        if name not in folder["names"] or mode == "wb":
            disk.change(folder, [(name, {"content": b"", "certain": None})])
            after()
        return File(file, folder["names"][name])

    def replace(source, target):
        (folder, old), (other, new) = parent(source), parent(target)
        assert folder is other, "a rename between folders is not atomic in this model"
        real["replace"](source, target)
        disk.change(folder, [(old, None), (new, folder["names"][old])])
        after()

    def mkdir(path, *args, **kwargs):
        real["mkdir"](path, *args, **kwargs)
        folder, name = parent(path)
        disk.change(folder, [(name, Disk.folder())])
        after()

    def fsync(descriptor):
        real["fsync"](descriptor)
        disk.settle(disk.node(parts(os.readlink(f"/proc/self/fd/{descriptor}"))))
        after()

    def rmtree(path, ignore_errors=False):
        if not Path(path).exists():
            assert ignore_errors
            return
        folder, name = parent(path)
        inner = folder["names"][name]
        if inner["names"]:  # half done; every subset of the files that are gone is as damaged as this one
            disk.change(inner, [(max(inner["names"]), None)])
            after()
        real["rmtree"](path)
        disk.change(folder, [(name, None)])
        after()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_)
        patch.setattr(Path, "replace", replace)
        patch.setattr(Path, "mkdir", mkdir)
        patch.setattr(os, "fsync", fsync)
        patch.setattr(shutil, "rmtree", rmtree)
        yield


def lay_out(tree, path: Path):
    """Make a state real."""
    if isinstance(tree, bytes):
        path.write_bytes(tree)
        return
    path.mkdir()
    for name, below in tree:
        lay_out(below, path / name)
