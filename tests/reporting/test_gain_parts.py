"""What is gained, what is weaker, and the pictures behind it, as the records say."""

from __future__ import annotations

import dataclasses
import re

import pytest
import sample_evidence
import sample_run
from page_parser import Page
from test_data_parts import part

from convsmith.reporting import read_records, render
from convsmith.reporting.gains import gain_words, stage_words


@pytest.fixture(scope="module")
def fashion():
    return sample_run.fashion()


@pytest.fixture(scope="module")
def text(fashion):
    return render(fashion)


@pytest.mark.parametrize("missing", ["probe", "learning_curve", "maps"])
def test_a_section_is_there_only_where_its_record_is(fashion, text, missing):
    anchor = {"probe": "compared", "learning_curve": "learning", "maps": "maps"}[missing]
    without = render(dataclasses.replace(fashion, **{missing: {}}))
    assert f'id="{anchor}"' in text
    assert f'id="{anchor}"' not in without


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (
            (0.04, 0.0, 0.08),
            "better than X by 4.0 points, between 0.0 and 8.0: not proven, because the interval holds 0.",
        ),
        ((0.04, 0.01, 0.07), "better than X by 4.0 points, between 1.0 and 7.0: shown by these images."),
        ((-0.04, -0.07, -0.01), "worse than X by 4.0 points, between 1.0 and 7.0: shown by these images."),
        ((-0.02, -0.05, 0.01), "worse than X by 2.0 points, between −5.0 and 1.0: not proven, because the interval"),
        ((0.0, -0.02, 0.02), "neither better nor worse than X, between −2.0 and 2.0: not proven"),
        ((0.02, 0.0001, 0.05), "better than X by 2.0 points, between 0.01 and 5.0: shown by these images."),
    ],
)
def test_a_gain_is_called_proven_only_where_its_interval_leaves_out_nought(ends, said):
    assert gain_words(dict(zip(("value", "low", "high"), ends, strict=True)), "X").startswith(f"It is {said}")


def test_the_simpler_ways_stand_beside_the_network_with_their_intervals(fashion, text):
    test, probe = fashion.measured, fashion.probe["test"]["accuracy"]
    rows = Page(part(text, "compared")).table("Way", "Accuracy")
    for row, estimate in zip(rows, (test["baseline"]["accuracy"], probe, test["metrics"]["accuracy"]), strict=True):
        value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
        assert row[1:] == [f"{value:.1f} %", f"{low:.1f} to {high:.1f} %"]
    assert "It is better than the linear probe by 4.0 points, between 3.4 and 4.6" in Page(part(text, "compared")).text


def test_a_gain_without_an_interval_is_not_told(fashion):
    told = render(dataclasses.replace(fashion, probe={**fashion.probe, "gain": None}))
    assert "than the linear probe" not in Page(part(told, "compared")).text


def test_slices_are_weaker_only_where_shown_and_their_number_is_said(fashion, text):
    section = Page(part(text, "slices"))
    assert (
        "4 kinds of image were looked at; surely weaker than the rest: darkest third (brightness), 84.0 %"
        in section.text.replace("\xa0", " ")
    )
    rows = section.table("Kind", "Images")
    assert [row[-1] for row in rows] == ["weaker", *["no difference shown"] * 3]
    assert [row[0] for row in rows] == [f"{item['by']}: {item['name']}" for item in fashion.measured["slices"]]
    assert "Of 4 such comparisons about 0.2 would leave it out by chance" in section.text


def test_the_learning_curve_is_drawn_on_a_scale_of_doublings(text):
    section = part(text, "learning")
    places = [float(x) for x in re.findall(r'class="point a" cx="([\d.]+)%"', section)]
    assert len(places) == 5
    halves = [places[k + 1] - places[k] for k in (0, 1)] + [places[4] - places[2]]
    assert halves == [pytest.approx(halves[0], abs=0.02)] * 3
    assert "Accuracy still rises: from half of the images to all it gained 2.1 points" in section
    rows = Page(section).table("Training images", "Of all")
    assert [row[0] for row in rows] == ["6,875", "13,750", "27,500", "41,250", "55,000"]
    assert rows[-1][2] == "93.1 %"


@pytest.mark.parametrize(
    ("ends", "said", "unsaid"),
    [
        ((0.101, 0.032, 0.175), "better than those of stride 16 by 10.1 points, between 3.2 and 17.5", "specific"),
        ((-0.05, -0.09, -0.01), "worse than those of stride 16 by 5.0 points, between 1.0 and 9.0: they are more "
         "specific", "Either"),
        ((0.04, -0.01, 0.09), "not shown to be better than those of stride 16; the difference is 4.0 points, between "
         "−1.0 and 9.0. Either", "carries over"),
        ((0.04, 0.0, 0.09), "not shown to be better", "carries over"),
        ((0.0, 0.0, 0.0), "not shown to be better", "carries over"),
    ],
)  # fmt: skip
def test_features_are_called_specific_or_useful_only_where_the_interval_leaves_out_nought(ends, said, unsaid):
    told = stage_words(dict(zip(("value", "low", "high"), ends, strict=True)), "stride 32", "stride 16")
    assert told.startswith(f"The features of the last stage, stride 32, are {said}")
    assert unsaid not in told


