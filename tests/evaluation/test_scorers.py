"""A run's figures come anew from its records, and only from those of a run that came to its end."""

import numpy as np
import pytest
from made_predictions import predictions, saved

from convsmith.errors import RunError, UsageError
from convsmith.evaluation import Answers, commonest_class, evaluate, rescore, scored_without, slices
from convsmith.run_folder import EventLog, RunFolder


def make_run(tmp_path, *, kinds=("started", "finished"), task="classification", groups=None):
    run = RunFolder.create(tmp_path, "made", "recipe")
    counts = {"train": {f"class {i}": 9 + (i == 2) for i in range(5)}}
    run.write_json("manifest.json", {"task": task, "data": {"counts": counts}})
    saved(predictions(), run.predictions / "test.npz", groups)
    log = EventLog(run.log_path)
    for kind in kinds:
        log.append(kind)
    log.close()
    return run


@pytest.mark.parametrize("groups", [None, tuple(f"patient {i % 40}" for i in range(300))])
def test_the_figures_are_those_of_the_recorded_predictions_with_groups_and_baseline(tmp_path, groups):
    results = rescore(make_run(tmp_path, groups=groups))
    expected = evaluate(predictions(), majority=2, groups=groups)
    assert results["splits"] == {"test": expected}
    assert expected["metrics"]["accuracy"]["n"] == (40 if groups else 300)


def test_facts_beside_the_predictions_are_scored_and_come_anew_from_the_file(tmp_path):
    run, made = make_run(tmp_path), predictions()
    facts = {name: np.random.default_rng(0).random(300) for name in ("brightness", "aspect")}
    leaked = np.arange(300) % 10 == 0
    arrays = {name: getattr(made, name) for name in ("ids", "targets", "logits", "pixels")}
    groups = tuple(f"patient {i % 40}" for i in range(300))
    Answers({**arrays, **facts, "leaked": leaked}, made.classes, groups=groups).save(run.predictions / "test.npz")
    found = rescore(run)["splits"]["test"]
    assert found.pop("slices") == slices(made, facts, groups)
    assert found.pop("without_leaks") == scored_without(made, made.ids[leaked].tolist(), groups)
    assert found == evaluate(made, majority=2, groups=groups)
    Answers({**arrays, "leaked": ~(leaked | True)}, made.classes).save(run.predictions / "test.npz")
    assert rescore(run)["splits"]["test"] == evaluate(made, majority=2)


@pytest.mark.parametrize("kinds", [(), ("started", "epoch"), ("finished", "resumed")])
def test_a_run_that_did_not_end_is_not_scored(tmp_path, kinds):
    run = make_run(tmp_path, kinds=kinds)
    with pytest.raises(RunError, match="is not finished") as caught:
        rescore(run)
    assert "convsmith resume" in caught.value.mend
    assert not run.has("results.json")


def test_a_task_without_scorer_is_named(tmp_path):
    with pytest.raises(UsageError, match="no scorer named 'detection'"):
        rescore(make_run(tmp_path, task="detection"))


def test_the_commonest_class_is_the_first_of_equals_and_that_of_training():
    assert commonest_class({"train": {"a": 3, "b": 7, "c": 7}, "test": {"a": 50}}) == 1
    assert commonest_class({"test": {"a": 5}}) is None
