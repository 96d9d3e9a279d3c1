"""The sections about how the run was made: training, plan, recipe, methods."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from convsmith.diagnosis.evidence import again, passes, steps_per_epoch
from convsmith.reporting import figures
from convsmith.reporting.formats import duration, number, sentence, size, some
from convsmith.reporting.methods import paragraph
from convsmith.reporting.run_records import RunRecords
from convsmith.reporting.templates import Section, fill

POINTS = 300
ROWS = 100
UNSEEN = "Tune images were not looked at during training."
HARDER = "Training images are altered and their labels softened, so their loss lies higher than that of tune images."


def curves(records: RunRecords) -> Section | None:
    """Loss, tune figures and learning rate over the course of training."""
    training = [event for event in records.log if event.get("kind") in {"progress", "epoch"}]
    tune = [event for event in records.log if event.get("kind") == "tune"]
    if not training and not tune:
        return None
    counted = steps_per_epoch(training)
    per_epoch, steps = counted or 1.0, max(event["step"] for event in (*training, *tune))
    end = steps / per_epoch or 1.0
    charts = []
    losses = [("a", _points(training, "loss", per_epoch)), ("b", _points(tune, "log_loss", per_epoch))]
    losses = [(kind, points) for kind, points in losses if points]
    if losses:
        keys = [("a", "training loss")] * any(kind == "a" for kind, _ in losses)
        keys += [("b", "log loss on tune images")] * any(kind == "b" for kind, _ in losses)
        charts.append(
            (
                "Loss",
                keys,
                figures.line_chart(
                    losses, what="Loss over the course of training; the table below holds the figures", end=end
                ),
            )
        )
    accuracy = _points(tune, "accuracy", per_epoch)
    if accuracy:
        drawn = figures.line_chart(
            [("b", accuracy)],
            what="Accuracy on tune images over the course of training; the table below holds the figures",
            end=end,
            share=True,
        )
        charts.append(("Accuracy", [("b", "accuracy on tune images")], drawn))
    rate = _points(training, "rate", per_epoch)
    if rate:
        drawn = figures.line_chart(
            [("c", rate)], what="Learning rate over the course of training; the table below holds the figures", end=end
        )
        charts.append(("Learning rate", [("c", "learning rate")], drawn))
    body = fill("curves", charts=charts, rows=_curve_rows(records, counted), unit="epoch" if counted else "step")
    return Section("training", "How training went", _curves_lead(records, steps, tune), body)


def _curves_lead(records: RunRecords, steps: int, tune: list[Mapping[str, Any]]) -> str:
    through, resumed = passes(records.log), [event for event in records.log if event.get("kind") == "resumed"]
    parts = [f"{through:.3g} passes over the training images" if through else some(steps, "step")]
    seconds = next((event["values"].get("seconds") for event in records.log if event.get("kind") == "finished"), None)
    if isinstance(seconds, Mapping) and "total" in seconds:
        took = duration(seconds["total"])
        parts.append(f"the last command took {took}" if resumed else f"{took} in all")
    train, augment = records.recipe.get("train") or {}, records.recipe.get("augment") or {}
    altered = train.get("label_smoothing") and augment.get("operations")
    compared = ([HARDER] if altered else []) if tune else [UNSEEN]
    return " ".join((f"{', '.join(parts)}.", *_interruptions(resumed), *compared))


def _interruptions(resumed: list[Mapping[str, Any]]) -> list[str]:
    """How often the run was taken up again, and whether that can be seen in its weights."""
    if not resumed:
        return []
    told = f"The run was interrupted and resumed {some(len(resumed), 'time')}"
    found = dict.fromkeys(str(text) for event in resumed for text in event["values"].get("differences") or ())
    if not found:
        return [f"{told}; that changes nothing in it."]
    return [
        f"{told}, not as it was begun, so its last bits may differ from those of an unbroken run: {'; '.join(found)}."
    ]


def _points(events: list[Mapping[str, Any]], name: str, per_epoch: float) -> list[tuple[float, float]]:
    """Points of one value, thinned evenly so that a long run keeps the page small; the last one always stays."""
    points = [
        (event["step"] / per_epoch, event["values"][name]) for event in events if event["values"].get(name) is not None
    ]
    stride = -(-len(points) // POINTS) or 1
    kept = points[::stride]
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def _curve_rows(records: RunRecords, per_epoch: float | None) -> list[dict[str, Any]]:
    """One row for each epoch or tune event; rows of the same step are joined, and long runs thinned."""
    rows: dict[int, dict[str, Any]] = {}
    kinds = {"epoch", "tune"} if per_epoch else {"progress", "tune"}
    for event in records.log:
        if event.get("kind") in kinds:
            row = rows.setdefault(event["step"], {"at": event["step"] / (per_epoch or 1.0)})
            row.update(event["values"])
    listed = [rows[step] for step in sorted(rows)]
    stride = -(-len(listed) // ROWS) or 1
    return listed if stride == 1 else [*listed[:-1:stride], listed[-1]]


def plan(records: RunRecords) -> Section | None:
    """Every choice that was made for the user, and why."""
    choices = [
        {"measured": {}, "given": False, **choice, "reason": sentence(choice.get("reason", ""))}
        for choice in records.plan.get("choices") or ()
    ]
    if not choices:
        return None
    chosen = sum(not choice["given"] for choice in choices)
    lead = f"{some(chosen, 'setting')} {'was' if chosen == 1 else 'were'} chosen automatically"
    given = len(choices) - chosen
    lead += f", {some(given, 'setting')} asked for." if given else "."
    faults = [
        {**finding, "mend": (finding.get("evidence") or {}).get("mend", "")}
        for finding in records.plan.get("findings") or ()
    ]
    body = fill("plan", choices=choices, facts=_estimates(records), faults=faults)
    return Section("plan", "The plan, and its reasons", lead, body)


def _estimates(records: RunRecords) -> list[tuple[str, str]]:
    estimate = records.plan.get("estimate") or {}
    rows = [
        ("Expected time", estimate.get("seconds"), duration),
        ("Of which training", estimate.get("training_seconds"), duration),
        ("Memory", estimate.get("memory_bytes"), size),
        ("Steps", estimate.get("steps"), number),
        ("Speed", estimate.get("images_per_second"), lambda speed: f"{number(round(speed))} images a second"),
    ]
    return [(name, show(value)) for name, value, show in rows if value is not None]


def repeat(records: RunRecords) -> Section | None:
    """The recipe, and what it takes to make the same run again."""
    if not records.manifest and not records.recipe_text:
        return None
    manifest = records.manifest
    facts = [("Convsmith", manifest.get("convsmith"))]
    facts += [(str(name), version) for name, version in (manifest.get("versions") or {}).items()]
    facts += [
        ("Device", manifest.get("device")), ("Threads", manifest.get("threads")),
        ("Memory format", manifest.get("memory_format")), ("Instruction set", manifest.get("instruction_set")),
        ("Processes", manifest.get("world_size")), ("Seed", manifest.get("seed")),
    ]  # fmt: skip
    shown = [(name, str(value)) for name, value in facts if value is not None]
    seed = manifest.get("seed")
    lines = records.recipe_text.count("\n") + bool(records.recipe_text and not records.recipe_text.endswith("\n"))
    return Section(
        "repeat",
        "How to repeat it",
        f"{_exactness(records)} Another seed shows how much of the figure is luck.",
        fill(
            "repeat",
            again=shlex.join(again(manifest, records.folder)),
            facts=shown,
            recipe=records.recipe_text,
            lines=lines,
            other=seed + 1 if isinstance(seed, int) else 1,
            command=_command(manifest.get("command") or ()),
        ),
    )


def _exactness(records: RunRecords) -> str:
    """What may be promised: a GPU adds up in an order of its own each time, unless it was told not to."""
    model, train = records.manifest.get("model") or {}, records.recipe.get("train") or {}
    same = "On the same machine and versions the recipe gives"
    exact = records.manifest.get("device") == "cpu" or train.get("deterministic")
    words = (
        f"{same} the same weights, bit for bit."
        if exact
        else f"{same} a network close to this one, but not bit for bit."
    )
    if model.get("name") == "own" and not model.get("code"):
        words += " Its network was a function in Python: call convsmith.train with this recipe and that function."
    return words


def _command(words: Sequence[object]) -> str:
    """The command as typed, whether or not the record holds the program's own name."""
    typed = [str(word) for word in words]
    return shlex.join(typed if typed[:1] == ["convsmith"] else ["convsmith", *typed]) if typed else ""


def methods(records: RunRecords) -> Section | None:
    """A paragraph for a paper."""
    text = paragraph(records)
    if not text:
        return None
    return Section(
        "methods", "For the methods section of a paper", "Made from the records; check it against what you did.",
        fill("methods", text=text),
    )  # fmt: skip
