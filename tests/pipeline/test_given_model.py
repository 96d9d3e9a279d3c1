"""The one grammar of MODEL: what each form opens, what a recipe holds of it, and what is refused with which mend."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from convsmith.design import parse
from convsmith.errors import UsageError
from convsmith.pipeline.given_model import open_model, open_module, parse_shape, read_model, recipe_keys
from convsmith.recipe import Recipe

DESIGN = "stem: {width: 8}\nstages:\n  - {width: 8}\n  - {width: 16, stride: 2}\n"
CODE = """
from torch import nn

def net(in_channels, outputs, width=4):
    pool = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(in_channels, width, 3), *pool, nn.Linear(width, outputs))
"""
LINE = "conv 2->4 k3 | relu | gap | flatten | linear"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.yaml").write_text(DESIGN)
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "kind", "shape"),
    [
        (LINE, "line", (2, 224, 224)),
        ("net.yaml", "design", (3, 224, 224)),
        ("mine.py:net", "code", (3, 224, 224)),
        ("convnet-tiny", "name", (3, 224, 224)),
        ("simple", "name", (3, 224, 224)),
    ],
)
def test_each_form_opens_a_network_that_takes_its_images(here: Path, text: str, kind: str, shape: tuple[int, ...]):
    opened = open_model(text, weights="none", outputs=7, input_shape=(None, 20, 24 if kind != "name" else 20))
    assert opened.asked.kind == kind
    assert (opened.shape[0], opened.assumed) == (shape[0], "" if kind == "line" else "3 channels")
    assert opened.model.eval()(torch.zeros(1, *opened.shape)).shape == (1, 7)
    whole = open_model(text)
    assert (whole.shape, whole.assumed) == (shape, "x".join(map(str, shape)))


def test_a_name_with_published_weights_has_their_size_and_classes_and_no_values_unless_asked():
    opened = open_model("mobilenetv3_small_050")
    assert (opened.name, opened.shape, opened.assumed) == ("timm/mobilenetv3_small_050", (3, 224, 224), "")
    assert all(parameter.is_meta for parameter in opened.model.parameters())
    assert opened.mean is not None
    grey = open_model("mobilenetv3_small_050", input_shape=(1, 32, 32), outputs=4, weights="none")
    assert grey.model.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 4)


def test_opening_draws_no_numbers_that_others_would_have_drawn(here: Path):
    before = torch.get_rng_state()
    for text in (LINE, "net.yaml", "mine.py:net", "convnet"):
        open_model(text, weights="none")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (LINE, {"model": {"name": "line", "options": {"layers": LINE}}}),
        ("net.yaml", {"network": parse({"stem": {"width": 8}, "stages": [{"width": 8}, {"width": 16, "stride": 2}]})}),
        ("resnet18", {"model": "resnet18"}),
        ("auto", {"model": "auto"}),
        ("mine.py:net", {"model": "own"}),
    ],
)
def test_a_recipe_holds_what_was_asked_and_never_code(here: Path, text: str, keys: dict[str, object]):
    found, code = recipe_keys(read_model(text))
    assert (code is not None) is (text == "mine.py:net")
    recipe, expected = (
        Recipe.from_layers(found),
        Recipe().updated(
            {
                key: value.model_dump(mode="json") if hasattr(value, "model_dump") else value
                for key, value in keys.items()
            }
        ),
    )
    assert (recipe.model, recipe.network) == (expected.model, expected.network)


def test_arguments_reach_the_builder(here: Path):
    wide = open_model("mine.py:net", options={"width": 9}, weights="none").model
    assert next(wide.parameters()).shape[0] == 9
    assert recipe_keys(read_model("convnet", options={"width": 9}))[0] == {
        "model": {"name": "convnet", "options": {"width": 9}}
    }


@pytest.mark.parametrize(
    ("text", "says", "mend"),
    [
        ("mine.py", "names a file but not what in it", "mine.py:NAME"),
        ("absent.yaml", "absent.yaml cannot be read", "YAML"),
        ("resnet18.safetensors", "holds weights, and no network", "FILE.py:NAME"),
        ("photos/cats", "is a folder, and no run", "a RUN"),
        ("conv 3->4 kk3", "word 3, 'kk3'", "k3"),
        ("convnet-tinny", "no model named 'convnet-tinny' here, in timm or in torchvision, and no run", "convnet-tiny"),
        ("last", "There are no runs", "convsmith train"),
    ],
)
def test_what_is_no_model_is_refused_with_what_would_be_one(here: Path, text: str, says: str, mend: str):
    with pytest.raises(UsageError) as caught:
        open_model(text)
    assert says in caught.value.message
    assert mend in caught.value.mend


@pytest.mark.parametrize("text", [LINE, "net.yaml"])
def test_arguments_are_refused_where_nothing_takes_them(here: Path, text: str):
    with pytest.raises(UsageError, match="--arg"):
        read_model(text, options={"width": 3})


def test_a_mistake_in_a_line_is_told_before_any_image_is_read(here: Path):
    recipe_keys(read_model("conv 4 k3 | flatten | linear"))  # how many features only the images say
    with pytest.raises(UsageError, match="maps of 4x"):
        recipe_keys(read_model("conv 4 k3 | linear"))


@pytest.mark.parametrize(
    ("text", "shape"),
    [("224", (None, 224, 224)), ("224x160", (None, 224, 160)), ("1x28x20", (1, 28, 20)), (" 3X8X8 ", (3, 8, 8))],
)
def test_the_shape_of_an_image_is_read(text: str, shape: tuple[int | None, ...]):
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "0", "3x", "3x3x3x3", "-3", "99999999"])
def test_what_is_no_shape_is_refused(text: str):
    with pytest.raises(UsageError, match="no shape of an image"):
        parse_shape(text)


def test_a_network_or_a_function_is_taken_as_it_is():
    network = nn.Conv2d(1, 2, 3)
    assert open_module(network, input_shape=(1, 8, 8)).model is network
    assert open_module(lambda channels, outputs: nn.Conv2d(channels, outputs, 1), outputs=5).model.out_channels == 5
    with pytest.raises(UsageError, match="returned int"):
        open_module(lambda channels, outputs: 3)  # type: ignore[arg-type, return-value]
