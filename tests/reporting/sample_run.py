"""Runs that never were, for looking at the report and for its tests; whole, failed, small, hostile and of many classes.

Numbers are drawn once from a seed and counted honestly: every figure follows from the confusion matrix, so that what
the page says can be checked against it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sample_evidence import (
    cells_of,
    data_record,
    hostile_audit,
    learning_curve,
    maps_of,
    odd_audit,
    pictures_of,
    pictures_of_pairs,
    probe,
    slices,
    without_leaks,
)  # fmt: skip
from sample_records import (
    ALIKE,
    GARMENTS,
    HOSTILE,
    PLAN,
    RECALLS,
    RECIPE,
    RECIPE_TEXT,
    audit,
    confusion,
    garment,
    log,
    manifest,
    results,
)  # fmt: skip

from convsmith.reporting import RunRecords, render_data


def fashion() -> RunRecords:
    """A good run on ten kinds of garment."""
    test = results(confusion([1000] * 10, RECALLS, ALIKE), GARMENTS)
    tune = results(confusion([500] * 10, RECALLS, ALIKE), GARMENTS)
    train = results(confusion([500] * 10, [min(1.0, r + 0.024) for r in RECALLS], ALIKE), GARMENTS)
    thumbnails = {item["id"]: garment(GARMENTS.index(item["true"]), i) for i, item in enumerate(test["mistakes"][:24])}
    examples = [
        {"id": f"test/{k:05d}", "true": GARMENTS[k], "predicted": GARMENTS[k], "probability": 0.99}
        for k in (8, 9, 1, 3)
    ]
    thumbnails |= {item["id"]: garment(GARMENTS.index(item["true"]), 90 + i) for i, item in enumerate(examples)}
    roles = {"train": [5500] * 10, "tune": [500] * 10, "test": [1000] * 10}
    test |= {"slices": slices(10_000), "without_leaks": without_leaks(test, 2)}
    cells = cells_of(test["confusion"], GARMENTS)
    thumbnails |= pictures_of(cells, GARMENTS)
    found = odd_audit(audit(GARMENTS, roles), GARMENTS)
    thumbnails |= pictures_of_pairs(found)
    mapped, map_pictures = maps_of(test["mistakes"][:6], examples)
    verdict = {
        "headline": "It names the right class for 93 of 100 images it has never seen.",
        "right": "The true figure very probably lies between 92.7 and 93.6 of 100. "
        "Always giving the same answer would reach 10.",
        "fails": "Shirts: it finds 80 of 100, and takes the others mostly for T-shirts and pullovers.",
        "trust": "Sure: it rests on 10,000 images that chose nothing, and nothing in the records speaks against it.",
        "data": "2 test pictures are also among the training pictures (the same picture or nearly so). 1 picture is "
        "there under more than one name; 1 pair of nearly equal pictures have different names. 2 files could not be "
        "read and were left out. And 3 more things, below.",
        "next": "It was still improving when it stopped. Train twice as long:",
        "command": "convsmith train fashion-mnist --budget 10m",
        "kind": "good",
    }
    findings = [
        {
            "rule": "undertrained",
            "severity": "warning",
            "says": "The loss was still falling when training ended, so a longer run should end lower.",
            "evidence": {"slope_per_epoch": -0.0061, "interval": [-0.0083, -0.0039], "epochs": 28},
            "where": [],
            "change": {"train.epochs": 56},
            "experiment": "convsmith train --recipe runs/2025-11-21-fashion-mnist-5f1c9a/recipe.yaml "
            "--set train.epochs=56",
            "source": "Google Tuning Playbook",
        },
        {
            "rule": "exact-duplicates",
            "severity": "hint",
            "says": "One picture is both among the training and the test images; that flatters the figure "
            "by at most 0.01 points.",
            "evidence": {"shared_images": 1, "test_images": 10000},
            "where": ["train/00017", "test/00931"],
            "change": {},
            "experiment": "",
            "source": "",
        },
    ]
    return RunRecords(
        name="2025-11-21-fashion-mnist-5f1c9a",
        path="runs/2025-11-21-fashion-mnist-5f1c9a",
        manifest=manifest(GARMENTS, roles, "fashion-mnist"),
        recipe=RECIPE,
        recipe_text=RECIPE_TEXT,
        plan=PLAN,
        audit=found,
        log=log(28, 215, 0.933),
        probe=probe(test),
        learning_curve=learning_curve(),
        cells=cells,
        maps=mapped,
        map_pictures=map_pictures,
        findings=findings,
        verdict=verdict,
        results={"schema": 1, "task": "classification", "splits": {"test": test, "tune": tune, "train": train}},
        thumbnails=thumbnails,
        examples=examples,
    )


def chance() -> RunRecords:
    """A run that learnt nothing: four kinds of defect at chance level."""
    names = ("crack", "dent", "good", "scratch")
    test = results(confusion([60, 55, 240, 45], [0.2, 0.15, 0.55, 0.2], {}), names)
    roles = {"train": [280, 256, 1120, 210], "tune": [60, 55, 240, 45], "test": [60, 55, 240, 45]}
    verdict = {
        "headline": "It does no better than always answering “good”.",
        "right": "It is right for 40 of 100 images, very probably between 36 and 45; "
        "the same answer every time would reach 60.",
        "fails": "Everywhere: no class is found more often than guessing would.",
        "trust": "The figure can; the network cannot. It has not learnt what tells the classes apart.",
        "data": "Nothing stood out in 2,666 pictures: no unreadable file.",
        "next": "Check that labels belong to their images before anything else:",
        "command": "convsmith data defects/ --check labels",
        "kind": "chance",
    }
    finding = {
        "rule": "no-better-than-baseline",
        "severity": "error",
        "says": "Accuracy lies below that of always answering “good”.",
        "evidence": {"accuracy": 0.4025, "baseline": 0.6, "gain_interval": [-0.267, -0.128]},
        "source": "RULES 29",
    }
    return RunRecords(
        name="2025-11-20-defects-77aa01",
        path="runs/2025-11-20-defects-77aa01",
        manifest=manifest(names, roles, "defects/"),
        recipe=RECIPE,
        recipe_text=RECIPE_TEXT,
        plan=PLAN,
        audit=audit(names, roles, 32),
        log=log(10, 8, 0.38),
        results={"schema": 1, "task": "classification", "splits": {"test": test}},
        findings=[finding],
        verdict=verdict,
    )


def forty() -> RunRecords:
    """A run with forty test images: good, but hardly known to be."""
    names = ("cat", "dog")
    test = results(confusion([20, 20], [0.9, 0.85], {}), names)
    roles = {"train": [93, 94], "tune": [20, 20], "test": [20, 20]}
    verdict = {
        "headline": "It is probably right for about 9 of 10 images, but 40 are too few to say.",
        "right": "It was right for 35 of 40; the true figure may be anything from 74 to 95 of 100.",
        "fails": "Too few mistakes (5) to name a class it fails on.",
        "trust": "Only roughly. With 400 test images the interval would be a third as wide.",
        "data": "Nothing stood out in 267 pictures: no unreadable file.",
        "next": "Collect more test images and measure again:",
        "command": "convsmith evaluate runs/2025-11-19-pets-12ab90 --data more-pets/",
        "kind": "unsure",
    }
    return RunRecords(
        name="2025-11-19-pets-12ab90",
        path="runs/2025-11-19-pets-12ab90",
        manifest=manifest(names, roles, "pets/"),
        recipe=RECIPE,
        recipe_text=RECIPE_TEXT,
        plan=PLAN,
        audit=audit(names, roles),
        log=log(6, 4, 0.88, tune=False),
        verdict=verdict,
        results={"schema": 1, "task": "classification", "splits": {"test": test}},
    )


def hostile() -> RunRecords:
    """Ten classes whose names would break a careless page, and files named alike."""
    ids = [f"{HOSTILE[i % 10]}/{HOSTILE[(i * 3) % 10]}-{i}.png" for i in range(30)]
    test = results(confusion([30, 20, 25, 12, 0, 31, 9, 14, 22, 8], RECALLS, ALIKE), HOSTILE, ids)
    thumbnails: dict[str, bytes] = {item["id"]: garment(i, i, 40) for i, item in enumerate(test["mistakes"][:12])}
    thumbnails[ids[0]] = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(3)'/>"
    roles = {"train": [99] * 10, "test": [30, 20, 25, 12, 0, 31, 9, 14, 22, 8]}
    seen = audit(HOSTILE, roles)
    seen |= {
        "unreadable": [{"path": ids[0], "reason": "cannot identify image file " + ids[1]}],
        "duplicates": [ids[:3]],
        "skipped": [{"path": name, "reason": "not an image"} for name in HOSTILE],
        "notes": list(HOSTILE),
    }
    seen |= hostile_audit(HOSTILE, ids)
    test |= {"slices": [item | {"by": HOSTILE[0], "name": HOSTILE[3]} for item in slices(171)]}
    cells = cells_of(test["confusion"], HOSTILE)
    thumbnails |= {name: garment(k, k, 40) for k, name in enumerate(ids)} | {ids[0]: thumbnails[ids[0]]}
    cells = [cell | {"ids": ids[:6]} for cell in cells]
    mapped, map_pictures = maps_of(test["mistakes"][:3], ())
    mapped |= {"method": HOSTILE[0], "layer": HOSTILE[1], "source": HOSTILE[3]}
    finding = {
        "rule": HOSTILE[0],
        "severity": "error",
        "says": f"Class {HOSTILE[0]} is weak.",
        "evidence": {HOSTILE[0]: HOSTILE[1]},
        "where": list(HOSTILE),
        "change": {HOSTILE[0]: HOSTILE[2]},
        "experiment": HOSTILE[0],
        "source": HOSTILE[5],
    }
    verdict = dict.fromkeys(
        ("headline", "right", "fails", "trust", "data", "next", "command"), HOSTILE[0] + " " + HOSTILE[3]
    )
    record = manifest(HOSTILE, roles, HOSTILE[0]) | {
        "device": HOSTILE[1],
        "command": ["convsmith", "train", HOSTILE[0]],
    }
    return RunRecords(
        name=HOSTILE[0],
        path="runs/" + HOSTILE[0],
        manifest=record,
        recipe=RECIPE,
        recipe_text="name: |\n  " + HOSTILE[0] + "\n",
        plan={
            "choices": [{"name": HOSTILE[0], "value": HOSTILE[5], "reason": HOSTILE[1], "measured": {HOSTILE[0]: 1}}]
        },
        audit=seen,
        log=log(3, 4, 0.5),
        findings=[finding],
        verdict={**verdict, "kind": HOSTILE[0]},
        probe=probe(test) | {"says": HOSTILE[0], "model": HOSTILE[1], "weights": HOSTILE[3], "views": list(HOSTILE)},
        learning_curve=learning_curve() | {"says": HOSTILE[0], "method": HOSTILE[2]},
        cells=cells,
        maps=mapped,
        map_pictures=map_pictures,
        results={"schema": 1, "task": "classification", "splits": {"test": test}},
        thumbnails=thumbnails,
        examples=[{"id": ids[1], "true": HOSTILE[5], "predicted": HOSTILE[5], "probability": None}],
    )


def many() -> RunRecords:
    """Sixty classes, rare ones among them, some without a test image."""
    names = tuple(f"species {k:02d}" if k % 7 else f"a rather long Latin species name {k:02d}" for k in range(60))
    per_class = [0 if k % 17 == 3 else 2 + (k * 7) % 23 for k in range(60)]
    recalls = [0.5 + 0.5 * ((k * 13) % 60) / 60 for k in range(60)]
    test = results(confusion(per_class, recalls, {k: ((k + 1) % 60,) for k in range(60)}), names)
    roles = {"train": [5 * n + 3 for n in per_class], "test": per_class}
    return RunRecords(
        name="2025-11-18-beetles-0f0f0f",
        manifest=manifest(names, roles, "beetles/"),
        audit=audit(names, roles),
        results={"schema": 1, "task": "classification", "splits": {"test": test}},
        log=log(2, 30, 0.7),
    )


def data(name: str) -> str:
    """The page of `convsmith data`: `odd` where all that can be strange is, `hostile` in names, else `clean`."""
    if name == "hostile":
        ids = [f"{HOSTILE[i % 10]}/{HOSTILE[(i * 3) % 10]}-{i}.png" for i in range(30)]
        record = {**hostile().audit, "classes": dict.fromkeys(HOSTILE, 3)}
        return render_data(data_record(record, HOSTILE, ids))
    roles = {"train": [5500] * 10, "tune": [500] * 10, "test": [1000] * 10}
    record = audit(GARMENTS, roles)
    if name == "odd":
        return render_data(data_record(odd_audit(record, GARMENTS), GARMENTS))
    empty = dict.fromkeys(("unreadable", "duplicates", "near_duplicates", "leaks", "label_conflicts"), ())
    return render_data(data_record(record | empty | {"suspected_groups": [], "groups": None}, GARMENTS))


SAMPLES = {"fashion": fashion, "chance": chance, "forty": forty, "hostile": hostile, "many": many}


def write_folder(records: RunRecords, folder: Path) -> Path:
    """Write records as a run folder, so that they can be read back."""
    (folder / "evidence" / "thumbnails").mkdir(parents=True)
    for name in ("manifest", "plan", "audit", "results", "probe", "learning_curve"):
        (folder / f"{name}.json").write_text(json.dumps(getattr(records, name)), encoding="utf-8")
    found = {"findings": list(records.findings), "verdict": records.verdict}
    (folder / "findings.json").write_text(json.dumps(found), encoding="utf-8")
    (folder / "recipe.yaml").write_text(records.recipe_text, encoding="utf-8")
    (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in records.log), encoding="utf-8")
    index = {key: f"thumbnails/{k:04d}.png" for k, key in enumerate(records.thumbnails)}
    for key, name in index.items():
        (folder / "evidence" / name).write_bytes(records.thumbnails[key])
    (folder / "evidence" / "thumbnails.json").write_text(json.dumps(index), encoding="utf-8")
    evidence: dict[str, Any] = {"examples": {"examples": list(records.examples)}}
    evidence |= {"cells": {"cells": list(records.cells)}, "maps": records.maps}
    for name, record in evidence.items():
        (folder / "evidence" / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "evidence" / "maps").mkdir()
    for name, data in records.map_pictures.items():
        (folder / "evidence" / name).write_bytes(data)
    return folder
