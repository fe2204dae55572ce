import copy
import pickle

import pytest

from cyclewise import errors
from cyclewise._validation import describe, fraction, instance, non_negative, one_of, positive, real, whole
from cyclewise.errors import ArgumentError, ArgumentTypeError, CyclewiseError, DivergedError, PolicyError


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ArgumentError", ValueError),
        ("ArgumentTypeError", TypeError),
        ("PolicyError", ValueError),
        ("SuggestionError", ValueError),
        ("CheckpointError", RuntimeError),
        ("DivergedError", ArithmeticError),
        ("MissingExtraError", ImportError),
    ],
)
def test_every_error_has_the_base_and_the_built_in_a_caller_expects(name, builtin):
    kind = getattr(errors, name)
    assert issubclass(kind, CyclewiseError)
    assert issubclass(kind, builtin)


def test_the_tree_is_complete():
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    for kind in kinds - {CyclewiseError}:
        assert f"── {kind.__name__}" in errors.__doc__


def test_diverged_error_survives_pickling():
    error = DivergedError("the training loss is nan", step=3, lr=0.1)
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (str(copied), copied.step, copied.lr) == ("the training loss is nan", 3, 0.1)


MESSAGES = [
    (lambda: real("x", float("nan"), way_out="pass 1"), "x must be a finite number, got nan; pass 1"),
    (lambda: real("x", "1", way_out="pass 1"), "x must be a finite number, got '1'; pass 1"),
    (lambda: positive("max_lr", 0, way_out="pass 0.1"), "max_lr must be a finite number above 0, got 0; pass 0.1"),
    (
        lambda: positive("max_lr", True, way_out="pass 0.1"),
        "max_lr must be a finite number above 0, got True; pass 0.1",
    ),
    (
        lambda: non_negative("wd", -1e-4, way_out="pass 0"),
        "wd must be a finite number of at least 0, got -0.0001; pass 0",
    ),
    (
        lambda: fraction("pct_start", 30),
        "pct_start must be a fraction in [0, 1], got 30; for 30 % pass 0.3",
    ),
    (
        lambda: fraction("pct_start", 1.5),
        "pct_start must be a fraction in [0, 1], got 1.5; for 1.5 % pass 0.015",
    ),
    (
        lambda: fraction("pct_start", -0.1),
        "pct_start must be a fraction in [0, 1], got -0.1; for 30 % pass 0.3",
    ),
    (
        lambda: whole("num_steps", 2.5, minimum=1, way_out="pass 100"),
        "num_steps must be a whole number of at least 1, got 2.5; pass 100",
    ),
    (
        lambda: one_of("anneal", "{cos}", ("cosine", "linear")),
        "anneal must be one of 'cosine', 'linear', got '{cos}'; pass one of these names",
    ),
]


@pytest.mark.parametrize(("check", "message"), MESSAGES)
def test_messages_name_argument_value_and_way_out(check, message):
    with pytest.raises(ArgumentError) as caught:
        check()
    assert str(caught.value) == message


def test_a_check_raises_the_error_it_is_told_to():
    with pytest.raises(PolicyError):
        fraction("pct_start", 2, error=PolicyError)


def test_a_value_of_the_wrong_kind_is_a_type_error():
    with pytest.raises(ArgumentTypeError) as caught:
        instance("model", 3, str, "a model", way_out="pass one")
    assert str(caught.value) == "model must be a model, got int 3; pass one"


def test_numbers_come_back_as_plain_python_numbers():
    import numpy as np
    import torch

    assert type(real("x", np.float32(0.5), way_out="")) is float
    assert type(positive("x", torch.tensor(0.5), way_out="")) is float
    assert whole("n", 1e4, minimum=1, way_out="") == 10_000
    assert type(whole("n", np.int64(3), minimum=1, way_out="")) is int
    assert (fraction("p", 0), fraction("p", 1)) == (0.0, 1.0)


def test_long_values_are_described_by_their_type():
    assert describe("x" * 100) == "a str"
    assert describe(object()) == "a object"
