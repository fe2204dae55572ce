import copy
import json
import re
import sys
import warnings

import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise.scheduler import read_rates, write_rates

MOMENTA = {"base_momentum": 0.85, "max_momentum": 0.95}
CYCLE = cw.OneCycle(max_lr=0.4, total_steps=10, **MOMENTA)
PLAIN = cw.OneCycle(max_lr=0.4, total_steps=10)


def weights():
    return [torch.nn.Parameter(torch.ones(3))]


def fresh(kind=torch.optim.SGD, **options):
    return kind(weights(), **{"lr": 0.1, **options})


def test_it_is_a_torch_scheduler_that_leaves_the_groups_alone():
    optimizer = fresh(momentum=0.9)
    keys, step = set(optimizer.param_groups[0]), optimizer.step
    scheduler = cw.PolicyLR(optimizer, CYCLE)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert set(optimizer.param_groups[0]) == keys
    assert optimizer.step == step
    assert (scheduler.last_epoch, scheduler._step_count) == (0, 1)
    assert scheduler.base_lrs == scheduler.get_last_lr() == scheduler.get_lr() == [CYCLE.lr(0)]
    scheduler.step()
    assert (scheduler.last_epoch, scheduler._step_count) == (1, 2)
    assert scheduler.get_last_lr() == [CYCLE.lr(1)]
    assert scheduler.policy is CYCLE


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.Adam, {}),
        (torch.optim.AdamW, {"betas": (0.8, 0.98)}),
        (torch.optim.RMSprop, {"momentum": 0.5}),
        (torch.optim.NAdam, {}),
    ],
)
def test_rate_and_momentum_are_written_at_every_step(kind, options):
    optimizer = fresh(kind, **options)
    scheduler = cw.PolicyLR(optimizer, CYCLE)
    group = optimizer.param_groups[0]
    beta2 = group.get("betas", (None, None))[1]
    for step in range(15):
        assert group["lr"] == CYCLE.lr(step)
        assert (group["betas"][0] if "betas" in group else group["momentum"]) == CYCLE.momentum(step)
        if beta2 is not None:
            assert group["betas"] == (CYCLE.momentum(step), beta2)
            assert type(group["betas"]) is tuple
        if step < 10:
            scheduler.step()
        else:
            break


@pytest.mark.parametrize(
    ("kind", "options", "key", "value"),
    [
        (torch.optim.SGD, {"momentum": 0.0}, "momentum", 0.0),
        (torch.optim.RMSprop, {"momentum": 0.3}, "momentum", 0.3),
        (torch.optim.AdamW, {}, "betas", (0.9, 0.999)),
    ],
)
def test_momentum_moves_only_if_the_policy_has_one(kind, options, key, value):
    optimizer = fresh(kind, **options)
    scheduler = cw.PolicyLR(optimizer, PLAIN)
    scheduler.step()
    assert optimizer.param_groups[0][key] == value


@pytest.mark.parametrize("kind", [torch.optim.Adagrad, torch.optim.LBFGS, torch.optim.Adadelta])
def test_an_optimizer_without_momentum_is_named(kind):
    with pytest.raises(cw.PolicyError) as caught:
        cw.PolicyLR(fresh(kind), CYCLE)
    assert str(caught.value) == (
        f"policy must not move the momentum of {kind.__name__}, which has neither momentum nor betas, "
        f"got {CYCLE!r}; leave its momenta at None (in fit_one_cycle: moms=None)"
    )
    cw.PolicyLR(fresh(kind), PLAIN)


def test_tensor_rates_and_betas_are_written_in_place():
    lr, beta1, beta2 = torch.tensor(0.1), torch.tensor(0.9), torch.tensor(0.999)
    optimizer = torch.optim.Adam(weights(), lr=lr, betas=(beta1, beta2), capturable=False, foreach=False)
    scheduler = cw.PolicyLR(optimizer, CYCLE)
    scheduler.step()
    group = optimizer.param_groups[0]
    assert group["lr"] is lr
    assert group["betas"][0] is beta1
    assert lr.item() == pytest.approx(CYCLE.lr(1))
    assert beta1.item() == pytest.approx(CYCLE.momentum(1))
    assert beta2.item() == pytest.approx(0.999)
    last = scheduler.get_last_lr()[0]
    assert last is not lr


