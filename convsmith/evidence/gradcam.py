"""Where in a picture a network saw the class that it named: Grad-CAM, for any convolutional network.

Source: Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based localization". A map
says which places raised the class's logit, at the resolution of the last feature maps and to first order; it is no
proof that nothing else mattered.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from convsmith.batches import Normalize
from convsmith.errors import UsageError
from convsmith.evaluation import Predictions, softmax
from convsmith.evidence.predict import inference_mode
from convsmith.run_folder import RunFolder, write_atomically

BATCH_SIZE = 32  # half of what predicting takes at most, because the layers after the maps keep their activations
SOURCE = "Selvaraju et al. 2017, equations 1 and 2"
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow converts to grey
COVER = 0.7  # how much of the strongest place is colour; the rest is the picture


@dataclass(frozen=True)
class Layer:
    """The module whose output is explained, and which of its calls in one forward pass it is."""

    name: str
    module: nn.Module
    call: int


def grad_cam(model: nn.Module, images: Tensor, classes: np.ndarray | Sequence[int]) -> np.ndarray:
    """Return for each image how much each place spoke for a class.

    The weight of a feature map is the mean over its places of the gradient of the class's logit (equation 1); the map
    is the positive part of the weighted sum (equation 2), divided by its largest value. It is zero throughout where
    no place spoke for the class. With global average pooling and a linear head it is the class activation map of
    Zhou et al. 2016, cut at zero.

    The network is used in inference mode, and left as it was found: its modes, its parameters and their gradients, and
    no hook. Parameters may be frozen, for gradients are taken with respect to the feature maps alone.

    Args:
        model: from images to logits `[N, K]`.
        images: float32 `[N, C, H, W]`, prepared as the network takes them.
        classes: int `[N]`, the class explained in each image.

    Returns:
        float32 `[N, h, w]` in [0, 1], as large as the last feature maps.

    Raises:
        UsageError: the network has no feature maps, gives no logits `[N, K]`, or classes do not fit.
    """
    wanted = np.asarray(classes, dtype=np.int64)
    if wanted.shape != images.shape[:1]:
        raise UsageError(f"Classes have shape {list(wanted.shape)}, but there are {len(images)} images; give one each.")
    layer = last_feature_maps(model, images[:1])
    parts = [
        _maps(model, layer, images[start : start + BATCH_SIZE], wanted[start : start + BATCH_SIZE])
        for start in range(0, len(images), BATCH_SIZE)
    ]
    return np.concatenate(parts)


def last_feature_maps(model: nn.Module, image: Tensor) -> Layer:
    """Return the last module in a forward pass whose output is `[N, C, h, w]` with more than one place.

    What comes after it is the pooling or flattening and the head. A container counts as a module, so it may be a whole
    stage.

    Args:
        model: any network.
        image: `[1, C, H, W]`.

    Raises:
        UsageError: there is no image or no such module.
    """
    if len(image) == 0:
        raise UsageError("There are no images to explain.")
    with inference_mode(model), torch.no_grad(), _watched(model) as watch:
        output = model(image.to(_device(model, image)))
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise UsageError("Grad-CAM explains logits [N, K], but this network's output is something else.")
    if watch.last is None:
        raise UsageError(
            "This network has no feature maps to explain: no module gives [N, C, h, w] with more than one place.",
            mend="Explain a convolutional network, whose layers keep places apart until they are pooled.",
        )
    return watch.last


def leave_maps(
    run: RunFolder,
    model: nn.Module,
    normalize: Normalize,
    images: np.ndarray,
    ids: Sequence[str],
    predictions: Predictions,
) -> None:
    """Write one PNG for each image into `evidence/maps/`, and `evidence/maps.json` that names them.

    A picture is shown in grey under a map of the class that was predicted for it: the more colour and the lighter, the
    more that place spoke for the class.

    Args:
        run: the folder.
        model, normalize: as they predicted.
        images: evaluation pixels of the pictures to explain, uint8 `[n, C, H, W]`.
        ids: their ids, which are among those of `predictions`.
        predictions: of the split, for the true and predicted classes.

    Raises:
        UsageError: an id is not among the predictions, ids are not as many as images, or see `grad_cam`.
    """
    rows = _rows(ids, images, predictions)
    folder = run.evidence / "maps"
    folder.mkdir(parents=True, exist_ok=True)
    names: list[dict[str, object]] = []
    layer = ""
    if len(ids):
        prepared = normalize(torch.from_numpy(np.array(images)))
        predicted = predictions.predicted[rows]
        probabilities = softmax(predictions.logits[rows])[np.arange(len(rows)), predicted]
        layer = last_feature_maps(model, prepared[:1]).name
        maps = grad_cam(model, prepared, predicted)
        for number, (row, picture, values) in enumerate(zip(rows, images, maps, strict=True), start=1):
            file = f"maps/{number:04d}.png"
            write_atomically(run.evidence / file, _png(overlay(np.asarray(picture), values)))
            true, called = predictions.targets[row], predicted[number - 1]
            names.append(
                {
                    "id": str(predictions.ids[row]),
                    "true": predictions.classes[true],
                    "predicted": predictions.classes[called],
                    "probability": float(probabilities[number - 1]),
                    "file": file,
                }
            )
    run.write_json("evidence/maps.json", {"method": "Grad-CAM", "source": SOURCE, "layer": layer, "maps": names})


def overlay(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay a map over a picture in grey.

    Args:
        picture: uint8 `[C, H, W]`, grey or colour.
        values: float `[h, w]` in [0, 1]; it is enlarged to the picture, bilinearly.

    Returns:
        uint8 `[H, W, 3]`.
    """
    grey = np.tensordot(LUMA, picture, 1) if len(picture) == 3 else picture[0].astype(np.float64)
    small = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]
    large = F.interpolate(small, size=picture.shape[1:], mode="bilinear", align_corners=False)[0, 0].numpy()
    colours = colour_table()[np.rint(255 * large.clip(0, 1)).astype(np.int64)]
    cover = COVER * large[..., None]
    return np.rint((1 - cover) * grey[..., None] + cover * colours).clip(0, 255).astype(np.uint8)


