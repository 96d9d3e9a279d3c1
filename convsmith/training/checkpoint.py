"""Checkpoints that survive a kill or a loss of power at any instant.

One is a folder `checkpoints/<step>/` with `weights.safetensors` (what will be used: averaged where that is on),
`state.pt` (raw weights and all the rest, plain values only) and `digest.json` (their SHA-256). Its order of writing:
the log to disk, a temporary folder, each file to disk, rename, the parent folder to disk, `last.json`, and only then
are older ones deleted. So whatever `last.json` names is whole, and where it is damaged later an older one is there. One
that is written a second time (a run that was stopped where it was resumed) is moved aside, not deleted, until the new
one stands.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from convsmith.errors import CheckpointError
from convsmith.run_folder import disk_errors, dump_json, rename, sync_folder, write_atomically, write_file

KEEP = 2
TEMPORARY = ".saving"
REPLACED = ".replaced"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files have the digests they were written with.

    Args:
        folder: where it lies.
        step: steps done.
        log_bytes: length of the run's log when it was made.
        damaged: newer ones that were passed over, each with the reason.
    """

    folder: Path
    step: int
    log_bytes: int
    damaged: tuple[str, ...] = ()

    def state(self) -> dict[str, Any]:
        """The loop's state, on the CPU. Only tensors and plain values are read: pickled code is refused."""
        path = self.folder / "state.pt"
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise CheckpointError(
                f"{path} is refused: {reason}.", mend="Only tensors and plain values are loaded."
            ) from None

    def load_weights(self, model: nn.Module) -> None:
        """Put the weights that will be used into a model of the same structure."""
        load_weights(model, self.folder / "weights.safetensors")


class Writer:
    """Writes checkpoints on a thread, at most one at a time; the loop goes on once the state is copied to memory.

    Args:
        folder: the run's `checkpoints` folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, state: Mapping[str, Any], weights: Mapping[str, Tensor], log_bytes: int) -> None:
        """Copy what is given and begin to write it; the error of the one before is raised here.

        Args:
            state: `Loop.state_dict()`.
            weights: the state dict of the weights that will be used.
            log_bytes: the length of the log, already forced to disk.
        """
        self.wait()
        # Waiting comes first, copying second: at most one copy of the state is in memory beside the live one.
        copies = copied(state), safetensors_ready(weights)
        self._thread = threading.Thread(target=self._write, args=(*copies, log_bytes), name="checkpoint", daemon=False)
        self._thread.start()

    def wait(self) -> None:
        """Return once nothing is being written; raise the error of the last write, if it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(
        self, state: Mapping[str, Any], weights: tuple[dict[str, Tensor], dict[str, str]], log_bytes: int
    ) -> None:
        try:
            with disk_errors(f"saving a checkpoint in {self.folder}"):
                write_checkpoint(self.folder, state, weights, log_bytes)
        except BaseException as error:
            self._error = error


def write_checkpoint(
    folder: Path, state: Mapping[str, Any], weights: tuple[dict[str, Tensor], dict[str, str]], log_bytes: int
) -> Path:
    """Write one checkpoint durably, then point `last.json` to it and delete those older than the last `KEEP`."""
    step = int(state["step"])
    makers = {"state.pt": lambda: _saved(state), "weights.safetensors": lambda: safetensors.torch.save(*weights)}
    digests: dict[str, str] = {}
    temporary, final, replaced = (folder / name for name in (f"{TEMPORARY}-{step}", str(step), f"{REPLACED}-{step}"))
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        for name, make in makers.items():  # one at a time: each is as large as the network
            data = make()
            digests[name] = hashlib.sha256(data).hexdigest()
            write_file(temporary / name, data)
            del data
        record = {"schema": 1, "step": step, "log_bytes": log_bytes, "sha256": digests}
        write_file(temporary / "digest.json", dump_json({**record, "record": _digest(record)}))
        sync_folder(temporary)
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            rename(final, replaced)
        rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder)
    write_atomically(folder.parent / "last.json", dump_json({"checkpoint": f"checkpoints/{step}", "step": step}))
    # A later step can only be a damaged one that was passed over, and what is hidden was left by a kill.
    earlier = [old for old, _ in _found(folder) if old < step]
    kept = {str(number) for number in (step, *earlier[-KEEP + 1 :])}
    for path in list(folder.iterdir()):
        if path.name not in kept and (path.name.isdigit() or path.name.startswith((TEMPORARY, REPLACED))):
            shutil.rmtree(path, ignore_errors=True)
    return final


def _saved(state: Mapping[str, Any]) -> memoryview:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def last_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run, or None where it has none yet.

    Args:
        folder: the run's `checkpoints` folder.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for step, path in reversed(_found(folder)):
        try:
            record = verify(path)
        except CheckpointError as error:
            damaged.append(error.message)
            continue
        return Checkpoint(path, step, int(record["log_bytes"]), tuple(damaged))
    if damaged:
        raise CheckpointError(
            f"No checkpoint in {folder} is whole: {' '.join(damaged)}",
            mend=f"Train again: convsmith train --recipe {folder.parent / 'recipe.yaml'}",
        )
    return None


def verify(path: Path) -> Mapping[str, Any]:
    """Compare a checkpoint's files with their recorded digests and return its `digest.json`."""
    try:
        record = json.loads((path / "digest.json").read_bytes())
        if record.pop("record") != _digest(record):
            raise CheckpointError(f"{path / 'digest.json'} is damaged: it does not match its own digest.")
        for name, expected in record["sha256"].items():
            found = hashlib.sha256((path / Path(name).name).read_bytes()).hexdigest()
            if found != expected:
                raise CheckpointError(f"{path / name} is damaged: SHA-256 {found[:12]}…, expected {expected[:12]}….")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from None
    return record


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file strictly into a model.

    Raises:
        CheckpointError: the file is damaged, or has other names or shapes than the model.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            aliases = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read: {str(error)[:200]}.") from None
    tensors.update({alias: tensors[name] for alias, name in aliases.items() if name in tensors})
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path} does not fit the network: {first}", mend="It was made by another recipe or code."
        ) from None


def safetensors_ready(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Contiguous copies on the CPU, and the names that share memory with another one as `{alias: name}`.

    safetensors refuses tensors that share memory or are not contiguous (so channels-last ones).
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in seen:
            aliases[name] = seen[key]
        else:
            seen[key] = name
            tensors[name] = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    return tensors, aliases


def copied(value: Any) -> Any:
    """A deep copy on the CPU of nested plain values and tensors, keeping memory formats."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copied(item) for item in value)
    return value


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(dump_json(record)).hexdigest()


def _found(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoints by step, the one to prefer last: a replaced one counts where a kill came between the two renames."""
    if not folder.is_dir():
        return []
    named = ((path.name.removeprefix(f"{REPLACED}-"), path) for path in folder.iterdir())
    found = [(int(name), not path.name.startswith(REPLACED), path) for name, path in named if name.isdigit()]
    return [(step, path) for step, _, path in sorted(found)]
