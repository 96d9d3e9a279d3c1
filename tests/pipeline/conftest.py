"""The run that was never interrupted, and its images."""

from __future__ import annotations

from pathlib import Path

import pytest
from compared import EXACT
from pictures_made import class_folder, photo_folder
from tuned import NETWORK, fine_tuning, train, weights_file
from typed import trained


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twenty small pictures that a network can tell apart."""
    return class_folder(tmp_path_factory.mktemp("pictures") / "insects")


@pytest.fixture(scope="session")
def uninterrupted(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `EXACT` that went through at once."""
    return trained(pictures, tmp_path_factory.mktemp("uninterrupted") / "runs", *EXACT)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twenty small photographs: 42 are trained on, 9 tune, 9 test."""
    return photo_folder(tmp_path_factory.mktemp("photos") / "animals")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights as somebody might have published it."""
    return weights_file(tmp_path_factory.mktemp("weights") / f"{NETWORK}.safetensors")


@pytest.fixture(scope="session")
def tuned(photos: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fine-tuning run that went through at once."""
    return train(fine_tuning(photos, weights), tmp_path_factory.mktemp("tuned") / "runs")
