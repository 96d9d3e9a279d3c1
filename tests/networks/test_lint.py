"""Design rules find the fault they are about, are silent on its healthy twin, and say figures that are right."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from convsmith.errors import UsageError
from convsmith.networks.lint import RULES, Evidence, Example, lint

ROOT = Path(__file__).parents[2]
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))


def found(model, shape=(3, 64, 64), **options):
    """What lint says of a network built without values, by rule."""
    if isinstance(model, str):
        evidence = Example(model, shape=shape, **options).evidence()
    else:
        evidence = Evidence(model, shape, **options)
    return {finding.rule: finding for finding in lint(evidence)}


@every_rule
def test_a_rule_finds_its_broken_example_and_is_silent_on_the_healthy_twin(rule):
    finding = rule.judge(rule.broken.evidence())
    assert finding is not None
    assert finding.rule == rule.id
    assert finding.severity in {"error", "warning", "hint"}
    assert finding.source == rule.source
    assert finding.says.endswith(".")
    assert rule.judge(rule.healthy.evidence()) is None


@every_rule
def test_a_healthy_twin_has_no_error_at_all(rule):
    assert [finding for finding in lint(rule.healthy.evidence()) if finding.severity == "error"] == []


@every_rule
def test_a_rule_that_is_switched_off_says_nothing(rule):
    assert rule.id not in {finding.rule for finding in lint(rule.broken.evidence(), off=[rule.id])}


def test_a_rule_that_does_not_exist_cannot_be_switched_off():
    with pytest.raises(UsageError, match="no design rule 'softmax-before-los'") as error:
        lint(Example("conv 4 | relu").evidence(), off=["softmax-before-los"])
    assert "softmax-before-loss" in str(error.value.mend)


def test_errors_come_before_warnings_and_hints():
    line = "conv 15 k4 | bn | conv 32 k5 | relu | gap | flatten | linear 10 | softmax"
    severities = [finding.severity for finding in lint(Example(line, shape=(3, 64, 64)).evidence())]
    assert severities == sorted(severities, key=["error", "warning", "hint"].index)
    assert severities[0] == "error"


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vgg11_bn", "convnext_tiny", "squeezenet1_0"])
def test_networks_that_are_known_to_work_have_no_error(name):
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    findings = found(model, (3, 224, 224))
    assert "error" not in {finding.severity for finding in findings.values()}
    if name == "resnet18":  # its shortcuts skip three positions of four, beside branches that read all
        assert findings["unread-positions"].severity == "hint"
        assert findings["unread-positions"].evidence["unread"] == 0.75
        assert len(findings["unread-positions"].where) == 3


def test_the_first_linear_layer_of_the_textbook_network_holds_97_percent():
    convolutions = "conv 3->16 k3 p1 | relu | maxpool 2 | conv 32 k3 p1 | relu | maxpool 2"
    line = f"{convolutions} | flatten | linear 128 | relu | linear 10"
    finding = found(line, (3, 32, 32))["linear-holds-most"]
    assert finding.evidence["parameters"] == 2_048 * 128
    assert finding.evidence["share"] == pytest.approx(0.9758, abs=1e-4)


def test_biases_that_do_nothing_are_counted_and_useful_ones_are_not():
    finding = found("conv 16 k3 | bn | relu | conv 24 k3 | bn | relu | conv 8 k3 | relu | gap | flatten | linear 10")
    assert finding["bias-before-norm"].evidence["parameters"] == 16 + 24
    assert finding["bias-before-norm"].where == ("conv1", "conv2")


class Gated(nn.Module):
    """Squeeze-and-excitation: a sigmoid that is a gate, a product of data, and a 1x1 after another."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.reduce, self.expand = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, images):
        maps = self.norm(self.conv(images)).relu()
        gate = self.expand(self.reduce(maps.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head((maps * gate).mean((2, 3)))


def test_a_gate_is_no_saturating_activation_and_no_small_map():
    assert set(found(Gated())) <= {"field-too-small", "uneven-padding"}


def test_instance_norm_and_weights_that_are_standardised_do_not_depend_on_the_batch():
    assert "batch-statistics-at-inference" not in found("conv 16 k3 nobias | in | relu | gap | flatten | linear 10")

    class Standardised(nn.Conv2d):
        def forward(self, images):
            weight = nn.functional.batch_norm(self.weight.flatten(1)[None], None, None, training=True)
            return nn.functional.conv2d(images, weight.view_as(self.weight), self.bias)

    model = nn.Sequential(Standardised(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    assert "batch-statistics-at-inference" not in found(model)


def test_stochastic_depth_is_no_dropout_before_a_norm():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)

        def forward(self, images):
            return self.norm(images + torchvision.ops.stochastic_depth(self.conv(images), 0.5, "row", self.training))

    assert "dropout-before-norm" not in found(Block())


def test_a_softmax_over_the_batch_is_found_and_one_over_classes_or_positions_is_not():
    class Attention(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.conv, self.head, self.dim = nn.Conv2d(3, 8, 3), nn.Linear(8, 10), dim

        def forward(self, images):
            maps = self.conv(images).flatten(2)
            return self.head((maps * maps.softmax(self.dim)).sum(2))

    assert "mixed-batch" in found(Attention(0))
    assert "mixed-batch" not in found(Attention(2))


def test_a_factorisation_is_no_linear_chain():
    assert "linear-chain" not in found(
        "conv 64 k3 p1 | relu | conv 8 k1 | conv 64 k3 p1 | relu | gap | flatten | linear 10"
    )


@pytest.mark.parametrize("between", ["", "bn | "])
def test_two_kernels_that_look_around_are_a_chain_wherever_they_stand(between):
    line = f"conv 64 k3 p1 | relu | conv 64 k3 p1 | {between}conv 64 k3 p1 | relu | gap | flatten | linear 10"
    assert found(line)["linear-chain"].where == ("conv2 and conv3",)


def test_kernels_across_each_other_and_narrow_ones_between_are_no_chain():
    def chained(*layers):
        model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), *layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        return "linear-chain" in found(model)

    assert not chained(nn.Conv2d(64, 64, (1, 3)), nn.Conv2d(64, 64, (3, 1)))
    assert not chained(nn.Conv2d(64, 64, 3, groups=64), nn.Conv2d(64, 128, 1))
    assert not chained(nn.Conv2d(64, 16, 3), nn.Conv2d(16, 64, 3))
    assert not chained(nn.Conv2d(64, 16, 1), nn.BatchNorm2d(16), nn.Conv2d(16, 96, 1))
    assert not chained(nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64), nn.Conv2d(64, 96, 1))  # as in MobileNet v3
    assert chained(nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 1))


class Ending(nn.Module):
    """A network whose last steps a test gives; they get the maps and the logits."""

    def __init__(self, end, norm: type[nn.Module] = nn.BatchNorm2d):
        super().__init__()
        self.conv, self.norm, self.head, self.end = nn.Conv2d(3, 32, 3), norm(32), nn.Linear(32, 10), end

    def forward(self, images):
        maps = self.norm(self.conv(images)).relu()
        return self.end(self, maps, self.head(maps.mean((2, 3))))


def test_instance_norm_is_no_batch_norm():
    findings = found(Ending(lambda _, maps, logits: logits, nn.InstanceNorm2d), batch=2)
    assert "tiny-batch" not in findings
    assert "the instance norm behind" in findings["bias-before-norm"].says
    dropping = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(0.1), nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8), nn.ReLU())
    assert "dropout-before-norm" not in found(dropping)


