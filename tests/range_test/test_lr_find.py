import copy
import os
import random
import re
import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.range_test.scoring import Scoring
from cyclewise.range_test.sweep import sweep_rates
from tests.range_test.tasks import make_task

OPTIMIZERS = [
    (torch.optim.SGD, {"lr": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (torch.optim.Adam, {"lr": 1e-3}),
    (torch.optim.AdamW, {"lr": 1e-3}),
    (torch.optim.RMSprop, {"lr": 1e-3}),
    (torch.optim.Adagrad, {"lr": 1e-2}),
    (torch.optim.LBFGS, {"lr": 0.1, "max_iter": 3}),
]


def bits(model, optimizer, loader):
    state = copy.deepcopy(optimizer.state_dict())
    return (
        {name: (id(p), p.detach().clone().numpy().tobytes(), p.requires_grad, p.grad) for name, p in
         model.named_parameters()},
        {name: b.clone().numpy().tobytes() for name, b in model.named_buffers()},
        repr(state),
        [module.training for module in model.modules()],
        torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(),
    )  # fmt: skip


@pytest.mark.parametrize(("optimizer_class", "options"), OPTIMIZERS)
def test_a_rate_is_found_and_no_trace_is_left(optimizer_class, options):
    model, optimizer, loader = make_task(optimizer_class, **options)
    before = bits(model, optimizer, loader)
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader)
    assert bits(model, optimizer, loader) == before
    assert result.refusal is None, result
    assert result.interval[0] < result.max_lr < result.interval[1]
    assert result.num_steps <= 100
    assert result.num_steps - 1 == sum(len(curve.lr) for curve in (result.curve, *result.close_ups))
    assert result.max_lrs == (result.max_lr,)


def test_the_found_rate_trains():
    model, optimizer, loader = make_task(momentum=0.9)
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader)
    scheduler = cw.PolicyLR(optimizer, result.policy(20 * len(loader)))
    for _ in range(20):
        for inputs, targets in loader:
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    model.eval()
    accuracy = torch.cat([(model(x).argmax(1) == y).float() for x, y in loader]).mean()
    assert accuracy > 0.95


class Boom(Exception):
    pass


@pytest.mark.parametrize(("optimizer_class", "options"), OPTIMIZERS)
@pytest.mark.parametrize("failing_step", [1, 2, 7, 40])
@pytest.mark.parametrize("kind", ["exception", "ctrl-c"])
def test_an_interrupt_at_any_step_leaves_no_trace(optimizer_class, options, failing_step, kind):
    model, optimizer, loader = make_task(optimizer_class, **options)
    before = bits(model, optimizer, loader)
    error, calls = Boom(), []

    def loss_fn(outputs, targets):
        calls.append(1)
        if len(calls) == failing_step:
            if kind == "ctrl-c":
                os.kill(os.getpid(), signal.SIGINT)
            else:
                raise error
        return F.cross_entropy(outputs, targets)

    with pytest.raises(KeyboardInterrupt if kind == "ctrl-c" else Boom) as caught:
        cw.lr_find(model, optimizer, loss_fn, loader)
    assert kind == "ctrl-c" or caught.value is error
    assert bits(model, optimizer, loader) == before