def test_a_policy_per_group_and_wrong_counts():
    optimizer = torch.optim.SGD([{"params": weights()}, {"params": weights()}], lr=0.1)
    slow = cw.Constant(lr=0.01, total_steps=5)
    scheduler = cw.PolicyLR(optimizer, [slow, PLAIN])
    assert read_rates(optimizer) == [0.01, PLAIN.lr(0)]
    assert scheduler.policy == [slow, PLAIN]
    with pytest.raises(cw.PolicyError) as caught:
        cw.PolicyLR(optimizer, [slow])
    assert str(caught.value) == (
        "policy must have one policy per parameter group, got 1 policies for 2 groups; "
        "pass a single policy to drive all groups alike"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sgd", PLAIN), "optimizer must be a torch.optim.Optimizer, got str 'sgd'; "
                         "make one first, for example torch.optim.SGD(model.parameters(), lr=0.1)"),
        ((fresh(), 0.1), "policy must be a policy, a list of one per parameter group, or a dict of them by the groups' "
                         "names, got float 0.1; pass for example OneCycle(max_lr=0.1, total_steps=1000)"),
    ],
)  # fmt: skip
def test_wrong_kinds_are_refused(arguments, message):
    for make in (cw.PolicyLR, lambda *pair: cw.set_hyperparameters(*pair, step=0)):
        with pytest.raises(cw.ArgumentTypeError) as caught:
            make(*arguments)
        assert str(caught.value) == message


def test_groups_added_later_follow_the_single_policy():
    optimizer = fresh()
    scheduler = cw.PolicyLR(optimizer, PLAIN)
    scheduler.step()
    optimizer.add_param_group({"params": weights()})
    scheduler.step()
    assert read_rates(optimizer) == [PLAIN.lr(2)] * 2
    assert len(scheduler.get_last_lr()) == 2


