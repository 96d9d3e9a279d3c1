"""The worst mistakes, and the images behind each cell of the confusion matrix."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from made_predictions import predictions

from convsmith.evaluation import cells, softmax
from convsmith.evaluation.metrics import confusion_matrix
from convsmith.evaluation.mistakes import worst_mistakes


def made_by_hand():
    """a: wrong and sure; b: wrong, unsure, and nothing left for the true class; c, d: right; e: wrong as sure as a."""
    logits = np.log(
        np.array([[0.90, 0.08, 0.02], [0.500, 0.001, 0.499], [0.6, 0.3, 0.1], [0.9, 0.05, 0.05], [0.90, 0.08, 0.02]])
    )
    return predictions(
        n=5, classes=3, targets=np.array([1, 1, 0, 0, 1]), logits=logits.astype(np.float32), ids=list("abcde")
    )


def test_the_worst_mistakes_left_the_least_for_the_true_class():
    made = made_by_hand()
    assert [mistake.id for mistake in worst_mistakes(made)] == ["b", "a", "e"]
    assert [mistake.id for mistake in worst_mistakes(made, 2)] == ["b", "a"]


def test_the_cells_by_hand():
    assert cells(made_by_hand(), per_cell=2) == [
        {"true": "class 1", "predicted": "class 0", "n": 3, "ids": ["a", "e"]},
        {"true": "class 0", "predicted": "class 0", "n": 2, "ids": ["c", "d"]},
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.integers(2, 6), st.integers(0, 20), st.integers(1, 8))
def test_the_cells_are_the_confusion_matrix_and_their_images_lie_in_them(n, classes, seed, per_cell):
    made = predictions(n=n, classes=classes, skill=1.0, seed=seed)
    found = cells(made, per_cell)
    assert json.loads(json.dumps(found)) == found
    table, row = np.zeros((classes, classes), int), {identity: i for i, identity in enumerate(made.ids.tolist())}
    confidence = softmax(made.logits).max(axis=1)
    for cell in found:
        true, called = made.classes.index(cell["true"]), made.classes.index(cell["predicted"])
        table[true, called] = cell["n"]
        rows = [row[identity] for identity in cell["ids"]]
        assert len(set(rows)) == len(rows) == min(per_cell, cell["n"])
        assert all(made.targets[i] == true and made.predicted[i] == called for i in rows)
        steps = np.diff(confidence[rows])
        assert np.all(steps <= 1e-12 if true != called else steps >= -1e-12)
    assert np.array_equal(table, confusion_matrix(made.targets, made.predicted, classes))
    wrong = [cell["true"] != cell["predicted"] for cell in found]
    assert wrong == sorted(wrong, reverse=True)
    sizes = [cell["n"] for cell, is_wrong in zip(found, wrong, strict=True) if is_wrong]
    assert sizes == sorted(sizes, reverse=True)
