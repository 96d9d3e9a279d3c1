"""The page says what the records say, in a form that nothing in the records can change."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import math
import re
import subprocess
import sys
import time

import pytest
import sample_records
import sample_run
from hypothesis import given, settings
from hypothesis import strategies as st
from page_parser import DRAWN, Page

from convsmith.errors import RunError
from convsmith.reporting import SECTIONS, RunRecords, read_records, render
from convsmith.reporting.formats import clean, fit, percent, shorten


@pytest.fixture(scope="module")
def fashion() -> RunRecords:
    return sample_run.fashion()


@pytest.fixture(scope="module")
def page(fashion) -> Page:
    return Page(render(fashion))


def test_every_metric_and_its_interval_is_the_record_rounded(fashion, page):
    rows = page.table("Measure", "Value")
    test = fashion.results["splits"]["test"]
    records = [
        *test["metrics"].items(),
        ("accuracy", test["baseline"]["accuracy"]),
        ("accuracy", test["baseline"]["gain"]),
    ]
    assert len(rows) == len(records)
    for row, (name, estimate) in zip(rows, records, strict=True):
        if name in {"macro_f1", "log_loss"}:
            expected = [f"{estimate['value']:.3f}", f"{estimate['low']:.3f} to {estimate['high']:.3f}"]
        else:
            value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
            expected = [f"{value:.1f} %", f"{low:.1f} to {high:.1f} %"]
        assert row[1:] == expected
        assert estimate["method"] in row[0]
        assert f"n = {estimate['n']:,}" in row[0]


def test_every_count_of_the_confusion_matrix_is_in_its_table(fashion, page):
    rows = page.table("True \\ said")
    assert [[int(cell.replace(",", "")) for cell in row[1:]] for row in rows] == fashion.measured["confusion"]
    assert [row[0] for row in rows] == list(sample_run.GARMENTS)


def test_the_class_table_holds_each_class_once_worst_recall_first(fashion, page):
    rows = page.table("Class", "Images", "Named so")
    recalls = [float(row[3].rstrip(" %")) for row in rows]
    assert recalls == sorted(recalls)
    by_name = {row["name"]: row for row in fashion.measured["per_class"]}
    assert sorted(row[0] for row in rows) == sorted(by_name)
    for row in rows:
        record = by_name[row[0]]
        assert row[3] == f"{100 * record['recall']['value']:.1f} %"
        assert row[5] == f"{100 * record['precision']['value']:.1f} %"
        assert row[7] == f"{record['f1']['value']:.3f}"
        assert row[1:3] == [f"{record['n']:,}", f"{record['predicted']:,}"]


def test_mistakes_pairs_plan_data_and_curves_are_the_records(fashion, page):
    for row, record in zip(page.table("Image", "True class"), fashion.measured["mistakes"], strict=True):
        assert row[:3] == [record["id"], record["true"], record["predicted"]]
        assert row[3] == f"{100 * record['probability']:.1f} %"
    for row, record in zip(page.table("True class", "Taken for"), fashion.measured["pairs"], strict=False):
        assert row[2] == str(record["count"])
    settings = page.table("Setting", "Why")
    assert len(settings) == len(fashion.plan["choices"])
    assert all(
        choice["reason"] in row[1] and row[0].startswith(choice["name"])
        for row, choice in zip(settings, fashion.plan["choices"], strict=True)
    )
    assert page.table("Class", "train")[-1] == ["All", "55,000", "5,000", "10,000"]
    epochs = page.table("epoch", "Loss")
    assert [row[0] for row in epochs] == [str(k) for k in range(1, 29)]
    losses = [event["values"]["loss"] for event in fashion.log if event["kind"] == "epoch"]
    assert [row[1] for row in epochs] == [f"{loss:.3f}" for loss in losses]


def test_the_page_has_one_heading_unique_ids_and_no_dead_link(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert [tag for tag, _ in page.elements].count("h1") == 1
    assert len(ids) == len(set(ids))
    assert page.open == []
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert [name for name in ids if name in SECTIONS] == list(SECTIONS)


def test_each_chart_is_described_and_has_its_table(page):
    charts = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") in DRAWN]
    assert len(charts) == 12
    assert all(len(chart["aria-label"]) > 20 for chart in charts)
    assert sum(tag == "details" for tag, _ in page.elements) >= 6


@pytest.mark.parametrize("name", list(sample_run.SAMPLES))
def test_nothing_is_loaded_and_no_script_may_run(name):
    text = render(sample_run.SAMPLES[name]())
    policy = next(
        attributes["content"]
        for tag, attributes in Page(text).elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert (
        policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?:|url\(|@import|<script", text.replace("&lt;", ""), re.I)
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_hostile_names_add_no_element_no_attribute_and_no_control():
    text = render(sample_run.hostile())
    hostile = Page(text)
    benign = [Page(render(make())) for name, make in sample_run.SAMPLES.items() if name != "hostile"]
    known = {(tag, name) for page in benign for tag, attributes in page.elements for name in (*attributes, "")}
    found = {(tag, name) for tag, attributes in hostile.elements for name in (*attributes, "")}
    assert found <= known
    assert not {"script", "iframe", "object", "base", "form", "link"} & {tag for tag, _ in hostile.elements}
    assert all(
        a["src"].startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
        for tag, a in hostile.elements
        if tag == "img"
    )
    assert "</script><img src=x onerror=alert(1)>" in hostile.text
    assert not [
        c for c in text if ord(c) in {*range(9), *range(14, 32), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
    ]
    text.encode("utf-8")


@given(st.text(st.characters(), min_size=1, max_size=30))
@settings(max_examples=20, deadline=None)
def test_any_class_name_leaves_the_structure_as_it_is(name):
    def shape(names):
        counts = sample_run.confusion([9, 9], [0.8, 0.7], {})
        test = sample_run.results(counts, names)
        records = RunRecords(
            name=names[0],
            manifest=sample_run.manifest(names, {"test": [9, 9]}, names[0]),
            results={"splits": {"test": test}},
        )
        return [(tag, sorted(attributes)) for tag, attributes in Page(render(records)).elements]

    assert shape((name, "other")) == shape(("plain", "other"))


def test_good_chance_and_small_runs_open_with_different_screens():
    openings = {}
    for kind, make in {"good": sample_run.fashion, "chance": sample_run.chance, "unsure": sample_run.forty}.items():
        text = render(make())
        assert f'class="opening {kind}' in text
        openings[kind] = Page(text[text.index('<section class="opening') : text.index('<div class="details"')]).text
        for key in ("headline", "right", "fails", "trust", "data", "next", "command"):
            assert re.sub(r"\s+", " ", make().verdict[key]) in openings[kind]
    assert len(set(openings.values())) == 3


@pytest.mark.parametrize(
    ("kind", "colour"),
    [("good", "good"), ("partial", "partial"), ("chance", "chance"), ("unsure", "unsure"), ("?", "unknown")],
)
def test_a_verdict_of_the_diagnosis_sets_the_colour_and_is_shown(fashion, kind, colour):
    verdict = {
        "kind": kind,
        "headline": "It names 93 of 100.",
        "right": "From 40 it is so.",
        "next": "Go.",
    }
    text = render(dataclasses.replace(fashion, verdict=verdict))
    assert f'class="opening {colour}' in text
    assert "From 40 it is so." in text
    assert "It names 93 of 100." in text


def test_the_command_is_shown_as_it_can_be_typed(fashion):
    typed = {**fashion.manifest, "command": ["train", "my photos", "--epochs", "5"]}
    assert "convsmith train 'my photos' --epochs 5" in Page(render(dataclasses.replace(fashion, manifest=typed))).text
    assert "convsmith convsmith" not in render(fashion)


def test_the_headline_picture_ends_where_the_interval_does(fashion):
    accuracy = fashion.measured["metrics"]["accuracy"]
    edges = re.findall(r'<line class="edge" x1="([\d.]+)%"', render(fashion))
    assert [float(edge) for edge in edges] == [pytest.approx(100 * accuracy[end], abs=0.006) for end in ("low", "high")]


def told(records, **changes) -> str:
    return Page(render(dataclasses.replace(records, **changes))).text


def test_it_is_repeated_with_its_own_code_and_processes(fashion):
    code = {"name": "Net", "options": {"width": 8}}
    manifest = {**fashion.manifest, "model": {"name": "own", "code": code}, "world_size": 2}
    text = told(fashion, manifest=manifest, path="my runs/first")
    command = "torchrun --nproc-per-node=2 -m convsmith train --recipe 'my runs/first/recipe.yaml' "
    assert f"{command}--model 'my runs/first/code.py:Net' --arg width=8 --seed 1" in text
    assert "a function in Python" not in text
    assert "a function in Python" in told(fashion, manifest={**manifest, "model": {"name": "own"}})


def test_bit_for_bit_is_promised_only_where_it_holds(fashion):
    gpu = {**fashion.manifest, "device": "cuda"}
    assert "the same weights, bit for bit" in told(fashion)
    assert "close to this one, but not bit for bit" in told(fashion, manifest=gpu)
    assert "the same weights, bit for bit" in told(fashion, manifest=gpu, recipe={"train": {"deterministic": True}})


def test_a_run_shorter_than_an_epoch_is_told_in_steps(fashion):
    log = [event for event in sample_run.log(1, 40, 0.5, tune=False) if event["step"] < 40]
    assert "30 steps. Tune images were not looked at" in told(fashion, log=log)
    assert "28 passes over the training images, 4 min 53 s in all." in told(fashion).replace(chr(160), " ")


def test_what_an_interruption_changed_is_told(fashion):
    taken_up = {"kind": "resumed", "epoch": 1, "step": 215, "time": 0.0, "values": {}}
    text = told(fashion, log=[*fashion.log, taken_up])
    assert "the last command took" in text
    assert "resumed 1 time; that changes nothing in it." in text
    differs = {**taken_up, "values": {"differences": ["threads: 2 then, 8 now"]}}
    text = told(fashion, log=[*fashion.log, taken_up, differs, differs])
    assert "changes nothing" not in text
    assert "may differ from those of an unbroken run: threads: 2 then, 8 now." in text


def test_the_methods_name_steps_where_steps_ruled(fashion):
    recipe = {"train": {"epochs": 8, "steps": 6020}}
    assert "8 epochs; 6,020 steps" in told(fashion, recipe=recipe)
    text = told(fashion, recipe=recipe, plan={"choices": [{"name": "train.steps", "value": None}]})
    assert "6,020 steps (28 passes over the training images)" in text
    assert "8 epochs" not in text


def test_the_methods_of_weights_say_what_was_done_with_them(fashion):
    weights = {"source": "/home/me/lite0.safetensors", "sha256": "2b4a5f7e9a1870e2"}
    manifest = {**fashion.manifest, "weights": weights}
    train = {"optimizer": {"name": "adamw", "options": {"rate": 0.0003}}, "steps": 100, "blend": 0.5}
    recipe = {"transfer": {"mode": "probe", "frozen_stages": 1}, "train": train}
    text = told(fashion, manifest=manifest, recipe=recipe, probe={"decay": 0.01})
    assert "with pretrained weights (lite0.safetensors, SHA-256 2b4a5f7e9a18) was kept as it was" in text
    assert "its weight decay 0.01 chosen on the tuning images" in text
    assert "Nothing else was trained." in text
    assert "adamw" not in text.partition("Nothing else was trained.")[2].partition("Seed")[0]
    recipe["transfer"]["mode"] = "finetune"
    text = told(fashion, manifest=manifest, recipe=recipe, probe={"decay": 0.01})
    assert "and then fine-tuned" in text
    assert "the first 1 stage frozen; final weights 0.5 of the fine-tuned and 0.5 of the initial ones" in text


def test_a_run_without_results_says_so_and_names_the_command():
    records = dataclasses.replace(sample_run.fashion(), results={}, verdict={}, findings=())
    text = Page(render(records)).text
    assert "This run holds no results yet." in text
    assert f"convsmith evaluate {records.path}" in text


@pytest.mark.parametrize("part", [item.name for item in dataclasses.fields(RunRecords) if item.name != "name"])
def test_a_page_without_one_part_is_still_a_page(fashion, part):
    empty = dataclasses.replace(fashion, **{part: type(getattr(fashion, part))()})
    assert Page(render(empty)).open == []


def test_a_run_of_which_only_the_name_is_known_is_a_page():
    assert Page(render(RunRecords(name="lost"))).open == []


def test_what_is_undefined_is_said_with_its_reason_and_never_as_nought():
    counts = sample_run.confusion([10, 0, 10], [0.9, 0.0, 0.9], {})
    counts[:, 1] = 0
    test = sample_run.results(counts, ("a", "b", "c"))
    test["metrics"]["ece"] = {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "method": "none",
        "reason": "logits are missing",
    }
    page = Page(render(RunRecords(name="x", results={"splits": {"test": test}})))
    ece = next(row for row in page.table("Measure", "Value") if row[0].startswith("Calibration error"))
    assert ece[1:] == ["not defined: logits are missing"]
    row = next(row for row in page.table("Class", "Images", "Named so") if row[0] == "b")
    assert row[3:] == [
        "not defined: no image of this class",
        "not defined: never predicted",
        "not defined: no image of this class",
    ]


def test_another_task_shows_the_metrics_it_has():
    results = {
        "task": "segmentation",
        "splits": {"test": {"n": 12, "metrics": {"mean_iou": sample_records.about(0.61, 0.05, 12)}}},
    }
    page = Page(render(RunRecords(name="cells", results=results)))
    assert page.table("Measure", "Value")[0][1:] == ["0.610", "0.560 to 0.660"]
    assert "Mean iou: 0.610" in page.text


def test_many_classes_show_pairs_in_place_of_a_matrix():
    text = render(sample_run.many())
    assert "chart matrix" not in text
    assert len(Page(text).table("True class", "Taken for")) == 20


def test_figures_from_tune_images_are_labelled_as_such(fashion):
    only = {"splits": {"tune": fashion.results["splits"]["tune"]}}
    text = Page(render(dataclasses.replace(fashion, results=only))).text
    assert "Measured on 5,000 tune images, which were kept out of training but may have guided it" in text
    assert "played no part" not in text


def test_the_same_records_read_from_disk_give_the_same_page(fashion, tmp_path):
    folder = sample_run.write_folder(fashion, tmp_path / fashion.name)
    read = read_records(folder)
    expected = dataclasses.replace(fashion, path=str(folder), recipe=read.recipe)
    assert render(read) == render(expected) == render(read)


def test_the_report_is_made_without_torch(fashion, tmp_path):
    folder = sample_run.write_folder(fashion, tmp_path / "run")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; from convsmith.reporting import read_records, render\n"
        f"assert len(render(read_records(Path({str(folder)!r})))) > 10_000\n"
        "assert not {'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_records_that_cannot_be_read_are_named(fashion, tmp_path):
    folder = sample_run.write_folder(fashion, tmp_path / "run")
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"kind": "epo')
    assert len(read_records(folder).log) == len(fashion.log)
    (folder / "plan.json").write_text("{")
    with pytest.raises(RunError, match=r"plan\.json cannot be read") as caught:
        read_records(folder)
    assert "train again" in caught.value.mend
    with pytest.raises(RunError, match="no run folder"):
        read_records(tmp_path / "nowhere")


def test_pictures_outside_the_run_and_those_that_are_none_are_not_shown(fashion, tmp_path):
    folder = sample_run.write_folder(fashion, tmp_path / "run")
    secret = tmp_path / "secret.png"
    secret.write_bytes(sample_run.garment(0, 0))
    (folder / "evidence" / "thumbnails.json").write_text('{"a": "../../secret.png", "b": "thumbnails/0000.png"}')
    assert set(read_records(folder).thumbnails) == {"b"}
    none = {"thumbnails": dict.fromkeys(fashion.thumbnails, b"<svg/>")}
    none["map_pictures"] = dict.fromkeys(fashion.map_pictures, b"<svg/>")
    shown = Page(render(dataclasses.replace(fashion, **none)))
    assert not [tag for tag, _ in shown.elements if tag == "img"]


def test_the_largest_page_stays_small_and_quick(fashion):
    big = b"\x89PNG\r\n\x1a\n" + bytes(190_000)
    heavy = dataclasses.replace(
        fashion, thumbnails=dict.fromkeys(fashion.thumbnails, big), log=sample_run.log(4000, 500, 0.9)
    )
    start = time.perf_counter()
    text = render(heavy)
    assert len(text.encode()) < 10_000_000
    assert time.perf_counter() - start < 3


def test_a_share_below_one_is_never_rounded_to_all():
    assert [percent(x).replace(chr(160), " ") for x in (1.0, 0.0, 0.5)] == ["100.0 %", "0.0 %", "50.0 %"]
    assert percent(0.99996).startswith(">")
    assert percent(0.00001).startswith("<")


@given(st.floats(0, 1))
def test_a_percentage_reads_back_to_within_its_last_digit(share):
    text = percent(share)
    shown = float(re.sub(r"[^\d.]", "", text))
    assert math.isclose(shown, 100 * share, abs_tol=0.1001 if text[0] in "<>" else 0.0501)


@given(st.text(st.characters(), max_size=400), st.integers(5, 60))
def test_shortened_names_keep_their_ends_and_their_limit(name, length):
    short = shorten(name, length)
    assert len(short) <= length
    assert short[0] == clean(name)[0] if name else short == ""
    assert html.unescape(html.escape(fit(name, 8))) == fit(name, 8)
