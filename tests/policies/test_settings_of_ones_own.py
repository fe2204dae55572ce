"""Policies of somebody's own with settings that JSON has no word for; values that are no plain floats."""

import enum
import json

import numpy as np
import pytest
import torch

import cyclewise as cw


class Shape(enum.Enum):
    FLAT = "flat"


class Mode(str, enum.Enum):
    UP = "up"


class Level(enum.IntEnum):
    HIGH = 2


def halved(rate):
    return rate / 2


@cw.register_policy
class Table(cw.Policy):
    def __init__(self, total_steps, table):
        self.total_steps = total_steps
        self.table = dict(table)

    def value(self, step):
        return self.table[max(key for key in self.table if key <= step)]


@cw.register_policy
class Held(cw.Policy):
    def __init__(self, total_steps, how):
        self.total_steps = total_steps
        self.how = how

    def value(self, step):
        return cw.Hyperparameters(np.float32(0.5), np.float64(0.9), np.float32(0.25))


def scheduler(policy):
    return cw.PolicyLR(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9), policy)


def test_a_table_by_step_comes_back_equal():
    policy = Table(10, {0: 0.5, 5: 0.25})
    again = cw.policy_from_dict(json.loads(json.dumps(policy.to_dict())))
    assert again == policy
    assert again.table == {0: 0.5, 5: 0.25}


@pytest.mark.parametrize("policy", [Table(10, {0: 0.5, 5: 0.25}), Held(10, halved), Held(10, Shape.FLAT)])
def test_the_state_of_a_scheduler_is_plain_json(policy):
    first, second = scheduler(policy), scheduler(policy)
    first.optimizer.step()
    first.step()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.last_epoch == 1


def test_the_state_of_another_function_is_refused():
    state = json.loads(json.dumps(scheduler(Held(10, halved)).state_dict()))
    with pytest.raises(cw.PolicyError, match="state_dict must belong to the policy"):
        scheduler(Held(10, Shape.FLAT)).load_state_dict(state)


def test_what_json_does_not_hold_cannot_be_made_anew():
    with pytest.raises(cw.PolicyError) as caught:
        cw.policy_from_dict(Held(10, Shape.FLAT).to_dict())
    assert str(caught.value).startswith("values must be ones that JSON holds, got ")
    assert str(caught.value).endswith(
        ", of which only the text was kept; make the policy by hand, or give its class a to_dict of its own"
    )


def test_one_step_gives_floats():
    policy = Held(10, None)
    values = [policy.lr(3), policy.momentum(3), policy.weight_decay(3)]
    assert [type(value) for value in values] == [float] * 3
    assert values == [0.5, 0.9, 0.25]


@pytest.mark.parametrize("how", [Mode.UP, Level.HIGH, {Mode.UP: 1}])
def test_enums_that_are_text_or_numbers_come_back_equal(how):
    policy = Held(10, how)
    assert cw.policy_from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
