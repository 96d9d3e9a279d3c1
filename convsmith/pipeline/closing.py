"""What comes before and after training, in seconds and images: a plan and a budget have to leave room for it."""

from __future__ import annotations

from convsmith.images import Dataset

LARGEST_SAMPLE, SMALLEST_SAMPLE = 5_000, 250


def closing_seconds(dataset: Dataset, prediction: float) -> float:
    """What comes after training: predicting each final image in `prediction` seconds, scoring, pictures, the report.

    Measured apart from the predictions: 0.9 s with 1,800 images, on two cores that others used too.
    """
    images = final_images(dataset)
    return prediction * images + 1.0 + images / 10_000


def final_images(dataset: Dataset) -> int:
    """How many images are predicted after training: a sample of train, all of tune and test."""
    train = min(train_sample(dataset), len(dataset.indices("train")))
    return train + len(dataset.indices("tune")) + len(dataset.indices("test"))


def train_sample(dataset: Dataset) -> int:
    """How many training images are predicted when a run ends: as many as they are compared with, and not too many."""
    others = len(dataset.indices("tune")) + len(dataset.indices("test"))
    return min(LARGEST_SAMPLE, max(SMALLEST_SAMPLE, others))
