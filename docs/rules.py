"""Write the pages of the design rules, `docs/rules/`, from the rules themselves: `python docs/rules.py`."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

from convsmith.networks.lint import GRAVITY, RULES, Example, Rule

FOLDER = Path(__file__).parent / "rules"
LONG = 12
"""Layers, from which on a line is not broken into lines."""
MEANING = {
    "error": "the network does not do what it is for",
    "warning": "it is worse, or dearer, than it need be",
    "hint": "worth knowing; often deliberate",
}


def pages() -> dict[str, str]:
    """The text of every page by its file name."""
    return {"README.md": _index(), **{f"{rule.id}.md": page(rule) for rule in RULES.values()}}


def page(rule: Rule) -> str:
    """One rule's page."""
    finding = rule.judge(rule.broken.evidence())
    assert finding is not None
    parts = [
        f"# {rule.title}",
        f"`{rule.id}` · {rule.severity}: {MEANING[rule.severity]}",
        f"**Why it matters.** {rule.why}",
        f"**What to do.** {rule.mend}",
        f"**An example that has it**\n\n{_shown(rule.broken)}",
        f"> {finding.says}",
        f"**The same without**\n\n{_shown(rule.healthy)}",
        f"**Source.** {rule.source}.",
        f"**Switch it off** where it is meant: `convsmith lint MODEL --off {rule.id}`.",
        "[All rules](README.md)",
    ]
    return "\n\n".join(parts) + "\n"


def _index() -> str:
    lines = [
        "# Design rules",
        "",
        "What `convsmith lint MODEL` looks for. Each rule judges the recorded graph of the network, never its name, "
        "and says nothing where it cannot tell.",
    ]
    for severity in GRAVITY:
        lines += ["", f"## {severity.capitalize()}s: {MEANING[severity]}", ""]
        own = (rule for rule in RULES.values() if rule.severity == severity)
        lines += [f"- [`{rule.id}`]({rule.id}.md) {rule.title}" for rule in own]
    return "\n".join(lines) + "\n"


def _shown(example: Example) -> str:
    given = [
        f"{name} {value}" for name in ("batch", "classes", "side") if (value := getattr(example, name)) is not None
    ]
    beside = f"\n\nJudged with {', '.join(given)}." if given else ""
    size = "x".join(map(str, example.shape))
    if example.make is None:
        layers = [part.strip() for part in example.line.split("|")]
        line = ("\n  | " if len(layers) <= LONG else " | ").join(layers)
        return f"```sh\nconvsmith lint '{line}' --input {size}\n```{beside}"
    makes = example.make
    bases = [base for base in getattr(makes, "__mro__", (makes,))[1:] if base.__module__ == makes.__module__]
    source = "\n\n\n".join(textwrap.dedent(inspect.getsource(part)).rstrip() for part in (*reversed(bases), makes))
    return f"```python\n{source}\n```{beside}"


def main() -> None:
    """Write all pages, and delete those of rules that are gone."""
    FOLDER.mkdir(exist_ok=True)
    written = pages()
    for old in set(FOLDER.glob("*.md")) - {FOLDER / name for name in written}:
        old.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
