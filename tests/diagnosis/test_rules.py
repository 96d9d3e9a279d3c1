import json
import shlex

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import annealed_log, even, measured, results, run

from convsmith.diagnosis import RULES, Evidence, diagnose
from convsmith.diagnosis.evidence import difference, percent
from convsmith.evaluation import wilson
from convsmith.networks import parse_arguments


def rules_of(evidence):
    return [finding.rule for finding in diagnose(evidence)]


def still_learning(t):
    return 2.5 * np.exp(-2.5 * t)


def settled(t):
    """A loss that reached its level early and falls only as the rate is annealed, with a little noise."""
    return 0.5 + 2 * np.exp(-30 * t) - 0.3 * max(0.0, t - 0.7) + 0.02 * np.sin(7919 * t)


CONSTANT = [[100, 0, 0, 0, 0]] * 5


def test_a_network_that_gives_one_answer_is_found_first():
    found = diagnose(run(results(train=CONSTANT, tune=CONSTANT, test=CONSTANT)))
    assert [finding.rule for finding in found] == ["constant-predictor", "no-better-than-baseline"]
    assert found[0].severity == "error"
    assert found[0].where == ("kind 0",)
    assert found[0].evidence["share"] == 1


def test_a_commonest_class_of_98_percent_may_well_be_answered_always():
    assert "constant-predictor" not in rules_of(run(results(tune=[[490, 0], [10, 0]])))


def test_overfitting_is_found_where_the_gap_is_surely_there():
    found = diagnose(run(results(train=even(100, 99), tune=even(40, 30), test=even(40, 30))))
    assert [finding.rule for finding in found] == ["overfit"]
    assert found[0].severity == "warning"
    assert found[0].evidence["gap"] == pytest.approx(0.24)
    assert found[0].evidence["low"] > 0.15
    assert found[0].change == {"augment.preset": "digits"}
    assert found[0].experiment == "convsmith train --recipe runs/first/given.yaml --set augment.preset=digits"


def test_a_gap_whose_interval_reaches_zero_is_no_finding():
    assert rules_of(run(results(train=even(10, 9), tune=even(4, 3), test=even(4, 3)))) == []


def test_a_gap_of_five_points_is_no_finding_however_sure():
    assert rules_of(run(results(train=even(1000, 990), tune=even(1000, 940)))) == []


PHOTOS = {"augment": {"preset": "photos"}}


@pytest.mark.parametrize(
    ("recipe", "change"),
    [
        ({"data": {"limit": 500}}, {"data.limit": 1000}),
        ({"augment": {"preset": "objects"}}, {"train.label_smoothing": 0.1}),
        ({"transfer": {"mode": "finetune", "frozen_stages": 1}, **PHOTOS}, {"transfer.frozen_stages": 2}),
        (
            {"transfer": {"mode": "finetune", "frozen_stages": 3}, **PHOTOS, "train": {"epochs": 30}},
            {"train.epochs": 15},
        ),
        ({"transfer": {"mode": "probe"}, **PHOTOS}, {"transfer.mode": "finetune"}),
        ({"augment": {"preset": "objects"}, "image": {"size": 64}}, {"augment.preset": "photos"}),
        ({"augment": {"preset": "objects"}, "train": {"label_smoothing": 0.1, "epochs": 30}}, {"train.epochs": 15}),
    ],
)
def test_what_is_proposed_against_overfitting_depends_on_what_is_done_already(recipe, change):
    found = diagnose(run(results(train=even(100, 99), tune=even(40, 30)), recipe=recipe))
    assert found[0].change == change


def test_a_run_cut_short_is_found():
    tables = {"train": even(200, 130), "tune": even(100, 65), "test": even(100, 65)}
    found = diagnose(run(results(**tables), log=annealed_log(still_learning)))
    assert [finding.rule for finding in found] == ["undertrained"]
    assert found[0].severity == "warning"
    assert found[0].change == {"train.epochs": 20}
    assert found[0].experiment == "convsmith train --recipe runs/first/given.yaml --set train.epochs=20"


def test_a_fall_that_annealing_explains_is_no_finding():
    tables = {"train": even(200, 130), "tune": even(100, 65)}
    assert rules_of(run(results(**tables), log=annealed_log(settled))) == []


def test_a_network_that_knows_its_training_pictures_better_was_trained_enough():
    tables = {"train": even(200, 150), "tune": even(100, 70)}
    assert rules_of(run(results(**tables), log=annealed_log(still_learning))) == []


def test_a_network_with_nothing_left_to_learn_was_trained_enough():
    tables = {"train": even(200, 199), "tune": even(100, 99)}
    assert rules_of(run(results(**tables), log=annealed_log(still_learning))) == []


def test_a_tune_loss_that_rose_again_speaks_against_more_epochs():
    log = [*annealed_log(still_learning)]
    log += [
        {"kind": "tune", "epoch": i, "step": i, "time": 0.0, "values": {"log_loss": x}} for i, x in enumerate((1, 2))
    ]
    assert rules_of(run(results(train=even(200, 130), tune=even(100, 65)), log=log)) == []


def test_too_short_a_log_is_not_judged():
    log = annealed_log(still_learning)[::12]
    assert rules_of(run(results(train=even(200, 130), tune=even(100, 65)), log=log)) == []


def test_imbalance_is_found_before_the_symptom_that_it_explains():
    tables = {"train": [[980, 0], [20, 0]], "tune": [[490, 0], [10, 0]], "test": [[490, 0], [10, 0]]}
    found = diagnose(run(results(**tables), counts={"kind 0": 980, "kind 1": 20}))
    assert found[0].rule == "imbalance"
    assert found[0].severity == "error"
    assert found[0].where == ("kind 1",)
    assert found[0].evidence["ratio"] == 49


