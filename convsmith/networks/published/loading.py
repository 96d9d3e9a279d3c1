"""Pretrained weights into a network, every one of them or none: what does not fit is named."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.errors import DataError
from convsmith.networks.published.catalogue import (
    TWO_HEADED,
    ModelName,
    build_empty,
    build_named,
    first_convolution,
    names,
    refuse_options,
    resolve,
)
from convsmith.networks.published.pretrained import describe_weights
from convsmith.networks.published.weights import Found, read_checkpoint

NAMED = 2
"""Tensors named in a message, of those that are missing or of another shape."""

MARK = 1009
"""Outputs to build with when looking for the head: a prime that no network has as a width of its own."""
SECOND_HEADS = ("AuxLogits.", "aux1.", "aux2.")
OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")
"""Names that DenseNet's published weights have, and its modules no longer: `norm.1` for `norm1`."""
COUNTER = ".num_batches_tracked"
"""A count that batch norm had not yet when older weights were saved, and that nothing here uses."""


def load_pretrained(
    name: str, found: Found, in_channels: int, *, notes: list[str] | None = None, **options: Any
) -> nn.Module:
    """Build a network with the weights of a file and with their own head, whose outputs are as many as the file says.

    timm's networks take them through timm's own filter, which knows the names of older files and resamples position
    embeddings. Where `in_channels` is not 3, the first convolution's weights are summed (1 channel) or repeated and
    scaled, as timm does. Weights without any head get a new one of one output, which is there to be replaced.

    Args:
        name: as `catalogue.resolve` takes it.
        found: as `weights.find_weights` gives it.
        in_channels: channels of the images.
        notes: sentences about what was done to fit are added to it.
        options: further arguments of the builder; `size_options` has those that another size needs.

    Raises:
        DataError: the file is damaged, or is of another network: the first names that are missing, not expected, or of
            another shape.
        UsageError: an unknown network or option.
    """
    model = resolve(name)
    checkpoint = read_checkpoint(found.path)
    notes = [] if notes is None else notes
    notes.extend(checkpoint.notes)
    if model.library == "timm":
        refuse_options(model, options)
        return _into_timm(model, found, checkpoint.tensors, in_channels, options)
    tensors = _renamed(model, checkpoint.tensors, notes) if model.library == "torchvision" else checkpoint.tensors
    outputs = _outputs(name, tensors, in_channels, options) or 1000
    network = build_named(name, in_channels, outputs, **options)
    tensors = _fitted(model, network, tensors, options)
    _compare(name, found, network.state_dict(), tensors)
    state = OrderedDict(tensors)
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]  # MNASNet asks which form it has
    network.load_state_dict(state)
    return network


def _into_timm(
    model: ModelName, found: Found, tensors: dict[str, Tensor], in_channels: int, options: Mapping[str, Any]
) -> nn.Module:
    import timm

    published = describe_weights(str(model), classes=False)
    usual = published.outputs if published else 1000
    outputs = _outputs(str(model), tensors, in_channels, options)
    outputs = usual if outputs is None else outputs
    overlay: dict[str, Any] = {"num_classes": outputs, "custom_load": False}
    extra = _background(model)  # an extra class before the others, in some of the oldest weights, which timm cuts off
    if extra and outputs == usual + extra:
        outputs = overlay["num_classes"] = usual
    elif extra:
        overlay["label_offset"] = 0

    def built(state: Mapping[str, Tensor]) -> nn.Module:
        with _silent("timm.models"):  # it warns of each name where it loads loosely, which is refused below
            network = timm.create_model(
                model.name,
                pretrained=True,
                pretrained_cfg_overlay={**overlay, "state_dict": dict(state)},
                in_chans=in_channels,
                num_classes=outputs,
                **options,
            )
        vars(network)["pretrained_cfg"].pop("state_dict", None)  # timm would keep the whole file in memory
        return network

    try:
        network = built(tensors)
    except (RuntimeError, KeyError, ValueError, AttributeError, IndexError, TypeError, AssertionError) as error:
        # `strict` of `load_state_dict`, or the filter, which expects names of this network.
        expected = build_empty(str(model), in_channels, outputs, **options).state_dict()
        _compare(str(model), found, expected, tensors)
        raise DataError(f"{found.path.name} does not fit {model}: {str(error).splitlines()[0]}") from error
    untouched = _untouched(built, tensors) if network.state_dict().keys() != tensors.keys() else []
    if untouched:
        _compare(str(model), found, network.state_dict(), tensors)
        raise DataError(
            f"{found.path.name} does not fit {model}: missing {_first(untouched)}.", mend=_guess(str(model), found)
        )
    if not outputs:
        network.reset_classifier(1)  # type: ignore[operator]
    return network


