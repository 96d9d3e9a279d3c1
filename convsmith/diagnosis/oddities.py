"""What is wrong with the images themselves, in sentences anyone understands: read from the audit, the gravest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UNEQUAL = 10  # the commonest class has more than so many times the pictures of the rarest
SHOWN = 3


def oddities(audit: Mapping[str, Any], *, roles: Mapping[str, str] | None = None) -> list[str]:
    """Return one sentence for each kind of fault the audit found; an empty list where it found none.

    Args:
        audit: audit.json; parts that are missing were not looked for, and nothing is said of them.
        roles: image id to train, tune or test, which tells on an audit without `leaks` where identical pictures lie.
    """
    said = (
        _leaks(audit, roles or {}), _conflicts(audit), _unreadable(audit), _groups(audit), _imbalance(audit),
        _copies(audit), _forms(audit),
    )  # fmt: skip
    return [text for text in said if text]


def about_data(audit: Mapping[str, Any], *, roles: Mapping[str, str] | None = None) -> str:
    """Return the first screen's answer to “what is wrong with my data”; empty where no audit was left.

    At most three faults are told, the gravest first; how many more there are is said. Where none was found, the
    answer names what was looked for, because silence about a check that was not made would be a claim.
    """
    if not audit:
        return ""
    found, absent = oddities(audit, roles=roles), clean_checks(audit, roles=roles)
    if len(found) > SHOWN:
        more = len(found) - SHOWN
        return f"{' '.join(found[:SHOWN])} And {more} more thing{'s' if more > 1 else ''}, below."
    if found:
        return " ".join([*found, f"Nothing else stood out: {absent}."] if absent and len(found) == 1 else found)
    return f"Nothing stood out in {audit.get('images') or 0:,} pictures{f': {absent}' if absent else ''}."


def clean_checks(audit: Mapping[str, Any], *, roles: Mapping[str, str] | None = None) -> str:
    """Return what was looked for and not found, as “no unreadable file and no picture in two classes”."""
    return _listed([words for clean, words in _looked_for(audit, roles or {}) if clean])


def leaked(audit: Mapping[str, Any], *, into: str = "test") -> tuple[list[Mapping[str, Any]], int]:
    """The leaks that touch a role, and how many different images of that role they touch."""
    touching = [leak for leak in audit.get("leaks") or () if into in (leak["first_role"], leak["second_role"])]
    images = {leak[end] for leak in touching for end in ("first", "second") if leak[f"{end}_role"] == into}
    return touching, len(images)


def conflicting(audit: Mapping[str, Any]) -> tuple[int, int]:
    """How many sets of equal pictures have different labels, and how many pairs of near ones."""
    near = sum(bool(pair.get("labels_differ")) for pair in audit.get("near_duplicates") or ())
    return len(audit.get("label_conflicts") or ()), near


def uneven(audit: Mapping[str, Any]) -> tuple[str, int, str, int] | None:
    """The commonest and the rarest class with their counts, where they are more than ten times apart."""
    counts: Mapping[str, int] = audit.get("classes") or {}
    if len(counts) < 2:
        return None
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    return (most, counts[most], least, counts[least]) if counts[most] > UNEQUAL * counts[least] else None


def shared_copies(split: str, duplicates: Sequence[Sequence[str]], roles: Mapping[str, str]) -> int:
    """How many pictures of a split lie, identical, among the training pictures."""
    return sum(
        sum(roles.get(name) == split for name in same)
        for same in duplicates
        if any(roles.get(name) == "train" for name in same)
    )


def _leaks(audit: Mapping[str, Any], roles: Mapping[str, str]) -> str:
    for role in ("test", "tune"):
        touching, images = leaked(audit, into=role)
        if touching:
            kinds = {leak["kind"] for leak in touching}
            alike = "the same picture" if kinds == {"same"} else "the same picture or nearly so"
            others = {leak[f"{end}_role"] for leak in touching for end in ("first", "second")} - {role}
            where = " or ".join("training" if other == "train" else other for other in sorted(others, reverse=True))
            verb = "is" if images == 1 else "are"
            return f"{images:,} {role} {_pictures(images)} {verb} also among the {where} pictures ({alike})."
    shared = shared_copies("test", audit.get("duplicates") or (), roles) if "leaks" not in audit else 0
    verb = "lies" if shared == 1 else "lie"
    return f"{shared:,} test {_pictures(shared)} {verb} also, identical, among the training pictures." if shared else ""


def _conflicts(audit: Mapping[str, Any]) -> str:
    same, near = conflicting(audit)
    parts = [f"{same:,} {_pictures(same)} {'is' if same == 1 else 'are'} in more than one class"] * bool(same)
    parts += [f"{near:,} {'pair' if near == 1 else 'pairs'} of nearly equal pictures are in different classes"] * bool(
        near
    )
    return "; ".join(parts) + "." if parts else ""


def _unreadable(audit: Mapping[str, Any]) -> str:
    count = len(audit.get("unreadable") or ())
    files = "1 file could not be read and was" if count == 1 else f"{count:,} files could not be read and were"
    return f"{files} left out." if count else ""


def _groups(audit: Mapping[str, Any]) -> str:
    suspected = audit.get("suspected_groups") or ()
    if not suspected or audit.get("groups"):
        return ""
    first = suspected[0]
    return (
        f"Names hint at {first['groups']:,} groups (such as donors, parts or films) with up to {first['largest']:,} "
        "pictures each, and the split may tear them apart."
    )


def _imbalance(audit: Mapping[str, Any]) -> str:
    found = uneven(audit)
    if found is None:
        return ""
    most, many, least, few = found
    return f"There are only {few:,} of “{least}”, but {many:,} of “{most}”."


def _copies(audit: Mapping[str, Any]) -> str:
    same, near = len(audit.get("duplicates") or ()), len(audit.get("near_duplicates") or ())
    parts = [f"{same:,} {_pictures(same)} {'is' if same == 1 else 'are'} there more than once"] * bool(same)
    parts += [f"{near:,} {'pair of pictures is' if near == 1 else 'pairs of pictures are'} nearly equal"] * bool(near)
    return " and ".join(parts) + "." if parts else ""


def _forms(audit: Mapping[str, Any]) -> str:
    """Only animations are odd: all but their first picture is left out. Other forms lose nothing."""
    forms = audit.get("forms") or {}
    count = sum(form["n"] for name, form in forms.items() if "animat" in name.lower())
    return f"{count:,} {'file is' if count == 1 else 'files are'} animated; only the first picture counts." * bool(
        count
    )


def _looked_for(audit: Mapping[str, Any], roles: Mapping[str, str]) -> list[tuple[bool, str]]:
    """Whether each check was made and found nothing, and what that was."""
    checked = "leaks" in audit or ("duplicates" in audit and bool(roles))
    ungrouped = "suspected_groups" in audit and not audit.get("groups")
    return [
        ("unreadable" in audit and not audit["unreadable"], "no unreadable file"),
        (checked and not _leaks(audit, roles), "no copies across the split"),
        ("label_conflicts" in audit and not _conflicts(audit), "no picture in two classes"),
        (ungrouped and not audit["suspected_groups"], "no sign of several pictures of one thing"),
        (bool(audit.get("classes")) and uneven(audit) is None, "no class far rarer than another"),
    ]


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)


def _pictures(count: int) -> str:
    return "picture" if count == 1 else "pictures"
