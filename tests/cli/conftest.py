"""A trained run that commands can be tried on."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures_made import class_folder
from typed import trained


@pytest.fixture(scope="session")
def insects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twenty small pictures."""
    return class_folder(tmp_path_factory.mktemp("pictures") / "insects")


@pytest.fixture(scope="session")
def run(insects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on them, called `first`, alone in its folder of runs."""
    return trained(insects, tmp_path_factory.mktemp("cli") / "runs", "--epochs", 4, "--name", "first")