def _untouched(built: Callable[[Mapping[str, Tensor]], nn.Module], tensors: Mapping[str, Tensor]) -> list[str]:
    """Which parameters of the network no tensor of the file reaches: those that hold no NaN when the file's all do.

    timm loads some networks loosely, and its filter renames what it knows, so that names alone do not tell.
    """
    poison = {
        key: torch.full_like(value, torch.nan) if value.is_floating_point() else value for key, value in tensors.items()
    }
    reached = built(poison).named_parameters()
    return [key for key, value in reached if not bool(value.isnan().any())]


@contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _background(model: ModelName) -> int:
    from timm.models import get_pretrained_cfg

    published = get_pretrained_cfg(model.name)
    return (published.label_offset or 0) if published else 0


def _outputs(name: str, tensors: Mapping[str, Tensor], in_channels: int, options: Mapping[str, Any]) -> int | None:
    """How many outputs the head in the file has; None where it is under no name that the network has."""
    empty = build_empty(name, in_channels, MARK, **options)
    heads = [key for key, tensor in empty.state_dict().items() if tensor.ndim and tensor.shape[0] == MARK]
    return next((tensors[key].shape[0] for key in heads if key in tensors and tensors[key].ndim), None)


def _renamed(model: ModelName, tensors: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Take torchvision's published names to those its modules have now; leave out auxiliary classifiers."""
    kept: dict[str, Tensor] = {}
    left = 0
    for key, tensor in tensors.items():
        if model.architecture in TWO_HEADED and key.startswith(SECOND_HEADS):
            left += 1
            continue
        old = OLD_DENSENET.fullmatch(key) if model.architecture.startswith("densenet") else None
        kept[old[1] + old[2] if old else key] = tensor
    if left:
        notes.append(f"{left} tensors of auxiliary classifiers, which are used in training alone, were left out.")
    return kept


def _fitted(
    model: ModelName, network: nn.Module, tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Bring the first convolution to the network's channels, and a position embedding to its size."""
    fitted = dict(tensors)
    for key, tensor in network.state_dict().items():
        if key.endswith(COUNTER):
            fitted.setdefault(key, tensor)
    if model.library == "torchvision":
        from timm.models import adapt_input_conv

        path, first = first_convolution(network)
        weight = fitted.get(f"{path}.weight")
        if weight is not None and weight.ndim == 4 and weight.shape[1] == 3 and first.in_channels != 3:
            fitted[f"{path}.weight"] = adapt_input_conv(first.in_channels, weight)
    embedding = "encoder.pos_embedding"
    size, patch = options.get("image_size"), getattr(network, "patch_size", None)
    if embedding in fitted and isinstance(size, int) and isinstance(patch, int):
        from torchvision.models.vision_transformer import interpolate_embeddings

        fitted = dict(interpolate_embeddings(size, patch, fitted))  # type: ignore[arg-type]
    return fitted


def _compare(name: str, found: Found, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Raise where names or shapes differ, saying which.

    Raises:
        DataError: they do.
    """
    missing = [key for key in expected if key not in tensors and not key.endswith(COUNTER)]
    strange = [key for key in tensors if key not in expected and not key.endswith(COUNTER)]
    shapes = [
        f"{key} is {list(tensors[key].shape)} where {list(expected[key].shape)} was expected"
        for key in expected
        if key in tensors and tensors[key].shape != expected[key].shape
    ]
    said = [f"{words} {_first(keys)}" for words, keys in (("missing", missing), ("not expected", strange)) if keys]
    if shapes and not said:  # those of another network may have any shape
        said.append(_first(shapes))
    if said:
        raise DataError(f"{found.path.name} does not fit {name}: {'; '.join(said)}.", mend=_guess(name, found))


def _first(keys: Iterable[str]) -> str:
    listed = list(keys)
    rest = f" and {len(listed) - NAMED:,} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + rest


def _guess(name: str, found: Found) -> str:
    """Which network the file may be of, by its name: the longest of all known names that it begins with."""
    known = [*names("timm"), *names("torchvision"), *names("convsmith")]
    file = found.path.name.lower()
    fitting = [
        candidate for candidate in known if file.startswith(candidate) and candidate != resolve(name).architecture
    ]
    if not fitting:
        return f"Give weights of {name}, or name the network they are of: --model NAME."
    return f"By its name it is of {max(fitting, key=len)}: --model {max(fitting, key=len)}."
