"""Classification: its loss, its predictions, its figures."""

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import nn

from convsmith.batches import Batch
from convsmith.errors import UsageError
from convsmith.tasks import TASKS, Answers, classification


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
