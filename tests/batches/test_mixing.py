"""Images and labels are mixed alike, within groups of eight, and the loss takes the result."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from convsmith.batches import Augment, Batch, CutMix, Keys, MixUp, Normalize, keys_of
from convsmith.errors import UsageError
from convsmith.tasks import classification

RAW = Normalize((0.0,) * 3, (1 / 255,) * 3)
MIXES = [MixUp(0.5), CutMix(1.0, p=1.0)]
both = pytest.mark.parametrize("operation", MIXES, ids=["mixup", "cutmix"])


def flat(n, *, start=0, size=(16, 12)):
    """Image i is of the value i all over, and of class i, so that what it was mixed with can be read from it."""
    images = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 3, *size)
    return images, torch.eye(n), keys_of(0, start, start + n)


@both
def test_labels_are_mixed_as_the_pixels_are(operation):
    images, labels, keys = flat(64)
    mixed, shares = operation.apply(images, labels, operation.draw(Keys(keys, 4)))
    assert torch.allclose(shares.sum(1), torch.ones(64))
    assert torch.allclose((shares * torch.arange(64.0)).sum(1), mixed.mean((1, 2, 3)), atol=1e-4)
    changed = (shares.diagonal() < 1).sum()
    assert changed > 40


@both
def test_partners_are_others_of_the_same_eight_each_equally_often(operation):
    place, partner = operation.draw(Keys(keys_of(0, 0, 8 * 7000), 1))["partner"].T
    assert (place == np.arange(len(place)) % 8).all()
    assert partner.min() >= 0
    assert partner.max() <= 7
    assert (place != partner).all()
    of_partner = partner.reshape(-1, 8)[np.arange(7000)[:, None], partner.reshape(-1, 8)]
    assert (of_partner == np.arange(8)).all()
    counts = np.bincount(partner[::8])[1:]  # of each group's first image, seven others
    assert stats.chisquare(counts).pvalue > 1e-3


@both
def test_the_two_halves_of_a_batch_are_mixed_as_the_whole_is(operation):
    images, labels, keys = flat(32)
    whole = operation.apply(images, labels, operation.draw(Keys(keys, 2)))
    halves = [
        operation.apply(images[part], labels[part], operation.draw(Keys(keys[part], 2)))
        for part in (slice(0, 16), slice(16, 32))
    ]
    for one, parts in zip(whole, zip(*halves, strict=True), strict=True):
        assert torch.equal(one, torch.cat(list(parts)))


@both
def test_an_image_whose_partner_is_missing_stays_as_it_is(operation):
    images, labels, keys = flat(11)
    mixed, shares = operation.apply(images, labels, operation.draw(Keys(keys, 0)))
    partner = operation.draw(Keys(keys, 0))["partner"][:, 1]
    lonely = 8 + partner[8:] >= 11
    assert lonely.any()
    assert torch.equal(mixed[8:][lonely], images[8:][lonely])
    assert torch.equal(shares[8:][lonely], labels[8:][lonely])


def test_the_share_of_mixup_is_a_folded_beta():
    share = MixUp(0.3).draw(Keys(keys_of(0, 0, 20_000), 3))["share"]
    folded = stats.beta(0.3, 0.3)
    assert share.max() <= 0.5
    assert stats.kstest(share, lambda s: folded.cdf(s) + folded.sf(1 - s)).pvalue > 1e-3


def test_the_area_of_cutmix_before_it_is_cut_off_is_a_beta_and_the_label_counts_what_is_left():
    drawn = CutMix(0.7, p=1.0).draw(Keys(keys_of(0, 0, 20_000), 3))
    box = drawn["box"]
    inside = ((box[:, :2] > 0) & (box[:, 2:] < 1)).all(1)
    sides = box[inside, 2:] - box[inside, :2]
    assert np.allclose(sides[:, 0], sides[:, 1])  # the image's own proportions
    images, labels, _ = flat(2_000, size=(50, 40))
    mixed, shares = CutMix(0.7, p=1.0).apply(images, labels, {key: value[:2_000] for key, value in drawn.items()})
    covered = (mixed[:, 0] != images[:, 0]).float().mean((1, 2))
    assert torch.allclose(1 - shares.diagonal(), covered, atol=1e-5)
    assert np.corrcoef(covered, (box[:2000, 2:] - box[:2000, :2]).prod(1))[0, 1] > 0.99
    # A square of area a about a uniform centre keeps, of each side s = sqrt(a), s - s^2 / 4 in the mean.
    u = stats.beta(0.7, 0.7)
    expected = u.expect(lambda a: (np.sqrt(a) - a / 4) ** 2)
    assert float(covered.mean()) == pytest.approx(expected, abs=0.02)


def test_masks_are_covered_as_the_images_are_and_cannot_be_blended():
    images, _, keys = flat(16)
    masks = images[:, 0].long()
    mixed, moved = CutMix(p=1.0).apply(images, masks, CutMix(p=1.0).draw(Keys(keys, 1)))
    assert torch.equal(mixed[:, 0].long(), moved)
    assert not torch.equal(moved, masks)
    with pytest.raises(UsageError, match="targets are masks") as error:
        MixUp().apply(images, masks, MixUp().draw(Keys(keys, 1)))
    assert "CutMix" in str(error.value.mend)


@both
def test_a_batch_of_labels_becomes_one_of_shares_and_needs_to_know_of_how_many_classes(operation):
    images = torch.zeros(16, 3, 8, 8, dtype=torch.uint8)
    batch = Batch.of_images(images, torch.arange(16) % 5)
    mixed = Augment([operation], normalize=RAW, classes=5)(batch)
    assert mixed.targets.shape == (16, 5)
    assert mixed.images.dtype == mixed.targets.dtype == torch.float32
    with pytest.raises(UsageError, match="how many classes"):
        Augment([operation], normalize=RAW)(batch)


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"alpha": -1.0}, {"alpha": 11.0}, {"p": 1.5}])
@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_an_option_out_of_range_is_refused(kind, wrong):
    with pytest.raises(UsageError, match=rf"{next(iter(wrong))} is {next(iter(wrong.values()))}"):
        kind(**wrong)


@pytest.mark.parametrize("focal", [None, 2.0])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 0.1)])
def test_the_loss_of_whole_shares_is_that_of_labels_and_of_halves_the_mean(focal, weights):
    torch.manual_seed(0)
    logits, labels = torch.randn(8, 4), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])

    def loss(targets):
        batch = Batch.of_images(logits[:, :, None, None], targets)
        ((_, value, count),) = classification(0.1, weights, focal).losses(nn.Flatten(), batch)
        return float(value), float(count)

    assert loss(F.one_hot(labels, 4).float()) == pytest.approx(loss(labels), rel=1e-5)
    if focal is None:
        halves = (F.one_hot(labels, 4) + F.one_hot(labels.roll(1), 4)) / 2
        expected = (np.array(loss(labels)) + np.array(loss(labels.roll(1)))) / 2
        assert loss(halves) == pytest.approx(tuple(expected), rel=1e-5)
