"""Classes of different size: what is chosen and said, and what then happens to the loss, the order and the probe."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from compared import batches
from pictures_made import photo_folder
from tuned import final_weights, fine_tuning, planned, train

from convsmith.pipeline import build, linear
from convsmith.tasks import Task
from convsmith.training import LinearHead


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty ants and ten bees, of which 20 and 6 are trained on."""
    return photo_folder(tmp_path_factory.mktemp("uneven") / "animals", classes={"ant": 30, "bee": 10})


class Heard:
    """What the loss and the head of a run were given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.losses: list[tuple[Any, Any]] = []
        self.head: list[torch.Tensor | None] = []
        make_task, fit = build.classification, linear.fit_head

        def task(smoothing: float, weights: Any, focal: Any) -> Task:
            self.losses.append((weights, focal))
            return make_task(smoothing, weights, focal)

        def head(*arguments: Any, weights: torch.Tensor | None, **options: Any) -> LinearHead:
            self.head.append(weights)
            return fit(*arguments, weights=weights, **options)

        monkeypatch.setattr(build, "classification", task)
        monkeypatch.setattr(linear, "fit_head", head)


def choice(plan: Any, name: str) -> Any:
    return next(each for each in plan.choices if each.name == name)


def test_three_times_as_many_of_one_class_are_made_up_for_by_weights(
    uneven: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said = choice(planned(fine_tuning(uneven, weights)), "train.balance")
    assert said.value == "weights"
    assert said.measured["largest_to_smallest"] == 3.3
    assert "3 times the smallest" in said.reason
    heard = Heard(monkeypatch)
    train(fine_tuning(uneven, weights, train__epochs=1), tmp_path / "runs")
    by_hand = (26 / (2 * 20), 26 / (2 * 6))  # N / (K n_k)
    assert heard.losses[-1] == (pytest.approx(by_hand), None)
    whole = heard.head[0]
    assert whole is not None
    assert len(whole) == 2 * 26  # both views
    assert whole.sum().item() == pytest.approx(2 * 26)
    assert sorted(whole.tolist()) == pytest.approx([by_hand[0]] * 40 + [by_hand[1]] * 12)


@pytest.mark.slow
def test_classes_of_about_the_same_size_are_left_alone_and_so_is_what_was_asked(
    photos: Path, uneven: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said = choice(planned(fine_tuning(photos, weights)), "train.balance")
    assert (said.value, said.given) == ("none", False)
    asked = fine_tuning(uneven, weights, train__balance="none", train__epochs=1)
    said = choice(planned(asked), "train.balance")
    assert (said.value, said.given, said.reason) == ("none", True, "as asked")
    heard = Heard(monkeypatch)
    run = train(asked, tmp_path / "runs")
    assert heard.losses[-1] == (None, None)
    assert heard.head[0] is None
    drawn = [name for _, ids, _ in batches(run) for name in ids]
    assert len(drawn) == len(set(drawn)) == 26


@pytest.mark.slow
def test_a_sampler_draws_all_classes_alike(
    uneven: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    heard = Heard(monkeypatch)
    run = train(fine_tuning(uneven, weights, train__balance="sampler", train__epochs=8), tmp_path / "runs")
    drawn = Counter(name.partition("/")[0] for _, ids, _ in batches(run) for name in ids)
    assert drawn.total() == 8 * 26
    assert 0.4 < drawn["ant"] / drawn.total() < 0.6
    assert heard.losses[-1] == (None, None)
    assert heard.head[0] is not None  # the probe has no order to draw in: there each class is weighed


@pytest.mark.slow
def test_a_focal_loss_is_used_where_it_is_asked_for(
    uneven: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings: dict[str, Any] = {"train__balance": "none", "train__epochs": 1}
    plain = train(fine_tuning(uneven, weights, **settings), tmp_path / "plain")
    heard = Heard(monkeypatch)
    focal = train(fine_tuning(uneven, weights, **settings, train__focal=2.0), tmp_path / "focal")
    assert heard.losses[-1] == (None, 2.0)
    assert batches(focal) == batches(plain)
    assert not torch.equal(final_weights(focal)["fc.weight"], final_weights(plain)["fc.weight"])