def colour_table() -> np.ndarray:
    """Return 256 colours from dark violet through red to yellow, uint8 `[256, 3]`, all equally far from the next.

    Lightness rises and hue turns in even steps of OKLab, in which equal distances look about equally large, so that
    the table itself draws no edges into a map, as rainbows do.

    Source: Ottosson 2020, "A perceptual color space for image processing"; why, Borland & Taylor 2007, "Rainbow color
    map (still) considered harmful".
    """
    t = np.linspace(0, 1, 256)
    lightness, hue = 0.3 + 0.6 * t, np.deg2rad(280 + 180 * t)
    lab = np.stack([lightness, CHROMA * np.cos(hue), CHROMA * np.sin(hue)], axis=1)
    cones = (lab @ OKLAB_TO_CONES.T) ** 3
    linear = (cones @ CONES_TO_RGB.T).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)


CHROMA = 0.16  # as vivid as sRGB allows all along this path
OKLAB_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@dataclass
class _Watch:
    """What a forward pass has shown so far."""

    last: Layer | None = None
    calls: dict[nn.Module, int] = field(default_factory=dict)


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[_Watch]:
    """Within, each forward pass notes the last feature maps; after, no hook is left."""
    watch, names = _Watch(), {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, inputs: object, output: object) -> None:
        watch.calls[module] = watch.calls.get(module, 0) + 1
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1 and module is not model:
            watch.last = Layer(names[module], module, watch.calls[module])

    handles = [module.register_forward_hook(note) for module in names]
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _held(layer: Layer) -> Iterator[list[Tensor]]:
    """Within, a forward pass leaves the layer's output in the list, as a tensor that gradients are taken for."""
    held: list[Tensor] = []
    calls = 0

    def hold(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        if calls != layer.call:
            return None
        held.append(output.detach().clone().requires_grad_())
        return held[0].clone()  # what follows may work in place, which is forbidden on what gradients are taken for

    handle = layer.module.register_forward_hook(hold)
    try:
        yield held
    finally:
        handle.remove()


def _maps(model: nn.Module, layer: Layer, images: Tensor, classes: np.ndarray) -> np.ndarray:
    """The maps of one batch, equations 1 and 2."""
    with torch.inference_mode(False), torch.enable_grad(), inference_mode(model), _held(layer) as held:
        logits = model(images.clone().to(_device(model, images)))  # a clone, for the images may be of inference mode
        if classes.min() < 0 or classes.max() >= logits.shape[1]:
            raise UsageError(f"Classes are {classes.tolist()}, but the network knows 0 to {logits.shape[1] - 1}.")
        explained = logits.gather(1, torch.from_numpy(classes)[:, None].to(logits.device)).sum()
        (gradient,) = torch.autograd.grad(explained, held[0])
        weights = gradient.float().mean(dim=(2, 3), keepdim=True)
        positive = (weights * held[0].detach().float()).sum(dim=1).relu()
        largest = positive.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        return (positive / largest).cpu().numpy()


def _device(model: nn.Module, images: Tensor) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), images.device)


def _rows(ids: Sequence[str], images: np.ndarray, predictions: Predictions) -> np.ndarray:
    """Where in the predictions these ids stand."""
    if len(ids) != len(images):
        raise UsageError(f"{len(images)} images came with {len(ids)} ids, but each has one.")
    row = {identity: index for index, identity in enumerate(predictions.ids.tolist())}
    missing = [identity for identity in ids if identity not in row]
    if missing:
        raise UsageError(f"{missing[0]!r} is not among the {len(row)} images that were predicted.")
    return np.array([row[identity] for identity in ids], np.int64)


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
