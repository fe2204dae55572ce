"""The limits on quadratics: just below the updates converge, just above they diverge."""

import math

import pytest
import torch

from cyclewise import VelocitySGD
from cyclewise.landscape.edge import root, sharpness_limit

LR = 0.1


def sgd(**options):
    return lambda weight: torch.optim.SGD([weight], lr=LR, **options)


def adam(kind, **options):
    def make(weight):
        optimizer = kind([weight], lr=LR, betas=(0.8, 1.0 - 1e-15), eps=1e-3, weight_decay=0.0, **options)
        moments = {name: torch.full_like(weight, 4.0) for name in ("exp_avg_sq", "max_exp_avg_sq")}
        # Far from the start, and with second moments that stand still.
        optimizer.state[weight] = {"step": torch.tensor(1e18), "exp_avg": torch.zeros_like(weight), **moments}
        return optimizer

    return make


def rmsprop(momentum):
    def make(weight):
        optimizer = torch.optim.RMSprop([weight], lr=LR, alpha=1.0, momentum=momentum, eps=1e-3)
        moment = torch.full_like(weight, 4.0)
        optimizer.state[weight] = {"step": torch.tensor(10.0), "square_avg": moment,
                                   "momentum_buffer": torch.zeros_like(weight)}  # fmt: skip
        return optimizer

    return make


OPTIMIZERS = {
    "gradient descent": sgd(),
    "heavy ball": sgd(momentum=0.9),
    "dampened": sgd(momentum=0.5, dampening=0.3),
    "nesterov": sgd(momentum=0.9, nesterov=True),
    "decayed": sgd(momentum=0.9, weight_decay=2.0),
    "velocity": lambda weight: VelocitySGD([weight], lr=LR, momentum=0.9),
    "velocity, nesterov": lambda weight: VelocitySGD([weight], lr=LR, momentum=0.9, nesterov=True),
    "adam": adam(torch.optim.Adam),
    "adamw, amsgrad": adam(torch.optim.AdamW, amsgrad=True),
    "rmsprop": rmsprop(0.0),
    "rmsprop with momentum": rmsprop(0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("share", "diverges"), [(0.98, False), (1.02, True)])
def test_the_limit_parts_what_converges_from_what_diverges(name, share, diverges):
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = OPTIMIZERS[name](weight)
    scale = root(optimizer, [weight])
    factor = 1.0 if scale is None else float(scale[0]) ** 2
    curvature = share * sharpness_limit(optimizer) / factor
    sizes = []
    for _ in range(3000):
        weight.grad = curvature * weight.detach()
        optimizer.step()
        sizes.append(abs(weight.item()))
    # In the end Adam's second moments would catch even what diverges.
    assert (max(sizes) > 1e3) == diverges
    assert diverges or sizes[-1] < 1e-3


def test_the_root_is_the_inverse_square_root_of_what_adam_divides_by():
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=LR, betas=(0.9, 0.99), eps=1e-2)
    for _ in range(3):
        weight.grad = torch.randn(3, dtype=torch.float64)
        optimizer.step()
    square, step = optimizer.state[weight]["exp_avg_sq"], 3
    divisor = (1 - 0.9 ** (step + 1)) * ((square / (1 - 0.99**step)).sqrt() + 1e-2)
    torch.testing.assert_close(root(optimizer, [weight])[0], divisor**-0.5)


def test_groups_count_by_their_rates():
    first, second, third = (torch.ones(2, requires_grad=True) for _ in range(3))
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.4}, {"params": [second], "lr": 0.1}])
    assert sharpness_limit(optimizer) == pytest.approx(5.0)
    scale = root(optimizer, [first, second, third])
    assert [float(part[0]) for part in scale] == [1.0, 0.5, 0.0]
    assert root(optimizer, [first]) is None


def test_no_limit_where_none_is_known():
    weight = torch.ones(1, requires_grad=True)
    for optimizer in (torch.optim.Adagrad([weight]), torch.optim.SGD([weight], lr=0.0),
                      torch.optim.SGD([weight], lr=0.1, maximize=True),
                      torch.optim.RMSprop([weight], centered=True)):  # fmt: skip
        assert math.isnan(sharpness_limit(optimizer))
