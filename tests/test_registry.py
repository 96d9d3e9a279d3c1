"""A table gives what it names, and says what is close to a name it does not have."""

import pytest

from convsmith.errors import UsageError
from convsmith.registry import Entry, Registry, suggestion


def scale(number, factor=2):
    return number * factor


TABLE = Registry(
    "operation",
    [
        Entry("scale", scale, "times a factor"),
        Entry("join", "os.path:join", "a function that is imported when it is used"),
        Entry("open", lambda number, **options: options, "takes any option"),
    ],
)


def test_an_entry_is_built_with_its_options():
    assert TABLE.build("scale", 3) == 6
    assert TABLE.build("scale", 3, factor=5) == 15
    assert TABLE.build("open", 1, anything=2) == {"anything": 2}


def test_a_lazy_entry_is_imported_when_it_is_used():
    assert TABLE.build("join", "a", "b") == "a/b"
    missing = Registry("thing", [Entry("gone", "no_such_module_here:f", "is not there")])
    assert list(missing) == ["gone"]
    with pytest.raises(ModuleNotFoundError):
        missing.build("gone")


def test_a_table_reads_like_a_mapping():
    assert list(TABLE) == ["scale", "join", "open"]
    assert len(TABLE) == 3
    assert "scale" in TABLE
    assert "scales" not in TABLE
    assert TABLE["scale"].summary == "times a factor"


def test_two_entries_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two entries of the model table are named 'a'"):
        Registry("model", [Entry("a", scale, ""), Entry("a", scale, "")])


@pytest.mark.parametrize(
    ("call", "says", "mend"),
    [
        (lambda: TABLE["scal"], "no operation named 'scal'", "Did you mean scale?"),
        (lambda: TABLE["zzz"], "no operation named 'zzz'", "Known: join, open, scale."),
        (lambda: TABLE["os.system"], "no operation named 'os.system'", "Known"),
        (lambda: TABLE.build("posix:system", "true"), "no operation named 'posix:system'", "Known"),
        (lambda: TABLE.build("scale", 1, facto=3), "'scale' has no option 'facto'", "Did you mean factor?"),
        (lambda: TABLE.check("scale", {"x": 1}), "'scale' has no option 'x'", "Known: factor."),
        (lambda: TABLE.build("scale", 1, number=3), "multiple values for argument 'number'", ""),
        (lambda: TABLE.build("scale"), "missing a required argument: 'number'", ""),
    ],
)
def test_what_is_not_in_the_table_is_refused_with_what_is_close(call, says, mend):
    with pytest.raises(UsageError) as caught:
        call()
    assert says in caught.value.message
    assert mend in caught.value.mend


def test_a_suggestion_names_the_close_ones_or_all():
    assert suggestion("cosin", ["cosine", "constant"]) == "Did you mean cosine?"
    assert suggestion("q", ["b", "a"]) == "Known: a, b."
    assert suggestion("q", []) == "It takes none."
