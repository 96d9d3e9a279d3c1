"""What is known of the default network's weights without asking the library that publishes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import timm
from PIL import Image

from convsmith.pipeline.origin import BACKBONE, expected_origin


def test_what_is_written_down_of_the_default_weights_is_what_timm_says():
    published = timm.get_pretrained_cfg(BACKBONE)
    known = expected_origin(BACKBONE)
    assert published is not None
    assert known is not None
    assert (known.channels, known.size, known.size) == published.input_size
    assert (known.mean, known.std, known.outputs) == (published.mean, published.std, published.num_classes)
    assert known.fixed_size == bool(published.fixed_input_size)
    assert known.keep == published.crop_pct


def test_another_network_is_described_by_its_library_in_the_same_words():
    other, known = expected_origin("resnet18"), expected_origin(BACKBONE)
    assert other is not None
    assert known is not None
    assert (other.source, other.says, other.sha256) == (known.source, known.says, known.sha256)
    assert other.mean == timm.get_pretrained_cfg("resnet18").mean
    assert expected_origin("convnet") is None


def test_looking_at_photos_loads_no_library_of_networks(tmp_path: Path):
    for i in range(12):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(noise).resize((160, 120)).save(path)
    command = (
        "import sys; from convsmith.cli.commands import run\n"
        "try: run(sys.argv[1:])\n"
        "finally: print(sorted({'timm', 'torchvision', 'scipy', 'sklearn'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", command, "data", str(tmp_path / "photos"), "--runs", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CONVSMITH_CACHE": str(tmp_path / "cache")},
    )
    assert "made for 224 px" in done.stdout, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
