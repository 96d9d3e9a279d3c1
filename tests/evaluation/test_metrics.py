import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from convsmith.errors import DataError
from convsmith.evaluation import metrics, wilson


@st.composite
def answers(draw):
    classes = draw(st.integers(2, 6))
    n = draw(st.integers(2, 60))
    label = st.integers(0, classes - 1)
    targets, predicted = (np.array(draw(st.lists(label, min_size=n, max_size=n))) for _ in range(2))
    return targets, predicted, classes


@given(answers())
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_figures_of_the_confusion_matrix_agree_with_scikit_learn(given_answers):
    targets, predicted, classes = given_answers
    table = oracle.confusion_matrix(targets, predicted, labels=range(classes))
    assert np.array_equal(metrics.confusion_matrix(targets, predicted, classes), table)
    assert metrics.accuracy(targets, predicted).value == pytest.approx(oracle.accuracy_score(targets, predicted))
    balanced = metrics.balanced_accuracy(targets, predicted, classes, repeats=20)
    assert balanced.value == pytest.approx(oracle.balanced_accuracy_score(targets, predicted))
    macro = metrics.macro_f1(targets, predicted, classes, repeats=20)
    assert macro.value == pytest.approx(oracle.f1_score(targets, predicted, average="macro"))
    theirs = oracle.precision_recall_fscore_support(
        targets, predicted, labels=range(classes), zero_division=np.nan, average=None
    )
    for ours, precision, recall, f1, n in zip(metrics.per_class(targets, predicted, classes), *theirs, strict=True):
        assert ours.n == n
        assert _number(ours.precision) == pytest.approx(precision, nan_ok=True)
        assert _number(ours.recall) == pytest.approx(recall, nan_ok=True)
        assert _number(ours.f1) == pytest.approx(f1, nan_ok=True)


@given(answers())
@settings(max_examples=30, deadline=None)
def test_every_interval_holds_its_value_and_stays_within_0_and_1(given_answers):
    targets, predicted, classes = given_answers
    found = [metrics.balanced_accuracy(targets, predicted, classes), metrics.macro_f1(targets, predicted, classes)]
    found += [e for s in metrics.per_class(targets, predicted, classes) for e in (s.precision, s.recall, s.f1)]
    for estimate in found:
        if estimate.low is not None:
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_log_loss_and_top_k_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(200, 7)), rng.integers(7, size=200)
    probabilities = metrics.softmax(logits)
    assert metrics.log_loss(logits, targets).value == pytest.approx(
        oracle.log_loss(targets, probabilities, labels=range(7))
    )
    for k in (1, 2, 5):
        assert metrics.top_k(logits, targets, k).value == oracle.top_k_accuracy_score(targets, logits, k=k)


def test_log_softmax_is_exact_where_probabilities_underflow():
    assert metrics.log_softmax(np.array([[0.0, 2000.0]], np.float32)).tolist() == [[-2000.0, 0.0]]


def test_equal_logits_rank_by_class_and_give_no_credit():
    logits, targets = np.zeros((4, 4)), np.arange(4)
    assert [metrics.top_k(logits, targets, k).value for k in (1, 2, 4)] == [0.25, 0.5, 1.0]


def test_top_k_refuses_more_than_there_are_classes():
    with pytest.raises(DataError, match="k is 5, but there are 3 classes"):
        metrics.top_k(np.zeros((1, 3)), np.zeros(1, int), 5)


def test_a_class_never_predicted_has_no_precision_and_one_without_images_no_recall():
    scores = metrics.per_class(np.array([0, 0, 1]), np.array([0, 0, 0]), 3)
    assert scores[1].precision.value is None
    assert "never predicted" in scores[1].precision.reason
    assert (scores[1].recall.value, scores[1].f1.value) == (0.0, 0.0)
    assert scores[2].recall.value is None
    assert scores[2].f1.value is None
    assert "no image" in scores[2].recall.reason


def test_a_network_without_mistakes_is_not_certain():
    targets = np.repeat(np.arange(4), 10)
    for figure in (metrics.balanced_accuracy, metrics.macro_f1):
        found = figure(targets, targets, 4)
        assert found.value == found.high == 1
        assert 0.8 < found.low < 0.95
    assert metrics.per_class(targets, targets, 4)[0].f1.low == pytest.approx(2 * 0.7224672 / 1.7224672)


def test_f1_of_a_class_covers_the_truth():
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(1500):
        targets = rng.random(400) < 0.2
        predicted = np.where(targets, rng.random(400) < 0.8, rng.random(400) < 0.05)
        f1 = metrics.per_class(targets.astype(int), predicted.astype(int), 2)[1].f1
        covered.append(f1.low <= 2 * 0.16 / (0.2 + 0.16 + 0.04) <= f1.high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_the_interval_of_macro_f1_over_many_small_classes_is_freed_of_its_bias():
    rng = np.random.default_rng(6)
    covered = []
    for seed in range(60):
        targets = rng.integers(100, size=500)
        predicted = np.where(rng.random(500) < 0.7, targets, (targets + rng.integers(1, 100, size=500)) % 100)
        found = metrics.macro_f1(targets, predicted, 100, repeats=200, seed=seed)
        covered.append(found.low <= 0.7 <= found.high)
    assert np.mean(covered) >= 0.8  # over 200 repeats 0.885, and 0.60 without the correction


def test_the_baseline_is_measured_on_these_images_and_compared_in_pairs():
    targets, predicted = np.array([0] * 6 + [1] * 4), np.array([0] * 5 + [1] * 5)
    found = metrics.baseline(targets, predicted, 0)
    assert found.accuracy == wilson(6, 10)
    assert found.gain.value == pytest.approx(0.3)
    assert metrics.baseline(targets, predicted, None).gain.value is None


def test_always_naming_the_commonest_class_gains_nothing():
    targets = np.array([0] * 60 + [1] * 40)
    gain = metrics.baseline(targets, np.zeros(100, int), 0).gain
    assert gain.value == 0
    assert gain.low < 0 < gain.high


def test_groups_reach_every_figure_of_a_class():
    targets, names = np.repeat(np.arange(20) % 2, 10), np.repeat([f"g{i}" for i in range(20)], 10)
    predicted = np.where(np.repeat(np.arange(20) < 4, 10), 1 - targets, targets)
    alone, grouped = (metrics.per_class(targets, predicted, 2, groups=groups)[0] for groups in (None, names))
    for name in ("precision", "recall", "f1"):
        assert getattr(grouped, name).value == getattr(alone, name).value
        assert getattr(grouped, name).low < getattr(alone, name).low


def _number(estimate):
    return np.nan if estimate.value is None else estimate.value
