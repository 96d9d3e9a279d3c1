"""What a network answered for each image of a split: the record that evaluation, diagnosis and report start from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from convsmith.errors import DataError
from convsmith.evaluation.answers import Answers
from convsmith.evaluation.temperature import divided

DIGEST = 32  # bytes of SHA-256
ARRAYS = ("ids", "targets", "logits", "pixels")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of a split, image by image, such that their softmax is what the network is taken to believe.

    Args:
        ids: unicode [N], the images' stable names.
        targets: int64 [N], 0 to K - 1.
        logits: float64 [N, K]; of calibrated answers, those that the network gave over its temperature.
        pixels: uint8 [N, 32], SHA-256 of the pixels each image was shown as.
        classes: K names.
        split: train, tune or test.

    Raises:
        DataError: the parts do not fit together, with the shapes that were given.
    """

    ids: NDArray[np.str_]
    targets: NDArray[np.int64]
    logits: NDArray[np.float64]
    pixels: NDArray[np.uint8]
    classes: tuple[str, ...]
    split: str

    def __post_init__(self) -> None:
        for name, kind in (("ids", np.str_), ("targets", np.int64), ("logits", np.float64), ("pixels", np.uint8)):
            object.__setattr__(self, name, _array(name, getattr(self, name), kind))
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        n, k = len(self.ids), len(self.classes)
        for name, shape in (("ids", (n,)), ("targets", (n,)), ("logits", (n, k)), ("pixels", (n, DIGEST))):
            found = getattr(self, name).shape
            if found != shape:
                raise DataError(
                    f"Predictions of split {self.split!r}: {name} has shape {list(found)}, but {n} ids and {k} classes "
                    f"need {list(shape)}."
                )
        wrong = np.flatnonzero((self.targets < 0) | (self.targets >= k))
        if len(wrong):
            raise DataError(
                f"Predictions of split {self.split!r}: target {self.targets[wrong[0]]} of image "
                f"{str(self.ids[wrong[0]])!r} is not one of the {k} classes 0 to {k - 1} ({len(wrong)} such)."
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The likeliest class of each image, int64 [N]; the first of equals."""
        return self.logits.argmax(axis=1) if len(self) else np.zeros(0, np.int64)

    @classmethod
    def of(cls, answers: Answers) -> Self:
        """A classification's answers, checked as all are; a missing array raises `DataError` too.

        An array `temperature`, float [N] and above 0, is what each image's logits are divided by.
        """
        missing = [name for name in ARRAYS if name not in answers.arrays]
        if missing:
            raise DataError(f"Predictions of split {answers.split!r} lack {', '.join(missing)}.")
        found = cls(**{name: answers.arrays[name] for name in ARRAYS}, classes=answers.classes, split=answers.split)
        temperature = answers.arrays.get("temperature")
        if temperature is None:
            return found
        if temperature.shape != (len(found),) or not ((temperature > 0) & (temperature < np.inf)).all():
            raise DataError(
                f"Predictions of split {answers.split!r}: a temperature above 0 is needed for each of {len(found)} "
                "images."
            )
        return replace(found, logits=divided(found.logits, temperature))


def _array(name: str, values: object, kind: type) -> NDArray:
    """As an array of the kind wanted, where that loses nothing (no floats as targets, no numbers as ids)."""
    array = np.asarray(values)
    if array.size == 0 or (
        np.can_cast(array.dtype, kind, "same_kind") and (kind is not np.str_ or array.dtype.kind == "U")
    ):
        return array.astype(kind, copy=False)
    raise DataError(f"Predictions: {name} holds {array.dtype}, but {np.dtype(kind).name} is needed.")
