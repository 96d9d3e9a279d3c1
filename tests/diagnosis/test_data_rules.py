"""Each rule about the images finds its broken example, and stays silent on the healthy twin."""

import shlex

import pytest
from made_runs import even, results, run

from convsmith.diagnosis import about_data, clean_checks, diagnose, oddities, verdict
from convsmith.evaluation import wilson


def leaking(count, role="test", kind="same"):
    return {
        "images": 500,
        "leaks": [
            {"first": f"train/{k}", "first_role": "train", "second": f"{role}/{k}", "second_role": role, "kind": kind}
            | {"likeness": 1.0}
            for k in range(count)
        ],
    }


def found(rule, **records):
    tables = records.pop("tables", {"test": even(50, 45)})
    return next((item for item in diagnose(run(results(**tables), **records)) if item.rule == rule), None)


def test_test_images_that_were_trained_on_make_the_result_worthless():
    finding = found("leak", audit=leaking(25))
    assert finding is not None
    assert finding.severity == "error"
    assert finding.says.startswith("25 test pictures (10 % of them) also stand on the other side of the split (25 eq")
    assert finding.evidence["leaked"] == 25
    assert finding.evidence["share"] == pytest.approx(0.1)
    assert (finding.evidence["same"], finding.evidence["near"], finding.evidence["mirrored"]) == (25, 0, 0)
    assert finding.where[0] == "test/0"
    assert finding.experiment == "convsmith data digits"


def test_no_leak_is_no_finding():
    assert found("leak", audit=leaking(0)) is None
    assert found("leak", audit={}) is None


def test_one_image_that_stands_in_two_training_images_is_one_leaked_image():
    audit = leaking(1)
    audit["leaks"].append({**audit["leaks"][0], "first": "train/other"})
    finding = found("leak", audit=audit)
    assert finding is not None
    assert (finding.evidence["leaked"], finding.evidence["pairs"]) == (1, 2)
    assert finding.says.startswith("1 test picture (0.4 % of them) also stands")


def test_a_leak_too_small_to_move_the_figure_by_a_point_is_a_warning():
    finding = found("leak", audit=leaking(2))
    assert finding is not None
    assert finding.severity == "warning"


def test_a_leak_into_tune_alone_is_a_warning_about_tune():
    finding = found("leak", audit=leaking(30, "tune", "near"))
    assert finding is not None
    assert finding.severity == "warning"
    assert finding.says.startswith("30 tune pictures also stand on the other side of the split (30 nearly equal)")


def test_the_figure_without_leaks_is_quoted_where_it_was_measured():
    splits = results(test=even(50, 45))
    splits["splits"]["test"]["without_leaks"] = {"n": 225, "left_out": 25, "accuracy": wilson(180, 225).to_json()}
    finding = diagnose(run(splits, audit=leaking(25)))[0]
    assert finding.rule == "leak"
    assert "Without them it is right for 80 % of 225 (between 74 % and 85 %)." in finding.says
    told = verdict(splits, [finding], audit=leaking(25)).trust
    assert "25 of them are also on the other side of the split, so the figure flatters." in told
    assert "Of the 225 others it names 80 of 100 rightly" in told
    assert "None of them was used for training" not in told


def test_a_leak_is_the_first_thing_to_do():
    splits, audit = results(test=even(50, 45)), leaking(25)
    told = verdict(splits, diagnose(run(splits, audit=audit)), audit=audit)
    assert told.next.startswith("25 test pictures")
    assert told.command == "convsmith data digits"


def test_pictures_under_two_names_are_found():
    near = {"first": "a/1", "second": "b/1", "likeness": 0.9, "mirrored": False}
    audit = {"label_conflicts": [["a/2", "b/2"]], "near_duplicates": [near | {"labels_differ": True}]}
    finding = found("label-conflicts", audit=audit)
    assert finding is not None
    assert finding.severity == "warning"
    assert finding.evidence == {"equal_sets": 1, "near_pairs": 1, "n": 4}
    assert finding.where == ("a/2", "b/2", "a/1", "b/1")
    assert found("label-conflicts", audit={"near_duplicates": [near | {"labels_differ": False}]}) is None


def test_suspected_groups_come_with_the_option_to_type():
    group = {"rule": r"(donor\d+)_", "groups": 12, "images": 300, "largest": 40, "example": ["a", "b"], "says": "So."}
    finding = found("suspected-groups", audit={"suspected_groups": [group], "groups": None})
    assert finding is not None
    assert finding.severity == "warning"
    words = shlex.split(finding.experiment)
    assert words[:4] == ["convsmith", "train", "--recipe", "runs/first/given.yaml"]
    assert words[-2:] == ["--group", r"(donor\d+)_"]
    assert finding.change == {"data.group": r"(donor\d+)_"}


