"""Modules, optimizers and losses of other libraries, and the blocks that a range test may be called in."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

import cyclewise as cw
from cyclewise.range_test.traits import traits_of
from cyclewise.stepping import evaluating, needs_closure, unwrapped
from tests.range_test.tasks import make_task

SGD = torch.optim.SGD


class Merging(nn.Linear):
    """Adds a low-rank part to its weight while it is in eval mode, as adapters for fine-tuning do."""

    def __init__(self, size_in, size_out):
        super().__init__(size_in, size_out, bias=False)
        self.weight.requires_grad_(False)
        self.low, self.high = nn.Parameter(torch.randn(2, size_in)), nn.Parameter(torch.zeros(size_out, 2))
        self.is_merged = False

    def train(self, mode=True):
        if self.is_merged == mode:
            self.weight.data += (-1 if mode else 1) * (self.high @ self.low).data
            self.is_merged = not mode
        return super().train(mode)

    def forward(self, inputs):
        outputs = super().forward(inputs)
        return outputs if self.is_merged else outputs + inputs @ self.low.T @ self.high.T


class Wrapped(Optimizer):
    """Passes everything on, as what Accelerate's ``prepare`` returns does."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure=None):
        return self.optimizer.step(closure)


class Waiting(torch.optim.SGD):
    """Only looks at the gradients in its first step."""

    def step(self, closure=None):
        if not self.state["begun"]:
            self.state["begun"] = {"yes": True}
            return None
        return super().step(closure)


def test_modules_that_do_more_in_train_are_asked_to():
    model = nn.Sequential(nn.BatchNorm1d(3).eval(), Merging(3, 1))
    with evaluating(model):
        assert model[1].is_merged
    assert (model[0].training, model[1].training, model[1].is_merged) == (False, True, False)


def find(make_optimizer, **options):
    model, _, loader = make_task()
    return cw.lr_find(model, make_optimizer(model.parameters()), F.cross_entropy, loader, **options)


def test_a_model_of_adapters_alone_gets_a_rate():
    _, _, loader = make_task()
    model = nn.Sequential(Merging(10, 32), nn.ReLU(), Merging(32, 3))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader)
    assert result.max_lr is not None
    assert not model[0].is_merged


@pytest.mark.parametrize("kind", [torch.optim.Adagrad, torch.optim.RAdam, SGD, torch.optim.LBFGS])
def test_a_wrapped_optimizer_is_what_it_wraps(kind):
    optimizer = Wrapped(kind([nn.Parameter(torch.zeros(1))], lr=0.1))
    assert needs_closure(optimizer) == (kind is torch.optim.LBFGS)
    assert isinstance(unwrapped(optimizer), kind)

    assert find(lambda parameters: Wrapped(kind(parameters, lr=0.1))) == find(partial(kind, lr=0.1))


def test_an_optimizer_that_waits_a_step_is_not_refused_for_zero_gradients():
    assert find(partial(Waiting, lr=0.1)).max_lr is not None


def test_a_lowest_rate_that_moves_nothing_is_not_taken_for_zero_gradients():
    _, _, loader = make_task()
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    result = cw.lr_find(model, SGD(model.parameters(), lr=0.1), F.cross_entropy, loader, start_lr=1e-30)
    assert result.refusal is not cw.Refusal.ZERO_GRADIENT


def test_groups_keep_their_ratios_before_a_warm_up_has_begun():
    model, _, loader = make_task()
    first, last = model[0].parameters(), model[-1].parameters()
    optimizer = torch.optim.AdamW([{"params": first, "lr": 1e-5}, {"params": last, "lr": 1e-3}])
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 100)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader)
    assert result.max_lrs[0] / result.max_lrs[1] == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["momentum", "betas"])
def test_a_momentum_or_betas_of_none_are_none_at_all(name):
    class Own(Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1, name: None})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter -= group["lr"] * parameter.grad

    optimizer = Own([nn.Parameter(torch.zeros(1))])
    traits = traits_of(optimizer, optimizer.param_groups[0])
    assert (traits.memory, traits.has_momentum) == (1.0, False)
    assert find(Own).max_lr is not None


counts = []


class Counting:
    def __init__(self):
        self.count = 0

    def loss(self, outputs, targets):
        self.count += 1
        if outputs.requires_grad:
            counts.append(self.count)
        return F.cross_entropy(outputs, targets)

    __call__ = loss


def test_a_loss_that_is_a_method_counts_as_the_object_itself_does():
    counted = []
    for pick in (lambda own: own, lambda own: own.loss):
        model, optimizer, loader = make_task()
        own = Counting()
        counts.clear()
        cw.lr_find(model, optimizer, pick(own), loader)
        assert own.count == 0
        counted.append(max(counts))
    assert counted[0] == counted[1]


def test_inside_an_autocast_block_of_the_callers():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = find(partial(SGD, lr=0.1))
    alone = find(partial(SGD, lr=0.1), autocast_dtype=torch.bfloat16)
    assert 0.5 < inside.max_lr / alone.max_lr < 2.0


def test_a_sweep_that_diverges_raises_nothing_where_anomalies_are_looked_for():
    model, optimizer, loader = make_task()
    has_broken = []

    def loss_fn(outputs, targets):
        # Its derivative is not a number where a logit has left the range of the root.
        loss = F.cross_entropy(outputs, targets) + 0.0 * (5.0 - outputs).sqrt().mean()
        has_broken.append(bool(loss.isnan()))
        return loss

    with torch.autograd.set_detect_anomaly(True):
        result = cw.lr_find(model, optimizer, loss_fn, loader, end_lr=1e6, start_lr=1e-3)
        assert torch.is_anomaly_enabled()
    assert any(has_broken)
    assert result.num_steps > 0
