"""One loop for all: segmentation and a GAN, each written here alone, go through Loop, predict and score unchanged."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convsmith.batches import Augment, Batches, Flip, Normalize, Shift
from convsmith.evidence import predict
from convsmith.records import Estimate
from convsmith.tasks import Answers, Task
from convsmith.training import Loop, seed_all
from convsmith.training.optimizers import adamw
from convsmith.training.schedules import constant

NORMALIZE = Normalize((0.5,), (0.25,))

# ------------------------------------------------------------------------------------------------------- segmentation

IGNORED = 255


def segmentation():
    """Cross-entropy of each pixel that is not ignored; scored by intersection over union."""

    def losses(model, batch):
        logits = model(batch.images).float()
        known = batch.targets != IGNORED
        pixels = F.cross_entropy(logits, batch.targets.long().clamp(max=1), reduction="none")
        yield "model", (pixels * known).sum(), known.sum()

    def predict_masks(model, batch):
        return {"masks": model(batch.images).argmax(1).to(torch.uint8)}

    def monitor(arrays):
        known = arrays["targets"] != IGNORED
        masks, targets = arrays["masks"][known] == 1, arrays["targets"][known] == 1
        return {"iou": float((masks & targets).sum() / max((masks | targets).sum(), 1))}

    def score(answers):
        value = monitor(answers.arrays)["iou"]
        n = len(answers.arrays["targets"])
        return {"n": n, "metrics": {"iou": Estimate(value, None, None, n, "none").to_json()}}

    return Task("segmentation", losses, predict_masks, score, monitor)


def make_scenes(n, seed):
    """A bright square somewhere on a dark ground; a strip of the mask is unknown."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 80, (n, 1, 10, 10)).astype(np.uint8)
    masks = np.zeros((n, 10, 10), np.uint8)
    for image, mask, (top, left) in zip(images, masks, generator.integers(0, 6, (n, 2)), strict=True):
        image[0, top : top + 4, left : left + 4] += 120
        mask[top : top + 4, left : left + 4] = 1
    masks[: n // 2, 0] = IGNORED
    return images, masks


def make_fully_convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1))


def segmentation_loop(net, **options):
    augment = Augment([Flip(), Shift(1)], normalize=NORMALIZE)
    optimizers = {"model": adamw(net.named_parameters(), rate=0.02)}
    return Loop(net, segmentation(), optimizers, transform=augment, **options)


def test_a_segmentation_network_learns_is_predicted_and_scored():
    images, masks = make_scenes(64, seed=0)
    batches = Batches(images, masks, [str(i) for i in range(64)], batch_size=16)
    net = make_fully_convolutional()
    loop = segmentation_loop(net, epochs=10, average=0.5)
    events = list(loop.run(batches))
    assert {event.kind for event in events} == {"epoch", "stopped"}
    test_images, test_masks = make_scenes(20, seed=1)
    ids = np.array([str(i) for i in range(20)])
    task = loop.task
    untrained = predict(make_fully_convolutional(), task, test_images, prepare=NORMALIZE)
    with loop.deployed() as model:
        arrays = predict(model, task, test_images, prepare=NORMALIZE, batch_size=8)
    assert arrays["masks"].shape == (20, 10, 10)
    record = task.score(Answers({**arrays, "targets": test_masks, "ids": ids}))
    assert record["n"] == 20
    assert record["metrics"]["iou"]["value"] > 0.9
    assert task.monitor({**untrained, "targets": test_masks})["iou"] < 0.6


def test_the_reported_loss_is_the_mean_over_the_pixels_that_count():
    images, masks = make_scenes(16, seed=0)
    batches = Batches(images, masks, [""] * 16, batch_size=16)
    net = make_fully_convolutional()
    loop = Loop(
        net,
        segmentation(),
        {"model": adamw(net.named_parameters())},
        steps=1,
        transform=Augment([], normalize=NORMALIZE),
    )
    (event, _) = loop.run(batches)
    logits = make_fully_convolutional()(NORMALIZE(torch.from_numpy(images)))
    expected = F.cross_entropy(logits, torch.from_numpy(masks).long(), ignore_index=IGNORED)
    assert event.values["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_whose_pixels_are_all_ignored_changes_no_weight_to_nan():
    images, masks = make_scenes(16, seed=0)
    batches = Batches(images, np.full_like(masks, IGNORED), [""] * 16, batch_size=16)
    net = make_fully_convolutional()
    events = list(segmentation_loop(net, steps=2, report_every=1).run(batches))
    assert all(torch.isfinite(p).all() for p in net.parameters())
    assert all("loss" not in event.values for event in events)  # a mean over nothing is not reported


# ---------------------------------------------------------------------------------------------------------------- GAN

LATENT = 4


class Gan(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(LATENT, 16), nn.ReLU(), nn.Linear(16, 16), nn.Unflatten(1, (1, 4, 4)))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))