def test_imbalance_that_does_no_harm_is_a_warning_only():
    found = diagnose(run(results(tune=[[495, 5], [2, 18]]), counts={"kind 0": 1980, "kind 1": 80}))
    assert [(finding.rule, finding.severity) for finding in found] == [("imbalance", "warning")]


def test_nine_to_one_is_no_finding():
    assert rules_of(run(results(tune=[[85, 5], [2, 28]]), counts={"kind 0": 900, "kind 1": 100})) == []


def test_a_network_no_better_than_the_commonest_class_is_found():
    table = [[150, 100], [150, 100]]
    found = diagnose(run(results(train=table, tune=table, test=table)))
    assert [finding.rule for finding in found] == ["no-better-than-baseline"]
    assert found[0].evidence["low"] <= 0


def test_healthy_runs_are_silent():
    rng = np.random.default_rng(0)
    for _ in range(5):
        tables = {}
        for name, n in (("train", 200), ("tune", 60), ("test", 60)):
            table = np.diag(rng.binomial(n, 0.96, size=5))
            for row in range(5):
                table[row, (row + 1) % 5] = n - table[row, row]
            tables[name] = table
        counts = {f"kind {i}": 200 + i for i in range(5)}
        assert rules_of(run(results(**tables), log=annealed_log(settled), counts=counts)) == []


@given(st.lists(st.lists(st.integers(0, 8), min_size=3, max_size=3), min_size=6, max_size=6), st.data())
@settings(max_examples=30, deadline=None)
def test_forty_images_never_raise_a_confident_finding(rows, data):
    tune, train = np.array(rows[:3]), np.array(rows[3:])
    while tune.sum() > 40:
        tune = tune // 2
    found = diagnose(run(results(train=train, tune=tune, test=tune), log=annealed_log(still_learning)))
    for finding in found:
        assert finding.severity == "hint"
        assert finding.says.startswith("Only a suspicion")


def test_every_finding_is_complete_and_travels_as_json():
    log = annealed_log(still_learning)
    everything = [
        *diagnose(run(results(train=CONSTANT, tune=CONSTANT, test=CONSTANT))),
        *diagnose(run(results(train=even(100, 99), tune=even(40, 30)))),
        *diagnose(run(results(train=even(200, 130), tune=even(100, 65)), log=log)),
        *diagnose(run(results(tune=[[495, 5], [2, 18]]), counts={"kind 0": 1980, "kind 1": 80})),
    ]
    others = {"leak", "label-conflicts", "suspected-groups", "fine-tuning-did-not-help", "weak-slice"}
    others |= {"more-images-would-help", "more-images-will-not-help-much"}  # of test_data_rules and test_gain_rules
    assert {finding.rule for finding in everything} == set(RULES) - others
    for finding in everything:
        assert json.loads(json.dumps(finding.to_json(), allow_nan=False))["rule"] == finding.rule
        assert finding.says
        assert finding.source
        assert finding.evidence["n"] > 0
        assert finding.change
        assert finding.experiment.startswith("convsmith train ")


def test_a_run_without_records_has_no_findings():
    assert diagnose(Evidence()) == []
    assert diagnose(Evidence(results={"splits": {"test": measured(np.zeros((3, 3), int))}})) == []


def test_an_experiment_is_the_recipe_as_asked_with_the_change():
    change = {"train.epochs": 20, "augment.preset": "digits", "data.limit": None}
    assert run({}, folder="my runs/first").experiment(change) == (
        "convsmith train --recipe 'my runs/first/given.yaml' --set train.epochs=20 --set augment.preset=digits "
        "--set data.limit=null"
    )


def test_an_experiment_names_the_users_own_code_its_arguments_and_the_processes():
    code = {"name": "Net", "options": {"width": 8, "kind": "true", "wide": True}}
    words = shlex.split(run({}, model={"name": "own", "code": code}, world_size=2).experiment({"train.epochs": 4}))
    assert words[:4] == ["torchrun", "--nproc-per-node=2", "-m", "convsmith"]
    assert words[words.index("--model") + 1] == "runs/first/code.py:Net"
    given = [words[at + 1] for at, word in enumerate(words) if word == "--arg"]
    assert parse_arguments(given) == code["options"]


@pytest.mark.parametrize("epochs", ["auto", 8])
def test_where_steps_rule_the_epochs_are_those_of_the_log(epochs):
    log = [{"kind": "epoch", "epoch": k, "step": 20 * k, "values": {}} for k in range(1, 6)]
    log.append({"kind": "progress", "epoch": 5, "step": 113, "values": {}})
    recipe = {"train": {"epochs": epochs, "steps": 113}}
    assert run({}, log=log, recipe=recipe, plan={"choices": [{"name": "train.steps"}]}).epochs() == 6
    assert run({}, log=log, recipe=recipe).epochs() == (6 if epochs == "auto" else 8)
    assert run({}, recipe={"train": {"steps": 7}}).epochs() == 1


def test_the_interval_of_a_difference_by_newcombes_own_example():
    """Newcombe 1998, table II, method 10, 56/70 against 48/80: 0.0524 to 0.3339."""
    assert difference(wilson(56, 70), wilson(48, 80)) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_shares_are_never_rounded_to_all_or_nothing():
    assert [percent(p) for p in (0.5, 0.996, 0.004, 1.0, 0.0)] == ["50 %", "99.6 %", "0.4 %", "100 %", "0 %"]
