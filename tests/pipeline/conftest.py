"""The run that was never interrupted, and its images."""

from __future__ import annotations

from pathlib import Path

import pytest
from compared import EXACT
from pictures_made import class_folder
from typed import trained


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twenty small pictures that a network can tell apart."""
    return class_folder(tmp_path_factory.mktemp("pictures") / "insects")


@pytest.fixture(scope="session")
def uninterrupted(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `EXACT` that went through at once."""
    return trained(pictures, tmp_path_factory.mktemp("uninterrupted") / "runs", *EXACT)
