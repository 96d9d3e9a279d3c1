"""Classification: its loss, its predictions, its figures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from convsmith.batches import Batch
from convsmith.errors import UsageError
from convsmith.tasks import TASKS, Answers, class_weights, classification
from convsmith.training import Loop


def batch_of(logits, targets):
    return Batch.of_images(logits[:, :, None, None], targets)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_sum_of_cross_entropies_and_counts_the_images(smoothing):
    torch.manual_seed(0)
    logits, targets = torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    ((group, loss, count),) = classification(smoothing).losses(nn.Flatten(), batch_of(logits, targets))
    shares = (1 - smoothing) * np.eye(4)[targets] + smoothing / 4
    expected = -(shares * torch.log_softmax(logits, 1).numpy()).sum()
    assert (group, count) == ("model", 7)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def made(n=40, classes=4):
    torch.manual_seed(1)
    return torch.randn(n, classes) * 3, torch.randint(classes, (n,))


def loss_of(task, logits, targets):
    ((_, loss, count),) = task.losses(nn.Flatten(), batch_of(logits, targets))
    return loss / count


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_weighted_loss_over_its_count_is_torchs_weighted_mean(smoothing):
    logits, targets = made()
    weights = (0.2, 3.0, 1.0, 0.0)
    found = loss_of(classification(smoothing, weights), logits, targets)
    own = nn.CrossEntropyLoss(torch.tensor(weights), label_smoothing=smoothing)(logits, targets)
    assert found.item() == pytest.approx(own.item(), rel=1e-6)
    ((_, _, count),) = classification(smoothing, weights).losses(nn.Flatten(), batch_of(logits, targets))
    assert count.item() == pytest.approx(sum(weights[t] for t in targets))


def test_weights_of_one_change_nothing():
    logits, targets = made()
    for focal in (None, 2.0):
        plain, weighted = (
            loss_of(classification(0.1, weights, focal), logits, targets) for weights in (None, (1.0,) * 4)
        )
        assert weighted.item() == pytest.approx(plain.item(), rel=1e-6)


def test_training_on_weighted_classes_takes_the_steps_of_torchs_weighted_mean():
    logits, targets = made(48)
    weights, images = (0.5, 2.0, 1.0, 4.0), logits[:, :, None, None]
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(nn.Sequential(nn.Flatten(), nn.Linear(4, 4)))
    ours, own = nets
    halves = [(images[:24], targets[:24]), (images[24:], targets[24:])]
    optimizers = [torch.optim.SGD(net.parameters(), 0.3) for net in nets]
    list(Loop(ours, classification(0.0, weights), {"model": optimizers[0]}, epochs=3).run(halves))
    for _ in range(3):
        for inputs, labels in halves:
            optimizers[1].zero_grad()
            F.cross_entropy(own(inputs), labels, torch.tensor(weights)).backward()
            optimizers[1].step()
    assert torch.allclose(ours[1].weight, own[1].weight, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_the_focal_loss_of_two_classes_is_torchvisions(gamma):
    torch.manual_seed(0)
    scores, targets = torch.randn(60) * 4, torch.randint(2, (60,))
    logits = torch.stack([torch.zeros(60), scores], dim=1).requires_grad_()
    found = loss_of(classification(focal=gamma), logits, targets)
    scores = scores.clone().requires_grad_()
    own = sigmoid_focal_loss(scores, targets.float(), alpha=-1, gamma=gamma, reduction="mean")
    assert found.item() == pytest.approx(own.item(), rel=1e-4)
    found.backward()
    own.backward()
    assert torch.allclose(logits.grad[:, 1], scores.grad, atol=1e-5)


def test_the_focal_loss_by_hand_with_weights():
    """p = 1/2 and 1/4 of the true class: 3 (1/2)^2 ln 2 and 1 (3/4)^2 ln 4, over the weights' sum of 4."""
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.75, 0.25]]))
    found = loss_of(classification(class_weights=(3.0, 1.0), focal=2.0), logits, torch.tensor([0, 1]))
    assert found.item() == pytest.approx((3 * 0.25 * np.log(2) + 0.5625 * np.log(4)) / 4, rel=1e-5)


def test_the_focal_loss_of_a_certain_network_has_a_finite_gradient():
    logits = torch.tensor([[200.0, 0.0], [200.0, 0.0]], requires_grad=True)
    loss_of(classification(focal=0.5), logits, torch.tensor([0, 1])).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().max() > 0.1


def test_weights_of_unequal_classes_are_scikit_learns_and_one_in_the_mean_over_images():
    counts = [50, 7, 3, 240]
    labels = np.repeat(np.arange(4), counts)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert class_weights(counts) == pytest.approx(expected)
    for exponent in (0.0, 0.5, 1.0):
        weights = np.array(class_weights(counts, exponent=exponent))
        assert weights[labels].mean() == pytest.approx(1)
        assert np.allclose(weights[0] / weights[1], (7 / 50) ** exponent)
    assert class_weights(counts, exponent=0.0) == pytest.approx((1.0,) * 4)
    assert class_weights([4, 0, 2]) == pytest.approx((6 / 2 / 4, 1.0, 6 / 2 / 2))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: classification(1.0), "label_smoothing is 1.0"),
        (lambda: classification(focal=0.0), "focal is 0, but gamma must be above 0 and at most 5"),
        (lambda: classification(focal=5.5), "focal is 5.5"),
        (lambda: classification(class_weights=(1.0, -1.0)), r"class_weights are \(1.0, -1.0\)"),
        (lambda: classification(class_weights=(0.0, 0.0)), "not all may be 0"),
        (lambda: loss_of(classification(class_weights=(1.0, 2.0)), *made()), "2 class weights, but .* 4 logits"),
        (lambda: class_weights([0, 0]), r"\[0, 0\] images a class"),
        (lambda: class_weights([3, 4], exponent=2.0), "exponent of class weights is 2.0"),
    ],
)
def test_options_that_cannot_be_are_refused_with_their_values(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def test_logits_are_float32_even_under_autocast():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    batch = batch_of(torch.randn(3, 4), torch.zeros(3, dtype=torch.long))
    with torch.autocast("cpu", torch.bfloat16):
        assert net(batch.images).dtype == torch.bfloat16
        assert classification().predict(net, batch)["logits"].dtype == torch.float32
        ((_, loss, _),) = classification().losses(net, batch)
        assert loss.dtype == torch.float32


def test_its_scores_hold_the_figures_that_scikit_learn_gives():
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(60, 3)).astype(np.float32), np.arange(60) % 3
    arrays = {
        "ids": np.array([str(i) for i in range(60)]),
        "targets": targets,
        "logits": logits,
        "pixels": np.zeros((60, 32), np.uint8),
        "another": np.zeros(60),
    }
    task = TASKS.build("classification")
    record = task.score(Answers(arrays, ("a", "b", "c"), "test", majority=0))
    right = metrics.accuracy_score(targets, logits.argmax(1))
    assert record["n"] == 60
    assert record["metrics"]["accuracy"]["value"] == pytest.approx(right)
    quick = task.monitor(arrays)
    probabilities = torch.softmax(torch.from_numpy(logits).double(), 1).numpy()
    assert quick["accuracy"] == pytest.approx(right)
    assert quick["log_loss"] == pytest.approx(metrics.log_loss(targets, probabilities), rel=1e-5)


def test_an_unknown_task_is_refused():
    with pytest.raises(UsageError, match=r"no task named 'clasification'.*classification"):
        TASKS.build("clasification")
