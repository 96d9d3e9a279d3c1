"""Every operation in the table keeps the contract, and batches are augmented by their keys alone."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from convsmith.batches import (
    AUGMENTATIONS,
    GROUP,
    PRESETS,
    Augment,
    Batch,
    Erasing,
    Flip,
    Keys,
    Normalize,
    Rotation,
    Shift,
    build,
    keys_of,
)
from convsmith.errors import UsageError

NOTHING = {  # the options with which each operation changes nothing
    "crop": {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)},
    "shift": {"pixels": 0},
    "flip": {"p": 0.0},
    "vertical_flip": {"p": 0.0},
    "quarter_turn": {"p": 0.0},
    "rotation": {"degrees": 0.0},
    "zoom": {"factor": (1.0, 1.0)},
    "colour": {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0},
    "erasing": {"p": 0.0},
    "mixup": {"p": 0.0},
    "cutmix": {"p": 0.0},
}
STRONG = {"erasing": {"p": 1.0}, "cutmix": {"p": 1.0}, "flip": {"p": 1.0}, "vertical_flip": {"p": 1.0}}
KEYS = keys_of(2, 100, 124)
RAW = Normalize((0.0,) * 3, (1 / 255,) * 3)  # leaves pixels of 0 to 255 as they are
LABELS = torch.arange(24)
MIXING = {name for name, entry in AUGMENTATIONS.items() if "mixing" in entry.tags}

every_operation = pytest.mark.parametrize("name", AUGMENTATIONS)
every_shape = pytest.mark.parametrize("shape", [(24, 1, 8, 8), (24, 3, 9, 14)], ids=["grey", "colour"])


def images_of(shape, dtype=torch.uint8):
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)).to(dtype)


def labels_for(name):
    return torch.eye(24) if name in MIXING else LABELS


def batch_of(keys=KEYS, shape=(3, 8, 8)):
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (300, *shape), dtype=np.uint8))
    positions = keys[:, 1]
    return Batch(images[positions], torch.from_numpy(positions), keys, positions)


@every_operation
@every_shape
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_an_operation_keeps_the_shape_and_changes_copies_only(name, shape, dtype):
    operation = AUGMENTATIONS.build(name, **STRONG.get(name, {}))
    images, labels = images_of(shape, dtype), labels_for(name)
    before, drawn = images.clone(), operation.draw(Keys(KEYS, 3))
    result, targets = operation.apply(images, labels, drawn)
    assert result.shape == images.shape
    assert result.dtype in ({torch.uint8, torch.float32} if dtype == torch.uint8 else {dtype})
    assert torch.equal(images, before)
    assert not torch.equal(result.to(dtype), images)
    assert (targets is labels) == (name not in MIXING)
    assert torch.equal(labels, labels_for(name))
    assert result.min() >= 0
    assert result.max() <= 255.001
    assert torch.equal(operation.apply(images, labels, operation.draw(Keys(KEYS, 3)))[0], result)


@every_operation
@every_shape
def test_an_operation_of_no_strength_changes_nothing(name, shape):
    operation = AUGMENTATIONS.build(name, **NOTHING[name])
    images = images_of(shape)
    result, targets = operation.apply(images, labels_for(name), operation.draw(Keys(KEYS, 3)))
    assert torch.allclose(result.float(), images.float(), atol=2e-3)
    assert torch.equal(targets, labels_for(name))


@every_operation
def test_uint8_and_float_images_are_treated_alike(name):
    operation = AUGMENTATIONS.build(name, **STRONG.get(name, {}))
    drawn, images = operation.draw(Keys(KEYS)), images_of((24, 3, 9, 14))
    labels = labels_for(name)
    results = [operation.apply(images.to(dtype), labels, drawn)[0].double() for dtype in (torch.uint8, torch.float64)]
    assert torch.allclose(*results, atol=1e-2)


@every_operation
@every_shape
def test_an_image_is_treated_alike_alone_and_in_a_batch_and_channels_last(name, shape):
    operation = AUGMENTATIONS.build(name, **STRONG.get(name, {}))
    images, labels = images_of(shape), labels_for(name)
    whole = operation.apply(images, labels, operation.draw(Keys(KEYS, 5)))[0]
    size = GROUP if name in MIXING else 1  # images mix within groups of eight, which begin at KEYS[4]
    for i in (4, 12):
        span = slice(i, i + size)
        alone = operation.apply(images[span], labels[span], operation.draw(Keys(KEYS[span], 5)))[0]
        assert torch.allclose(alone.float(), whole[span].float(), atol=1e-3)
    last = images.to(memory_format=torch.channels_last)
    assert torch.allclose(
        operation.apply(last, labels, operation.draw(Keys(KEYS, 5)))[0].float(), whole.float(), atol=1e-3
    )


@every_operation
def test_parameters_are_bitwise_those_of_the_key_and_differ_between_epochs_and_seeds(name):
    operation = AUGMENTATIONS.build(name)
    many = operation.draw(Keys(keys_of(1, 0, 500), 9))
    for i in (0, 3, 499):
        one = operation.draw(Keys(keys_of(1, i, i + 1), 9))
        assert one.keys() == many.keys()
        assert all(value.tobytes() == many[key][i : i + 1].tobytes() for key, value in one.items())
    for others in (Keys(keys_of(2, 0, 500), 9), Keys(keys_of(1, 0, 500), 10), Keys(keys_of(1, 500, 1000), 9)):
        assert any(not np.array_equal(value, many[key]) for key, value in operation.draw(others).items())


@every_operation
def test_an_operation_is_a_frozen_record_named_as_in_the_table(name):
    operation = AUGMENTATIONS.build(name)
    assert operation.name == name
    assert operation == AUGMENTATIONS.build(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        operation.p = 1


@pytest.mark.parametrize("preset", PRESETS)
def test_drawing_ahead_changes_nothing(preset):
    normalize = Normalize((0.5,) * 3, (0.25,) * 3)
    ahead = build(preset, normalize=normalize, seed=7)
    for epoch, start, stop in [(0, 0, 16), (0, 16, 32), (1, 0, 16), (0, 250, 290), (0, 8, 24)]:
        batch = batch_of(keys_of(epoch, start, stop))
        fresh = build(preset, normalize=normalize, seed=7)
        shuffled = Batch(batch.images.flip(0), batch.targets, batch.keys[::-1].copy(), batch.indices)
        assert torch.equal(ahead(batch).images, fresh(batch).images)
        assert torch.allclose(fresh(shuffled).images.flip(0), ahead(batch).images, atol=1e-4)


def test_the_same_augment_serves_pictures_of_several_sizes():
    augment = build("objects", normalize=RAW)
    for shape in [(3, 8, 8), (3, 12, 10), (3, 8, 8)]:
        assert torch.equal(
            augment(batch_of(shape=shape)).images, build("objects", normalize=RAW)(batch_of(shape=shape)).images
        )


def test_adding_an_operation_leaves_the_draws_of_the_others():
    images = batch_of()
    flipped = Augment([Flip()], normalize=RAW)(images).images
    both = Augment([Flip(), Erasing(p=0.5)], normalize=RAW)(images).images
    untouched = (both == flipped).flatten(1).all(1)
    assert 4 < untouched.sum() < 20


def test_a_batch_is_augmented_by_what_is_drawn_for_its_keys_and_the_seed():
    batch, erasing = batch_of(), Erasing(p=1.0)
    expected = erasing.apply(batch.images, batch.targets, erasing.draw(Keys(batch.keys, 7)))[0]
    assert torch.allclose(Augment([erasing], normalize=RAW, seed=7)(batch).images, expected.float(), atol=1e-3)
    assert not torch.allclose(Augment([erasing], normalize=RAW, seed=8)(batch).images, expected.float(), atol=1e-3)


def test_motions_come_first_and_the_rest_in_their_order():
    batch = batch_of()
    listed_last = Augment([Erasing(p=1.0), Flip(p=1.0)], normalize=RAW)(batch).images
    flipped_first = Augment([Flip(p=1.0), Erasing(p=1.0)], normalize=RAW)(batch).images
    assert torch.equal(listed_last, flipped_first)


def test_without_operations_only_normalisation_is_left():
    normalize = Normalize((0.5,) * 3, (0.25,) * 3)
    batch = batch_of()
    assert torch.equal(build("none", normalize=normalize)(batch).images, normalize(batch.images))
    assert batch.images.dtype == torch.uint8


def test_masks_in_a_batch_move_with_the_images():
    batch = batch_of()
    masked = dataclasses.replace(batch, targets=batch.images[:, 0].long())
    augmented = Augment([Flip(), Shift(2)], normalize=RAW)(masked)
    assert torch.allclose(augmented.images[:, 0], augmented.targets.float(), atol=1e-3)


def test_a_digest_tells_keys_seeds_and_options_apart_and_adds_up_over_parts():
    augment = build("objects", normalize=RAW, seed=1)
    digest = augment.digest(KEYS)
    assert len(digest) == 16
    assert digest == build("objects", normalize=RAW, seed=1).digest(KEYS)
    others = [
        augment.digest(keys_of(2, 101, 125)),
        build("objects", normalize=RAW, seed=2).digest(KEYS),
        build("photos", normalize=RAW, seed=1).digest(KEYS),
        build("none", normalize=RAW, seed=1).digest(KEYS),
    ]
    assert len({digest, *others}) == 5
    parts = [augment.digest(KEYS[16:]), augment.digest(KEYS[:16]), augment.digest(KEYS[:0])]
    assert sum(int(part, 16) for part in parts) % 2**64 == int(digest, 16)


def test_a_recipe_builds_from_names_mappings_and_records():
    spec = ["flip", {"name": "shift", "options": {"pixels": 2}}, SimpleNamespace(name="erasing", options={"p": 0.1})]
    assert build(spec, normalize=RAW).operations == (Flip(), Shift(2), Erasing(p=0.1))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: build("object", normalize=RAW), "no augmentation preset 'object'.*objects"),
        (lambda: build(["flop"], normalize=RAW), "no augmentation named 'flop'.*flip"),
        (lambda: build([{"name": "flip", "options": {"q": 1}}], normalize=RAW), "'flip' has no option 'q'"),
        (lambda: Augment([Flip(), Flip(0.1)], normalize=RAW), "one operation twice"),
        (lambda: Augment([Shift(1, "zero"), Rotation(5)], normalize=RAW), "different borders"),
        (lambda: Augment([], normalize=RAW, seed=-1), "seed is -1"),
    ],
)
def test_recipes_that_cannot_be_are_refused_when_built(make, says):
    with pytest.raises(UsageError, match=says):
        make()
