"""What an operation did to a picture, in words for the one who looks at it.

Signs and numbers are those of the drawn parameters, rounded; what rounds to nothing is not mentioned.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convsmith.batches.geometry import fitting_turns
from convsmith.batches.operation import Parameters

Shape = tuple[int, int, int]  # channels, height, width
Phrases = Callable[[Parameters, Shape], list[str]]


def _crop(drawn: Parameters, shape: Shape) -> list[str]:
    shares = np.rint(100 * drawn["width"] * drawn["height"]).astype(int)
    return [f"{share} % of the area" if share < 100 else "" for share in shares]


def _shift(drawn: Parameters, shape: Shape) -> list[str]:
    def moved(right: int, down: int) -> str:
        ways = ((right, "right", "left"), (down, "down", "up"))
        parts = [f"{abs(by)} px {ahead if by > 0 else back}" for by, ahead, back in ways if by]
        return f"moved {' and '.join(parts)}" if parts else ""

    return [moved(int(right), int(down)) for right, down in zip(drawn["right"], drawn["down"], strict=True)]


def _flip(drawn: Parameters, shape: Shape) -> list[str]:
    return ["mirrored" if flipped else "" for flipped in drawn["flipped"]]


def _vertical_flip(drawn: Parameters, shape: Shape) -> list[str]:
    return ["mirrored top to bottom" if flipped else "" for flipped in drawn["flipped"]]


def _quarter_turn(drawn: Parameters, shape: Shape) -> list[str]:
    words = ("", "quarter turn left", "half turn", "quarter turn right")
    return [words[turns] for turns in fitting_turns(drawn["turns"], *shape[1:])]


def _rotation(drawn: Parameters, shape: Shape) -> list[str]:
    angles = np.rint(drawn["degrees"]).astype(int)
    return [f"turned {abs(angle)}° {'left' if angle > 0 else 'right'}" if angle else "" for angle in angles]


def _zoom(drawn: Parameters, shape: Shape) -> list[str]:
    return _percents("size", drawn["factor"])


def _colour(drawn: Parameters, shape: Shape) -> list[str]:
    names = ("brightness", "contrast", "saturation") if shape[0] == 3 else ("brightness", "contrast")
    columns = [_percents(name, drawn[name]) for name in names]
    return [", ".join(filter(None, image)) for image in zip(*columns, strict=True)]


def _erasing(drawn: Parameters, shape: Shape) -> list[str]:
    pixels = np.rint(drawn["size"] * shape[1:]).prod(axis=1)
    shares = np.rint(100 * pixels / (shape[1] * shape[2])).astype(int)
    return [f"{share} % covered" if share else "" for share in shares]


def _mixup(drawn: Parameters, shape: Shape) -> list[str]:
    return [
        f"blended with {share} % of another" if share else "" for share in np.rint(100 * drawn["share"]).astype(int)
    ]


def _cutmix(drawn: Parameters, shape: Shape) -> list[str]:
    sides = np.rint(drawn["box"] * [*shape[1:], *shape[1:]])
    pixels = (sides[:, 2:] - sides[:, :2]).prod(axis=1)
    covered = np.rint(100 * pixels / (shape[1] * shape[2])).astype(int)
    return [f"{share} % of another" if share else "" for share in covered]


def _percents(name: str, factors: np.ndarray) -> list[str]:
    changes = np.rint(100 * (factors - 1)).astype(int)
    return [f"{name} {change:+d} %" if change else "" for change in changes]


PHRASES: dict[str, Phrases] = {
    "crop": _crop,
    "shift": _shift,
    "flip": _flip,
    "vertical_flip": _vertical_flip,
    "quarter_turn": _quarter_turn,
    "rotation": _rotation,
    "zoom": _zoom,
    "colour": _colour,
    "erasing": _erasing,
    "mixup": _mixup,
    "cutmix": _cutmix,
}
