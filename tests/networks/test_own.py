"""The user's own network: what is passed to it, what is refused and with which words, and what is left behind."""

import copy
import pickle
import sys

import pytest
import torch
from torch import nn

from convsmith.errors import UsageError
from convsmith.networks import check_output, code_sha256, load_own, parse_arguments

NET = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass
class Size:
    width: int

class Net(nn.Module):
    def __init__(self, in_channels, outputs, width=8):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, Size(width).width, 3)
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def hungry(width, *, outputs):
    return nn.Linear(width, outputs)

def text():
    return "a network"

ready = fixed()
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def load(path, name, **options):
    return load_own(path, name, options, in_channels=1, outputs=10)


def refused(path, name="Net", **options) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(path, name, **options)
    assert caught.value.mend
    return caught.value


def test_a_class_gets_what_its_signature_names(file):
    model = load(file, "Net", width=12)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert model.get_parameter("conv.weight").shape == (12, 1, 3, 3)


def test_a_function_that_names_neither_gets_neither(file):
    assert load(file, "fixed")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_an_option_wins_over_what_is_passed(file):
    assert load(file, "Net", outputs=3)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_the_hash_is_checked_before_any_code_runs(file):
    load_own(file, "Net", {}, in_channels=1, outputs=10, expected_sha256=code_sha256(file))
    expected = code_sha256(file)
    trace = file.parent / "ran"
    file.write_text(NET + f"\nopen({str(trace)!r}, 'w')")
    with pytest.raises(UsageError, match=r"net\.py has changed") as caught:
        load_own(file, "Net", {}, in_channels=1, outputs=10, expected_sha256=expected)
    assert expected[:12] in caught.value.message
    assert not trace.exists()


def test_a_missing_file_suggests_its_neighbour(file):
    error = refused(file.parent / "nets.py")
    assert "nets.py cannot be read" in error.message
    assert error.mend == "Did you mean net.py?"


def test_a_missing_name_suggests_the_close_one(file):
    error = refused(file, "net")
    assert error.message == "net.py has nothing named 'net'."
    assert "Did you mean Net?" in error.mend


