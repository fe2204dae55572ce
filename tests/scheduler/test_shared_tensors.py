"""Groups to which torch gives one and the same tensor, or list, are driven each by its own policy."""

import pytest
import torch

import cyclewise as cw
from cyclewise.scheduler import read_rates, write_rates
from tests.training.small_learner import make_learner

SLOW, FAST = cw.Linear(start_lr=0.5, end_lr=0.25, total_steps=3), cw.Linear(start_lr=2.0, end_lr=1.0, total_steps=3)


def groups(*names):
    return [{"params": [torch.nn.Parameter(torch.ones(2))], "name": name} for name in names]


def sharing(kind=torch.optim.SGD, **options):
    return kind(groups("body", "neck", "head"), **{"lr": torch.tensor(0.125), **options})


@pytest.mark.parametrize("policies", [[SLOW, FAST, SLOW], {"body": SLOW, "neck": FAST, "head": SLOW}])
def test_each_group_gets_the_rate_of_its_own_policy(policies):
    optimizer = sharing()
    shared = optimizer.param_groups[0]["lr"]
    assert all(group["lr"] is shared for group in optimizer.param_groups)
    scheduler = cw.PolicyLR(optimizer, policies)
    tensors = [group["lr"] for group in optimizer.param_groups]
    assert tensors[0] is shared
    for step in range(3):
        assert read_rates(optimizer) == [SLOW.lr(step), FAST.lr(step), SLOW.lr(step)]
        scheduler.step()
    # Parted once, and written in place from then on: who compiled the step holds these very tensors.
    assert all(group["lr"] is tensor for group, tensor in zip(optimizer.param_groups, tensors, strict=True))


def test_one_policy_for_all_leaves_the_shared_tensor_in_place():
    optimizer = sharing()
    shared = optimizer.param_groups[0]["lr"]
    cw.PolicyLR(optimizer, SLOW).step()
    assert all(group["lr"] is shared for group in optimizer.param_groups)
    assert shared.item() == SLOW.lr(1)


def test_a_state_in_which_they_share_may_be_loaded_afterwards():
    saved = sharing().state_dict()
    optimizer = sharing()
    scheduler = cw.PolicyLR(optimizer, [SLOW, FAST, SLOW])
    optimizer.load_state_dict(saved)
    scheduler.step()
    assert read_rates(optimizer) == [SLOW.lr(1), FAST.lr(1), SLOW.lr(1)]


def test_rates_written_by_themselves_are_each_groups_own():
    optimizer = sharing()
    write_rates(optimizer, [1.0, 2.0, 4.0])
    assert read_rates(optimizer) == [1.0, 2.0, 4.0]
    cw.set_hyperparameters(optimizer, [SLOW, FAST, SLOW], step=2)
    assert read_rates(optimizer) == [0.25, 1.0, 0.25]


def moving(momentum, decay):
    parts = {"momenta": cw.Constant(lr=momentum, total_steps=3), "decays": cw.Constant(lr=decay, total_steps=3)}
    return cw.Together(rate=SLOW, **parts)


TENSORS, NUMBERS = (torch.tensor(0.875), torch.tensor(0.75)), [0.875, 0.75]


@pytest.mark.parametrize(("kind", "betas"), [(torch.optim.AdamW, TENSORS), (torch.optim.NAdam, NUMBERS)])
def test_so_are_betas_and_weight_decay(kind, betas):
    optimizer = sharing(kind, betas=betas, foreach=False)
    assert optimizer.param_groups[0]["betas"] is optimizer.param_groups[1]["betas"]
    decay = torch.tensor(0.5)
    for group in optimizer.param_groups:
        group["weight_decay"] = decay
    scheduler = cw.PolicyLR(optimizer, [moving(0.5, 0.25), moving(0.25, 0.5), moving(0.125, 1.0)])
    scheduler.step()
    assert [float(group["betas"][0]) for group in optimizer.param_groups] == [0.5, 0.25, 0.125]
    assert [float(group["betas"][1]) for group in optimizer.param_groups] == [0.75] * 3
    assert [float(group["weight_decay"]) for group in optimizer.param_groups] == [0.25, 0.5, 1.0]
    assert optimizer.param_groups[0]["weight_decay"] is decay
    assert all(type(group["betas"]) is type(betas) for group in optimizer.param_groups)


def learner(lr):
    model = make_learner().model
    return make_learner(
        model=model,
        layer_groups=[[model[0], model[1]], [model[3]]],
        optimizer=lambda groups: torch.optim.SGD(groups, lr=lr, momentum=0.9, foreach=False),
    )


def test_rates_per_layer_group_in_a_learner():
    plain, tensor = learner(0.1), learner(torch.tensor(0.1))
    for learn in (plain, tensor):
        learn.fit_one_cycle(2, max_lr=slice(1e-3, 1e-1))
    assert read_rates(tensor.optimizer) == pytest.approx(read_rates(plain.optimizer))
    assert read_rates(tensor.optimizer)[0] < read_rates(tensor.optimizer)[1]


def test_a_range_test_leaves_them_sharing():
    learn = learner(torch.tensor(0.1))
    shared = learn.optimizer.param_groups[0]["lr"]
    learn.lr_find(num_steps=20)
    assert [group["lr"] is shared for group in learn.optimizer.param_groups] == [True, True]
    assert shared.item() == pytest.approx(0.1)
