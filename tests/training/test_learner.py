import re

import matplotlib.figure
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.training import Callback


def arrays(n=200):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 6, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))


def make_learner(optimizer=None, **options):
    model = network()
    data = cw.Data.from_arrays(*arrays(), batch_size=32, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) if optimizer is None else optimizer(model)
    return cw.Learner(model, data, optimizer=optimizer, metrics={"accuracy": cw.accuracy}, **options)


def test_a_fit_is_the_loop_one_would_write_by_hand():
    learn = make_learner()
    policy = cw.OneCycle(max_lr=0.2, total_steps=12, base_momentum=0.85, max_momentum=0.95)
    torch.manual_seed(1)
    history = learn.fit(policy)

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = cw.Data.from_arrays(*arrays(), batch_size=32, seed=0).train_loader
    scheduler = cw.PolicyLR(optimizer, policy)
    torch.manual_seed(1)
    losses = []
    while len(losses) < 12:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
            if len(losses) == 12:
                break
    assert history.loss.tolist() == losses
    assert all(torch.equal(a, b) for a, b in zip(learn.model.parameters(), model.parameters(), strict=True))


def test_the_articles_calls():
    learn = cw.ConvLearner(network(), cw.Data.from_arrays(*arrays()), metrics=[cw.accuracy])
    learn.lr_find()
    assert isinstance(learn.sched.plot_lr(), matplotlib.figure.Figure)
    assert isinstance(learn.sched.plot(), matplotlib.figure.Figure)
    cyc_len = 4
    learn.fit_one_cycle(cyc_len=cyc_len, max_lr=0.08, div_factor=10, pct_start=0.1368, moms=(0.95, 0.85), wd=1e-4)
    assert learn.history.num_steps == 4 * 3
    assert learn.history.momentum[0] == 0.95
    assert learn.history.momentum.min() == pytest.approx(0.85)
    assert (learn.history.lr[0], learn.history.lr.max()) == (pytest.approx(0.008), 0.08)


def test_the_rates_of_a_range_test_are_those_of_all_its_sweeps():
    learn = make_learner()
    found = learn.lr_find()
    assert found.close_ups
    rates = [lr for curve in (found.curve, *found.close_ups) for lr in curve.lr]
    (line,) = learn.sched.plot_lr().axes[0].lines
    assert line.get_xdata().tolist() == list(range(len(rates)))
    assert line.get_ydata().tolist() == rates
    learn.model.requires_grad_(False)
    assert learn.lr_find().num_steps == 0
    (text,) = learn.sched.plot_lr().axes[0].texts
    assert text.get_text() == "no learning rate: no parameter requires a gradient"


def test_one_cycle_takes_the_rate_that_was_found():
    learn = make_learner()
    found = learn.lr_find()
    history = learn.fit_one_cycle(5)
    assert history.lr.max() == found.max_lr


def test_lr_find_leaves_no_trace_in_the_learner():
    learn = make_learner()
    before = [p.detach().clone() for p in learn.model.parameters()]
    passes = learn.own_data.train_loader.num_passes
    learn.lr_find()
    assert all(torch.equal(a, b) for a, b in zip(learn.model.parameters(), before, strict=True))
    assert learn.own_data.train_loader.num_passes == passes
    assert learn.history.num_steps == 0


def test_epochs_metrics_and_history():
    learn = make_learner()
    first = learn.fit_one_cycle(2, max_lr=0.1)
    second = learn.fit(cw.Constant(lr=0.01, total_steps=7))
    assert [epoch.step for epoch in first.epochs] == [5, 10]
    assert [epoch.step for epoch in second.epochs] == [5, 7]
    assert [epoch.step for epoch in learn.history.epochs] == [5, 10, 15, 17]
    assert learn.history.num_steps == 17
    assert first.epochs[0].train_loss == pytest.approx(first.loss[:5].mean())
    assert np.isnan(second.momentum).all()
    end = learn.history.epochs[-1]
    assert learn.evaluate() == {"loss": end.valid_loss, "accuracy": end.metrics["accuracy"]}
    assert cw.History.from_dict(learn.history.to_dict()) == learn.history
    assert learn.history.policies[-1] == "Constant(lr=0.01, total_steps=7)"
    assert "accuracy" in str(learn.history)
    assert learn.history.plot().axes
    assert "Accuracy" in learn.history._repr_html_()


