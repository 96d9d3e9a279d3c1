"""The one grammar of MODEL: a name, a RUN, `file.py:Name`, `design.yaml`, or a written line of layers.

What a text means is decided by its form, and looked up only then: a line has a `|` or begins with a layer's word, a
file ends in `.py` or `.yaml`, a run is a folder or a name in the folder of runs, and the rest are names of networks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from convsmith.design import ConvNet, read
from convsmith.errors import RunError, UsageError
from convsmith.evaluation import is_cross_validation
from convsmith.networks import build_design, build_named, describe_weights, load_own, resolve, size_options
from convsmith.networks.lines.reading import Line, channels_of, looks_like_line, read_line
from convsmith.networks.lines.words import Unsettled
from convsmith.networks.published.catalogue import build_empty
from convsmith.pipeline.build import OWN, Code, ModelFunction, bare_network
from convsmith.recipe import Named, Recipe, settled
from convsmith.run_folder import RunFolder, find_run
from convsmith.training import untouched

Shape = tuple[int, int, int]
Partly = tuple[int | None, int | None, int | None]
"""A shape of which parts may be left to the model."""
ASSUMED: Shape = (3, 224, 224)
OUTPUTS = 1000
"""Classes where neither the user nor the model says how many."""
FORMS = "a name, a RUN, FILE.py:NAME, a design.yaml, or a line of layers such as 'conv 3->64 k7 s2 p3 | relu'"
DRAWN = "drawn at random"
LINE = "line"
"""The name under which a recipe holds a line of layers."""


@dataclass(frozen=True)
class Asked:
    """What a text means as a model, before anything is built.

    Args:
        kind: which of the forms it has.
        text: as typed.
        options: further arguments of a name's or of the user's own builder.
        code, run, network: what it names, for these forms.
    """

    kind: Literal["name", "run", "code", "design", "line"]
    text: str
    options: Mapping[str, Any] = field(default_factory=dict)
    code: Code | None = None
    run: RunFolder | None = None
    network: ConvNet | None = None


@dataclass(frozen=True)
class Given:
    """A model that was opened.

    Args:
        name: what to call it.
        model: the network; without values where they were not asked for.
        shape: of one image, `(channels, height, width)`.
        assumed: what of that shape is neither the user's nor the model's own: all of it, its channels, or nothing.
        asked: what it was opened from.
        line: the layers of a written line, None for other models.
        weights: where its values come from, in words; empty where it has none.
        mean, std: by which images are prepared for it; None where nothing is known.
    """

    name: str
    model: nn.Module
    shape: Shape
    assumed: str
    asked: Asked
    line: Line | None = None
    weights: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def run(self) -> RunFolder | None:
        """The run it is from."""
        return self.asked.run

    @property
    def drawn(self) -> bool:
        """Whether its values were drawn at random."""
        return self.weights == DRAWN


def read_model(text: str, *, options: Mapping[str, Any] | None = None, runs: Path = Path("runs")) -> Asked:
    """Say what a text means as a model; nothing is built, and names are looked up only where that is quick.

    Args:
        text: see the module's docstring.
        options: further arguments of the builder.
        runs: where runs are looked up by name.

    Raises:
        UsageError: a file or a run that is not there, a file of weights, or options that its form does not take.
    """
    given = options or {}
    text = text.strip()
    if looks_like_line(text):
        return _without_options(Asked("line", " ".join(text.split())), given)
    path, colon, name = text.rpartition(":")
    if text.endswith(".py") or (colon and path.endswith(".py")):
        if not colon:
            raise UsageError(
                f"--model {text} names a file but not what in it.",
                mend=f"Write {text}:NAME, NAME being its class or function.",
            )
        return Asked("code", text, given, code=Code(Path(path), name, given))
    if text.endswith((".yaml", ".yml")):
        return _without_options(Asked("design", text, network=read(text)), given)
    if Path(text).suffix in {".safetensors", ".pt", ".pth", ".bin", ".onnx"}:
        raise UsageError(f"{text} holds weights, and no network that they belong to.", mend=f"Give {FORMS}.")
    if text == "last" or any((folder / "recipe.yaml").is_file() for folder in (Path(text), runs / text)):
        return _without_options(Asked("run", text, run=_single(find_run(text, runs))), given)
    if Path(text).is_dir() and len(Path(text).parts) > 1:
        raise UsageError(f"{text} is a folder, and no run.", mend=f"Give {FORMS}.")
    return Asked("name", text, given)


def recipe_keys(asked: Asked) -> tuple[dict[str, Any], Code | None]:
    """What a recipe holds of a model, as dotted keys, and the user's own code if it is that.

    Raises:
        UsageError: it is a run whose network is the user's own code.
    """
    match asked.kind:
        case "code":
            return {"model": OWN}, asked.code
        case "design":
            assert asked.network is not None
            return {"network": asked.network.model_dump(mode="json")}, None
        case "line":
            with suppress(Unsettled):  # a mistake is told now; sizes are known once the images are
                read_line(asked.text, (channels_of(asked.text) or ASSUMED[0], None, None), outputs=1)
            return {"model": {"name": LINE, "options": {"layers": asked.text}}}, None
        case "run":
            assert asked.run is not None
            return _of_run(asked.run), None
    return {"model": {"name": asked.text, "options": dict(asked.options)} if asked.options else asked.text}, None


def parse_shape(text: str) -> Partly:
    """Read the shape of an image: `224`, `224x160` (height, then width) or `3x224x224`.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(?:(\d+)x)?(\d+)(?:x(\d+))?", text.strip().lower())
    sides = [int(part) for part in re.findall(r"\d+", text)]
    if found is None or not all(0 < side <= 65_536 for side in sides):
        raise UsageError(
            f"{text!r} is no shape of an image.", mend="Write 224, 224x160 or 3x224x224, each from 1 to 65,536."
        )
    match sides:
        case [side]:
            return None, side, side
        case [height, width]:
            return None, height, width
    return sides[0], sides[1], sides[2]


