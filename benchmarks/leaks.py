"""Are photos that a script plants into validation found, and are strangers left in peace?

A folder of class folders is copied and split into `train` and `val`; one photo in twenty of train is planted into val,
each of the kinds in turn: copied, re-encoded, scaled, cropped by a tenth, mirrored, brightened. Then `open_source`,
`audit`, `near_duplicates` and `leaks` run on it, as for any user. Near duplicates that the source has by itself are
listed first, by the same search before anything is planted, and a pair that is named because of one of them is not a
stranger.

    python benchmarks/leaks.py ../photos [--seeds 5] [--share 0.05]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageOps

from convsmith.images import Dataset, audit, open_source
from convsmith.images.near import Near, leaks, near_duplicates

Change = Callable[[Image.Image, random.Random], Image.Image]


def scaled(picture: Image.Image, factor: float) -> Image.Image:
    """Scale by bicubic resampling."""
    size = (max(32, round(picture.width * factor)), max(32, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.BICUBIC)


def cropped(picture: Image.Image, side: float, across: float, down: float) -> Image.Image:
    """Cut out `side` of both sides; `across` and `down` say where, 0 to 1."""
    width, height = round(picture.width * side), round(picture.height * side)
    left, top = round((picture.width - width) * across), round((picture.height - height) * down)
    return picture.crop((left, top, left + width, top + height))


def at_a_corner(picture: Image.Image, side: float, draw: random.Random) -> Image.Image:
    """Cut out `side` of both sides at one of the four corners."""
    return cropped(picture, side, draw.choice((0, 1)), draw.choice((0, 1)))


def lit_otherwise(picture: Image.Image, draw: random.Random) -> Image.Image:
    """Change brightness and contrast by up to a fifth."""
    brighter = ImageEnhance.Brightness(picture).enhance(draw.uniform(0.8, 1.2))
    return ImageEnhance.Contrast(brighter).enhance(draw.uniform(0.8, 1.2))


# What is done to the photo, and the lowest and highest quality of the JPEG it is written as.
KINDS: dict[str, tuple[Change, tuple[int, int]]] = {
    "re-encoded": (lambda picture, draw: picture, (30, 95)),
    "half size": (lambda picture, draw: scaled(picture, 0.5), (30, 95)),
    "double size": (lambda picture, draw: scaled(picture, 2.0), (30, 95)),
    "a tenth of each side off, centred": (lambda picture, draw: cropped(picture, 0.9, 0.5, 0.5), (75, 95)),
    "a tenth of each side off, at a corner": (lambda picture, draw: at_a_corner(picture, 0.9, draw), (75, 95)),
    "a tenth of the area off, centred": (lambda picture, draw: cropped(picture, 0.9**0.5, 0.5, 0.5), (75, 95)),
    "a tenth of the area off, at a corner": (lambda picture, draw: at_a_corner(picture, 0.9**0.5, draw), (75, 95)),
    "mirrored": (lambda picture, draw: ImageOps.mirror(picture), (75, 95)),
    "mirrored and cropped": (lambda picture, draw: at_a_corner(ImageOps.mirror(picture), 0.9, draw), (75, 95)),
    "lit otherwise": (lit_otherwise, (75, 95)),
}
COPIED = "copied"


def photos_of(source: Path) -> list[Path]:
    """List the pictures of a source, whose last folder is their class, in whatever folders above."""
    return sorted(path for path in source.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})


def split_copy(photos: list[Path], root: Path, draw: random.Random) -> dict[Path, Path]:
    """Copy four fifths into `train` and one into `val`; the file of each photo."""
    files = {}
    for photo in photos:
        role = "val" if draw.random() < 0.2 else "train"
        files[photo] = root / role / photo.parent.name / f"{photo.parent.parent.name}-{photo.name}"
        files[photo].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, files[photo])
    return files


def plant(chosen: list[Path], root: Path, draw: random.Random) -> dict[str, tuple[str, str]]:
    """Write a changed copy of each file of `train` into `val`: planted id -> (id it came from, kind)."""
    planted = {}
    kinds = [COPIED, *KINDS]
    start = draw.randrange(len(kinds))
    for number, file in enumerate(chosen):
        kind = kinds[(start + number) % len(kinds)]
        target = root / "val" / file.parent.name / f"planted-{number:04d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        if kind == COPIED:
            shutil.copyfile(file, target)
        else:
            change, qualities = KINDS[kind]
            with Image.open(file) as picture:
                changed = change(ImageOps.exif_transpose(picture).convert("RGB"), draw)
            changed.save(target, quality=draw.randint(*qualities))
        planted[target.relative_to(root).as_posix()] = (file.relative_to(root).as_posix(), kind)
    return planted


def searched(root: Path) -> tuple[Dataset, Near, float]:
    """Read a folder as `convsmith data` does, and search it: the data, what was found, seconds of the search."""
    dataset, _ = audit(*open_source(root), memory=False)
    assert dataset.scan is not None
    started = time.perf_counter()
    near = near_duplicates(dataset.scan.sketches, dataset.contents)
    return dataset, near, time.perf_counter() - started


def alike_anyway(dataset: Dataset, near: Near) -> set[frozenset[str]]:
    """Pairs of ids that are the same or nearly so in the source itself."""
    assert dataset.contents is not None
    pairs = {frozenset((dataset.ids[i], dataset.ids[j])) for i, j in near.pairs.tolist()}
    first: dict[bytes, str] = {}
    for name, content in zip(dataset.ids, dataset.contents, strict=True):
        other = first.setdefault(content.tobytes(), name)
        if other != name:
            pairs.add(frozenset((other, name)))
    return pairs


def one_round(photos: list[Path], share: float, seed: int) -> dict[str, Any]:
    """Split, list what is alike anyway, plant, search, and count."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = split_copy(photos, root, draw)
        before, near, _ = searched(root)
        natural = alike_anyway(before, near)
        train = [file for file in files.values() if file.parent.parent.name == "train"]
        planted = plant(draw.sample(train, round(share * len(train))), root, draw)
        dataset, near, seconds = searched(root)
    origin = {name: planted[name][0] if name in planted else name for name in dataset.ids}
    leaked = leaks(dataset, near)
    found, strangers = Counter(), []
    asked = Counter(kind for _, kind in planted.values())
    reported = {(leak["second"], leak["first"]) for leak in leaked}
    for name, (came_from, kind) in planted.items():
        own = {other for second, other in reported if second == name}
        found[kind] += any(origin[str(other)] == came_from or _natural(natural, str(other), came_from) for other in own)
    named = {frozenset((dataset.ids[i], dataset.ids[j])) for i, j in near.pairs.tolist()}
    named |= {frozenset((str(leak["first"]), str(leak["second"]))) for leak in leaked}
    for pair in named:
        one, other = (origin[name] for name in pair)
        if one != other and not _natural(natural, one, other):
            strangers.append(sorted(pair))
    return {
        "seed": seed,
        "photos": len(photos),
        "planted": len(planted),
        "found": sum(found.values()),
        "kinds": {kind: {"planted": asked[kind], "found": found[kind]} for kind in asked},
        "natural": len(natural),
        "named": len(named),
        "strangers": len(strangers),
        "stranger_pairs": sorted(strangers),
        "search_seconds": round(seconds, 3),
    }