def test_without_a_gain_nothing_is_said_of_how_general_features_are():
    assert "cannot be told" in stage_words({"value": 0.1, "low": None, "high": None}, "stride 32", "stride 16")
    assert "cannot be told" in stage_words(None, "stride 32", "stride 16")


def test_each_stage_stands_with_its_interval_and_its_gain_from_the_image_on(fashion, text):
    section = part(text, "stages")
    rows = Page(section).table("Stage", "Stride")
    assert [row[0] for row in rows] == ["stem", "stride 4", "stride 8", "stride 16", "stride 32"]
    for row, stage in zip(rows, fashion.probe["stages"], strict=True):
        value, low, high = (100 * stage["accuracy"][key] for key in ("value", "low", "high"))
        assert row[1:5] == [
            f"{stage['stride']}",
            f"{stage['features']:,}",
            f"{value:.1f} %",
            f"{low:.1f} to {high:.1f} %",
        ]
        assert row[5] == (f"{100 * stage['gain']['value']:.1f} %" if stage["gain"] else "–")
    assert section.count('class="dot"') == 5
    page = Page(section).text.replace("\xa0", " ")
    assert "learned from 10,000 images" in page
    assert "learned from 55,000 images and their mirror images as well" in page


def test_stages_are_shown_only_where_there_are_two_to_compare(fashion):
    for stages in ([], fashion.probe["stages"][-1:]):
        assert 'id="stages"' not in render(dataclasses.replace(fashion, probe={**fashion.probe, "stages": stages}))


def test_a_wrong_cell_leads_to_its_own_pictures(fashion, text):
    section = part(text, "confusions")
    page = Page(section)
    links = [a for tag, a in page.elements if tag == "a" and "aria-label" in a]
    assert len(links) == len(fashion.cells) == 8
    for cell in fashion.cells:
        row, column = (fashion.classes.index(cell[key]) for key in ("true", "predicted"))
        link = next(a for a in links if a["href"] == f"#cell-{row}-{column}")
        assert link["aria-label"].startswith(f"“{cell['true']}” taken for “{cell['predicted']}”, {cell['n']} times")
        begin = section.index(f'id="cell-{row}-{column}"')
        gallery = Page(section[section.rindex("<ul", 0, begin) : section.index("</ul>", begin) + 5])
        assert sum(tag == "img" for tag, _ in gallery.elements) == 5
        assert all(name in gallery.text for name in cell["ids"])


def test_cells_without_pictures_are_no_links(fashion):
    bare = part(render(dataclasses.replace(fashion, thumbnails={})), "confusions")
    assert "cell-" not in bare
    assert 'role="img"' in bare


def test_cells_may_name_classes_by_index(fashion):
    numbered = [
        {**cell, "true": fashion.classes.index(cell["true"]), "predicted": fashion.classes.index(cell["predicted"])}
        for cell in fashion.cells
    ]
    assert part(render(dataclasses.replace(fashion, cells=numbered)), "confusions") == part(
        render(fashion), "confusions"
    )


def test_maps_stand_beside_their_images_right_and_wrong(fashion, text):
    section = part(text, "maps")
    wrong, right = section.split('<h3 class="ink-right">')
    assert wrong.count("<img") == 2 * 6
    assert right.count("<img") == 2 * 4
    assert "Selvaraju et al. 2017" in section
    assert "Adebayo et al. 2018" in section
    assert part(text, "mistakes").count('class="pair"') == 6


def test_a_map_outside_the_run_is_not_read(fashion, tmp_path):
    folder = sample_run.write_folder(fashion, tmp_path / "run")
    (tmp_path / "secret.png").write_bytes(sample_evidence.heat(0))
    record = (folder / "evidence" / "maps.json").read_text(encoding="utf-8")
    (folder / "evidence" / "maps.json").write_text(
        record.replace("maps/0001.png", "../../secret.png"), encoding="utf-8"
    )
    read = read_records(folder)
    assert "../../secret.png" not in read.map_pictures
    assert len(read.map_pictures) == len(fashion.map_pictures) - 1


def test_new_records_read_from_disk_are_the_ones_written(fashion, tmp_path):
    read = read_records(sample_run.write_folder(fashion, tmp_path / "run"))
    for name in ("probe", "learning_curve", "maps", "map_pictures"):
        assert getattr(read, name) == getattr(fashion, name)
    assert list(read.cells) == list(fashion.cells)