def image_shape(shape: str | int | Sequence[int] | None) -> Partly:
    """The shape of an image as given in Python: `(channels, height, width)`, a side, or text for `parse_shape`."""
    if shape is None:
        return None, None, None
    return parse_shape(str(shape) if isinstance(shape, (str, int)) else "x".join(map(str, shape)))


def open_model(
    text: str,
    *,
    options: Mapping[str, Any] | None = None,
    code: Code | None = None,
    input_shape: Partly = (None, None, None),
    outputs: int | None = None,
    runs: Path = Path("runs"),
    weights: str | None = None,
) -> Given:
    """Open a model by the one grammar, to be looked at.

    Args:
        text: see the module's docstring.
        options: further arguments of the builder of a name or of the user's own network.
        code: the file of a run whose network is the user's own; its hash is checked.
        input_shape: of one image; what is None follows from the model, or is assumed to be 3x224x224.
        outputs: classes; what the model is made for where None, else 1,000.
        runs: where runs are looked up by name.
        weights: None builds it without values, where its kind allows; "auto" loads a run's, or published ones; a name's
            may also be a file or a folder of weights; "own" loads a run's and draws those of others; "none" draws them.

    Raises:
        UsageError: nothing is called that, or it cannot be built like that.
        DataError, RunError: weights were asked for and are not there.
    """
    asked = read_model(text, options=options, runs=runs)
    match asked.kind:
        case "run":
            return _open_run(asked, code, input_shape, outputs, weights)
        case "name":
            return _open_name(asked, input_shape, outputs, runs, weights, code)
        case "line":
            shape, assumed = _shape(input_shape, (channels_of(asked.text), None, None))
            read = read_line(asked.text, shape, outputs=outputs or OUTPUTS)
            with torch.device("meta" if weights is None else "cpu"), untouched():
                return Given(asked.text, read.network(), shape, assumed, asked, line=read, weights=_drawn(weights))
    shape, assumed = _shape(input_shape, (None, None, None))
    with untouched():
        if asked.network is not None:
            model = build_design(asked.network, shape[0], outputs or OUTPUTS)
        else:
            assert asked.code is not None
            model = load_own(
                asked.code.path, asked.code.name, asked.code.options, in_channels=shape[0], outputs=outputs or OUTPUTS
            )
    return Given(asked.text, model, shape, assumed, asked, weights=_drawn(weights))


def open_module(
    model: nn.Module | ModelFunction, *, input_shape: Partly = (None, None, None), outputs: int | None = None
) -> Given:
    """Open a network that is there already, or a function `(in_channels, outputs)` that makes one, to be looked at.

    Args:
        model: used as it is; a function is called once.
        input_shape, outputs: as in `open_model`.

    Raises:
        UsageError: the function makes no network.
    """
    shape, assumed = _shape(input_shape, (None, None, None))
    made = model
    if not isinstance(made, nn.Module):
        with untouched():
            made = made(shape[0], outputs or OUTPUTS)
    if not isinstance(made, nn.Module):
        raise UsageError(
            f"{getattr(model, '__name__', model)} returned {type(made).__name__}, not a torch.nn.Module.",
            mend="Give a network, a name, or a function (in_channels, outputs) that returns a network.",
        )
    name = type(made).__name__
    return Given(name, made, shape, assumed, Asked("code", name))


