import json
import re

import numpy as np
import pytest
from made_runs import even, measured, results, run

from convsmith.diagnosis import diagnose, verdict
from convsmith.diagnosis.verdict import of_100

JARGON = re.compile(
    r"\b(interval|bootstrap|wilson|recall|precision|f1|loss|logits?|epochs?|overfit\w*|baseline|accuracy|null)\b",
    re.I,
)


def judged(**tables):
    splits = results(**tables)
    return verdict(splits, diagnose(run(splits)))


GOOD = {"train": even(54, 54), "tune": even(54, 53), "test": even(54, 52)}
CHANCE = {"train": even(400, 82), "tune": even(100, 22), "test": even(100, 21)}
TINY = {"train": even(20, 18), "tune": even(8, 6), "test": even(8, 6)}


def texts(found):
    return [found.headline, found.right, found.fails, found.trust, found.next]


def test_a_good_a_chance_level_and_a_tiny_run_say_three_different_things():
    good, chance, tiny = (judged(**tables) for tables in (GOOD, CHANCE, TINY))
    assert (good.kind, chance.kind, tiny.kind) == ("good", "chance", "unsure")
    for name in ("headline", "right", "trust", "next", "command"):
        assert len({getattr(found, name) for found in (good, chance, tiny)}) == 3, name


def test_a_good_run_says_how_good_and_how_sure_that_is():
    found = judged(**GOOD)
    assert found.headline == "It names 96 of 100 pictures rightly."
    assert found.right == (
        "From 270 test pictures, the true figure lies between 93 and 98 of 100 with 95 % confidence. Answering always "
        "“kind 0” would be right for 20."
    )
    assert found.trust.startswith(
        "270 pictures leave 5 points between the lowest and the highest likely figure. None of them was used for"
    )
    assert found.command == "convsmith predict last PICTURES"


def test_a_run_at_chance_level_claims_nothing():
    found = judged(**CHANCE)
    assert found.headline == "It has not been shown to do better than guessing."
    assert "always “kind 0”" in found.right
    assert "cannot tell the two apart" in found.right
    assert "names belong to the pictures" in found.next


def test_a_tiny_test_set_asks_for_more_pictures_whatever_the_figure():
    found = judged(**TINY)
    assert found.headline == "Too few test pictures to say how good it is: there are only 40."
    assert found.trust.startswith("Not sure: 40 pictures leave 26 points")
    assert "about 290 would fix" in found.next
    perfect = judged(test=even(2, 2))
    assert perfect.kind == "unsure"
    assert "anywhere between 72 and 100 of 100" in perfect.right


def test_a_run_between_is_called_neither_good_nor_chance():
    found = judged(test=even(100, 60))
    assert found.kind == "partial"
    assert "names only 60 of 100" in found.headline


def test_a_class_is_called_weak_only_where_its_interval_lies_below_the_whole():
    table = np.diag([95, 95, 95, 50])
    table[:, 0] += [0, 5, 5, 50]
    table[0, 1] += 5
    weak = verdict(results(test=table))
    assert weak.fails.startswith(
        "It is weakest on “kind 3”: 50 of 100 right, in the long run between 40 and 60 of 100."
    )
    assert "answer “kind 0” for “kind 3”: 50 times among 100 such pictures." in weak.fails
    assert judged(test=even(100, 80)).fails.startswith("No kind of picture is surely worse")


def test_a_rare_class_with_one_unlucky_picture_is_not_called_weakest():
    table = np.diag([195, 60, 0])
    table[0, 1], table[1, 0], table[2, 0] = 5, 40, 1
    assert "weakest on “kind 1”" in verdict(results(test=table)).fails


def test_no_mistake_is_not_perfection():
    found = verdict(results(test=even(60, 60)))
    assert "does not mean that it never will" in found.fails
    assert "between 98 and 100 of 100" in found.right


def test_a_figure_from_tune_says_that_it_flatters():
    assert "flatters" in verdict(results(tune=even(60, 55))).trust
    assert "flatters" not in verdict(results(tune=even(60, 55), test=even(60, 55))).trust


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ({"a": "test", "b": "train", "c": "test", "d": "test"}, "Careful: 1 of them also lie"),
        ({"a": "test", "b": "test", "c": "train", "d": "train"}, "No copy of them lies among the pictures it learned"),
        ({"a": "test", "b": "tune", "c": "test", "d": "tune"}, "No copy of them lies among the pictures it learned"),
        (None, "2 sets of identical pictures were found"),
    ],
)
def test_identical_pictures_across_the_split_are_told(roles, said):
    audit = {"duplicates": [["a", "b"], ["c", "d"]]}
    assert said in verdict(results(test=even(60, 55)), audit=audit, roles=roles).trust


def test_the_next_step_is_the_first_finding_and_its_experiment():
    tables = {"train": even(100, 99), "tune": even(100, 85), "test": even(100, 85)}
    findings = diagnose(run(results(**tables)))
    found = verdict(results(**tables), findings)
    assert found.next == findings[0].says
    assert found.command == findings[0].experiment


def test_a_run_with_a_space_in_its_path_can_be_pasted():
    for tables, findings in ((GOOD, ()), ({"test": even(100, 60)}, ()), (TINY, ()), ({}, ())):
        assert "'my runs/first'" in verdict(results(**tables), findings, run="my runs/first").command


def test_nothing_measured_is_said():
    assert verdict({}).kind == "unknown"
    assert verdict({"splits": {"test": measured(np.zeros((2, 2), int))}}).kind == "unknown"


def test_words_anyone_knows():
    for tables in (GOOD, CHANCE, TINY, {"test": even(100, 60)}, {"tune": even(60, 55)}):
        for text in texts(judged(**tables)):
            assert not JARGON.search(text), text


def test_class_names_keep_their_capitals():
    found = verdict({"splits": {"test": measured(even(60, 58), names=("T-Shirt", "B", "C", "D", "E"))}})
    assert "“T-Shirt”" in found.right


def test_a_verdict_travels_as_json():
    found = judged(**GOOD)
    assert type(found).from_json(json.loads(json.dumps(found.to_json()))) == found


def test_limits_are_rounded_outwards_and_never_to_all_or_nothing():
    assert of_100(0.936, down=True) == "93"
    assert of_100(0.931, up=True) == "94"
    assert (of_100(0.9961), of_100(0.99995, down=True), of_100(1.0, up=True)) == ("99.6", "99.9", "100")
    assert of_100(0.93, up=True) == of_100(0.93, down=True) == "93"
