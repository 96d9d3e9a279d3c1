"""Sample records of what stands beside the figures: probe, learning curve, slices, cells, maps and an odd audit."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from sample_records import about, garment, proportion

from convsmith.reporting import DataRecord


def probe(test: Mapping[str, Any]) -> dict[str, Any]:
    """`probe.json` of a probe that is right for about four points fewer, on the same images."""
    right = sum(row[k] for k, row in enumerate(test["confusion"]))
    below = round(test["n"] * 0.04)
    accuracy = proportion(right - below, test["n"])
    gain = {**about(below / test["n"], 0.006, test["n"]), "low": 0.034, "high": 0.046}
    return {
        "schema": 1, "says": "a linear classifier on frozen features of the same network",
        "model": "tf_efficientnet_lite0",
        "weights": "tf_efficientnet_lite0.timm.safetensors", "features": 1280, "decay": 0.01,
        "views": ["image", "mirror"], "seconds": {"features": 12.4, "head": 1.7},
        "tune": {"n": test["n"] // 2, "accuracy": proportion(right // 2, test["n"] // 2)},
        "test": {"n": test["n"], "accuracy": accuracy, "log_loss": about(0.4, 0.05, test["n"])}, "gain": gain,
        "stages": stages(accuracy, test["n"]),
    }  # fmt: skip


def stages(last: Mapping[str, Any], n: int) -> list[dict[str, Any]]:
    """A probe's `stages`, of which the last one is the probe itself."""
    shares = (0.61, 0.703, 0.788, 0.871, last["value"])
    made = []
    names = ("stem", "stride-4", "stride-8", "stride-16", "stride-32")
    for k, (name, share) in enumerate(zip(names, shares, strict=True)):
        rise = share - shares[k - 1]
        gain = about(rise, 0.006, n) | {"low": rise - 0.006, "high": rise + 0.006} if k else None
        shape = {"name": name, "stride": 2 << k, "features": (16, 24, 40, 112, 1280)[k]}
        figures = {"accuracy": proportion(round(share * n), n), "log_loss": about(1.5 - share, 0.05, n)}
        made.append({**shape, "images": 55_000 if k == 4 else 10_000, **figures, "gain": gain})
    return made


def learning_curve() -> dict[str, Any]:
    """`learning_curve.json` that still rises."""
    points = [
        {"share": share, "images": round(55_000 * share), "accuracy": proportion(right, 10_000)}
        for share, right in ((0.125, 8_710), (0.25, 8_902), (0.5, 9_105), (0.75, 9_238), (1.0, 9_313))
    ]
    says = "Accuracy still rises: from half of the images to all it gained 2.1 points, between 1.3 and 2.9."
    return {
        "schema": 1,
        "method": "A linear probe on nested parts of the training images",
        "points": points,
        "says": says,
        "rising": True,
    }


def slices(n: int) -> list[dict[str, Any]]:
    """Four kinds of image, the darkest surely weaker."""
    made = []
    shares = (
        ("brightness", "darkest third", 0.84),
        ("brightness", "middle third by brightness", 0.938),
        ("sharpness", "least sharp third", 0.928),
    )
    for by, name, share in (*shares, ("size", "smallest third", 0.931)):
        here = n // 6
        difference = about(0.0, 0.0, here) | {
            "value": share - 0.935,
            "low": share - 0.935 - 0.022,
            "high": share - 0.935 + 0.021,
        }
        rest = proportion(round(0.935 * (n - here)), n - here)
        item = {"by": by, "name": name, "n": here, "accuracy": proportion(round(share * here), here)}
        made.append(item | {"rest": rest, "difference": difference})
    return made


def without_leaks(test: Mapping[str, Any], left_out: int) -> dict[str, Any]:
    """The accuracy without the leaked images, all of which were right."""
    right = sum(row[k] for k, row in enumerate(test["confusion"])) - left_out
    return {
        "n": test["n"] - left_out,
        "left_out": left_out,
        "accuracy": proportion(right, test["n"] - left_out),
    }