def _open_run(asked: Asked, code: Code | None, shape: Partly, outputs: int | None, weights: str | None) -> Given:
    from convsmith.pipeline.trained import load_trained, recorded_code

    assert asked.run is not None
    recipe = asked.run.read_recipe()
    size = settled(recipe.image.size)
    own = (settled(recipe.image.channels), size, size)
    manifest = asked.run.read_json("manifest.json")
    classes = len(manifest["classes"])
    if outputs not in (None, classes):
        raise UsageError(f"{asked.text} has {classes} classes, not {outputs}.", mend="Leave --outputs out.")
    if weights in (None, "none"):
        with untouched():
            model = bare_network(recipe, classes, recorded_code(manifest, code))
        says = _drawn(weights)
    else:
        model, says = load_trained(asked.run, code=code, device="cpu").model, "as trained"
    mean, std = settled(recipe.image.mean), settled(recipe.image.std)
    return Given(asked.run.path.name, model, _shape(shape, own)[0], "", asked, weights=says, mean=mean, std=std)


def _open_name(
    asked: Asked, shape: Partly, outputs: int | None, runs: Path, weights: str | None, code: Code | None
) -> Given:
    try:
        found = resolve(asked.text)
    except UsageError as error:
        run = _run_called(asked.text, runs)
        if run is not None:
            return _open_run(
                _without_options(Asked("run", asked.text, run=run), asked.options), code, shape, outputs, weights
            )
        raise UsageError(
            f"{error.message.rstrip('.')}, and no run of that name in {runs}.", mend=f"{error.mend} MODEL is {FORMS}."
        ) from None
    described = describe_weights(str(found), classes=False) if found.library != "convsmith" else None
    made, assumed = _shape(shape, _made_for(found) if described is None else described.input_size)
    count = outputs or (described.outputs if described is not None else 0) or OUTPUTS
    sized: dict[str, Any] = {**size_options(asked.text, made[2]), **size_options(asked.text, made[1])}
    if "img_size" in sized:  # of timm's, which may be other than square
        sized["img_size"] = made[1:]
    sized |= asked.options
    says, mean, std = "", None, None
    if weights is None:
        model = build_empty(asked.text, made[0], count, **sized)
    elif weights in ("none", "own") or described is None:
        with untouched():
            model = build_named(asked.text, made[0], count, **sized)
        says = _drawn(weights)
    else:
        from convsmith.networks import find_weights, load_pretrained

        held = find_weights(asked.text, weights)
        with untouched():
            model = load_pretrained(asked.text, held, made[0], **sized)
        says = held.origin
    if described is not None:
        mean, std = described.mean, described.std
    return Given(str(found), model, made, assumed, asked, weights=says, mean=mean, std=std)


def _shape(given: Partly, own: Partly) -> tuple[Shape, str]:
    """A whole shape: what was given, else the model's own, else the one that is assumed; and what had to be."""
    sides = [known if known is not None else its for known, its in zip(given, own, strict=True)]
    channels, height, width = (side if side is not None else other for side, other in zip(sides, ASSUMED, strict=True))
    if None in sides[1:]:
        return (channels, height, width), f"{channels}x{height}x{width}"
    return (channels, height, width), "" if sides[0] is not None else f"{channels} channels"


def _drawn(weights: str | None) -> str:
    return "" if weights is None else DRAWN


def _made_for(name: Any) -> Partly:
    """The shape that timm says a network without weights is made for."""
    if name.library != "timm":
        return None, None, None
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(name.name)
    return (None, None, None) if known is None else known.input_size


def _run_called(text: str, runs: Path) -> RunFolder | None:
    try:
        found = find_run(text, runs)
    except (UsageError, RunError):
        return None
    return _single(found)


def _single(run: RunFolder) -> RunFolder:
    if is_cross_validation(run):
        raise RunError(f"{run.path} is a cross-validation of several networks.", mend="Name one of the runs in it.")
    return run


def _of_run(run: RunFolder) -> dict[str, Any]:
    recipe: Recipe = run.read_recipe()
    assert isinstance(recipe.model, Named)
    if recipe.model.name == OWN:
        raise UsageError(
            f"The network of {run.path.name} is your own code, which is never run unasked.",
            mend="Name the file and what in it makes the network: --model FILE.py:NAME.",
        )
    if recipe.network is not None:
        return {"network": recipe.network.model_dump(mode="json")}
    return {"model": recipe.model.model_dump()}


def _without_options(asked: Asked, options: Mapping[str, Any]) -> Asked:
    if options:
        what = {"line": "a line of layers", "design": "a design", "run": "a run"}[asked.kind]
        raise UsageError(f"--arg is for a name or for FILE.py:NAME, and {asked.text} is {what}.", mend="Leave it out.")
    return asked
