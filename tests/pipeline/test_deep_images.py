"""Images beyond 8 bits and of several pages, from the folder to the answer: one range, one rule, the same pixels."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tuned import train

from convsmith import Classifier, pipeline
from convsmith.errors import DataError
from convsmith.images import evaluation_pixels, pixel_hash
from convsmith.pipeline import Trained
from convsmith.recipe import Recipe
from convsmith.run_folder import RunFolder

SIDE = 12
SMALL: dict[str, Any] = {
    "model": {"name": "convnet", "options": {"width": 8, "stages": 2}}, "weights.source": None,
    "train.epochs": 1, "train.batch": 8, "train.precision": "float32", "train.memory_format": "contiguous",
}  # fmt: skip


def recipe(source: Path, **changes: Any) -> Recipe:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return Recipe().updated({"data.source": str(source), **SMALL, **given})


def deep(generator: np.random.Generator, low: int, high: int) -> Image.Image:
    """16-bit grey whose values run from `low` to `high`."""
    return Image.fromarray(generator.integers(low, high, (SIDE, SIDE)).astype(np.uint16))


def floating(generator: np.random.Generator, low: float, high: float) -> Image.Image:
    return Image.fromarray(generator.uniform(low, high, (SIDE, SIDE)).astype(np.float32))


def write(
    root: Path, make: Any, *, each: int, suffix: str, spans: dict[str, tuple[float, float]], seed: int = 0
) -> Path:
    """`root/<class>/<number><suffix>`, each made with the span of its class."""
    generator = np.random.default_rng(seed)
    for name, span in spans.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            make(generator, *span).save(root / name / f"{i:03d}{suffix}")
    return root


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16-bit scans up to 2,000, but for those of the stated test set, which go to 60,000."""
    root = tmp_path_factory.mktemp("scans") / "scans"
    write(root / "train", deep, each=20, suffix=".png", spans={"dim": (100, 900), "lit": (800, 2000)})
    write(root / "test", deep, each=8, suffix=".png", spans={"dim": (100, 900), "lit": (20_000, 60_000)}, seed=1)
    return root


@pytest.fixture(scope="module")
def scanned(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe(scans), tmp_path_factory.mktemp("scanned") / "runs")


def hashes(path: Path) -> dict[str, bytes]:
    with np.load(path) as arrays:
        return {str(name): row.tobytes() for name, row in zip(arrays["ids"], arrays["pixels"], strict=True)}


def seen(model: Trained, path: Path) -> bytes:
    return pixel_hash(model.see(model.read(path)).transpose(1, 2, 0))


def test_the_range_of_16_bits_is_that_of_the_training_images_and_is_kept(scanned: Path, scans: Path):
    rows = csv.DictReader((scanned / "split.csv").read_text().splitlines())
    training = [scans / row["id"] for row in rows if row["role"] == "train"]
    values = np.concatenate([np.asarray(Image.open(path)).ravel() for path in training])
    expected = np.quantile(values, [0.001, 0.999], method="inverted_cdf")
    settled = Recipe.from_yaml((scanned / "recipe.yaml").read_text()).image
    assert settled.range == pytest.approx(tuple(expected), abs=2)
    assert settled.range[1] < 2000  # type: ignore[index, operator]
    choices = RunFolder(scanned).read_json("plan.json")["choices"]
    (said,) = [choice for choice in choices if choice["name"] == "image.range"]
    assert "percentiles" in said["reason"]
    assert RunFolder(scanned).read_json("manifest.json")["transform"]["range"] == list(settled.range)  # type: ignore[arg-type]


def test_training_evaluation_and_prediction_see_the_same_pixels_of_16_bits(scanned: Path, scans: Path, tmp_path: Path):
    model = pipeline.load_trained(RunFolder(scanned))
    trained_on = hashes(scanned / "predictions" / "test.npz")
    assert {name: seen(model, scans / name) for name in trained_on} == trained_on
    low, high = model.recipe.image.range  # type: ignore[misc]
    name = next(name for name in trained_on if "/dim/" in name)
    values = np.asarray(Image.open(scans / name)).astype(np.float64)
    by_hand = np.clip(np.round(255 * (values - low) / (high - low)), 0, 255).astype(np.uint8)  # type: ignore[operator]
    assert np.array_equal(model.see(model.read(scans / name))[0], by_hand)

    spans: dict[str, tuple[float, float]] = {"dim": (100, 900), "lit": (800, 2000)}
    fresh = write(tmp_path / "fresh", deep, each=3, suffix=".tif", spans=spans, seed=7)
    _, place = pipeline.evaluate_on(model, str(fresh))
    measured = hashes(scanned / place / "predictions.npz")
    assert len(measured) == 6
    assert {name: seen(model, fresh / name) for name in measured} == measured


