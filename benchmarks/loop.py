"""What does the training loop cost where overhead is all there is?

One tiny network, the same batches, no averaging, augmentation or clipping: a bare PyTorch loop, Convsmith's `Loop` with
its default logging to `log.jsonl`, and, where they are installed, Lightning's `Trainer` and fastai's `Learner`. Each
pair runs both sides in turn in one process; the figure is the median of the ratios of steps per second, other / bare.

    python benchmarks/loop.py [--pairs 7] [--steps 600]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from convsmith.batches import Batches
from convsmith.run_folder import EventLog
from convsmith.tasks import classification
from convsmith.training import Loop

BATCH, IMAGES, SIZE, CLASSES = 64, 2048, 8, 10
Side = Callable[[int], float]


def network() -> nn.Module:
    """Three small convolutions: a step of one to two milliseconds on a CPU core or two."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1, stride=2), nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, CLASSES),
    )  # fmt: skip


def data() -> Batches:
    """Random images as the loop takes them; all sides read the same batches in the same order."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (IMAGES, 1, SIZE, SIZE), np.uint8)
    labels = generator.integers(0, CLASSES, IMAGES)
    return Batches(images, labels, [str(i) for i in range(IMAGES)], batch_size=BATCH)


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """The same one for all sides."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)


def prepare(images: torch.Tensor) -> torch.Tensor:
    """uint8 to float: part of each side's step."""
    return images.float().div_(255.0)


def bare(steps: int) -> float:
    """Steps per second of the shortest loop that trains."""
    model, batches = network().train(), data()
    sgd = optimizer(model)
    started = time.perf_counter()
    for step in range(steps):
        batch = batches.at(step // len(batches), step % len(batches))
        loss = F.cross_entropy(model(prepare(batch.images)), batch.targets)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    return steps / (time.perf_counter() - started)


def convsmith(steps: int) -> float:
    """Steps per second of `Loop` as a run uses it: schedule, running loss, events written to a log."""
    from dataclasses import replace

    model, batches = network(), data()
    loop = Loop(
        model, classification(), {"model": optimizer(model)}, steps=steps,
        transform=lambda batch: replace(batch, images=prepare(batch.images)),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(Path(folder) / "log.jsonl")
        started = time.perf_counter()
        for event in loop.run(batches):
            log.append(event.kind, epoch=event.epoch, step=event.step, values=event.values)
        elapsed = time.perf_counter() - started
        log.close()
    return steps / elapsed


class Torch(torch.utils.data.Dataset):
    """The same batches for loaders: item i is batch i, already collated."""

    def __init__(self, steps: int) -> None:
        self.batches, self.steps = data(), steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch = self.batches.at(step // len(self.batches), step % len(self.batches))
        return batch.images, batch.targets


def lightning(steps: int) -> float:
    """Steps per second of Lightning's Trainer: its defaults with CSV logging; progress bar and checkpoints off.

    Its clock starts with the first step, so that setting up the Trainer does not count.
    """
    import lightning as L
    from lightning.pytorch.loggers import CSVLogger

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()
            self.started = 0.0

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
            self.started = self.started or time.perf_counter()
            loss = F.cross_entropy(self.model(prepare(batch[0])), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer(self.model)

        def on_train_end(self) -> None:
            self.seconds = time.perf_counter() - self.started

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        trainer = L.Trainer(
            max_steps=steps, accelerator="cpu", logger=CSVLogger(folder), enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        module = Module()
        trainer.fit(module, torch.utils.data.DataLoader(Torch(steps), batch_size=None))
        return steps / module.seconds


def fastai(steps: int) -> float:
    """Steps per second of fastai's Learner with its recorder, without a progress bar; its validation is one batch."""
    from fastai.basics import DataLoader, DataLoaders, Learner, OptimWrapper

    loaders = (DataLoader(Torch(count), bs=None, num_workers=0) for count in (steps, 1))
    model = network()
    learner = Learner(
        DataLoaders(*loaders), nn.Sequential(Prepare(), model), loss_func=nn.CrossEntropyLoss(),
        opt_func=lambda parameters, lr: OptimWrapper(opt=optimizer(model)), lr=0.01,
    )  # fmt: skip
    learner.logger = lambda row: None
    started = time.perf_counter()
    learner.fit(1)
    return steps / (time.perf_counter() - started)


class Prepare(nn.Module):
    """`prepare` as a layer."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return prepare(images)


def compare(name: str, side: Side, pairs: int, steps: int) -> dict[str, object] | None:
    """Alternate `bare` and another side; the median of the ratios."""
    try:
        side(20)
    except ImportError:
        print(f"{name:10} not installed, left out")
        return None
    ratios, speeds = [], []
    for pair in range(pairs):
        first, second = (bare, side) if pair % 2 == 0 else (side, bare)
        results = {first: first(steps), second: second(steps)}
        ratios.append(results[side] / results[bare])
        speeds.append(results[bare])
    row = {
        "ratio_median": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios],
        "bare_ms_per_step": round(1e3 / statistics.median(speeds), 3),
    }  # fmt: skip
    print(f"{name:10} {row['ratio_median']:.3f} of bare  (bare step {row['bare_ms_per_step']} ms; {row['ratios']})")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/loop.json"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    for logger in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    sides: dict[str, Side] = {"convsmith": convsmith, "lightning": lightning, "fastai": fastai}
    bare(50)
    rows = {name: compare(name, side, arguments.pairs, arguments.steps) for name, side in sides.items()}
    record = {
        "question": "steps per second as a share of a bare PyTorch loop",
        "torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine(),
        "pairs": arguments.pairs, "steps": arguments.steps, "rows": {name: row for name, row in rows.items() if row},
    }  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
