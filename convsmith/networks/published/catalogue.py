"""Networks by name: our own table, then timm, then torchvision. Building one never loads weights.

`timm/NAME` and `torchvision/NAME` say which library is meant; without it the first that has the name is taken. A dot
after the name says which published weights are meant (`resnet50.a1_in1k`), where there are several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convsmith.errors import UsageError
from convsmith.networks.zoo import MODELS
from convsmith.registry import suggestion

Library = Literal["convsmith", "timm", "torchvision"]
LIBRARIES: tuple[Library, ...] = ("convsmith", "timm", "torchvision")
SET_HERE = {"in_chans", "num_classes", "weights", "progress", "scriptable", "exportable", "no_jit", "features_only"} | {
    "aux_logits",
    "init_weights",
    "transform_input",
}
"""Options of other libraries that are settled by arguments of our own, or make something else than a classifier."""
READS_FILES = {"checkpoint_path", "cache_dir"}  # and all that begin with `pretrained`: weights come through weights.py
DRAWING = {
    getattr(Tensor, name) for name in ["normal_", "uniform_", "fill_", "zero_", "mul_", "add_", "clamp_", "erfinv_"]
}
TWO_HEADED = ("inception_v3", "googlenet")
"""Those of torchvision that train with auxiliary classifiers, which are left out here."""


@dataclass(frozen=True)
class ModelName:
    """A name that was found.

    Args:
        library: where it is from.
        name: as that library knows it, with the tag of its weights if one was given.
    """

    library: Library
    name: str

    def __str__(self) -> str:
        return self.name if self.library == "convsmith" else f"{self.library}/{self.name}"

    @property
    def architecture(self) -> str:
        """The name without the tag of weights."""
        return self.name.partition(".")[0]

    @property
    def tag(self) -> str | None:
        """Which published weights were asked for; `None` leaves it to the library."""
        return self.name.partition(".")[2] or None


def resolve(name: str) -> ModelName:
    """Find a network by name; names of our own are found without loading another library.

    Raises:
        UsageError: nothing is called that; the closest names of all libraries are offered.
    """
    library, slash, rest = name.partition("/")
    wanted: list[Library] = [known for known in LIBRARIES if not slash or known == library]
    if not wanted:
        raise UsageError(
            f"There is no library of networks {library!r}.",
            mend="Write timm/NAME or torchvision/NAME; a run of yours goes to --weights RUN.",
        )
    asked = rest if slash else name
    for place in wanted:
        found = _LOOK[place](asked)
        if found is not None:
            return ModelName(place, found)
    raise UsageError(f"There is no model named {name!r} here, in timm or in torchvision.", mend=_closest(asked, wanted))


def names(library: Library) -> list[str]:
    """All classifiers of a library, without tags of weights."""
    if library == "convsmith":
        return list(MODELS)
    if library == "timm":
        import timm

        return timm.list_models()
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def build_named(name: str, in_channels: int, outputs: int, **options: Any) -> nn.Module:
    """Build a network with random weights, drawn from PyTorch's current seed.

    Args:
        name: see the module's docstring.
        in_channels: channels of the images; of torchvision's networks the first convolution is replaced where it is
            not 3, with weights of a deviation that keeps the size of what comes out.
        outputs: logits to give.
        options: further arguments of the builder, such as `drop_path_rate` for many of timm's.

    Raises:
        UsageError: an unknown name, or an option that the network does not take.
    """
    found = resolve(name)
    if found.library == "convsmith":
        return MODELS.build(found.name, in_channels, outputs, **options)
    refuse_options(found, options)
    with _explaining(found, options):
        if found.library == "timm":
            import timm

            return timm.create_model(found.architecture, in_chans=in_channels, num_classes=outputs, **options)
        return _torchvision(found, in_channels, outputs, options)


def build_empty(name: str, in_channels: int, outputs: int, **options: Any) -> nn.Module:
    """Build a network whose parameters have shapes but no values, to be counted or compared, at no cost in memory.

    A few networks compute with tensors while they are built; those come with values.
    """
    try:
        with torch.device("meta"), _Undrawn():
            return build_named(name, in_channels, outputs, **options)
    except (NotImplementedError, RuntimeError):  # what a tensor without values raises depends on what is asked of it
        return build_named(name, in_channels, outputs, **options)


class _Undrawn(TorchFunctionMode):
    """Leaves out the drawing of values for tensors that have none, which is half the time of building with them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DRAWING and args and isinstance(args[0], Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def size_options(name: str, size: int) -> dict[str, int]:
    """The options by which a network is made for images of `size` px; empty where it takes any size, as most do.

    A vision transformer is made for one size, because of its position embedding; networks of ours with the tag `sized`
    because of a linear layer that reads all positions.
    """
    found = resolve(name)
    if found.library == "convsmith":
        return {"side": size} if "sized" in MODELS[found.name].tags else {}
    if found.library == "timm":
        from timm.models import get_pretrained_cfg

        published = get_pretrained_cfg(found.name)
        fixed = published is not None and published.fixed_input_size and published.input_size[1:] != (size, size)
        return {"img_size": size} if fixed else {}
    transformer = found.library == "torchvision" and found.name.startswith("vit_")
    return {"image_size": size} if transformer else {}


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d]:
    """The path and the module of the convolution that sees the image, by the order in which layers were registered."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return path, module
    raise UsageError(f"{type(model).__name__} has no convolution.")


def refuse_options(name: ModelName, options: Mapping[str, Any]) -> None:
    """Refuse options that would load files, make no classifier, or say again what arguments of ours say.

    Raises:
        UsageError: naming the first of them.
    """
    for option in options:
        if option in READS_FILES or option.startswith("pretrained"):
            raise UsageError(f"{name} cannot take {option!r} as an option.", mend="Weights are given by --weights.")
        if option in SET_HERE:
            raise UsageError(f"{option!r} of {name} is not an option: it follows from the images and the task.")


def _closest(asked: str, wanted: list[Library]) -> str:
    """Which names are close; another library's are offered too, with its name before them."""
    known: dict[str, str] = {}
    for place in (*wanted, *LIBRARIES):
        for candidate in names(place):
            plain = place in wanted or place == "convsmith"
            known.setdefault(candidate, candidate if plain else f"{place}/{candidate}")
    close = [known[candidate] for candidate in get_close_matches(asked, known, n=3, cutoff=0.6)]
    return f"Did you mean {' or '.join(close)}?" if close else "Search with `convsmith models '*part*'`."