def cells_of(counts: Sequence[Sequence[int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """`evidence/cells.json`: the fullest wrong cells with up to six ids each."""
    wrong = [(n, t, p) for t, row in enumerate(counts) for p, n in enumerate(row) if t != p and n]
    return [
        {"true": names[t], "predicted": names[p], "n": n, "ids": [f"cell/{t}-{p}-{k}.png" for k in range(min(n, 6))]}
        for n, t, p in sorted(wrong, reverse=True)[:8]
    ]


def pictures_of(cells: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, bytes]:
    """A drawing for each image of the cells but the last of each, which has only a name."""
    return {
        name: garment(names.index(cell["true"]), 300 + k + 10 * row)
        for row, cell in enumerate(cells)
        for k, name in enumerate(cell["ids"][:5])
    }


def heat(seed: int, side: int = 112) -> bytes:
    """A picture such as Grad-CAM leaves: warm where it looked."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    cx, cy = rng.uniform(0.3, 0.7, 2)
    warm = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.05)
    pixels = np.stack([255 * warm, 120 * warm, 90 * (1 - warm)], axis=-1).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def maps_of(
    wrong: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """`evidence/maps.json` and the pictures it names."""
    maps = [
        {key: item[key] for key in ("id", "true", "predicted", "probability")} | {"file": f"maps/{k:04d}.png"}
        for k, item in enumerate((*wrong, *right), start=1)
    ]
    record = {"method": "Grad-CAM", "source": "Selvaraju et al. 2017", "layer": "stages.2.blocks.1", "maps": maps}
    return record, {item["file"]: heat(k) for k, item in enumerate(maps)}


def odd_audit(audit: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """An audit in which everything that can be odd is odd."""
    near = [
        {"first": "train/03311", "second": "train/20115", "likeness": 0.93, "mirrored": False, "labels_differ": False},
        {"first": "train/00512", "second": "train/41002", "likeness": 0.91, "mirrored": True, "labels_differ": True},
    ]
    leaks = [
        {"first": "train/00017", "first_role": "train", "second": "test/00931", "second_role": "test"}
        | {"kind": "same", "likeness": 1.0},
        {"first": "train/08800", "first_role": "train", "second": "test/05120", "second_role": "test"}
        | {"kind": "mirrored", "likeness": 0.96},
    ]
    forms = {
        "exif-turned": {"n": 12, "rule": "Turned as the camera says.", "paths": [f"train/{k:05d}" for k in range(12)]},
        "animated": {"n": 1, "rule": "Only the first picture of an animation is read.", "paths": ["train/77.gif"]},
    }
    suspected = {"rule": "parent", "groups": 120, "images": 3_600, "largest": 44, "example": ["d1/a", "d1/b"]}
    return {
        **audit,
        "unreadable": [
            {"path": "train/broken.jpg", "reason": "The file ends in the middle of the picture."},
            {"path": "train/page.jpg", "reason": "It is a web page, not a picture."},
        ],
        "skipped": [{"path": "train/.DS_Store", "reason": "A file of the system."}],
        "label_conflicts": [["train/00099", "train/30099"]],
        "near_duplicates": near,
        "leaks": leaks,
        "forms": forms,
        "groups": None,
        "suspected_groups": [
            suspected | {"says": "The sub-folders of 3,600 images look like 120 groups, such as d1 with 44 images."}
        ],
        "split": {"says": "The test images are the ones the source names; tune was carved from train", "seed": 0},
        "remembered": 70_000,
        "classes": {**audit["classes"], names[0]: 300},
    }


def pictures_of_pairs(audit: Mapping[str, Any]) -> dict[str, bytes]:
    """The same drawing for both images of each pair."""
    pairs = [*audit["near_duplicates"], *audit["leaks"]]
    return {pair[end]: garment(k, 500 + k) for k, pair in enumerate(pairs) for end in ("first", "second")}


def hostile_audit(names: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
    """Every new part of an audit, in names that would break a careless page."""
    near = {"first": ids[0], "second": ids[1], "likeness": 0.9, "mirrored": True}
    leak = {"first": ids[2], "first_role": names[0], "second": ids[3], "second_role": "test", "kind": names[1]}
    group = {"rule": names[7], "groups": 3, "images": 9, "largest": 4, "example": list(ids[:5]), "says": names[0]}
    return {
        "near_duplicates": [near | {"labels_differ": False}, near | {"labels_differ": True}],
        "leaks": [leak | {"likeness": None}],
        "label_conflicts": [list(ids[:3])],
        "forms": {names[0]: {"n": 3, "rule": names[1], "paths": list(names)}},
        "suspected_groups": [group],
        "groups": None,
        "split": {"says": names[0] + names[3], "seed": 0},
    }


def data_record(audit: Mapping[str, Any], names: Sequence[str], ids: Sequence[str] = ()) -> DataRecord:
    """What `convsmith data` found, with sheets of samples and of augmentation."""
    samples = [
        {"id": f"{name}/{k}.jpg", "class": name, "picture": garment(row, 700 + 10 * row + k, 96)}
        for row, name in enumerate(names)
        for k in range(6)
    ]
    augmented = [
        {
            "id": ids[row] if ids else f"{name}/0.jpg",
            "class": name,
            "original": garment(row, 700 + 10 * row, 96),
            "versions": [
                {
                    "picture": garment(row, 900 + k, 96),
                    "parameters": ids[k]
                    if ids
                    else f"flip {'yes' if k % 2 else 'no'}, turned {3 * k - 5}°, "
                    f"crop 0.{70 + 5 * k} of the area, brightness +0.{k}1",
                }
                for k in range(4)
            ],
        }
        for row, name in enumerate(names[:4])
    ]
    source = names[0] if ids else "photos/"
    return DataRecord(
        source=source,
        made="2025-11-21",
        audit=audit,
        thumbnails=pictures_of_pairs(audit),
        samples=samples,
        augmented=augmented,
        seen="Pictures become 224 px squares: the shorter side is scaled, the middle is cut out",
        symmetry="Left and right may be swapped; nothing is turned upside down",
        next_command=f"convsmith train {source}",
        snapshot="Since the run 2025-11-20-photos-12ab90: 12 images more, 3 fewer",
    )
