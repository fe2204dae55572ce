import copy
import json

import pytest
import torch

import cyclewise as cw

RULE = cw.CycleOnPlateau(base_lr=0.1, max_lr=0.5, cycle_steps=4, patience=3, smoothing=0.0, decay=0.5)


def optimizer_of(*names, **options):
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "name": name} for name in names]
    return torch.optim.SGD(groups, lr=1.0, **options)


def test_a_rule_drives_all_groups_and_its_state_is_saved():
    optimizer = optimizer_of("body", "head")
    scheduler, rates = cw.PolicyLR(optimizer, RULE), []
    for step in range(20):
        rates.append([group["lr"] for group in optimizer.param_groups])
        if step == 5:
            saved = json.loads(json.dumps(scheduler.state_dict()))
        scheduler.step(loss=1.0)
    assert all(body == head for body, head in rates)
    assert [rate for rate, _ in rates[:9]] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.3, 0.5, 0.275, 0.05, 0.05])
    again = cw.PolicyLR(other := optimizer_of("body", "head"), RULE)
    again.load_state_dict(saved)
    for step in range(5, 20):
        assert [group["lr"] for group in other.param_groups] == rates[step]
        again.step(loss=torch.tensor(1.0))


def test_a_rule_needs_the_loss():
    with pytest.raises(cw.ArgumentTypeError) as caught:
        cw.PolicyLR(optimizer_of("body"), RULE).step()
    assert (
        str(caught.value) == "loss must be given to step() of a rule, got None; call scheduler.step(loss=loss.item())"
    )


def test_a_policy_does_not_look_at_the_loss():
    scheduler = cw.PolicyLR(optimizer_of("body"), cw.Cosine(max_lr=0.1, total_steps=5))
    scheduler.step(loss=3.0)
    assert scheduler.last_epoch == 1


def test_the_state_of_another_rule_is_refused():
    other = cw.CycleOnPlateau(base_lr=0.1, max_lr=0.4, cycle_steps=4, patience=3)
    with pytest.raises(cw.PolicyError, match=r"state_dict must belong to the policy \{'rule': 'CycleOnPlateau'"):
        cw.PolicyLR(optimizer_of("body"), RULE).load_state_dict(cw.PolicyLR(optimizer_of("body"), other).state_dict())


@pytest.mark.parametrize("rule_state", [None, 3, [1.0], [None, None, 0, None, "a"], [None, None, 0, True, 0]])
def test_a_damaged_state_of_a_rule_is_refused(rule_state):
    scheduler = cw.PolicyLR(optimizer_of("body"), RULE)
    with pytest.raises(cw.PolicyError) as caught:
        scheduler.load_state_dict({**scheduler.state_dict(), "step": 3, "rule_state": rule_state})
    assert str(caught.value) == (
        f"state_dict must hold the 5 numbers of a rule's state, got {rule_state!r}; the state is damaged"
    )
    assert scheduler.last_epoch == 0


def test_policies_by_name_survive_another_order_and_new_groups():
    slow, fast = cw.Constant(lr=0.01, total_steps=9), cw.Linear(start_lr=1.0, end_lr=0.0, total_steps=9)
    optimizer = optimizer_of("head", "body")
    scheduler = cw.PolicyLR(optimizer, {"body": slow, "head": fast})
    scheduler.step()
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {"body": 0.01, "head": fast.lr(1)}
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "name": "body"})
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [fast.lr(2), 0.01, 0.01]
    state = json.loads(json.dumps(scheduler.state_dict()))
    reordered = optimizer_of("body", "head")
    cw.PolicyLR(reordered, {"body": slow, "head": fast}).load_state_dict(state)
    assert [group["lr"] for group in reordered.param_groups] == [0.01, fast.lr(2)]
    cw.set_hyperparameters(reordered, {"body": slow, "head": fast}, step=4)
    assert [group["lr"] for group in reordered.param_groups] == [0.01, 0.5]


def test_a_group_without_a_policy_of_its_name_is_refused():
    policies = {"body": cw.Constant(lr=0.01, total_steps=9)}
    with pytest.raises(cw.PolicyError) as caught:
        cw.PolicyLR(optimizer_of("body", "head"), policies)
    assert str(caught.value) == (
        "policy must have an entry for every group's \"name\", got ['body'] for a group named 'head'; "
        'name the groups: {"params": ..., "name": "head"}'
    )


def test_the_hook_is_called_when_a_cycle_is_complete():
    seen = []
    policy = cw.SGDR(max_lr=0.1, T_0=2, T_mult=2, num_cycles=3)
    scheduler = cw.PolicyLR(
        optimizer_of("body"), policy, on_cycle_end=lambda scheduler, cycle: seen.append((scheduler.last_epoch, cycle))
    )
    for _ in range(policy.total_steps):
        scheduler.step()
    assert seen == [(2, 1), (6, 2), (14, 3)]


