"""The sum of a window: its result is PyTorch's, what it says is unread is unread, and what would fit fits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from convsmith.networks.lines.sizes import Window, explain, explain_sides, least_size, nearest, padding_for

windows = st.builds(
    Window,
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
)


@settings(deadline=None, max_examples=60)
@given(windows, st.integers(1, 40))
def test_a_convolution_leaves_what_pytorch_leaves(window: Window, size: int):
    assume(window.after(size) > 0)
    kernel = torch.zeros(1, 1, 1, window.kernel)
    made = F.conv2d(torch.zeros(1, 1, 1, size), kernel, None, (1, window.stride), (0, window.padding),
                    (1, window.dilation))  # fmt: skip
    assert window.after(size) == made.shape[-1]


@settings(deadline=None, max_examples=60)
@given(windows, st.integers(1, 40), st.booleans())
def test_a_pooling_leaves_what_pytorch_leaves_rounded_up_or_down(window: Window, size: int, ceil: bool):
    pool = Window(
        window.kernel, window.stride, min(window.padding, window.kernel // 2), window.dilation, "pooling", ceil
    )
    assume(size + 2 * pool.padding >= pool.span)
    made = F.max_pool1d(torch.zeros(1, 1, size), pool.kernel, pool.stride, pool.padding, pool.dilation, ceil_mode=ceil)
    assert pool.after(size) == made.shape[-1]


@settings(deadline=None, max_examples=40)
@given(windows, st.integers(1, 12), st.integers(0, 1))
def test_a_transposed_convolution_leaves_what_pytorch_leaves(window: Window, size: int, extra: int):
    turned = Window(window.kernel, window.stride, window.padding, window.dilation, "transposed", extra=extra)
    assume(extra < max(window.stride, window.dilation) and turned.after(size) > 0)
    made = F.conv_transpose1d(torch.zeros(1, 1, size), torch.zeros(1, 1, window.kernel), None, window.stride,
                              window.padding, extra, 1, window.dilation)  # fmt: skip
    assert turned.after(size) == made.shape[-1]


@settings(deadline=None, max_examples=60)
@given(windows, st.integers(1, 40))
def test_what_is_said_to_be_unread_has_no_gradient(window: Window, size: int):
    assume(window.after(size) > 0)
    image = torch.zeros(1, 1, size, requires_grad=True)
    made = F.conv1d(image, torch.ones(1, 1, window.kernel), None, window.stride, window.padding, window.dilation)
    made.sum().backward()
    assert image.grad is not None
    unread = (image.grad[0, 0] == 0).tolist()
    left, gaps = window.unread(size)
    assert all(unread[size - left :])
    read_in_a_period = {place for place, missed in enumerate(unread) if not missed}
    if gaps and size > 4 * window.span + 4 * window.stride:  # in the middle every period looks alike
        middle = range(2 * window.span, 2 * window.span + window.stride)
        assert sum(place not in read_in_a_period for place in middle) == gaps
    if not gaps and window.dilation == 1:
        assert not any(unread[: size - left])


@pytest.mark.parametrize(
    ("window", "size", "left"),
    [
        (Window(3), 28, 26),
        (Window(2, 2, kind="pooling"), 26, 13),
        (Window(3), 32, 30),
        (Window(2, 2, kind="pooling"), 30, 15),
        (Window(3, 2), 32, 15),
        (Window(7, 2, 3), 224, 112),
    ],
)
def test_the_sizes_that_every_textbook_has(window: Window, size: int, left: int):
    assert window.after(size) == left
    assert Window(3, dilation=2).span == 5


def test_the_sum_is_written_out_with_what_it_loses():
    assert explain(Window(7, 2, 3), 224) == (
        "(224 + 2*3 - 1*(7-1) - 1)/2 + 1 = 112.5, rounded down to 112: the last row of the padding is not read"
    )
    assert explain(Window(3, 2), 32).endswith("= 15.5, rounded down to 15: the last row is not read")
    assert explain(Window(2, 2, kind="pooling", ceil=True), 27).endswith("= 13.5, rounded up to 14")
    assert explain(Window(1, 2), 56).endswith("of every 2 rows, 1 is passed over")
    assert explain(Window(4, 2, 1, kind="transposed"), 7) == "(7 - 1)*2 - 2*1 + 1*(4-1) + 0 + 1 = 14"
    assert explain(Window(7), 4).endswith("a window that spans 7 does not fit in 4")


def test_rows_and_columns_are_told_apart_only_where_they_differ():
    alike = explain_sides((Window(3, 2), Window(3, 2)), (32, 32))
    assert alike.endswith("the last row and column are not read")
    assert explain_sides((Window(3), Window(5)), (20, 20)) == (
        "rows (20 + 2*0 - 1*(3-1) - 1)/1 + 1 = 18; columns (20 + 2*0 - 1*(5-1) - 1)/1 + 1 = 16"
    )


@given(windows, st.integers(1, 60))
def test_what_is_proposed_fits(window: Window, size: int):
    assert window.after(least_size(window)) >= 1
    wanted = max(1, window.after(size) + 1)
    padding = padding_for(window, size, wanted)
    if padding is not None:
        assert Window(window.kernel, window.stride, padding, window.dilation).after(size) == wanted


def test_of_two_sizes_equally_near_the_larger_is_proposed():
    assert nearest([28, 32, 64], 30) == 32
    assert nearest([], 30) is None