@pytest.mark.parametrize(("optimizer_class", "options"), OPTIMIZERS)
@pytest.mark.parametrize("kind", ["exception", "ctrl-c"])
def test_an_interrupt_at_every_update_leaves_no_trace(optimizer_class, options, kind):
    model, optimizer, loader = make_task(optimizer_class, **options)
    plain_step = optimizer.step
    for failing_step in range(1, 21):
        before = bits(model, optimizer, loader)
        error, calls = Boom(), []

        def step(*closure, calls=calls, error=error, failing_step=failing_step):
            calls.append(1)
            result = plain_step(*closure)
            if len(calls) == failing_step:
                if kind == "exception":
                    raise error
                os.kill(os.getpid(), signal.SIGINT)
            return result

        optimizer.step = step
        with pytest.raises(KeyboardInterrupt if kind == "ctrl-c" else Boom) as caught:
            cw.lr_find(model, optimizer, F.cross_entropy, loader, num_steps=20, start_lr=1e-6, end_lr=1e-3)
        del optimizer.step
        assert kind == "ctrl-c" or caught.value is error
        assert bits(model, optimizer, loader) == before, failing_step


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not():
    model, optimizer, loader = make_task()
    first, second = (cw.lr_find(model, optimizer, F.cross_entropy, loader, seed=3) for _ in range(2))
    assert first == second
    assert cw.lr_find(model, optimizer, F.cross_entropy, loader, seed=4) != first


def test_training_afterwards_is_as_if_there_had_been_no_test():
    losses = []
    for has_test in (False, True):
        model, optimizer, loader = make_task(momentum=0.9)
        torch.manual_seed(5)
        if has_test:
            cw.lr_find(model, optimizer, F.cross_entropy, loader)
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == losses[1]


def test_rate_and_loss_are_of_the_same_step():
    model, optimizer, loader = make_task()
    used = []
    step = optimizer.step
    optimizer.step = lambda *a, **k: (used.append(optimizer.param_groups[0]["lr"]), step(*a, **k))[1]
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader, num_steps=30, start_lr=1e-4, end_lr=0.1)
    assert used == [rate for curve in (result.curve, *result.close_ups) for rate in curve.lr.tolist()]
    assert (used[0], result.curve.lr[-1], max(used)) == (1e-4, 0.1, 0.1)


def test_linear_and_exponential_sweeps():
    assert sweep_rates(1e-4, 1.0, 5, "exponential") == pytest.approx([1e-4, 1e-3, 1e-2, 0.1, 1.0])
    assert sweep_rates(0.1, 0.5, 5, "linear") == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    model, optimizer, loader = make_task()
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader, sweep="linear", start_lr=1e-3, end_lr=5.0)
    assert np.allclose(np.diff(result.curve.lr), np.diff(result.curve.lr)[0])


def test_group_ratios_are_kept():
    model, _, loader = make_task()
    groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[4].parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    seen = []
    step = optimizer.step
    optimizer.step = lambda: (seen.append([group["lr"] for group in optimizer.param_groups]), step())[1]
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader)
    assert all(low == pytest.approx(high / 10) for low, high in seen)
    assert result.max_lrs == pytest.approx((result.max_lr / 10, result.max_lr))
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.1]


def test_train_step_works_for_any_loop_and_hidden_state_is_given_back_when_named():
    model, optimizer, loader = make_task()
    average = {"weight": torch.zeros(3, 32)}

    def train_step(batch):
        inputs, targets = batch
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        average["weight"].lerp_(model[4].weight.detach(), 0.1)
        return loss.item()

    def eval_step(batch):
        with Scoring(model).block():
            return F.cross_entropy(model(batch[0]), batch[1]).item()

    held_out = [next(iter(loader))]
    by_step = cw.lr_find(train_step=train_step, eval_step=eval_step, model=model, optimizer=optimizer,
                         train_loader=loader, valid_loader=held_out, also=[average])  # fmt: skip
    assert not average["weight"].any()
    own = cw.lr_find(model, optimizer, F.cross_entropy, loader, valid_loader=held_out)
    assert (by_step.curve, by_step.close_ups, by_step.max_lr) == (own.curve, own.close_ups, own.max_lr)
    assert by_step.link is None


def test_autocast_with_a_scaler():
    model, optimizer, loader = make_task()
    scaler = torch.amp.GradScaler("cpu")
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader, autocast_dtype=torch.bfloat16, scaler=scaler)
    assert result.max_lr is not None
    assert scaler._scale is None


