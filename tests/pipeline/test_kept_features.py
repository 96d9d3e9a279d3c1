"""Between runs: features are computed again where something changed that they depend on, and only there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tuned import Notes, final_weights, fine_tuning, train, weights_file

from convsmith.evidence import View, features
from convsmith.run_folder import RunFolder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for this test."""
    monkeypatch.setenv("CONVSMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[View, ...]]:
    """The views of each time the network was run for features."""
    computed: list[tuple[View, ...]] = []
    real = features._compute

    def counted(model: Any, head: Any, images: Any, prepare: Any, views: tuple[View, ...], *rest: Any) -> Any:
        computed.append(views)
        return real(model, head, images, prepare, views, *rest)

    monkeypatch.setattr(features, "_compute", counted)
    return computed


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_features_are_computed_again_where_something_they_depend_on_changed(
    photos: Path, weights: Path, tmp_path: Path, asked: list[tuple[View, ...]]
):
    first = train(fine_tuning(photos, weights, transfer__mode="probe"), tmp_path / "first")
    assert asked == [("image", "mirror")]
    again = train(fine_tuning(photos, weights, transfer__mode="probe", seed=3), tmp_path / "again")
    assert len(asked) == 1
    assert all(torch.equal(tensor, final_weights(again)[name]) for name, tensor in final_weights(first).items())

    changed = tmp_path / "changed"
    shutil.copytree(photos, changed)
    Image.new("RGB", (40, 40), (1, 2, 3)).save(changed / "ant" / "000.png")
    other = weights_file(tmp_path / "test_resnet.safetensors", seed=2)
    base: dict[str, Any] = {"transfer__mode": "probe"}
    for number, (source, file, changes) in enumerate(
        [
            (photos, other, {}),
            (changed, weights, {}),
            (photos, weights, {"image__size": 32}),
            (photos, weights, {"image__mean": (0.4, 0.4, 0.4)}),
            (photos, weights, {"train__memory_format": "channels_last"}),
        ]
    ):
        train(fine_tuning(source, file, **base, **changes), tmp_path / f"run{number}")
        assert len(asked) == 2 + number, changes


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    ("changes", "views"),
    [({"augment__symmetry": "none"}, ["image"]), ({"augment__symmetry": "any"}, ["image", "mirror"]),
     ({"augment__preset": "digits"}, ["image"])],
)  # fmt: skip
def test_a_mirror_image_is_a_view_only_where_it_keeps_its_class(
    changes: dict[str, Any],
    views: list[str],
    photos: Path,
    weights: Path,
    tmp_path: Path,
    asked: list[tuple[View, ...]],
):
    run = train(fine_tuning(photos, weights, transfer__mode="probe", **changes), tmp_path / "runs")
    assert [list(each) for each in asked] == [views]
    assert RunFolder(run).read_json("probe.json")["views"] == views


@pytest.mark.slow
def test_a_run_whose_features_cannot_be_kept_says_so_and_goes_on(
    photos: Path, weights: Path, tmp_path: Path, own_cache: Path, asked: list[tuple[View, ...]]
):
    own_cache.mkdir()
    (own_cache / "features").write_text("in the way")
    notes = Notes()
    for number in range(2):
        run = train(fine_tuning(photos, weights, transfer__mode="probe"), tmp_path / f"run{number}", tell=notes)
        assert (run / "report.html").is_file()
    assert len(asked) == 2
    assert [text for text in notes.texts if "not kept for the next run" in text]


def test_code_of_ones_own_that_changed_gets_features_of_its_own(photos: Path, tmp_path: Path, own_cache: Path):
    """The same weights by name and number, and another network."""
    from convsmith.pipeline import Code

    text = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, outputs):
        super().__init__()
        self.body = nn.Conv2d(in_channels, 6, 5, 2)
        self.head = nn.Linear(6, outputs)

    def forward(self, images):
        return self.head(self.body(images).POOL(dim=(2, 3)))
"""
    file = tmp_path / "net.py"
    file.write_text(text.replace("POOL", "mean"))
    code = Code(file, "Net", {})
    recipe = fine_tuning(photos, None, model="own", train__epochs=1)
    first = train(recipe, tmp_path / "first", code=code)
    probing = fine_tuning(photos, first, model="own", transfer__mode="probe", transfer__frozen_stages=0)
    one = train(probing, tmp_path / "one", code=code)
    file.write_text(text.replace("POOL", "amax"))
    other = train(probing, tmp_path / "other", code=code)
    assert len(list((own_cache / "features").iterdir())) == 2
    assert torch.equal(final_weights(one)["body.weight"], final_weights(other)["body.weight"])
    assert not torch.equal(final_weights(one)["head.weight"], final_weights(other)["head.weight"])
