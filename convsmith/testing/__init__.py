"""Conformance suites: what holds for everything in a table, to be run on what you put beside it.

Each suite is a tuple of checks, plain functions of one case, which raise `NotConforming` with what they saw. They need
no test runner; under pytest:

    from convsmith.testing import LAYER_CHECKS, LayerCase

    @pytest.mark.parametrize("check", LAYER_CHECKS, ids=lambda check: check.__name__)
    def test_my_layer(check):
        check(LayerCase(lambda: MyLayer(8), shape=(8, 12, 12), output=(8, 6, 6), parameters=584))
"""

from convsmith.testing.layers import LAYER_CHECKS, LayerCase, NotConforming

__all__ = ["LAYER_CHECKS", "LayerCase", "NotConforming"]
