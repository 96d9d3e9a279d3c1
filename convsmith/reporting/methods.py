"""The methods paragraph: what a paper should say of a run, from its records alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from convsmith.diagnosis.evidence import passes, steps_rule
from convsmith.reporting.formats import SPACE, number, plain, shorten, some
from convsmith.reporting.run_records import RunRecords
from convsmith.reporting.templates import interval, value
from convsmith.reporting.words import metric


def paragraph(records: RunRecords) -> str:
    """Return the paragraph, leaving out what was not recorded; empty where nothing was."""
    sentences = [
        _network(records),
        _data(records),
        _training(records),
        _calibration(records),
        _results(records),
        _baseline(records),
        _repeat(records),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _network(records: RunRecords) -> str:
    model = records.manifest.get("model") or {}
    if not model:
        return ""
    size = f" with {number(model['parameters'])} parameters" if model.get("parameters") is not None else ""
    versions = records.manifest.get("versions") or {}
    tools = [f"Convsmith {records.manifest['convsmith']}"] if records.manifest.get("convsmith") else ["Convsmith"]
    tools += [f"PyTorch {versions['torch']}"] if versions.get("torch") else []
    name = shorten(model.get("name", "unnamed"), 80)
    mode, weights = _mode(records), records.manifest.get("weights") or {}
    if mode is None:
        return f"A convolutional network ({name}{size}) was trained with {' and '.join(tools)}."
    mark = f", SHA-256 {str(weights['sha256'])[:12]}" if weights.get("sha256") else ""
    start = f"A convolutional network ({name}{size}) with pretrained weights ({_file(weights)}{mark})"
    decay = f", its weight decay {records.probe['decay']:g} chosen on the tuning images" if _decay(records) else ""
    head = f"an L2-regularised logistic regression on its frozen features{decay}"
    if mode == "probe":
        return f"{start} was kept as it was; its last layer was replaced by {head}, with {' and '.join(tools)}."
    return f"{start} was given {head} as its last layer, and then fine-tuned, with {' and '.join(tools)}."


def _mode(records: RunRecords) -> str | None:
    """How the weights that the network came with were used: `probe`, `finetune`, or not at all."""
    return (records.recipe.get("transfer") or {}).get("mode") if records.manifest.get("weights") else None


def _file(weights: Mapping[str, Any]) -> str:
    return shorten(PurePath(str(weights.get("source", "published"))).name, 80)


def _decay(records: RunRecords) -> bool:
    return isinstance((records.probe or {}).get("decay"), float)


def _data(records: RunRecords) -> str:
    data = records.manifest.get("data") or {}
    counts = {role: sum(by_class.values()) for role, by_class in (data.get("counts") or {}).items()}
    if not counts:
        return ""
    words = {"train": "training", "tune": "tuning", "test": "testing"}
    parts = [f"{number(counts[role])} for {word}" for role, word in words.items() if counts.get(role)]
    source = f" from “{shorten(data['source'], 80)}”" if data.get("source") else ""
    mark = f" (SHA-256 fingerprint {str(data['fingerprint'])[:12]})" if data.get("fingerprint") else ""
    total = some(sum(counts.values()), "image")
    shape = records.manifest.get("transform") or {}
    scaled = f" Images were presented at {shape['size']} by {shape['size']} pixels." if shape.get("size") else ""
    split = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" and {parts[-1]}"
    return f"The data were {total}{source}{mark} in {some(len(records.classes), 'class', 'classes')}: {split}.{scaled}"


def _training(records: RunRecords) -> str:
    if _mode(records) == "probe":
        return "Nothing else was trained."
    settings = dict(records.recipe.get("train") or {})
    wanted = [
        ("optimizer", "optimiser {}"), ("schedule", "schedule {}"), ("batch", "batches of {} images"),
        ("epochs", "{} epochs"), ("steps", f"{{}} steps{_passes(records)}"), ("label_smoothing", "label smoothing {}"),
        ("average", "an exponential moving average of the weights with decay {}"),
        ("clip", "gradients clipped at norm {}"), ("precision", "{} arithmetic"),
    ]  # fmt: skip
    if steps_rule(records.plan):
        settings.pop("epochs", None)
    parts = [words.format(plain(settings[key])) for key, words in wanted if _set(settings.get(key))]
    parts += _fine_tuning(records)
    augment = records.recipe.get("augment") or {}
    operations = [str(item.get("name")) for item in augment.get("operations") or () if isinstance(item, Mapping)]
    if operations:
        parts.append(f"augmentation by {', '.join(operations)}")
    return f"Training used {'; '.join(parts)}." if parts else ""


def _calibration(records: RunRecords) -> str:
    found = records.calibration
    if not found:
        return ""
    fitted = f"fitted on the {some(found['images'], 'tuning image')} (temperature {found['temperature']:.2f})"
    return f"Probabilities were calibrated by temperature scaling, {fitted}."


def _fine_tuning(records: RunRecords) -> list[str]:
    """What was kept from moving, and how far the result moved."""
    if _mode(records) != "finetune":
        return []
    transfer, blend = records.recipe.get("transfer") or {}, (records.recipe.get("train") or {}).get("blend")
    told = []
    if transfer.get("frozen_stages"):
        told.append(f"the first {some(transfer['frozen_stages'], 'stage')} frozen")
    if transfer.get("frozen_norms"):
        told.append("normalisation layers with their pretrained statistics")
    if isinstance(blend, float) and blend < 1:
        told.append(f"final weights {blend:g} of the fine-tuned and {1 - blend:g} of the initial ones")
    return told


def _passes(records: RunRecords) -> str:
    """Passes over the training images, where the number of steps was not made from them."""
    through = passes(records.log) if steps_rule(records.plan) else None
    return f" ({through:.3g} passes over the training images)" if through else ""


def _set(setting: Any) -> bool:
    return setting is not None and setting != "auto" and setting != 0


def _results(records: RunRecords) -> str:
    measured = records.measured.get("metrics") or {}
    told: list[str] = []
    made: dict[str, list[str]] = {}
    for name in (
        ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece") if "accuracy" in measured else measured
    ):
        estimate = measured.get(name)
        if estimate and estimate["value"] is not None:
            unit, title = metric(name).unit, metric(name).title
            title = title[0].lower() + title[1:]
            known = estimate.get("low") is not None
            ends = f" (95{SPACE}% interval {interval(estimate, unit)})" if known else ""
            told.append(f"{title} {value(estimate, unit)}{ends}")
            if known:
                made.setdefault(estimate["method"], []).append(title)
    if not told:
        return ""
    n = records.measured.get("n")
    on = (
        f"On {number(n)} {records.headline_split} images"
        if n is not None
        else f"On the {records.headline_split} images"
    )
    how = "; ".join(f"{method} for {', '.join(titles)}" for method, titles in made.items())
    return f"{on} the figures were: {'; '.join(told)}.{f' Intervals: {how}.' if how else ''}"


def _baseline(records: RunRecords) -> str:
    baseline = records.measured.get("baseline")
    if not baseline or baseline["accuracy"]["value"] is None:
        return ""
    return f"Always giving the commonest class reaches {value(baseline['accuracy'])}."


def _repeat(records: RunRecords) -> str:
    seed, device = records.manifest.get("seed"), records.manifest.get("device")
    if seed is None:
        return ""
    return f"Seed {seed}{f', device {device}' if device else ''}; one run."
