"""A run is a folder: where its parts lie, its lock, its log, and writes that survive a loss of power.

Every file is written beside its place, forced to disk, renamed over the old one, and the folder forced to disk too, so
that a reader sees either the old file or the new one, whole. Large parts (checkpoints) use the same four steps through
`write_file`, `rename` and `sync_folder`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convsmith.errors import ResourceError, RunError, UsageError
from convsmith.registry import suggestion

if TYPE_CHECKING:
    from convsmith.recipe import Recipe

DAMAGED = "Put the file back from a copy, or train again."
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


REFUSED = {
    errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG
}  # fmt: skip
LISTED = 4
"""Runs that are named where none was found."""
CHECK = "Check the folder and its permissions, or choose another with --runs DIR."


@contextlib.contextmanager
def disk_errors(doing: str, *, mend: str = CHECK) -> Iterator[None]:
    """Turn the operating system's refusals to write into errors that say what was being done and how to mend it.

    Args:
        doing: "writing FILE", for the message.
        mend: what to do where it was refused, other than for want of space.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ResourceError(
                f"The disk is full: {doing} failed.", mend="Free some space; what was saved before stands."
            ) from error
        if error.errno in REFUSED:
            raise RunError(f"{doing} was refused: {error.strerror}.", mend=mend) from error
        raise


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write a new file and force it to disk; where that fails, no part of it stays behind."""
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def rename(source: Path, target: Path) -> None:
    """Put a finished file or folder in its place in one step."""
    source.replace(target)


def sync_folder(path: Path) -> None:
    """Force a folder's list of names to disk (Windows has no such call and needs none)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes, *, mend: str = CHECK) -> None:
    """Replace a file by new content so that a crash at any instant leaves the old or the new one, never a part.

    Args:
        path: of the file; its folder is there.
        data: the new content.
        mend: what to do where writing is refused.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(f"writing {path}", mend=mend):
        write_file(temporary, data)
        try:
            rename(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def dump_json(value: Any) -> bytes:
    """JSON as it lies in a run: UTF-8, indented, no NaN."""
    return (json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()


class EventLog:
    """The run's `log.jsonl`, open for appending.

    Lines are handed to the operating system as they come and forced to disk by `sync`, which a checkpoint calls first,
    so that the length it records is there after a loss of power.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(f"opening {path}"):
            self._file = path.open("ab")
            sync_folder(path.parent)  # or a loss of power could take the log from under a checkpoint that stands

    def append(self, kind: str, *, epoch: int = 0, step: int = 0, values: Mapping[str, Any] | None = None) -> None:
        """Add one record, stamped with the time in seconds since 1970; NaN and infinities become null."""
        record = {
            "kind": kind,
            "epoch": epoch,
            "step": step,
            "time": round(time.time(), 3),
            "values": {name: _finite(value) for name, value in (values or {}).items()},
        }
        with disk_errors(f"writing {self.path}"):
            self._file.write((json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode())
            self._file.flush()

    def sync(self) -> int:
        """Force the log to disk and return its length in bytes."""
        with disk_errors(f"writing {self.path}"):
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._file.tell()

    def cut(self, length: int) -> None:
        """Shorten the log to `length` bytes: what a resumed run repeats would otherwise stand there twice."""
        self._file.flush()
        self._file.truncate(min(length, self.path.stat().st_size))  # never longer: that would fill it with zeros
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """All records of a log; a last line that was torn by a crash is left out.

    Raises:
        RunError: another line is damaged, which no crash does.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise RunError(
                    f"{path} is damaged in line {number}.", mend="Put the log back from a copy, or train again."
                ) from None
    return records


class RunFolder:
    """One run on disk.

    Args:
        path: the folder; it need not exist before `create` or the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.predictions = path / "predictions"
        self.evidence = path / "evidence"
        self.report = path / "report.html"
        self.log_path = path / "log.jsonl"

    @classmethod
    def create(cls, runs: Path, name: str, recipe_text: str) -> RunFolder:
        """Make a new folder `<date>-<name>-<hash of the recipe>` in `runs`; a second of one day gets a number."""
        digest = hashlib.sha256(recipe_text.encode()).hexdigest()[:8]
        stem = f"{time.strftime('%Y-%m-%d')}-{slug(name)}-{digest}"
        with disk_errors(f"making a run folder in {runs}"):
            runs.mkdir(parents=True, exist_ok=True)
            for number in range(1, 10_000):
                path = runs / (stem if number == 1 else f"{stem}-{number}")
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                run = cls(path)
                for part in (run.checkpoints, run.predictions, run.evidence):
                    part.mkdir()
                sync_folder(runs)
                return run
        raise RunError(f"{runs} already holds 10,000 runs named {stem}.", mend="Give this one another --name.")

    @property
    def name(self) -> str:
        """The name given by the user, without date and hash."""
        match = re.fullmatch(r"\d{4}-\d\d-\d\d-(.+)-[0-9a-f]{8}(-\d+)?", self.path.name)
        return match.group(1) if match else self.path.name

    @property
    def finished(self) -> bool:
        """Whether the run came to its end and still has its results and report."""
        return self.ended and self.has("results.json") and self.report.exists()

    @property
    def ended(self) -> bool:
        """Whether the log's last record says so: all predictions and results were written before it."""
        lines = self.log_path.read_bytes().splitlines() if self.log_path.exists() else []
        try:
            return json.loads(lines[-1])["kind"] == "finished"
        except (IndexError, ValueError, KeyError, TypeError):
            return False

    def refuse_unfinished(self) -> None:
        """Raise `RunError` where the run did not come to its end, so that what it holds may be a part."""
        if not self.ended:
            raise RunError(f"{self.path} is not finished.", mend=f"Carry it to its end: convsmith resume {self.path}")

    def has(self, name: str) -> bool:
        """Whether a record is there."""
        return (self.path / name).exists()

    def read_json(self, name: str) -> Any:
        """Read one JSON record of the run.

        Raises:
            RunError: it is missing or damaged.
        """
        path = self.path / name
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            mend = DAMAGED if self.ended else f"The run did not get that far: convsmith resume {self.path}"
            raise RunError(f"{self.path} has no {name}.", mend=mend) from None
        except (ValueError, OSError) as error:
            raise RunError(f"{path} cannot be read: {error}.", mend=DAMAGED) from error
        if not isinstance(value, dict):
            raise RunError(f"{path} holds a {type(value).__name__}, where an object was written.", mend=DAMAGED)
        return value

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON record of the run atomically."""
        write_atomically(self.path / name, dump_json(value))

    def read_text(self, name: str) -> str:
        """Read one text record of the run, such as `recipe.yaml`."""
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RunError(
                f"{self.path} has no {name}.", mend="It is not a run, or its start was cut off: train again."
            ) from None

    def read_recipe(self) -> Recipe:
        """What made the run, from `recipe.yaml`.

        Raises:
            RunError: it is missing or damaged.
        """
        from convsmith.recipe import Recipe  # it takes a tenth of a second, which a list of runs need not spend

        try:
            return Recipe.from_yaml(self.read_text("recipe.yaml"))
        except UsageError as error:
            raise RunError(f"{self.path / 'recipe.yaml'} is damaged: {error.message}", mend=DAMAGED) from error

    def write_text(self, name: str, text: str) -> None:
        """Write one text record of the run atomically."""
        write_atomically(self.path / name, text.encode())

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; another that holds it is named in the error."""
        path = self.path / "lock"
        with disk_errors(f"locking {self.path}"):
            file = path.open("a+")
        with file:
            if not _try_lock(file):
                file.seek(0)
                raise RunError(
                    f"{self.path} is in use by process {file.read().strip() or 'unknown'}.",
                    mend="Wait for it to end, or stop it; a lock goes with its process.",
                )
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def slug(name: str) -> str:
    """A name reduced to what is safe in a folder's name on every system."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:40] or "run"


def list_runs(runs: Path) -> list[RunFolder]:
    """All runs in a folder, oldest first; copying a run or rewriting its recipe does not make it younger."""
    if not runs.is_dir():
        return []
    found = [RunFolder(path) for path in runs.iterdir() if (path / "recipe.yaml").is_file()]
    return sorted(found, key=_age)


def _age(run: RunFolder) -> tuple[float, float]:
    """When a run was made, in seconds since 1970, by its manifest where that can be read; then by its recipe's file."""
    changed = (run.path / "recipe.yaml").stat().st_mtime
    try:
        return datetime.fromisoformat(run.read_json("manifest.json")["created"]).timestamp(), changed
    except (RunError, ValueError, KeyError, TypeError):
        return changed, changed


def find_run(text: str, runs: Path) -> RunFolder:
    """Find a run by path, name, unique prefix of either, or `last`.

    Raises:
        UsageError: none or several fit; the message lists them.
    """
    if (Path(text) / "recipe.yaml").is_file():
        return RunFolder(Path(text))
    known = list_runs(runs)
    if not known:
        raise UsageError(
            f"There are no runs in {runs.resolve()}.",
            mend="Make one: convsmith train digits, or say where they are with --runs DIR.",
        )
    if text == "last":
        return known[-1]
    for matches in (
        [run for run in known if text in {run.path.name, run.name}],
        [run for run in known if run.path.name.startswith(text) or run.name.startswith(text)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = ", ".join(run.path.name for run in matches[-5:])
            raise UsageError(
                f"{len(matches)} runs are called {text!r}.", mend=f"Type more of the folder's name: {names}."
            )
    close = suggestion(text, {name for run in known for name in (run.path.name, run.name)})
    latest = ", ".join(run.path.name for run in known[: -LISTED - 1 : -1])
    mend = close if close.startswith("Did") else f"The latest: {latest}. All of them: convsmith runs."
    raise UsageError(f"There is no run {text!r} in {runs}.", mend=mend)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _try_lock(file: Any) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
