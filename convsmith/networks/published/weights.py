"""Weights: where they are found, and how a file of them is read without running anything that it may hold."""

from __future__ import annotations

import argparse
import errno
import hashlib
import pickle
import shutil
import struct
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse
from warnings import catch_warnings, simplefilter

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from convsmith.errors import DataError, ResourceError, UsageError
from convsmith.networks.published.catalogue import resolve
from convsmith.networks.published.pretrained import (
    OLDER_HUB_FILE,
    UNSTATED,
    Pretrained,
    cached_file,
    checkpoints_folder,
    describe_weights,
)

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
FOREIGN = ".npz"
"""Form of some weights that were never published for PyTorch."""
REACH = 5.0
"""Seconds until a hub counts as out of reach; the hub's own client would try again for half a minute."""
STALL = 30.0
"""Seconds without a byte after which a download has failed."""
HEADER_LIMIT = 100_000_000
"""Bytes of a safetensors header; the format's own library has the same limit."""
NESTED = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model", "model_state_dict")
"""Where training scripts keep the weights in what they save, averaged ones first."""
WRAPPED = ("_orig_mod.", "module.")
"""What compiling and distributing put before each name."""
MENDS = "Give a file with --weights FILE, or train from scratch with --weights none."


@dataclass(frozen=True)
class Found:
    """A file of weights.

    Args:
        path: where it lies.
        sha256: of the whole file, in hexadecimal.
        origin: where it is from, in words.
        licence: as published for these weights, or "not stated".
    """

    path: Path
    sha256: str
    origin: str
    licence: str


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights held.

    Args:
        tensors: by name, on the CPU.
        notes: sentences about what was taken out of it, or off the names.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def find_weights(name: str, wanted: str = "auto", *, expected_sha256: str | None = None) -> Found:
    """Find the weights of a network.

    Args:
        name: as `catalogue.resolve` takes it.
        wanted: `auto` for the published ones, from this machine's caches or else from the hub, whose checksum must
            hold; or a file; or a folder that has a file whose name begins with the network's.
        expected_sha256: what the file's hash must be, as a run recorded it; `None` accepts any.

    Raises:
        UsageError: an unknown network, nothing published for it, no such file, or another than expected.
        DataError: they cannot be fetched, or are not what was published.
    """
    found = _found(name, wanted)
    if expected_sha256 is not None and found.sha256 != expected_sha256:
        raise UsageError(
            f"{found.path} is another file than before: its SHA-256 begins with {found.sha256[:12]}, "
            f"but {expected_sha256[:12]} was expected.",
            mend="Give the file that the run was made with: --weights FILE.",
        )
    return found


def _found(name: str, wanted: str) -> Found:
    found = resolve(name)
    published = describe_weights(name, classes=False)
    licence = published.licence if published else UNSTATED
    if wanted != "auto":
        path = Path(wanted).expanduser()
        if path.is_dir():
            path = _only(path, found.name)
        return Found(path.resolve(), sha256_of(path), "a file that was given", licence)
    if published is None or (published.hub_id is None and str(published.url).endswith(FOREIGN)):
        raise UsageError(f"No pretrained weights of {found} are published.", mend=MENDS)
    path = cached_file(published)
    origin = "this machine's cache"
    if path is None:
        path = fetch(published)
        origin = "the Hugging Face hub" if published.hub_id else "the library's own server"
    sha256 = sha256_of(path)
    expected = _expected(published, path)
    if not sha256.startswith(expected):
        raise DataError(
            f"{path} is damaged: its SHA-256 begins with {sha256[:12]}, but {expected[:12]} was published.",
            mend="Delete it, and it will be fetched again; or give a file with --weights FILE.",
        )
    place = f"{published.hub_id}" if published.hub_id else Path(urlparse(published.url or "").path).name
    return Found(path, sha256, f"{place}, from {origin}", licence)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        UsageError: there is no such file, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"The weights {path} cannot be read: {error.strerror}.", mend=MENDS) from None


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; see `read_checkpoint`."""
    return read_checkpoint(path).tensors


def read_checkpoint(path: Path) -> Checkpoint:
    """Read tensors from a file: safetensors where its header says so, else what `torch.save` wrote, tensors only.

    The name's ending is not believed. No more memory is taken than the file's size gives cause for, and nothing that a
    pickle names is called.

    Raises:
        UsageError: there is no such file.
        DataError: it is damaged, or holds something else than tensors.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UsageError(f"The weights {path} cannot be read: {error.strerror}.", mend=MENDS) from None
    if size == 0:
        raise DataError(f"The weights {path} are an empty file.", mend="Fetch the file again.")
    if start[:2] == b"PK" or start[:1] == b"\x80":
        held = _unpickled(path, size)
    elif start[8:9] == b"{" or path.suffix == ".safetensors":
        held = _safetensors(path, size, start)
    else:
        raise DataError(
            f"{path.name} is neither a safetensors file nor one that torch.save wrote.",
            mend=f"Give the weights as one of {', '.join(SUFFIXES)}.",
        )
    return _tensors(path, held, size)