def test_groups_that_were_stated_are_suspected_no_more():
    group = {"rule": "parent", "groups": 12, "images": 300, "largest": 40, "example": []}
    stated = {"rule": "parent", "n": 12, "largest": 40}
    assert found("suspected-groups", audit={"suspected_groups": [group], "groups": stated}) is None
    assert found("suspected-groups", audit={"suspected_groups": [], "groups": None}) is None


CLEAN = {
    "images": 500, "classes": {"a": 250, "b": 250}, "unreadable": [], "duplicates": [], "label_conflicts": [],
    "near_duplicates": [], "leaks": [], "suspected_groups": [], "groups": None, "forms": {},
}  # fmt: skip


def test_where_nothing_stood_out_the_checks_are_named():
    assert about_data(CLEAN) == (
        "Nothing stood out in 500 pictures: no unreadable file, no copies across the split, no picture in two "
        "classes, no sign of several pictures of one thing and no class far rarer than another."
    )


@pytest.mark.parametrize(
    ("missing", "claim"),
    [
        ("unreadable", "unreadable"), ("leaks", "across the split"), ("label_conflicts", "two classes"),
        ("suspected_groups", "several pictures"), ("classes", "rarer"),
    ],
)  # fmt: skip
def test_a_check_that_was_not_made_is_not_claimed(missing, claim):
    assert claim in about_data(CLEAN)
    assert claim not in about_data({key: value for key, value in CLEAN.items() if key != missing})


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"unreadable": [{"path": "x", "reason": "y"}]}, "1 file could not be read and was left out."),
        ({"unreadable": [{}, {}]}, "2 files could not be read and were left out."),
        ({"classes": {"a": 490, "b": 10}}, "There are only 10 of “b”, but 490 of “a”."),
        ({"duplicates": [["a", "b"]]}, "1 picture is there more than once"),
        ({"label_conflicts": [["a", "b"]]}, "1 picture is in more than one class."),
        (leaking(3), "3 test pictures are also among the training pictures (the same picture)."),
        (leaking(1, "tune", "near"), "1 tune picture is also among the training pictures (the same picture or nearly"),
        ({"suspected_groups": [{"groups": 9, "largest": 7}]}, "Names hint at 9 groups"),
        ({"forms": {"animated": {"n": 2}}}, "2 files are animated; only the first picture counts."),
    ],
)
def test_each_fault_is_told_alone_and_only_where_it_is(fault, said):
    assert oddities(CLEAN) == []
    told = oddities({**CLEAN, **fault})
    assert len(told) == 1
    assert told[0].startswith(said)


def test_beside_one_fault_the_checks_that_were_clean_are_named():
    told = about_data({**CLEAN, "unreadable": [{}]})
    assert told == (
        "1 file could not be read and was left out. Nothing else stood out: no copies across the split, no picture "
        "in two classes, no sign of several pictures of one thing and no class far rarer than another."
    )


@pytest.mark.parametrize(
    ("fault", "claim"),
    [
        ({"unreadable": [{}]}, "no unreadable file"), (leaking(1), "no copies across"),
        ({"label_conflicts": [["a", "b"]]}, "no picture in two"),
        ({"suspected_groups": [{"groups": 9, "largest": 7}]}, "no sign of several"),
        ({"classes": {"a": 490, "b": 10}}, "no class far"),
    ],
)  # fmt: skip
def test_what_was_found_is_never_claimed_to_be_absent(fault, claim):
    assert claim in clean_checks(CLEAN)
    assert claim not in clean_checks({**CLEAN, **fault})


def test_ten_to_one_is_not_yet_uneven():
    assert oddities({**CLEAN, "classes": {"a": 100, "b": 10}}) == []


def test_of_many_faults_the_gravest_are_told_and_the_rest_counted():
    audit = {**CLEAN, **leaking(3), "label_conflicts": [["a", "b"]], "unreadable": [{}], "duplicates": [["a", "b"]]}
    audit["classes"] = {"a": 490, "b": 10}
    told = about_data(audit)
    assert told.startswith("3 test pictures")
    assert told.endswith("1 file could not be read and was left out. And 2 more things, below.")


def test_an_older_audit_is_read_with_the_roles():
    audit, roles = {"duplicates": [["a", "b"]]}, {"a": "train", "b": "test"}
    assert oddities(audit, roles=roles)[0] == "1 test picture lies also, identical, among the training pictures."
    assert about_data({}) == ""