def test_it_holds_after_the_end_and_warns_exactly_once():
    optimizer = fresh()
    scheduler = cw.PolicyLR(optimizer, PLAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(10):
            scheduler.step()
    with pytest.warns(UserWarning, match="the policy has 10 steps") as caught:
        scheduler.step()
    assert str(caught[0].message) == (
        "the policy has 10 steps and step() was called 11 times; "
        "its last values are held; for a longer run use policy.extend(total_steps=..., at_step=...)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()
    assert read_rates(optimizer) == [PLAIN.lr(9)]
    assert scheduler.last_epoch == 12


def test_an_epoch_is_refused():
    with pytest.raises(cw.ArgumentTypeError) as caught:
        cw.PolicyLR(fresh(), PLAIN).step(3)
    assert str(caught.value) == (
        "epoch must be left out, got 3; the scheduler counts its own steps, one per optimizer update"
    )


def test_state_is_plain_json_and_loads_any_number_of_times():
    optimizer = fresh(momentum=0.9)
    scheduler = cw.PolicyLR(optimizer, cw.Join([CYCLE, CYCLE.extend(total_steps=20, at_step=5)]))
    for _ in range(7):
        scheduler.step()
    state = json.loads(json.dumps(scheduler.state_dict()))
    for _ in range(3):
        scheduler.step()
        scheduler.load_state_dict(copy.deepcopy(state))
        assert scheduler.last_epoch == 7
        assert read_rates(optimizer) == [CYCLE.lr(7)]


def test_the_state_of_another_policy_is_refused():
    scheduler = cw.PolicyLR(fresh(), PLAIN)
    other = cw.PolicyLR(fresh(), cw.Constant(lr=0.1, total_steps=10))
    with pytest.raises(cw.PolicyError, match=re.escape("state_dict must belong to the policy {'policy': 'OneCycle'")):
        scheduler.load_state_dict(other.state_dict())
    theirs = torch.optim.lr_scheduler.StepLR(fresh(), 3)
    with pytest.raises(cw.PolicyError, match="state_dict must be that of a PolicyLR"):
        scheduler.load_state_dict(theirs.state_dict())
    for step in (-1, True, 10**30, 1.0, None):
        with pytest.raises(cw.PolicyError) as caught:
            scheduler.load_state_dict({**scheduler.state_dict(), "step": step})
        assert str(caught.value) == f"state_dict must hold a step from 0 to 2**53, got {step}; the state is damaged"
    assert scheduler.last_epoch == 0


LONG = cw.Join([
    cw.Linear(start_lr=0.0, end_lr=0.05, total_steps=50),
    cw.OneCycle(max_lr=0.05, total_steps=150),
    cw.Cosine(max_lr=0.03, total_steps=100),
])  # fmt: skip
TARGETS = torch.arange(300.0).sin()


def train(model, optimizer, scheduler, steps):
    seen = []
    for step in steps:
        optimizer.zero_grad()
        (model(torch.ones(1, 2)) - TARGETS[step]).square().sum().backward()
        optimizer.step()
        seen.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    return seen


@pytest.mark.parametrize("order", ["optimizer first", "scheduler first", "made after loading"])
@pytest.mark.parametrize("policy", [LONG, cw.OneCycle(max_lr=0.05, total_steps=300, **MOMENTA)])
def test_resuming_at_every_step_equals_the_uninterrupted_run(policy, order):
    def make():
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        return model, torch.optim.SGD(model.parameters(), lr=0.7, momentum=0.9)

    model, optimizer = make()
    scheduler = cw.PolicyLR(optimizer, policy)
    saved, rates = [], []
    for step in range(300):
        saved.append(copy.deepcopy((model.state_dict(), optimizer.state_dict(), scheduler.state_dict())))
        rates += train(model, optimizer, scheduler, [step])
    for step in range(0, 300):
        again, its_optimizer = make()
        weights_, state, schedule = copy.deepcopy(saved[step])
        again.load_state_dict(weights_)
        if order == "made after loading":
            its_optimizer.load_state_dict(state)
        its_scheduler = cw.PolicyLR(its_optimizer, policy)
        if order == "scheduler first":
            its_scheduler.load_state_dict(schedule)
            its_optimizer.load_state_dict(state)
        else:
            its_optimizer.load_state_dict(state)
            its_scheduler.load_state_dict(schedule)
        # Every step is begun from; the run to the end is made from some of them, to keep this short.
        steps = range(step, 300 if step % 37 == 0 or step > 295 else step + 2)
        assert train(again, its_optimizer, its_scheduler, steps[: 300 - step]) == rates[step : step + len(steps)]
        if steps[-1] == 299:
            assert torch.equal(again.weight, model.weight)


def test_ctrl_c_between_any_two_lines_leaves_optimizer_and_scheduler_consistent():
    num_lines = 0
    for interrupted_line in range(1, 200):
        optimizer = torch.optim.SGD([{"params": weights()}, {"params": weights()}], lr=0.1, momentum=0.9)
        scheduler = cw.PolicyLR(optimizer, CYCLE)
        scheduler.step()
        count = 0

        def trace(frame, event, argument, last=interrupted_line):
            nonlocal count
            if event == "line" and "cyclewise" in frame.f_code.co_filename:
                count += 1
                if count == last:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        was_interrupted = False
        sys.settrace(trace)
        try:
            scheduler.step()
        except KeyboardInterrupt:
            was_interrupted = True
        finally:
            sys.settrace(None)
        step = scheduler.last_epoch
        assert step in (1, 2)
        for group in optimizer.param_groups:
            assert (group["lr"], group["momentum"]) == (CYCLE.lr(step), CYCLE.momentum(step))
        if not was_interrupted:
            break
        num_lines = interrupted_line
    assert num_lines > 10


def test_a_skipped_update_is_a_skipped_call():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler, scaler = cw.PolicyLR(optimizer, PLAIN), torch.amp.GradScaler("cpu", init_scale=8.0)
    for inputs in (torch.ones(1, 2), torch.full((1, 2), float("inf")), torch.ones(1, 2)):
        optimizer.zero_grad()
        scaler.scale(model(inputs).sum()).backward()
        scaler.step(optimizer)
        scale = scaler.get_scale()
        scaler.update()
        if scaler.get_scale() >= scale:
            scheduler.step()
    assert scheduler.last_epoch == 2


def test_set_hyperparameters_writes_one_step():
    optimizer = fresh(torch.optim.AdamW)
    cw.set_hyperparameters(optimizer, CYCLE, step=4)
    assert optimizer.param_groups[0]["lr"] == CYCLE.lr(4)
    assert optimizer.param_groups[0]["betas"] == (CYCLE.momentum(4), 0.999)
    for step in (-1, [1, 2], None, 1.5, "3"):
        with pytest.raises(cw.PolicyError) as caught:
            cw.set_hyperparameters(optimizer, CYCLE, step=step)
        assert str(caught.value) == (
            f"step must be a whole number of at least 0, got {step!r}; steps count optimizer updates from 0"
        )
    assert optimizer.param_groups[0]["lr"] == CYCLE.lr(4)
    for step in (10**30, 9.0, torch.tensor(9)):
        cw.set_hyperparameters(optimizer, CYCLE, step=step)
        assert optimizer.param_groups[0]["lr"] == CYCLE.lr(9)


def test_rates_are_read_and_written():
    optimizer = torch.optim.SGD([{"params": weights()}, {"params": weights(), "lr": torch.tensor(0.5)}], lr=0.1)
    write_rates(optimizer, [1.0, 2.0])
    assert read_rates(optimizer) == [1.0, 2.0]
    assert isinstance(optimizer.param_groups[1]["lr"], torch.Tensor)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, from inside its compiler
@pytest.mark.parametrize(("rate", "most"), [(torch.tensor(0.1), 0), (0.1, 1)], ids=["tensor", "float"])
def test_a_compiled_step_is_not_compiled_again(rate, most):
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    optimizer = torch.optim.SGD(weights(), lr=rate)
    scheduler = cw.PolicyLR(optimizer, PLAIN)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    step = torch.compile(lambda: optimizer.step(), backend=counter)
    counts = []
    for _ in range(10):
        step()
        scheduler.step()
        counts.append(counter.frame_count)
    assert counts[-1] - counts[1] <= most
    torch._dynamo.reset()
