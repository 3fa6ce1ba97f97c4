"""Errors: an unknown name is answered with the near ones, and exit codes follow from the kind."""

from pipeline.errors import DamagedError, InputError, TutelageError, UnknownNameError, WorkError, near_names


def test_a_misspelt_name_is_answered_with_the_near_ones():
    error = UnknownNameError("model", "resnet81", ["resnet18", "resnet50", "lenet5"])
    assert str(error).startswith("unknown model 'resnet81'; did you mean resnet18")
    assert error.name == "resnet81"


def test_a_name_like_none_is_answered_with_some_known_ones():
    assert near_names("zzz", ["b", "a"]) == "; known: a, b"
    assert near_names("zzz", [f"name-{number:02}" for number in range(20)]).endswith("name-07, ...")
    assert near_names("zzz", []) == "; there are none"


def test_wrong_input_exits_with_2_and_failed_work_with_1():
    assert InputError.exit_code == UnknownNameError.exit_code == 2
    assert WorkError.exit_code == DamagedError.exit_code == 1
    assert issubclass(InputError, TutelageError)
