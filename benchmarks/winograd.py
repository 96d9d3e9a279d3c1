"""Do fewer multiplications make a 3x3 convolution faster? Winograd's way beside PyTorch's own, side by side.

For convolutions as VGG and ResNet have them at 224 px: the layer with its kernel transformed beforehand against
`nn.Conv2d` at inference, and a whole training step (forward, backward) of both, in turn, channels last. The figure is
the median of the pairs' ratios; above 1 Winograd is faster. On a processor both run in one thread and its own time is
taken, which other work on the machine does not lengthen. Errors are beside float64, as a share of the largest value.

    python benchmarks/winograd.py [--pairs 9] [--batch 4] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.networks.winograd import Tile, WinogradConv2d, multiplications

SHAPES = ((64, 64, 224), (64, 64, 56), (128, 128, 28), (256, 256, 14), (512, 512, 7))  # in, out, side
TILES: tuple[Tile, ...] = (2, 4)


def seconds(work: Callable[[], Any], device: str) -> float:
    """How long some work takes, to its end on the device."""
    if device == "cpu":
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def inference(layer: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        layer(x)


def step(layer: nn.Module, x: Tensor) -> None:
    """Forward and backward, gradients of the input too, as within a network."""
    x = x.detach().requires_grad_()
    result = layer(x)
    result.backward(torch.ones_like(result))
    layer.zero_grad(set_to_none=True)


def paired(first: Callable[[], Any], second: Callable[[], Any], pairs: int, device: str) -> dict[str, Any]:
    """Time both, turn by turn; the ratio is that of the first to the second."""
    rows = []
    for turn in range(pairs + 2):
        order = (first, second) if turn % 2 else (second, first)
        taken = {work: seconds(work, device) for work in order}
        if turn > 1:  # in the first two, memory is claimed and kernels are chosen
            rows.append((taken[first], taken[second]))
    return {
        "ratio_median": round(statistics.median(a / b for a, b in rows), 3),
        "direct_ms": round(1e3 * statistics.median(a for a, _ in rows), 3),
        "winograd_ms": round(1e3 * statistics.median(b for _, b in rows), 3),
    }


def compared(shape: tuple[int, int, int], tile: Tile, pairs: int, batch: int, device: str) -> dict[str, Any]:
    """One convolution both ways."""
    in_channels, out_channels, side = shape
    torch.manual_seed(0)
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1).to(device, memory_format=torch.channels_last)
    layer = WinogradConv2d.of(conv, tile).to(device)
    fixed = layer.precomputed()
    x = torch.randn(batch, in_channels, side, side, device=device).relu()
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        few = x[:1]
        exact = nn.functional.conv2d(few.double(), conv.weight.double(), layer.bias.double(), padding=1)  # type: ignore[union-attr]
        errors = {
            name: float((found.double() - exact).abs().max() / exact.abs().max())
            for name, found in (("direct", conv(few)), ("winograd", fixed(few)))
        }
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "side": side,
        "tile": tile,
        "fewer_multiplications": round(multiplications(tile, in_channels, out_channels, side, side).saving, 3),
        "inference": paired(lambda: inference(conv, x), lambda: inference(fixed, x), pairs, device),
        "training": paired(lambda: step(conv, x), lambda: step(layer, x), pairs, device),
        "errors": errors,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for shape in SHAPES:
        for tile in TILES:
            row = compared(shape, tile, arguments.pairs, arguments.batch, arguments.device)
            found.append(row)
            print(
                f"{row['in_channels']}->{row['out_channels']} at {row['side']} px, F({tile}x{tile}, 3x3): "
                f"{row['fewer_multiplications']:.2f} times fewer multiplications; "
                f"{row['inference']['ratio_median']:.2f} times as fast at inference, "
                f"{row['training']['ratio_median']:.2f} in training; error {row['errors']['winograd']:.0e} "
                f"(direct {row['errors']['direct']:.0e})",
                flush=True,
            )
    cuda = arguments.device != "cpu"
    record = {
        "question": "a 3x3 convolution in float32 by Winograd's tiles over the same by nn.Conv2d: speed",
        "batch": arguments.batch,
        "pairs": arguments.pairs,
        "device": torch.cuda.get_device_name() if cuda else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "tf32": bool(cuda and torch.backends.cudnn.allow_tf32),
        "torch": torch.__version__,
        "rows": found,
    }
    out = arguments.out or Path(f"benchmarks/results/winograd{'-' + arguments.device if cuda else ''}.json")
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
