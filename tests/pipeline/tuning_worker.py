"""One of two processes of a fine-tuning run, started by test_torchrun.py: `tuning_worker.py RECIPE RUNS FOLDER`.

Each leaves in FOLDER the weights it began with and those it ended with.
"""

import os
import sys
from pathlib import Path

import torch
from torch import nn

from convsmith import pipeline
from convsmith.cli.commands import leave
from convsmith.pipeline import build, execute
from convsmith.recipe import Recipe
from convsmith.training import Loop


def main(recipe: str, runs: str, folder: str) -> None:
    held: list[nn.Module] = []
    began: dict[str, torch.Tensor] = {}

    def watched(settings: Recipe, model: nn.Module, *rest: object) -> Loop:
        held.append(model)
        began.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return build.build_loop(settings, model, *rest)  # type: ignore[arg-type]

    execute.build_loop = watched  # type: ignore[assignment]
    pipeline.train(Recipe.from_yaml(Path(recipe).read_text()), runs=Path(runs))
    torch.save({"began": began, "ended": held[0].state_dict()}, Path(folder) / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave(0)
