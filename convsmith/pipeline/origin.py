"""What a network starts from: weights that were published with it, a file of weights, or a run of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from convsmith.errors import RunError, UsageError
from convsmith.networks import (
    MODELS,
    Found,
    Pretrained,
    describe_weights,
    find_weights,
    load_pretrained,
    resolve,
    sha256_of,
    size_options,
)
from convsmith.pipeline.build import OWN, Code, ModelFunction, bare_network, check_network, with_new_head
from convsmith.recipe import Named, Recipe, settled
from convsmith.run_folder import RunFolder
from convsmith.training import Checkpoint, last_checkpoint, seed_all

PUBLISHED = "published"
AUTOMATIC = ("auto", PUBLISHED)
BACKBONE = "tf_efficientnet_lite0"
"""For photos where nobody names a network: 4.7 M parameters, 0.4 G MACs at 224 px, plain convolutions that every
exporter and accelerator knows; Apache-2.0."""
_EXPECTED = "published weights"


@dataclass(frozen=True)
class Origin:
    """Weights that are here, held by their hash, and what pictures they were made for.

    Args:
        source: as the recipe keeps it: `published`, or the path of a file or a run.
        says: where they come from, for the plan.
        sha256: of the file.
        found: the file of published weights.
        run: the recipe and the checkpoint of the run that they come from instead.
        outputs: classes they were made for.
        size, channels, mean, std: of the images they were made for.
        keep: share of the shorter side that they were tested on: the square of `size` px was cut from so much more.
        fixed_size: whether the network takes no other size.
    """

    source: str
    says: str
    sha256: str
    outputs: int
    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    keep: float = 1.0
    fixed_size: bool = False
    found: Found | None = None
    run: tuple[Recipe, Checkpoint] | None = None


def find_origin(recipe: Recipe) -> Origin | None:
    """The weights that a recipe asks for; None where it starts from nothing.

    Args:
        recipe: its model named, unless the weights are a run's.

    Raises:
        UsageError, DataError: they are not here and cannot be had, are not those of the recipe's hash, or fit no model.
    """
    refuse_missing(recipe)
    source = recipe.weights.source
    if source is None:
        return None
    place = Path(source).expanduser()
    if source not in AUTOMATIC and (place / "recipe.yaml").is_file():
        origin = _of_run(place)
    else:
        origin = _of_model(recipe, source)
    if origin is not None and recipe.weights.sha256 not in (None, origin.sha256):
        raise UsageError(
            f"The weights of {origin.says} are not those of the recipe: their SHA-256 begins with "
            f"{origin.sha256[:12]}, expected {str(recipe.weights.sha256)[:12]}.",
            mend="Put the old file back, or train anew with --set weights.sha256=null.",
        )
    return origin


def refuse_missing(recipe: Recipe) -> None:
    """Raise `UsageError` where the recipe names weights by a path at which there is nothing; looks at nothing else."""
    source = recipe.weights.source
    if source is not None and source not in AUTOMATIC and not Path(source).expanduser().exists():
        raise UsageError(
            f"There are no weights {source}: neither a file, nor a folder, nor a run.",
            mend="Put them back, name them where they lie with --weights, or train from scratch with --weights none.",
        )


def expected_origin(name: str) -> Origin | None:
    """What images the published weights of a network take, whether they are here or not; None where there are none.

    That of `BACKBONE` is written down, since everybody asks for it who looks at photos, and asking timm takes two
    seconds; a test holds it against timm's own.
    """
    if name == BACKBONE:
        half = (0.5, 0.5, 0.5)
        return Origin(PUBLISHED, _EXPECTED, "", outputs=1000, size=224, channels=3, mean=half, std=half, keep=0.875)
    described = describe_weights(name) if published(name) else None
    return None if described is None else _described(described, PUBLISHED, _EXPECTED, "", None)


def published(name: str) -> bool:
    """Whether a model's name is one of those that others have published weights for."""
    return name != OWN and name not in MODELS and resolve(name).library != "convsmith"


def start_network(recipe: Recipe, outputs: int, code: Code | ModelFunction | None, origin: Origin | None) -> nn.Module:
    """The network as training begins: from its origin's weights with a new head, or drawn from the recipe's seed.

    Everything but the head has to fit the weights: none is left out in silence.
    """
    assert isinstance(recipe.model, Named)
    seed_all(recipe.seed)
    if origin is None:
        model = bare_network(recipe, outputs, code)
    else:
        if origin.found is not None:
            options = {**size_options(recipe.model.name, settled(recipe.image.size)), **recipe.model.options}
            model = load_pretrained(recipe.model.name, origin.found, settled(recipe.image.channels), **options)
        else:
            assert origin.run is not None
            model = bare_network(origin.run[0], origin.outputs, code)
            origin.run[1].load_weights(model)
        seed_all(recipe.seed)  # so that the head is drawn alike, however many draws loading took
        model = with_new_head(model, recipe, outputs)
    check_network(model, recipe, outputs)
    return model


def _of_run(source: Path) -> Origin:
    run = RunFolder(source)
    recipe = run.read_recipe()
    manifest = run.read_json("manifest.json")
    checkpoint = last_checkpoint(run.checkpoints)
    if checkpoint is None:
        raise RunError(
            f"{source} has no checkpoint to start from.", mend=f"Let it train first: convsmith resume {source}"
        )
    image = recipe.image
    return Origin(
        source=str(run.path.resolve()),
        says=f"your run {run.path.name}",
        sha256=sha256_of(checkpoint.folder / "weights.safetensors"),
        outputs=len(manifest["classes"]),
        size=settled(image.size),
        channels=settled(image.channels),
        mean=settled(image.mean),
        std=settled(image.std),
        fixed_size=True,  # its layers may fit no other, and what it learnt has the scale of this one
        run=(recipe, checkpoint),
    )


def _of_model(recipe: Recipe, source: str) -> Origin | None:
    if not isinstance(recipe.model, Named):
        raise UsageError(
            f"--weights {source} names weights, but no network that they belong to.",
            mend="Add --model NAME (find it with: convsmith models PATTERN).",
        )
    name = recipe.model.name
    if not published(name):
        if source in AUTOMATIC:
            return None  # nobody published any
        raise UsageError(
            f"{source} is no run, and nobody published weights for {'your own network' if name == OWN else name}.",
            mend="Give a run of yours: --weights RUN; or a network of timm or torchvision: --model NAME.",
        )
    found = find_weights(name, "auto" if source in AUTOMATIC else source)
    described = describe_weights(name)
    if described is None:
        raise UsageError(f"Nothing is known of the pictures that weights of {name!r} take.", mend="Use --weights none.")
    kept = PUBLISHED if source in AUTOMATIC else str(Path(found.path).resolve())
    return _described(described, kept, f"{found.origin}, licence {found.licence}", found.sha256, found)


def _described(described: Pretrained, source: str, says: str, sha256: str, found: Found | None) -> Origin:
    return Origin(
        source=source,
        says=says,
        sha256=sha256,
        found=found,
        outputs=described.outputs,
        size=described.input_size[-1],
        channels=3,
        mean=described.mean,
        std=described.std,
        keep=described.keep if described.fit == "crop" else 1.0,
        fixed_size=described.fixed_size,
    )
