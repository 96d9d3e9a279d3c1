"""What moves each stage of a network, on a real picture: effective receptive fields, measured by gradients.

A position's theoretical field says which pixels can reach it; most of them hardly do. The gradients of a stage's
outputs with respect to the pixels say how strongly each one does. Source: Luo et al. 2016, "Understanding the effective
receptive field in deep convolutional neural networks".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from convsmith.errors import UsageError
from convsmith.evidence.predict import inference_mode
from convsmith.networks.receptive import Fields, StageMap, receptive_fields, stage_maps
from convsmith.networks.recording.graph import record
from convsmith.reporting.field_pictures import FieldSeen

SHARE = 0.95
SPOTS = (0.375, 0.5, 0.625)
"""Where on the maps gradients are taken, as shares of their height and width: nine positions about the middle."""


def effective_fields(
    model: nn.Module,
    images: Tensor,
    *,
    share: float = SHARE,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[FieldSeen, ...]:
    """Measure what moves each stage's maps, beside what can.

    At nine positions about the middle of a stage's map, on each image, the gradient is taken of the position's features
    summed with random signs; its square, summed over the colours, is on average the squared length of the derivatives
    of all features. Shifted to the middle by as far as their theoretical fields are apart, and averaged over positions
    and images, its root is the map of weights: how much noise in a pixel would move the features. Luo et al. average
    over images, and take one feature; nine positions do for one image what several images would.

    The effective size is the side of the smallest square about the middle from which a share of the variance comes that
    independent noise in all pixels would cause in the features: the share of the squared weights. On trained networks
    it is about the size of Luo et al., the root of the number of pixels above 4.55 % of the largest weight (181 and 182
    px at the end of EfficientNet-Lite0, 71 and 78 of SqueezeNet), but does not hang on a single largest pixel.

    Args:
        model: a network with its real weights, used in inference mode and left as it was.
        images: float32 `[N, C, H, W]`, prepared as the network takes them; one is enough.
        share: of the variance, above 0 and below 1.
        seed: of the signs.
        progress: called with stages done and all stages.

    Returns:
        One for each of `stage_maps`, from the image on.

    Raises:
        UsageError: there is no image, or the network makes no maps that can be followed.
    """
    if len(images) == 0:
        raise UsageError("There is no picture to look at.")
    with torch.inference_mode(False):  # in which operations are recorded undivided
        graph = record(model, images.shape[1:])
    fields = receptive_fields(graph)
    stages = stage_maps(graph, fields)
    if not stages:
        raise UsageError(
            "This network makes no maps in which places are told apart, so no part of a picture belongs to one.",
            mend="Look at a network whose layers keep rows and columns until they are pooled.",
        )
    draws = torch.Generator().manual_seed(seed)
    sums = [np.zeros((2, *images.shape[2:])) for _ in stages]
    done, total = 0, len(images) * len(stages)
    for image in images:
        with torch.inference_mode(False), torch.enable_grad(), inference_mode(model), _held(model, stages) as held:
            pixels = image[None].clone().to(_device(model, image)).requires_grad_()
            model(pixels)
            for stage, held_maps, added in zip(stages, held, sums, strict=True):
                added += _squares(fields, stage, held_maps, pixels, draws)
                done += 1
                if progress is not None:
                    progress(done, total)
    return tuple(
        _seen(fields, stage, np.sqrt(squares / np.maximum(counts, 1)), share)
        for stage, (squares, counts) in zip(stages, sums, strict=True)
    )


def _squares(fields: Fields, stage: StageMap, maps: Tensor, pixels: Tensor, draws: torch.Generator) -> np.ndarray:
    """Squared gradients shifted to the middle and summed, and how many positions each pixel got one from."""
    height, width = pixels.shape[2:]
    middle, total = _location(fields, stage, 0.5, 0.5), np.zeros((2, height, width))
    for down, across in _spots(stage):
        place = fields.at(stage.value, down, across)
        assert place is not None  # a stage has a field
        features = maps[tuple(slice(None) if index is None else index for index in place.index)]
        signs = torch.randint(0, 2, features.shape, generator=draws).to(features) * 2 - 1
        (gradient,) = torch.autograd.grad((features * signs).sum(), pixels, retain_graph=True)
        square = gradient[0].double().square().sum(0).cpu().numpy()
        rows, columns = (round(to - of) for to, of in zip(middle, _location(fields, stage, down, across), strict=True))
        total += _shifted(np.stack([square, np.ones_like(square)]), rows, columns)
    return total


def _spots(stage: StageMap) -> list[tuple[float, float]]:
    """Different positions, of which tokens in an order of their own offer one."""
    if stage.tokens:
        return [(0.5, 0.5)]
    rows, columns = stage.places
    spots = {(int(down * rows), int(across * columns)): (down, across) for down in SPOTS for across in SPOTS}
    return list(spots.values())


def _location(fields: Fields, stage: StageMap, down: float, across: float) -> tuple[float, float]:
    """Row and column of the picture about which a position lies: its field's centre, where it has one of its own."""
    place, field = fields.at(stage.value, down, across), fields.of(stage.value)
    if place is not None and field is not None and field.even and not field.whole:
        top, left, bottom, right = place.box
        return (top + bottom) / 2, (left + right) / 2
    row, column = (
        (int(share * count) + 0.5) / count * side - 0.5
        for share, count, side in zip((down, across), stage.places, fields.sides, strict=True)
    )
    return row, column