@pytest.mark.parametrize(
    "end",
    [
        lambda model, maps, logits: logits if model.training else logits.softmax(1),
        lambda model, maps, logits: (logits, maps.sum(1).flatten(1).softmax(1)),
        lambda model, maps, logits: (maps.sum(1).flatten(1).softmax(1), logits),
        lambda model, maps, logits: (logits.logsumexp(1).mean(), logits),
        lambda model, maps, logits: model.head(maps.mean(2).permute(2, 0, 1)),
        lambda model, maps, logits: logits.mean(),
    ],
)  # fmt: skip
def test_right_outputs_have_no_error(end):
    assert "error" not in {finding.severity for finding in found(Ending(end), classes=10).values()}


def test_means_over_the_batch_mix_images_and_others_do_not():
    assert "mixed-batch" in found(Ending(lambda model, maps, logits: model.head(maps.mean(0).mean((1, 2))[None])))
    assert "mixed-batch" in found(Ending(lambda model, maps, _: model.head(maps.mean((2, 3)) - maps.mean((0, 2, 3)))))
    assert "mixed-batch" not in found(
        Ending(lambda model, maps, _: model.head(maps.flatten(2).permute(2, 0, 1).mean(0)))
    )
    assert "mixed-batch" not in found(Ending(lambda model, maps, logits: (logits, logits.mean(0))))


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (nn.ReLU6(), True), (nn.Hardtanh(), True), (nn.Softplus(), True), (nn.SELU(), True), (nn.Hardsigmoid(), True),
        (nn.Hardtanh(-20, 20), False), (nn.Identity(), False),
    ],
)  # fmt: skip
def test_activations_on_the_logits(last, said):
    assert ("activation-on-logits" in found(Ending(lambda _, maps, logits: last(logits)))) == said


