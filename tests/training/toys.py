"""Small networks, images and loops to train in a test."""

import copy

import numpy as np
import torch
from torch import nn

from convsmith.batches import Augment, Batches, Erasing, Flip, Normalize, Rotation, Shift
from convsmith.tasks import classification
from convsmith.training import Loop
from convsmith.training.optimizers import sgd
from convsmith.training.schedules import one_cycle

CLASSES = 3


def make_images(n, *, seed=0, size=6):
    """Class k is brighter in its own rows."""
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % CLASSES
    images = generator.integers(0, 60, (n, 1, size, size))
    for k in range(CLASSES):
        images[targets == k, :, 2 * k : 2 * k + 2] += 150
    return images.astype(np.uint8), targets


def make_batches(n=40, *, batch_size=16, seed=0, rank=0, world=1):
    images, targets = make_images(n)
    ids = [f"image-{i}" for i in range(n)]
    return Batches(images, targets, ids, batch_size=batch_size, seed=seed, rank=rank, world=world)


def make_net(*, norm=True, dropout=0.2, seed=0):
    torch.manual_seed(seed)
    parts = [nn.Conv2d(1, 4, 3, padding=1)]
    parts += [nn.BatchNorm2d(4)] if norm else []
    parts += [nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(4 * 36, CLASSES)]
    return nn.Sequential(*parts)


def make_augment(seed=0):
    operations = [Flip(), Shift(1), Rotation(5.0), Erasing(p=0.5)]
    return Augment(operations, normalize=Normalize((0.3,), (0.25,)), seed=seed)


def trace_of(augment):
    def trace(batch):
        return {"ids": list(batch.ids), "draws": [augment.digest(batch.keys[i : i + 1]) for i in range(len(batch))]}

    return trace


def make_loop(net=None, *, seed=0, augment=None, average=0.9, schedule=None, **options):
    net = net if net is not None else make_net(seed=seed)
    augment = augment or make_augment(seed)
    if "steps" not in options and "epochs" not in options:
        options["epochs"] = 3
    return Loop(
        net,
        classification(label_smoothing=0.1),
        {"model": sgd(net.named_parameters(), rate=0.05)},
        schedule=schedule or one_cycle(2),
        transform=augment,
        average=average,
        **options,
    )


def snapshot(loop):
    """A deep copy of all that the loop is."""
    return copy.deepcopy(loop.state_dict())


def differences(left, right, place="state"):
    """Where two nested states differ; bit for bit in tensors."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        same = left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
        return [] if same else [place]
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return [item for key in left for item in differences(left[key], right[key], f"{place}.{key}")]
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [item for i, (a, b) in pairs for item in differences(a, b, f"{place}.{i}")]
    return [] if left == right else [place]
