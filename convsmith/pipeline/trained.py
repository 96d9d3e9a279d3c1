"""A run's network, ready to answer: checked by digest, with the pixels and normalisation it was trained with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from convsmith.batches import Normalize
from convsmith.errors import ConvsmithError, DataError, RunError, UsageError
from convsmith.evaluation import commonest_class, divided, softmax
from convsmith.evidence import predict
from convsmith.images import Dataset, decode, evaluation_pixels
from convsmith.networks import describe_weights, find_weights, load_pretrained
from convsmith.pipeline.build import Code, ModelFunction, build_network, build_task, recorded_code
from convsmith.pipeline.finish import answer, with_temperature
from convsmith.pipeline.machine import choose_device
from convsmith.pipeline.messages import Listener, Message, silent
from convsmith.pipeline.origin import PUBLISHED, published
from convsmith.pipeline.preparing import declares_range, pixels, prepare, recorded_roles
from convsmith.recipe import Data, Recipe, settled
from convsmith.run_folder import DAMAGED, RunFolder, disk_errors
from convsmith.tasks import Task
from convsmith.training import last_checkpoint, untouched

LEARNT_FROM = ("train", "tune")


@dataclass(frozen=True)
class Trained:
    """A trained network and all that stands between a picture and its logits.

    Args:
        run: where it comes from; None for published weights that nobody trained here.
        recipe: what made it.
        model: with the weights that are used.
        task: what it does.
        normalize: from uint8 to what it takes.
        classes: names in the order of the logits.
        temperature: what logits are divided by before they become probabilities, fitted on the run's tune images; None
            for published weights and runs from before there were temperatures, whose logits stay as they are.
    """

    run: RunFolder | None
    recipe: Recipe
    model: nn.Module
    task: Task
    normalize: Normalize
    classes: tuple[str, ...]
    temperature: float | None = None

    def read(self, source: str | Path | bytes | Any) -> np.ndarray:
        """Decode a picture (a path, encoded bytes, a PIL image) by the rules the network was trained with."""
        return decode(source, pick=self.recipe.data.channels)

    def see(self, image: np.ndarray) -> np.ndarray:
        """A decoded picture `[H, W, C]` as the network sees it, uint8 `[C, size, size]`."""
        section = self.recipe.image
        seen = evaluation_pixels(
            image,
            size=settled(section.size),
            fit=settled(section.fit),
            channels=settled(section.channels),
            keep=settled(section.keep),
            range=settled(section.range),
        )
        return np.ascontiguousarray(seen.transpose(2, 0, 1))

    def logits(self, images: Sequence[np.ndarray], *, batch_size: int = 64) -> np.ndarray:
        """Logits float32 `[N, K]` for pictures that `see` returned, as the network gives them."""
        if not len(images):
            return np.zeros((0, len(self.classes)), np.float32)
        return predict(self.model, self.task, np.stack(images), prepare=self.normalize, batch_size=batch_size)["logits"]

    def probabilities(self, images: Sequence[np.ndarray], *, batch_size: int = 64) -> np.ndarray:
        """Probabilities float64 `[N, K]` for pictures that `see` returned; rows sum to 1."""
        return self.believed(self.logits(images, batch_size=batch_size))

    def believed(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities float64 `[N, K]` of logits `[N, K]` over the temperature; rows sum to 1."""
        return softmax(logits if self.temperature is None else divided(logits, self.temperature))


def load_trained(run: RunFolder, *, code: Code | ModelFunction | None = None, device: str = "auto") -> Trained:
    """Load the network of a run from its last whole checkpoint.

    Args:
        run: its folder.
        code: the user's own network, where the run has one; a file's hash must be the recorded one.
        device: where to put it.

    Raises:
        RunError: the run never came to a checkpoint, or its record of the temperature is broken.
        CheckpointError: no checkpoint is whole.
    """
    recipe = run.read_recipe()
    manifest = run.read_json("manifest.json")
    if not manifest.get("classes") or not isinstance(manifest["classes"], list):
        raise RunError(f"{run.path}/manifest.json names no classes.", mend=DAMAGED)
    checkpoint = last_checkpoint(run.checkpoints)
    if checkpoint is None:
        raise RunError(f"{run.path} has no checkpoint yet.", mend=f"Let it train first: convsmith resume {run.path}")
    classes = tuple(manifest["classes"])
    with untouched():
        model = build_network(recipe, len(classes), recorded_code(manifest, code))
    checkpoint.load_weights(model)
    normalize = Normalize(settled(recipe.image.mean), settled(recipe.image.std))
    model = model.to(choose_device(device)).eval()
    return Trained(run, recipe, model, build_task(recipe), normalize, classes, recorded_temperature(run))


def recorded_temperature(run: RunFolder) -> float | None:
    """The temperature that a run's logits are divided by; None for a run from before there were any.

    Raises:
        RunError: `calibration.json` states none.
    """
    if not run.has("calibration.json"):
        return None
    value = run.read_json("calibration.json").get("temperature")
    if not isinstance(value, float | int) or not 0 < value < math.inf:
        raise RunError(
            f"{run.path}/calibration.json states a temperature of {value!r}, which is no number above 0.",
            mend=f"Remove report.html from the run and make both again: convsmith resume {run.path}",
        )
    return float(value)


