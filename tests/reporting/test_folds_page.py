"""The page of a cross-validation says what its records say, and what its intervals are not."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from page_parser import Page
from sample_records import GARMENTS, HOSTILE, RECIPE_TEXT, audit, confusion, garment, manifest, results

from convsmith.reporting import RunRecords, render_cross_validation

FOLDS, COUNT = 5, 60


def whole(names: tuple[str, ...] = GARMENTS, *, repeats: int = 1, seed: int = 0) -> RunRecords:
    """The records of a cross-validation that never was."""
    rng = np.random.default_rng(seed)
    shares = [0.8] * 10
    rows: list[dict[str, Any]] = []
    for repeat in range(1, repeats + 1):
        for fold in range(1, FOLDS + 1):
            part = results(confusion([COUNT // FOLDS] * 10, list(rng.uniform(0.6, 1, 10)), {}), names)
            name = f"fold-{fold}" if repeats == 1 else f"repeat-{repeat}-fold-{fold}"
            rows.append({"run": name, "fold": fold, "repeat": repeat, "train": 400 + fold, "tune": 70,
                         "test": COUNT * 10 // FOLDS, "metrics": part["metrics"]})  # fmt: skip
    test = results(confusion([COUNT] * 10, shares, {k: ((k + 1) % 10,) for k in range(10)}), names)
    if repeats > 1:
        test = {**test, "confusion": [[count + 1 / repeats for count in row] for row in test["confusion"]]}
    values = [row["metrics"]["accuracy"]["value"] for row in rows]
    spread = {"deviation": float(np.std(values, ddof=1)), "lowest": min(values), "highest": max(values), "n": len(rows)}
    told = {"folds": FOLDS, "repeats": repeats, "aside": 0, "runs": rows, "spread": {"accuracy": spread},
            "says": ["First <b>sentence</b>.", "Second sentence."]}  # fmt: skip
    found = audit(names, {"test": [COUNT] * 10})
    return RunRecords(
        name="2026-01-01-garments-5-folds-0a1b2c3d",
        path="runs/my folds",
        manifest=manifest(names, {"test": [COUNT] * 10}, "garments"),
        recipe_text=RECIPE_TEXT,
        audit={**found, "split": {"seed": 0, "says": "5 folds by class"}},
        results={"schema": 1, "task": "classification", "splits": {"test": test}, "cross_validation": told},
        thumbnails={item["id"]: garment(i % 10, i, 40) for i, item in enumerate(test["mistakes"][:5])},
    )


@pytest.fixture(scope="module")
def records() -> RunRecords:
    return whole()


@pytest.fixture(scope="module")
def page(records: RunRecords) -> Page:
    return Page(render_cross_validation(records))


def percents(estimate: dict[str, Any]) -> list[str]:
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return [f"{value:.1f} %", f"{low:.1f} to {high:.1f} %"]


def test_each_run_has_a_row_of_its_figures_and_leads_to_its_report(records: RunRecords, page: Page):
    told = records.results["cross_validation"]
    rows = page.table("Run", "Fold", "Trained on")
    for cells, row in zip(rows, told["runs"], strict=True):
        metrics = row["metrics"]
        assert cells == [row["run"], str(row["fold"]), str(row["train"]), str(row["test"]),
                         *percents(metrics["accuracy"]), f"{metrics['log_loss']['value']:.3f}"]  # fmt: skip
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert [f"{row['run']}/report.html" for row in told["runs"]] == [link for link in links if "/" in link]


def test_figures_spread_and_counts_are_the_records(records: RunRecords, page: Page):
    told, test = records.results["cross_validation"], records.results["splits"]["test"]
    first = page.table("Measure", "Value")[0]
    assert first[0].startswith("Accuracy")
    assert first[1:] == percents(test["metrics"]["accuracy"])
    spread = told["spread"]["accuracy"]
    assert page.table("Between runs") == [
        ["Accuracy", *(f"{100 * spread[key]:.1f} %" for key in ("deviation", "lowest", "highest"))]
    ]
    counts = [[int(cell.replace(",", "")) for cell in row[1:]] for row in page.table("True \\ said")]
    assert counts == test["confusion"]
    assert "Measured on 600 images, each of them by a network that had not learnt from it" in page.text


def test_the_first_screen_says_that_the_interval_tends_to_be_too_narrow_and_how_to_get_one_network(page: Page):
    assert "the interval tends to be too narrow" in page.text
    assert "convsmith train --recipe 'runs/my folds/given.yaml' --set data.folds=null" in page.text
    assert "First <b>sentence</b>. Second sentence." in page.text
    assert "Bengio and Grandvalet 2004" in page.text
    assert "played no part in training" not in page.text


def test_the_paragraph_for_a_paper_names_method_figures_and_spread(records: RunRecords, page: Page):
    accuracy = records.results["splits"]["test"]["metrics"]["accuracy"]
    spread = records.results["cross_validation"]["spread"]["accuracy"]
    assert "evaluated by 5-fold cross-validation on 600 images (5 folds by class)" in page.text
    assert f"accuracy {100 * accuracy['value']:.1f} % (95 % interval" in page.text
    assert f"standard deviation of {100 * spread['deviation']:.1f} points between the 5 test folds" in page.text


def test_of_repeats_counts_are_those_of_all_together_and_whole():
    records = whole(repeats=3)
    page = Page(render_cross_validation(records))
    table = records.results["splits"]["test"]["confusion"]
    counts = [[int(cell.replace(",", "")) for cell in row[1:]] for row in page.table("True \\ said")]
    assert counts == [[round(3 * count) for count in row] for row in table]
    assert "3 times repeated 5-fold cross-validation" in page.text
    assert "in 5 folds, drawn 3 times" in page.text
    assert [row[2] for row in page.table("Run", "Fold", "Drawing")] == [str(k) for k in (1, 2, 3) for _ in range(5)]


def test_hostile_names_add_no_element_and_no_link():
    records = whole(HOSTILE)
    told = records.results["cross_validation"]
    runs = [{**row, "run": name} for row, name in zip(told["runs"], ("javascript:alert(1)", *HOSTILE), strict=False)]
    hostile = {**told, "runs": runs, "says": list(HOSTILE)}
    made = replace(records, name=HOSTILE[0], path=HOSTILE[1], results={**records.results, "cross_validation": hostile})
    text = render_cross_validation(made)
    page, benign = Page(text), Page(render_cross_validation(whole()))
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in benign.elements} | {"bdi"}
    assert not [a["href"] for tag, a in page.elements if tag == "a" and not a["href"].startswith("#")]
    assert html.escape("</script><img src=x onerror=alert(1)>", quote=False) in text
    assert not {"script", "iframe", "object"} & {tag for tag, _ in page.elements}
