"""How accurate is `convsmith train SET`, over several seeds, and how long does the whole command take?

Each seed is a command of its own, so start-up, planning, evaluation and report count. The split is the same for all
seeds (`data.split_seed`); only initialisation, order and augmentation differ.

    python benchmarks/accuracy.py digits --seeds 5
    python benchmarks/accuracy.py fashion-mnist --budget 5m --seeds 3 [--set train.precision=float32]
    python benchmarks/accuracy.py photos/ --name photos --budget 3m --model tf_efficientnet_lite0 --weights FILE
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def one_run(source: str, seed: int, options: list[str], runs: Path) -> dict[str, Any]:
    """Train once; accuracy on test, seconds of the command and of training alone."""
    command = [sys.executable, "-m", "convsmith", "train", source, "--seed", str(seed), "--runs", str(runs), "--quiet"]
    started = time.monotonic()
    done = subprocess.run([*command, "--json", *options], check=True, capture_output=True, text=True)
    seconds = time.monotonic() - started
    result = json.loads(done.stdout)
    run = Path(result["run"])
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    manifest = json.loads((run / "manifest.json").read_text())
    probe = json.loads((run / "probe.json").read_text())
    return {
        "seed": seed,
        "accuracy": result["splits"]["test"]["metrics"]["accuracy"]["value"],
        "probe": probe["test"]["accuracy"]["value"],
        "probe_is": probe["says"],
        "test_images": result["splits"]["test"]["n"],
        "seconds": round(seconds, 1),
        "training_seconds": round(log[-2]["time"] - log[0]["time"], 1),
        "steps": log[-2]["step"],
        "network": manifest["model"]["description"],
        "precision": manifest["precision"],
        "memory_format": manifest["memory_format"],
        "instruction_set": manifest["instruction_set"],
        "torch": manifest["versions"]["torch"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--name", help="what to call the record; by default the source")
    parser.add_argument("--budget")
    parser.add_argument("--model")
    parser.add_argument("--weights")
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    options = [f"--budget={arguments.budget}"] if arguments.budget else []
    options += [f"--{key}={value}" for key in ("model", "weights") if (value := getattr(arguments, key))]
    options += [f"--set={assignment}" for assignment in arguments.assignments]
    with tempfile.TemporaryDirectory() as temporary:
        rows = []
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            rows.append(one_run(arguments.source, seed, options, arguments.runs or Path(temporary)))
            row = rows[-1]
            print(
                f"seed {seed}: {row['accuracy']:.2%} of {row['test_images']:,} test images, {row['seconds']} s in all, "
                f"{row['training_seconds']} s training, {row['steps']:,} steps; linear probe {row['probe']:.2%}",
                flush=True,
            )
    accuracies = [row["accuracy"] for row in rows]
    spread = statistics.stdev(accuracies) if len(rows) > 1 else 0.0
    seconds = statistics.median(row["seconds"] for row in rows)
    training = statistics.median(row["training_seconds"] for row in rows)
    print(f"mean {statistics.mean(accuracies):.2%}, deviation {spread:.2%}")
    print(f"median {seconds} s in all, {training} s training")
    name = arguments.name or arguments.source
    out = arguments.out or Path("benchmarks/results") / f"accuracy-{name}.json"
    shown = " ".join(option if "/" not in option else option.partition("=")[0] + "=FILE" for option in options)
    record = {
        "question": f"test accuracy of convsmith train {name} {shown}".strip(),
        "mean": statistics.mean(accuracies),
        "mean_probe": statistics.mean(row["probe"] for row in rows),
        "deviation": spread,
        "median_seconds": seconds,
        "median_training_seconds": training,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
