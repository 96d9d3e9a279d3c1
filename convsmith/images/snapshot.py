"""What changed in a data set since an earlier run looked at it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convsmith.images.dataset import Dataset

NAMED = 3


@dataclass(frozen=True)
class Snapshot:
    """The difference between the images of an earlier run and those of now, each list sorted.

    Args:
        added: ids that are new, and whose pictures are.
        removed: ids that are gone, and whose pictures are.
        changed: ids whose pictures are others now.
        relabelled: ids of now, whose picture was of another class under the same id or the one it had.
        renamed: (id then, id now) of pictures that lie elsewhere.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    relabelled: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.relabelled or self.renamed)

    def sentence(self) -> str:
        """Say how many of each kind there are, with examples; that nothing changed where it is so."""
        kinds = (
            ("added", self.added),
            ("removed", self.removed),
            ("changed", self.changed),
            ("relabelled", self.relabelled),
            ("renamed", [f"{then} to {now}" for then, now in self.renamed]),
        )
        parts = [f"{len(names):,} {kind} ({_some(names)})" for kind, names in kinds if names]
        return f"Since the last run: {'; '.join(parts)}." if parts else "No image has changed since the last run."


def compare(known: Mapping[str, tuple[str, str]], dataset: Dataset) -> Snapshot:
    """Hold a data set against what an earlier run recorded.

    Args:
        known: id to (class, SHA-256 in hex) of every image then, as `split.csv` holds them.
        dataset: audited, so that contents are known.
    """
    if dataset.hashes is None:
        raise ValueError("compare needs an audited data set: pass it through images.audit first")
    present = {
        identifier: (dataset.classes[target], content.tobytes().hex())
        for identifier, target, content in zip(dataset.ids, dataset.targets.tolist(), dataset.hashes, strict=True)
    }
    gone: dict[str, list[str]] = defaultdict(list)  # content -> ids that are no more, the first at the end
    for identifier in sorted(known.keys() - present.keys(), reverse=True):
        gone[known[identifier][1]].append(identifier)
    added, renamed, relabelled = [], [], []
    for identifier in sorted(present.keys() - known.keys()):
        label, content = present[identifier]
        if not gone[content]:
            added.append(identifier)
            continue
        before = gone[content].pop()
        renamed.append((before, identifier))
        if known[before][0] != label:
            relabelled.append(identifier)
    kept = known.keys() & present.keys()
    relabelled += [identifier for identifier in kept if known[identifier][0] != present[identifier][0]]
    return Snapshot(
        added=tuple(added),
        removed=tuple(sorted(identifier for names in gone.values() for identifier in names)),
        changed=tuple(sorted(identifier for identifier in kept if known[identifier][1] != present[identifier][1])),
        relabelled=tuple(sorted(relabelled)),
        renamed=tuple(renamed),
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
