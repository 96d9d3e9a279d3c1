"""Convsmith: from a folder of images to a convolutional network that can be trusted.

    import convsmith

    run = convsmith.train("photos/", budget="5m")
    print(run.results["accuracy"])
    run.classifier().predict(["new.jpg"])

Names are loaded when they are first used, so that `import convsmith` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_PLACES = {
    "cross_validate": "convsmith.api",
    "inspect": "convsmith.api",
    "lint": "convsmith.api",
    "load_cross_validation": "convsmith.api",
    "load_data": "convsmith.api",
    "load_run": "convsmith.api",
    "train": "convsmith.api",
    "Classifier": "convsmith.api",
    "CrossValidation": "convsmith.api",
    "Run": "convsmith.api",
    "Dataset": "convsmith.images",
    "Recipe": "convsmith.recipe",
    "Estimate": "convsmith.records",
    "Finding": "convsmith.records",
    "ConvsmithError": "convsmith.errors",
}

__all__ = [
    "Classifier",
    "ConvsmithError",
    "CrossValidation",
    "Dataset",
    "Estimate",
    "Finding",
    "Recipe",
    "Run",
    "__version__",
    "cross_validate",
    "inspect",
    "lint",
    "load_cross_validation",
    "load_data",
    "load_run",
    "train",
]

if TYPE_CHECKING:
    from convsmith.api import (
        Classifier,
        CrossValidation,
        Run,
        cross_validate,
        inspect,
        lint,
        load_cross_validation,
        load_data,
        load_run,
        train,
    )
    from convsmith.errors import ConvsmithError
    from convsmith.images import Dataset
    from convsmith.recipe import Recipe
    from convsmith.records import Estimate, Finding


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'convsmith' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
