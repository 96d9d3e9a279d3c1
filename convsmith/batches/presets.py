"""Augmentations chosen by the kind of picture, and the mirrors and turns that its symmetry allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from convsmith.errors import UsageError
from convsmith.registry import suggestion

Symmetry = Literal["none", "left-right", "any"]
Listed = dict[str, Any]

MIRRORS_AND_TURNS: dict[Symmetry, tuple[str, ...]] = {
    "none": (),
    "left-right": ("flip",),
    "any": ("flip", "vertical_flip", "quarter_turn"),
}
QUARTER = 90.0  # a rotation that reaches so far contains quarter turns

PRESETS: dict[str, tuple[Listed, ...]] = {
    "none": (),
    "digits": (
        {"name": "shift", "options": {"pixels": 1, "border": "zero"}},
        {"name": "rotation", "options": {"degrees": 8.0, "border": "zero"}},
    ),
    "clothes": ({"name": "flip"}, {"name": "shift", "options": {"pixels": 1, "border": "zero"}}),
    "objects": (
        {"name": "flip"},
        {"name": "shift", "options": {"pixels": 2}},
        {"name": "erasing", "options": {"p": 0.25, "area": (0.02, 0.25)}},
    ),
    "photos": (
        {"name": "crop", "options": {"scale": (0.35, 1.0), "ratio": (3 / 4, 4 / 3)}},
        {"name": "flip"},
        {"name": "colour", "options": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}},
    ),
    "photos-strong": (
        {"name": "flip"},
        {"name": "rotation", "options": {"degrees": 15.0}},
        {"name": "crop", "options": {"scale": (0.25, 1.0)}},
        {"name": "colour", "options": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}},
        {"name": "erasing", "options": {"p": 0.25}},
    ),
    "documents": (
        {"name": "shift", "options": {"pixels": 4, "border": "replicate"}},
        {"name": "rotation", "options": {"degrees": 3.0, "border": "replicate"}},
        {"name": "zoom", "options": {"factor": (0.95, 1.05), "border": "replicate"}},
        {"name": "colour", "options": {"brightness": 0.2, "contrast": 0.1, "saturation": 0.0}},
    ),
    "microscopy": (
        {"name": "flip"},
        {"name": "vertical_flip"},
        {"name": "quarter_turn"},
        {"name": "zoom", "options": {"factor": (0.95, 1.1)}},
        {"name": "colour", "options": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1}},
    ),
    "aerial": (
        {"name": "flip"},
        {"name": "vertical_flip"},
        {"name": "quarter_turn"},
        {"name": "zoom", "options": {"factor": (0.8, 1.25)}},
        {"name": "colour", "options": {"brightness": 0.15, "contrast": 0.1, "saturation": 0.1}},
    ),
}
"""Operations by kind of picture.

`digits`, `clothes`, `objects`: small pictures of about 30 pixels; nothing that turns one class into another.

`photos`: a few hundred photographs and weights from elsewhere. Crops of 35 to 100 % of the area: between the one crop
of 73 % by which Kolesnikov et al. 2020 ("Big Transfer", BiT-HyperRule) fine-tuned, and the 8 to 100 % that networks are
trained with from scratch (Szegedy et al. 2015), which enlarge objects far beyond how they are tested (Touvron et al.
2019, "Fixing the train-test resolution discrepancy") and often miss them. With crops from 50 % on, 501 flowers were
known by heart within an epoch and fine-tuning gained nothing over the linear head (log loss of test 0.38); from 35 % on
it did (0.28). Colour varies by a fifth, for lamps and cameras.

`photos-strong`: photographs, and a network that starts from nothing. A few hundred of them can teach it only by being
seen in many forms: with `photos`, it knew 501 flowers by heart after 60 epochs (99.8 % right) and 61 % of others.

`documents`: writing has a direction, so nothing is mirrored; a page lies a little crooked under the scanner (Simard et
al. 2003, "Best practices for convolutional neural networks applied to visual document analysis"); beyond its edge the
paper goes on.

`microscopy`: a specimen has no up, so all eight places of a square are the same picture (Dieleman et al. 2015,
"Rotation-invariant convolutional neural networks for galaxy morphology prediction", where it mattered most). The
magnification is the instrument's, and stains vary (Tellez et al. 2019, "Quantifying the effects of data augmentation
and stain color normalization"), but may be what tells classes apart: both vary mildly.

`aerial`: no up either (Cheng et al. 2016, "Learning rotation-invariant convolutional neural networks for object
detection in VHR optical remote sensing images"); heights of flight and the sun vary.
"""


def preset(name: str) -> tuple[Listed, ...]:
    """Return the operations of a preset; an unknown name raises `UsageError` with those that are close."""
    if name not in PRESETS:
        raise UsageError(f"There is no augmentation preset {name!r}.", mend=suggestion(name, PRESETS))
    return PRESETS[name]


def spec(item: Any) -> tuple[str, Mapping[str, Any]]:
    """Return name and options of an operation given as a name, a mapping, or a record with these attributes."""
    if isinstance(item, str):
        return item, {}
    if isinstance(item, Mapping):
        return item["name"], item.get("options") or {}
    return item.name, item.options


def symmetric(operations: str | Sequence[Any], symmetry: Symmetry) -> tuple[Listed, ...]:
    """Return operations with exactly the mirrors and quarter turns that cannot change what a picture shows.

    `none` takes all of them out, `left-right` leaves and if need be adds the mirror image, `any` that, the one top to
    bottom, and quarter turns. What is added comes first; what is listed already keeps its place and options, unless
    these switch it off. A `rotation` of 90 degrees and more contains quarter turns and is taken out with them; smaller
    ones, by which a camera is held crooked, stay.

    Args:
        operations: the name of a preset or what `build` takes.
        symmetry: of the pictures' content, not of one picture.

    Returns:
        mappings with `name` and `options`, as a recipe holds them.

    Raises:
        UsageError: a preset or symmetry that is not known.
    """
    if symmetry not in MIRRORS_AND_TURNS:
        known = ", ".join(get_args(Symmetry))
        raise UsageError(f"There is no symmetry {symmetry!r}.", mend=f"Known: {known}.")
    allowed, every = MIRRORS_AND_TURNS[symmetry], MIRRORS_AND_TURNS["any"]
    kept: list[Listed] = []
    for name, options in map(spec, preset(operations) if isinstance(operations, str) else operations):
        forbidden = name in every and (name not in allowed or options.get("p") == 0)
        turns = name == "rotation" and symmetry != "any" and options.get("degrees", 0) >= QUARTER
        if not (forbidden or turns):
            kept.append({"name": name, "options": dict(options)})
    present = {item["name"] for item in kept}
    return (*({"name": name, "options": {}} for name in allowed if name not in present), *kept)