def test_negative_losses_are_no_divergence():
    model, optimizer, loader = make_task()
    result = cw.lr_find(model, optimizer, lambda o, t: F.cross_entropy(o, t) - 50.0, loader)
    assert result.num_steps > 50
    assert result.max_lr is not None


def test_a_sweep_stops_at_its_first_loss_that_is_not_finite():
    model, optimizer, loader = make_task()
    rates = []

    def loss_fn(outputs, targets):
        rates.append(optimizer.param_groups[0]["lr"])
        loss = F.cross_entropy(outputs, targets)
        return loss * float("nan") if rates[-1] > 1.0 else loss

    result = cw.lr_find(model, optimizer, loss_fn, loader)
    for curve in (result.curve, *result.close_ups):
        assert (curve.lr > 1.0).sum() <= 1
        assert np.isfinite(curve.loss[:-1]).all()
    assert result.max_lr < 1.0


def refusal_of(model, optimizer, loss_fn, loader, **options):
    result = cw.lr_find(model, optimizer, loss_fn, loader, **options)
    assert result.max_lr is None
    return result.refusal


def test_refusals():
    model, optimizer, loader = make_task()
    nan_loader = [(torch.full((8, 10), float("nan")), torch.zeros(8, dtype=torch.long))]
    assert refusal_of(model, optimizer, F.cross_entropy, nan_loader) is cw.Refusal.NONFINITE_START
    assert refusal_of(model, optimizer, lambda o, t: (o * 0).sum(), loader) is cw.Refusal.ZERO_GRADIENT
    assert refusal_of(model, optimizer, F.cross_entropy, loader, end_lr=1e-5) is cw.Refusal.NO_IMPROVEMENT
    model.requires_grad_(False)
    assert refusal_of(model, optimizer, F.cross_entropy, loader) is cw.Refusal.FROZEN


def test_a_sweep_that_ends_too_early_is_not_read():
    model, optimizer, loader = make_task()
    # The loss falls from the first step to the last: the edge lies beyond the sweep.
    refusal = refusal_of(model, optimizer, F.cross_entropy, loader, start_lr=1e-3, end_lr=0.02, num_steps=200)
    assert refusal is cw.Refusal.STILL_FALLING


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"num_steps": 5},
            cw.ArgumentError,
            "num_steps must be a whole number of at least 10, got 5; 100 is a good number",
        ),
        (
            {"start_lr": 0.0},
            cw.ArgumentError,
            "start_lr must be a finite number above 0, got 0.0; leave it out to have it found",
        ),
        ({"start_lr": 1.0, "end_lr": 0.1}, cw.ArgumentError, "end_lr must be above start_lr=1.0, got 0.1; swap them"),
        (
            {"sweep": "log"},
            cw.ArgumentError,
            "sweep must be one of 'exponential', 'linear', got 'log'; pass one of these names",
        ),
        ({"model": None}, cw.ArgumentTypeError,
         "model must be a torch.nn.Module, got NoneType None; "
         "pass it with train_step= too, so that it can be given back as it was"),
        ({"train_loader": None}, cw.ArgumentTypeError,
         "train_loader must be an iterable of batches, got None; pass the loader you train with"),
        ({"progress": "yes"}, cw.ArgumentError,
         'progress must be "auto", True or False, got \'yes\'; pass False for silence'),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_before_anything_runs(changes, error, message):
    model, optimizer, loader = make_task()
    arguments = {"model": model, "optimizer": optimizer, "loss_fn": F.cross_entropy, "train_loader": loader, **changes}
    with pytest.raises(error, match=re.escape(message)):
        cw.lr_find(**arguments)


def test_a_model_in_eval_mode_is_tested_in_train_mode_and_given_back():
    model, optimizer, loader = make_task()
    model.eval()
    modes = []
    model.register_forward_hook(lambda module, *_: modes.append(module.training) if torch.is_grad_enabled() else None)
    cw.lr_find(model, optimizer, F.cross_entropy, loader)
    assert set(modes) == {True}
    assert not any(module.training for module in model.modules())


