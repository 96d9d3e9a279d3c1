"""What do float32 gradients of depthwise convolutions bring to training in bfloat16 on a processor?

One training step (forward, backward) of each network under bfloat16 autocast, channels last, as PyTorch does it and
with `training.depthwise`, in turn; beside them float32. The figure is the median of the pairs' ratios.

    python benchmarks/depthwise.py [--pairs 9] [--batch 16] [NAME ...]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from convsmith.training.depthwise import DepthwiseGradients

NAMES = ("tf_efficientnet_lite0", "efficientnet_b0", "mobilenetv3_large_100", "mobilenetv2_100", "convnext_atto")


def step(model: nn.Module, images: torch.Tensor, targets: torch.Tensor, *, bfloat16: bool, ours: bool) -> float:
    """Seconds of one forward and backward pass."""
    started = time.perf_counter()
    gradients = DepthwiseGradients() if ours else contextlib.nullcontext()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16), gradients:
        loss = nn.functional.cross_entropy(model(images).float(), targets)
    loss.backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def compared(name: str, pairs: int, batch: int) -> dict[str, Any]:
    """Time both, turn by turn."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).to(memory_format=torch.channels_last).train()
    images = torch.randn(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    targets = torch.arange(batch) % 5
    ways = {"torch": (True, False), "ours": (True, True), "float32": (False, False)}
    rows = []
    for turn in range(pairs + 1):
        order = list(ways) if turn % 2 else list(reversed(ways))
        taken = {way: step(model, images, targets, bfloat16=ways[way][0], ours=ways[way][1]) for way in order}
        if turn:  # in the first, kernels are chosen
            rows.append({way: round(taken[way], 4) for way in ways})
    return {
        "network": name,
        "ratio_median": round(statistics.median(row["torch"] / row["ours"] for row in rows), 3),
        "over_float32_median": round(statistics.median(row["float32"] / row["ours"] for row in rows), 3),
        "ms_per_image": {way: round(1e3 * statistics.median(row[way] for row in rows) / batch, 2) for way in ways},
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/depthwise.json"))
    arguments = parser.parse_args()
    found = []
    for name in arguments.names:
        found.append(compared(name, arguments.pairs, arguments.batch))
        print(
            f"{name}: {found[-1]['ratio_median']:.2f} times as fast as plain bfloat16, "
            f"{found[-1]['over_float32_median']:.2f} times float32 ({found[-1]['ms_per_image']} ms an image)",
            flush=True,
        )
    record = {
        "question": "a training step in bfloat16, the slow gradients of depthwise convolutions in float32",
        "batch": arguments.batch,
        "cores": len(os.sched_getaffinity(0)),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "networks": found,
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