def test_the_hook_is_called_for_a_rule_too():
    seen = []
    scheduler = cw.PolicyLR(optimizer_of("body"), RULE, on_cycle_end=lambda _, cycle: seen.append(cycle))
    for _ in range(20):
        scheduler.step(loss=1.0)
    assert seen == [1, 2, 3][: len(seen)]
    assert len(seen) >= 2


def test_weight_decay_is_scheduled_and_other_numbers_are_values_of_a_policy():
    decay = cw.Linear(start_lr=0.0, end_lr=0.1, total_steps=5)
    policy = cw.Together(rate=cw.Cosine(max_lr=0.1, total_steps=5), decays=decay)
    optimizer = optimizer_of("body", weight_decay=0.3)
    scheduler = cw.PolicyLR(optimizer, policy)
    seen = []
    for _ in range(5):
        seen.append(optimizer.param_groups[0]["weight_decay"])
        scheduler.step()
    assert seen == decay.lr(range(5)).tolist()
    with pytest.raises(cw.PolicyError, match="must not move the weight decay of Rprop, which has none"):
        cw.PolicyLR(torch.optim.Rprop([torch.zeros(1)]), policy)


def test_any_hyperparameter_moves_by_the_same_algebra():
    beta2 = cw.Linear(start_lr=0.9, end_lr=0.999, total_steps=5)
    eps = cw.Exponential(start_lr=1e-4, end_lr=1e-8, total_steps=5)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    policy = cw.OneCycle(max_lr=0.1, total_steps=5, base_momentum=0.8, max_momentum=0.9)
    scheduler = cw.PolicyLR(optimizer, policy, extra={"beta2": beta2, "eps": eps})
    for step in range(5):
        group = optimizer.param_groups[0]
        assert group["betas"] == (policy.momentum(step), beta2.lr(step))
        assert (group["lr"], group["eps"]) == (policy.lr(step), eps.lr(step))
        state = json.loads(json.dumps(scheduler.state_dict()))
        scheduler.step()
    scheduler.load_state_dict(state)
    assert optimizer.param_groups[0]["eps"] == eps.lr(4)
    with pytest.raises(cw.PolicyError, match="state_dict must belong to the extra"):
        cw.PolicyLR(optimizer, policy).load_state_dict(state)


def test_both_betas_are_no_number():
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    with pytest.raises(cw.PolicyError, match="got 'betas'; it has: beta2, eps, weight_decay"):
        cw.PolicyLR(optimizer, cw.Constant(lr=0.1, total_steps=5), extra={"betas": RULE_FREE})


@pytest.mark.parametrize("name", ["beta3", "lr", "nesterov", "params"])
def test_an_unknown_hyperparameter_is_refused(name):
    with pytest.raises(cw.PolicyError) as caught:
        cw.PolicyLR(optimizer_of("body"), cw.Constant(lr=0.1, total_steps=5), extra={name: RULE_FREE})
    assert str(caught.value) == (
        f"extra must name numbers in the parameter groups of SGD, got {name!r}; "
        "it has: dampening, momentum, weight_decay"
    )


RULE_FREE = cw.Constant(lr=0.1, total_steps=5)


def test_copies_go_on_by_themselves():
    scheduler = cw.PolicyLR(optimizer_of("body"), cw.Cosine(max_lr=0.1, total_steps=5))
    other = copy.deepcopy(scheduler)
    other.step()
    assert (scheduler.last_epoch, other.last_epoch) == (0, 1)


@pytest.mark.parametrize("own", ["momentum", "weight_decay"])
@pytest.mark.parametrize("kind", [lambda policy: policy, lambda policy: [policy], lambda policy: {"body": policy}])
def test_what_the_policy_moves_is_no_extra(own, kind):
    optimizer = optimizer_of("body")
    before = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
    part = {"momentum": "momenta", "weight_decay": "decays"}[own]
    policy = cw.Together(rate=RULE_FREE, **{part: RULE_FREE})
    with pytest.raises(cw.PolicyError) as caught:
        cw.PolicyLR(optimizer, kind(policy), extra={own: RULE_FREE})
    assert str(caught.value) == (
        f"extra must not name what the policy itself moves, got {own!r}; leave it out of extra, or leave the policy's "
        "own at None"
    )
    assert {name: value for name, value in optimizer.param_groups[0].items() if name != "params"} == before
    cw.PolicyLR(optimizer, kind(RULE_FREE), extra={own: RULE_FREE})
