"""How long `convsmith inspect NAME` takes from a cold start, beside importing timm and building the network.

The two take turns, each in a process of its own; the figure is the median of the ratios. Then the largest networks of
timm are inspected once each: whichever takes longest stands for all.

    python benchmarks/inspecting.py [--pairs 5] [--name resnet50]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

LARGE = (
    "vit_7b_patch16_dinov3", "eva02_enormous_patch14_clip_224", "eva_giant_patch14_560", "tf_efficientnet_l2",
    "nfnet_f7", "hrnet_w64", "maxvit_xlarge_tf_512", "regnety_2560", "convnextv2_huge",
    "swinv2_large_window12to24_192to384",
)  # fmt: skip
"""The most parameters, the largest images, and the most layers, of families of every kind."""


def timed(*words: str) -> float:
    """Seconds that a Python of its own takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--name", default="resnet50")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/inspecting.json"))
    arguments = parser.parse_args()
    bare = f"import timm; timm.create_model({arguments.name!r})"
    pairs = []
    for _ in range(arguments.pairs):
        pairs.append((timed("-m", "convsmith", "inspect", arguments.name), timed("-c", bare)))
        print(f"{pairs[-1][0]:.2f} s, {pairs[-1][1]:.2f} s", flush=True)
    large = {}
    for name in LARGE:
        large[name] = round(timed("-m", "convsmith", "inspect", name), 1)
        print(f"{name} {large[name]} s", flush=True)
    record = {
        "question": f"convsmith inspect {arguments.name} over import timm and building it, from a cold start",
        "ratio_median": round(statistics.median(ours / theirs for ours, theirs in pairs), 3),
        "pairs": [[round(second, 2) for second in pair] for pair in pairs],
        "large": large,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"median ratio {record['ratio_median']}, longest {max(large.values())} s")


if __name__ == "__main__":
    main()
