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
        """Every tree that may be on the disk now: nested dictionaries of bytes."""
        node = self.root if node is None else node
        if "names" not in node:
            return file_states(node)
        found = []
        for chosen in subsets(node["pending"]):
            names = dict(node["certain"])
            for changes in chosen:
                for name, child in changes:
                    names.pop(name, None) if child is None else names.__setitem__(name, child)
            below = [[(name, state) for state in self.states(child)] for name, child in sorted(names.items())]
            for tree in map(dict, itertools.product(*below)):
                if tree not in found:
                    found.append(tree)
        return found


def file_states(node):
    content, certain = node["content"], node["certain"]
    if content == certain:
        return [content]
    certain = certain or b""
    return [certain, content, certain + b"\0" * (len(content) - len(certain))]


def subsets(pending):
    """All subsets of the changes where they are few; else all beginnings, and all with one missing."""
    if len(pending) <= 5:
        chosen = [[c for c, take in zip(pending, mask) if take] for mask in itertools.product((0, 1), repeat=len(pending))]
    else:
        chosen = [pending[:i] for i in range(len(pending) + 1)]
        chosen += [pending[:i] + pending[i + 1 :] for i in range(len(pending))]
    return chosen


@contextmanager
def recorded(root: Path, disk: Disk, monkeypatch, after):
    """Within, everything done to files below `root` is done to `disk` too; `after()` is called at each operation."""
    where = {}

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
        for inner in sorted(folder["names"][name]["names"]):
            disk.change(folder["names"][name], [(inner, None)])
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
        yield where


def lay_out(tree, path: Path):
    """Make a state real."""
    if isinstance(tree, bytes):
        path.write_bytes(tree)
        return
    path.mkdir()
    for name, below in tree.items():
        lay_out(below, path / name)