def _safetensors(path: Path, size: int, start: bytes) -> Mapping[str, Tensor]:
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else size
    if length > min(size - 8, HEADER_LIMIT):
        raise DataError(
            f"{path.name} is damaged, or no safetensors file: its header would be longer than its {size:,} bytes.",
            mend="Fetch the file again, or give another with --weights FILE.",
        )
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, ValueError, KeyError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path.name} is damaged or cut short: {error}.", mend="Fetch the file again.") from None


def _unpickled(path: Path, size: int) -> object:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            held = sum(item.file_size for item in archive.infolist())
        if held > size:  # torch.save stores without compression; what would grow is not its work
            raise DataError(f"{path.name} has {size:,} bytes and would unpack to {held:,}; it is refused.")
    try:
        # Training scripts keep their options beside the weights as this class, which holds values and does nothing.
        # It is given the file, not its name, whose ending it would believe.
        with torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as file, catch_warnings():
            simplefilter("ignore")  # of what it does not know in a pickle: what cannot be read is an error
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = _code_named(path)
        raise DataError(
            f"{path.name} is refused: it holds more than tensors{named}, and reading it would run code.",
            mend="Save it again with `torch.save(model.state_dict(), FILE)`, or as safetensors.",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError, OSError) as error:
        raise DataError(
            f"{path.name} is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}.",
            mend="Fetch the file again.",
        ) from None


def _code_named(path: Path) -> str:
    """What a pickle would call, in words; empty where that cannot be told (it is only looked for in newer files)."""
    if not zipfile.is_zipfile(path):
        return ""
    try:
        with path.open("rb") as file:
            named = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError):
        return ""
    return f" ({', '.join(sorted(named)[:3])})" if named else ""


def _tensors(path: Path, held: object, size: int) -> Checkpoint:
    notes = []
    for _ in range(2):  # a checkpoint in a checkpoint
        key = next((key for key in NESTED if isinstance(held, dict) and isinstance(held.get(key), dict)), None)
        if key is not None and isinstance(held, dict):
            held = held[key]
            notes.append(f"{path.name} holds more than weights; those under {key!r} are used.")
    if not isinstance(held, Mapping) or not held:
        raise DataError(
            f"{path.name} holds no weights by name, but {type(held).__name__}.",
            mend="Save them with `torch.save(model.state_dict(), FILE)`.",
        )
    tensors: dict[str, Tensor] = {}
    for key, value in held.items():
        if not isinstance(value, Tensor):
            raise DataError(
                f"{path.name} holds {type(value).__name__} under {key!r} where a tensor was expected.",
                mend=f"Keep the weights under one of {', '.join(NESTED[:5])}, or save them alone.",
            )
        if value.numel() * value.element_size() > size:
            raise DataError(f"{path.name} has {size:,} bytes, but {key!r} would take more; it is refused.")
        tensors[str(key)] = value
    prefix = ""
    while mark := next((mark for mark in WRAPPED if all(key.startswith(prefix + mark) for key in tensors)), None):
        prefix += mark
    if prefix:
        notes.append(f"{prefix!r} was taken off each name in {path.name}.")
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return Checkpoint(tensors, tuple(notes))


