"""How long until the linear probe's result, beside the bare forward passes over the same views?

Both sides have the decoded pixels. The bare side runs the network over image and mirror of train, tune and test
in inference mode, in batches of 32 or 64, contiguous or channels-last, whichever is fastest; our side computes the
features, fits the logistic head for every decay, answers tune and test, and writes the records. They take turns, in
float32 and in bfloat16; the figure is the larger of the two medians of ratios, ours / bare.

    python benchmarks/features.py FOLDER --model tf_efficientnet_lite0 --weights FILE [--pairs 5]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Literal
from unittest import mock

import numpy as np
import torch

from convsmith.batches import Normalize
from convsmith.pipeline import Prepared, machine, prepare, silent
from convsmith.pipeline.origin import find_origin, start_network
from convsmith.pipeline.preparing import pixels
from convsmith.pipeline.probe import probe_network
from convsmith.recipe import Recipe
from convsmith.run_folder import RunFolder

PRECISIONS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")


def resolved(source: str, model: str, weights: str) -> tuple[Recipe, Prepared]:
    """A recipe as the plan would settle it for this network, and the images."""
    recipe = Recipe.from_layers(
        {
            "data": {"source": source}, "model": model, "weights": {"source": str(Path(weights).resolve())},
            "image": {"size": "auto", "channels": 3, "fit": "crop", "keep": 1.0, "range": None},
            "augment": {"symmetry": "left-right", "operations": []}, "train": {"balance": "none", "device": "cpu"},
            "transfer": {"mode": "finetune"},
        }
    )  # fmt: skip
    origin = find_origin(recipe)
    assert origin is not None
    image = {"image.size": origin.size, "image.mean": origin.mean, "image.std": origin.std}
    return recipe.updated({**image, "weights.sha256": origin.sha256}), prepare(recipe.data, silent)


def bare(
    model: torch.nn.Module,
    images: np.ndarray,
    normalize: Normalize,
    batch: int,
    layout: torch.memory_format,
    precision: str = "float32",
) -> float:
    """Seconds of the forward passes over image and mirror, and nothing else."""
    network = model.to(memory_format=layout).eval()  # type: ignore[call-overload]
    started = time.perf_counter()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        for start in range(0, len(images), batch):
            share = normalize(torch.from_numpy(np.array(images[start : start + batch]))).to(memory_format=layout)
            network(share)
            network(share.flip(-1))
    return time.perf_counter() - started


def ours(recipe: Recipe, prepared: Prepared, images: np.ndarray, folder: Path) -> float:
    """Seconds from the pixels to `probe.json`; loading the network is left out on both sides."""
    model = start_network(recipe, len(prepared.dataset.classes), None, find_origin(recipe))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = RunFolder(folder)
    (folder / "predictions").mkdir(parents=True)
    held = {"name": network_name(recipe), "code_sha256": None}
    run.write_json("manifest.json", {"model": held, **machine.describe(torch.device("cpu"), 1)})
    seconds: list[float] = []
    write = RunFolder.write_json
    started = time.perf_counter()

    def noted(self: RunFolder, name: str, value: object) -> None:
        write(self, name, value)
        if name == "probe.json":
            seconds.append(time.perf_counter() - started)

    with mock.patch.object(RunFolder, "write_json", noted):
        probe_network(run, model, recipe, prepared, images, silent)
    return seconds[0]


def network_name(recipe: Recipe) -> str:
    """The network's name."""
    assert not isinstance(recipe.model, str)
    return recipe.model.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/features.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["CONVSMITH_CACHE"] = temporary
        recipe, prepared = resolved(arguments.source, arguments.model, arguments.weights)
        images = np.array(pixels(prepared.dataset, recipe.image, silent))
        model = start_network(recipe, len(prepared.dataset.classes), None, find_origin(recipe))
        normalize = Normalize(tuple(recipe.image.mean), tuple(recipe.image.std))  # type: ignore[arg-type]
        ways = [(batch, layout) for batch in (32, 64) for layout in (torch.contiguous_format, torch.channels_last)]
        few = images[:192]
        best = min(ways, key=lambda way: min(bare(model, few, normalize, *way) for _ in range(2)))
        rows = []
        for turn in range(2 * arguments.pairs):
            precision = PRECISIONS[turn % 2]
            own = recipe.updated({"train.precision": precision})
            os.environ["CONVSMITH_CACHE"] = f"{temporary}/{turn}"  # features of an earlier turn are not found
            sides = {
                "bare": lambda precision=precision: bare(model, images, normalize, *best, precision),
                "ours": lambda own=own, turn=turn: ours(own, prepared, images, Path(temporary) / f"run-{turn}"),
            }
            order = ("bare", "ours") if turn // 2 % 2 == 0 else ("ours", "bare")
            taken = {name: sides[name]() for name in order}
            seconds = {name: round(taken[name], 2) for name in sides}
            rows.append({"precision": precision, **seconds, "ratio": taken["ours"] / taken["bare"]})
            print(f"{precision}: {seconds}, ratio {rows[-1]['ratio']:.3f}", flush=True)
    medians = {
        precision: statistics.median(row["ratio"] for row in rows if row["precision"] == precision)
        for precision in PRECISIONS
    }
    ratio = max(medians.values())
    record = {
        "question": f"seconds to the linear probe's result over those of bare forward passes, {arguments.model}",
        "ratio_median": ratio,
        "ratio_by_precision": medians,
        "images": len(images),
        "views": 2,
        "bare_way": {"batch": best[0], "layout": str(best[1])},
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"median ratio {ratio:.3f}; written to {arguments.out}")


if __name__ == "__main__":
    main()
