"""Regular expressions that a user types: refused where they cannot work or could run for ages, then searched in ids."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from convsmith.errors import UsageError

PATTERN_CAP = 200  # characters of a regular expression
SLOWEST = 1.0  # seconds that one search may take
_REPEATS_AT_MOST = 6


@dataclass(frozen=True)
class Asked:
    """What a pattern is typed for, so that errors can speak of it.

    Args:
        option: what it is typed after, such as `--group`.
        word: what may be typed in its place, such as `parent`.
        names: what its one capturing group finds.
        example: a pattern that would do.
    """

    option: str
    word: str
    names: str
    example: str


def compiled(rule: str, asked: Asked) -> re.Pattern[str]:
    """Compile a pattern of one capturing group, after refusing those that nested repetitions can keep busy for ages.

    Raises:
        UsageError: no regular expression, not one capturing group, or one that can take forever.

    Source: Davis et al. 2018, "The impact of regular expression denial of service (ReDoS) in practice", ESEC/FSE.
    """
    option = asked.option
    if len(rule) > PATTERN_CAP:
        raise UsageError(
            f"{option}: the regular expression has {len(rule):,} characters; at most {PATTERN_CAP} are taken.",
            mend="Use a shorter one.",
        )
    try:
        pattern = re.compile(rule)
    except (re.error, OverflowError) as error:
        raise UsageError(
            f"{option}: {rule!r} is neither `{asked.word}` nor a regular expression ({error}).",
            mend=f"Such as '{asked.example}', whose brackets hold the {asked.names}.",
        ) from None
    if pattern.groups != 1:
        raise UsageError(
            f"{option}: {rule!r} has {pattern.groups} capturing groups; one holds the {asked.names}.",
            mend=f"Put brackets around that part, as in '{asked.example}'; (?:...) are brackets that name nothing."
            if not rule.isidentifier()
            else f"Only a CSV file has columns: give `{asked.word}`, or a regular expression such as "
            f"'{asked.example}'.",
        )
    if _explosive(rule):
        raise UsageError(
            f"{option}: {rule!r} repeats what is itself repeated or a choice, or holds more than {_REPEATS_AT_MOST} "
            "repetitions: that can take forever.",
            mend=r"Repeat single characters or sets of them: \w+, [^/]*, \d{3}.",
        )
    return pattern


def found_in(ids: Iterable[str], pattern: re.Pattern[str], asked: Asked) -> list[str]:
    """What the capturing group finds in each id; empty where it finds nothing.

    Raises:
        UsageError: a search takes more than a second.
    """
    found = []
    for identifier in ids:
        started = time.monotonic()
        match = pattern.search(identifier)
        if time.monotonic() - started > SLOWEST:
            raise UsageError(
                f"{asked.option}: {pattern.pattern!r} takes more than a second on {identifier}.",
                mend="Use fewer * and +, and say what may stand between: [^/]* in place of .*",
            )
        found.append((match[1] or "") if match else "")
    return found


_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:[a-zA-Z-]*:|[:=!>#]|<[=!]|P?<\w+>|P=\w+)|[*+?](?:[?+])?"
    r"|\{(?P<low>\d*)(?P<comma>,?)(?P<high>\d*)\}[?+]?|.",
    re.DOTALL,
)


def _explosive(rule: str) -> bool:
    """Whether a group that repeats or chooses within is itself repeated, or repetitions are more than a few."""
    varies = [False]  # for each open bracket, whether what it holds can match in several ways
    closed = False  # whether the bracket just closed could
    repeats = 0
    for match in _TOKEN.finditer(rule):
        token = match[0]
        again, several = _repetition(match)
        if again and closed:
            return True
        closed = False
        if token.startswith("("):
            varies.append(False)
        elif token == ")":
            closed = varies.pop() if len(varies) > 1 else False
            varies[-1] = varies[-1] or closed
        elif token == "|" or several:
            varies[-1] = True
            repeats += token != "|" and not token.startswith("?")
    return repeats > _REPEATS_AT_MOST


def _repetition(match: re.Match[str]) -> tuple[bool, bool]:
    """Whether a token repeats what stands before it more than once, and whether how often is left open."""
    token = match[0]
    if token[0] in "*+" and len(token) <= 2:
        return True, True
    if token[0] == "?":
        return False, True
    if token[0] == "{" and len(token) > 2 and (match["low"] or match["high"]):
        high = match["high"] if match["comma"] else match["low"]
        return not high or int(high) > 1, bool(match["comma"])
    return False, False