@pytest.mark.parametrize(
    ("bounds", "said"), [((0, 6), True), ((0, None), True), ((-1, 1), True), ((-30, None), False), ((-9, 9), False)]
)
def test_bounds_on_the_logits(bounds, said):
    assert ("activation-on-logits" in found(Ending(lambda _, maps, logits: logits.clamp(*bounds)))) == said


def test_parameters_that_are_cut_off_are_counted_and_those_that_are_frozen_are_meant_so():
    cut = found(Ending(lambda model, maps, logits: model.head(maps.detach().mean((2, 3)))))["no-gradient"]
    assert cut.where == ("conv.weight", "conv.bias", "norm.weight", "norm.bias")
    assert cut.evidence["parameters"] == 3 * 32 * 9 + 3 * 32
    model = Ending(lambda model, maps, logits: model.head(maps.detach().mean((2, 3))))
    model.conv.requires_grad_(False)
    model.norm.requires_grad_(False)
    assert "no-gradient" not in found(model)
    with torch.no_grad(), torch.inference_mode():
        assert "no-gradient" not in found(Ending(lambda model, maps, logits: logits))
    assert "All 1,290 parameters are frozen" in found(model.requires_grad_(False))["no-gradient"].says


class Squared(nn.Module):
    def forward(self, maps):
        return maps * maps


def test_a_network_that_is_not_linear_or_has_one_layer_lacks_no_activation():
    assert "no-activation" not in found("flatten | linear 10")
    assert "no-activation" not in found("conv 8 k3 | maxpool 2 | gap | flatten | linear 10")
    square = nn.Sequential(nn.Conv2d(3, 32, 3), Squared(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    assert "no-activation" not in found(square)
    assert "no-activation" in found(nn.Sequential(*square[:1], *square[2:]))


@pytest.mark.parametrize(
    ("pool", "unread"), [(nn.MaxPool2d(1, 2), 0.75), (nn.AvgPool2d(2, 4), 0.75), (nn.MaxPool2d(3, 2), 0)]
)
def test_poolings_that_skip_positions(pool, unread):
    findings = found(nn.Sequential(nn.Conv2d(3, 8, 3), pool, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    assert (findings["unread-positions"].evidence["unread"] if "unread-positions" in findings else 0) == unread


@pytest.mark.parametrize(("batch", "severity"), [(2, "error"), (7, "warning"), (8, None), (None, None)])
def test_batch_norm_is_judged_by_the_images_of_a_step(batch, severity):
    findings = found("conv 8 k3 nobias | bn | relu | gap | flatten | linear 10", batch=batch)
    assert (findings["tiny-batch"].severity if "tiny-batch" in findings else None) == severity


def test_the_pages_of_the_rules_are_those_that_the_rules_make():
    spec = importlib.util.spec_from_file_location("rule_pages", ROOT / "docs" / "rules.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = ROOT / "docs" / "rules"
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")} == script.pages(), (
        "run: python docs/rules.py"
    )
