import numpy as np
import pytest
from made_predictions import predictions, saved

from convsmith.errors import DataError, RunError
from convsmith.evaluation import Answers, Predictions


def test_predictions_come_back_as_they_were_saved(tmp_path):
    made = predictions(ids=["snow ❄.png", *(f"{i}" for i in range(1, 300))], split="tune")
    saved(made, tmp_path / "test.npz")
    back = Predictions.of(Answers.load(tmp_path / "test.npz"))
    for name in ("ids", "targets", "logits", "pixels"):
        assert np.array_equal(getattr(back, name), getattr(made, name))
        assert getattr(back, name).dtype == getattr(made, name).dtype
    assert (back.classes, back.split) == (made.classes, made.split)
    assert [path.name for path in tmp_path.iterdir()] == ["test.npz"]


@pytest.mark.parametrize("groups", [None, ("ann", "", "bob")])
def test_answers_of_any_task_come_back_with_their_groups(tmp_path, groups):
    masks = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    Answers({"masks": masks}, ("sky", "tree"), "test", groups=groups).save(tmp_path / "test.npz")
    back = Answers.load(tmp_path / "test.npz", majority=1)
    assert back.arrays.keys() == {"masks"}
    assert np.array_equal(back.arrays["masks"], masks)
    assert (back.classes, back.split, back.majority, back.groups) == (("sky", "tree"), "test", 1, groups)
    with pytest.raises(DataError, match="lack ids, targets, logits, pixels"):
        Predictions.of(back)


def test_no_flipped_byte_is_taken_for_an_answer(tmp_path):
    made, path = predictions(n=40), tmp_path / "test.npz"
    saved(made, path)
    whole, refused = path.read_bytes(), 0
    for place in np.random.default_rng(0).integers(len(whole), size=150):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        try:
            back = Predictions.of(Answers.load(path))
        except RunError:
            refused += 1
        else:
            assert np.array_equal(back.logits, made.logits)
            assert np.array_equal(back.targets, made.targets)
    assert refused > 100


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_what_is_no_archive_is_refused_with_a_mend(tmp_path, content):
    path = tmp_path / "test.npz"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"test\.npz") as caught:
        Answers.load(path)
    assert "convsmith resume" in caught.value.mend


def test_a_truncated_and_a_missing_file_are_refused(tmp_path):
    path = tmp_path / "test.npz"
    with pytest.raises(RunError, match="No such file"):
        Answers.load(path)
    saved(predictions(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RunError):
        Answers.load(path)


def test_a_pickle_is_not_executed(tmp_path):
    np.savez(tmp_path / "test.npz", ids=np.array([print], dtype=object))
    with pytest.raises(RunError):
        Answers.load(tmp_path / "test.npz")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"logits": np.zeros((300, 4), np.float32)}, r"logits has shape \[300, 4\].*\[300, 5\]"),
        ({"targets": np.zeros(299, int)}, r"targets has shape \[299\].*\[300\]"),
        ({"pixels": np.zeros((300, 31), np.uint8)}, r"pixels has shape \[300, 31\]"),
        ({"targets": np.full(300, 5)}, r"target 5 of image 'folder/00000.png'.*0 to 4"),
        ({"targets": np.zeros(300)}, "targets holds float64"),
        ({"ids": list(range(300))}, "ids holds int64"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_their_shapes(change, said):
    with pytest.raises(DataError, match=said):
        predictions(**change)
