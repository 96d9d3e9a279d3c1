"""`convsmith lint`: what it prints, its code, its page, and what it refuses."""

from pathlib import Path

import pytest
from pictures_made import class_folder
from torch import nn
from typed import typed

import convsmith
from convsmith.networks.lint import RULES

GOOD = "conv 16 k5 s2 p2 nobias | bn | relu | conv 32 k7 s2 p3 nobias | bn | relu | gap | flatten | linear 8"
BAD = f"{GOOD} | softmax"


def test_a_faulty_design_ends_with_code_6_and_says_fault_rule_mend_and_what_to_type():
    done = typed("lint", BAD, "--input", 33)
    assert done.code == 6
    assert "error  The network ends in a softmax (softmax1).  (softmax-before-loss)" in done.out
    assert RULES["softmax-before-loss"].mend in done.out
    assert "would not do what it is for: 1 error and 1 hint." in done.out
    assert "Next: convsmith inspect" in done.err


def test_hints_alone_are_no_failure_and_a_rule_can_be_switched_off():
    done = typed("lint", GOOD, "--input", 33)
    assert done.code == 0
    assert "No error; 1 hint." in done.out
    done = typed("lint", GOOD, "--input", 33, "--off", "large-kernel")
    assert (done.code, f"None of {len(RULES)} rules finds anything." in done.out) == (0, True)


def test_json_holds_the_findings_with_figures_source_and_mend():
    done = typed("lint", BAD, "--input", 33, "--json")
    assert done.code == 6
    assert done.json["input"] == [3, 33, 33]
    first = done.json["findings"][0]
    assert (first["rule"], first["severity"], first["where"]) == ("softmax-before-loss", "error", ["softmax1"])
    assert first["evidence"]["mend"] == RULES["softmax-before-loss"].mend


def test_with_data_its_classes_and_sizes_are_judged(tmp_path: Path):
    photos = class_folder(tmp_path / "photos", each=4)
    done = typed("lint", GOOD, "--input", 160, "--data", photos, "--batch", 2, "--json")
    rules = {finding["rule"]: finding for finding in done.json["findings"]}
    assert done.json["classes"] == len(list(photos.iterdir()))
    assert rules["outputs-and-classes"]["evidence"] == {
        "outputs": 8, "classes": done.json["classes"], "mend": RULES["outputs-and-classes"].mend,
    }  # fmt: skip
    assert rules["tiny-batch"]["severity"] == "error"
    assert rules["enlarged-images"]["evidence"]["shown"] == 160


def test_a_name_is_judged_with_a_head_for_the_classes_of_the_data(tmp_path: Path):
    photos = class_folder(tmp_path / "photos", each=4)
    done = typed("lint", "convnet-small", "--data", photos, "--input", 28, "--json")
    assert "outputs-and-classes" not in {finding["rule"] for finding in done.json["findings"]}
    assert done.err.strip() == "" or "convsmith train" in done.err


def test_a_page_is_written_whose_names_are_escaped(tmp_path: Path):
    code = tmp_path / "mine.py"
    code.write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self, in_channels, outputs):\n"
        "        super().__init__()\n        self.add_module('<script>', nn.Conv2d(in_channels, 8, 3))\n"
        "        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, outputs)\n\n"
        "    def forward(self, x):\n        maps = self.norm(getattr(self, '<script>')(x))\n"
        "        return self.head(maps.mean((2, 3))).softmax(1)\n"
    )
    page = tmp_path / "lint.html"
    done = typed("lint", f"{code}:Net", "--input", 32, "--html", page)
    assert done.code == 6
    text = page.read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "softmax-before-loss" in text
    assert "This network would not do what it is for" in text


def test_the_rules_are_listed_with_their_severity():
    done = typed("lint", "--list", "--json")
    assert [rule["id"] for rule in done.json if rule["severity"] == "error"] == [
        rule.id for rule in RULES.values() if rule.severity == "error"
    ]
    assert len(typed("lint", "--list").out.splitlines()) == len(RULES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lint",), "needs a MODEL"),
        (("lint", GOOD, "--off", "softmax"), "no design rule 'softmax'"),
        (("lint", "resnet5000"), "resnet5000"),
        (("lint", GOOD, "--open"), "--open opens the page"),
        (("lint", "conv 16 k3 | linear 10", "--input", "x"), "no shape of an image"),
        (("lint", GOOD, "--data", "nowhere"), "nowhere"),
    ],
)
def test_a_wrong_call_is_refused_in_a_line_or_two(words: tuple[str, ...], message: str):
    done = typed(*words)
    assert done.code in {2, 3}
    assert message in done.err
    assert "Traceback" not in done.err


def test_from_python_a_line_a_network_and_a_function_are_judged_alike():
    line = "conv 3->16 k5 s2 p2 | gap | flatten | linear 8 | softmax"
    rules = [finding.rule for finding in convsmith.lint(line, input_shape=33)]
    assert rules[0] == "softmax-before-loss"
    network = nn.Sequential(
        nn.Conv2d(3, 16, 5, 2, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 8), nn.Softmax(1)
    )
    assert [finding.rule for finding in convsmith.lint(network, input_shape=(3, 33, 33))] == rules
    assert [finding.rule for finding in convsmith.lint(lambda channels, outputs: network, input_shape=33)] == rules
    with pytest.raises(convsmith.ConvsmithError, match="no design rule"):
        convsmith.lint(line, input_shape=33, off=["nothing"])
