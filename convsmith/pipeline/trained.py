"""A run's network, ready to answer: checked by digest, with the pixels and normalisation it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
from torch import nn

from convsmith.batches import Normalize
from convsmith.errors import RunError
from convsmith.evaluation.metrics import log_softmax
from convsmith.evidence import predict
from convsmith.images import evaluation_pixels
from convsmith.pipeline.build import Code, ModelFunction, build_network, build_task, recorded_code
from convsmith.pipeline.finish import answer, save_arrays
from convsmith.pipeline.machine import choose_device
from convsmith.pipeline.messages import Listener, silent
from convsmith.pipeline.prepare import pixels, prepare
from convsmith.recipe import Data, Recipe, settled
from convsmith.run_folder import RunFolder
from convsmith.tasks import TASKS, Answers, Task
from convsmith.training import last_checkpoint, untouched


@dataclass(frozen=True)
class Trained:
    """A trained network and all that stands between a picture and its logits.

    Args:
        run: where it comes from.
        recipe: what made it.
        model: with the weights that are used.
        task: what it does.
        normalize: from uint8 to what it takes.
        classes: names in the order of the logits.
    """

    run: RunFolder
    recipe: Recipe
    model: nn.Module
    task: Task
    normalize: Normalize
    classes: tuple[str, ...]

    def see(self, image: np.ndarray) -> np.ndarray:
        """A decoded picture uint8 `[H, W, C]` as the network sees it, uint8 `[C, size, size]`."""
        section = self.recipe.image
        seen = evaluation_pixels(
            image, size=settled(section.size), fit=settled(section.fit), channels=settled(section.channels)
        )
        return np.ascontiguousarray(seen.transpose(2, 0, 1))

    def logits(self, images: Sequence[np.ndarray], *, batch_size: int = 64) -> np.ndarray:
        """Logits float32 `[N, K]` for pictures that `see` returned."""
        if not len(images):
            return np.zeros((0, len(self.classes)), np.float32)
        return predict(self.model, self.task, np.stack(images), prepare=self.normalize, batch_size=batch_size)["logits"]

    def probabilities(self, images: Sequence[np.ndarray], *, batch_size: int = 64) -> np.ndarray:
        """Probabilities float64 `[N, K]` for pictures that `see` returned; rows sum to 1."""
        return np.exp(log_softmax(self.logits(images, batch_size=batch_size)))


def load_trained(run: RunFolder, *, code: Code | ModelFunction | None = None, device: str = "auto") -> Trained:
    """Load the network of a run from its last whole checkpoint.

    Args:
        run: its folder.
        code: the user's own network, where the run has one; a file's hash must be the recorded one.
        device: where to put it.

    Raises:
        RunError: the run never came to a checkpoint.
        CheckpointError: no checkpoint is whole.
    """
    recipe = Recipe.from_yaml(run.read_text("recipe.yaml"))
    manifest = run.read_json("manifest.json")
    checkpoint = last_checkpoint(run.checkpoints)
    if checkpoint is None:
        raise RunError(f"{run.path} has no checkpoint yet.", mend=f"Let it train first: convsmith resume {run.path}")
    classes = tuple(manifest["classes"])
    with untouched():
        model = build_network(recipe, len(classes), recorded_code(manifest, code))
    checkpoint.load_weights(model)
    normalize = Normalize(settled(recipe.image.mean), settled(recipe.image.std))
    return Trained(run, recipe, model.to(choose_device(device)).eval(), build_task(recipe), normalize, classes)


def evaluate_on(
    trained: Trained, source: str, *, limit: int | None = None, tell: Listener = silent
) -> tuple[dict[str, Any], str]:
    """Measure a trained network on other labelled images and leave the records in `evaluations/<fingerprint>/`.

    Args:
        trained: the network.
        source: the images; all their roles are used, and class names are matched by name.
        limit: how many images at the most.

    Returns:
        The record of one split, and the folder's name inside the run.

    Raises:
        DataError: a class is not among the network's.
    """
    dataset = prepare(Data(source=source, limit=limit), tell, divide=False).dataset.with_classes(trained.classes)
    images = pixels(dataset, trained.recipe.image, tell)
    majority = _majority(trained.run.read_json("manifest.json"))
    answers = answer(
        trained.model, trained.task, dataset, np.arange(len(dataset)), images, trained.normalize,
        split="evaluation", majority=majority,
    )  # fmt: skip
    result = trained.task.score(answers)
    name = f"evaluations/{dataset.fingerprint[:12]}"
    (trained.run.path / name).mkdir(parents=True, exist_ok=True)
    save_arrays(trained.run.path / name / "predictions.npz", answers)
    record = {"schema": 1, "task": trained.task.name, "source": source, "fingerprint": dataset.fingerprint}
    trained.run.write_json(f"{name}/results.json", {**record, "splits": {"evaluation": result}})
    return result, name


def rescore(run: RunFolder) -> dict[str, Any]:
    """Compute a run's results anew from its recorded predictions; no network runs."""
    manifest = run.read_json("manifest.json")
    task: Task = TASKS.build(manifest["task"])
    majority = _majority(manifest)
    splits = {}
    for split in ("train", "tune", "test"):
        path = run.predictions / f"{split}.npz"
        if path.exists():
            splits[split] = task.score(_load_answers(path, split, majority))
    if not splits:
        raise RunError(f"{run.path} has no predictions yet.", mend=f"Finish it: convsmith resume {run.path}")
    results = {"schema": 1, "task": manifest["task"], "splits": splits}
    run.write_json("results.json", results)
    return results


def _load_answers(path: Any, split: str, majority: int | None) -> Answers:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise RunError(f"{path} cannot be read: {error}.") from None
    classes = tuple(str(name) for name in arrays.pop("classes"))
    arrays.pop("split")
    return Answers(arrays, classes, split, majority)


def _majority(manifest: Mapping[str, Any]) -> int | None:
    counts = manifest["data"]["counts"].get("train", {})
    return manifest["classes"].index(max(counts, key=counts.get)) if counts else None
