"""Write the README's table of figures from the JSON that the benchmarks left.

python benchmarks/tables.py [--check]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def rows() -> Iterator[tuple[str, str, str]]:
    """Question, figure, and the command that measures it again."""
    yield from accuracies()
    yield from speeds()
    yield from analysis()


def accuracies() -> Iterator[tuple[str, str, str]]:
    """How accurate whole runs are."""
    for name, command in (("digits", "make bench-digits"), ("fashion-mnist", "make bench-fashion")):
        record = _read(f"accuracy-{name}.json")
        if record:
            seeds = len(record["rows"])
            figure = (
                f"{record['mean']:.2%} (deviation {record['deviation']:.2%}, {seeds} seeds); "
                f"{record['median_seconds']:.0f} s in all, {record['median_training_seconds']:.0f} s training"
            )
            asked = record["question"].removeprefix("test accuracy of ")
            yield f"`{asked}` on {record['cores']} cores", figure, command
    command = "benchmarks/accuracy.py FOLDER --name flowers5-mini --budget 3m --model NAME --weights FILE"
    for name, start in (("flowers5-mini", "ImageNet weights"), ("flowers5-mini-scratch", "no weights")):
        record = _read(f"accuracy-{name}.json")
        if record:
            seeds, images = len(record["rows"]), record["rows"][0]["test_images"]
            spread = f"deviation {record['deviation']:.1%}, {seeds} seeds" if seeds > 1 else "one seed"
            figure = f"{record['mean']:.1%} of {images} ({spread})"
            question = f"Photos of five flowers, `--budget 3m`, {start}, on {record['cores']} cores"
            yield question, figure, command


def speeds() -> Iterator[tuple[str, str, str]]:
    """How fast the parts are, beside others."""
    record = _read("loop.json")
    if record:
        parts = [f"{name} {row['ratio_median']:.2f}" for name, row in record["rows"].items()]
        step = record["rows"]["convsmith"]["bare_ms_per_step"]
        yield f"Steps per second as a share of a bare loop of {step:.1f} ms", ", ".join(parts), "make bench-loop"
    record = _read("features.json")
    if record:
        question = "Time to the linear probe's result over that of the bare forward passes"
        yield question, f"{record['ratio_median']:.2f}", "benchmarks/features.py FOLDER --model NAME --weights FILE"
    record = _read("leaks.json")
    if record:
        figure = f"{record['recall']:.1%} found, {record['strangers']:.1%} of the pairs named are strangers"
        question = f"{record['planted']} photos planted across the split (copied, re-encoded, cropped, mirrored)"
        yield question, figure, "benchmarks/leaks.py FOLDER"
    record = _read("scan.json")
    if record:
        figure = (
            f"{record['median_first_seconds']:.0f} s, again {record['median_second_seconds']:.0f} s; reading alone "
            f"{record['median_reading_seconds']:.1f} s, where a bare decode takes {record['median_bare_seconds']:.1f} s"
        )
        yield f"`convsmith data` on {record['images']:,} photos of 500 x 375", figure, "benchmarks/scan.py FOLDER"
    record = _read("depthwise.json")
    if record:
        parts = [f"{row['network']} {row['ratio_median']:.2f}" for row in record["networks"]]
        yield (
            "Training steps in bfloat16 over those of plain PyTorch, on the CPU",
            ", ".join(parts),
            ("benchmarks/depthwise.py"),
        )
    record = _read("inspecting.json")
    if record:
        figure = (
            f"{record['ratio_median']:.2f}; {max(record['large'].values()):.0f} s at the most for ten of its largest"
        )
        question = "`convsmith inspect resnet50` from a cold start, over importing timm and building it"
        yield question, figure, "benchmarks/inspecting.py"
    record = _read("winograd.json")
    if record:
        ratios = [row["inference"]["ratio_median"] for row in record["rows"]]
        question = "3x3 convolutions by Winograd's tiles, speed over nn.Conv2d in inference"
        yield question, f"{min(ratios):.2f} to {max(ratios):.2f}, by size of map", "benchmarks/winograd.py"


def analysis() -> Iterator[tuple[str, str, str]]:
    """Whether what is said of networks without running them is true."""
    record = _read("analysis_accuracy.json")
    if record:
        found, command = record["summary"], "benchmarks/analysis_accuracy.py"
        tools = [name for name in ("convsmith", *record["versions"]) if "macs" in found.get(name, {})]
        parts = [
            f"{name} {found[name]['macs']['right']:.1%} (within 1%: {found[name]['macs']['within_1_percent']:.0%})"
            for name in tools
        ]
        question = f"Multiply-adds of {found['convsmith']['networks']} networks, exactly as a real run has them"
        yield question, ", ".join(parts), command
        fields, memory = found["fields"], found["memory float32"]
        figure = f"{fields['right']} of {fields['networks']} exactly right"
        yield "Receptive fields below 900 px, beside gradients", figure, command
        figure = f"{memory['least'] - 1:+.1%} to {memory['most'] - 1:+.1%}"
        question = f"Peak memory of training said beforehand, for {memory['networks']} networks at batch 4"
        yield question, figure, command


def table() -> str:
    """The table as Markdown."""
    lines = ["| measured | figure | again with |", "|---|---|---|"]
    lines += [f"| {question} | {figure} | `{command}` |" for question, figure, command in rows()]
    return "\n".join(lines)


def _read(name: str) -> dict[str, Any] | None:
    path = RESULTS / name
    return json.loads(path.read_text()) if path.exists() else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether the README is up to date")
    arguments = parser.parse_args()
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    new = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if arguments.check:
        return 0 if new == text else 1
    README.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
