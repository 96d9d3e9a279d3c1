"""Pictures of receptive fields show frames where they are, keep what is not moved grey, and are told apart by all."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from convsmith.reporting.field_pictures import BLUE, ORANGE, PADDING, FieldSeen, field_picture, field_sheet

SIDE = 320
BLACK = np.zeros((SIDE, SIDE, 3), np.uint8)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def seen(box=(100, 120, 199, 259), **fields):
    return FieldSeen("layer2", (28, 28), box, False, **fields)


def places_of(drawn, colour):
    """Rows and columns that hold a colour: first and last of each."""
    rows, columns = np.nonzero((drawn == colour).all(2))
    return rows.min(), columns.min(), rows.max(), columns.max()


def test_the_frame_lies_around_the_pixels_that_can_be_seen():
    drawn = pixels(field_picture(BLACK, seen()))
    top, left, bottom, right = places_of(drawn, BLUE)
    assert all(1 <= out <= 6 for out in (100 - top, 120 - left, bottom - 199, right - 259))  # just outside of them
    inner = drawn[101:199, 121:259]
    assert (inner == inner[0, 0]).all()


def test_small_pictures_are_enlarged_with_hard_pixels_and_large_ones_made_smaller():
    small = np.zeros((32, 32, 1), np.uint8)
    small[16:, :] = 255
    drawn = pixels(field_picture(small, seen((8, 8, 23, 23))))
    assert drawn.shape[1] == 320
    assert len(np.unique(drawn[:320, 0].reshape(-1, 3), axis=0)) == 2
    top, left, bottom, right = places_of(drawn, BLUE)
    assert all(1 <= out <= 6 for out in (80 - top, 80 - left, bottom - 239, right - 239))
    assert pixels(field_picture(np.zeros((800, 1600, 3), np.uint8), seen())).shape[1] == 640


def test_a_field_past_the_border_is_drawn_into_padding_and_one_further_out_is_pointed_to():
    near = pixels(field_picture(BLACK, seen((-20, 40, 219, 279))))
    grey = (near[:SIDE] == PADDING).all(2)
    assert grey[2, 5]
    top, *_ = places_of(near, BLUE)
    assert 0 < top < 10
    far = pixels(field_picture(BLACK, seen((-900, -900, 1100, 1100))))
    blue = (far == BLUE).all(2)
    width = far.shape[1]
    assert width == SIDE + 2 * 64
    assert blue[:9, width // 2].sum() > 4  # the arrowhead at the top
    assert not blue[30:400, 30 : width - 30].any()


def test_a_field_that_is_the_whole_picture_is_framed():
    drawn = pixels(field_picture(BLACK, replace(seen((0, 0, SIDE - 1, SIDE - 1)), whole=True)))
    assert drawn.shape[1] == SIDE + 16
    top, left, _, right = places_of(drawn, BLUE)
    assert all(2 <= edge <= 7 for edge in (top, left, SIDE + 15 - right))


def test_what_moves_a_stage_is_orange_and_the_rest_grey():
    weights = np.zeros((SIDE, SIDE))
    weights[150:170, 180:200] = 1
    weights[160, 210] = 0.01
    drawn = pixels(field_picture(np.full((SIDE, SIDE, 3), 255, np.uint8), seen(weights=weights)))
    assert np.abs(drawn[160, 190] - ORANGE).max() <= 1
    assert (drawn[50, 50] == drawn[50, 50, 0]).all()
    faint = drawn[160, 210]
    assert faint[2] < faint[0] - 10  # a hundredth is seen, since the root of it is shown
    assert (drawn[155, 230] == drawn[155, 230, 0]).all()


def test_the_effective_frame_is_dashed_and_a_small_field_is_shown_again_enlarged():
    drawn = pixels(field_picture(BLACK, seen(weights=np.ones((SIDE, SIDE)), side=41, centre=(150.0, 190.0))))
    along = (drawn[130, 165:215] == ORANGE).all(1)
    assert 2 <= (np.diff(along.astype(int)) == 1).sum() <= 4
    top, _, bottom, _ = places_of(drawn[:, 150:230], ORANGE)
    assert (abs(top - 130) <= 1, abs(bottom - 171) <= 1) == (True, True)
    both = pixels(field_picture(BLACK, seen((130, 170, 170, 210), side=41, centre=(150.0, 190.0))))
    assert (both == BLUE).all(2).sum() > 300
    assert (both == ORANGE).all(2).sum() > 100
    tiny = pixels(field_picture(BLACK, seen((10, 10, 16, 16))))
    assert places_of(tiny[:SIDE], BLUE)[2] > 250  # the enlarged one is in the other corner


def test_a_sheet_holds_all_stages_side_by_side():
    stages = [seen(), replace(seen((-30, -30, 350, 350)), name="layer3"), replace(seen(None), name="layer4")]
    sheet = pixels(field_sheet(BLACK, stages, columns=2))
    one = pixels(field_picture(BLACK, stages[1]))
    assert sheet.shape[1] > 2 * one.shape[1]
    assert sheet.shape[0] > 2 * one.shape[0]
    half = sheet.shape[1] // 2
    assert (sheet[: sheet.shape[0] // 2, :half] == BLUE).all(2).any()
    assert (sheet[: sheet.shape[0] // 2, half:] == BLUE).all(2).any()
    assert not (sheet[sheet.shape[0] // 2 :] == BLUE).all(2).any()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (seen(), "28 x 28 places; each can see 100 x 140 px."),
        (seen((0, 0, 34, 34), side=11), "28 x 28 places; each can see 35 px; 95% of the effect is from 11 px."),
        (replace(seen(), whole=True), "28 x 28 places; each can see the whole picture."),
        (replace(seen(None), places=(197, 1)), "197 tokens; what each can see is not known."),
    ],
)
def test_a_sentence_says_what_is_drawn(given, says):
    assert given.sentence == says


DICHROMATS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": np.eye(3),
}  # Machado et al. 2009, severity 1, on linear RGB


@pytest.mark.parametrize("kind", DICHROMATS)
def test_the_two_frames_differ_for_people_who_see_fewer_colours(kind):
    """In lightness (CIE L*) by 20 at the least, and from the white edge that both have by 25."""

    def lightness(colour):
        encoded = np.array(colour) / 255
        linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
        luminance = np.clip(np.array(DICHROMATS[kind]) @ linear, 0, 1) @ [0.2126, 0.7152, 0.0722]
        return 116 * np.cbrt(luminance) - 16

    assert abs(lightness(BLUE) - lightness(ORANGE)) > 20
    assert lightness((255, 255, 255)) - max(lightness(BLUE), lightness(ORANGE)) > 25
