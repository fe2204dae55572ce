"""PolicyLR where users put schedulers: other people's loops."""

import pytest
import torch
from torch import nn

import cyclewise as cw

POLICY = cw.OneCycle(max_lr=0.4, total_steps=20)


def test_the_type_check_of_other_trainers():
    # Lightning and Transformers ask isinstance, or for a step method and a state.
    scheduler = cw.PolicyLR(torch.optim.SGD([torch.zeros(1)], lr=0.1), POLICY)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert callable(scheduler.step)
    assert callable(scheduler.state_dict)
    assert not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)


def test_accelerate_steps_once_per_update_in_one_process():
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    accelerator = accelerate.Accelerator(cpu=True)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = cw.PolicyLR(optimizer, POLICY)
    model, optimizer, prepared = accelerator.prepare(model, optimizer, scheduler)
    for step in range(5):
        assert optimizer.param_groups[0]["lr"] == POLICY.lr(step)
        optimizer.zero_grad()
        accelerator.backward(model(torch.ones(1, 2)).sum())
        optimizer.step()
        prepared.step()
    assert scheduler.last_epoch == 5


def test_gradient_accumulation_steps_once_per_update():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = cw.PolicyLR(optimizer, POLICY)
    for i in range(12):
        model(torch.ones(1, 2)).sum().backward()
        if i % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    assert scheduler.last_epoch == 3


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_fused_and_plain_optimizers_train_alike(kind, fused):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = kind(model.parameters(), lr=torch.tensor(0.1) if kind is not torch.optim.SGD else 0.1, fused=fused)
    scheduler = cw.PolicyLR(optimizer, POLICY)
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.ones(4, 3)).square().mean().backward()
        optimizer.step()
        scheduler.step()
    assert model(torch.ones(1, 3)).abs().item() < 0.5


def test_join_replaces_sequential_schedulers():
    # torch's SequentialLR of a warm-up and a one-cycle gives 4e-6 to 4e-4 where 1e-5 to 1e-3 was asked for.
    policy = cw.Join([cw.Linear(start_lr=1e-5, end_lr=1e-3, total_steps=10), cw.Cosine(max_lr=1e-3, total_steps=20)])
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler, seen = cw.PolicyLR(optimizer, policy), []
    for _ in range(30):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert (seen[0], seen[9], seen[10], seen[29]) == (1e-5, 1e-3, 1e-3, 0.0)
