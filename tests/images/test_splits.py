"""Roles: who trains, who tunes, who is reported on."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convsmith.errors import DataError
from convsmith.images import (
    Dataset,
    assign_roles,
    audit,
    drop_torn_groups,
    open_source,
    split_rows,
    split_sentence,
)
from convsmith.images.splits import choose


def labelled(sizes: dict[str, int], roles: list[str] | None = None, contents: list[int] | None = None) -> Dataset:
    """An audited data set of one-pixel pictures whose content is a number; by default all differ."""
    targets = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    numbers = contents if contents is not None else list(range(len(targets)))
    images = np.array(numbers, "<u4").view(np.uint8).reshape(-1, 2, 2)
    return audit(Dataset.from_arrays(images, targets, tuple(sizes), roles=roles))[0]


def totals(dataset: Dataset) -> dict[str, int]:
    return {role: sum(counts.values()) for role, counts in dataset.counts().items()}


def test_one_folder_is_split_seventy_fifteen_fifteen_in_each_class():
    dataset = assign_roles(labelled({"a": 100, "b": 20, "c": 40}))
    assert dataset.counts() == {
        "train": {"a": 70, "b": 14, "c": 28},
        "tune": {"a": 15, "b": 3, "c": 6},
        "test": {"a": 15, "b": 3, "c": 6},
    }


def test_small_classes_are_shared_by_the_documented_rule():
    dataset = assign_roles(labelled({"one": 1, "two": 2, "three": 3, "four": 4}))
    assert dataset.counts() == {
        "train": {"one": 1, "two": 1, "three": 1, "four": 2},
        "tune": {"one": 0, "two": 0, "three": 1, "four": 1},
        "test": {"one": 0, "two": 1, "three": 1, "four": 1},
    }


def test_given_train_and_test_tune_is_carved_from_train_alone():
    roles = (["train"] * 40 + ["test"] * 10) * 2
    before = labelled({"a": 50, "b": 50}, roles)
    dataset = assign_roles(before)
    assert totals(dataset) == {"train": 68, "tune": 12, "test": 20}
    assert dataset.indices("test").tolist() == before.indices("test").tolist()


@pytest.mark.slow
def test_tune_takes_at_most_five_thousand():
    sizes = {"a": 50_000, "b": 7_001, "c": 3}
    dataset = assign_roles(labelled({**sizes, "d": 1}, ["train"] * 57_004 + ["test"]))
    assert 4_990 <= totals(dataset)["tune"] <= 5_000


def test_given_all_three_roles_nothing_moves():
    dataset = labelled({"a": 3, "b": 3}, ["train", "tune", "test"] * 2)
    assert assign_roles(dataset) is dataset


def test_the_split_depends_on_content_and_seed_and_on_nothing_else():
    dataset = labelled({"a": 60, "b": 60})
    renamed = replace(dataset, ids=tuple(f"other/{i}" for i in range(120)))
    shuffled = dataset.select(np.random.default_rng(0).permutation(120))
    roles = dict(zip(dataset.ids, assign_roles(dataset).roles, strict=True))
    assert tuple(roles.values()) == assign_roles(renamed).roles
    assert dict(zip(shuffled.ids, assign_roles(shuffled).roles, strict=True)) == roles
    assert assign_roles(dataset, split_seed=1).roles != tuple(roles.values())


def test_the_rule_is_the_one_that_is_documented():
    """By hand: within a class, the lowest SHA-256 of "seed:" and content hash are for test, the next for tune."""
    dataset = labelled({"a": 20})
    assert dataset.hashes is not None
    keys = [hashlib.sha256(b"7:" + row.tobytes()).digest() for row in dataset.hashes]
    order = sorted(range(20), key=keys.__getitem__)
    roles = assign_roles(dataset, split_seed=7).roles
    assert [roles[i] for i in order] == ["test"] * 3 + ["tune"] * 3 + ["train"] * 14


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 25), min_size=60, max_size=60), st.integers(0, 5))
def test_copies_never_part_even_where_their_labels_differ(contents, seed):
    dataset = assign_roles(
        labelled({"a": 20, "b": 40, "c": 6}, contents=[*contents, 100, 101, 102, 103, 104, 105]), split_seed=seed
    )
    role_of: dict[int, set[str]] = {}
    for number, role in zip(contents, dataset.roles[:60], strict=True):
        role_of.setdefault(number, set()).add(role)
    assert all(len(roles) == 1 for roles in role_of.values())


def test_too_few_images_to_fill_a_role_are_refused():
    with pytest.raises(DataError, match="2 images of 2 classes cannot fill tune"):
        assign_roles(labelled({"a": 1, "b": 1}))


def test_roles_that_make_no_sense_together_are_refused():
    with pytest.raises(DataError, match="states the roles test"):
        assign_roles(labelled({"a": 4}, ["test"] * 4))


def test_a_split_needs_an_audit():
    with pytest.raises(ValueError, match="audited"):
        assign_roles(open_source("digits")[0])


def test_the_split_is_listed_with_content_hashes():
    dataset = assign_roles(labelled({"a": 10, "b": 10}))
    rows = split_rows(dataset)
    assert list(rows[0]) == ["id", "role", "class", "group", "sha256"]
    assert [row["role"] for row in rows] == list(dataset.roles)
    expected = hashlib.sha256(np.array([2, 2, 1], "<u4").tobytes() + np.array([3], "<u4").tobytes()).hexdigest()
    assert rows[3] == {"id": "arrays/03", "role": dataset.roles[3], "class": "a", "group": "", "sha256": expected}


def test_a_small_subset_still_fills_every_role_of_every_class():
    given = labelled({"a": 300, "b": 12}, (["train"] * 200 + ["test"] * 100) + (["train"] * 8 + ["test"] * 4))
    for dataset in (given, given.with_roles([""] * 312)):
        part = assign_roles(dataset.select(choose(dataset, 20)))
        assert len(part) == 20
        assert all(part.counts()[role]["b"] >= 1 for role in ("train", "tune", "test"))


def made_up(case: int) -> Dataset:
    """An audited data set of empty pictures with contents drawn by SHA-256, which no library version changes."""

    def draw(name: str, below: int) -> int:
        return int.from_bytes(hashlib.sha256(f"{case}:{name}".encode()).digest()[:6], "big") % below

    count, classes = 60 + draw("count", 300), 2 + draw("classes", 6)
    first = 3 * classes  # three of each class that have no copies, so that every role can be filled
    targets = [i // 3 if i < first else draw(f"target {i}", classes) for i in range(count)]
    spread = (count // 4, count, 10**9)[case % 3]
    contents = [f"own {i}" if i < first else str(draw(f"content {i}", spread)) for i in range(count)]
    stated = ["test" if i % 5 == 0 else "train" for i in range(count)] if case % 4 == 0 else None
    dataset = Dataset.from_arrays(np.zeros((count, 1, 1), np.uint8), targets, list("abcdefgh")[:classes], roles=stated)
    return replace(dataset, hashes=np.stack([content_hash(content) for content in contents]))


def content_hash(content: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(content.encode()).digest(), np.uint8)


def roles_of_the_first_release(dataset: Dataset, seed: int) -> tuple[str, ...]:
    """The rule as it was before there were groups and near duplicates, by which all recorded runs were split."""
    assert dataset.hashes is not None
    carve = "test" in dataset.roles
    copies = defaultdict(list)
    for i in dataset.indices("train" if carve else "").tolist():
        copies[dataset.hashes[i].tobytes()].append(i)
    home = {content: min(int(dataset.targets[i]) for i in copies[content]) for content in copies}
    size, used, roles = Counter(home.values()), Counter(), list(dataset.roles)
    for content in sorted(copies, key=lambda content: hashlib.sha256(f"{seed}:".encode() + content).digest()):
        target = home[content]
        share = (15 * size[target] + 50) // 100
        if carve:
            quotas = {"tune": max(1, min(share, 5000 * size[target] // len(copies))) if size[target] >= 2 else 0}
        else:
            quotas = {
                "test": max(1, share) if size[target] >= 2 else 0,
                "tune": max(1, share) if size[target] >= 3 else 0,
            }
        place, used[target] = used[target], used[target] + 1
        role = "train"
        for part, quota in quotas.items():
            if place < quota:
                role = part
                break
            place -= quota
        for i in copies[content]:
            roles[i] = role
    return tuple(roles)


@pytest.mark.parametrize("case", range(24))
def test_without_groups_and_near_duplicates_every_recorded_split_stays_as_it_was(case):
    dataset = made_up(case)
    assert assign_roles(dataset, split_seed=case % 5).roles == roles_of_the_first_release(dataset, case % 5)
    assert assign_roles(dataset, split_seed=case % 5, near=np.zeros((0, 2), np.int64)).roles == (
        roles_of_the_first_release(dataset, case % 5)
    )


def test_the_splits_of_the_first_release_are_pinned():
    """Digests of what its code gave; the invariant beside them is the test above."""
    found = [hashlib.sha256(" ".join(assign_roles(made_up(case)).roles).encode()).hexdigest()[:16] for case in range(4)]
    assert found == ["8197f9921f8bc71f", "a3ed286865a3b308", "4c06780a1eeb1c03", "6ba876f5e4b66cff"]


def components(dataset: Dataset, near: np.ndarray) -> list[set[int]]:
    """By another way than the code's: labels of scipy's connected components."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    assert dataset.hashes is not None
    links = [tuple(pair) for pair in near.tolist()]
    for keys in ([row.tobytes() for row in dataset.hashes], dataset.groups):
        first: dict[object, int] = {}
        links += [(first.setdefault(key, i), i) for i, key in enumerate(keys) if key]
    rows, columns = np.array(links).T
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(dataset), len(dataset)))
    labels = connected_components(graph, directed=False)[1]
    return [set(np.flatnonzero(labels == label).tolist()) for label in range(labels.max() + 1)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 150), st.integers(0, 30)), min_size=90, max_size=90),
    st.lists(st.tuples(st.integers(0, 89), st.integers(0, 89)), max_size=12),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_no_unit_is_parted_and_the_order_of_the_images_is_irrelevant(images, pairs, seed, random):
    images = [*images, *[(i % 3, 1000 + i, 1000 + i) for i in range(12)]]
    targets, contents, groups = zip(*images, strict=True)
    dataset = Dataset.from_arrays(np.zeros((len(images), 1, 1), np.uint8), targets, "abc")
    dataset = replace(
        dataset,
        hashes=np.stack([content_hash(str(content)) for content in contents]),
        groups=tuple(f"g{group}" if group % 3 else "" for group in groups),
    )
    near = np.array(pairs, np.int64).reshape(-1, 2)
    roles = assign_roles(dataset, split_seed=seed, near=near).roles
    assert all(len({roles[i] for i in unit}) == 1 for unit in components(dataset, near))
    order = list(range(len(images)))
    random.shuffle(order)
    place = {i: j for j, i in enumerate(order)}
    moved = np.array([[place[j], place[i]] for i, j in near.tolist()], np.int64).reshape(-1, 2)
    assert assign_roles(dataset.select(order), split_seed=seed, near=moved).roles == tuple(roles[i] for i in order)


