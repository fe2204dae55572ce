"""Groups that an optimizer is given after its scheduler was made."""

import pytest
import torch

import cyclewise as cw
from cyclewise.scheduler import read_rates

PLAIN = cw.OneCycle(max_lr=0.4, total_steps=10)
RULE = cw.CycleOnPlateau(base_lr=0.25, max_lr=0.5, cycle_steps=4, patience=2)


def group(**options):
    return {"params": [torch.nn.Parameter(torch.ones(3))], **options}


def fresh(*names, **options):
    return torch.optim.SGD([group(name=name) for name in names or ("body",)], **{"lr": 0.125, **options})


@pytest.mark.parametrize("policy", [PLAIN, {"body": PLAIN}, RULE], ids=["single", "by name", "rule"])
@pytest.mark.parametrize("lr", [0.125, torch.tensor(0.125)], ids=["number", "tensor"])
def test_an_added_group_follows_from_the_next_step_on_and_has_a_base_rate(policy, lr):
    optimizer = fresh(lr=lr)
    scheduler = cw.PolicyLR(optimizer, policy)
    start = float(scheduler.base_lrs[0])
    scheduler.step(loss=1.0)
    optimizer.add_param_group(group(name="body", lr=0.0625))
    # Until then it keeps what it was added with, as under torch's schedulers: they write when they step.
    assert read_rates(optimizer)[1] == 0.0625
    assert len(scheduler.get_last_lr()) == 2
    scheduler.step(loss=1.0)
    assert read_rates(optimizer)[1] == pytest.approx(read_rates(optimizer)[0])
    assert [float(rate) for rate in scheduler.base_lrs] == pytest.approx([start] * 2)
    optimizer.add_param_group(group(name="body"))
    scheduler.load_state_dict({**scheduler.state_dict(), "step": 5})
    assert read_rates(optimizer)[1:] == pytest.approx(read_rates(optimizer)[:1] * 2)
    assert len(scheduler.base_lrs) == 3


def test_it_may_be_given_the_present_values_at_once():
    optimizer = fresh()
    scheduler = cw.PolicyLR(optimizer, PLAIN)
    scheduler.step()
    optimizer.add_param_group(group(name="head"))
    cw.set_hyperparameters(optimizer, scheduler.policy, step=scheduler.last_epoch)
    assert read_rates(optimizer) == [PLAIN.lr(1)] * 2


def test_of_one_policy_per_group_the_added_group_has_none():
    optimizer = fresh("body", "head")
    scheduler = cw.PolicyLR(optimizer, [PLAIN, PLAIN])
    scheduler.step()
    optimizer.add_param_group(group(name="new"))
    for call in (scheduler.step, lambda: scheduler.load_state_dict(scheduler.state_dict())):
        with pytest.raises(cw.PolicyError) as caught:
            call()
        assert str(caught.value) == (
            "policy must have one policy per parameter group, got 2 policies for 3 groups, since the groups changed; "
            "make a new PolicyLR with a policy for each, and go on with "
            "load_state_dict({**its.state_dict(), 'step': 1})"
        )
        assert (scheduler.last_epoch, read_rates(optimizer)) == (1, [PLAIN.lr(1), PLAIN.lr(1), 0.125])
    later = cw.PolicyLR(optimizer, [PLAIN, PLAIN, PLAIN])
    later.load_state_dict({**later.state_dict(), "step": 1})
    later.step()
    assert read_rates(optimizer) == [PLAIN.lr(2)] * 3


def test_by_name_an_added_group_needs_one_that_is_known():
    optimizer = fresh("body", "head")
    scheduler = cw.PolicyLR(optimizer, {"body": PLAIN, "head": PLAIN})
    optimizer.add_param_group(group())
    for call in (scheduler.step, lambda: scheduler.load_state_dict(scheduler.state_dict())):
        with pytest.raises(cw.PolicyError) as caught:
            call()
        assert str(caught.value) == (
            "policy must have an entry for every group's \"name\", got ['body', 'head'] for a group named None; "
            'name the groups: {"params": ..., "name": "head"}'
        )
        assert (scheduler.last_epoch, read_rates(optimizer)) == (0, [PLAIN.lr(0), PLAIN.lr(0), 0.125])
    # A state that was saved with other names takes the names along.
    optimizer = fresh("body", "head")
    scheduler = cw.PolicyLR(optimizer, {"body": PLAIN, "head": PLAIN})
    optimizer.load_state_dict(fresh("body", "tail").state_dict())
    with pytest.raises(cw.PolicyError, match="for a group named 'tail'"):
        scheduler.step()


def test_of_one_policy_per_group_a_group_that_was_taken_out_is_named_too():
    optimizer = fresh("body", "head")
    scheduler = cw.PolicyLR(optimizer, [PLAIN, PLAIN])
    del optimizer.param_groups[1]
    with pytest.raises(cw.PolicyError, match="2 policies for 1 groups, since the groups changed; make a new PolicyLR"):
        scheduler.step()
