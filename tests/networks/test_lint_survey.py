"""No published network has an error by the design rules: they were all trained, and work."""

from pathlib import Path

import pytest

from convsmith.networks.lint import Evidence, lint
from convsmith.pipeline.given_model import open_model

LISTED = (Path(__file__).parents[2] / "benchmarks" / "analysis_networks.txt").read_text().splitlines()[1:]
NAMES = [name.replace("torchvision ", "torchvision/") for name in LISTED]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_published_network_has_no_error(name: str):
    given = open_model(name)
    errors = [finding for finding in lint(Evidence(given.model, given.shape)) if finding.severity == "error"]
    assert errors == []


def test_the_survey_takes_all_of_torchvision_and_a_hundred_of_timm():
    import torchvision

    all_of_it = torchvision.models.list_models(module=torchvision.models)
    assert {f"torchvision/{name}" for name in all_of_it} <= set(NAMES)
    assert len(NAMES) - len(all_of_it) >= 100
