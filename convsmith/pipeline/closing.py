"""What comes before and after training, in seconds and images: a plan and a budget have to leave room for it."""

from __future__ import annotations

from convsmith.images import Dataset

TRAIN_SAMPLE = 5_000
"""How many training images are predicted in evaluation mode when a run ends, to compare with tune and test."""


def closing_seconds(dataset: Dataset, prediction: float) -> float:
    """What comes after training: predicting each final image in `prediction` seconds, scoring, pictures, the report.

    Measured apart from the predictions: 0.9 s with 1,800 images, on two cores that others used too.
    """
    images = final_images(dataset)
    return prediction * images + 1.0 + images / 10_000


def final_images(dataset: Dataset) -> int:
    """How many images are predicted after training: a sample of train, all of tune and test."""
    train = min(TRAIN_SAMPLE, len(dataset.indices("train")))
    return train + len(dataset.indices("tune")) + len(dataset.indices("test"))
