"""A training that diverges stops at once, and keeps the checkpoint from before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pictures_made import class_folder
from torch import nn

import convsmith
from convsmith.errors import ConvsmithError
from convsmith.training import last_checkpoint

BREAKS_AT = 20


class Breaking(nn.Module):
    """Gives logits that are not finite from its `BREAKS_AT`th training step on."""

    def __init__(self, in_channels: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs))
        self.layers(torch.zeros(1, in_channels, 8, 8))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += self.training
        return self.layers(images) / (1.0 if self.seen < BREAKS_AT else 0.0)


def test_weights_that_are_no_numbers_never_replace_good_ones(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "pictures")
    asked = {"train.checkpoint_every": 3, "train.report_every": 1000, "train.tune_every": 0}
    with pytest.raises(ConvsmithError, match="diverged") as caught:
        convsmith.train(folder, model=Breaking, epochs=40, overrides=asked, runs=tmp_path / "runs")
    assert "lower rate" in caught.value.mend
    (run,) = (tmp_path / "runs").iterdir()
    checkpoint = last_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.step < BREAKS_AT
    assert all(tensor.isfinite().all() for tensor in checkpoint.state()["model"].values())
