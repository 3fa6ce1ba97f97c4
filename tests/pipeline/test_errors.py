"""Errors: an unknown name is answered with the near ones, and exit codes follow from the kind."""

import pickle

import pytest

from flows.stage_failures import StagesFailedError
from pipeline.errors import (
    DamagedError,
    InputError,
    TutelageError,
    UnknownNameError,
    WorkError,
    first_line,
    listed,
    near_names,
    shortened,
)


def test_a_misspelt_name_is_answered_with_the_near_ones():
    error = UnknownNameError("model", "resnet81", ["resnet18", "resnet50", "lenet5"])
    assert str(error).startswith("unknown model 'resnet81'; did you mean resnet18")
    assert error.name == "resnet81"


@pytest.mark.parametrize(
    "error",
    [
        UnknownNameError("model", "resnet81", ["resnet18"]),
        StagesFailedError({"left": InputError("a: no images"), "right": InputError("b: no images")}),
        DamagedError("http://me:hidden@host/x: damaged"),
    ],
)
def test_an_error_comes_whole_out_of_another_process(error):
    received = pickle.loads(pickle.dumps(error))
    assert (type(received), str(received), received.exit_code) == (type(error), str(error), error.exit_code)
    assert received.__dict__.keys() == error.__dict__.keys()


def test_a_name_like_none_is_answered_with_some_known_ones():
    assert near_names("zzz", ["b", "a"]) == "; known: a, b"
    assert near_names("zzz", [f"name-{number:02}" for number in range(20)]).endswith("name-07 and 12 more")
    assert near_names("zzz", []) == "; there are none"


def test_wrong_input_exits_with_2_and_failed_work_with_1():
    assert InputError.exit_code == UnknownNameError.exit_code == 2
    assert WorkError.exit_code == DamagedError.exit_code == 1
    assert issubclass(InputError, TutelageError)


@pytest.mark.parametrize(
    "error",
    [
        InputError(f"tars: no image among its members ({', '.join(f'{n:05}.a.b.jpg' for n in range(9000))}); rename"),
        UnknownNameError("class", "x" * 90_000, ["y" * 90_000, "z" * 90_000]),
        UnknownNameError("class", "x" * 90, ["x" * 90 + "y" * 90_000]),
    ],
)
def test_an_error_line_is_bounded_however_many_or_long_the_names_in_it(error: TutelageError):
    assert len(str(error)) <= 1500
    assert str(error)[:4] in ("tars", "unkn")


def test_the_end_of_a_long_line_which_says_what_to_do_is_kept():
    assert str(WorkError(f"{'a' * 100_000}; rename the members")).endswith("; rename the members")


def test_an_error_is_one_line_that_any_terminal_can_show():
    error = InputError("folder \x1b[31mred\x1b[0m\nname \udcff\x00: is none")
    assert str(error) == "folder \\x1b[31mred\\x1b[0m name \\udcff\\x00: is none"
    assert str(error).isprintable()


@pytest.mark.parametrize("message", ["", " ", "\n", "\n \n"])
def test_an_error_without_a_message_is_named_by_its_type(message: str):
    assert first_line(RuntimeError(message)) == "RuntimeError"


def test_the_first_line_of_an_error_is_bounded():
    assert first_line(ValueError("\n  no such column \nTraceback ...")) == "no such column"
    assert len(first_line(ValueError("x" * 90_000))) == 300
    assert first_line(OSError("x" * 900 + ": No space left on device")).endswith(": No space left on device")


def test_of_many_names_some_are_listed_and_the_others_counted():
    assert listed(["b", "a"]) == "b, a"
    assert listed([f"n{number}" for number in range(2000)], limit=2) == "n0, n1 and 1,998 more"
    assert len(listed(["x" * 5000] * 2000)) < 1000
    assert shortened("short") == "short"
    assert len(shortened("x" * 5000, 100)) == 100