def latents_of(batch):
    """Noise as a function of each image's key, so that a resumed run and any process draw the same."""
    phases = (
        torch.from_numpy(batch.keys.astype(np.float64)).to(batch.images.device)
        @ torch.tensor([[1.7], [12.9898]]).double()
    )
    return torch.sin(phases * torch.arange(1, LATENT + 1)).float() * 2


def gan(watch=lambda name, model: None):
    """The discriminator first, then the generator, which meets the new discriminator (Goodfellow et al. 2014)."""

    def losses(model, batch):
        n, made = len(batch), model.generator(latents_of(batch))
        real, fake = model.discriminator(batch.images), model.discriminator(made.detach())
        watch("before", model)
        loss = F.softplus(-real).sum() + F.softplus(fake).sum()
        yield "discriminator", loss, n
        watch("between", model)
        yield "generator", F.softplus(-model.discriminator(made)).sum(), n
        watch("after", model)

    def predict_made(model, batch):
        return {"made": model.generator(latents_of(batch)), "realness": model.discriminator(batch.images)[:, 0]}

    def monitor(arrays):
        return {"brightness": float(arrays["made"].mean())}

    def score(answers):
        n = len(answers.arrays["made"])
        value = monitor(answers.arrays)["brightness"]
        return {"n": n, "metrics": {"brightness": Estimate(value, None, None, n, "none").to_json()}}

    return Task("gan", losses, predict_made, score, monitor)


def gan_parts(**options):
    seed_all(0)
    model = Gan()
    optimizers = {
        name: adamw(getattr(model, name).named_parameters(), rate=0.01, beta1=0.5, weight_decay=0.1)
        for name in ("discriminator", "generator")
    }
    task = gan(options.pop("watch", lambda name, model: None))
    images = np.random.default_rng(0).integers(150, 250, (32, 1, 4, 4)).astype(np.uint8)
    batches = Batches(images, np.zeros(32, np.int64), [str(i) for i in range(32)], batch_size=16)
    loop = Loop(model, task, optimizers, transform=Augment([], normalize=NORMALIZE), schedule=constant(), **options)
    return loop, batches, images


def parameters(module):
    return torch.cat([p.detach().reshape(-1).clone() for p in module.parameters()])


def test_each_update_of_a_gan_changes_its_own_network_only():
    seen = {}

    def watch(name, model):
        gradients = [p.grad.clone() for p in model.discriminator.parameters() if p.grad is not None]
        seen[name] = parameters(model.discriminator), parameters(model.generator), gradients

    loop, batches, _ = gan_parts(watch=watch, steps=3)
    for event in loop.run(batches):
        if event.kind == "progress":
            break
    (d0, g0, _), (d1, g1, own), (d2, g2, after) = (seen[name] for name in ("before", "between", "after"))
    assert not torch.equal(d0, d1), "the discriminator learns"
    assert torch.equal(g0, g1), "and leaves the generator alone"
    assert torch.equal(d1, d2), "the generator's update leaves the discriminator alone"
    assert not torch.equal(g1, g2), "and the generator learns"
    assert all(map(torch.equal, own, after)), "nor does it add to the discriminator's gradients"


def test_a_gan_learns_reports_both_losses_and_is_predicted_and_scored():
    loop, batches, images = gan_parts(epochs=60, average=0.9)
    losses = [event.values for event in loop.run(batches) if event.kind == "epoch"]
    assert {"loss.discriminator", "loss.generator"} <= losses[0].keys()
    real = float(NORMALIZE(torch.from_numpy(images)).mean())
    with loop.deployed() as model:
        arrays = predict(model, loop.task, images, prepare=NORMALIZE)
    assert arrays["made"].shape == (32, 1, 4, 4)
    record = loop.task.score(Answers(arrays))
    start, _, _ = gan_parts(epochs=1)
    untrained = start.task.monitor(predict(start.model, start.task, images, prepare=NORMALIZE))["brightness"]
    assert abs(record["metrics"]["brightness"]["value"] - real) < 0.5 * abs(untrained - real)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_gan_resumes_bit_for_bit(step):
    whole, batches, _ = gan_parts(steps=4, average=0.9)
    list(whole.run(batches))
    part, batches, _ = gan_parts(steps=4, average=0.9, report_every=1)
    for event in part.run(batches):
        if event.step == step:
            break
    resumed, _, _ = gan_parts(steps=4, average=0.9)
    resumed.load_state_dict(part.state_dict())
    list(resumed.run(batches))
    assert torch.equal(parameters(resumed.model), parameters(whole.model))
    assert not torch.equal(parameters(part.model), parameters(whole.model))
