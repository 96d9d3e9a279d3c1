"""Predictions made up for the tests."""

import numpy as np

from convsmith.evaluation import Answers, Predictions


def predictions(n=300, classes=5, skill=2.0, seed=0, **changes):
    rng = np.random.default_rng(seed)
    targets = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), targets] += skill
    values = {
        "ids": [f"folder/{i:05d}.png" for i in range(n)],
        "targets": targets,
        "logits": logits,
        "pixels": rng.integers(256, size=(n, 32), dtype=np.uint8),
        "classes": tuple(f"class {i}" for i in range(classes)),
        "split": "test",
    }
    return Predictions(**{**values, **changes})


def answers(right, **changes):
    """Predictions that are right where they should be."""
    n = len(right)
    targets = np.arange(n) % 3
    called = np.where(right, targets, (targets + 1) % 3)
    return predictions(n=n, classes=3, targets=targets, logits=np.eye(3, dtype=np.float32)[called] * 4, **changes)


def saved(made, path, groups=None):
    arrays = {name: getattr(made, name) for name in ("ids", "targets", "logits", "pixels")}
    Answers(arrays, made.classes, made.split, groups=groups).save(path)
