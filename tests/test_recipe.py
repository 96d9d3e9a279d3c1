"""A recipe is data: layered, checked, and unable to name code."""

import subprocess
import sys

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convsmith import recipe as recipes
from convsmith.design import parse
from convsmith.errors import UsageError
from convsmith.recipe import RECIPES, Recipe, layer, load_layer, parse_assignments, parse_yaml, seconds

# ------------------------------------------------------------------------------------------------------------- layers


def test_each_layer_overrides_the_ones_before_it():
    named = {"train": {"epochs": 8, "tune_every": 0, "batch": 32}}
    file = parse_yaml("train: {epochs: 20, batch: 64}\nseed: 5")
    typed = parse_assignments(["train.epochs=30"])
    layers = [named, file, typed]
    expected = [("auto", "auto", "auto", 0), (8, 32, 0, 0), (20, 64, 0, 5), (30, 64, 0, 5)]
    for count, (epochs, batch, tune_every, seed) in enumerate(expected):
        made = Recipe.from_layers(*layers[:count])
        assert (made.train.epochs, made.train.batch, made.train.tune_every, made.seed) == (
            epochs,
            batch,
            tune_every,
            seed,
        )


def test_a_named_entry_is_replaced_whole_so_that_options_of_another_do_not_linger():
    below = {"train": {"optimizer": {"name": "sgd", "options": {"momentum": 0.8}}}}
    assert Recipe.from_layers(below, {"train": {"optimizer": {"name": "adamw"}}}).train.optimizer.options == {}
    assert Recipe.from_layers(below, {"train": {"optimizer": "adamw"}}).train.optimizer.name == "adamw"
    kept = Recipe.from_layers(below, parse_assignments(["train.optimizer.options.rate=0.2"])).train.optimizer
    assert (kept.name, kept.options) == ("sgd", {"momentum": 0.8, "rate": 0.2})


def test_the_layers_given_stay_as_they_were():
    below = {"train": {"epochs": 1}}
    Recipe.from_layers(below, {"train": {"epochs": 2}})
    assert below == {"train": {"epochs": 1}}
    assert RECIPES["quick"]["train"]["epochs"] == 8


RESOLVED = {
    "model": "convnet",
    "network": {"stem": {"width": 8}, "stages": [{"width": 8}]},
    "augment": {"preset": "digits", "operations": ["shift"]},
    "train": {
        "epochs": 8, "steps": 160, "batch": 64, "warmup_steps": 32, "average": 0.9, "report_every": 20,
        "checkpoint_every": 160, "tune_every": 20,
    },
}  # fmt: skip
"""What a run's recipe.yaml holds: what was asked, and what followed from it."""
PACE = ("warmup_steps", "average", "report_every", "checkpoint_every", "tune_every")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ({"train.epochs": 5}, {"epochs": 5, "steps": None, "budget": None}),
        ({"train.budget": "1m"}, {"epochs": "auto", "steps": None, "budget": 60}),
        ({"train.steps": 90}, {"epochs": "auto", "steps": 90, "budget": None}),
        ({"train.batch": 32}, {"epochs": 8, "steps": None, "budget": None}),
        ({"data.limit": 500}, {"epochs": 8, "steps": None, "budget": None}),
    ],
)
def test_a_length_typed_over_the_recipe_of_a_run_is_the_length_and_sets_the_pace_anew(typed, expected):
    made = Recipe.from_layers(RESOLVED, layer(typed))
    assert {key: getattr(made.train, key) for key in expected} == expected
    assert [getattr(made.train, key) for key in PACE] == ["auto"] * len(PACE)
    assert made.network is not None
    kept = Recipe.from_layers(RESOLVED, layer({**typed, "train.warmup_steps": 3, "train.average": None})).train
    assert (kept.warmup_steps, kept.average, kept.tune_every) == (3, None, "auto")


@pytest.mark.parametrize("model", ["convnet-medium", "own"])
def test_a_model_typed_over_the_recipe_of_a_run_is_the_model(model):
    made = Recipe.from_layers(RESOLVED, {"model": model})
    assert (made.model.name, made.network) == (model, None)
    assert made.train == Recipe.from_layers(RESOLVED).train


def test_other_weights_typed_over_the_recipe_of_a_run_set_anew_what_followed_from_the_old():
    scratch = {**RESOLVED, "weights": {"source": None}, "transfer": {"mode": None, "frozen_norms": False}}
    made = Recipe.from_layers(scratch, {"weights": {"source": "file"}, "image": {"size": 96}})
    assert (made.transfer.mode, made.transfer.frozen_norms, made.train.batch) == ("auto", "auto", "auto")
    assert (made.image.size, made.augment.operations) == (96, None)
    same = Recipe.from_layers(scratch, {"weights": {"source": None}})
    assert (same.transfer.mode, same.train.batch) == (None, 64)
    typed = Recipe.from_layers({"train": {"batch": 64}}, {"weights": {"source": "file"}})
    assert typed.train.batch == 64