def test_a_classifier_takes_16_bits_as_files_pictures_and_arrays(scanned: Path, scans: Path):
    classifier = Classifier(pipeline.load_trained(RunFolder(scanned)))
    paths = sorted((scans / "train").rglob("*.png"))[::6]
    arrays = [np.asarray(Image.open(path)) for path in paths]
    assert arrays[0].dtype == np.uint16
    expected = classifier.predict_proba(paths)
    for given in ([Image.open(path) for path in paths], arrays, [array[..., None] for array in arrays]):
        assert np.array_equal(classifier.predict_proba(given), expected)
    assert len(np.unique(expected[:, 0])) > 1


def test_floating_point_is_refused_until_a_range_is_declared(tmp_path: Path):
    source = write(tmp_path / "heat", floating, each=12, suffix=".tif", spans={"cold": (-1.0, 0.2), "warm": (0.1, 1.0)})
    with pytest.raises(DataError) as caught:
        train(recipe(source), tmp_path / "refused")
    assert "image.range" in f"{caught.value} {caught.value.mend}"
    run = train(recipe(source, image__range=(-1.0, 1.0)), tmp_path / "runs")
    model = pipeline.load_trained(RunFolder(run))
    trained_on = hashes(run / "predictions" / "test.npz")
    assert {name: seen(model, source / name) for name in trained_on} == trained_on
    values = np.asarray(Image.open(source / "warm" / "000.tif"))
    assert np.array_equal(
        model.see(model.read(source / "warm" / "000.tif"))[0],
        evaluation_pixels(values[..., None], size=SIDE, fit="stretch", channels=1, range=(-1.0, 1.0))[..., 0],
    )
    assert Classifier(model).predict_proba([values]).shape == (1, 2)
    again = train(Recipe.from_yaml((run / "recipe.yaml").read_text()), tmp_path / "again")
    assert hashes(again / "predictions" / "test.npz") == trained_on


class Stack:
    """Pages of a TIFF, which save themselves as Pillow's pictures do."""

    def __init__(self, pages: list[np.ndarray]) -> None:
        self.pages = [Image.fromarray(page) for page in pages]

    def save(self, path: Path) -> None:
        self.pages[0].save(path, save_all=True, append_images=self.pages[1:])


def stack(generator: np.random.Generator, low: float, high: float) -> Stack:
    return Stack([generator.integers(int(low), int(high), (SIDE, SIDE)).astype(np.uint8) for _ in range(4)])


def test_chosen_pages_are_the_channels_in_training_and_prediction_alike(tmp_path: Path):
    source = write(tmp_path / "stacks", stack, each=12, suffix=".tif", spans={"dim": (0, 120), "lit": (90, 250)})
    with pytest.raises(DataError) as caught:
        train(recipe(source), tmp_path / "refused")
    assert "data.channels" in f"{caught.value} {caught.value.mend}"
    run = train(recipe(source, data__channels=(3, 0, 1)), tmp_path / "runs")
    model = pipeline.load_trained(RunFolder(run))
    image = Image.open(source / "dim" / "000.tif")
    pages = []
    for page in (3, 0, 1):
        image.seek(page)
        pages.append(np.array(image))
    assert np.array_equal(model.see(model.read(source / "dim" / "000.tif")), np.stack(pages))
    trained_on = hashes(run / "predictions" / "test.npz")
    assert {name: seen(model, source / name) for name in trained_on} == trained_on
    other = write(tmp_path / "other", stack, each=2, suffix=".tif", spans={"dim": (0, 120), "lit": (90, 250)}, seed=4)
    _, place = pipeline.evaluate_on(model, str(other))
    assert {name: seen(model, other / name) for name in hashes(run / place / "predictions.npz")} == hashes(
        run / place / "predictions.npz"
    )
