"""Is what the analysis says of networks without running them true?

- counts: parameters and multiply-adds of the 200 networks of `analysis_networks.txt`, against real runs, and what
  torchinfo, fvcore, ptflops and thop say of them, where they are installed (`pip install convsmith[peers]`);
- fields: receptive fields of the first 30 of them whose field gradients can show: height and width, stride and offset;
- memory: the peak of training of 30 of them at batch 4, with momentum, in float32 and bfloat16, and that of inference,
  against PyTorch's allocator on real runs; and of three that are shallow or frozen, at larger batches.

A stopped run goes on where it was.

    python benchmarks/analysis_accuracy.py [counts] [fields] [memory] [--limit N]
    python benchmarks/analysis_accuracy.py choose        # makes the list again, by its rule
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import analysis_truth as truth
import receptive_by_gradient as gradient
import timm
import torch
import torchvision

from convsmith.errors import ConvsmithError
from convsmith.networks.counting.analysis import analyse
from convsmith.networks.counting.memory import inference_bytes, training_memory
from convsmith.networks.receptive import last_map, receptive_fields
from convsmith.networks.recording.graph import record

LIST = Path(__file__).with_name("analysis_networks.txt")
LARGEST_SIDE, LARGEST_TRAINED = 384, 100_000_000
FIELDS, TRAINED, BATCH = 30, 30, 4
SIDE = 1024
"""Of the image for gradients, px: fields below 900 and some strides."""
Row = dict[str, Any]


def choose() -> Iterator[str]:
    """torchvision's classifiers, and the smallest of each of timm's families, and then the second smallest, up to 200.

    A family is a file of timm's. By number of parameters; left out are timm's tiny test networks, and networks for
    images over 384 px, because a real run of some takes minutes.
    """
    chosen = [f"torchvision {name}" for name in torchvision.models.list_models(module=torchvision.models)]
    families: dict[str, list[tuple[int, str]]] = {}
    for name in timm.list_models(exclude_filters="test_*"):
        with torch.device("meta"):
            model = timm.create_model(name)
        if max(model.pretrained_cfg.get("input_size", (3, 224, 224))) <= LARGEST_SIDE:
            family = families.setdefault(timm.models.model_entrypoint(name).__module__, [])
            family.append((sum(parameter.numel() for parameter in model.parameters()), name))
    ranks = [sorted(family) for _, family in sorted(families.items())]
    for place in range(max(map(len, ranks))):
        chosen += [rank[place][1] for rank in ranks if place < len(rank)]
    yield from chosen[:200]


def counted(name: str) -> Row:
    """Parameters and multiply-adds: the truth, ours and the others'."""
    model, shape = truth.built(name)
    row: Row = {"network": name, "input": list(shape)}
    started = time.perf_counter()
    analysis = analyse(model, shape)
    ours = {"parameters": analysis.parameters.total, "macs": analysis.macs, "unknown": list(analysis.unknown)}
    ours["seconds"] = round(time.perf_counter() - started, 2)
    started = time.perf_counter()
    row["truth"] = {"parameters": truth.parameters(model), "macs": truth.macs(model, shape)}
    row["truth"]["seconds"] = round(time.perf_counter() - started, 2)
    return row | {"convsmith": ours} | {peer: truth.said_by(peer, model, shape) for peer in truth.installed()}


def field(name: str) -> Row:
    """The receptive field of the last map along both sides of the image: the truth by gradients, and ours."""
    model, _ = truth.built(name)
    row: Row = {"network": name, "truth": {}, "convsmith": {}}
    for axis, side in enumerate(("height", "width")):
        try:
            shown = gradient.measured(model, SIDE, axis=axis)
        except (ValueError, IndexError, RuntimeError, AssertionError) as error:
            return {"network": name, "not_shown": " ".join(f"{type(error).__name__}: {error}".split())[:160]}
        graph = record(model, (3, SIDE, 64) if axis == 0 else (3, 64, SIDE))
        fields = receptive_fields(graph)
        value = last_map(graph, fields)
        found = None if value is None else fields.of(value)
        place = None if value is None else fields.at(value)
        middle = 0 if place is None else place.index[2 + axis] or 0
        row["truth"][side] = field_row(shown.size, shown.stride, shown.offset, shown.offset + middle * shown.stride)
        row["convsmith"][side] = None
        if found is not None and place is not None:
            ours, first, last = (found.height, found.width)[axis], place.box[axis], place.box[axis + 2]
            row["convsmith"][side] = field_row(last - first + 1, ours.stride, ours.offset, (first + last) / 2)
            if not found.even:  # positions differ, and only the one in the middle is compared
                for one in (row["truth"], row["convsmith"]):
                    one[side] |= {"stride": None, "offset": None}
    return row


def field_row(size: int, stride: float | None, offset: float, centre: float) -> Row:
    """A field along one side, px: of the position in the middle of the map, and between positions."""
    return {"size": size, "centre": centre, "stride": stride, "offset": offset}


