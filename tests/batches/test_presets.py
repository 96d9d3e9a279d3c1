"""Presets hold no mirror or turn that their pictures forbid, and symmetry is enforced on any list of operations."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from convsmith.batches import AUGMENTATIONS, PRESETS, Batch, Normalize, build, keys_of, symmetric
from convsmith.errors import UsageError

RAW = Normalize((0.0,) * 3, (1 / 255,) * 3)
SYMMETRIES = ["none", "left-right", "any"]
EIGHT = [
    lambda x, turns=turns, mirror=mirror: torch.rot90(x.flip(2) if mirror else x, turns, (1, 2))
    for mirror in (False, True)
    for turns in range(4)
]


def names(operations):
    return [item["name"] for item in operations]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_built_and_changes_photos(preset):
    keys = keys_of(0, 0, 16)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (16, 3, 32, 32), dtype=np.uint8))
    changed = build(preset, normalize=RAW)(Batch(images, torch.zeros(16), keys, keys[:, 1])).images
    assert torch.equal(changed, images.float()) == (preset == "none")


def test_documents_are_never_mirrored_and_specimens_and_fields_have_every_symmetry():
    assert not {"flip", "vertical_flip", "quarter_turn", "crop"} & set(names(PRESETS["documents"]))
    for preset in ("microscopy", "aerial"):
        assert {"flip", "vertical_flip", "quarter_turn", "zoom", "colour"} == set(names(PRESETS[preset]))
    assert names(PRESETS["photos"]) == ["crop", "flip", "colour"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_preset_of_any_symmetry_has_just_the_mirrors_and_turns_allowed(preset, symmetry):
    found = symmetric(preset, symmetry)
    allowed = {"none": set(), "left-right": {"flip"}, "any": {"flip", "vertical_flip", "quarter_turn"}}[symmetry]
    assert {"flip", "vertical_flip", "quarter_turn"} & set(names(found)) == allowed
    others = [item for item in PRESETS[preset] if item["name"] not in {"flip", "vertical_flip", "quarter_turn"}]
    kept = [item for item in found if item["name"] not in {"flip", "vertical_flip", "quarter_turn"}]
    assert kept == [{"options": {}, **item} for item in others]
    for item in found:
        AUGMENTATIONS.check(item["name"], item["options"])
    assert symmetric(found, symmetry) == found


@pytest.mark.parametrize(("symmetry", "places"), [("none", [0]), ("left-right", [0, 4]), ("any", range(8))])
def test_what_a_symmetry_lets_through_is_seen_in_the_pixels(symmetry, places):
    """Of the eight places of a square, exactly those of the symmetry come, and alike often."""
    keys = keys_of(0, 0, 800)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 5, 5), dtype=np.uint8))
    listed = ["vertical_flip", "quarter_turn", "flip"]
    batch = Batch(image.expand(800, 3, 5, 5), torch.zeros(800), keys, keys[:, 1])
    results = build(symmetric(listed, symmetry), normalize=RAW)(batch).images
    counts = [int((results == place(image).float()).flatten(1).all(1).sum()) for place in EIGHT]
    assert sum(counts) == 800
    assert [i for i, count in enumerate(counts) if count] == list(places)
    assert max(counts) < 1.3 * 800 / len(places)


def test_small_rotations_stay_and_those_that_contain_quarter_turns_go_with_them():
    small, large = ({"name": "rotation", "options": {"degrees": degrees}} for degrees in (89.0, 90.0))
    assert symmetric([small], "none") == (small,)
    assert symmetric([large], "none") == symmetric([large], "left-right")[1:] == ()
    assert symmetric([large], "any")[-1] == large


def test_operations_already_listed_keep_their_options_and_those_switched_off_are_switched_on():
    often = SimpleNamespace(name="flip", options={"p": 0.8})
    assert symmetric(["colour", often], "left-right") == (
        {"name": "colour", "options": {}},
        {"name": "flip", "options": {"p": 0.8}},
    )
    assert symmetric([{"name": "flip", "options": {"p": 0}}], "left-right") == ({"name": "flip", "options": {}},)


def test_what_is_not_known_is_refused():
    with pytest.raises(UsageError, match="no symmetry 'left'") as caught:
        symmetric("photos", "left")
    assert "left-right" in caught.value.mend
    with pytest.raises(UsageError, match="no augmentation preset 'foto'"):
        symmetric("foto", "none")
