"""What downsamplings throw away, by hand."""

import pytest
from torch import nn

from convsmith.networks.counting.discards import discarded
from convsmith.networks.recording.graph import record


def share(layer, *shape):
    graph = record(layer, shape)
    found = [discarded(operation, graph) for operation in graph.operations]
    shares = [share for share in found if share is not None]
    assert len(shares) < 2
    return shares[0] if shares else None


@pytest.mark.parametrize(
    ("layer", "shape", "discards"),
    [
        (nn.MaxPool2d(2), (8, 6, 6), 0.75),
        (nn.MaxPool2d(2), (8, 7, 7), 1 - 9 / 49),
        (nn.MaxPool2d(3, 2, 1), (8, 6, 6), 0.75),
        (nn.AvgPool2d(2), (8, 6, 6), 0.75),
        (nn.AdaptiveAvgPool2d(1), (8, 5, 5), 0.96),
        (nn.AdaptiveMaxPool2d(3), (8, 6, 6), 0.75),
        (nn.Conv2d(8, 8, 1, 2), (8, 6, 6), 0.75),
        (nn.Conv2d(8, 32, 1, 2), (8, 6, 6), 0.75),  # three quarters are not read, whatever it makes of the rest
        (nn.Conv2d(8, 16, 3, 2, 1), (8, 6, 6), 0.5),
        (nn.Conv2d(8, 32, 3, 2, 1), (8, 6, 6), 0.0),
        (nn.Conv2d(8, 32, 2, 2), (8, 6, 6), 0.0),
        (nn.Conv2d(8, 64, 3, 4, 1), (8, 8, 8), 1 - (5 / 8) ** 2),
        (nn.Conv2d(8, 128, 3, 2, 2, 2), (8, 6, 6), 0.75),  # dilated by its stride: only every other row and column
        (nn.Conv2d(8, 8, (3, 1), (2, 1), (1, 0)), (8, 6, 6), 0.5),
        (nn.Conv2d(8, 8, 3, padding=1), (8, 6, 6), None),
        (nn.Conv2d(8, 8, 3), (8, 6, 6), None),
        (nn.MaxPool2d(3, 1, 1), (8, 6, 6), None),
        (nn.AdaptiveAvgPool2d(6), (8, 6, 6), None),
        (nn.ConvTranspose2d(8, 8, 2, 2), (8, 6, 6), None),
        (nn.PixelUnshuffle(2), (8, 6, 6), None),
        (nn.ReLU(), (8, 6, 6), None),
        (nn.Upsample(scale_factor=0.5), (8, 6, 6), 0.75),
        (nn.Upsample(scale_factor=0.5, mode="bilinear"), (8, 8, 6), 0.75),
        (nn.Upsample(scale_factor=2), (8, 6, 6), None),
        (nn.FractionalMaxPool2d(2, output_size=3), (8, 6, 6), 0.75),
    ],
)
def test_downsamplings_discard_what_they_do_not_read_or_have_no_room_for(layer, shape, discards):
    assert share(layer, *shape) == (None if discards is None else pytest.approx(discards))


class Summed(nn.Module):
    """A sum where others take a mean."""

    def forward(self, images):
        return images.sum((2, 3))


def test_a_sum_over_all_positions_discards_what_a_mean_does():
    assert share(Summed(), 8, 5, 5) == pytest.approx(0.96)
