"""What the audit found, in the report and on the page of `convsmith data`."""

from __future__ import annotations

import dataclasses
import re

import pytest
import sample_evidence
import sample_records
import sample_run
from page_parser import Page

from convsmith.diagnosis import oddities
from convsmith.reporting import DataRecord, render, render_data

ROLES = {"train": [5500] * 10, "tune": [500] * 10, "test": [1000] * 10}


@pytest.fixture(scope="module")
def audit():
    return sample_evidence.odd_audit(sample_records.audit(sample_records.GARMENTS, ROLES), sample_records.GARMENTS)


def part(text: str, name: str) -> str:
    """The markup of one section."""
    begin = text.index(f'<section class="part" id="{name}"')
    return text[begin : text.index("</section>", begin)]


def test_leaks_come_first_and_name_both_files_with_their_roles():
    section = part(render(sample_run.fashion()), "data")
    assert section.index('class="alarm"') < section.index('class="facts"') < section.index("chart rows counts")
    leaks = Page(section[: section.index('class="alarm mild"')]).table("One", "The other", "Alike")
    assert leaks == [
        ["train train/00017", "test test/00931", "equal"],
        ["train train/08800", "test test/05120", "mirrored, 96 % alike"],
    ]


def test_a_run_whose_audit_knows_no_leaks_shows_none():
    old = dataclasses.replace(sample_run.fashion(), audit=sample_records.audit(sample_records.GARMENTS, ROLES))
    text = render(old)
    assert 'class="alarm' not in text
    assert "other side of the split" not in Page(part(text, "data")).text


def test_everything_the_audit_found_is_in_the_section(audit):
    text = Page(part(render(sample_run.fashion()), "data")).text
    for item in (*audit["unreadable"], *audit["skipped"]):
        assert item["path"] in text
        assert item["reason"] in text
    for name, form in audit["forms"].items():
        assert f"{name} {form['n']} {form['rule']}" in text
        assert all(path in text for path in form["paths"])
    for ids in (*audit["duplicates"], *audit["label_conflicts"]):
        assert all(name in text for name in ids)
    assert "--group parent" in text
    assert audit["suspected_groups"][0]["says"] in text
    assert "The test images are the ones the source names; tune was carved from train." in text
    assert all(note in text for note in audit["notes"])


def test_groups_that_were_stated_replace_the_suspicion(audit):
    stated = {**audit, "groups": {"rule": "donor", "n": 31, "largest": 12}}
    text = Page(part(render(dataclasses.replace(sample_run.fashion(), audit=stated)), "data")).text.replace("\xa0", " ")
    assert "31 groups by donor , up to 12 images in one. No group stands on both sides" in text
    assert "--group parent" not in text


def test_an_option_can_be_pasted_whatever_the_rule():
    rule = r"it's (a|b)_\d+"
    found = {"rule": rule, "groups": 3, "images": 9, "largest": 4}
    text = render_data(
        DataRecord("p", "", {"images": 9, "suspected_groups": [found]}, next_command="convsmith train p")
    )
    assert r"convsmith train p --group 'it'" in Page(text).text
    assert r"'s (a|b)_\d+'" in Page(text).text


def test_the_bars_are_as_long_as_the_counts():
    text = part(render(sample_run.chance()), "data")
    widths = [float(width) for width in re.findall(r'class="part-[abc]"[^>]* width="([\d.]+)%"', text)]
    counts = [count for k in range(4) for count in ([280, 256, 1120, 210][k], *[[60, 55, 240, 45][k]] * 2)]
    assert widths == [pytest.approx(100 * count / 1600, abs=0.006) for count in counts]


def test_long_lists_are_cut_and_the_rest_counted(audit):
    paths = [{"path": f"train/{k}.jpg", "reason": "It is cut short."} for k in range(180)]
    text = Page(render_data(DataRecord("photos", "", {**audit, "unreadable": paths}))).text.replace("\xa0", " ")
    assert "List: 180 files could not be read" in text
    assert "And 130 more in audit.json." in text


def test_the_first_screen_of_the_data_says_what_there_is_what_is_strange_and_what_to_type(audit):
    text = sample_run.data("odd")
    first = Page(text[text.index('<section class="opening') : text.index('<div class="details"')]).text
    first = first.replace("\xa0", " ")
    assert "70,000 pictures in 10 classes." in first
    assert "The rarest is “T-shirt/top” with 300 pictures, the commonest “Trouser” with 7,000." in first
    assert all(sentence in first for sentence in oddities(audit)[:5])
    assert "And 2 more things, below." in first
    assert "Pictures become 224 px squares: the shorter side is scaled, the middle is cut out." in first
    assert "convsmith train photos/ --group parent" in first
    assert 'class="opening chance"' in text


def test_clean_images_open_with_what_was_looked_for():
    text = sample_run.data("clean")
    assert 'class="opening good"' in text
    assert "Nothing stood out in 70,000 pictures: no unreadable file" in Page(text).text
    assert "--group" not in text


def test_the_sheets_show_each_sample_and_the_parameters_of_each_version():
    text = sample_run.data("clean")
    samples, augmented = part(text, "samples"), part(text, "augmentation")
    assert samples.count("<img") == 60
    assert augmented.count("<img") == 4 * (1 + 4)
    assert Page(augmented).text.count("flip yes, turned") == 8
    assert "Trouser/3.jpg" in Page(samples).text


def test_hostile_names_are_inert_on_the_data_page():
    text = sample_run.data("hostile")
    page = Page(text)
    known = {(tag, name) for kind in ("odd", "clean") for tag, a in Page(sample_run.data(kind)).elements for name in a}
    assert {(tag, name) for tag, attributes in page.elements for name in attributes} <= known
    assert not {"script", "svg onload"} & {tag for tag, _ in page.elements}
    assert all(a["src"].startswith("data:image/png;base64,") for tag, a in page.elements if tag == "img")
    assert not [
        c for c in text if ord(c) in {*range(9), *range(14, 32), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
    ]
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    text.encode("utf-8")


def test_pictures_that_are_none_are_left_out():
    samples = [{"id": "x", "class": "b", "picture": b"<svg onload='alert(1)'/>"}]
    text = render_data(DataRecord("photos", "", {"images": 1, "classes": {"b": 1}}, samples=samples))
    assert "onload" not in text
    assert 'id="samples"' not in text


def test_of_too_many_large_pictures_each_class_keeps_some_and_the_page_stays_light():
    big = b"\x89PNG\r\n\x1a\n" + bytes(600_000)
    samples = [{"id": f"{name}{k}", "class": name, "picture": big} for name in "abc" for k in range(12)]
    text = render_data(DataRecord("photos", "", {"images": 36, "classes": dict.fromkeys("abc", 12)}, samples=samples))
    assert len(text) < 20_000_000
    assert [part(text, "samples").count(f">{name}0<") for name in "abc"] == [1, 1, 1]
    assert Page(text).open == []


def test_what_changed_since_an_earlier_run_is_told_first():
    assert "Since the run 2025-11-20-photos-12ab90: 12 images more, 3 fewer." in Page(sample_run.data("clean")).text


def test_a_record_of_which_only_the_source_is_known_is_a_page():
    page = Page(render_data(DataRecord("lost", "", {})))
    assert page.open == []
    assert "The images were not looked through." in page.text