def test_a_preset_typed_over_the_recipe_of_a_run_is_the_augmentation():
    made = Recipe.from_layers(RESOLVED, parse_assignments(["augment.preset=none"]))
    assert (made.augment.preset, made.augment.operations) == ("none", None)


def test_what_has_nothing_to_do_with_it_leaves_the_recipe_of_a_run_as_it_is():
    same = Recipe.from_layers(RESOLVED)
    assert Recipe.from_layers(RESOLVED, {"seed": 0}, {"train": {"device": "auto", "budget": None}}) == same
    assert Recipe.from_layers(RESOLVED, {"train": {"epochs": None}}).train.steps == 160
    assert Recipe.from_layers({}, same.model_dump()) == same
    assert Recipe.from_layers({"train": {"epochs": 3}}, same.model_dump()) == same
    changed = same.updated({"train.epochs": 5}).train
    assert (changed.epochs, changed.steps) == (5, 160)


def test_what_was_asked_for_and_what_is_off_stays_under_another_length():
    asked = Recipe.from_layers({"train": {"epochs": 8, "average": 0.99, "tune_every": 7}}, {"train": {"epochs": 5}})
    assert (asked.train.average, asked.train.tune_every) == (0.99, 7)
    off = {"train": {**RESOLVED["train"], "average": None, "tune_every": 0}}
    made = Recipe.from_layers(off, {"train": {"epochs": 5}}).train
    assert (made.average, made.tune_every, made.warmup_steps) == (None, 0, "auto")
    asked = {"train": {"steps": 100, "batch": 64}}
    assert Recipe.from_layers(asked, {"train": {"batch": 32}}).train.steps == 100


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_named_recipes_are_valid(name):
    assert Recipe.from_layers(load_layer(name)) != Recipe()


def test_a_layer_may_be_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {budget: 5m}\n")
    assert Recipe.from_layers(load_layer(str(path))).train.budget == 300


def test_a_recipe_that_is_neither_name_nor_file_is_refused_with_a_suggestion():
    with pytest.raises(UsageError, match=r"no recipe 'quik'.*Did you mean quick\?"):
        load_layer("quik")


def test_assignments_are_typed_as_yaml():
    values = parse_assignments(
        ["a.b=30", "a.c=0.5", "a.d=1e-3", "a.e=[1, 2]", "a.f=null", "a.g=auto", "a.h=x=y", "a.i=true", "a.j=-2E+3"]
    )
    assert values == {
        "a": {"b": 30, "c": 0.5, "d": 0.001, "e": [1, 2], "f": None, "g": "auto", "h": "x=y", "i": True, "j": -2000.0}
    }


@pytest.mark.parametrize("wrong", ["train.epochs", "=3", ""])
def test_an_assignment_without_key_or_value_is_refused(wrong):
    with pytest.raises(UsageError, match=r"is not KEY=VALUE.*--set train\.epochs=30"):
        parse_assignments([wrong])


# -------------------------------------------------------------------------------------------------- keys and values


@pytest.mark.parametrize(
    ("layer", "key", "mend"),
    [
        ({"train": {"epoch": 3}}, "'train.epoch'", "train.epochs"),
        ({"trian": {}}, "'trian'", "Did you mean train"),
        ({"data": {"sorce": "x"}}, "'data.sorce'", "data.source"),
        ({"model": {"name": "convnet", "width": 3}}, "'model.width'", ""),
        ({"augment": {"operations": [{"name": "flip", "p": 3}]}}, "'augment.operations.0.p'", "augment.operations"),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(layer, key, mend):
    with pytest.raises(UsageError) as caught:
        Recipe.from_layers(layer)
    assert caught.value.message == f"The recipe has no key {key}."
    assert mend in caught.value.mend


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.epochs", 0),
        ("train.epochs", -1),
        ("train.epochs", "thirty"),
        ("train.epochs", 1.5),
        ("train.steps", -1),
        ("train.batch", 0),
        ("train.tune_every", -1),
        ("train.label_smoothing", 1.0),
        ("train.label_smoothing", float("nan")),
        ("train.average", -0.1),
        ("train.clip", -1.0),
        ("train.clip", float("inf")),
        ("train.budget", 0),
        ("train.budget", "soon"),
        ("train.budget", float("inf")),
        ("train.precision", "float8"),
        ("train.log_ids", "maybe"),
        ("image.size", 3),
        ("image.size", 5000),
        ("image.channels", 2),
        ("image.std", (0.0,)),
        ("seed", -1),
        ("seed", 2**64),
        ("data.limit", 1),
        ("data.split_seed", 2**32),
        ("schema_version", 2),
        ("train", 3),
        ("model", 3),
        ("augment.operations", "flip"),
    ],
)
def test_a_value_out_of_range_is_refused_with_key_and_value(key, value):
    with pytest.raises(UsageError) as caught:
        Recipe.from_layers(recipes.nested(key, value))
    assert caught.value.message.startswith(f"Recipe key {key!r} cannot be {value!r}: "), caught.value.message


