"""What a notebook types: `load_data`, `train`, `cross_validate`, `load_run`, and what they return."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from convsmith import pipeline
from convsmith.errors import RunError, UsageError
from convsmith.evaluation import Answers, is_cross_validation
from convsmith.evaluation.cross_validation import PREDICTIONS, runs_of
from convsmith.images import SOURCES, Dataset
from convsmith.pipeline import Code, Listener, Message, ModelFunction, Trained, silent
from convsmith.pipeline.given_model import read_model, recipe_keys
from convsmith.pipeline.inspecting import inspect as inspect
from convsmith.pipeline.linting import lint as lint
from convsmith.recipe import Data, Recipe, layer, load_layer
from convsmith.records import Estimate, Finding
from convsmith.reporting import write_report
from convsmith.run_folder import RunFolder, find_run, read_log

Picture = Any
"""A path, a PIL image, or an array uint8 `[H, W]` or `[H, W, C]`, C in {1, 3}; of a run on deeper images also uint16
or float32, with the values of the files."""


@dataclass(frozen=True, eq=False)
class LoadedDataset(Dataset):
    """What `load_data` returns: images that know how they were asked for, so that a run of them is made alike.

    Args:
        section: of the recipe.
    """

    section: Data = field(default_factory=Data)


def load_data(
    source: str | Path,
    *,
    images: str | Path | None = None,
    label: str | None = None,
    group: str | None = None,
    split: str | None = None,
    time: str | None = None,
    limit: int | None = None,
    split_seed: int = 0,
) -> Dataset:
    """Open, audit and divide labelled images; unreadable ones are left out, and near duplicates never part.

    Args:
        source: a named set such as `digits`, a folder of class folders, a folder of IDX files, or a CSV table.
        images: the folder that a table's paths are relative to.
        label, split: the table's columns; guessed by their names if not given.
        group: a column, `parent`, or a regular expression with one group, which keeps images together.
        time: a column, `exif`, or a regular expression with one group: the latest images are for test, not by class.
        limit: how many images to use, all classes alike; None is all.
        split_seed: of the division into train, tune and test.

    Raises:
        UsageError, DataError: there is no such source, or it cannot be used.

    Example:
        >>> load_data("digits").counts()["test"]["7"]
        27
    """
    section = Data(
        source=str(source), images=None if images is None else str(images), label=label, group=group, split=split,
        time=time, limit=limit, split_seed=split_seed,
    )  # fmt: skip
    found = pipeline.prepare(section, silent).dataset
    return LoadedDataset(**{each.name: getattr(found, each.name) for each in fields(found)}, section=section)


def train(
    data: str | Path | Dataset,
    *,
    model: str | ModelFunction = "auto",
    weights: str | Path | Run | None = "auto",
    epochs: int | None = None,
    budget: str | float | None = None,
    recipe: str | Recipe | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str | None = None,
    name: str | None = None,
    runs: str | Path = "runs",
    listener: Listener | None = None,
) -> Run:
    """Train a network and return its finished run.

    Args:
        data: a named set, a folder of labelled images, or what `load_data` returned for one of these.
        model: a name, `FILE.py:NAME`, a design's YAML file, a line of layers, a run whose network is to be trained
            anew, or a function `(in_channels, outputs) -> nn.Module`.
        weights: what it starts from: `auto` (published ones, where the images are photographs), a file, a folder, a run
            of yours, or None for nothing.
        epochs: passes over the training images; chosen for you if neither it nor a budget is given.
        budget: wall clock of the whole call: seconds, or `"5m"`.
        recipe: where to start from: a recipe, a named one, or a YAML file.
        overrides: dotted keys of the recipe and their values, such as `{"train.batch": 64}`.
        seed: of initialisation, order and augmentation.
        device: `cpu`, `cuda`, `mps`; by default whichever is there.
        name: what to call the run.
        runs: where its folder is made.
        listener: is told what happens, see `pipeline.Message`; by default progress is shown where a person looks on (a
            terminal or a notebook), and nothing elsewhere.

    Raises:
        ConvsmithError: whatever stands in the way, as its subclasses say.
    """
    started = monotonic()
    flags = {
        "name": name, "seed": seed, "train.epochs": epochs, "train.budget": budget, "train.device": device,
    }  # fmt: skip
    asked, code = _asked(data, model, weights, recipe, overrides, flags)
    with pipeline.Progress(quiet=False) as progress:
        tell = listener or (progress if _watched() else silent)
        folder = pipeline.train(asked, runs=Path(runs), code=code, tell=tell, started=started)
    return Run(folder, code=code)


def cross_validate(
    data: str | Path | Dataset,
    *,
    folds: int = 5,
    repeats: int = 1,
    model: str | ModelFunction = "auto",
    weights: str | Path | Run | None = "auto",
    epochs: int | None = None,
    budget: str | float | None = None,
    recipe: str | Recipe | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str | None = None,
    name: str | None = None,
    runs: str | Path = "runs",
    listener: Listener | None = None,
) -> CrossValidation:
    """Train `folds` times `repeats` networks, so that each image is named by some that have not learnt from it.

    A given test set stays aside, out of all folds. A cross-validation in `runs` that was asked for alike and cut short
    is taken up, and what is finished in it stays as it is.

    Args:
        folds: how many parts the images are divided into, by class; groups and near duplicates stay whole.
        repeats: how often they are divided anew.
        budget: wall clock of the whole call, shared by all runs: seconds, or `"5m"`.
        data, model, weights, epochs, recipe, overrides, seed, device, name, runs, listener: as in `train`.

    Raises:
        ConvsmithError: whatever stands in the way, as its subclasses say.
    """
    started = monotonic()
    flags = {
        "name": name, "seed": seed, "train.epochs": epochs, "train.budget": budget, "train.device": device,
        "data.folds": folds, "data.repeats": repeats if repeats != 1 else None,
    }  # fmt: skip
    asked, code = _asked(data, model, weights, recipe, overrides, flags)
    with pipeline.Progress(quiet=False) as progress:
        tell = listener or (progress if _watched() else silent)
        folder = pipeline.cross_validate(asked, runs=Path(runs), code=code, tell=tell, started=started)
    return _opened(folder, code)


def load_run(path: str | Path, *, code: str | Path | ModelFunction | None = None, runs: str | Path = "runs") -> Run:
    """Open a run by path, name, unique prefix, or `last`.

    Args:
        path: which run.
        code: the run's own network code, a file or the function, where it has one; a file's hash is checked.
        runs: where names are looked up.
    """
    given = Code(Path(code), "", {}) if isinstance(code, (str, Path)) else code
    folder = find_run(str(path), Path(runs))
    if is_cross_validation(folder):
        raise RunError(
            f"{folder.path} is a cross-validation, which has several runs.",
            mend="Open it with load_cross_validation, or one of its runs by its path.",
        )
    return Run(folder, code=given)


def load_cross_validation(
    path: str | Path, *, code: str | Path | ModelFunction | None = None, runs: str | Path = "runs"
) -> CrossValidation:
    """Open a finished cross-validation by path, name, unique prefix, or `last`; arguments as in `load_run`.

    Raises:
        RunError: it is an ordinary run, or not finished.
    """
    folder = find_run(str(path), Path(runs))
    if not is_cross_validation(folder):
        raise RunError(f"{folder.path} is a run and no cross-validation.", mend="Open it with load_run.")
    folder.refuse_unfinished()
    return _opened(folder, Code(Path(code), "", {}) if isinstance(code, (str, Path)) else code)


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """A finished cross-validation.

    Args:
        path: its folder, with `report.html` and `results.json`.
        runs: its runs, by repeat and then by fold; each tested on the images of its fold.
        results: the figures of all images together, each with its interval. Their networks share most of the images
            they learnt from, so the intervals tend to be too narrow; `results.json` says what they mean.
        out_of_fold: `ids`, `targets`, `logits` (float32 `[N, K]`), `temperature` (`[N]`, by which they are divided to
            give calibrated probabilities), `fold` and `repeat` of every answer, a row for each image in each repeat.
    """

    path: Path
    runs: tuple[Run, ...]
    results: Mapping[str, Estimate]
    out_of_fold: Mapping[str, np.ndarray]

    def __repr__(self) -> str:
        name, figure = next(iter(self.results.items()))
        return f"CrossValidation({str(self.path)!r}, {len(self.runs)} runs, {name} {figure})"


def _opened(folder: RunFolder, code: Code | ModelFunction | None) -> CrossValidation:
    figures = folder.read_json("results.json")["splits"]["test"]["metrics"]
    answers = Answers.load(folder.path / PREDICTIONS).arrays
    arrays = {"temperature": np.ones(len(answers["ids"])), **answers}  # of before there were temperatures
    return CrossValidation(
        folder.path,
        tuple(Run(run, code=code) for run in runs_of(folder)),
        {name: Estimate.from_json(values) for name, values in figures.items()},
        {name: arrays[name] for name in ("ids", "targets", "logits", "temperature", "fold", "repeat")},
    )


class Run:
    """A run on disk: what came out, and how to use it.

    Args:
        folder: where it lies.
        code: the user's own network code, where the run has one.
    """

    def __init__(self, folder: RunFolder, *, code: Code | ModelFunction | None = None) -> None:
        self.folder = folder
        self._code = code

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def recipe(self) -> Recipe:
        """What made it, without `auto`: training it again gives the same weights."""
        return Recipe.from_yaml(self.folder.read_text("recipe.yaml"))

    @property
    def results(self) -> dict[str, Estimate]:
        """The figures on the test images, by name, each with its interval."""
        splits = self.folder.read_json("results.json")["splits"]
        figures = (splits.get("test") or splits["tune"])["metrics"]
        return {name: Estimate.from_json(values) for name, values in figures.items()}

    @property
    def findings(self) -> list[Finding]:
        """What the diagnosis saw, the most pressing first."""
        return [Finding.from_json(values) for values in self.folder.read_json("findings.json")["findings"]]

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Figures over training: name to `(step, value)`, such as `loss`, `rate`, `accuracy` (of the tune images)."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for record in read_log(self.folder.log_path):
            for name, value in record["values"].items():
                if isinstance(value, (int, float)) and record["kind"] in {"progress", "epoch", "tune"}:
                    curves.setdefault(name, []).append((record["step"], value))
        return curves

    def classifier(self, *, device: str = "auto") -> Classifier:
        """The trained network, ready to name pictures."""
        return Classifier(pipeline.load_trained(self.folder, code=self._code, device=device))

    def evaluate(self, data: str | Path, *, limit: int | None = None) -> dict[str, Estimate]:
        """Measure the network on other labelled images; class names are matched by name.

        Images that it learnt from, or that chose something, are left out, which is said as a warning.
        """
        trained = pipeline.load_trained(self.folder, code=self._code)
        result, _ = pipeline.evaluate_on(trained, str(data), limit=limit, tell=_warn)
        return {name: Estimate.from_json(values) for name, values in result["metrics"].items()}

    def resume(self, *, data: str | Path | None = None) -> Run:
        """Go on where the last checkpoint stands, with the network code that this object was opened with.

        Args:
            data: where the images lie now, if they were moved.
        """
        with pipeline.Progress(quiet=False) as progress:
            tell = progress if _watched() else silent
            pipeline.resume(self.folder, code=self._code, tell=tell, data=str(data) if data else None)
        return self

    def report(self) -> Path:
        """Rebuild the report from the records and return its place."""
        self.folder.refuse_unfinished()
        return write_report(self.folder)

    def __repr__(self) -> str:
        try:
            name, figure = next(iter(self.results.items()))
        except RunError:
            return f"Run({str(self.path)!r}, not finished)"
        return f"Run({str(self.path)!r}, {name} {figure})"

    def _repr_html_(self) -> str:
        """In a notebook: the headline figures and where the report lies."""
        from markupsafe import escape

        if not self.folder.ended:
            return f"<p><b>{escape(self.path.name)}</b>, not finished</p>"
        rows = "".join(
            f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{escape(str(figure))}</td></tr>"
            for name, figure in self.results.items()
        )
        name, report = escape(self.path.name), escape(self.folder.report)
        return f"<p><b>{name}</b>, report: <code>{report}</code></p><table>{rows}</table>"


class Classifier:
    """A trained classifier with scikit-learn's habits.

    Args:
        trained: the network with its pixels and normalisation.
    """

    def __init__(self, trained: Trained) -> None:
        self._trained = trained

    @cached_property
    def classes_(self) -> np.ndarray:
        """Class names in the order of `predict_proba`'s columns, `[K]`."""
        return np.array(self._trained.classes)

    def predict(self, pictures: Sequence[Picture] | np.ndarray) -> np.ndarray:
        """The name of the likeliest class of each picture, `[N]`."""
        return self.classes_[self.predict_proba(pictures).argmax(axis=1)]

    def predict_proba(self, pictures: Sequence[Picture] | np.ndarray) -> np.ndarray:
        """Probabilities float64 `[N, K]`, by the temperature that the run fitted on its tune images; rows sum to 1.

        Args:
            pictures: paths, PIL images, or arrays as `Picture` says; decoded and resized as in training.

        Raises:
            DataError: one of them cannot be read.
        """
        if isinstance(pictures, (str, Path)):
            raise UsageError("predict takes a list of pictures.", mend=f"Write predict([{str(pictures)!r}]).")
        return self._trained.probabilities([self._trained.see(self._decoded(picture)) for picture in pictures])

    def _decoded(self, picture: Picture) -> np.ndarray:
        if not isinstance(picture, np.ndarray):
            return self._trained.read(picture)
        return _checked(picture, deep=self._trained.recipe.image.range is not None)


