"""The linear head against scikit-learn, and what stage-wise rates and frozen modules do to a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from convsmith.batches import Batches, Normalize, build
from convsmith.tasks import classification
from convsmith.training import Loop, fit_head, norms, scale_rates


def clouds(
    n: int = 240, d: int = 12, k: int = 4, seed: int = 0, noise: float = 0.8
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % k
    centres = torch.randn(k, d, generator=torch.Generator().manual_seed(9))
    scales = torch.logspace(-0.5, 0.5, d) * 40  # features of different size
    return (centres[targets] + noise * torch.randn(n, d, generator=generator)) * scales, targets


@pytest.mark.parametrize("decay", [1.0, 0.1, 0.01])
def test_the_head_is_the_logistic_regression_of_scikit_learn(decay):
    features, targets = clouds()
    ours = fit_head(features, targets, 4, decays=[decay])
    scaled = features - features.mean(0)
    scaled = scaled / scaled.square().mean().sqrt()
    theirs = LogisticRegression(C=1 / (decay * len(targets)), tol=1e-8, max_iter=5000).fit(
        scaled.numpy(), targets.numpy()
    )
    probabilities = ours(features).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, theirs.predict_proba(scaled.numpy()), atol=2e-3)


def test_the_tune_images_choose_the_decay_and_all_losses_are_kept():
    features, targets = clouds(40, noise=2.0)
    tune = clouds(400, seed=1, noise=2.0)
    head = fit_head(features, targets, 4, decays=[0.0001, 0.1, 100.0], tune=tune)
    assert set(head.losses) == {0.0001, 0.1, 100.0}
    assert head.losses[head.decay] == min(head.losses.values())
    assert head.decay == 0.1
    loss = nn.functional.cross_entropy(head(tune[0]), tune[1]).item()
    assert loss == pytest.approx(head.losses[head.decay], abs=1e-5)


def test_a_feature_that_never_changes_is_given_no_weight():
    features, targets = clouds()
    features[:, 3] = 7.0
    head = fit_head(features, targets, 4, decays=[0.1])
    assert head.weight[:, 3].abs().max() == 0
    assert bool(head.weight.isfinite().all())


def test_an_example_of_weight_two_counts_as_two():
    features, targets = clouds(80, noise=2.0)
    features = torch.cat([features, -features])  # mean 0, and the same deviation however often a pair is repeated
    targets = torch.cat([targets, targets.flip(0)])
    weighted = fit_head(features, targets, 4, decays=[0.1], weights=torch.full((160,), 2.0))
    plain = fit_head(features, targets, 4, decays=[0.1])
    assert (weighted(features) - plain(features)).abs().max() < 0.01  # the mean knows no scale
    heavy = torch.where(targets == 0, 50.0, 1.0)
    called = [
        int((head(features).argmax(1) == 0).sum())
        for head in (plain, fit_head(features, targets, 4, decays=[0.1], weights=heavy))
    ]
    assert called[1] > called[0] + 20


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def batches() -> Batches:
    images = np.random.default_rng(0).integers(0, 256, (32, 3, 8, 8), np.uint8)
    return Batches(images, np.arange(32) % 3, [str(i) for i in range(32)], batch_size=16)


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, **options: object) -> None:
    transform = build((), normalize=Normalize((0.5,) * 3, (0.5,) * 3))
    loop = Loop(model, classification(), {"model": optimizer}, steps=4, transform=transform, **options)  # type: ignore[arg-type]
    for _ in loop.run(batches()):
        pass


def test_stage_wise_rates_scale_every_parameter_by_its_own_factor():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    factors = dict.fromkeys(model[0].parameters(), 0.5)
    scale_rates(optimizer, factors)
    rates = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert all(rates[parameter] == 0.05 for parameter in model[0].parameters())
    assert all(rates[parameter] == 0.1 for parameter in model[7].parameters())
    assert len(rates) == len(list(model.parameters()))
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_frozen_norms_keep_their_statistics_while_the_others_learn_theirs():
    model = network()
    before = model[1].running_mean.clone(), model[4].running_mean.clone()
    trained(model, torch.optim.SGD(model.parameters(), lr=0.01), frozen=norms([model[1]]))
    assert torch.equal(model[1].running_mean, before[0])
    assert not torch.equal(model[4].running_mean, before[1])
    assert not model[1].training
    assert model[4].training


def test_a_frozen_layer_costs_no_gradient_work():
    model = network()
    for parameter in [*model[0].parameters(), *model[1].parameters()]:
        parameter.requires_grad_(False)
    seen = []
    hook = model[3].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].requires_grad))
    before = model[0].weight.clone()
    trained(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01))
    hook.remove()
    assert seen == [False] * 4  # autograd keeps nothing of the layers below
    assert torch.equal(model[0].weight, before)
    assert model[0].weight.grad is None
