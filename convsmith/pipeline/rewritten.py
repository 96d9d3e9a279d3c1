"""A proposal that is no design, as a file of Python that `train --model FILE.py:network` takes."""

from __future__ import annotations

from convsmith.errors import UsageError
from convsmith.networks import size_options
from convsmith.pipeline.designing import Proposal, Proposals
from convsmith.pipeline.given_model import LINE
from convsmith.recipe import Named
from convsmith.reporting.formats import clean

IMPORTS = {
    "narrow": "convsmith.networks.rewriting.narrowing",
    "rewrite": "convsmith.networks.rewriting.savings",
    "change_output_stride": "convsmith.networks.rewriting.surgery",
    "dilate_last": "convsmith.networks.rewriting.surgery",
}
"""Where the functions are that a proposal calls."""


def statements(proposal: Proposal) -> tuple[list[str], list[str]]:
    """The imports and the lines of Python that make a proposal of `model` and `shape`."""
    names = {call.partition("(")[0] for call in proposal.calls}
    imports = sorted(f"from {IMPORTS[name]} import {name}" for name in names)
    return imports, [f"model = {call}" for call in proposal.calls]


def as_python(found: Proposals, proposal: Proposal, command: str) -> str:
    """A file with a function `network(in_channels, outputs)` that builds a proposal with fresh weights.

    Args:
        found: the proposals that it is one of.
        proposal: one that is no design.
        command: by which it was found, to be told in the file.

    Raises:
        UsageError: the network that it changes is the user's own code, which a file of ours does not call.
    """
    name, options = _named(found)
    imports, lines = statements(proposal)
    height, width = found.given.shape[1:]
    given = "".join(f", {key}={value!r}" for key, value in options.items())
    body = [
        f"shape = (in_channels, {height}, {width})",
        f"model = build_named({name!r}, in_channels, outputs{given})",
        *lines,
        "return model",
    ]
    about = f"{clean(found.given.name)}: {proposal.name} ({proposal.did}).\n\nFound by {clean(command)}"
    doc = about.replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join([
        f'"""{doc}\n"""', "",
        "from torch import nn", "", "from convsmith.networks import build_named", *imports, "", "",
        "def network(in_channels: int, outputs: int) -> nn.Module:", *(f"    {line}" for line in body), "",
    ])  # fmt: skip


def _named(found: Proposals) -> tuple[str, dict[str, object]]:
    """The name and the options by which the network that was given is built."""
    asked, side = found.given.asked, found.given.shape[1]
    name, options = found.given.name, dict(asked.options)
    if asked.kind == "line":
        return LINE, {"layers": asked.text, "side": side}
    if asked.run is not None:
        recipe = asked.run.read_recipe()
        assert isinstance(recipe.model, Named)
        name, options = recipe.model.name, dict(recipe.model.options)
    if asked.kind == "code" or name == "own":
        raise UsageError(
            f"{found.given.name} is your own code, and stays in your file.",
            mend="Put the lines that are printed at the end of the function that builds it.",
        )
    return name, {**size_options(name, side), **options}