def test_a_number_that_is_not_finite_is_refused_wherever_it_stands():
    with pytest.raises(UsageError, match=r"'image\.mean\.1' cannot be nan"):
        Recipe.from_layers({"image": {"mean": (0.5, float("nan"))}})
    with pytest.raises(UsageError, match=r"'train\.optimizer\.options\.rate' cannot be inf"):
        Recipe.from_layers({"train": {"optimizer": {"name": "sgd", "options": {"rate": float("inf")}}}})


def test_a_missing_key_is_named():
    with pytest.raises(UsageError, match=r"Recipe key 'model\.name' is missing"):
        Recipe.from_layers({"model": {"options": {}}})


def test_a_long_wrong_value_is_shown_in_part():
    with pytest.raises(UsageError) as caught:
        Recipe.from_layers({"train": {"device": ["x" * 100_000]}})
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("key", ["model", "train.optimizer", "train.schedule", "train.epochs", "image.mean"])
def test_auto_stays_auto_and_settling_it_unplanned_is_refused(key):
    value = Recipe.from_layers(recipes.nested(key, "auto"))
    for part in key.split("."):
        value = getattr(value, part)
    assert value == "auto"
    with pytest.raises(UsageError, match="still holds `auto`"):
        recipes.settled(value)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().train.epochs = 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("90", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h", 3600),
        ("1.5m", 90),
        ("2h1m1s", 7261),
        (" 5m ", 300),
        ("0.5", 0.5),
    ],
)
def test_lengths_of_time(text, expected):
    assert seconds(text) == expected
    assert Recipe.from_layers({"train": {"budget": text}}).train.budget == expected


@pytest.mark.parametrize("text", ["", " ", "m", "5 minutes", "-5m", "1m1h", "5d", "1:30", "nan", "inf"])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(ValueError, match=r"is no length of time; write 90s, 5m or 1h30m"):
        seconds(text)


# -------------------------------------------------------------------------------------------------------- round trip

OPTION = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.none(),
    st.sampled_from(["1e-3", "1e3", "null", "yes", "2024-01-01", "1:30", "=", "<<", "~", "0x1", "\x85", "auto"]),
)
NAMED = st.fixed_dictionaries(
    {"name": st.text(min_size=1, max_size=8)},
    optional={"options": st.dictionaries(st.text(max_size=5), st.one_of(OPTION, st.lists(OPTION, max_size=3)))},
)
LAYER = st.fixed_dictionaries(
    {},
    optional={
        "name": st.one_of(st.none(), st.text(max_size=10)),
        "seed": st.integers(0, 2**64 - 1),
        "model": NAMED,
        "image": st.fixed_dictionaries({}, optional={"mean": st.lists(st.floats(-1, 1), max_size=3)}),
        "augment": st.fixed_dictionaries({}, optional={"operations": st.lists(NAMED, max_size=3)}),
        "train": st.fixed_dictionaries(
            {},
            optional={
                "epochs": st.one_of(st.just("auto"), st.integers(1, 10**9)),
                "budget": st.floats(1e-300, 1e300),
                "average": st.one_of(st.none(), st.just("auto"), st.floats(0, 0.999999)),
                "optimizer": NAMED,
                "log_ids": st.booleans(),
            },
        ),
    },
)


@settings(max_examples=60, deadline=None)
@given(LAYER)
@example({"model": {"name": "a", "options": {"": "\x85", "b": ("1e-3", 1e-3, "x\x85y", "\u2028", "a\n b ")}}})
def test_yaml_reads_back_to_an_equal_recipe(layer):
    made = Recipe.from_layers(layer)
    again = Recipe.from_yaml(made.to_yaml())
    assert again == made
    assert repr(again) == repr(made)  # 1 == 1.0 == True, but they are not the same option
    assert again.to_yaml() == made.to_yaml()