def _own(name: str) -> str | None:
    return name if name in MODELS else None


def _in_timm(name: str) -> str | None:
    from timm.models import get_deprecated_models, get_pretrained_cfg, is_model, list_models

    architecture, _, tag = name.partition(".")
    if architecture.partition(":")[1] or not is_model(architecture):
        return None
    renamed = get_deprecated_models()
    if architecture in renamed:
        current = renamed[architecture]
        return current if current is None or not tag else f"{current.partition('.')[0]}.{tag}"
    if tag:
        try:
            get_pretrained_cfg(name)
        except RuntimeError:
            tags = [known.partition(".")[2] for known in list_models(f"{architecture}.*", include_tags=True)]
            raise UsageError(
                f"timm has no weights {tag!r} of {architecture}.", mend=suggestion(tag, filter(None, tags))
            ) from None
    return name


def _in_torchvision(name: str) -> str | None:
    architecture, _, tag = name.partition(".")
    if architecture not in names("torchvision"):
        return None
    if tag:
        from torchvision.models import get_model_weights

        tags = list(get_model_weights(architecture).__members__)
        if tag not in tags:
            raise UsageError(f"torchvision has no weights {tag!r} of {architecture}.", mend=suggestion(tag, tags))
    return name


_LOOK = {"convsmith": _own, "timm": _in_timm, "torchvision": _in_torchvision}


def _torchvision(name: ModelName, in_channels: int, outputs: int, options: Mapping[str, Any]) -> nn.Module:
    from torchvision.models import get_model

    fixed: dict[str, Any] = {}
    if name.architecture in TWO_HEADED:
        fixed = {"aux_logits": False, "init_weights": True}
    model = get_model(name.architecture, weights=None, num_classes=outputs, **{**fixed, **options})
    if in_channels != 3:
        path, old = first_convolution(model)
        kernel, stride, padding = (_pair(side) for side in (old.kernel_size, old.stride, old.padding))
        new = nn.Conv2d(in_channels, old.out_channels, kernel, stride, padding, bias=old.bias is not None)
        with torch.no_grad():
            if not old.weight.is_meta:
                nn.init.normal_(new.weight, std=float(old.weight.std()) * math.sqrt(3 / in_channels))
                if new.bias is not None and old.bias is not None:
                    new.bias.copy_(old.bias)
        model.set_submodule(path, new, strict=True)
    return model


def _pair(sides: Any) -> tuple[int, int]:
    high, wide = sides
    return high, wide


@contextmanager
def _explaining(name: ModelName, options: Mapping[str, Any]) -> Iterator[None]:
    """Blame the options for an error inside, where some were given; without any it is the library's own."""
    try:
        yield
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError, AttributeError) as error:
        if not options or isinstance(error, torch.OutOfMemoryError):
            raise
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise UsageError(
            f"{name} cannot be made with {given}: {error or type(error).__name__}.",
            mend="Correct or leave out that option (model.options).",
        ) from error
