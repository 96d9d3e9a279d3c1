"""`convsmith doctor`: what this machine has, what Convsmith will use of it, and what is missing."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import click

from convsmith.cli import options

Facts = dict[str, Any]
BROKEN = 6
"""Exit code where something without which nothing works is missing: a demand that was not met."""
SHOWN = ("torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "scikit-learn", "scipy")
IMPORTED = ("torch", "torchvision", "timm", "numpy", "PIL", "safetensors")
"""Those with compiled parts that can be at odds with each other, which shows only when they are loaded."""
ROOM = 2e9
"""Bytes of disk below which photos cached at 224 px, 150 kB each, and a few checkpoints become tight."""


@click.command()
@options.as_json
@options.common
def doctor(*, runs: Path, quiet: bool, as_json: bool) -> int | None:
    """Look at this machine: processor, memory, disk, versions, devices, caches, and what is missing.

    Exits with 6 where something is broken without which nothing works.
    """
    found = examine(runs)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        for line in lines(found):
            click.echo(line)
    if found["broken"]:
        return BROKEN
    options.hint("convsmith train digits", quiet=quiet)
    return None


def examine(runs: Path) -> Facts:
    """All that can be told about this machine, in plain types; nothing is written and no network is used.

    Args:
        runs: where runs would lie.
    """
    broken: list[dict[str, str]] = []
    missing: list[dict[str, str]] = []
    _check_packages(broken)
    found: Facts = {"machine": _machine(), "versions": _versions()}
    if "torch" not in {entry["what"] for entry in broken}:
        found["computing"] = _computing(broken, missing)
    found["pictures"] = _pictures(broken, missing)
    found["storage"] = _storage(runs, broken, missing)
    return {**found, "missing": missing, "broken": broken}


def lines(found: Mapping[str, Any]) -> list[str]:
    """The same as sentences, one for each line."""
    machine, versions = found["machine"], found["versions"]
    said = [
        f"Machine    {machine['processor']}, {machine['cores']} of {machine['cores_of_machine']} cores for us, "
        f"{_gb(machine['memory'])} memory ({_gb(machine['memory_free'])} free); {machine['system']}",
        "Versions   " + ", ".join(f"{name} {number or 'missing'}" for name, number in versions.items()),
    ]
    if "computing" in found:
        computing = found["computing"]
        said += [
            "Devices    " + ("; ".join(computing["devices"]) or "the processor alone"),
            f"Arithmetic {options.count(computing['threads'], 'thread')}, {computing['instruction_set']}, "
            f"bfloat16 {_told(computing['bfloat16'], 'in hardware', 'emulated and slow')}, "
            f"AMX {_told(computing['amx'], 'yes', 'no')}",
        ]
    pictures = found["pictures"]
    said.append(f"Pictures   {', '.join(pictures['formats'])}; JPEG by {pictures['jpeg_library'] or 'nothing'}")
    for place in found["storage"]:
        size = f"{_gb(place['bytes'])} used, " if place["bytes"] else ""
        said.append(f"Storage    {place['what']}: {place['path']} ({size}{_gb(place['free'])} free)")
    said += [f"Broken     {entry['what']}: {entry['problem']}. {entry['mend']}" for entry in found["broken"]]
    said += [f"Missing    {entry['what']}: {entry['problem']}. {entry['mend']}" for entry in found["missing"]]
    if not found["broken"]:
        said.append("All that is needed is here.")
    return said


def _machine() -> Facts:
    total, free = _memory()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cores_of_machine": os.cpu_count(),
        "memory": total,
        "memory_free": free,
    }


def _versions() -> Facts:
    return {"python": platform.python_version(), "convsmith": version("convsmith"), **{n: _version(n) for n in SHOWN}}


def _check_packages(broken: list[dict[str, str]]) -> None:
    """Compare what is installed with what Convsmith asks for, and load what may not load."""
    for requirement in requires("convsmith") or ():
        wanted = re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement)
        if wanted is None:  # an extra
            continue
        name, least = wanted[1], wanted[2]
        there = _version(name)
        if there is None:
            broken.append(_entry(name, "is not installed", f"pip install '{requirement}'"))
        elif _numbers(there) < _numbers(least):
            broken.append(_entry(name, f"{there} is older than {least}", f"pip install --upgrade '{requirement}'"))
    for module in IMPORTED:
        name = "pillow" if module == "PIL" else module
        if _version(name) is None:
            continue
        try:
            import_module(module)
        except (ImportError, RuntimeError, OSError, AttributeError) as error:  # torchvision made for another torch
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            broken.append(_entry(name, f"cannot be loaded ({first})", "Install torch and torchvision of one release."))


def _computing(broken: list[dict[str, str]], missing: list[dict[str, str]]) -> Facts:
    import torch

    ones = torch.ones(1, 2, 4, 4)
    if not torch.equal(torch.nn.functional.conv2d(ones, torch.ones(3, 2, 3, 3)), torch.full((1, 3, 2, 2), 18.0)):
        broken.append(_entry("torch", "gives wrong sums", "Install it again, or another release."))
    devices = [
        f"{torch.cuda.get_device_name(i)} ({_gb(torch.cuda.get_device_properties(i).total_memory)})"
        for i in range(torch.cuda.device_count())
    ]
    if torch.backends.mps.is_available():
        devices.append("Apple GPU (mps)")
    if not devices:
        card = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
        problem = (
            "there is a driver, but torch cannot use the card" if card else "none was found; the processor is used"
        )
        mend = "Install torch for CUDA." if card else "Small images train well without; photos take longer."
        missing.append(_entry("GPU", problem, mend))
    flags = _cpuinfo("flags").split()
    return {
        "devices": devices,
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": "avx512_bf16" in flags or "amx_bf16" in flags if flags else None,
        "amx": "amx_tile" in flags if flags else None,
        "cuda_of_torch": torch.version.cuda,
    }


def _pictures(broken: list[dict[str, str]], missing: list[dict[str, str]]) -> Facts:
    try:
        from PIL import features
    except ImportError:
        return {"formats": [], "jpeg_library": None}
    names = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "libtiff": "TIFF (compressed)", "avif": "AVIF"}
    formats = [shown for name, shown in names.items() if name in features.get_supported()]
    for needed in ("JPEG", "PNG"):
        if needed not in formats:
            broken.append(_entry("pillow", f"was built without {needed}", "pip install --force-reinstall pillow"))
    turbo = features.check_feature("libjpeg_turbo")
    library = "libjpeg-turbo" if turbo else "libjpeg"
    if "JPEG" in formats and not turbo:
        missing.append(
            _entry("libjpeg-turbo", "JPEG is decoded by a slower library", "pip install --force-reinstall pillow")
        )
    missing.append(
        _entry("HEIC", "photos of phones in this form are not read", "Convert them: `magick photo.heic photo.jpg`.")
    )
    number = features.version_feature("libjpeg_turbo") if turbo else features.version_codec("jpg")
    return {"formats": formats, "jpeg_library": f"{library} {number}" if "JPEG" in formats else None, "turbo": turbo}


def _storage(runs: Path, broken: list[dict[str, str]], missing: list[dict[str, str]]) -> list[Facts]:
    """Where runs and caches lie, how much they hold, and how much room there is."""
    places: dict[str, Callable[[], Path]] = {
        "runs": runs.resolve,
        "pixel cache": lambda: import_module("convsmith.images.places").cache_folder(),
        "weights of torch": lambda: import_module("convsmith.networks.published.pretrained").checkpoints_folder(),
        "weights of the hub": lambda: Path(import_module("huggingface_hub").constants.HF_HUB_CACHE),
    }
    found = []
    for what, where in places.items():
        try:
            path = where()
        except (ImportError, AttributeError):  # said above, among what is broken
            continue
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        free = shutil.disk_usage(there).free
        # Runs may be many and large, and are not ours to walk through.
        held = 0 if what == "runs" else _held(path)
        found.append({"what": what, "path": str(path), "bytes": held, "free": free})
        if what in {"runs", "pixel cache"} and not os.access(there, os.W_OK):
            mend = "Name another place with --runs." if what == "runs" else "Set CONVSMITH_CACHE to another folder."
            broken.append(_entry(what, f"{there} cannot be written to", mend))
        elif free < ROOM and what != "weights of torch":
            missing.append(_entry("room on the disk", f"{_gb(free)} are left at {there}", "Delete what is not needed."))
    return found


def _held(folder: Path) -> int:
    return sum(
        (Path(parent) / name).lstat().st_size
        for parent, _, names in os.walk(folder)
        for name in names
        if not (Path(parent) / name).is_symlink()
    )


def _memory() -> tuple[int | None, int | None]:
    """Bytes of memory, all and free; within a container its limit. None where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if sys.platform == "darwin" else None
        return total, None
    amounts = {key: int(value) * 1024 for key, value in re.findall(r"(MemTotal|MemAvailable):\s+(\d+) kB", text)}
    total, free = amounts.get("MemTotal"), amounts.get("MemAvailable")
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    if limit is not None and total is not None and limit < total:
        return limit, limit - used if used is not None else None
    return total, free


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cpuinfo(key: str) -> str:
    """The first value of a key of /proc/cpuinfo, empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])


def _entry(what: str, problem: str, mend: str) -> dict[str, str]:
    return {"what": what, "problem": problem, "mend": mend}


def _told(known: bool | None, yes: str, no: str) -> str:
    return "unknown" if known is None else yes if known else no


def _gb(number: int | None) -> str:
    if number is None:
        return "unknown"
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
