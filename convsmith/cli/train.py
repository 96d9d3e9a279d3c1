"""`convsmith train` and `convsmith resume`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from convsmith.cli import options
from convsmith.cli.folds import print_folds

if TYPE_CHECKING:
    from convsmith.pipeline import Code
    from convsmith.recipe import Recipe
    from convsmith.run_folder import RunFolder

WITHOUT_DATA = """\
`convsmith train DATA` makes a network from labelled images. DATA is one of

  digits           1,797 handwritten digits of 8x8; needs no download, takes under a minute
  fashion-mnist    70,000 grey pictures of clothes, 28x28
  a folder         one sub-folder of images for each class, with or without train/ val/ test/ above them
  a table          photos.csv with a column of paths and one of labels

Nothing is changed in your folder. What is chosen for you is printed with its reason; --dry-run stops there.
"""


@click.command()
@click.argument("data", required=False)
@options.source
@options.time
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    metavar="N",
    help="Cross-validate: make N runs, each tested on another Nth of the images.",
)
@click.option(
    "--repeats", type=click.IntRange(min=1), metavar="N", help="Draw the folds so often; N times as many runs."
)
@click.option(
    "--model",
    metavar="MODEL",
    help="A name, FILE.py:NAME, a design.yaml, a line of layers, or the network of a RUN; chosen for you if not given.",
)
@click.option(
    "--weights", metavar="SOURCE", help="What it starts from: auto, none, a file, a folder, or a RUN of yours."
)
@click.option("--arg", "arguments", multiple=True, metavar="K=V", help="An argument of that network; repeatable.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="How many passes over the training images.")
@click.option("--budget", metavar="TIME", help="Wall clock of the whole command, report included: 90s, 5m, 1h30m.")
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    metavar="NAME|FILE",
    help="A named recipe or a YAML file; repeatable, later ones win.",
)
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any key of the recipe, such as train.batch=64."
)
@click.option(
    "--size", type=click.IntRange(min=4), metavar="PX", help="Side of the square that the network sees, in pixels."
)
@click.option("--fit", type=click.Choice(["crop", "pad", "stretch"]), help="How other shapes become that square.")
@click.option(
    "--symmetry",
    type=click.Choice(["none", "left-right", "any"]),
    help="Which mirrors and turns leave the class as it is; augmentation keeps to them.",
)
@click.option("--limit", type=click.IntRange(min=2), metavar="N", help="Use only so many images, of all classes alike.")
@click.option("--name", metavar="NAME", help="What to call the run; by default the data's name.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    help="Of initialisation, order and augmentation; the split has its own.",
)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=1, metavar="N", help="Make so many runs, of one seed after another."
)
@click.option("--device", metavar="NAME", help="cpu, cuda, mps or auto.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@options.as_json
@options.open_
@options.common
def train(
    data: str | None,
    *,
    runs: Path,
    quiet: bool,
    as_json: bool,
    open_: bool,
    dry_run: bool,
    seeds: int,
    images: str | None,
    label: str | None,
    group: str | None,
    split: str | None,
    labels: str | None,
    time: str | None,
    folds: int | None,
    repeats: int | None,
    **asked: Any,
) -> int | None:
    """Train a network on DATA: a folder of class folders, or a named set such as digits.

    \b
    convsmith train digits
    convsmith train photos/ --budget 5m
    convsmith train photos.csv --images photos/ --label species --group donor
    convsmith train photos/ --time exif
    convsmith train photos/ --folds 5
    convsmith train photos/ --model resnet18 --weights resnet18.safetensors
    convsmith train photos/ --model mine.py:Net --arg width=32 --epochs 20
    convsmith train photos/ --model 'conv 32 k3 p1 | bn | relu | gap | flatten | linear'
    torchrun --nproc-per-node=2 -m convsmith train photos/
    """
    if data is None and not asked["recipes"]:
        click.echo(WITHOUT_DATA)
        options.hint("convsmith train digits", quiet=quiet)
        return 2
    from convsmith.cli.commands import STARTED

    columns = {**options.columns(images, label, group, split, labels), "time": time, "folds": folds, "repeats": repeats}
    recipe, code = _asked(data, runs, columns=columns, **asked)
    whole = recipe.data.folds is not None and recipe.data.fold is None
    _refuse_seeds(seeds, whole=whole)
    from convsmith import pipeline
    from convsmith.cli.show import plan_json, print_seeds

    pipeline.refuse_unknown(recipe)
    words = ("convsmith", *options.typed())
    if dry_run:
        with pipeline.Progress(quiet=quiet, plan=False) as tell:
            make = pipeline.plan_first if whole else pipeline.make_plan
            made, prepared = make(recipe, code=code, tell=tell, started=STARTED)
        if as_json:
            click.echo(plan_json(made))
        else:
            pipeline.print_plan(made, prepared.audit, prepared.dataset.classes)
        options.hint("the same command without --dry-run", quiet=quiet)
        return None
    if whole:
        with pipeline.Progress(quiet=quiet) as tell:
            folder = pipeline.cross_validate(recipe, runs=runs, code=code, tell=tell, started=STARTED, command=words)
        return print_folds(folder, quiet=quiet, as_json=as_json, open_=open_)
    made_runs, started = [], STARTED
    for seed in range(recipe.seed, recipe.seed + seeds):
        with pipeline.Progress(quiet=quiet, plan=not made_runs) as tell:
            seeded = recipe.updated({"seed": seed})
            made_runs.append(pipeline.train(seeded, runs=runs, code=code, tell=tell, started=started, command=words))
        # What was measured for the first, and the steps of its budget, hold for all: only the seed differs.
        recipe = made_runs[0].read_recipe()
        started = monotonic()
    if seeds > 1 and _speaks():
        print_seeds(made_runs, as_json=as_json)
    else:
        _ended(made_runs[-1], quiet=quiet, as_json=as_json, open_=open_)
    return None


@click.command()
@options.run
@options.code
@click.option("--data", metavar="DATA", help="Where the images lie now, if they were moved.")
@options.as_json
@options.open_
@options.common
def resume(
    run: str, *, code: str | None, data: str | None, runs: Path, quiet: bool, as_json: bool, open_: bool
) -> int | None:
    """Go on with RUN where its last checkpoint stands: a path, a name, a unique prefix, or `last`.

    Of a cross-validation the runs that are missing are made.
    """
    folder = options.found(run, runs, whole=True)
    from convsmith import pipeline
    from convsmith.evaluation import is_cross_validation

    if is_cross_validation(folder):
        with pipeline.Progress(quiet=quiet, plan=False) as tell:
            pipeline.resume_folds(folder, code=options.own_code(code), tell=tell, data=data)
        return print_folds(folder, quiet=quiet, as_json=as_json, open_=open_)
    with pipeline.Progress(quiet=quiet) as tell:
        pipeline.resume(folder, code=options.own_code(code), tell=tell, data=data)
    return _ended(folder, quiet=quiet, as_json=as_json, open_=open_)


def _ended(run: RunFolder, *, quiet: bool, as_json: bool, open_: bool) -> None:
    if not _speaks():
        return
    from convsmith.cli.show import print_results

    print_results(run, as_json=as_json)
    if open_:
        click.launch(str(run.report))
    options.hint(f"convsmith predict {options.quoted(run.path)} PICTURE.jpg", quiet=quiet)


def _refuse_seeds(seeds: int, *, whole: bool) -> None:
    """Raise `UsageError` where a cross-validation is to be made with several seeds."""
    from convsmith.errors import UsageError

    if whole and seeds > 1:
        raise UsageError(
            "--seeds repeats one run, and --folds makes several.",
            mend="Draw the folds several times instead: --repeats N.",
        )


def _speaks() -> bool:
    """Whether this is the process that prints, of those that torchrun started."""
    return int(os.environ.get("RANK", "0")) == 0


def _asked(
    data: str | None,
    runs: Path,
    *,
    columns: Mapping[str, str | int | None],
    model: str | None,
    weights: str | None,
    size: int | None,
    fit: str | None,
    symmetry: str | None,
    arguments: tuple[str, ...],
    epochs: int | None,
    budget: str | None,
    recipes: tuple[str, ...],
    assignments: tuple[str, ...],
    limit: int | None,
    name: str | None,
    seed: int | None,
    device: str | None,
) -> tuple[Recipe, Code | None]:
    """The recipe as asked (default < named or file < --set and flags as one), and the user's own code if any."""
    from convsmith.errors import UsageError
    from convsmith.recipe import Recipe, load_layer, typed_layer

    if epochs is not None and budget is not None:
        raise UsageError("--epochs and --budget both say how long to train.", mend="Give one of them.")
    flags = {
        "data.source": options.absolute(data), "data.limit": limit, "name": name, "seed": seed,
        **{f"data.{key}": value for key, value in columns.items()},
        "image.size": size, "image.fit": fit, "augment.symmetry": symmetry,
        "train.epochs": epochs, "train.budget": budget, "train.device": device,
    }  # fmt: skip
    code = None
    if model is not None:
        from convsmith.networks import parse_arguments
        from convsmith.pipeline.given_model import read_model, recipe_keys

        keys, code = recipe_keys(read_model(model, options=parse_arguments(arguments), runs=runs))
        flags |= keys
    elif arguments:
        raise UsageError(
            "--arg is for a network of your own, or one by name.",
            mend="Use it with --model FILE.py:NAME or --model NAME.",
        )
    given = {key: value for key, value in flags.items() if value is not None}
    if weights is not None:
        given["weights.source"] = options.weights_source(weights, runs)
    recipe = Recipe.from_layers(*map(load_layer, recipes), typed_layer(given, assignments))
    if recipe.data.source is None:
        raise UsageError("Neither the command nor the recipe names the images.", mend="convsmith train DATA --recipe …")
    return recipe, code
