"""What a network answered for the images of one split, for any task, and the file it lies in."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from convsmith.errors import RunError
from convsmith.run_folder import write_atomically


@dataclass(frozen=True)
class Answers:
    """A split's answers with what scoring may need beside them.

    Args:
        arrays: the task's predictions by name with `targets` and `ids`, each with the image first; facts about the
            images that its scorer knows may stand beside them.
        classes: names in the order of the indices.
        split: train, tune or test.
        majority: the commonest class of the training images, or None where classes mean nothing.
        groups: one name an image where images of one subject belong together, or None.
    """

    arrays: Mapping[str, np.ndarray]
    classes: tuple[str, ...] = ()
    split: str = "test"
    majority: int | None = None
    groups: tuple[str, ...] | None = None

    def save(self, path: str | Path) -> None:
        """Write to `path` (.npz, no pickle), whole or not at all; `majority` is the manifest's and stays out."""
        beside: dict[str, Any] = {"classes": np.array(self.classes, np.str_), "split": np.array(self.split)}
        if self.groups is not None:
            beside["groups"] = np.array(self.groups, np.str_)
        buffer = io.BytesIO()
        np.savez(buffer, **self.arrays, **beside)
        write_atomically(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path, *, majority: int | None = None) -> Self:
        """Read what `save` wrote.

        Raises:
            RunError: the file is missing, damaged (its checksums are compared first) or holds something else.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"the checksum of {damaged} differs")
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            classes, split, groups = arrays.pop("classes"), arrays.pop("split"), arrays.pop("groups", None)
            names = None if groups is None else tuple(groups.tolist())
            return cls(arrays, tuple(classes.tolist()), str(split), majority, names)
        except (OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, MemoryError) as error:
            raise _unreadable(path, error) from error
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:  # all of zipfile's own
            raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> RunError:
    """The error for a file of predictions that cannot be used, with the way to new ones."""
    return RunError(
        f"Predictions {str(path)!r} cannot be read: {error or type(error).__name__}.",
        mend="Remove report.html from the run and make them again: convsmith resume RUN",
    )