def test_evaluate_weighs_batches_by_their_samples_and_keeps_modes():
    inputs, targets = arrays(50)
    learn = cw.Learner(
        network(), cw.Data([(inputs, targets)], [(inputs[:40], targets[:40]), (inputs[40:], targets[40:])])
    )
    learn.model.train()
    loss = learn.evaluate()["loss"]
    assert learn.model.training
    learn.model.eval()
    assert loss == pytest.approx(F.cross_entropy(learn.model(inputs), targets).item(), rel=1e-6)


def test_a_plain_dataloader_and_no_validation():
    learn = cw.Learner(network(), DataLoader(TensorDataset(*arrays()), batch_size=50, shuffle=True))
    history = learn.fit_one_cycle(2, max_lr=0.1)
    assert history.num_steps == 8
    assert history.epochs[-1].valid_loss is None
    with pytest.raises(cw.ArgumentError) as caught:
        learn.evaluate()
    assert str(caught.value) == (
        "data must have a valid_loader to evaluate on, got None; "
        "pass Data(train_loader, valid_loader) or valid_fraction=0.2"
    )


def test_optimizer_may_be_a_function_or_left_out():
    made = make_learner(lambda model: lambda groups: torch.optim.Adam(groups, lr=1e-3))
    assert isinstance(made.optimizer, torch.optim.Adam)
    default = cw.Learner(network(), cw.Data.from_arrays(*arrays()))
    assert isinstance(default.optimizer, torch.optim.SGD)
    assert default.optimizer.param_groups[0]["momentum"] == 0.9


def test_adam_gets_its_beta1_cycled_and_a_policy_without_momenta_leaves_it():
    learn = make_learner(lambda model: torch.optim.Adam(model.parameters(), lr=1e-3))
    learn.fit_one_cycle(1, max_lr=0.01, moms=None)
    assert learn.optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    learn.fit_one_cycle(1, max_lr=0.01)
    assert learn.optimizer.param_groups[0]["betas"] == (0.95, 0.999)


def test_an_optimizer_without_momentum_is_named():
    learn = make_learner(lambda model: torch.optim.Adagrad(model.parameters()))
    with pytest.raises(cw.PolicyError, match="must not move the momentum of Adagrad"):
        learn.fit_one_cycle(1, max_lr=0.01)
    learn.fit_one_cycle(1, max_lr=0.01, moms=None)


class Decays(Callback):
    def on_step_end(self, learner, step, loss):
        self.seen = [group["weight_decay"] for group in learner.optimizer.param_groups]


@pytest.mark.parametrize(
    ("before", "during"), [((0.0, 0.0), [1e-3, 1e-3]), ((0.1, 0.0), [1e-3, 0.0]), ((0.1, 0.2), [1e-3, 1e-3])]
)
def test_weight_decay_is_set_for_the_fit_and_put_back(before, during):
    def optimizer(model):
        parts = (model[0], model[3])
        groups = [{"params": p.parameters(), "weight_decay": wd} for p, wd in zip(parts, before, strict=True)]
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    learn, seen = make_learner(optimizer), Decays()
    learn.fit_one_cycle(1, max_lr=0.1, wd=1e-3, callbacks=[seen])
    assert seen.seen == during
    assert [group["weight_decay"] for group in learn.optimizer.param_groups] == list(before)


def test_divergence_is_an_error_with_step_and_rate_and_the_history_is_kept():
    learn = make_learner()
    with pytest.raises(cw.DivergedError) as caught:
        learn.fit(cw.Constant(lr=1e30, total_steps=50))
    error = caught.value
    assert error.lr == 1e30
    assert 0 < error.step < 50
    assert re.fullmatch(
        r"the training loss is (nan|inf|-inf) at step \d+, with a learning rate of 1e\+30; "
        r"train with a lower max_lr \(lr_find gives one\), or look for NaN in the inputs",
        str(error),
    )
    assert learn.history.num_steps == error.step + 1
    assert isinstance(learn.history.plot(), matplotlib.figure.Figure)


class Interrupts(Callback):
    def on_step_end(self, learner, step, loss):
        if step == 6:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_the_history_and_a_usable_learner():
    learn = make_learner()
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle(3, max_lr=0.1, callbacks=[Interrupts()])
    assert learn.history.num_steps == 7
    learn.fit_one_cycle(1, max_lr=0.1)
    assert learn.history.num_steps == 12