def _natural(pairs: set[frozenset[str]], one: str, other: str) -> bool:
    return frozenset((one, other)) in pairs


def summed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Recall by kind and in all, and the share of strangers, over all rounds."""
    kinds: dict[str, list[int]] = {}
    for row in rows:
        for kind, counts in row["kinds"].items():
            total = kinds.setdefault(kind, [0, 0])
            total[0] += counts["found"]
            total[1] += counts["planted"]
    planted, named = sum(row["planted"] for row in rows), sum(row["named"] for row in rows)
    return {
        "recall": sum(row["found"] for row in rows) / max(planted, 1),
        "planted": planted,
        "lowest_recall_of_a_seed": min(row["found"] / max(row["planted"], 1) for row in rows),
        "recall_by_kind": {kind: {"recall": f / n, "planted": n} for kind, (f, n) in sorted(kinds.items())},
        "strangers": sum(row["strangers"] for row in rows) / max(named, 1),
        "named": named,
        "median_search_seconds": statistics.median(row["search_seconds"] for row in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder with class folders somewhere below it")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/leaks.json"))
    arguments = parser.parse_args()
    photos = photos_of(arguments.source)
    rows = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        rows.append(one_round(photos, arguments.share, seed))
        row = rows[-1]
        print(
            f"seed {seed}: {row['found']} of {row['planted']} planted found, {row['strangers']} strangers among "
            f"{row['named']} pairs named, {row['natural']} alike anyway",
            flush=True,
        )
    total = summed(rows)
    for kind, counts in total["recall_by_kind"].items():
        print(f"  {kind:<40} {counts['recall']:.1%} of {counts['planted']}")
    print(f"found {total['recall']:.2%} of {total['planted']}, strangers {total['strangers']:.2%} of {total['named']}")
    record = {
        "question": f"planted leaks found and strangers named; share of train planted into val: {arguments.share}",
        **total,
        "source": arguments.source.name,
        "photos": len(photos),
        "cores": len(os.sched_getaffinity(0)),
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
