"""Where Convsmith keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `$CONVSMITH_CACHE`, or `~/.cache/convsmith`; it may not exist yet."""
    asked = os.environ.get("CONVSMITH_CACHE")
    return Path(asked).expanduser() if asked else Path.home() / ".cache" / "convsmith"
