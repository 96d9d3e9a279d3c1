"""Parts of records of runs that never were: figures, logs, plans and drawings, from a seed.

Numbers are drawn once from a seed and counted honestly: every figure follows from the confusion matrix, so that what
the page says can be checked against it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
RECALLS = (0.885, 0.987, 0.903, 0.936, 0.897, 0.984, 0.796, 0.973, 0.989, 0.967)
ALIKE = {0: (6, 3), 1: (3,), 2: (4, 6), 3: (0, 4), 4: (2, 6), 5: (7, 9), 6: (0, 2, 4), 7: (9, 5), 8: (6, 0), 9: (7, 5)}
HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '"><svg onload=alert(2)>',
    "line\nbreak\r\ttab",
    "\u202egnp.evil\u202c",
    "😀 é 漢字 ÅÄÖ",
    "A" * 300,
    "{{ 7*7 }}{% raw %}",
    "'; DROP TABLE runs; --",
    "\ud800 lone \x00 null",
    "&lt;b&gt; &amp;",
)


def proportion(right: int, n: int, reason: str = "no image of this class") -> dict[str, Any]:
    """An `Estimate` as JSON with Wilson's interval, by the textbook's formula."""
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0, "method": "none", "reason": reason, "level": 0.95}
    z, share = 1.959964, right / n
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    ends = ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n))
    return {
        "value": share,
        "low": max(ends[0], 0.0),
        "high": min(ends[1], 1.0),
        "n": n,
        "method": "Wilson score interval",
        "reason": "",
        "level": 0.95,
    }


def about(value: float, half: float, n: int) -> dict[str, Any]:
    """An `Estimate` as JSON, as a bootstrap would leave it."""
    method = "stratified bootstrap, 1,000 resamples, percentiles"
    return {
        "value": value,
        "low": max(value - half, 0.0),
        "high": value + half,
        "n": n,
        "method": method,
        "reason": "",
        "level": 0.95,
    }


def confusion(per_class: Sequence[int], recalls: Sequence[float], alike: Mapping[int, Sequence[int]]) -> np.ndarray:
    """Counts `[K, K]` in which the mistakes of a class go mostly to the classes it is like."""
    rng = np.random.default_rng(0)
    counts = np.zeros((len(per_class), len(per_class)), np.int64)
    for true, (n, recall) in enumerate(zip(per_class, recalls, strict=True)):
        counts[true, true] = round(n * recall)
        others = [k for k in range(len(per_class)) if k != true]
        weights = np.array(
            [8.0 / (1 + list(alike[true]).index(k)) if k in alike.get(true, ()) else 0.12 for k in others]
        )
        if others and n:
            counts[true, others] = rng.multinomial(n - counts[true, true], weights / weights.sum())
    return counts


def results(counts: np.ndarray, names: Sequence[str], ids: Sequence[str] = ()) -> dict[str, Any]:
    """One split of `results.json` from its confusion matrix."""
    n, classes = int(counts.sum()), len(names)
    right = int(np.trace(counts))
    accuracy = right / n
    per_class = []
    for k, name in enumerate(names):
        images, said, hit = int(counts[k].sum()), int(counts[:, k].sum()), int(counts[k, k])
        f1 = about(2 * hit / (images + said), 1 / math.sqrt(images), images) if images else proportion(0, 0)
        f1["high"] = min(f1["high"], 1.0) if images else None
        per_class.append(
            {
                "name": name,
                "n": images,
                "predicted": said,
                "recall": proportion(hit, images),
                "precision": proportion(hit, said, "never predicted"),
                "f1": f1,
            }
        )
    recalls = [row["recall"]["value"] for row in per_class if row["n"]]
    off = counts - np.diag(np.diag(counts))
    order = np.argsort(-off, axis=None, kind="stable")
    pairs = [divmod(int(place), classes) for place in order if off.flat[place] > 0][:40]
    most = int(counts.sum(1).argmax())
    baseline = proportion(int(counts.sum(1).max()), n)
    bins = np.linspace(0.1, 0.97, 10)
    weights = np.maximum(1, (n * np.linspace(0.002, 1, 10) ** 4 / 3)).astype(int)
    reliability = [
        {
            "confidence": float(c),
            "accuracy": proportion(round(w * max(0.0, min(1.0, accuracy - 0.93 + c - 0.03))), int(w)),
            "n": int(w),
        }
        for c, w in zip(bins, weights, strict=True)
    ]
    spread = 1.4 / math.sqrt(n)
    mistakes = [
        {
            "id": ids[i] if i < len(ids) else f"test/{1000 + 37 * i:05d}.png",
            "true": names[t],
            "predicted": names[p],
            "probability": 0.998 - 0.007 * i,
            "true_probability": 0.001 + 0.0007 * i,
            "loss": 6.9 - 0.09 * i,
        }
        for i, (t, p) in enumerate(pairs)
    ]
    metrics = {
        "accuracy": proportion(right, n),
        "balanced_accuracy": about(float(np.mean(recalls)), spread / 2, n),
        "macro_f1": about(float(np.mean([row["f1"]["value"] or 0 for row in per_class])), spread / 2, n),
        "log_loss": about(-math.log(accuracy) * 2.7, spread, n),
    }
    if classes >= 5:
        metrics["top_5"] = proportion(min(n, right + (n - right) * 19 // 20), n)
    metrics["ece"] = about(0.021, spread / 3, n)
    return {
        "n": n,
        "classes": list(names),
        "metrics": metrics,
        "per_class": per_class,
        "confusion": counts.tolist(),
        "reliability": reliability,
        "mistakes": mistakes,
        "baseline": {
            "class": names[most],
            "accuracy": baseline,
            "gain": about(accuracy - baseline["value"], spread, n),
        },
        "pairs": [
            {"true": names[t], "predicted": names[p], "count": int(off[t, p]), "share": off[t, p] / counts[t].sum()}
            for t, p in pairs[:20]
        ],
    }


def log(epochs: int, steps: int, final: float, *, tune: bool = True) -> list[dict[str, Any]]:
    """The events of a one-cycle run that ends with `final` accuracy."""
    rng, events, now = np.random.default_rng(1), [], 1_763_700_000.0
    events.append({"kind": "started", "epoch": 0, "step": 0, "time": now, "values": {}})
    for k in range(1, 4 * epochs + 1):
        progress, step = k / (4 * epochs), k * steps // 4
        rate = 0.4 * (progress / 0.25 if progress < 0.25 else (1 + math.cos(math.pi * (progress - 0.25) / 0.75)) / 2)
        loss = 0.62 + 1.1 * math.exp(-9 * progress) + 0.28 * (1 - progress) + float(rng.normal(0, 0.012))
        kind = "epoch" if k % 4 == 0 else "progress"
        values = {"loss": loss, "rate": rate, "images_per_second": 8900 + float(rng.normal(0, 120))}
        events.append({"kind": kind, "epoch": k // 4, "step": step, "time": now + 4 * k, "values": values})
        if tune and k % 8 == 0:
            accuracy = final - 0.09 * (1 - progress) ** 1.3 - abs(float(rng.normal(0, 0.008 * (1 - progress))))
            values = {"accuracy": accuracy, "log_loss": (1 - accuracy) * 2.8}
            events.append({"kind": "tune", "epoch": k // 4, "step": step, "time": now + 4 * k, "values": values})
    seconds = {"planning": 6.1, "training": 271.4, "evaluation": 12.3, "report": 0.6, "total": 292.8}
    events.append(
        {"kind": "finished", "epoch": epochs, "step": epochs * steps, "time": now + 300, "values": {"seconds": seconds}}
    )
    return events


def garment(kind: int, seed: int, side: int = 28) -> bytes:
    """A grey drawing of a garment as PNG; enough to tell a boot from a shirt."""
    rng = np.random.default_rng(seed)
    shade, image = int(rng.integers(120, 235)), Image.new("L", (112, 112))
    draw, w = ImageDraw.Draw(image), int(rng.integers(-6, 7))
    body = [(36 - w, 18), (76 + w, 18), (80 + w, 98), (32 - w, 98)]
    shapes = {
        0: [body, [(36, 18), (10, 34), (18, 50), (36, 42)], [(76, 18), (102, 34), (94, 50), (76, 42)]],
        1: [
            [(36, 8), (76, 8), (78, 40), (34, 40)],
            [(34, 40), (54, 40), (50, 106), (34, 106)],
            [(58, 40), (78, 40), (78, 106), (62, 106)],
        ],
        2: [body, [(36, 18), (14, 90), (28, 94), (40, 50)], [(76, 18), (98, 90), (84, 94), (72, 50)]],
        3: [[(44, 6), (68, 6), (66, 46), (86 + w, 106), (26 - w, 106), (46, 46)]],
        5: [[(8, 86), (104, 70), (106, 80), (10, 98)], [(60, 74), (84, 40), (92, 44), (76, 76)]],
        7: [[(6, 84), (40, 66), (64, 46), (100, 50), (106, 92), (8, 96)]],
        8: [[(16, 46), (96, 46), (102, 100), (10, 100)]],
        9: [[(60, 12), (96, 12), (104, 98), (8, 98), (10, 82), (60, 66)]],
    }
    shapes[4], shapes[6] = [*shapes[2], [(53, 18), (58, 18), (58, 98), (53, 98)]], shapes[2]
    for index, shape in enumerate(shapes[kind % 10]):
        draw.polygon(shape, fill=max(60, shade - 22 * index))
    if kind % 10 == 8:
        draw.arc((36, 20, 76, 72), 180, 360, fill=shade, width=5)
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float32)
    noisy = np.where(pixels > 0, pixels + rng.normal(0, 14, pixels.shape), 0)
    out = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def manifest(names: Sequence[str], counts: Mapping[str, Sequence[int]], source: str) -> dict[str, Any]:
    """`manifest.json` of such a run."""
    return {
        "schema": 1,
        "created": "2025-11-21T09:41:07+00:00",
        "convsmith": "0.1.0",
        "task": "classification",
        "versions": {"python": "3.11.2", "torch": "2.13.0", "numpy": "2.3.1", "pillow": "13.0.0"},
        "device": "cpu",
        "threads": 2,
        "memory_format": "channels_last",
        "instruction_set": "AVX512",
        "world_size": 1,
        "seed": 0,
        "command": ["convsmith", "train", source, "--budget", "5m"],
        "classes": list(names),
        "data": {
            "source": source,
            "fingerprint": "5f1c9a3b" * 8,
            "counts": {role: dict(zip(names, by_class, strict=True)) for role, by_class in counts.items()},
        },
        "transform": {"size": 28, "channels": 1, "fit": "crop", "mean": [0.286], "std": [0.353]},
        "model": {"name": "convnet", "parameters": 78_330, "description": "", "code_sha256": None},
    }


PLAN = {
    "choices": [
        {
            "name": "image.size",
            "value": 28,
            "reason": "All images are 28 px, and nothing is gained by scaling them.",
            "measured": {"median_side_px": 28},
            "given": False,
        },
        {
            "name": "model",
            "value": {"name": "convnet", "options": {"width": 16, "depth": 2}},
            "reason": "A small residual network suits images of 8 to 64 px.",
            "measured": {},
            "given": False,
        },
        {
            "name": "train.batch",
            "value": 256,
            "reason": "The largest of the fast ones that leaves at least 200 steps an epoch.",
            "measured": {"images_per_second": 8912.4, "steps_per_epoch": 215},
            "given": False,
        },
        {
            "name": "train.budget",
            "value": 300.0,
            "reason": "The wall clock of the whole command.",
            "measured": {},
            "given": True,
        },
        {
            "name": "train.epochs",
            "value": 28,
            "reason": "What fits into the budget, less a reserve for evaluation and report.",
            "measured": {"seconds_per_step": 0.0287, "reserve_seconds": 18.0},
            "given": False,
        },
        {
            "name": "train.optimizer",
            "value": {"name": "sgd", "options": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0005}},
            "reason": "SGD with Nesterov momentum ends higher than AdamW on nets of this kind.",
            "measured": {},
            "given": False,
        },
        {
            "name": "augment.preset",
            "value": "shift, flip",
            "reason": "Mirrored garments keep their class; digits and letters would not.",
            "measured": {},
            "given": False,
        },
        {
            "name": "train.precision",
            "value": "bfloat16",
            "reason": "This processor multiplies bfloat16 faster.",
            "measured": {"speed_against_float32": 1.84},
            "given": False,
        },
    ],
    "estimate": {
        "seconds": 296.0,
        "training_seconds": 272.0,
        "memory_bytes": 612_000_000,
        "steps": 6020,
        "images_per_second": 8912.4,
    },
}

RECIPE = {
    "train": {
        "epochs": 28,
        "batch": 256,
        "optimizer": {"name": "sgd", "options": {"momentum": 0.9}},
        "schedule": {"name": "one_cycle", "options": {"peak": 0.4}},
        "label_smoothing": 0.1,
        "average": 0.998,
        "precision": "bfloat16",
    },
    "augment": {"operations": [{"name": "flip", "options": {}}, {"name": "shift", "options": {"pixels": 1}}]},
}
RECIPE_TEXT = (
    "schema_version: 1\nseed: 0\ndata:\n  source: fashion-mnist\n  split_seed: 0\ntrain:\n  epochs: 28\n  batch: 256\n"
)


def audit(names: Sequence[str], roles: Mapping[str, Sequence[int]], side: int = 28) -> dict[str, Any]:
    """`audit.json` of such a run, with a few faults."""
    total = sum(sum(by_class) for by_class in roles.values())
    spread = {"min": side, "median": side, "max": side}
    return {
        "images": total,
        "classes": {name: sum(by_class[k] for by_class in roles.values()) for k, name in enumerate(names)},
        "roles": {role: dict(zip(names, by_class, strict=True)) for role, by_class in roles.items()},
        "sizes": {"width": spread, "height": spread},
        "channels": {"1": total, "3": 0},
        "unreadable": [],
        "skipped": [],
        "duplicates": [["train/01234", "train/40211"], ["train/00017", "test/00931"]],
        "notes": ["The tune images were carved from the training images: 5,000 of 60,000."],
    }
