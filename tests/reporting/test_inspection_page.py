"""A network as text, page and drawing: figures stand as they are, lanes hold, and no name can break out."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_inspection import DRAWING, HOSTILE, ROWS, inspection, row
from page_parser import Page

from convsmith.reporting.inspection import Block, Drawing, Last, Node, Seen, SideBySide, amount
from convsmith.reporting.inspection_graph import flow, lanes, mermaid
from convsmith.reporting.inspection_page import render_inspection
from convsmith.reporting.inspection_text import as_text, compared, table


def ids(page: Page) -> set[str]:
    """The anchors of a page."""
    return {attributes["id"] for _, attributes in page.elements if "id" in attributes}


@st.composite
def drawings(draw: st.DrawFn) -> Drawing:
    """Any graph in which each node but the first reads some before it."""
    count = draw(st.integers(2, 14))
    edges = {(draw(st.integers(0, node - 1)), node) for node in range(1, count) for _ in range(draw(st.integers(1, 3)))}
    return Drawing(tuple(Node(f"n{place}", "", "other", (1,)) for place in range(count)), tuple(sorted(edges)))


@given(drawings())
def test_no_node_stands_in_the_lane_of_a_value_that_runs_past_it(drawing: Drawing):
    placed = lanes(drawing)
    for source, to in drawing.edges:
        for between in range(source + 1, to):
            assert placed.of[between] != placed.of[source]
    assert placed.count == max(placed.of) + 1


def test_a_shortcut_keeps_its_lane_and_the_block_moves_aside():
    residual = Drawing(DRAWING.nodes[:4], ((0, 1), (1, 2), (0, 3), (2, 3)))
    assert lanes(residual).of == (0, 1, 1, 0)
    assert str(flow(residual, "a block")).count('class="edge skip"') == 1


def test_mermaid_has_every_node_and_edge_and_no_name_ends_a_label():
    hostile = Drawing((replace(DRAWING.nodes[0], title=HOSTILE), *DRAWING.nodes[1:]), DRAWING.edges)
    text = mermaid(hostile)
    assert text.startswith("flowchart TD\n")
    assert len(re.findall(r"^  n\d+ --> n\d+$", text, re.M)) == len(DRAWING.edges)
    labels = re.findall(r'^  n\d+\S*?"(.*)"\S*$', text, re.M)
    assert len(labels) == len(DRAWING.nodes)
    assert all(not set('"<>[]|') & set(label.replace("<br/>", "")) for label in labels)
    assert "x#34;#93;#60;script#62;" in text


def test_the_table_tells_what_is_known_and_marks_what_is_not():
    text = as_text(table(inspection()))
    lines = {line.split()[0]: line for line in text.splitlines() if line.split()}
    assert re.split(r" {2,}", lines["block"].strip())[1:] == [
        "Residual (7)", "16 × 16 × 16", "3,680", "900 k", "?", "64 KiB", "75 %", "9", "2", "0.5",
    ]  # fmt: skip
    assert re.split(r" {2,}", lines["attention"].strip())[3:] == ["64", "?", "?", "?", "?", "?", "?"]
    assert "4,138 (4,000 trainable, 138 frozen)" in lines["Parameters"]
    assert lines["Cost"].split()[1] == "?"
    assert "all" in lines["head"]
    assert "Note: attention computes aten.odd" in text
    assert "(32 + 2*1 - 1*(3-1) - 1)/1 + 1 = 32" in text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (9_408, "9.41 k"), (99_960, "100 k"), (999_600, "1.00 M"), (118_013_952, "118 M"),
     (4_089_184_256, "4.09 G"), (None, "?")],
)  # fmt: skip
def test_counts_have_three_digits_and_a_unit(number: int | None, text: str):
    assert amount(number) == text


def test_two_networks_are_shown_with_their_differences_and_the_layers_that_differ():
    wider = inspection(
        name="wider", trainable=8_000, rows=(replace(ROWS[0], parameters=448, output=(16, 32, 32)), *ROWS[1:])
    )
    text = as_text(compared(inspection(), wider))
    assert re.search(r"parameters +4,138 +8,138 +\+4,000 \(\+96\.7 %\)", text)
    differing = text[text.index("layers that differ") :]
    assert "stem" in differing
    assert "block" not in differing
    assert "multiply-adds                                 ?" in text
    page = Page(render_inspection(inspection(), wider))
    assert ids(page) >= {"compared", "built-1", "built-2", "layers-1", "layers-2"}
    assert "toy: 4,138 parameters in 4 layers." in page.text
    assert "wider: 8,138 parameters in 4 layers." in page.text
    assert SideBySide(inspection(), wider).to_json() == {"model": {"name": "toy"}, "against": {"name": "toy"}}


def test_networks_that_share_no_layers_are_not_compared_layer_by_layer():
    other = inspection(rows=tuple(replace(each, path=f"else.{each.path}") for each in ROWS))
    assert "layers that differ" not in as_text(compared(inspection(), other))
    assert "The layers are alike." in as_text(compared(inspection(), inspection()))


def test_the_page_holds_the_figures_first_and_a_section_for_each_question():
    page = Page(render_inspection(inspection(), command="convsmith inspect toy"))
    assert ids(page) >= {"built", "inside", "cost", "sees", "memory", "sums", "layers", "headline"}
    assert "toy: 4.14 k parameters, ? multiply-adds for each 32 × 32 image." in page.text
    assert "4,000 are trained, 138 are frozen." in page.text
    assert "Each position of the last 16 × 16 maps can depend on 9 px of the image's 32." in page.text
    assert "Left out are the gates, which weigh channels by all of the image: block.gate." in page.text


def test_a_network_without_maps_memory_or_blocks_still_has_a_page():
    bare = inspection(
        rows=(row("fc", (10,), parameters=30, macs=30),), folded=(row("fc", (10,), parameters=30, macs=30),), steps=(),
        blocks=(), sums={}, gates=(), last=None, macs=30, notes=(), drawing=Drawing(DRAWING.nodes[:2], ((0, 1),)),
    )  # fmt: skip
    page = Page(render_inspection(bare))
    assert not ids(page) & {"inside", "sees", "memory", "sums"}
    assert "It has no maps" in page.text


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (
            Last((64, 7, 7), Seen(427, 427, 32.0, 0.0, False)),
            "7 × 7 maps can depend on 427 px, more than the image",
        ),
        (Last((64, 7, 7), Seen(32, 32, 4.0, 0.0, False)), "7 × 7 maps can depend on 32 px, the whole image"),
        (Last((64, 7, 5), Seen(9, 3, 4.0, 0.0, False)), "7 × 5 maps can depend on 9 x 3 px of the image's 32"),
        (Last((197, 192), Seen(32, 32, None, 0.0, True)), "197 tokens can depend on all of the image"),
        (Last((64, 7, 7), None, "aten.odd is not known"), "is not known: aten.odd is not known"),
        (None, "no maps in which places are told apart"),
    ],
)
def test_what_the_last_maps_see_is_said_and_never_guessed(last: Last | None, says: str):
    shown = inspection(last=last)
    assert says in shown.field_of_last()
    assert says in as_text(table(shown))


def test_hostile_names_change_nothing_on_the_page():
    nodes = tuple(replace(node, title=HOSTILE, detail=HOSTILE) for node in DRAWING.nodes)
    drawing = Drawing(nodes, DRAWING.edges)
    rows = tuple(replace(each, path=HOSTILE, detail=HOSTILE, type=HOSTILE) for each in ROWS)
    hostile = inspection(
        name=HOSTILE, rows=rows, folded=rows, drawing=drawing, blocks=(Block(HOSTILE, (HOSTILE,), drawing),),
        notes=(HOSTILE,), sums={HOSTILE: HOSTILE}, gates=(HOSTILE,),
    )  # fmt: skip
    for html in (render_inspection(hostile, hostile, command=HOSTILE), hostile._repr_html_()):
        assert "<script>alert" not in html
        assert "\u202e" not in html
    as_text(table(hostile))


def test_maps_are_found_wherever_the_channels_are():
    shown = inspection()
    assert shown.sides((96, 56, 56)) == (56, 56)
    assert shown.sides((56, 56, 96)) == (56, 56)
    assert shown.sides((64, 1, 1)) is None
    assert shown.sides((197, 192)) is None
    seen = Seen(40, 40, 2.0, 0.5, False)
    assert [each.path for each in shown.stages] == ["stem", "block"]
    later = inspection(folded=(*ROWS[:2], replace(ROWS[1], path="later", field=seen), ROWS[3]))
    assert [each.path for each in later.stages] == ["stem", "later"]
