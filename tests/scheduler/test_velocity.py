import io
import math

import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise.velocity import VelocitySGD

SHAPES = ((3, 2), (4,), ())
CYCLE = cw.OneCycle(max_lr=0.3, total_steps=20, base_momentum=0.7, max_momentum=0.95)


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in SHAPES]


def fill_gradients(parameters, step):
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)


def train(optimizer, *, steps=range(20), rates=None):
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] if rates is None else rates[step]
        fill_gradients(parameters, step)
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def reference(policy, *, weight_decay=0.0, nesterov=False, maximize=False):
    """Return what the recurrence gives, number by number in plain Python."""
    parameters = weights()
    numbers = [parameter.detach().flatten().tolist() for parameter in parameters]
    velocities = [[0.0] * len(part) for part in numbers]
    for step in range(20):
        fill_gradients(parameters, step)
        lr, momentum = policy.lr(step), policy.momentum(step)
        for part, velocity, parameter in zip(numbers, velocities, parameters, strict=True):
            for i, g in enumerate(parameter.grad.flatten().tolist()):
                g = (-g if maximize else g) + weight_decay * part[i]
                velocity[i] = momentum * velocity[i] - lr * g
                part[i] += momentum * velocity[i] - lr * g if nesterov else velocity[i]
    return [torch.tensor(part, dtype=torch.float64).reshape(shape) for part, shape in zip(numbers, SHAPES, strict=True)]


def assert_close(first, second):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def assert_same(first, second):
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


