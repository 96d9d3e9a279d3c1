"""What networks there are, by pattern: size, weights and whether they lie on this machine, licence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from convsmith.errors import UsageError
from convsmith.networks.counting.analysis import count_parameters
from convsmith.networks.published.catalogue import LIBRARIES, Library, ModelName, build_empty, names
from convsmith.networks.published.pretrained import Pretrained, cached_file, describe_weights
from convsmith.networks.published.weights import in_folder

OUTPUTS = 1000
"""Classes that parameters are counted for where no weights say another number."""


@dataclass(frozen=True)
class Listing:
    """A network in a list.

    Args:
        name: what to type.
        library: convsmith, timm or torchvision.
        parameters: how many it has with the head of its weights, or for 1,000 classes where it has none.
        input_size: `(channels, height, width)` that its weights were made for; None where there are none.
        weights: `here` on this machine, to be fetched from a `hub`, or `none`.
        licence: of the weights.
        where: the file, or what the hub calls it.
    """

    name: str
    library: Library
    parameters: int
    input_size: tuple[int, int, int] | None
    weights: Literal["here", "hub", "none"]
    licence: str
    where: str


def match_models(pattern: str) -> list[ModelName]:
    """All names that a pattern fits, ours first, after those that it is; nothing is built.

    Args:
        pattern: with `*`, `?` and `[...]` as in a shell, or part of a name. `timm/` or `torchvision/` before it keeps
            to one library. With a dot in it, timm's and torchvision's published weights are listed one by one.
    """
    library, slash, rest = pattern.partition("/")
    wanted: list[Library] = [known for known in LIBRARIES if not slash or known == library]
    asked = rest if slash else pattern
    if not any(mark in asked for mark in "*?["):
        asked = f"*{asked}*"
    found: list[ModelName] = []
    for place in wanted:
        known = _tagged(place) if "." in asked else names(place)
        found.extend(ModelName(place, name) for name in known if fnmatchcase(name, asked))
    return sorted(found, key=lambda name: name.name != rest and name.name != pattern)


def list_models(
    pattern: str,
    *,
    weights: Path | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Listing]:
    """Describe the networks that a pattern fits. Each is built without values to count its parameters.

    Args:
        pattern: as `match_models` takes it.
        weights: a folder to look for weights in, too.
        limit: describe so many at most.
        progress: called with how many are done and how many there are.

    Raises:
        UsageError: `weights` is not a folder.
    """
    if weights is not None and not weights.is_dir():
        raise UsageError(f"{weights} is not a folder.", mend="Name the folder that holds files of weights.")
    found = match_models(pattern)[:limit]
    rows = []
    first = {name: place for place in reversed(LIBRARIES) for name in (names(place) if len(found) else ())}
    for done, name in enumerate(found, 1):
        # What the plain name would not find needs its library before it.
        typed = name.name if first[name.architecture] == name.library else str(name)
        rows.append(_described(name, typed, weights))
        if progress is not None:
            progress(done, len(found))
    return rows


def _described(name: ModelName, typed: str, folder: Path | None) -> Listing:
    published = describe_weights(str(name), classes=False) if name.library != "convsmith" else None
    outputs = published.outputs if published else OUTPUTS
    parameters = count_parameters(build_empty(str(name), 3, outputs)).total
    path = in_folder(folder, name.name) if folder else None
    if len(path or ()) != 1:
        cached = cached_file(published) if published else None
        path = [cached] if cached else []
    size = published.input_size if published else None
    licence = published.licence if published else ""
    if path:
        return Listing(typed, name.library, parameters, size, "here", licence, str(path[0]))
    if published is None:
        return Listing(typed, name.library, parameters, size, "none", licence, "")
    return Listing(typed, name.library, parameters, size, "hub", licence, _place(published))


def _place(published: Pretrained) -> str:
    return published.hub_id or (published.url or "").rpartition("/")[2]


def _tagged(library: Library) -> list[str]:
    """All names of a library with those of its weights."""
    if library == "timm":
        import timm

        return timm.list_models(include_tags=True)
    if library == "torchvision":
        from torchvision.models import get_model_weights

        return [f"{name}.{tag}" for name in names(library) for tag in get_model_weights(name).__members__]
    return []
