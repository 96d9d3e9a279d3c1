"""The first records of a run: what was asked, what was planned, of which images, on which machine."""

from __future__ import annotations

import hashlib
import inspect
import time
from typing import Any

from convsmith.images import Dataset
from convsmith.networks import MODELS, resolve
from convsmith.pipeline import machine
from convsmith.pipeline.build import OWN, Code, ModelFunction
from convsmith.pipeline.planner import Plan
from convsmith.pipeline.preparing import Prepared, split_csv
from convsmith.recipe import Recipe
from convsmith.run_folder import RunFolder, write_atomically


def start_run(
    run: RunFolder,
    given: Recipe,
    plan: Plan,
    prepared: Prepared,
    code: Code | ModelFunction | None,
    world: int,
    command: tuple[str, ...],
) -> None:
    """Write everything that is known before the first step. `recipe.yaml` comes last: with it, the folder is a run."""
    run.write_text("given.yaml", given.to_yaml())
    run.write_json("plan.json", plan.to_json())
    run.write_json("audit.json", prepared.audit)
    run.write_text("split.csv", split_csv(prepared.dataset))
    if isinstance(code, Code):
        write_atomically(run.path / "code.py", code.path.read_bytes())
    run.write_json("manifest.json", _manifest(plan, prepared.dataset, code, world, command))
    run.write_text("recipe.yaml", plan.recipe.to_yaml())


def _manifest(
    plan: Plan, dataset: Dataset, code: Code | ModelFunction | None, world: int, command: tuple[str, ...]
) -> dict[str, Any]:
    recipe = plan.recipe
    return {
        "schema": 1,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": list(command),
        **machine.describe(machine.choose_device(recipe.train.device), world),
        "precision": recipe.train.precision,
        "memory_format": recipe.train.memory_format,
        "seed": recipe.seed,
        "task": "classification",
        "classes": list(dataset.classes),
        "data": {"source": dataset.source, "fingerprint": dataset.fingerprint, "counts": dataset.counts()},
        "transform": recipe.image.model_dump(mode="json"),
        "weights": recipe.weights.model_dump(mode="json"),
        "model": {"parameters": plan.estimate["parameters"], **_model(recipe, code)},
    }


def _model(recipe: Recipe, code: Code | ModelFunction | None) -> dict[str, Any]:
    name = recipe.model.name if not isinstance(recipe.model, str) else recipe.model
    if recipe.network is not None:
        return {"name": name, "description": recipe.network.describe(), "code_sha256": None}
    if name != OWN:
        described = MODELS[name].summary if name in MODELS else str(resolve(name))
        return {"name": name, "description": described, "code_sha256": None}
    if isinstance(code, Code):
        held = {"name": code.name, "options": dict(code.options), "sha256": code.sha256}
        return {
            "name": OWN,
            "description": f"{code.name} in {code.path.name}",
            "code_sha256": code.sha256,
            "code": held,
        }
    described = getattr(code, "__qualname__", type(code).__name__)
    return {"name": OWN, "description": described, "code_sha256": _source_hash(code)}


def _source_hash(function: Any) -> str | None:
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):
        return None