VARIANTS = [
    {},
    {"momentum": 0.0},
    {"weight_decay": 0.1},
    {"nesterov": True},
    {"nesterov": True, "weight_decay": 0.1, "maximize": True},
    {"maximize": True},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_at_a_constant_rate_it_is_torchs(options):
    options = {"lr": 0.05, "momentum": 0.9, **options}
    assert_close(train(VelocitySGD(weights(), **options)), train(torch.optim.SGD(weights(), **options)))


@pytest.mark.parametrize("options", VARIANTS[2:], ids=str)
def test_driven_by_a_cycle_it_is_the_written_out_recurrence_and_not_torchs(options):
    optimizer = VelocitySGD(weights(), **options)
    scheduler = cw.PolicyLR(optimizer, CYCLE)
    torchs = torch.optim.SGD(weights(), momentum=0.9, **options)
    torch_scheduler = cw.PolicyLR(torchs, CYCLE)
    for step in range(20):
        ours, theirs = train(optimizer, steps=[step]), train(torchs, steps=[step])
        scheduler.step()
        torch_scheduler.step()
    assert_close(ours, reference(CYCLE, **options))
    assert (ours[0] - theirs[0]).abs().max() > 0.01


def test_a_rate_that_moves_leaves_alone_what_is_in_flight():
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = VelocitySGD([weight], lr=1.0, momentum=0.5)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 100.0
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert weight.item() == -1.5


def test_a_tensor_rate_is_kept_and_written_in_place():
    rate = torch.tensor([0.1], dtype=torch.float64)
    optimizer = VelocitySGD(weights(), lr=rate)
    scheduler = cw.PolicyLR(optimizer, CYCLE)
    for step in range(20):
        moved = train(optimizer, steps=[step])
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert_close(moved, reference(CYCLE))


def test_groups_have_their_own_settings():
    first, second = weights(), weights(1)
    groups = [{"params": first, "lr": 0.1, "nesterov": True}, {"params": second, "momentum": 0.5}]
    together = train(VelocitySGD(groups, lr=0.01, weight_decay=0.1))
    alone = train(torch.optim.SGD([{**group} for group in reset(groups)], lr=0.01, momentum=0.9, weight_decay=0.1))
    assert_close(together, alone)


def reset(groups):
    fresh = [weights(), weights(1)]
    return [{**group, "params": params} for group, params in zip(groups, fresh, strict=True)]


class Tagged(torch.Tensor):
    pass


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_one_by_one_and_together_give_the_same_bits(options):
    tagged = [nn.Parameter(parameter.detach().as_subclass(Tagged)) for parameter in weights()]
    assert type(tagged[0]) is Tagged
    one_by_one = train(VelocitySGD(tagged, lr=0.05, **options))
    assert_same(
        [tensor.as_subclass(torch.Tensor) for tensor in one_by_one], train(VelocitySGD(weights(), lr=0.05, **options))
    )


def test_resuming_from_a_saved_state_gives_the_same_bits():
    options = {"lr": 0.05, "weight_decay": 0.01, "nesterov": True}
    rates = CYCLE.lr(range(20)).tolist()
    uninterrupted = train(VelocitySGD(weights(), **options), rates=rates)

    first = VelocitySGD(weights(), **options)
    half_way = train(first, steps=range(9), rates=rates)
    assert [set(state) for state in first.state.values()] == [{"velocity"}] * 3
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = VelocitySGD([nn.Parameter(tensor) for tensor in half_way])
    second.load_state_dict(torch.load(file, weights_only=True))
    assert_same(train(second, steps=range(9, 20), rates=rates), uninterrupted)


def test_a_parameter_without_gradient_stays():
    parameters = weights()
    before = parameters[1].detach().clone()
    optimizer = VelocitySGD(parameters, lr=0.1)
    fill_gradients(parameters, 0)
    parameters[1].grad = None
    optimizer.step()
    assert torch.equal(parameters[1], before)
    assert len(optimizer.state) == 2
    optimizer.zero_grad()
    optimizer.step()


def test_a_closure_is_called_with_gradients_and_its_loss_returned():
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = VelocitySGD([weight], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert weight.item() == 1.0


def test_a_sparse_gradient_is_refused_and_nothing_is_updated():
    dense, embedding = nn.Linear(2, 2), nn.Embedding(5, 2, sparse=True)
    before = dense.weight.detach().clone()
    optimizer = VelocitySGD([{"params": dense.parameters()}, {"params": embedding.parameters()}], lr=0.1)
    dense(embedding(torch.tensor([1]))).sum().backward()
    with pytest.raises(cw.ArgumentError) as caught:
        optimizer.step()
    assert str(caught.value) == (
        "params must have dense gradients, got one of layout torch.sparse_coo and shape (5, 2); "
        "make the embedding with sparse=False, or use torch.optim.SGD for it"
    )
    assert torch.equal(dense.weight, before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": -0.1}, cw.ArgumentError,
         "lr must be a finite number of at least 0, got -0.1; call cyclewise.lr_find() for one"),
        ({"lr": torch.tensor(math.nan)}, cw.ArgumentError,
         "lr must be a finite number of at least 0, got nan; call cyclewise.lr_find() for one"),
        ({"lr": torch.ones(2)}, cw.ArgumentError,
         "lr must be one number, got a tensor of shape (2,); give each parameter group its own rate"),
        ({"momentum": 90}, cw.ArgumentError,
         "momentum must be a fraction in [0, 1], got 90; for 90 % pass 0.9"),
        ({"weight_decay": -1}, cw.ArgumentError,
         "weight_decay must be a finite number of at least 0, got -1; 1e-4 is usual, 0 is none"),
        ({"nesterov": 1}, cw.ArgumentTypeError,
         "nesterov must be True or False, got int 1; leave it out for False"),
        ({"maximize": None}, cw.ArgumentTypeError,
         "maximize must be True or False, got NoneType None; leave it out for False"),
        ({"nesterov": True, "momentum": 0}, cw.ArgumentError,
         "momentum must be above 0 with nesterov=True, got 0; 0.9 is usual, without momentum leave nesterov out"),
    ],
)  # fmt: skip
def test_bad_arguments_say_what_to_do_also_those_of_a_group(options, error, message):
    with pytest.raises(error) as caught:
        VelocitySGD(weights(), **options)
    assert str(caught.value) == message
    optimizer = VelocitySGD(weights())
    with pytest.raises(error) as caught:
        optimizer.add_param_group({"params": weights(), **options})
    assert str(caught.value) == message
    assert len(optimizer.param_groups) == 1
