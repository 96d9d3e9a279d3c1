"""The loop alone, on a plain `nn.Module`: no run, no recipe, no folder. You own everything between its events.

python examples/bare_loop.py
"""

from dataclasses import replace

import torch
from sklearn.datasets import load_digits
from torch import nn

from convsmith.batches import Batch, Batches
from convsmith.tasks import classification
from convsmith.training import Loop
from convsmith.training.schedules import one_cycle

values, labels = load_digits(return_X_y=True)
images = torch.from_numpy((values * 255 / 16).round().astype("uint8").reshape(-1, 1, 8, 8))
targets = torch.from_numpy(labels)
batches = Batches(images, targets, [str(i) for i in range(len(images))], batch_size=64, seed=0)

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
    nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
)  # fmt: skip


def as_floats(batch: Batch) -> Batch:
    return replace(batch, images=batch.images.float() / 255)


optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
loop = Loop(model, classification(), {"model": optimizer}, epochs=5, schedule=one_cycle(30), transform=as_floats)

for event in loop.run(batches):
    if event.kind == "epoch":
        print(f"epoch {event.epoch}: loss {event.values['loss']:.3f}")
        halfway = loop.state_dict()  # all that a checkpoint needs; loop.load_state_dict(halfway) goes on from here