def remembered(name: str) -> Row:
    """Peak memory of a training step in both precisions, and of inference, ours and the allocator's."""
    row: Row = {"network": name}
    batch = truth.SHALLOW[name][2] if name in truth.SHALLOW else BATCH
    for precision in ("float32", "bfloat16"):
        model, shape = truth.built(name)
        started = time.perf_counter()
        said = training_memory(model, shape, batch=batch, optimizer="momentum", precision=precision).peak
        seconds = round(time.perf_counter() - started, 2)
        real = truth.training_peak(model, shape, batch, precision)
        row[precision] = {"truth": real, "convsmith": said, "ratio": round(said / real, 4), "seconds": seconds}
        if precision == "float32":
            said = inference_bytes(record(model, shape, batch=batch), model)
            real = truth.inference_peak(model, shape, batch)
            row["inference"] = {"truth": real, "convsmith": said, "ratio": round(said / real, 4)}
    return row


def names_of(part: str) -> list[str]:
    """The networks of a part; for memory those at even steps of what can be trained here, and the shallow ones."""
    names = LIST.read_text().split("\n")[1:-1]
    if part != "memory":
        return names
    small = [name for name in names if truth.size(name) <= LARGEST_TRAINED]
    return [*(small[round(place * (len(small) - 1) / (TRAINED - 1))] for place in range(TRAINED)), *truth.SHALLOW]


PARTS: dict[str, Callable[[str], Row]] = {"counts": counted, "fields": field, "memory": remembered}


def enough(part: str, rows: list[Row]) -> bool:
    """Whether a part that looks for its networks has found them."""
    return part == "fields" and sum("truth" in row for row in rows) == FIELDS


def summary(rows: dict[str, list[Row]]) -> Row:
    """Shares that are exactly right, and the largest errors."""
    found: Row = {}
    counts = rows.get("counts", [])
    for tool in ("convsmith", *truth.PEERS):
        tried = [(row["truth"], row[tool]) for row in counts if tool in row]
        if tried:
            found[tool] = {"networks": len(tried), "failed": sum("failed" in said for _, said in tried)}
            for what in ("parameters", "macs"):
                right = [said.get(what) == real[what] for real, said in tried]
                near = [abs((said.get(what) or 0) - real[what]) <= 0.01 * real[what] for real, said in tried]
                unknown = sum(said.get(what, 0) is None for _, said in tried)
                found[tool][what] = {
                    "right": sum(right) / len(tried), "within_1_percent": sum(near) / len(tried), "unknown": unknown
                }  # fmt: skip
    fields = [row for row in rows.get("fields", []) if "truth" in row]
    if fields:
        unknown = sum(None in row["convsmith"].values() for row in fields)
        right = sum(row["truth"] == row["convsmith"] for row in fields)
        found["fields"] = {"networks": len(fields), "right": right, "unknown": unknown}
    remembered = rows.get("memory", [])
    listed = [row for row in remembered if row["network"] not in truth.SHALLOW]
    return found | ratios("memory", listed) | ratios("memory of shallow and frozen ones", [
        row for row in remembered if row["network"] in truth.SHALLOW
    ])  # fmt: skip


def ratios(title: str, rows: list[Row]) -> Row:
    """How far said memory is from the real one."""
    found: Row = {}
    for what in ("float32", "bfloat16", "inference"):
        there = [row[what]["ratio"] for row in rows if what in row]
        if there:
            errors = sorted(abs(ratio - 1) for ratio in there)
            found[f"{title} {what}"] = {
                "networks": len(there), "least": min(there), "most": max(there),
                "median_error": round(errors[len(errors) // 2], 4), "within_5_percent": sum(e <= 0.05 for e in errors),
            }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; or choose", default=list(PARTS))
    parser.add_argument("--limit", type=int, help="networks of each part in this run")
    parser.add_argument("--only", nargs="*", help="these networks, whatever is there of them")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/analysis_accuracy.json"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.parts == ["choose"]:
        LIST.write_text("\n".join([f"# timm {timm.__version__}, torchvision {torchvision.__version__}", *choose(), ""]))
        return
    rows: dict[str, list[Row]] = {}
    if arguments.out.exists():
        rows = json.loads(arguments.out.read_text())["rows"]
    for part in arguments.parts:
        there = rows.setdefault(part, [])
        if arguments.only:
            there[:] = [row for row in there if row["network"] not in arguments.only]
        todo = [name for name in arguments.only or names_of(part) if name not in {row["network"] for row in there}]
        for name in todo[: arguments.limit]:
            if enough(part, there) and not arguments.only:
                break
            try:
                there.append(PARTS[part](name))
            except ConvsmithError as error:
                there.append({"network": name, "refused": error.message})
            print(part, json.dumps(there[-1]), flush=True)
            save(arguments.out, rows)
            gc.collect()
    save(arguments.out, rows)
    print(json.dumps(summary(rows), indent=1))


def save(out: Path, rows: dict[str, list[Row]]) -> None:
    record = {
        "question": "what is said of networks without running them, beside real runs",
        "rule": " ".join((choose.__doc__ or "").split()),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__}
        | truth.installed(),
        "summary": summary(rows),
        "rows": rows,
    }
    out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
