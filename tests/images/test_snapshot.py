"""What changed since an earlier run."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convsmith.images import Dataset, Snapshot, audit, compare, open_source, split_rows


def recorded(folder) -> dict[str, tuple[str, str]]:
    """What a run keeps of its images, by way of the rows of `split.csv`."""
    dataset, _ = audit(*open_source(folder))
    return {row["id"]: (row["class"], row["sha256"]) for row in split_rows(dataset)}


def test_nothing_changed_is_said(flowers):
    snapshot = compare(recorded(flowers), audit(*open_source(flowers))[0])
    assert snapshot == Snapshot()
    assert not snapshot
    assert snapshot.sentence() == "No image has changed since the last run."


def test_each_kind_of_change_is_told_apart(flowers, paint):
    known = recorded(flowers)
    paint("flowers/rose/new.png", seed=500)
    (flowers / "rose/00.png").unlink()
    paint("flowers/rose/01.png", seed=501)
    (flowers / "rose/02.png").rename(flowers / "rose/again.png")
    (flowers / "rose/03.png").rename(flowers / "tulip/moved.png")
    snapshot = compare(known, audit(*open_source(flowers))[0])
    assert snapshot.added == ("rose/new.png",)
    assert snapshot.removed == ("rose/00.png",)
    assert snapshot.changed == ("rose/01.png",)
    assert snapshot.renamed == (("rose/02.png", "rose/again.png"), ("rose/03.png", "tulip/moved.png"))
    assert snapshot.relabelled == ("tulip/moved.png",)
    assert snapshot
    assert snapshot.sentence() == (
        "Since the last run: 1 added (rose/new.png); 1 removed (rose/00.png); 1 changed (rose/01.png); "
        "1 relabelled (tulip/moved.png); 2 renamed (rose/02.png to rose/again.png, rose/03.png to tulip/moved.png)."
    )


def test_another_class_under_the_same_id_is_relabelled(flowers):
    known = recorded(flowers)
    known["rose/05.png"] = ("tulip", known["rose/05.png"][1])
    assert compare(known, audit(*open_source(flowers))[0]) == Snapshot(relabelled=("rose/05.png",))


def test_a_copy_is_added_and_one_of_two_copies_gone_is_removed(flowers):
    known = recorded(flowers)
    shutil.copy(flowers / "rose/00.png", flowers / "rose/copy.png")
    assert compare(known, audit(*open_source(flowers))[0]) == Snapshot(added=("rose/copy.png",))
    known = recorded(flowers)
    (flowers / "rose/00.png").unlink()
    assert compare(known, audit(*open_source(flowers))[0]) == Snapshot(removed=("rose/00.png",))


def test_many_examples_are_cut():
    assert Snapshot(added=("a", "b", "c", "d")).sentence() == "Since the last run: 4 added (a, b, c, …)."


folders = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("123456"))


@given(folders, folders)
def test_every_image_of_then_and_now_is_accounted_for_once(then, now):
    count = len(now)
    dataset = Dataset.from_arrays(np.zeros((count, 1, 1), np.uint8), [0] * count, ["k"], ids=tuple(now))
    hashes = np.zeros((count, 32), np.uint8)
    hashes[:, 0] = [int(content) for content in now.values()]
    dataset = replace(dataset, hashes=hashes)
    known = {name: ("k", bytes([int(content), *[0] * 31]).hex()) for name, content in then.items()}
    found = compare(known, dataset)
    kept = then.keys() & now.keys()
    assert sorted([*kept, *found.added, *(new for _, new in found.renamed)]) == sorted(now)
    assert sorted([*kept, *found.removed, *(old for old, _ in found.renamed)]) == sorted(then)
    assert set(found.changed) == {name for name in kept if then[name] != now[name]}
    assert all(then[old] == now[new] for old, new in found.renamed)


def test_a_comparison_needs_an_audit(flowers):
    with pytest.raises(ValueError, match="audited"):
        compare({}, open_source(flowers)[0])
