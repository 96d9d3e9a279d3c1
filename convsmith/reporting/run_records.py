"""What a report is made from: the records of one run, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from convsmith.errors import RunError

#: No thumbnail is larger (160 px a side); a file beyond this is not one of ours and is left out.
MAX_THUMBNAIL_BYTES = 200_000


@dataclass(frozen=True)
class RunRecords:
    """The records of one run as plain JSON values; every part but the name may be missing.

    Args:
        name: the run's name, as listings show it.
        path: the run's folder as commands should name it; the name where it is empty.
        manifest, recipe, plan, audit, results: the run folder's files of these names.
        recipe_text: `recipe.yaml` as it stands.
        log: the events of `log.jsonl` in order.
        findings: the findings, the most pressing first.
        verdict: the first screen's sentences, the fields of `diagnosis.Verdict`.
        thumbnails: image id to the bytes of a PNG or JPEG of at most 160 px.
        examples: images the network got right, for the first screen: `id`, `true`, `predicted`, `probability`.
        probe: `probe.json`: the linear probe on frozen features, and what the network gains on it.
        calibration: `calibration.json`: the temperature, and the images it was fitted on.
        learning_curve: `learning_curve.json`: accuracy against the number of training images.
        cells: of a cell of the confusion matrix `true`, `predicted`, `n` and a few `ids`.
        maps: `evidence/maps.json`: `method`, `source`, `layer` and `maps`, each of `id`, `true`, `predicted`,
            `probability`, `file`.
        map_pictures: a map's `file` to the bytes of its PNG, of at most 160 px.
    """

    name: str
    path: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)
    audit: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    findings: Sequence[Mapping[str, Any]] = ()
    verdict: Mapping[str, Any] = field(default_factory=dict)
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()
    probe: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    learning_curve: Mapping[str, Any] = field(default_factory=dict)
    cells: Sequence[Mapping[str, Any]] = ()
    maps: Mapping[str, Any] = field(default_factory=dict)
    map_pictures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def headline_split(self) -> str:
        """The role whose figures are reported: test, else tune, else train; empty where nothing was measured."""
        splits = self.results.get("splits") or {}
        return next((role for role in ("test", "tune", "train") if splits.get(role)), "")

    @property
    def measured(self) -> Mapping[str, Any]:
        """The results of the headline split."""
        return (self.results.get("splits") or {}).get(self.headline_split) or {}

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the confusion matrix."""
        return tuple(self.measured.get("classes") or self.manifest.get("classes") or ())

    @property
    def folder(self) -> str:
        """What a command should be given to name this run."""
        return self.path or self.name


def read_records(folder: Path) -> RunRecords:
    """Read a run folder's records; files that are not there leave their part empty.

    Args:
        folder: the run folder.

    Raises:
        RunError: the folder is not there, or one of its records cannot be read.
    """
    if not folder.is_dir():
        raise RunError(f"There is no run folder at {folder}.", mend="`convsmith runs` lists the runs there are.")
    text = _text(folder / "recipe.yaml")
    findings = _json(folder / "findings.json")
    evidence = folder / "evidence"
    maps = _json(evidence / "maps.json")
    files = {str(item["file"]): str(item["file"]) for item in maps.get("maps") or ()}
    return RunRecords(
        name=folder.name,
        path=str(folder),
        manifest=_json(folder / "manifest.json"),
        recipe=_yaml(folder / "recipe.yaml", text),
        recipe_text=text,
        plan=_json(folder / "plan.json"),
        audit=_json(folder / "audit.json"),
        log=_lines(folder / "log.jsonl"),
        results=_json(folder / "results.json"),
        findings=tuple(findings.get("findings") or ()),
        verdict=findings.get("verdict") or {},
        thumbnails=_pictures(evidence, _json(evidence / "thumbnails.json")),
        examples=tuple(_json(evidence / "examples.json").get("examples") or ()),
        probe=_json(folder / "probe.json"),
        calibration=_json(folder / "calibration.json"),
        learning_curve=_json(folder / "learning_curve.json"),
        cells=tuple(_json(evidence / "cells.json").get("cells") or ()),
        maps=maps,
        map_pictures=_pictures(evidence, files),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _json(path: Path) -> dict[str, Any]:
    text = _text(path)
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _unreadable(path, error) from None
    if not isinstance(value, dict):
        raise _unreadable(path, f"it holds a {type(value).__name__}, not an object")
    return value


def _yaml(path: Path, text: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _unreadable(path, error) from None
    return value if isinstance(value, dict) else {}


def _lines(path: Path) -> tuple[dict[str, Any], ...]:
    """Read the log. Only its last line may be incomplete: a run that was killed leaves half an event."""
    lines = [line for line in _text(path).split("\n") if line.strip()]
    events = []
    for position, line in enumerate(lines):
        try:
            events.append(json.loads(line))
        except ValueError as error:
            if position < len(lines) - 1:
                raise _unreadable(path, f"line {position + 1}: {error}") from None
    return tuple(events)


def _pictures(evidence: Path, names: Mapping[str, Any]) -> dict[str, bytes]:
    """Read small pictures that lie inside a folder; names that lead out of it, or to large files, are left out."""
    pictures = {}
    for key, name in names.items():
        file = evidence / str(name)
        inside = file.resolve().is_relative_to(evidence.resolve())
        if inside and file.is_file() and file.stat().st_size <= MAX_THUMBNAIL_BYTES:
            pictures[key] = file.read_bytes()
    return pictures


def _unreadable(path: Path, error: object) -> RunError:
    reason = " ".join(str(error).split())[:200]
    again = path.name in ("results.json", "findings.json")
    return RunError(
        f"{path} cannot be read: {reason}.",
        mend=f"Delete it, and write it anew: convsmith evaluate {path.parent}"
        if again
        else "Put the file back from a copy, or train again.",
    )