def test_a_recipe_with_a_design_reads_back_equal():
    design = parse({"stem": {"width": 8}, "stages": [{"width": 8}, {"width": 16, "stride": 2}]})
    made = Recipe.from_layers({"network": design.model_dump(), "image": {"mean": (0.5,), "std": (1e-05,)}})
    assert Recipe.from_yaml(made.to_yaml()) == made
    assert made.network == design


def test_updated_changes_dotted_keys_and_checks_them():
    before = Recipe.from_layers({"train": {"epochs": 3, "optimizer": {"name": "sgd", "options": {"rate": 0.1}}}})
    after = before.updated({"train.epochs": 30, "seed": 7, "train.optimizer": {"name": "adamw"}})
    assert (after.train.epochs, after.seed, after.train.optimizer.name) == (30, 7, "adamw")
    assert after.train.optimizer.options == {}
    assert before.train.epochs == 3
    assert after.updated({"train.epochs": 3, "seed": 0, "train.optimizer": before.train.optimizer}) == before
    with pytest.raises(UsageError, match=r"'train\.epochs' cannot be -1"):
        before.updated({"train.epochs": -1})
    with pytest.raises(UsageError, match=r"no key 'train\.epoch'"):
        before.updated({"train.epoch": 1})


# ------------------------------------------------------------------------------------------------------ hostile YAML


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/new:os.system ['touch {}']",
        "!!python/object:subprocess.Popen {{args: [touch, '{}']}}",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/tuple [1, 2]",
        "!mine 3",
        "!!str 3",
        "!!int ''",
        "!!timestamp nonsense",
    ],
)
@pytest.mark.parametrize("place", ["{}", "model: {}", "train: {{epochs: {} }}", "? {}\n: 1", "- {}"])
def test_yaml_tags_are_refused_and_run_nothing(tag, place, tmp_path):
    trace = tmp_path / "ran"
    with pytest.raises(UsageError, match=r"not plain YAML: the tag .* is not allowed.*refused"):
        parse_yaml(place.format(tag.format(trace)), whole=False)
    assert not trace.exists()


def test_the_tag_test_would_run_code_under_an_unsafe_loader(tmp_path):
    trace = tmp_path / "ran"
    yaml.unsafe_load(f"!!python/object/apply:os.system ['touch {trace}']")
    assert trace.exists()


def test_aliases_are_refused_in_bounded_memory():
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
    )
    code = (
        "import resource, sys; from convsmith.recipe import parse_yaml; from convsmith.errors import UsageError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))\n"
        "try: parse_yaml(sys.stdin.read())\n"
        "except UsageError as error: print(error.message)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=laughs, capture_output=True, text=True, timeout=60)
    assert done.stdout == "The recipe is not plain YAML: the alias *a0 is not allowed.\n", done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "not plain YAML"),
        ("a: 2024-13-45", "not plain YAML"),
        ("a: " + "9" * 5000, "not plain YAML"),
        ("a: [1", "not plain YAML"),
        ("a: 1\n---\nb: 2", "not plain YAML"),
        ("a: \x00", "not plain YAML"),
        ("{[1]: 2}", "not plain YAML"),
        ("a: &x 1\nb: *x", r"alias \*x"),
        ("- 1", "a mapping of sections, not list"),
        ("", "a mapping of sections, not NoneType"),
        ("x" * 1_000_001, "1,000,001 characters"),
    ],
)
def test_what_is_no_plain_recipe_is_refused(text, says):
    with pytest.raises(UsageError, match=says):
        Recipe.from_yaml(text)


@pytest.mark.parametrize("text", ["1: 2", "null: 3", "2024-01-01: 3", "true: 1"])
def test_keys_that_are_no_words_are_refused(text):
    with pytest.raises(UsageError):
        Recipe.from_yaml(text)


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(2**33)  # sparse
    with pytest.raises(UsageError, match=r"8,589,934,592 bytes; a recipe has at most 1,000,000"):
        load_layer(str(path))


def test_a_file_that_is_not_utf8_is_no_crash(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: caf\xe9")
    assert load_layer(str(path)) == {"name": "caf\ufffd"}


@pytest.mark.parametrize("value", ["os.system", "os:system", "__main__:run", "!!python/name"])
def test_an_import_path_as_a_value_is_only_an_unknown_name(value):
    from convsmith.training import OPTIMIZERS

    made = Recipe.from_layers({"train": {"optimizer": value}})
    with pytest.raises(UsageError, match="There is no optimiser named"):
        OPTIMIZERS.build(made.train.optimizer.name, [])
