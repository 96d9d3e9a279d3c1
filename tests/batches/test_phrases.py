"""What is said of a picture is what was done to it."""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from convsmith.batches import (
    AUGMENTATIONS,
    Augment,
    Batch,
    Colour,
    Crop,
    Erasing,
    Flip,
    Normalize,
    QuarterTurn,
    Rotation,
    Shift,
    VerticalFlip,
    Zoom,
    build,
    keys_of,
)
from convsmith.batches.phrases import PHRASES

KEYS = keys_of(3, 40, 100)
RAW = Normalize((0.0,) * 3, (1 / 255,) * 3)
IMAGE = torch.from_numpy(np.random.default_rng(0).integers(40, 120, (3, 60, 60), dtype=np.uint8))


def both(operation, image=IMAGE):
    """What is said and what is made of one image under each key."""
    augment = Augment([operation], normalize=RAW, seed=2)
    images = image.expand(len(KEYS), *image.shape)
    results = augment(Batch(images, torch.zeros(len(KEYS)), KEYS, KEYS[:, 1])).images
    said = augment.describe(KEYS, shape=tuple(image.shape))
    assert len(said) == len(KEYS)
    return list(zip(said, results, strict=True))


def number(pattern, said):
    found = re.search(pattern, said)
    return int(found[1]) if found else 0


def test_every_operation_has_phrases():
    assert PHRASES.keys() == AUGMENTATIONS.keys()


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (Flip(), {"mirrored": lambda x: x.flip(2)}),
        (VerticalFlip(), {"mirrored top to bottom": lambda x: x.flip(1)}),
        (
            QuarterTurn(),
            {
                "quarter turn left": lambda x: torch.rot90(x, 1, (1, 2)),
                "half turn": lambda x: torch.rot90(x, 2, (1, 2)),
                "quarter turn right": lambda x: torch.rot90(x, 3, (1, 2)),
            },
        ),
    ],
)
def test_mirrors_and_turns_are_those_that_are_made(operation, words):
    words = {**words, "as it is": lambda x: x}
    pairs = both(operation)
    assert {said for said, _ in pairs} == words.keys()
    assert all(torch.equal(result, words[said](IMAGE).float()) for said, result in pairs)


def test_pictures_that_are_not_square_are_said_to_take_half_turns_as_they_do():
    image = IMAGE[:, :40]
    pairs = both(QuarterTurn(), image)
    assert {said for said, _ in pairs} == {"half turn", "as it is"}
    for said, result in pairs:
        assert torch.equal(result, (image.flip(1, 2) if said == "half turn" else image).float())


def test_moves_are_those_that_are_made():
    for said, result in both(Shift(3, "zero")):
        right = number(r"(\d) px right", said) - number(r"(\d) px left", said)
        down = number(r"(\d) px down", said) - number(r"(\d) px up", said)
        assert torch.equal(result[:, 3:57, 3:57], IMAGE[:, 3 - down : 57 - down, 3 - right : 57 - right].float())
        assert (said == "as it is") == (right == down == 0)


def test_brightness_contrast_and_saturation_are_those_that_are_made():
    pixels = IMAGE.double()
    for said, result in both(Colour(0.5, 0.0, 0.0)):
        assert float(result.mean() / pixels.mean()) == pytest.approx(
            1 + number(r"brightness ([+-]\d+) %", said) / 100, abs=0.0051
        )
    for said, result in both(Colour(0.0, 0.4, 0.0)):
        spread = float(result.double().std() / pixels.std())
        assert spread == pytest.approx(1 + number(r"contrast ([+-]\d+) %", said) / 100, abs=0.0051)
    for said, result in both(Colour(0.0, 0.0, 0.4)):
        colours = float((result[0] - result[1]).double().std() / (pixels[0] - pixels[1]).std())
        assert colours == pytest.approx(1 + number(r"saturation ([+-]\d+) %", said) / 100, abs=0.0051)


def test_of_grey_pictures_no_saturation_is_told():
    augment = Augment([Colour()], normalize=RAW)
    assert any("saturation" in said for said in augment.describe(KEYS))
    assert not any("saturation" in said for said in augment.describe(KEYS, shape=(1, 8, 8)))


def test_the_area_covered_is_the_one_that_is_covered():
    for said, result in both(Erasing(0.7, (0.1, 0.5), fill="zero")):
        assert 100 * float((result[0] == 0).double().mean()) == pytest.approx(
            number(r"(\d+) % covered", said), abs=0.51
        )


RAMPS = torch.stack(torch.meshgrid(torch.arange(61.0), torch.arange(61.0), indexing="ij")).flip(0)[:, None] * 4


def slopes(operation):
    """What is said, and how fast places in the image (x, y) change over the middle of the result."""
    x, y = (both_of[1] for both_of in (both_of_ramp(operation, 0), both_of_ramp(operation, 1)))
    return both_of_ramp(operation, 0)[0], x, y


def both_of_ramp(operation, axis):
    pairs = both(operation, (RAMPS[axis].expand(3, 61, 61) * (255 / 240)).round().to(torch.uint8))
    middle = [result[0, 20:41, 20:41].double() * 240 / 255 / 4 for _, result in pairs]
    return [said for said, _ in pairs], [(float(m.diff(dim=1).mean()), float(m.diff(dim=0).mean())) for m in middle]


def test_angles_are_those_that_are_made():
    """Turned left by a, the image's x grows by cos a along a row of the result."""
    for said, (along, _), (tilt, _) in zip(*slopes(Rotation(25)), strict=True):
        angle = number(r"turned (\d+)° left", said) - number(r"turned (\d+)° right", said)
        assert np.degrees(np.arctan2(tilt, along)) == pytest.approx(angle, abs=1.0)


def test_the_area_of_a_crop_and_the_size_after_a_zoom_are_those_that_are_made():
    for said, (across, _), (_, down) in zip(*slopes(Crop((0.4, 1.0))), strict=True):
        share = number(r"(\d+) % of the area", said) or 100
        assert 100 * across * down == pytest.approx(share, abs=2.0)
    for said, (across, _), _ in zip(*slopes(Zoom((0.8, 1.25))), strict=True):
        assert 100 / across - 100 == pytest.approx(number(r"size ([+-]\d+) %", said), abs=2.0)


def test_a_whole_recipe_is_told_in_the_order_in_which_it_is_applied():
    said = build("photos", normalize=RAW, seed=1).describe(KEYS)
    pattern = r"(\d+ % of the area)?(, )?(mirrored)?(, )?(brightness .+ %)?(, )?(contrast .+ %)?(, )?(saturation .+ %)?"
    assert all(re.fullmatch(pattern, phrase) for phrase in said)
    assert any(re.fullmatch(r"\d+ % of the area, mirrored, brightness [+-]\d+ %, .*", phrase) for phrase in said)
    assert build("none", normalize=RAW).describe(KEYS) == ["as it is"] * len(KEYS)
    assert build("photos", normalize=RAW).describe(KEYS[:0]) == []


@dataclass(frozen=True)
class Strange:
    name: ClassVar[str] = "strange"

    def draw(self, keys):
        return {"u": keys.uniform(self.name, 1)}

    def apply(self, images, targets, parameters):
        return images, targets


def test_an_operation_from_elsewhere_is_called_by_its_name():
    assert Augment([Strange(), Flip(1.0)], normalize=RAW).describe(KEYS[:2]) == ["mirrored, strange"] * 2