def test_progress_goes_to_standard_error(capsys):
    model, optimizer, loader = make_task()
    cw.lr_find(model, optimizer, F.cross_entropy, loader, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "range test" in captured.err
    cw.lr_find(model, optimizer, F.cross_entropy, loader)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(3))
def test_labels_that_the_inputs_do_not_explain_are_refused_although_their_shares_are_learned(seed):
    torch.manual_seed(seed)
    inputs, labels = torch.randn(960, 10), (torch.rand(960) < 0.2).long()
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))
    result = cw.lr_find(model, torch.optim.Adam(model.parameters()), F.cross_entropy, loader, seed=seed)
    assert result.refusal in (cw.Refusal.UNRELATED, cw.Refusal.NO_IMPROVEMENT)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam])
def test_the_unit_of_the_loss_moves_the_rate_of_gradient_descent_and_not_that_of_adam(optimizer_class, scale):
    # Adam's eps has a unit: at its usual size gradients of a millionth would feel it.
    options = {} if optimizer_class is torch.optim.SGD else {"eps": 1e-20}
    model, optimizer, loader = make_task(optimizer_class, **options)
    plain = cw.lr_find(model, optimizer, F.cross_entropy, loader)
    other = cw.lr_find(model, optimizer, lambda o, t: scale * F.cross_entropy(o, t), loader)
    expected = plain.max_lr / scale if optimizer_class is torch.optim.SGD else plain.max_lr
    assert other.max_lr == pytest.approx(expected, rel=0.5)


def test_a_linear_sweep_needs_its_range():
    model, optimizer, loader = make_task()
    with pytest.raises(cw.ArgumentError) as caught:
        cw.lr_find(model, optimizer, F.cross_entropy, loader, sweep="linear", end_lr=1.0)
    assert str(caught.value) == (
        'sweep must be "exponential" where the range is to be found, got "linear"; pass start_lr= and end_lr='
    )


def test_it_works_at_any_point_of_training_and_leaves_no_trace_there_either():
    model, optimizer, loader = make_task(momentum=0.9, lr=0.02)
    for _ in range(5):
        for inputs, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    momenta = [optimizer.state[p]["momentum_buffer"].clone() for p in model.parameters()]
    weights = [p.detach().clone() for p in model.parameters()]
    result = cw.lr_find(model, optimizer, F.cross_entropy, loader)
    assert result.num_steps > 60
    assert all(torch.equal(old, new) for old, new in zip(weights, model.parameters(), strict=True))
    assert all(
        torch.equal(old, optimizer.state[p]["momentum_buffer"])
        for old, p in zip(momenta, model.parameters(), strict=True)
    )


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
def test_more_steps_stay_within_the_interval(optimizer_class):
    model, optimizer, loader = make_task(optimizer_class)
    low, high = cw.lr_find(model, optimizer, F.cross_entropy, loader).interval
    for num_steps in (60, 300, 1000):
        result = cw.lr_find(model, optimizer, F.cross_entropy, loader, num_steps=num_steps)
        assert low / 1.5 < result.max_lr < 1.5 * high, num_steps


def test_a_sweep_that_never_diverges_is_not_read_at_its_end():
    # Weight norm makes the loss blind to the size of the weights: it never blows up, it only stops falling.
    torch.manual_seed(0)
    inputs = torch.randn(960, 10)
    labels = (inputs @ torch.randn(10, 3)).argmax(1)
    batches = list(zip(inputs.split(32), labels.split(32), strict=True))
    model = nn.Sequential(nn.Linear(10, 32), nn.LayerNorm(32), nn.Tanh(), nn.Linear(32, 3), nn.LayerNorm(3))
    result = cw.lr_find(model, torch.optim.Adam(model.parameters()), F.cross_entropy, batches)
    assert 1e-3 < result.max_lr < 0.5
