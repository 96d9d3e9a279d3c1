"""What is published about pretrained weights: how images must be prepared, which classes, which licence, which file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from convsmith.networks.published.catalogue import TWO_HEADED, ModelName, resolve

HUB_FILE = "model.safetensors"
OLDER_HUB_FILE = "pytorch_model.bin"
"""What a repository on the hub has where it has not the other."""
UNSTATED = "not stated"
OLDER_LICENCE = "BSD-3-Clause, as torchvision itself; none is stated for the weights"
MODES: dict[str, Literal["crop", "stretch", "pad"]] = {"center": "crop", "squash": "stretch", "border": "pad"}


@dataclass(frozen=True)
class Pretrained:
    """Published weights of a network, and how the images were prepared that they were measured on.

    Args:
        name: the network and its weights.
        tag: which of its published weights; empty where there is one alone.
        mean, std: per channel, of values between 0 and 1.
        input_size: `(channels, height, width)`.
        fixed_size: whether it takes that size alone unless it is made for another (`catalogue.size_options`).
        keep: share of the shorter side that is kept in the middle.
        fit: how other shapes were brought to a square.
        interpolation: bilinear, bicubic or another of Pillow's names.
        licence: of the weights, as published.
        outputs: logits they give; 0 where they have no head.
        classes: English names in the order of the logits, where they are known.
        wnids: the same as WordNet identifiers (n01440764), where they are known.
        hub_id: repository on the Hugging Face hub, or None.
        hub_file: the file in it.
        url: address of the file where it is not on that hub.
        sha256: first characters of the file's hash where the address tells them, else empty.
    """

    name: ModelName
    tag: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, int, int]
    fixed_size: bool
    keep: float
    fit: Literal["crop", "stretch", "pad"]
    interpolation: str
    licence: str
    outputs: int
    classes: tuple[str, ...]
    wnids: tuple[str, ...]
    hub_id: str | None
    hub_file: str
    url: str | None
    sha256: str


def describe_weights(name: str, *, classes: bool = True) -> Pretrained | None:
    """What is published about the weights of a network; None where none are.

    Args:
        name: as `catalogue.resolve` takes it.
        classes: whether to look up the classes' names, which takes 30 ms; a list of many networks does without.

    Raises:
        UsageError: an unknown name.
    """
    found = resolve(name)
    if found.library == "timm":
        return _timm(found, classes)
    return _torchvision(found, classes) if found.library == "torchvision" else None


def cached_file(published: Pretrained) -> Path | None:
    """Where the weights lie on this machine already, without asking any network; None where they do not."""
    if published.hub_id is not None:
        from huggingface_hub import try_to_load_from_cache

        repository, _, revision = published.hub_id.partition("@")
        for file in (published.hub_file, OLDER_HUB_FILE):
            path = try_to_load_from_cache(repository, file, revision=revision or None)
            if isinstance(path, str):
                return Path(path)
    if published.url is not None:
        path = checkpoints_folder() / Path(urlparse(published.url).path).name
        return path if path.is_file() else None
    return None


def checkpoints_folder() -> Path:
    """Where PyTorch keeps weights it has fetched; it may not exist yet."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _timm(name: ModelName, named: bool) -> Pretrained | None:
    from timm.models import get_pretrained_cfg

    published = get_pretrained_cfg(name.name)
    if published is None or not published.has_weights:
        return None
    address = published.url[0] if isinstance(published.url, tuple) else published.url
    classes, wnids = _imagenet(published.num_classes) if named else ((), ())
    return Pretrained(
        name=name,
        tag=published.tag or "",
        mean=tuple(published.mean),
        std=tuple(published.std),
        input_size=published.input_size,
        fixed_size=published.fixed_input_size,
        keep=published.crop_pct,
        fit=MODES.get(published.crop_mode, "crop"),
        interpolation=published.interpolation,
        licence=published.license or UNSTATED,
        outputs=max(published.num_classes, 0),
        classes=classes,
        wnids=wnids,
        hub_id=published.hf_hub_id,
        hub_file=published.hf_hub_filename or HUB_FILE,
        url=address,
        sha256=_told_by(address),
    )


def _torchvision(name: ModelName, named: bool) -> Pretrained | None:
    from torchvision.models import get_model_weights

    known: Any = get_model_weights(name.architecture)
    if not len(known):
        return None
    weights: Any = known[name.tag] if name.tag else known.DEFAULT
    preparing = weights.transforms()
    side = preparing.crop_size[0]
    outputs = len(weights.meta["categories"])
    # These two turn images normalised by ImageNet's figures into ones normalised by a half, inside the network, when
    # their weights are loaded. Here they are normalised so in the first place, and the network's own turn stays off.
    halves = name.architecture in TWO_HEADED
    return Pretrained(
        name=name,
        tag=weights.name,
        mean=(0.5, 0.5, 0.5) if halves else tuple(preparing.mean),
        std=(0.5, 0.5, 0.5) if halves else tuple(preparing.std),
        input_size=(3, side, side),
        fixed_size=name.name.startswith("vit_"),
        keep=min(1.0, side / preparing.resize_size[0]),
        fit="crop",
        interpolation=preparing.interpolation.value,
        licence=weights.meta.get("license", OLDER_LICENCE),
        outputs=outputs,
        classes=tuple(weights.meta["categories"]) if named else (),
        wnids=_imagenet(outputs)[1] if named else (),
        hub_id=None,
        hub_file="",
        url=weights.url,
        sha256=_told_by(weights.url),
    )


def _imagenet(outputs: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """English names and WordNet identifiers of ImageNet's classes, by how many there are; empty for other numbers."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": outputs})
    if subset is None:
        return (), ()
    info = ImageNetInfo(subset)
    return tuple(info.label_descriptions()), tuple(info.label_names())


def _told_by(address: str | None) -> str:
    """The first characters of a file's SHA-256 that its name ends with, as in `resnet18-f37072fd.pth`."""
    found = re.search(r"-([0-9a-f]{8,64})\.", Path(urlparse(address).path).name) if address else None
    return found[1] if found else ""
