"""What the audit has read is remembered, so that a second look at ten thousand files costs their stat and no decode.

One small database per root lies in `cache_folder()/scans`. SQLite rather than one array file, because a row is added
without writing all others again, two audits at once cannot tear it, and a killed one leaves what it had finished; in
write-ahead mode, so that a reader never waits for a writer. A picture is known by its name below the real root, size,
time of change and of the inode's change, by `pick` and `floats`, the rules of decoding, the decoder, and the version of
the figures.
Every row carries a digest over all of that: a row that is damaged, or of older rules, is read again.

What is remembered saves time and decides nothing: `Dataset.read` holds every file against its hash.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from convsmith.images.decode import RULES, decoder
from convsmith.images.examine import VERSION, Seen
from convsmith.images.near import SKETCH
from convsmith.images.places import cache_folder

RACY = 2.0  # seconds; a file changed this shortly before may change again within the same tick of its clock
CAP = 2 * 2**30  # bytes of all memories together; the ones used longest ago go first
SPARE_ROWS = 10_000  # rows of files that are gone, or were left out by a limit, before they are cleared away
_WAIT = 30.0  # seconds for another process's transaction
_HEAD = struct.Struct("<3I32sffI")
_TABLE = (
    "CREATE TABLE IF NOT EXISTS seen (name BLOB, kind TEXT, size INTEGER, changed INTEGER, inode_changed INTEGER, "
    "what BLOB, digest BLOB, PRIMARY KEY (name, kind))"
)


@dataclass(frozen=True)
class Stamp:
    """By what a file is taken for unchanged: its size in bytes and its two times in nanoseconds."""

    size: int
    changed: int
    inode_changed: int


@dataclass(frozen=True)
class Refused:
    """Why a file could not be read, and the mend."""

    reason: str
    mend: str


class Memory:
    """The memory of one root, to be closed after use. Trouble with it is noted, and never raised.

    Args:
        root: the folder that names are relative to.
        pick, floats: as in `examine`; what was read otherwise is not recalled.
    """

    def __init__(self, root: Path, *, pick: tuple[int, ...] | None, floats: bool) -> None:
        self.notes: list[str] = []
        self._kind = f"{'-' if pick is None else ','.join(map(str, pick))} {int(floats)}"
        self._decoder = decoder()
        self._path = _place(root)
        self._began = time.time_ns()
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = self._open()
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def recall(self, names: Sequence[str], stamps: Sequence[Stamp | None]) -> dict[int, Seen | Refused]:
        """Find what is known.

        Args:
            names: relative paths.
            stamps: of each file as it is now; `None` where there is none.

        Returns:
            By index into `names`: what was seen, or why nothing was.
        """
        if self._connection is None:
            return {}
        index = {os.fsencode(name): i for i, name in enumerate(names)}
        found: dict[int, Seen | Refused] = {}
        strangers = 0
        try:
            query = "SELECT name, size, changed, inode_changed, what, digest FROM seen WHERE kind = ?"
            for name, size, changed, inode_changed, what, digest in self._connection.execute(query, (self._kind,)):
                i = index.get(name)
                strangers += i is None
                stamp = None if i is None else stamps[i]
                if i is None or stamp is None or stamp != Stamp(size, changed, inode_changed):
                    continue
                if digest == self._digest(name, stamp, what):
                    found[i] = _unpack(what)
            if strangers > len(names) + SPARE_ROWS:
                self._clear(index)
        except (sqlite3.Error, TypeError, AttributeError, struct.error, UnicodeDecodeError) as error:
            self._start_again(error)
        return found

    def remember(self, items: Iterable[tuple[str, Stamp, Seen | Refused]]) -> None:
        """Add what was read: (relative path, its stamp before it was read, what was seen)."""
        if self._connection is None:
            return
        rows = []
        for name, stamp, seen in items:
            if self._began - stamp.changed < RACY * 1e9:
                continue
            key, what = os.fsencode(name), _pack(seen)
            digest = self._digest(key, stamp, what)
            rows.append((key, self._kind, stamp.size, stamp.changed, stamp.inode_changed, what, digest))
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Let go of the database, and keep all memories together within `CAP`."""
        if self._connection is None:
            return
        self._connection.close()
        self._connection = None
        with suppress(OSError):  # another process clears at the same time, or the folder is read-only
            os.utime(self._path)
            kept = sorted(self._path.parent.glob("*.sqlite"), key=lambda path: path.stat().st_mtime, reverse=True)
            room = CAP
            for path in kept:
                room -= path.stat().st_size
                if room < 0 and path != self._path:
                    _remove(path)

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_WAIT)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            with connection:
                connection.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            connection.close()
            if isinstance(error, sqlite3.OperationalError):  # no permission, no space, locked: nothing to repair
                raise
            _remove(self._path)
            self.notes.append("The memory of earlier audits was damaged and has been begun anew.")
            return self._open()
        return connection

    def _start_again(self, error: Exception) -> None:
        """A memory that cannot be read is worth nothing: what follows is written into a new one."""
        if isinstance(error, sqlite3.OperationalError):
            self._give_up(error)
            return
        self._close_quietly()
        try:
            _remove(self._path)
            self._connection = self._open()
            self.notes.append("The memory of earlier audits was damaged and has been begun anew.")
        except (sqlite3.Error, OSError) as again:
            self._give_up(again)

    def _give_up(self, error: Exception) -> None:
        self._close_quietly()
        self.notes.append(f"What is read cannot be remembered in {self._path.parent} ({error}): every audit reads all.")

    def _close_quietly(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _clear(self, index: dict[bytes, int]) -> None:
        assert self._connection is not None
        names = [row for row in self._connection.execute("SELECT name, kind FROM seen") if row[0] not in index]
        with self._connection:
            self._connection.executemany("DELETE FROM seen WHERE name = ? AND kind = ?", names)

    def _digest(self, name: bytes, stamp: Stamp, what: bytes) -> bytes:
        head = f"{RULES} {VERSION} {SKETCH} {self._decoder} {self._kind} {stamp}\0".encode()
        return hashlib.blake2b(head + name + b"\0" + what, digest_size=16).digest()


def stamp_of(path: str | os.PathLike[str]) -> Stamp | None:
    """Stamp a file as it is now; `None` where it cannot be reached."""
    try:
        status = os.stat(path)  # noqa: PTH116 - names of undecodable bytes, by the hundred thousand
    except (OSError, ValueError):
        return None
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _place(root: Path) -> Path:
    real = os.fsencode(os.path.realpath(root))
    return cache_folder() / "scans" / f"{hashlib.sha256(real).hexdigest()[:32]}.sqlite"


def _remove(path: Path) -> None:
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        name.unlink(missing_ok=True)


def _pack(seen: Seen | Refused) -> bytes:
    if isinstance(seen, Refused):
        return b"-" + f"{seen.reason}\0{seen.mend}".encode("utf-8", "surrogateescape")
    return (
        b"+"
        + _HEAD.pack(*seen.shape, seen.content, seen.brightness, seen.sharpness, seen.forms)
        + seen.sketch
        + seen.pixels
    )


def _unpack(what: bytes) -> Seen | Refused:
    if what[:1] == b"-":
        reason, _, mend = what[1:].decode("utf-8", "surrogateescape").partition("\0")
        return Refused(reason, mend)
    height, width, channels, content, brightness, sharpness, forms = _HEAD.unpack_from(what, 1)
    sketch, pixels = what[1 + _HEAD.size :][:SKETCH], what[1 + _HEAD.size + SKETCH :]
    return Seen((height, width, channels), content, sketch, brightness, sharpness, forms, pixels)