def _checked(picture: np.ndarray, *, deep: bool) -> np.ndarray:
    array = picture[..., None] if picture.ndim == 2 else picture
    kinds = ("uint8", "uint16", "float32") if deep else ("uint8",)
    if array.dtype.name not in kinds or array.ndim != 3 or array.shape[2] not in (1, 3):
        raise UsageError(
            f"A picture is {array.dtype} {list(picture.shape)}; expected {' or '.join(kinds)} [H, W] or [H, W, 1 or 3]."
        )
    return array


def _watched() -> bool:
    """Whether someone looks on: a terminal, or a notebook's kernel."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _warn(message: Message) -> None:
    """Notes that change what a figure means must not go unheard where nobody listens."""
    if message.kind == "note":
        warnings.warn(message.text, stacklevel=3)


def _asked(
    data: str | Path | Dataset,
    model: str | ModelFunction,
    weights: str | Path | Run | None,
    recipe: str | Recipe | None,
    overrides: Mapping[str, Any] | None,
    flags: Mapping[str, Any],
) -> tuple[Recipe, Code | ModelFunction | None]:
    """The recipe of a call (default < recipe < overrides < arguments), and the user's own code if any."""
    if flags["train.epochs"] is not None and flags["train.budget"] is not None:
        raise UsageError("epochs and budget both say how long to train.", mend="Give one of them.")
    base = recipe.model_dump() if isinstance(recipe, Recipe) else load_layer(recipe) if recipe else {}
    keys, code = _model(model)
    named = {**_images(data), **keys, **flags}
    given = {**(overrides or {}), **{key: value for key, value in named.items() if value is not None}}
    if weights != "auto":
        given["weights.source"] = _weights(weights)
    return Recipe.from_layers(base, layer(given)), code