@pytest.mark.parametrize(
    ("name", "options", "says", "mend"),
    [
        ("Net", {"widht": 3}, "Net takes no argument 'widht'", "Did you mean width?"),
        ("hungry", {}, "hungry needs width", "--arg width=VALUE"),
        ("text", {}, "text in net.py returned str, not a torch.nn.Module", "return model"),
        ("ready", {}, "is Sequential already made", "fresh weights"),
        ("Net", {"width": "wide"}, "net.py failed while building Net: TypeError", "--debug"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_mend(file, name, options, says, mend):
    error = refused(file, name, **options)
    assert says in error.message
    assert mend in error.mend


def test_an_error_on_import_shows_the_users_own_line(file):
    file.write_text("import math\n\ndef depth():\n    return math.sqrt(-1)\n\nDEPTH = depth()\n")
    error = refused(file)
    assert "failed while importing it: ValueError" in error.message
    assert "net.py:4: return math.sqrt(-1)" in error.message


def test_an_error_while_building_shows_the_users_own_line(file):
    file.write_text("from torch import nn\ndef Net():\n    return nn.Conv2d(3, 8, 'big')\n")
    assert "net.py:3: return nn.Conv2d(3, 8, 'big')" in refused(file).message


def test_a_syntax_error_shows_the_line(file):
    file.write_text("x = 1\nclass Net(:\n")
    error = refused(file)
    assert "not valid Python" in error.message
    assert "net.py:2: class Net(:" in error.message


def test_leaving_python_on_import_is_an_error_like_any_other(file):
    file.write_text("raise SystemExit(0)")
    assert "SystemExit" in refused(file).message


def test_modules_beside_the_file_are_found_and_do_not_meet(tmp_path):
    for folder, width in (("one", 3), ("two", 5)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my_layers.py").write_text(f"WIDTH = {width}\n")
        (tmp_path / folder / "net.py").write_text(
            "from torch import nn\nfrom my_layers import WIDTH\ndef net():\n    return nn.Linear(WIDTH, 2)\n"
        )
    path, before = list(sys.path), set(sys.modules)
    widths = [load(tmp_path / folder / "net.py", "net").get_parameter("weight").shape[1] for folder in ("one", "two")]
    assert widths == [3, 5]
    assert sys.path == path
    assert all(name.startswith("convsmith_own_") for name in set(sys.modules) - before)


def test_a_module_that_is_not_there_says_where_it_would_be_looked_for(file):
    file.write_text("import no_such_layers\n")
    error = refused(file)
    assert "no_such_layers.py beside net.py" in error.mend
    assert not any(
        "convsmith_own" in name and sys.modules[name].__dict__.get("__file__") == str(file) for name in sys.modules
    )


def test_arguments_are_yaml_scalars():
    given = [
        "width=32",
        "rate=1e-3",
        "wide=true",
        "name=a b",
        "none=null",
        "sizes=[1, 2]",
        "half=.5",
        "text='7'",
        "empty=",
    ]
    assert parse_arguments(given) == {
        "width": 32,
        "rate": 0.001,
        "wide": True,
        "name": "a b",
        "none": None,
        "sizes": [1, 2],
        "half": 0.5,
        "text": "7",
        "empty": None,
    }


@pytest.mark.parametrize(
    "pairs",
    [["width"], ["=3"], ["a-b=3"], ["a=1", "a=2"], ["a={b: 1}"], ["a=[1"], ["a=!!python/object/apply:os.getcwd []"]],
)
def test_arguments_that_cannot_be_read_are_refused(pairs):
    with pytest.raises(UsageError) as caught:
        parse_arguments(pairs)
    assert caught.value.mend


class Odd(nn.Module):
    """Returns whatever it was made with."""

    def __init__(self, result):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm2d(1)
        self.dropout = nn.Dropout()
        self.result = result

    def forward(self, x):
        self.dropout(self.norm(x))
        return self.result(x)


def checked(result):
    check_output(Odd(result), channels=1, size=8, outputs=10)


def test_one_finite_row_of_logits_for_each_image_passes():
    checked(lambda x: torch.zeros(2, 10))


@pytest.mark.parametrize(
    ("result", "says", "mend"),
    [
        (lambda x: torch.zeros(2, 9), "shape [2, 9] for 2 images, but [2, 10] was expected", "give 10 values"),
        (lambda x: torch.zeros(1, 10), "shape [1, 10]", "flatten(1)"),
        (lambda x: torch.zeros(2, 10, 4, 4), "shape [2, 10, 4, 4]", "mean(dim=(2, 3))"),
        (lambda x: torch.zeros(20), "shape [20]", "one row"),
        (lambda x: (x, x), "returned tuple", "logits alone"),
        (lambda x: torch.full((2, 10), float("nan")), "not finite", "division by zero"),
        (lambda x: x.reshape(3, 5), "images of shape [2, 1, 8, 8]: RuntimeError", "8x8"),
    ],
)
def test_any_other_output_is_refused_before_training(result, says, mend):
    with pytest.raises(UsageError) as caught:
        checked(result)
    assert says in caught.value.message
    assert mend in caught.value.mend


def test_an_error_in_forward_shows_the_users_own_line(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.head = nn.Linear(5, 10)\n    def forward(self, x):\n        return self.head(x.flatten(1))\n"
    )
    with pytest.raises(UsageError, match=r"net\.py:7: return self\.head\(x\.flatten\(1\)\)"):
        check_output(load(path, "Net"), channels=1, size=8, outputs=10)


def test_nothing_to_train_is_refused():
    with pytest.raises(UsageError, match="no parameter that can be trained"):
        check_output(nn.Flatten(), channels=1, size=8, outputs=64)


def test_checking_leaves_the_network_and_the_random_state_as_they_were():
    model = Odd(lambda x: torch.rand(2, 10)).train()
    model.dropout.eval()
    before, state = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    check_output(model, channels=1, size=8, outputs=10)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert (model.training, model.norm.training, model.dropout.training) == (True, True, False)


def test_a_lazy_network_is_given_its_shapes(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    check_output(model, channels=1, size=8, outputs=10)
    assert model.get_parameter("1.weight").shape == (10, 64)


def test_the_network_can_be_copied_and_pickled(file):
    model = load(file, "Net")
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own bytes
        assert torch.equal(twin.get_parameter("head.weight"), model.get_parameter("head.weight"))
