"""Batches hold the right images, for every process count, at any step, in any order of asking."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convsmith.batches import Augment, Batches, Flip, Normalize, Shift, permutation
from convsmith.errors import UsageError

NORMALIZE = Normalize((0.5,), (0.25,))


def make(n, *, numpy=False, **options):
    """Each image is filled with its own index, and so is its target."""
    images = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 3, 4), np.uint8)
    targets = np.arange(n)
    kind = (lambda array: array) if numpy else torch.from_numpy
    return Batches(kind(images), kind(targets), [f"image-{i}" for i in range(n)], **options)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 8), st.integers(1, 5), st.integers(0, 3))
def test_ranks_together_see_each_image_once_per_epoch_in_the_global_order(n, groups, world, epoch):
    ranks = [make(n, batch_size=8 * groups, seed=3, rank=rank, world=world) for rank in range(world)]
    handed = [ranks[rank].at(epoch, step) for step in range(len(ranks[0])) for rank in range(world)]
    seen = [batch for batch in handed if not batch.borrowed]
    assert all(len(batch) >= min(8, n) for batch in handed)
    order = permutation(n, seed=3, epoch=epoch)
    assert [name for batch in seen for name in batch.ids] == [f"image-{i}" for i in order]
    assert np.array_equal(np.concatenate([batch.keys for batch in seen]), [[epoch, p] for p in range(n)])
    assert torch.equal(torch.cat([batch.images[:, 0, 0, 0] for batch in seen]), torch.from_numpy(order).to(torch.uint8))
    assert torch.equal(torch.cat([batch.targets for batch in seen]), torch.from_numpy(order))


@pytest.mark.parametrize("world", [2, 3, 5])
def test_draws_and_pixels_are_the_same_for_any_process_count(world):
    operations = [Flip(), Shift(1)]
    whole = Augment(operations, normalize=NORMALIZE, seed=1)
    alone = make(70, batch_size=32, seed=1)
    for step in range(len(alone)):
        expected = whole(alone.at(2, step))
        parts = []
        for rank in range(world):
            augment = Augment(operations, normalize=NORMALIZE, seed=1)
            part = make(70, batch_size=32, seed=1, rank=rank, world=world).at(2, step)
            if not part.borrowed:
                parts.append((augment(part), augment.digest(part.keys)))
        assert torch.equal(torch.cat([part.images for part, _ in parts]), expected.images)
        total = sum(int(digest, 16) for _, digest in parts) % 2**64
        assert total == int(whole.digest(expected.keys), 16)


def test_any_step_can_be_asked_for_in_any_order():
    forwards, backwards = make(100, batch_size=16), make(100, batch_size=16)
    places = [(epoch, step) for epoch in range(3) for step in range(len(forwards))]
    given_forwards = {place: forwards.at(*place).ids for place in places}
    given_backwards = {place: backwards.at(*place).ids for place in reversed(places)}
    assert given_forwards == given_backwards


def skewed(rank=0, world=1, **options):
    """300 images of 200, 80, 17 and 3 a class, drawn so that the classes are seen alike."""
    targets = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [200, 80, 17, 3]))
    weights = 1 / np.bincount(targets)[targets]
    images = np.arange(300, dtype=np.uint16).view(np.uint8).reshape(300, 2, 1, 1)
    options = {"batch_size": 64, "seed": 5, "weights": weights, **options}
    return Batches(images, targets, [str(i) for i in range(300)], rank=rank, world=world, **options)


def test_batches_drawn_by_weight_show_every_class_alike_and_keep_the_length_of_an_epoch():
    batches = skewed()
    for epoch in range(3):
        targets = torch.cat([batches.at(epoch, step).targets for step in range(len(batches))])
        assert torch.bincount(targets).tolist() == [75, 75, 75, 75]


def test_weights_change_what_is_seen_and_nothing_else_about_batches():
    plain, weighted = skewed(weights=None), skewed()
    for step in range(len(plain)):
        assert np.array_equal(plain.at(2, step).keys, weighted.at(2, step).keys)
        assert plain.at(2, step).ids != weighted.at(2, step).ids
    batch = weighted.at(2, 0)
    assert batch.images.numpy().reshape(-1, 2).view(np.uint16)[:, 0].tolist() == batch.indices.tolist()
    assert torch.equal(batch.targets, weighted.targets[torch.from_numpy(batch.indices)])


@pytest.mark.parametrize("world", [1, 3])
def test_batches_drawn_by_weight_are_the_same_after_a_resume_and_for_any_process_count(world):
    whole = skewed()
    for epoch, step in [(3, 2), (0, 0), (3, 4), (1, 1)]:
        fresh = [skewed(rank, world).at(epoch, step) for rank in range(world)]
        assert [name for batch in fresh if not batch.borrowed for name in batch.ids] == list(whole.at(epoch, step).ids)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weights": np.ones(299)}, r"300 images are float64 of shape \(299,\)"),
        ({"weights": np.full(300, -1.0)}, "one number from 0"),
        ({"weights": np.full(300, np.nan)}, "one number from 0"),
        ({"weights": np.zeros(300)}, "not all may be 0"),
        ({"shuffle": False}, "cannot come in their own order"),
    ],
)
def test_weights_that_cannot_be_drawn_by_are_refused(options, says):
    with pytest.raises(UsageError, match=says):
        skewed(**options)


def test_without_shuffling_every_epoch_follows_the_data():
    batches = make(20, batch_size=8, shuffle=False)
    assert batches.at(0, 1).indices.tolist() == batches.at(4, 1).indices.tolist() == list(range(8, 20))
    assert batches.at(4, 1).keys[:, 0].tolist() == [4] * 12


@pytest.mark.parametrize(("n", "borrows"), [(16, 8), (5, 5)])
def test_a_rank_without_images_borrows_the_first_group_of_the_step(n, borrows):
    ranks = [make(n, batch_size=16, rank=rank, world=3).at(0, 0) for rank in range(3)]
    assert [batch.borrowed for batch in ranks] == [False, n < 16, True]
    assert ranks[2].ids == ranks[0].ids[:borrows]
    assert np.array_equal(ranks[2].keys, ranks[0].keys[:borrows])
    assert ranks[2].to("cpu").borrowed
    assert Augment([Flip()], normalize=NORMALIZE)(ranks[2]).borrowed


def test_a_memory_map_gives_the_same_batches_as_a_tensor(tmp_path):
    path = tmp_path / "images.npy"
    pixels = np.random.default_rng(0).integers(0, 256, (30, 3, 5, 4), dtype=np.uint8)
    np.save(path, pixels)
    names, targets = [str(i) for i in range(30)], np.arange(30)
    mapped = Batches(np.load(path, mmap_mode="r"), targets, names, batch_size=16).at(0, 0)
    held = Batches(torch.from_numpy(pixels), targets, names, batch_size=16).at(0, 0)
    assert torch.equal(mapped.images, held.images)
    assert mapped.ids == held.ids
    assert np.array_equal(mapped.images.numpy(), pixels[mapped.indices])


def test_a_batch_can_be_changed_without_changing_the_data():
    for numpy in (False, True):
        batches = make(16, numpy=numpy, batch_size=16)
        batches.at(0, 0).images.zero_()
        assert batches.at(0, 0).images.sum() > 0


def test_masks_are_gathered_with_their_images():
    masks = torch.arange(16)[:, None, None].expand(16, 3, 4)
    batch = Batches(torch.zeros(16, 1, 3, 4, dtype=torch.uint8), masks, [""] * 16, batch_size=16).at(0, 0)
    assert torch.equal(batch.targets[:, 0, 0], torch.from_numpy(batch.indices))


def test_a_batch_moves_to_a_device_with_its_targets():
    moved = make(16, batch_size=8).at(0, 0).to("meta")
    assert (moved.images.device.type, moved.targets.device.type) == ("meta", "meta")
    assert len(moved.ids) == 8


@pytest.mark.gpu
def test_images_kept_on_a_gpu_are_gathered_and_augmented_there_as_on_the_cpu():
    on_cpu = make(100, batch_size=32, seed=2)
    on_gpu = Batches(on_cpu.images.cuda(), on_cpu.targets.cuda(), on_cpu.ids, batch_size=32, seed=2)
    augment = Augment([Flip(), Shift(1)], normalize=NORMALIZE)
    for step in range(len(on_cpu)):
        expected, batch = augment(on_cpu.at(0, step)), augment(on_gpu.at(0, step))
        assert batch.images.is_cuda
        assert torch.allclose(batch.images.cpu(), expected.images, atol=1e-6)
        assert torch.equal(batch.targets.cpu(), expected.targets)


@pytest.mark.parametrize(
    ("images", "targets", "says"),
    [
        (torch.zeros(8, 1, 3, 3), torch.zeros(8), r"torch\.float32 of shape \(8, 1, 3, 3\), but must be uint8"),
        (torch.zeros(8, 3, 3, dtype=torch.uint8), torch.zeros(8), r"shape \(8, 3, 3\)"),
        (torch.zeros(8, 1, 3, 3, dtype=torch.uint8), torch.zeros(7), "8 images, 7 targets and 8 ids"),
    ],
)
def test_data_that_do_not_fit_are_refused_with_the_values(images, targets, says):
    with pytest.raises(UsageError, match=says):
        Batches(images, targets, [""] * 8, batch_size=8)


def test_a_rank_outside_the_world_is_refused_before_any_batch():
    with pytest.raises(UsageError, match="rank is 2"):
        make(16, batch_size=8, rank=2, world=2)
