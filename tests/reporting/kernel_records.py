"""Records of the kernel lab's page, as the command makes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from convsmith.cli.kernel_lab import Lab, make_lab, page_record
from convsmith.networks.kernels.bank import KERNELS
from convsmith.reporting.kernel_page import KernelRecord, Learnt, LearntFilter


def lab(image: str, kernel: str | None, **options: object) -> Lab:
    """The lab with the command's own defaults."""
    given = {
        "at": None, "padding": "valid", "stride": 1, "dilation": 1, "pool": None, "colour": False, "size": 256
    }  # fmt: skip
    return make_lab(image, kernel=kernel, **{**given, **options})  # type: ignore[arg-type]


def record(
    image: str, kernel: str | None, *, name: str | None = None, run: Learnt | None = None, **options: object
) -> KernelRecord:
    """What the page shows of a picture, under another name or with learnt filters where these are given."""
    made = replace(page_record(lab(image, kernel, **options), None, "convsmith kernels"), learnt=run)
    return made if name is None else replace(made, name=name)


def learnt() -> Learnt:
    """Two filters at two moments, one of which has become an edge."""
    random = np.random.default_rng(0)
    start = random.normal(size=(2, 1, 3, 3))
    sobel = -KERNELS.build("sobel-vertical")
    edge = [("emboss", 0.7, False), ("sobel-vertical, negated", 0.97, True)]
    none = [("box", 0.5, False), ("box", 0.6, False)]
    filters = [
        LearntFilter(0, [start[0], start[0]], none, KERNELS.build("box"), 1.0, random.normal(size=(6, 6))),
        LearntFilter(1, [start[1], sobel[None]], edge, sobel, -0.25, random.normal(size=(6, 6))),
    ]
    moments = [("start", "drawn again from seed 0"), ("step 9", "checkpoints/9")]
    notes = ["Of this one there is nothing else."]
    return Learnt("2026-01-01-small-00000000", "conv 1->2 k3 s1", moments, filters, 0.91, notes)
