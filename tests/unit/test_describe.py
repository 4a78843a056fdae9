"""Objects as a model is told of them: what matters, within a budget, and nothing imported for it."""

import collections
import datetime
import decimal
import subprocess
import sys
import warnings

import numpy as np
import pytest

from nbllm.chat.describe import BUDGET, describe, tokens
from nbllm.model import load


def add(a, b=1):
    """The sum."""
    return a + b


class Own:
    def _repr_llm_(self):
        return "a thing of my own"


WHOLE = [3, -1.5, True, None, "", "text {x}", [1, "a", None], {"b": 2, "a": (1,)}, (), {3}, decimal.Decimal("1.10"),
         datetime.date(2026, 1, 2), range(9), 2**200, np.float32(1.5)]  # fmt: skip


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_what_is_short_is_its_own_text(value):
    assert describe(value) == (str(value), True)


DESCRIBED = {
    "NumPy array of shape (2, 3), int64, 0 to 5, mean 2.5\n[[0 1 2]\n [3 4 5]]": np.arange(6, dtype=np.int64).reshape(
        2, 3
    ),
    "NumPy array of shape (3,), float64, 1 not finite, 1 to 2, mean 1.5\n[ 1. nan  2.]": np.array([1, np.nan, 2]),
    "NumPy array of shape (2,), bool, 1 true\n[ True False]": np.array([True, False]),
    "NumPy array of shape (0, 4), float32\n[]": np.zeros((0, 4), np.float32),
    'def add(a, b=1):\n    """The sum."""\n    return a + b\n': add,
    "a thing of my own": Own(),
}


@pytest.mark.parametrize("text", DESCRIBED)
def test_others_are_described(text):
    assert describe(DESCRIBED[text]) == (text, False)


def test_what_is_long_is_cut_and_says_so():
    assert describe([7] * 600, 80) == (f"list of 600 items: [{'7, ' * 20}...]", False)
    assert describe(type("Long", (), {"__str__": lambda self: "abcdefghijkl"})(), 1) == (
        "abcd ... (8 more characters)",
        False,
    )
    assert describe("x" * 10_000, 1) == ("x" * 10_000, True)


def test_what_is_built_in_is_described_by_its_signature_and_documentation():
    assert describe(len)[0] == "len(obj, /)\nReturn the number of items in a container."


def failed(source):
    try:
        exec(compile(source, "<cell 1>", "exec"), {"add": add})
    except Exception as error:
        return error


def test_an_exception_is_its_traceback():
    text, whole = describe(failed("x = 1\nadd(x, 'b')"))
    assert not whole and text.splitlines() == [
        "Traceback (most recent call last):",
        f'  File "{__file__}", line {failed.__code__.co_firstlineno + 2}, in failed',
        '    exec(compile(source, "<cell 1>", "exec"), {"add": add})',
        '  File "cell", line 2, in <module>',
        "    ",
        f'  File "{__file__}", line {add.__code__.co_firstlineno + 2}, in add',
        "    return a + b",
        "TypeError: unsupported operand type(s) for +: 'int' and 'str'",
    ]


def test_of_a_long_traceback_the_end_is_kept():
    def deeper(n):
        return 1 / n if n == 0 else deeper(n - 1)

    try:
        deeper(300)
    except ZeroDivisionError as error:
        text = describe(error, 200)[0]
    lines = text.splitlines()
    assert (
        lines[:2] == ["Traceback (most recent call last):", "  ..."]
        and lines[-1] == "ZeroDivisionError: division by zero"
    )
    assert lines[-2] == "    return 1 / n if n == 0 else deeper(n - 1)" and tokens(text) <= 200


def test_a_repr_llm_that_gives_no_text_is_an_error():
    with pytest.raises(TypeError, match="_repr_llm_ returned int, not text"):
        describe(type("Bad", (), {"_repr_llm_": lambda self: 1})())


def test_of_a_text_that_is_too_long_no_more_is_counted_than_matters():
    assert tokens("abcd" * 10, 3) == 4 and tokens("abcd" * 10) == 10


def test_code_of_no_name_or_an_impossible_file_is_a_cell():
    for name, variables in (("<" + "x" * 300 + ">", {}), ("x", {"__name__": None})):
        try:
            exec(compile("1/0", "x", "exec").replace(co_filename=name), variables)
        except ZeroDivisionError as error:
            lines = describe(error)[0].splitlines()
        assert '  File "cell", line 1, in <module>' in lines and lines[-1] == "ZeroDivisionError: division by zero"


def test_a_class_of_a_module_without_a_name_is_described_by_what_it_comes_from():
    odd = type("Odd", (ValueError,), {"__module__": 5})
    assert describe(odd("no"))[0] == "<unknown>.Odd: no"


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas", reason="pandas is described, and not needed otherwise")


def test_a_data_frame_is_its_schema_its_statistics_and_its_head(pandas):
    frame = pandas.DataFrame({
        "city": pandas.Series(["Rome", "Oslo", "Rome", None, "Lima", "Bern", "Rome"], dtype=object),
        "price": [1.5, 2.5, None, 4.0, 5.0, 6.0, 5.0],
        "when": pandas.date_range("2026-01-01", periods=7, unit="ns"),
    })  # fmt: skip
    assert describe(frame)[0].splitlines() == [
        "pandas DataFrame of 7 rows and 3 columns",
        "- city: object, 1 missing, 4 distinct, most often Rome (3), Oslo (1), Lima (1)",
        "- price: float64, 1 missing, 1.5 to 6, mean 4, standard deviation 1.70294",
        "- when: datetime64[ns], 2026-01-01 00:00:00 to 2026-01-07 00:00:00",
        "First rows, the index before each:",
        "0 | Rome | 1.5 | 2026-01-01 00:00:00",
        "1 | Oslo | 2.5 | 2026-01-02 00:00:00",
        "2 | Rome | nan | 2026-01-03 00:00:00",
        "3 | None | 4.0 | 2026-01-04 00:00:00",
        "4 | Lima | 5.0 | 2026-01-05 00:00:00",
    ]