def _shifted(squares: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Numbers `[n, H, W]` moved down and to the right; what comes in is zero."""
    moved = np.zeros_like(squares)
    height, width = squares.shape[1:]
    to, of = (
        (slice(max(0, r), height + min(0, r)), slice(max(0, c), width + min(0, c)))
        for r, c in ((rows, columns), (-rows, -columns))
    )
    moved[:, *to] = squares[:, *of]
    return moved


def _seen(fields: Fields, stage: StageMap, weights: np.ndarray, share: float) -> FieldSeen:
    place, field = fields.at(stage.value), fields.of(stage.value)
    assert place is not None
    assert field is not None
    centre = _location(fields, stage, 0.5, 0.5)
    side = None if stage.tokens or not weights.any() else effective_side(weights, centre, share)
    return FieldSeen(stage.path, stage.places, place.box, field.whole, weights, side, centre, share)


def effective_side(weights: np.ndarray, centre: tuple[float, float], share: float = SHARE) -> int:
    """Pixels of the side of the smallest square about a centre that holds a share of the sum of squared weights.

    Args:
        weights: not negative, `[H, W]`, not all zero.
        centre: row and column, which may lie between pixels.
        share: above 0 and below 1.
    """
    rows, columns = np.ogrid[: weights.shape[0], : weights.shape[1]]
    away = np.maximum(np.abs(rows - centre[0]), np.abs(columns - centre[1])).ravel()
    order = np.argsort(away, kind="stable")
    held = np.cumsum(np.square(weights.ravel()[order]))
    return int(2 * away[order[np.searchsorted(held, share * held[-1])]] + 1)


@contextmanager
def _held(model: nn.Module, stages: Sequence[StageMap]) -> Iterator[list[Tensor]]:
    """Within, a forward pass leaves the stages' maps in the list."""
    held = [torch.empty(0)] * len(stages)
    turns: dict[str, int] = {}

    def keep(path: str, output: object) -> object:
        turn = turns[path] = turns.get(path, -1) + 1
        wanted = [number for number, stage in enumerate(stages) if (stage.path, stage.turn) == (path, turn)]
        if not wanted or not isinstance(output, Tensor):
            return None
        held[wanted[0]] = output
        return output.clone()  # what follows may work in place, and is not of this stage

    with ExitStack() as hooks:
        for path in {stage.path for stage in stages}:
            module = model.get_submodule(path)
            hooks.callback(
                module.register_forward_hook(lambda module, inputs, output, path=path: keep(path, output)).remove
            )
        yield held


def _device(model: nn.Module, image: Tensor) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), image.device)
