"""Policies of a user's own class, however plainly written, are values: equal, printed and saved by what they are."""

import dataclasses
import functools
import json
import pickle

import numpy as np
import pytest
import torch

import cyclewise as cw
from cyclewise.training.calls import as_text


@cw.register_policy
class Plain(cw.Policy):
    def __init__(self, top, total_steps=10, *, drops=()):
        self.top, self.total_steps, self.drops = top, total_steps, drops
        self._half = top / 2

    def value(self, step):
        return self.top if step in self.drops else self._half


class Hidden(cw.Policy):
    """Keeps its settings private, and a cache that fills up."""

    def __init__(self, top):
        self.total_steps, self._top = 10, top

    @functools.cached_property
    def table(self):
        return [self._top] * 10

    def value(self, step):
        return self.table[step]


class ByTable(cw.Policy):
    total_steps = 3

    def __init__(self, rates, curve=abs):
        self.rates, self.curve = np.asarray(rates), curve

    def value(self, step):
        return self.curve(self.rates[step])


class Slotted(cw.Policy):
    __slots__ = ("top",)
    total_steps = 4

    def __init__(self, top):
        self.top = top

    def value(self, step):
        return self.top


@cw.register_policy
class Described(cw.Policy):
    """Says itself what it is."""

    total_steps = 4

    def __init__(self, top):
        self._top = top
        self.num_calls = 0

    def to_dict(self):
        return {"policy": "Described", "version": 1, "top": self._top}

    def value(self, step):
        self.num_calls += 1
        return self._top


@dataclasses.dataclass
class Loose(cw.Policy):
    top: float
    total_steps: int = 10

    def value(self, step):
        return self.top


class Setting:
    def __init__(self, top):
        self.top = top


class Holding(cw.Policy):
    total_steps = 2

    def __init__(self, setting):
        self.setting = setting

    def value(self, step):
        return self.setting["a"].top


@dataclasses.dataclass(frozen=True)
class Curved(cw.Policy):
    curve: object
    total_steps: int = 5

    def value(self, step):
        return self.curve(step)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda top: Plain(top, drops=[1, 2]), "Plain(top=0.5, total_steps=10, drops=[1, 2], _half=0.25)"),
        (Hidden, "Hidden(total_steps=10, _top=0.5)"),
        (lambda top: ByTable([top, 1.0, 2.0]), "ByTable(rates=[0.5, 1.0, 2.0], curve=builtins.abs)"),
        (lambda top: ByTable(torch.tensor([top, 1, 2])), "ByTable(rates=[0.5, 1.0, 2.0], curve=builtins.abs)"),
        (Slotted, "Slotted(top=0.5)"),
        (Described, "Described(top=0.5)"),
        (Loose, "Loose(top=0.5, total_steps=10)"),
        (lambda top: Holding({"a": Setting(top)}), "Holding(setting={'a': Setting(top=0.5)})"),
    ],
)
def test_they_are_told_apart_by_what_they_are(make, text):
    policy, same, other = make(0.5), make(0.5), make(0.25)
    same.lr(1)
    assert repr(policy) == repr(same) == text
    assert policy == same
    assert policy != other
    assert repr(other) != text
    for wrapped in (lambda p: cw.Join([p, p]), lambda p: p.extend(total_steps=9, at_step=1)):
        assert wrapped(policy) == wrapped(same)
        assert wrapped(policy) != wrapped(other)
        assert repr(wrapped(policy)) == repr(wrapped(same))
        assert "0x" not in repr(wrapped(policy))
    if not isinstance(policy, Loose):  # a dataclass that is not frozen has no hash, as Python has it
        assert hash(policy) == hash(same)


def test_a_plain_registered_class_round_trips():
    for policy in (Plain(0.5), Plain(0.5, 20, drops=[1, 2]), Plain(0.5, drops=np.array([3])), Described(0.5)):
        for whole in (policy, cw.Join([policy, policy]), policy.extend(total_steps=9, at_step=1)):
            again = cw.policy_from_dict(json.loads(json.dumps(whole.to_dict())))
            assert again == whole
            assert again.lr(range(20)).tolist() == whole.lr(range(20)).tolist()
            assert pickle.loads(pickle.dumps(whole)) == whole


def test_functions_are_compared_as_themselves():
    assert ByTable([1.0], curve=lambda x: x) != ByTable([1.0], curve=lambda x: 2 * x)
    assert ByTable([1.0]) != Plain(1.0)
    assert Plain(1.0) != 1.0


@pytest.mark.parametrize("make", [Plain, Hidden, Slotted, Described, Loose])
def test_they_drive_groups_each_by_its_own(make):
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.ones(1)]}], lr=1.0)
    policies = [make(0.5), make(0.25)]
    scheduler = cw.PolicyLR(optimizer, policies)
    assert [group["lr"] for group in optimizer.param_groups] == [policy.lr(0) for policy in policies]
    scheduler.step()
    state = json.loads(json.dumps(scheduler.state_dict()))
    cw.PolicyLR(optimizer, [make(0.5), make(0.25)]).load_state_dict(state)


def double(step):
    return 2.0 * step


def test_the_text_by_which_fits_are_told_apart_holds_no_address():
    for policy in (Curved(double), cw.Join([Curved(double), Plain(0.5)])):
        assert " at 0x" in repr(policy)  # as dataclasses print functions
        assert " at 0x" not in as_text([policy])
    assert as_text([Curved(double)]) == f"Curved(curve={double.__module__}.double, total_steps=5)"
    assert as_text([Curved(Setting(2).__init__)]).endswith(".Setting.__init__ of Setting(top=2), total_steps=5)")
    assert (
        as_text([Holding(functools.partial(round, ndigits=2))]) == "Holding(setting=partial(builtins.round, ndigits=2))"
    )
    long = as_text([ByTable(np.arange(1e5))])
    assert long.startswith("ByTable(rates=<array of shape (100000,), sha256 ")
    assert long != as_text([ByTable(np.arange(1e5) + 1)])


def test_texts_of_earlier_versions_stay_as_they_were():
    cycle, drop = cw.OneCycle(max_lr=0.1, total_steps=5), cw.MultiStep(max_lr=0.1, milestones=[2], total_steps=5)
    policy = cw.Join([cycle, cw.Together(rate=drop), Loose(0.5)]).extend(total_steps=30, at_step=2)
    assert as_text([policy, policy], wd=0.5) == (
        "Extended(original=Join(policies=(OneCycle(max_lr=0.1, total_steps=5, pct_start=0.3, div_factor=25.0, "
        "final_div_factor=10000.0, base_momentum=None, max_momentum=None, anneal='cosine'), Together(rate=MultiStep("
        "max_lr=0.1, milestones=(2,), gamma=0.1, total_steps=5), momenta=None, decays=None), "
        "Loose(top=0.5, total_steps=10))), total_steps=30, at_step=2); wd=0.5"
    )
    assert as_text([cycle, drop]) == f"{cycle!r}; {drop!r}"


def test_one_that_holds_itself_is_printed():
    policy = Plain(0.5)
    policy.drops = [policy]
    assert repr(policy) == "Plain(top=0.5, total_steps=10, drops=[...], _half=0.25)"