class Counts(Callback):
    def __init__(self):
        self.calls = []

    def on_fit_start(self, learner, total_steps):
        self.calls.append(("start", total_steps))

    def on_epoch_end(self, learner, epoch):
        self.calls.append(("epoch", epoch.step))

    def on_fit_end(self, learner):
        self.calls.append(("end", learner.history.num_steps))


def test_callbacks_are_called_in_order():
    learn, counts = make_learner(), Counts()
    learn.fit(cw.Constant(lr=0.1, total_steps=7), callbacks=[counts])
    assert counts.calls == [("start", 7), ("epoch", 5), ("epoch", 7), ("end", 7)]


def test_a_policy_per_group_must_agree_on_its_length():
    def optimizer(model):
        return torch.optim.SGD([{"params": model[0].parameters()}, {"params": model[3].parameters()}], lr=0.1)

    learn = make_learner(optimizer)
    with pytest.raises(
        cw.ArgumentError, match=re.escape("policy must have one total_steps for all groups, got [5, 6]")
    ):
        learn.fit([cw.Constant(lr=0.1, total_steps=5), cw.Constant(lr=0.1, total_steps=6)])
    history = learn.fit([cw.Constant(lr=0.01, total_steps=5), cw.Constant(lr=0.1, total_steps=5)])
    assert set(history.lr) == {0.1}
    assert [group["lr"] for group in learn.optimizer.param_groups] == [0.01, 0.1]
    learn.fit_one_cycle(1, max_lr=[0.01, 0.1])
    with pytest.raises(cw.ArgumentError, match="one rate per parameter group \\(2\\), got 3"):
        learn.fit_one_cycle(1, max_lr=[0.01, 0.1, 0.2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: make_learner().fit_one_cycle(1), cw.ArgumentError,
         "max_lr must be a rate when no range test was run, got None; call learn.lr_find()"),
        (lambda: make_learner().fit_one_cycle(0, max_lr=0.1), cw.ArgumentError,
         "cyc_len must be a finite number above 0, got 0; it counts epochs, for example 5"),
        (lambda: make_learner().fit_one_cycle(1, max_lr=-0.1), cw.ArgumentError,
         "max_lr must be a finite number above 0, got -0.1; call learn.lr_find() for one"),
        (lambda: make_learner().fit_one_cycle(1, max_lr=0.1, moms=0.9), cw.ArgumentError,
         "moms must be two numbers, got 0.9; "
         "pass (momentum at the ends, momentum at the peak), for example (0.95, 0.85)"),
        (lambda: make_learner().sched.plot(), cw.ArgumentError,
         "sched must have something to draw, got no run yet; call learn.lr_find() or a fit first"),
        (lambda: cw.Learner("net", cw.Data([1])), cw.ArgumentTypeError,
         "model must be a torch.nn.Module, got str 'net'; pass the model that is to be trained"),
        (lambda: make_learner(lambda model: torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)), cw.ArgumentError,
         "optimizer must own parameters of this model, got 2 of 2 that are not; "
         "make the optimizer from model.parameters(), after the last change of the model"),
        (lambda: cw.Learner(network(), cw.Data([1]), metrics={"accuracy": 0.9}), cw.ArgumentTypeError,
         "metrics['accuracy'] must be a function (outputs, targets) -> number, got float 0.9; "
         "pass for example {'accuracy': cyclewise.accuracy}"),
        (lambda: cw.Learner(network(), [(torch.randn(4, 6), torch.randn(4, 2))]).fit(
            cw.Constant(lr=0.1, total_steps=1)), cw.ArgumentError,
         "loss_fn must be given unless targets are class indices [N] for outputs [N, C], "
         "got targets of torch.float32 (4, 2) and outputs of (4, 2); "
         "pass for example loss_fn=torch.nn.functional.mse_loss"),
    ],
)  # fmt: skip
def test_bad_calls_say_what_to_do(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_a_refusal_reaches_fit_one_cycle():
    learn = make_learner()
    learn.lr_find(end_lr=1e-6)
    assert isinstance(learn.sched.plot(), matplotlib.figure.Figure)
    with pytest.raises(cw.SuggestionError, match="there is no learning rate to give: no rate lowered the loss"):
        learn.fit_one_cycle(1)