def test_what_is_infinite_is_told_without_a_warning(pandas):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        series = describe(pandas.Series([1, np.inf, -np.inf]))[0]
        array = describe(np.array([1e308, 1e308]))[0]
    assert series.startswith("pandas Series of 3 values, float64, -inf to inf, mean nan, standard deviation nan\n")
    assert array.startswith("NumPy array of shape (2,), float64, 1e+308 to 1e+308, mean inf\n")


def test_a_wide_or_empty_data_frame_and_a_series(pandas):
    wide = pandas.DataFrame(np.zeros((3, 1000)))
    lines = describe(wide, 200)[0].splitlines()
    shown = sum(line.startswith("- ") for line in lines) - 1
    assert lines[shown + 1] == f"- and {1000 - shown} more columns" and shown > 3
    assert describe(pandas.DataFrame())[0] == "pandas DataFrame of 0 rows and 0 columns"
    assert (
        describe(pandas.DataFrame({"a": []}, dtype=float))[0]
        == "pandas DataFrame of 0 rows and 1 columns\n- a: float64"
    )
    assert describe(pandas.Series([1, 2], ["x", "y"]))[0].splitlines() == [
        "pandas Series of 2 values, int64, 1 to 2, mean 1.5, standard deviation 0.707107",
        "First values, the index before each:", "x | 1", "y | 2",
    ]  # fmt: skip


def test_a_sample_stands_for_what_is_large(pandas, monkeypatch):
    monkeypatch.setattr("nbllm.chat.describe.SAMPLE", 3)
    assert describe(pandas.DataFrame({"a": [1, 2, 3, 900]}))[0].splitlines()[:2] == [
        "pandas DataFrame of 4 rows and 1 columns (statistics: of the first 3 rows)",
        "- a: int64, 1 to 3, mean 2, standard deviation 1",
    ]
    assert describe(np.array([1, 2, 3, 900]))[0].startswith(
        "NumPy array of shape (4,), int64, 1 to 3, mean 2 (statistics: of the first 3 values)\n"
    )


def holding_itself():
    values = []
    values += [values] * 125
    return values


def nested(depth):
    values = [1] * 100
    for _ in range(depth):
        values = [values] * 100
    return values


class Counted:
    """Counts how often it is shown."""

    shown = 0

    def __repr__(self):
        Counted.shown += 1
        return "7"


def test_of_lists_in_lists_no_more_is_looked_at_than_can_be_told():
    each = [[[[Counted()] * 100] * 100] * 100] * 100
    assert describe(each)[0].startswith("list of 100 items: [[[[7, 7, 7,") and Counted.shown <= BUDGET
    assert describe(holding_itself())[0].startswith("list of 125 items: [[[[[[[...], [...],")
    assert describe(nested(4))[0].startswith("list of 100 items: [[[[[1, 1, 1,")


class Key(str):
    """Counts how often it is compared, as sorting does."""

    compared = 0

    def __lt__(self, other):
        Key.compared += 1
        return str.__lt__(self, other)


def test_what_has_many_items_is_neither_sorted_nor_told_as_a_whole():
    Counted.shown, items = 0, {Key(n): Counted() for n in range(10_000)}
    for many in (items, collections.OrderedDict(items), set(items), collections.deque(items.values())):
        assert describe(many)[0].startswith(f"{type(many).__name__} of 10,000 items: ")
    assert Counted.shown < 1000 and Key.compared < 10_000


def test_of_an_array_with_many_axes_the_first_values_are_told():
    head = "NumPy array of shape (2, 2, 2, 2, 2, 2, 2, 2, 2, 2), int64"
    assert describe(np.arange(1024).reshape((2,) * 10))[0] == (
        f"{head}, 0 to 1023, mean 511.5\nFirst values: [0 1 2 3 4 5]"
    )
    much = np.broadcast_to(np.int64(3), (7,) * 20)  # of 638 petabytes
    assert describe(much)[0].endswith("First values: [3 3 3 3 3 3]")


HUGE = {
    "text": type("Huge", (), {"__str__": lambda self: "0123 äöü 一二三 " * 10_000})(),
    "list": [[1.25] * 1000] * 1000,
    "dict": {f"name {i}": "value " * 100 for i in range(1000)},
    "array": np.random.default_rng(1).normal(size=(100, 100, 100)),
    "exception": failed("raise ValueError('x1' * 10_000)"),
    "source": subprocess.Popen,
}


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("budget", [60, BUDGET])
def test_a_description_keeps_to_its_budget_as_the_default_model_counts(name, budget, vocabulary):
    text, whole = describe(HUGE[name], budget)
    assert not whole and len(vocabulary.tokenize(text)) <= budget + 15  # what says how much was left out


@pytest.fixture(scope="module")
def vocabulary(default_model):
    with load(default_model, context=64) as model:
        yield model


def test_nothing_is_imported_for_a_description():
    code = (
        "import sys; from nbllm.chat.describe import describe; describe(3); describe([]); print('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