def load_published(name: str, weights: str = "auto", *, device: str = "auto") -> Trained:
    """A network with the weights that were published for it, and the images as these were made for: nothing is trained.

    Args:
        name: of a network of timm or torchvision.
        weights: `auto` (this machine's caches, then the hub), a file, or a folder.
        device: where to put it.

    Raises:
        UsageError: an unknown name, or one that nobody published weights for.
        DataError: the weights are not here and cannot be fetched, or belong to another network.
    """
    described = describe_weights(name) if published(name) else None
    if described is None:
        raise UsageError(
            f"{name!r} is a network that nobody has published weights for.",
            mend="Find one that has: convsmith models PATTERN.",
        )
    try:
        found = find_weights(name, weights)
    except ConvsmithError as error:  # whose mend may be to train without weights
        raise type(error)(error.message, mend="Give a file with --weights FILE.") from None
    image = {
        "size": described.input_size[-1], "channels": 3, "fit": described.fit, "keep": described.keep, "range": None,
        "mean": described.mean, "std": described.std,
    }  # fmt: skip
    recipe = Recipe.from_layers(
        {"model": name, "image": image, "weights": {"source": PUBLISHED, "sha256": found.sha256},
         "train": {"label_smoothing": 0.0}}
    )  # fmt: skip
    with untouched():
        model = load_pretrained(name, found, 3)
    classes = described.classes or tuple(f"class {index}" for index in range(described.outputs))
    normalize = Normalize(described.mean, described.std)
    return Trained(None, recipe, model.to(choose_device(device)).eval(), build_task(recipe), normalize, classes)


def evaluate_on(
    trained: Trained, source: str | Data, *, limit: int | None = None, tell: Listener = silent
) -> tuple[dict[str, Any], str]:
    """Measure a trained network on other labelled images and leave the records in `evaluations/<fingerprint>/`.

    An image that the run trained on, or chose by, would flatter it: such images are left out, and counted in a note
    and in the record. They are known by their files' bytes, so a renamed or copied file is found too, and one that was
    saved anew is not.

    Args:
        trained: the network.
        source: the images, or a recipe's section that names them; all their roles are used, and class names are
            matched by name.
        limit: how many images at the most; in a section it stands there.

    Returns:
        The record of one split, and the folder's name inside the run.

    Raises:
        DataError: a class is not among the network's, or the run has seen all the images.
    """
    run = trained.run
    if run is None:
        raise UsageError("Only a network of a run is measured.", mend="Train one: convsmith train DATA.")
    section = source if isinstance(source, Data) else Data(source=source, limit=limit)
    section, source = section.model_copy(update={"channels": trained.recipe.data.channels}), str(section.source)
    floats = declares_range(trained.recipe)
    dataset = prepare(section, tell, divide=False, floats=floats).dataset.with_classes(trained.classes)
    fresh, seen = unseen(dataset, recorded_roles(run))
    if not len(fresh):
        raise DataError(
            f"All {len(dataset):,} images of {source} were used to train or to choose, so they measure nothing.",
            mend=f"Name images it has not seen; for those it kept for its test: convsmith evaluate {run.path}",
        )
    if used := sum(seen.values()):
        tell(Message("note", f"{used:,} of {len(dataset):,} images were used to train or to choose and are left out."))
    answers = answer(
        trained.model, trained.task, dataset, fresh, pixels(dataset, trained.recipe.image, tell), trained.normalize,
        split="evaluation", majority=commonest_class(run.read_json("manifest.json")["data"]["counts"]),
    )  # fmt: skip
    if trained.temperature is not None:
        answers = with_temperature(answers, trained.temperature)
    result = trained.task.score(answers)
    name = f"evaluations/{dataset.fingerprint[:12]}"
    with disk_errors(f"writing {run.path / name}"):
        (run.path / name).mkdir(parents=True, exist_ok=True)
    answers.save(run.path / name / "predictions.npz")
    record = {"schema": 1, "task": trained.task.name, "source": source, "fingerprint": dataset.fingerprint}
    run.write_json(f"{name}/results.json", {**record, "seen": seen, "splits": {"evaluation": result}})
    return result, name


def unseen(dataset: Dataset, roles: Mapping[str, str]) -> tuple[np.ndarray, dict[str, int]]:
    """Which images a run never learnt from, int64 `[n]`, and how many of the others it trained on and chose by.

    Images in files are known by the SHA-256 of the file, those in memory by that of their pixels: a file under another
    name or label is found, but neither a file that was saved anew nor the same picture once in a file and once in
    memory.

    Args:
        dataset: audited, so that it has hashes.
        roles: the role that each content had in the run, by its SHA-256 in hex.
    """
    hashes = dataset.hashes if dataset.hashes is not None else ()
    played = [roles.get(digest.tobytes().hex(), "") for digest in hashes]
    fresh = np.array([index for index, role in enumerate(played) if role not in LEARNT_FROM], np.int64)
    return fresh, {role: played.count(role) for role in LEARNT_FROM}