def _images(data: str | Path | Dataset) -> dict[str, Any]:
    """Where the images come from, so that a run can be resumed: a data set must have come from somewhere, too."""
    source = data.source if isinstance(data, Dataset) else str(data)
    named = source in SOURCES
    if isinstance(data, Dataset) and not named and not Path(source).exists():
        raise UsageError(
            f"A data set named {source!r} comes from no folder and no named set, so its run could not be resumed.",
            mend="Save the pictures in class folders and give their path; or use Batches and Loop without a run.",
        )
    keys: dict[str, Any] = {
        "data.source": source if named or not Path(source).exists() else str(Path(source).resolve())
    }
    if isinstance(data, LoadedDataset):
        asked = data.section.model_dump(include={"images", "label", "group", "split", "time", "limit", "split_seed"})
        if asked["images"] is not None:
            asked["images"] = str(Path(asked["images"]).resolve())
        keys |= {f"data.{name}": value for name, value in asked.items()}
    if isinstance(data, Dataset):
        keys["data.fingerprint"] = data.fingerprint
    return keys


def _weights(weights: str | Path | Run | None) -> str | None:
    if weights in (None, "none"):
        return None
    path = weights.path if isinstance(weights, Run) else Path(str(weights))
    if not path.exists():
        raise UsageError(
            f"weights={weights!r}: there is no such file, folder or run.", mend="Give None to start fresh."
        )
    return str(path.resolve())


def _model(model: str | ModelFunction) -> tuple[dict[str, Any], Code | ModelFunction | None]:
    """What a recipe holds of a model, and the user's own code if it is that."""
    if not isinstance(model, str):
        return {"model": "own"}, model
    return ({}, None) if model == "auto" else recipe_keys(read_model(model))
