"""Would more images help: the three answers, each from the pairs, and what is said of them."""

import numpy as np
import pytest
from made_predictions import answers

from convsmith.errors import DataError
from convsmith.evaluation import judge, paired_gain, wilson


def curve(n, rights):
    """Points at 1/8, 1/4, 1/2 and 1 of 400 images, of which so many of n test images are right."""
    points = [{"share": share, "images": round(400 * share)} for share in (1 / 8, 1 / 4, 1 / 2, 1.0)]
    return points, [answers(np.arange(n) < right) for right in rights]


def test_a_gain_that_is_surely_above_zero_is_rising():
    points, answered = curve(200, (120, 140, 160, 180))
    says, rising = judge(points, answered)
    gain = paired_gain(answered[3], answered[2])
    assert rising is True
    assert says.startswith("More images would probably help: from 200 to all 400 training images")
    assert "rose by 10.0 points" in says
    assert f"interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f} on 200 test images" in says
    assert "the linear probe alone was measured" in says


def test_a_gain_that_is_surely_small_is_flat():
    says, rising = judge(*curve(2000, (1800, 1850, 1898, 1900)), probe="head on frozen features")
    assert rising is False
    assert "hardly help" in says
    assert "the head on frozen features alone was measured" in says
    assert judge(*curve(500, (450, 450, 450, 430)))[1] is False
    assert "fell by 4.0 points" in judge(*curve(500, (450, 450, 450, 430)))[0]


def test_few_test_images_tell_nothing():
    says, rising = judge(*curve(30, (20, 22, 24, 25)))
    assert rising is None
    assert "cannot be told with 30 test images" in says


def test_the_edges_are_those_stated():
    """With nothing gained the interval ends at 3.84 / (n + 3.84), below 0.015 from n = 253 on."""
    assert judge(*curve(252, (200, 200, 200, 200)))[1] is None
    assert judge(*curve(253, (200, 200, 200, 200)))[1] is False
    assert judge(*curve(100, (50, 50, 50, 53)))[1] is None  # 3 : 0 is not significant, 4 : 0 is
    assert judge(*curve(100, (50, 50, 50, 54)))[1] is True


def test_pairs_decide_and_not_the_overlap_of_intervals():
    low, high = wilson(56, 100).low, wilson(50, 100).high
    assert low < high
    assert judge(*curve(100, (50, 50, 50, 56)))[1] is True


def test_without_images_or_with_one_group_it_cannot_be_told():
    assert judge(*curve(0, (0, 0, 0, 0)))[1] is None
    assert judge(*curve(300, (100, 150, 200, 290)), groups=["one patient"] * 300)[1] is None


def test_the_order_of_the_points_does_not_matter():
    points, answered = curve(200, (120, 140, 160, 180))
    assert judge(points[::-1], answered[::-1]) == judge(points, answered)


def test_a_curve_without_its_last_doubling_is_refused():
    points, answered = curve(50, (20, 30, 40, 45))
    with pytest.raises(DataError, match=r"share 0.5, but there are: 0.125, 0.25, 1"):
        judge([points[0], points[1], points[3]], [answered[0], answered[1], answered[3]])
    with pytest.raises(DataError, match="48 and 50 images"):
        judge(points[2:], [answered[2], answers(np.ones(48, bool))])