def in_folder(folder: Path, name: str) -> list[Path]:
    """The files of weights in `folder` that are named after a network; the safetensors form alone where it is there."""
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    fitting = [path for path in files if _begins(path.name, name)]
    fitting = fitting or [path for path in files if _begins(path.name, name.partition(".")[0])]
    return [path for path in fitting if path.suffix == ".safetensors"] or fitting


def _only(folder: Path, name: str) -> Path:
    """The one file of weights in `folder` that is named after a network."""
    fitting = in_folder(folder, name)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        listed = ", ".join(path.name for path in fitting[:5])
        raise UsageError(f"{folder} has several weights of {name}: {listed}.", mend="Name one: --weights FILE.")
    others = sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES)
    listed = f"its weights are {', '.join(others[:5])}" if others else "it has no weights at all"
    raise UsageError(
        f"{folder} has no weights of {name}; {listed}.",
        mend=f"Call the file {name}.safetensors (or {', '.join(SUFFIXES[1:])}), or name it: --weights FILE.",
    )


def _begins(file: str, architecture: str) -> bool:
    """Whether a file's name begins with an architecture's: `resnet18-x.pth` does with resnet18, `resnet18d.pth` not."""
    rest = file.removeprefix(architecture)
    return rest != file and not rest[:1].isalnum()


def _expected(published: Pretrained, path: Path) -> str:
    """The hash, or its beginning, that a published file must have; the hub's cache names files by theirs."""
    if path.parent == checkpoints_folder():
        return published.sha256
    blob = path.resolve().name
    return blob if len(blob) == 64 and set(blob) <= set("0123456789abcdef") else ""


def fetch(published: Pretrained) -> Path:
    """Fetch published weights into the cache where the library itself would look for them.

    Raises:
        DataError: within seconds where the server cannot be reached; or what came is not what was published.
        ResourceError: the disk is full.
    """
    if published.hub_id is not None:
        from huggingface_hub import hf_hub_url

        repository, _, revision = published.hub_id.partition("@")
        _reach(published, hf_hub_url(repository, published.hub_file, revision=revision or None))
        return _from_hub(published, repository, revision or None)
    address = published.url or ""
    _reach(published, address)
    return _download(published, address)


def _reach(published: Pretrained, address: str) -> None:
    """Raise within seconds where a server cannot be reached; any answer, a refusal too, is an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=REACH):
            return
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or reason
        raise DataError(
            f"The weights of {published.name} are not on this machine, and their server cannot be reached ({reason}).",
            mend=MENDS,
        ) from None


def _from_hub(published: Pretrained, repository: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    def fetched(file: str) -> Path:
        return Path(hf_hub_download(repository, file, revision=revision, etag_timeout=REACH))

    try:
        try:
            return fetched(published.hub_file)
        except EntryNotFoundError:
            return fetched(OLDER_HUB_FILE)
    except OSError as error:  # all of the hub's errors are; a full disk is one, too
        if error.errno == 28:
            raise ResourceError(
                f"The disk is full: {error}.", mend="Make room, or set HF_HOME to another disk."
            ) from None
        said = str(error).strip().splitlines()
        raise DataError(
            f"The weights of {published.name} could not be fetched from {repository}: {said[0] if said else error!r}",
            mend=MENDS,
        ) from error


def _refuse_full_disk(error: OSError) -> None:
    if error.errno == errno.ENOSPC:
        raise ResourceError(
            f"The disk is full: {error}.", mend="Make room, or set TORCH_HOME and HF_HOME to another disk."
        ) from error


def _download(published: Pretrained, address: str) -> Path:
    """Fetch a file beside its place, check it, and put it there; nothing half fetched is ever found."""
    target = checkpoints_folder() / Path(urlparse(address).path).name
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(address, timeout=STALL) as answer, part.open("xb") as file:
            shutil.copyfileobj(answer, file, 1 << 20)
        sha256 = sha256_of(part)
        if not sha256.startswith(published.sha256):
            raise DataError(
                f"What came for {published.name} is not what was published: its SHA-256 begins with {sha256[:12]}.",
                mend="Try again, or give a file with --weights FILE.",
            )
        part.replace(target)
    except OSError as error:
        _refuse_full_disk(error)
        raise DataError(f"The weights of {published.name} could not be fetched: {error}.", mend=MENDS) from error
    finally:
        part.unlink(missing_ok=True)
    return target
