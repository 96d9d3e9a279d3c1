"""What must not stand on both sides of a split: groups, near duplicates, copies; and what a run says where it does."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from pictures_made import photo, photo_folder
from PIL import Image, ImageOps
from tuned import Notes, fine_tuning, train

from convsmith import pipeline
from convsmith.images import near
from convsmith.pipeline.preparing import prepare
from convsmith.recipe import Data, Recipe
from convsmith.run_folder import RunFolder

PATIENT = r"(p\d+)_"


def named(number: int) -> str:
    """Five pictures of each patient."""
    return f"p{number // 5:02d}_{number:03d}.png"


def rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "split.csv").read_text().splitlines()))


def test_no_group_stands_on_two_sides_of_a_run_and_intervals_allow_for_groups(weights: Path, tmp_path: Path):
    source = photo_folder(tmp_path / "scans", classes=("ill", "well"), each=40, names=named)
    run = train(fine_tuning(source, weights, data__group=PATIENT, train__epochs=1), tmp_path / "runs")
    sides = defaultdict(set)
    for row in rows(run):
        sides[row["group"]].add(row["role"])
    assert set(sides) == {f"p{number:02d}" for number in range(8)}
    assert all(len(roles) == 1 for roles in sides.values())
    assert set.union(*sides.values()) == {"train", "tune", "test"}
    record = RunFolder(run)
    assert record.read_json("audit.json")["groups"] == {"rule": PATIENT, "n": 8, "largest": 10}
    for figure in (
        record.read_json("results.json")["splits"]["test"]["metrics"]["accuracy"],
        record.read_json("results.json")["splits"]["test"]["metrics"]["log_loss"],
        record.read_json("probe.json")["test"]["accuracy"],
        record.read_json("learning_curve.json")["points"][0]["accuracy"],
    ):
        assert "group" in figure["method"], figure
    again = train(Recipe.from_yaml((run / "recipe.yaml").read_text()), tmp_path / "again")
    assert (again / "split.csv").read_text() == (run / "split.csv").read_text()


def test_groups_that_a_stated_split_tears_are_left_out_and_the_run_can_be_repeated(weights: Path, tmp_path: Path):
    source = tmp_path / "scans"
    photo_folder(source / "train", classes=("ill", "well"), each=30, names=named)
    photo_folder(
        source / "test", classes=("ill", "well"), each=10, seed=1, names=lambda i: f"p{i // 5 + 5:02d}_t{i}.png"
    )
    recipe = fine_tuning(source, weights, data__group=PATIENT, train__epochs=1)
    run = train(recipe, tmp_path / "runs")
    assert {row["group"] for row in rows(run) if row["role"] == "test"} == {"p05", "p06"}
    assert {row["group"] for row in rows(run) if row["role"] != "test"} == {f"p{number:02d}" for number in range(5)}
    (note,) = [note for note in RunFolder(run).read_json("audit.json")["notes"] if "left out" in note]
    assert "10 train images are left out" in note
    assert "p05" in note
    settled = Recipe.from_yaml((run / "recipe.yaml").read_text())
    again = train(settled, tmp_path / "again")
    assert (again / "split.csv").read_text() == (run / "split.csv").read_text()
    (run / "report.html").unlink()
    pipeline.resume(RunFolder(run))
    assert (run / "report.html").is_file()


def test_tune_images_of_torn_groups_are_counted_apart(tmp_path: Path):
    for role, first in (("train", 0), ("val", 5), ("test", 6)):
        photo_folder(
            tmp_path / "scans" / role, classes=("ill", "well"), each=10, seed=first, side=24,
            names=lambda i, first=first: f"p{i // 5 + first:02d}_{i}.png",
        )  # fmt: skip
    notes = prepare(Data(source=str(tmp_path / "scans"), group=PATIENT), lambda message: None).audit["notes"]
    assert any("10 tune images are left out" in note and "p06" in note for note in notes), notes


def test_copies_across_a_stated_split_are_found_said_and_measured_without(weights: Path, tmp_path: Path):
    source = photo_folder(tmp_path / "source" / "train", each=16, side=64).parent
    generator = np.random.default_rng(9)
    for k, name in enumerate(("ant", "bee", "cat")):
        target = source / "val" / name
        target.mkdir(parents=True)
        for i in range(8):
            photo(generator, side=64, tint=k).save(target / f"new{i}.png")
    (source / "val" / "ant" / "same.png").write_bytes((source / "train" / "ant" / "000.png").read_bytes())
    Image.open(source / "train" / "bee" / "001.png").save(source / "val" / "bee" / "pressed.jpg", quality=60)
    ImageOps.mirror(Image.open(source / "train" / "cat" / "002.png")).save(source / "val" / "cat" / "mirrored.png")
    run = RunFolder(train(fine_tuning(source, weights, train__epochs=1), tmp_path / "runs"))

    leaks = run.read_json("audit.json")["leaks"]
    assert {(leak["kind"], *sorted((leak["first"], leak["second"]))) for leak in leaks} == {
        ("same", "train/ant/000.png", "val/ant/same.png"),
        ("near", "train/bee/001.png", "val/bee/pressed.jpg"),
        ("mirrored", "train/cat/002.png", "val/cat/mirrored.png"),
    }
    copies = {"val/ant/same.png", "val/bee/pressed.jpg", "val/cat/mirrored.png"}
    roles = {row["id"]: row["role"] for row in rows(run.path)}
    assert {roles[name] for name in copies} == {"test"}
    test = run.read_json("results.json")["splits"]["test"]
    assert test["n"] == 27
    assert (test["without_leaks"]["n"], test["without_leaks"]["left_out"]) == (24, 3)
    (finding,) = [each for each in run.read_json("findings.json")["findings"] if each["rule"] == "leak"]
    assert set(finding["where"]) == copies
    assert copies <= set(run.read_json("evidence/thumbnails.json"))  # the report shows the pairs
    with np.load(run.predictions / "test.npz") as arrays:
        right = arrays["logits"].argmax(axis=1) == arrays["targets"]
        kept = right[[name not in copies for name in arrays["ids"]]]
    assert test["without_leaks"]["accuracy"]["value"] == pytest.approx(kept.mean())


def test_near_duplicates_in_one_folder_share_a_role_and_are_no_leak(tmp_path: Path):
    source = photo_folder(tmp_path / "source", each=12, side=48)
    for path in sorted(source.rglob("*.png"))[::3]:
        Image.open(path).save(path.with_suffix(".jpg"), quality=70)
    found = prepare(Data(source=str(source)), lambda message: None)
    roles = dict(zip(found.dataset.ids, found.dataset.roles, strict=True))
    assert len(found.audit["near_duplicates"]) == 12
    assert all(roles[pair["first"]] == roles[pair["second"]] for pair in found.audit["near_duplicates"])
    assert found.audit["leaks"] == []
    assert "12 pairs of near duplicates kept together" in found.audit["split"]["says"]


def test_it_is_noted_where_not_all_images_were_compared_with_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = Data(source=str(photo_folder(tmp_path / "source", each=5, side=40)))
    notes = Notes()
    assert not [note for note in prepare(data, notes).audit["notes"] if "compared" in note]
    monkeypatch.setattr(near, "COMPARED", 8)
    (note,) = [note for note in prepare(data, notes).audit["notes"] if "compared" in note]
    assert "15 pictures were compared" in note
    assert "some pairs may be missing" in note


def test_reviewed_labels_are_laid_over_all_images_before_some_are_chosen(tmp_path: Path):
    """A limit draws by class, so it has to know the labels; and none of them may name an image it left out."""
    source = photo_folder(tmp_path / "source", classes=("ant", "bee"), each=20, side=24)
    reviewed = tmp_path / "labels.csv"
    moved = [f"ant/{number:03d}.png" for number in range(8)]
    reviewed.write_text("id,label\n" + "".join(f"{name},bee\n" for name in moved) + "ant/019.png,-\n")
    found = prepare(Data(source=str(source), labels=str(reviewed), limit=18), lambda message: None)
    counts = np.bincount(found.dataset.targets)
    assert counts.sum() == 18
    assert counts[1] / 18 == pytest.approx(28 / 39, abs=0.06)
    assert "ant/019.png" not in found.dataset.ids
    targets = dict(zip(found.dataset.ids, found.dataset.targets.tolist(), strict=True))
    assert {targets[name] for name in moved if name in targets} == {1}
    assert sum("9 labels from" in note for note in found.audit["notes"]) == 1
