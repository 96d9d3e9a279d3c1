"""The terms of a report and what each means, in a line that needs no other term."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """A word of the field.

    Args:
        title: the word.
        meaning: one sentence for somebody who does not know the field.
        unit: `percent` or `number`: how a metric of this name is written.
    """

    title: str
    meaning: str
    unit: str = "number"


METRICS = {
    "accuracy": Term("Accuracy", "The share of images that were given their right class.", "percent"),
    "balanced_accuracy": Term(
        "Balanced accuracy", "The mean of the classes' recalls: each class counts the same, however rare.", "percent"
    ),
    "macro_f1": Term("Macro F1", "The mean over classes of F1, which is high only if precision and recall both are."),
    "top_5": Term("Top 5", "The share of images whose right class is among the five likeliest answers.", "percent"),
    "top_2": Term("Top 2", "The share of images whose right class is among the two likeliest answers.", "percent"),
    "log_loss": Term(
        "Log loss", "How surprised the network was by the truth: 0 is perfect, confident mistakes cost most."
    ),
    "ece": Term(
        "Calibration error (ECE)",
        "The mean gap between how sure the network was and how often it was right.",
        "percent",
    ),
}

GLOSSARY = {
    "test": Term("Test images", "Images that trained nothing and chose nothing; only they are reported."),
    "tune": Term(
        "Tune images",
        "Images kept out of training that settings and temperature are chosen on, so their figures flatter a little.",
    ),
    "interval": Term(
        "95 % interval", "The range that, over many such measurements, would hold the true figure 95 times in 100."
    ),
    "baseline": Term(
        "Baseline", "What one reaches without looking: always giving the commonest class. A network has to beat it."
    ),
    "recall": Term("Recall", "Of the images that are of a class, the share the network found."),
    "precision": Term("Precision", "Of the images the network put into a class, the share that belong there."),
    "f1": Term("F1", "One figure for precision and recall (their harmonic mean): low if either is."),
    "confusion": Term("Confusion matrix", "A table of what each class was taken for; mistakes lie off the diagonal."),
    "calibration": Term("Calibration", "Whether “90 % sure” is right 90 times in 100."),
    "temperature": Term(
        "Temperature",
        "One number that tempers how sure a network says it is: above 1 it becomes more modest, and no answer changes.",
    ),
    "probe": Term(
        "Linear probe",
        "One layer trained by itself: on what a network made for other images sees in them, or on the pixels.",
    ),
    "stage": Term(
        "Stage",
        "The layers that work at one resolution; at stride 8, each place stands for 8 by 8 pixels of the image.",
    ),
    "paired": Term("Paired gain", "How much better one way is than another, measured on the very same images."),
    "slice": Term("Slice", "The images that share a trait, such as the dark ones, looked at by themselves."),
    "grad-cam": Term(
        "Grad-CAM", "A coarse map of the regions of an image that raised the score of the network's answer."
    ),
    "learning-curve": Term(
        "Learning curve", "How often the network is right when it learns from a part of the images: a half, a quarter."
    ),
    "leak": Term("Leak", "An image, or one nearly equal, that is both learned from and measured on."),
    "near": Term(
        "Near duplicates", "Pictures that are the same but for size, compression, a crop, brightness or mirroring."
    ),
    "group": Term("Group", "The images of one thing, such as a donor, a part or a film; they are kept together."),
    "loss": Term("Loss", "The number training makes small; on training images it includes what augmentation adds."),
    "rate": Term("Learning rate", "How far each step of training moves the network's weights."),
    "epoch": Term("Epoch", "One pass over all training images."),
    "augmentation": Term(
        "Augmentation", "Small random changes (shift, mirror, rotate) so that training never sees an image twice alike."
    ),
    "seed": Term("Seed", "The number all chance of the run comes from; the same seed repeats the same run."),
    "fingerprint": Term("Fingerprint", "A checksum of all images and their classes: equal only if the data are."),
}

SPLITS = {
    "test": "test images, which played no part in training",
    "tune": "tune images, which were kept out of training but may have guided it",
    "train": "images the network was trained on",
}


def metric(name: str) -> Term:
    """Return the term of a metric; one without a row keeps its own name and explains nothing."""
    return METRICS.get(name) or Term(name.replace("_", " "), "")