def grouped(sizes: dict[str, list[int]]) -> Dataset:
    """Different pictures, for each class the sizes of its groups."""
    dataset = labelled({name: sum(groups) for name, groups in sizes.items()})
    names = [f"{name}{k}" for name, groups in sizes.items() for k, size in enumerate(groups) for _ in range(size)]
    return replace(dataset, groups=tuple(names))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 30), min_size=3, max_size=20), min_size=2, max_size=5), st.integers(0, 3))
def test_a_class_of_three_groups_has_all_three_roles_and_no_part_is_twice_its_share(sizes, seed):
    dataset = grouped({"abcde"[k]: groups for k, groups in enumerate(sizes)})
    counts = assign_roles(dataset, split_seed=seed).counts()
    for name, groups in zip("abcde", sizes, strict=False):
        quota = max(1, (15 * sum(groups) + 50) // 100)
        for role in ("test", "tune"):
            assert 1 <= counts[role][name] <= max(2 * quota, sorted(groups)[1])  # above twice only what had to move
        assert counts["train"][name] >= 1


def test_with_many_groups_the_shares_are_those_wanted():
    counts = assign_roles(grouped({"a": [5] * 60, "b": [7] * 40, "c": [1] * 100})).counts()
    for role, share in (("train", 0.7), ("tune", 0.15), ("test", 0.15)):
        assert [counts[role][name] for name in "abc"] == [
            pytest.approx(share * total, abs=4) for total in (300, 280, 100)
        ]


def test_a_group_far_larger_than_a_part_trains():
    """By hand: 80 of 100 images are one group, the quotas are 15, so the large one can only train."""
    dataset = assign_roles(grouped({"a": [80, 10, 10], "b": [1] * 20}))
    assert dataset.counts() == {
        "train": {"a": 80, "b": 14},
        "tune": {"a": 10, "b": 3},
        "test": {"a": 10, "b": 3},
    }


def test_a_class_that_lies_in_groups_of_a_commoner_one_is_still_tested():
    """Ten patients, all mostly healthy; four of them have the rare finding too."""
    dataset = labelled({"healthy": 200, "rare": 8})
    groups = [f"p{i // 20}" for i in range(200)] + [f"p{i // 2}" for i in range(8)]
    for seed in range(20):
        counts = assign_roles(replace(dataset, groups=tuple(groups)), split_seed=seed).counts()
        assert all(counts[role]["rare"] >= 2 for role in ("train", "tune", "test"))


def test_a_group_that_grows_keeps_its_rank():
    sizes = [3] * 40
    before = assign_roles(grouped({"a": sizes, "b": [1] * 10}))
    after = grouped({"a": sizes, "b": [1] * 10})
    contents = np.stack([content_hash(f"other {i}") for i in range(len(after))])  # all pictures anew, groups as before
    after = assign_roles(replace(after, hashes=contents))
    assert before.roles[:120] == after.roles[:120]


def test_near_duplicates_chain_to_one_unit_and_those_of_a_stated_test_set_are_left_alone():
    dataset = labelled({"a": 30, "b": 30}, (["train"] * 25 + ["test"] * 5) * 2)
    near = np.array([[0, 1], [1, 2], [2, 31], [3, 29]])
    roles = assign_roles(dataset, near=near).roles
    assert len({roles[i] for i in (0, 1, 2, 31)}) == 1
    assert roles[29] == "test"


def test_too_few_groups_are_refused_with_their_number():
    dataset = replace(labelled({"a": 20, "b": 20}), groups=("one", "two") * 20)
    with pytest.raises(DataError, match=r"cannot fill tune: .* leaves 2 units, the largest of 20 images") as caught:
        assign_roles(dataset)
    assert "other groups" in caught.value.mend


def test_groups_torn_by_a_stated_split_are_left_out_of_train():
    roles = ["train", "train", "train", "tune", "tune", "test", "train", "test"]
    groups = ("p", "q", "", "q", "r", "r", "s", "")
    dataset = replace(labelled({"a": 8}, roles), groups=groups)
    rest, torn = drop_torn_groups(dataset)
    assert torn == ["q", "r"]
    assert rest.ids == tuple(dataset.ids[i] for i in (0, 2, 3, 5, 6, 7))
    sides = defaultdict(set)
    for group, role in zip(rest.groups, rest.roles, strict=True):
        sides[group or object()].add(role)
    assert all(len(found) == 1 for found in sides.values())
    whole = replace(dataset, groups=("",) * 8)
    assert drop_torn_groups(whole) == (whole, [])


def test_a_class_that_torn_groups_would_empty_is_an_error():
    dataset = replace(labelled({"a": 2, "b": 2}, ["train", "test"] * 2), groups=("p", "", "q", "q"))
    with pytest.raises(DataError, match=r"1 groups? .*\(q\); without them nothing of b is left"):
        drop_torn_groups(dataset)


def test_the_split_is_said_in_one_sentence():
    before = labelled({"a": 100, "b": 60})
    assert split_sentence(before, assign_roles(before)) == "70/15/15 by class"
    near = np.array([[0, 1], [5, 7]])
    after = assign_roles(before, near=near)
    assert split_sentence(before, after, near) == "70/15/15 by class, 2 pairs of near duplicates kept together"
    groups = replace(before, groups=tuple(f"g{i // 2}" for i in range(160)))
    assert split_sentence(groups, assign_roles(groups)) == "70/15/15 by class, 80 groups kept whole"
    uneven = grouped({"a": [40, 40, 40], "b": [40, 40, 40]})
    said = split_sentence(uneven, assign_roles(uneven))
    assert said == "33/33/33 by class (wanted: 70/15/15), 6 groups kept whole"


def test_a_stated_split_is_said_as_given():
    carved = labelled({"a": 50, "b": 50}, (["train"] * 40 + ["test"] * 10) * 2)
    near = np.array([[0, 1], [0, 45]])
    said = split_sentence(carved, assign_roles(carved, near=near), near)
    assert said.startswith("test as given, 15 % of train for tune, by class, 1 pair of near duplicates kept together")
    assert said.endswith("1 pair of near duplicates torn by the split as given")
    whole = labelled({"a": 3, "b": 3}, ["train", "tune", "test"] * 2)
    assert split_sentence(whole, assign_roles(whole)) == "train, tune and test as given"
