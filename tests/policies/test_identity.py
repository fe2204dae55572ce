"""What policies are told apart by: what decides their values, and nothing that caching or another process changes."""

import copy
import functools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import cyclewise as cw
from cyclewise.policies import identity
from cyclewise.training.calls import as_text


class Holding(cw.Policy):
    total_steps = 2

    def __init__(self, setting):
        self.setting = setting

    def value(self, step):
        return 0.1


class Setting:
    pass


class Memo(cw.Policy):
    """Keeps a setting and caches of three kinds in private attributes."""

    def __init__(self, top, total_steps=21):
        self.total_steps, self._top, self._memo, self._last = total_steps, top, {}, None

    def value(self, step):
        self._last = step
        self._table = [self._top] * 5
        return self._memo.setdefault(step, self._top / (1 + step))


def falling(top, *, memo=None):
    memo = {} if memo is None else memo

    def curve(step):
        return memo.setdefault(step, top / (1 + step))

    return curve


def with_defaults(top):
    def curve(step, top=top):
        return top

    return curve


def with_keywords(top):
    def curve(step, *, top=top):
        return top

    return curve


@pytest.mark.parametrize(
    "make",
    [
        falling,
        with_defaults,
        with_keywords,
        lambda top: functools.partial(falling(top)),
        lambda top: [falling(top)],
        lambda top: (lambda step: 0.1) if top == 0.1 else (lambda step: 0.2),
    ],
)
def test_functions_of_one_name_are_told_apart_by_what_they_hold(make):
    assert as_text([Holding(make(0.1))]) == as_text([Holding(make(0.1))])
    assert as_text([Holding(make(0.1))]) != as_text([Holding(make(0.2))])


def test_a_function_that_holds_itself_has_a_text():
    def curve(step):
        return curve(step - 1)

    assert identity.text(curve).endswith("curve[curve=...]")


def test_caching_changes_nothing():
    policies = [Memo(0.1), Memo(0.1)]
    policies[0].lr(range(21))
    policies[0].value(3)
    for used in (
        policies[0],
        copy.copy(policies[0]),
        copy.deepcopy(policies[0]),
        pickle.loads(pickle.dumps(policies[0])),
    ):
        assert used == policies[1]
        assert as_text([used]) == as_text([policies[1]]) == "Memo(total_steps=21, _top=0.1, _memo={}, _last=None)"
        assert used != Memo(0.2)
        assert as_text([used]) != as_text([Memo(0.2)])
    cached = Holding(falling(0.1))
    before = as_text([cached])
    cached.setting(3)
    assert as_text([cached]) == before


@pytest.mark.parametrize("value", [torch.arange(5000.0), torch.ones(2, 600)])
def test_long_tensors_are_told_by_a_hash(value):
    assert identity.text(Holding(value)).startswith(f"Holding(setting=<array of shape {tuple(value.shape)}, sha256 ")
    assert identity.text(Holding(value)) != identity.text(Holding(value + 1))


def test_classes_are_told_by_their_names():
    for kind, text in ((np.float64, "numpy.float64"), (np.ndarray, "numpy.ndarray"), (torch.Tensor, "torch.Tensor")):
        assert identity.text(Holding(kind)) == f"Holding(setting={text})"
        assert Holding(kind) == Holding(kind)


def test_objects_that_hold_themselves_are_compared_and_printed():
    one, other = Setting(), Setting()
    for each in (one, other):
        each.me, each.top = [each], 0.1
    assert as_text([Holding(one)]) == "Holding(setting=Setting(me=[...], top=0.1))"
    assert Holding(one) == Holding(other)
    other.top = 0.2
    assert Holding(one) != Holding(other)


@pytest.mark.parametrize("kind", [list, tuple, set, lambda values: dict.fromkeys(values, 1), str, lambda v: [list(v)]])
def test_the_text_of_much_is_short(kind):
    one, other = (as_text([Holding(kind([0.5 * k for k in range(20_000)] + [end]))]) for end in (-1, -2))
    assert max(len(one), len(other)) < 120
    assert one != other


def test_the_strings_of_a_set_read_the_same_in_every_process():
    code = (
        "from cyclewise.policies import identity; print(identity.text([{'a', 'b', 'c', 'd'}, frozenset('ab'), set()]))"
    )
    for seed in "123":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert text.stdout == "[{'a', 'b', 'c', 'd'}, frozenset({'a', 'b'}), set()]\n"
