"""Does `convsmith data FOLDER` cost more than decoding the pictures, and what does a second call cost?

Photos of about 500 x 375 are made from those of a folder by crops, scales, mirrorings and colours drawn from a seed, so
that all differ, and written as JPEG of quality 85 into two class folders. Then, in turn, a bare Pillow decode of all of
them, with as many threads and with as many processes as there are cores (the faster of the two is the peer), and
`convsmith data FOLDER --quiet` with an empty `CONVSMITH_CACHE`, as a command. The figure is the median of the pairs'
ratios, bare decode / command; then the command once more, with the cache it has left. Beside these seconds of the clock
stand those of the processors, which other work on the machine disturbs less: `processor_ratio` is the bare decode in
threads, which has no start to pay, over the command. `reading_ratio` is the bare decode over the audit alone, from
`convsmith.images.audit` in a process that has loaded it and an empty cache: what more photos will cost.

Bare is bare: the photos' own list of paths, `Image.open`, `convert("RGB")`, `numpy.asarray`, and nothing kept. The
command's time includes its start, listing the folder, hashes, sketches, near duplicates and the contact sheets;
`start_seconds` is what `convsmith --version` takes, which both `ratio` and the seconds contain.

    python benchmarks/scan.py ../photos [--images 10000] [--pairs 5]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageOps

CORES = len(os.sched_getaffinity(0))


def make_photo(number: int, sources: list[Path], root: Path, seed: int) -> Path:
    """Write photo `number`: a drawn part of one of the sources, at a drawn size and light."""
    draw = random.Random(f"{seed} {number}")
    with Image.open(sources[number % len(sources)]) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    side = draw.uniform(0.45, 0.95)
    width, height = round(picture.width * side), round(picture.height * side)
    left, top = draw.randint(0, picture.width - width), draw.randint(0, picture.height - height)
    size = (round(500 * draw.uniform(0.9, 1.1)), round(375 * draw.uniform(0.9, 1.1)))
    picture = picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    if draw.random() < 0.5:
        picture = ImageOps.mirror(picture)
    picture = ImageEnhance.Color(picture).enhance(draw.uniform(0.6, 1.4))
    picture = ImageEnhance.Brightness(picture).enhance(draw.uniform(0.8, 1.2))
    target = root / ("even", "odd")[number % 2] / f"{number:06d}.jpg"
    picture.save(target, quality=85)
    return target


def decode_bare(path: Path) -> int:
    """Decode one file with Pillow and nothing else; its pixels."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).size


def bare_threads(paths: list[Path]) -> float:
    """Seconds to decode all, in as many threads as cores."""
    started = time.monotonic()
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(decode_bare, paths))
    return time.monotonic() - started


def bare_processes(paths: list[Path]) -> float:
    """Seconds to decode all, in as many processes as cores, which are started before the clock."""
    with ProcessPoolExecutor(CORES) as pool:
        list(pool.map(decode_bare, paths[:CORES]))
        started = time.monotonic()
        list(pool.map(decode_bare, paths, chunksize=16))
        return time.monotonic() - started


def command(arguments: list[str], cache: Path) -> float:
    """Seconds that a command of Convsmith takes with this cache."""
    started = time.monotonic()
    environment = {**os.environ, "CONVSMITH_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-m", "convsmith", *arguments], env=environment, capture_output=True, text=True, cwd=cache
    )
    if done.returncode:
        raise SystemExit(f"convsmith {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return time.monotonic() - started


READ = """
import sys, time
from convsmith.images import audit, open_source
found = open_source(sys.argv[1])
began = time.monotonic()
audit(*found)
print(time.monotonic() - began)
"""


def reading(folder: Path, cache: Path) -> float:
    """Seconds that the audit of all photos takes, readers' start included."""
    environment = {**os.environ, "CONVSMITH_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder)], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def processor_seconds() -> float:
    """Seconds that processors have worked for this process and for those it has waited for."""
    return sum(os.times()[:4])


def one_pair(paths: list[Path], folder: Path) -> dict[str, float]:
    """Time both bare decodes, the audit, the command on an empty cache, and the command again."""
    began = processor_seconds()
    row = {"threads": bare_threads(paths)}
    row["threads_processor"] = processor_seconds() - began
    row["processes"] = bare_processes(paths)
    with tempfile.TemporaryDirectory() as cache:
        began = processor_seconds()
        row["first"] = command(["data", str(folder), "--quiet"], Path(cache))
        row["first_processor"] = processor_seconds() - began
        row["second"] = command(["data", str(folder), "--quiet"], Path(cache))
    with tempfile.TemporaryDirectory() as cache:
        row["reading"] = reading(folder, Path(cache))
    return {name: round(seconds, 3) for name, seconds in row.items()}


def written(make: Callable[[int], Path], count: int, root: Path) -> list[Path]:
    """Make all photos, in processes."""
    for name in ("even", "odd"):
        (root / name).mkdir()
    with ProcessPoolExecutor(CORES) as pool:
        return list(pool.map(make, range(count), chunksize=16))


def judged(rows: list[dict[str, float]]) -> dict[str, Any]:
    """The medians, the ratio, and how much of it single pairs spread."""
    peer = "threads" if statistics.median(r["threads"] for r in rows) <= _median(rows, "processes") else "processes"
    return {
        "peer": peer,
        "ratio": statistics.median(row[peer] / row["first"] for row in rows),
        "reading_ratio": statistics.median(row[peer] / row["reading"] for row in rows),
        "processor_ratio": statistics.median(row["threads_processor"] / row["first_processor"] for row in rows),
        "lowest_ratio_of_a_pair": min(row[peer] / row["first"] for row in rows),
        "median_bare_seconds": _median(rows, peer),
        "median_first_seconds": _median(rows, "first"),
        "median_second_seconds": _median(rows, "second"),
        "median_reading_seconds": _median(rows, "reading"),
    }


def _median(rows: list[dict[str, float]], name: str) -> float:
    return statistics.median(row[name] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder with photos somewhere below it")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scan.json"))
    arguments = parser.parse_args()
    found = arguments.source.resolve().rglob("*")
    sources = sorted(path for path in found if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "photos"
        root.mkdir()
        make = partial(make_photo, sources=sources, root=root, seed=arguments.seed)
        paths = written(make, arguments.images, root)
        start = command(["--version"], Path(temporary))
        for number in range(arguments.pairs):
            rows.append(one_pair(paths, root))
            row = rows[-1]
            print(
                f"pair {number}: bare {row['threads']} s in threads, {row['processes']} s in processes; "
                f"convsmith data {row['first']} s, again {row['second']} s, the audit alone {row['reading']} s",
                flush=True,
            )
        size = sum(path.stat().st_size for path in paths)
    total = judged(rows)
    print(
        f"ratio {total['ratio']:.2f} to a bare decode in {total['peer']}, {total['processor_ratio']:.2f} of processor "
        f"time, the audit alone {total['reading_ratio']:.2f}; start-up {start:.2f} s"
    )
    record = {
        "question": f"convsmith data on {arguments.images:,} photos of about 500 x 375, against decoding them",
        **total,
        "images": arguments.images,
        "megabytes": round(size / 1e6, 1),
        "start_seconds": round(start, 3),
        "cores": CORES,
        "machine": platform.machine(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "rows": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
