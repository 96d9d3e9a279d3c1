"""Designs as files: what is read, which line is blamed for what is wrong, and what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from convsmith.design import BlurPool, Stage, Stem, doubling, leaves, parse, read, read_text, tree, write
from convsmith.errors import UsageError
from convsmith.recipe import Recipe

GOOD = """
# a comment
stem: {kind: deep, width: 24, stride: 2, pool: max}
stages:
  - {block: bottleneck, width: 64, depth: 2}
  - block: residual
    width: 96
    stride: 2
    downsample: blur
    options:
      kernel: 5
      attention: eca
head: {kind: both, hidden: [32], dropout: 1e-1}
"""

OF_A_RUN = """
network:
  stem: {width: 8, kernel: 5, stride: 1}
  stages:
  - block: residual
    width: 8
    depth: 2
    stride: 1
    downsample: stride
    options: {shortcut: pool}
  - block: plain
    width: 16
    depth: 1
    stride: 2
    downsample: max
    options: {kernel: 5}
  head:
    kind: flatten
    grid: 4
    hidden: [12]
    dropout: 0.1
  norm: group
  activation: relu
  zero_gamma: false
"""
"""What version 0.2 wrote into a run's recipe.yaml."""


def refused(text: str, tmp_path: Path) -> UsageError:
    file = tmp_path / "net.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}")
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def test_a_file_is_read_as_people_write_it(tmp_path: Path):
    file = tmp_path / "net.yaml"
    file.write_text(GOOD)
    network = read(file)
    assert network.describe() == (
        "3 x conv3x3 24 /2, max pooling /2, 2 x bottleneck 64, residual 96 attention=eca kernel=5 /2 by blur pooling, "
        "average and max, linear 32, dropout 0.1, linear (batch norm, relu)"
    )
    assert network.stride == 8
    assert sum(isinstance(leaf, BlurPool) for leaf in leaves(tree(network, 3, 10))) == 1


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        (("width: 24", "width: 0"), 3, "stem.width: Input should be greater than or equal to 1 (given: 0)"),
        (("pool: max", "pol: max"), 3, "stem.pol: there is no such key here"),
        (("stride: 2, pool", "stride: 2, kernel: 4, pool"), 3, "stem: kernel 4 is even"),
        (("bottleneck", "botleneck"), 5, "stages.0: There is no block named 'botleneck'. Did you mean bottleneck?"),
        (("width: 96", "width: wide"), 7, "stages.1.width: Input should be a valid integer"),
        (("downsample: blur", "downsample: wavelet"), 9, "stages.1.downsample: Input should be 'stride'"),
        (
            ("attention: eca", "attention: eac"),
            12,
            "stages.1.options.attention: block 'residual': Input should be 'none'",
        ),
        (("kernel: 5", "kernel: 99"), 11, "stages.1.options.kernel: block 'residual': Input should be less than"),
        (("kernel: 5", "kernel: 4"), 10, "stages.1.options: block 'residual': an even kernel (4)"),
        (("kernel: 5", "attention: cbam"), 12, "the key 'attention' is there a second time"),
        (("attention: eca", "atention: eca"), 6, "stages.1: block 'residual' has no option 'atention'. Did you mean"),
        (("hidden: [32]", "hidden: [32, none]"), 13, "head.hidden.1: Input should be a valid integer"),
        (("kind: both", "kind: mean"), 13, "head: Input tag 'mean'"),
        (("head:", "haed:"), 13, "haed: there is no such key here"),
        (("stages:", "stage:"), 4, "stage: there is no such key here"),
        (("kernel: 5", "kernel: *five"), 11, "the alias *five is not allowed"),
        (("kernel: 5", "kernel: !!python/name:os.system"), 11, "python/name:os.system is not allowed"),
        (("kernel: 5", "kernel: [5"), 12, "not plain YAML"),
    ],
)
def test_what_is_wrong_is_blamed_on_its_line_and_key(change: tuple[str, str], line: int, says: str, tmp_path: Path):
    error = refused(GOOD.replace(*change), tmp_path)
    assert f"line {line}" in str(error)
    assert says in str(error)


def test_every_fault_of_a_file_is_named(tmp_path: Path):
    error = str(refused(GOOD.replace("24", "0").replace("96", "x"), tmp_path))
    assert "line 3, stem.width" in error
    assert "line 7, stages.1.width" in error


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "is empty"), ("- 3", "is a list"), ("a: 2024-13-45", "not plain YAML"), ("[" * 1000, "not plain YAML")],
)
def test_what_is_no_mapping_is_refused(text: str, says: str, tmp_path: Path):
    assert says in str(refused(text, tmp_path))


def test_a_missing_key_is_named_with_the_line_of_what_lacks_it(tmp_path: Path):
    assert "line 2, stages: Field required" in str(refused("\nstem: {width: 8}\n", tmp_path))


def test_files_that_are_absent_no_text_or_huge_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"absent\.yaml cannot be read: No such file"):
        read(tmp_path / "absent.yaml")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read(tmp_path)
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UsageError, match="no text in UTF-8"):
        read(tmp_path / "picture.yaml")
    (tmp_path / "huge.yaml").write_text("#" * 1_000_001)
    with pytest.raises(UsageError, match=r"1,000,001 bytes; a design has at most 1,000,000"):
        read(tmp_path / "huge.yaml")


def test_what_goes_without_saying_is_not_written():
    network = doubling(width=16, depth=2, stages=2, head={"kind": "class-maps"})
    assert write(network) == (
        "stem: {width: 16}\n"
        "stages:\n"
        "  - {width: 16, depth: 2}\n"
        "  - {width: 32, depth: 2, stride: 2}\n"
        "head: {kind: class-maps}\n"
    )


def test_a_design_that_an_older_run_stored_is_read_unchanged():
    network = Recipe.from_yaml(OF_A_RUN).network
    assert network is not None
    assert network.stem == Stem(width=8, kernel=5, stride=1)
    assert network.stages[0] == Stage(block="residual", width=8, depth=2, options=(("shortcut", "pool"),))
    assert network.describe() == (
        "conv5x5 8, 2 x residual 8 shortcut=pool, plain 16 kernel=5 /2 by max pooling, flatten 4x4, linear 12, "
        "dropout 0.1, linear (group norm, relu)"
    )
    again = Recipe.from_yaml(Recipe(network=network).to_yaml())
    assert again.network == network == read_text(write(network)) == parse(network.model_dump(mode="json"))
