"""What a Learner can do besides the plain loop, each against the obvious reference."""

import csv
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw


def arrays(n=96):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 6, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


def make_learner(*, data=None, model=None, **options):
    torch.manual_seed(0)
    if model is None:
        model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    options.setdefault("optimizer", lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9))
    options.setdefault("progress", False)
    return cw.Learner(model, cw.Data.from_arrays(*arrays(), batch_size=16) if data is None else data, **options)


def weights(learn):
    return [parameter.detach().clone() for parameter in learn.model.parameters()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


CONSTANT = cw.Constant(lr=0.1, total_steps=10)


# -- Accelerate -----------------------------------------------------------------------------------------------------


def test_an_accelerator_in_full_precision_gives_the_bits_of_none():
    from accelerate import Accelerator

    plain, accelerated = make_learner(), make_learner(accelerator=Accelerator(cpu=True))
    plain.fit(CONSTANT), accelerated.fit(CONSTANT)
    assert equal(weights(plain), weights(accelerated))
    assert plain.evaluate() == accelerated.evaluate()


def test_what_accelerate_has_prepared_is_unwrapped():
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = accelerator.prepare(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    learn = make_learner(model=model, optimizer=optimizer, accelerator=accelerator)
    assert type(learn.optimizer) is torch.optim.SGD
    plain = make_learner()
    learn.fit(CONSTANT), plain.fit(CONSTANT)
    assert equal(weights(learn), weights(plain))


@pytest.mark.slow
def test_bfloat16_is_autocast():
    program = """
import torch, cyclewise as cw
from torch import nn
seen = []
class Probe(nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        seen.append(y.dtype)
        return y
model = nn.Sequential(Probe(4, 2))
learn = cw.Learner(model, [(torch.randn(8, 4), torch.ones(8).long())], mixed_precision=PRECISION, progress=False)
learn.fit(cw.Constant(lr=0.1, total_steps=3))
assert set(seen) == {torch.bfloat16}, seen
assert model[0].weight.dtype == torch.float32
assert learn.lr_find(num_steps=10).num_steps <= 10
"""
    # In processes of their own: the precision of an Accelerator is global to the process.
    asked = subprocess.run(
        [sys.executable, "-c", program.replace("PRECISION", '"bf16"')], capture_output=True, text=True, timeout=110
    )
    assert asked.returncode == 0, asked.stderr
    launched = subprocess.run(
        [sys.executable, "-c", program.replace("PRECISION", "None")],
        env={**os.environ, "ACCELERATE_MIXED_PRECISION": "bf16"}, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr


def test_the_policy_does_not_step_where_the_scaler_skips():
    learn = make_learner(loss_fn=lambda outputs, targets: 100 * F.cross_entropy(outputs, targets), clip=1.0)
    learn.runtime.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    learn.runtime.scaler._growth_interval = 10**6
    made = []

    class Count(cw.Callback):
        def on_step_end(self, learner, step, loss):
            made.append((step, learner.optimizer.param_groups[0]["lr"]))

    policy = cw.Linear(start_lr=0.1, end_lr=0.01, total_steps=10)
    history = learn.fit(policy, callbacks=[Count()])
    assert [step for step, _ in made] == list(range(10))
    assert [lr for _, lr in made] == policy.lr([*range(1, 10), 9]).tolist()
    assert learn.runtime.scaler.get_scale() < 2.0**126
    assert history.num_steps == 10
    assert learn.own_data.train_loader.num_batches + 5 * (learn.own_data.train_loader.num_passes - 1) > 10


@pytest.mark.parametrize(("options", "message"), [
    ({"accelerator": 7}, "accelerator must be an accelerate.Accelerator, got int 7; leave it out for a plain run"),
    ({"mixed_precision": "int8"}, "mixed_precision must be one of 'no', 'bf16', 'fp16', got 'int8'"),
    ({"accumulation_steps": 0},
     "accumulation_steps must be a whole number of at least 1, got 0; 1 updates after every batch"),
    ({"clip": "often"}, 'clip must be a norm, "auto" or None, got str \'often\'; pass for example 1.0'),
    ({"clip": -1.0}, 'clip must be a finite number above 0, got -1.0; 1.0 is usual; "auto" follows the recent norms, '
                     "None is off"),
    ({"on_divergence": "ignore"}, "on_divergence must be one of 'raise', 'rollback', got 'ignore'"),
    ({"layer_groups": [[nn.Linear(2, 2)]]},
     "layer_groups must hold every parameter of the model once, got 2 for 6; put each module into one group, tied "
     "ones into the first"),
    ({"layer_groups": [["head"]]},
     "layer_groups must be lists of modules or parameters, got str 'head' in one; pass for example "
     "[[model.body], [model.head]]"),
])  # fmt: skip
def test_messages_of_arguments(options, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        make_learner(**options)
    assert str(caught.value).startswith(message)


def test_a_model_on_several_devices_is_refused():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2, device="meta"))
    with pytest.raises(cw.ArgumentError, match=r"^model must have all its parameters on one device, got \['cpu', 'me"):
        make_learner(model=model)


def test_trackers_get_rates_and_scores(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    learn = make_learner(metrics={"accuracy": cw.accuracy})
    learn.fit_one_cycle(2, max_lr=0.1, callbacks=[cw.Track("tensorboard", directory=tmp_path, every_steps=2)])
    events = EventAccumulator(str(tmp_path / "cyclewise"))
    events.Reload()
    assert {"lr", "loss", "momentum", "train_loss", "valid_loss", "accuracy"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("lr")] == [0, 2, 4, 6, 8]
    assert events.Scalars("loss")[1].value == pytest.approx(learn.history.loss[2])
    with pytest.raises(
        cw.ArgumentError, match=r"^log_with must be one of aim, .*, got 'tensorbored'; pass one of them$"
    ):
        learn.fit(CONSTANT, callbacks=[cw.Track("tensorbored")])


# -- clipping, divergence -------------------------------------------------------------------------------------------


def test_gradients_are_clipped_in_fits_and_range_tests():
    seen = []

    class Watch(torch.optim.SGD):
        def step(self, closure=None):
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            seen.append(float(torch.nn.utils.get_total_norm(gradients)))
            return super().step(closure)

    learn = make_learner(clip=0.05, optimizer=lambda groups: Watch(groups, lr=0.1))
    learn.fit(CONSTANT)
    learn.lr_find(num_steps=20)
    assert len(seen) >= 25
    assert max(seen) <= 0.05 * (1 + 1e-5)


def test_auto_clipping_tames_one_bad_batch():
    inputs, targets = arrays(16 * 60)
    inputs[16 * 50 : 16 * 51] *= -1e4
    data = cw.Data(list(zip(inputs.split(16), targets.split(16), strict=True)))
    learn = make_learner(data=data, model=nn.Linear(6, 2), clip="auto")
    sizes = []

    class Size(cw.Callback):
        def on_step_end(self, learner, step, loss):
            sizes.append(float(learner.model.weight.detach().norm()))

    learn.fit(cw.Constant(lr=0.01, total_steps=60), callbacks=[Size()])
    assert abs(sizes[50] - sizes[49]) < 0.1
    plain = make_learner(data=data, model=nn.Linear(6, 2))
    sizes.clear()
    plain.fit(cw.Constant(lr=0.01, total_steps=60), callbacks=[Size()])
    assert abs(sizes[50] - sizes[49]) > 10


def bombed():
    inputs, targets = arrays(16 * 20)
    return [(x * (float("nan") if i == 7 else 1.0), y)
            for i, (x, y) in enumerate(zip(inputs.split(16), targets.split(16), strict=True))]  # fmt: skip


def test_divergence_says_where_and_what_was_saved(tmp_path):
    learn = make_learner(data=cw.Data(bombed()))
    with pytest.raises(cw.DivergedError) as caught:
        learn.fit(cw.Constant(lr=0.05, total_steps=20), callbacks=[cw.Checkpoint(tmp_path, every_steps=3)])
    error = caught.value
    assert (error.step, error.lr) == (7, 0.05)
    assert error.checkpoint is not None
    assert error.checkpoint.name.endswith("step-00000006")
    assert str(error) == (
        "the training loss is nan at step 7, with a learning rate of 0.05; train with a lower max_lr (lr_find gives "
        "one), or look for NaN in the inputs; this step's batch holds values that are not finite; the last good "
        f"checkpoint is {str(error.checkpoint)!r}"
    )
    assert learn.resume(tmp_path) == 6
    assert all(bool(w.isfinite().all()) for w in weights(learn))


def test_rollback_goes_on_with_half_the_rate():
    learn = make_learner(
        model=nn.Linear(6, 1), loss_fn=lambda o, t: (o.squeeze(1) - t).square().mean() ** 2, on_divergence="rollback"
    )
    policy = cw.Linear(start_lr=0.01, end_lr=0.8, total_steps=50)
    with pytest.warns(
        UserWarning, match=r"^the training loss was not finite at step \d+; rolled back to step \d+, the "
    ):
        history = learn.fit(policy)
    assert history.num_steps == 50
    assert np.isfinite(history.loss).all()
    assert all(bool(w.isfinite().all()) for w in weights(learn))
    assert history.lr[-1] < 0.8
    assert "Rescaled(" in history.policies[0]
    with pytest.raises(cw.DivergedError):
        make_learner(model=nn.Linear(6, 1), loss_fn=learn.loss_fn).fit(policy)


def test_a_rollback_gives_up_after_five():
    learn = make_learner(data=cw.Data(bombed()), on_divergence="rollback")
    with pytest.warns(UserWarning, match="rolled back"), pytest.raises(cw.DivergedError):
        learn.fit(cw.Constant(lr=0.05, total_steps=20))


# -- layer groups ---------------------------------------------------------------------------------------------------


def grouped(**options):
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.Linear(8, 2))
    return make_learner(model=model, layer_groups=[[model[0], model[1]], [model[3]], [model[4]]], **options)


def test_frozen_groups_do_not_move():
    learn = grouped()
    learn.fit(CONSTANT)  # leaves gradients and momentum behind
    before, statistics = weights(learn), learn.model[1].running_mean.clone()
    learn.freeze(batch_norm="eval")
    learn.fit(CONSTANT)
    after = weights(learn)
    assert equal(before[:6], after[:6])
    assert not torch.equal(before[6], after[6])
    assert torch.equal(learn.model[1].running_mean, statistics)
    learn.freeze()
    learn.fit(CONSTANT)
    assert not torch.equal(learn.model[1].running_mean, statistics)
    learn.freeze_to(1)
    learn.fit(CONSTANT)
    assert equal(before[:4], weights(learn)[:4])
    assert not torch.equal(after[4], weights(learn)[4])
    learn.unfreeze()
    learn.fit(CONSTANT)
    assert not torch.equal(before[0], weights(learn)[0])
    with pytest.raises(cw.ArgumentError) as caught:
        learn.freeze_to(3)
    assert str(caught.value) == (
        "group must be a number from -3 to 2 (3 layer groups), got 3; make more groups with layer_groups= or "
        "Learner.pretrained"
    )
    with pytest.raises(
        cw.ArgumentError, match=r"^freeze\(\) needs at least two layer groups, got 1; pass layer_groups"
    ):
        make_learner().freeze()


def test_rates_between_the_groups():
    learn = grouped()
    seen = []

    class Rates(cw.Callback):
        def on_step_end(self, learner, step, loss):
            seen.append([group["lr"] for group in learner.optimizer.param_groups])

    learn.fit_one_cycle(2, max_lr=slice(1e-4, 1e-2), pct_start=0.3, callbacks=[Rates()])
    peaks = np.max(seen, axis=0)
    assert peaks == pytest.approx([1e-4, 1e-3, 1e-2])
    learn.fit_one_cycle(1, max_lr=slice(0.1), callbacks=[Rates()])
    for group, rate in zip(learn.optimizer.param_groups, [0.001, 0.01, 0.1], strict=True):
        group["lr"] = rate
    found = learn.lr_find(num_steps=100)
    assert found.max_lr is not None
    assert found.max_lrs == pytest.approx([found.max_lr / 100, found.max_lr / 10, found.max_lr])
    history = learn.fit_one_cycle(1)
    assert history.lr.max() == pytest.approx(found.max_lr)
    with pytest.raises(cw.ArgumentError, match=r"^max_lr must have one rate per parameter group \(3\), got 2"):
        learn.fit_one_cycle(1, max_lr=[0.1, 0.2])


def test_the_range_test_keeps_frozen_batch_norm_in_eval_mode():
    learn = grouped()
    learn.freeze(batch_norm="eval")
    modes = []
    learn.model[1].register_forward_hook(lambda module, *_: modes.append(module.training))
    learn.lr_find(num_steps=20)
    assert not any(modes)


# -- cycles ---------------------------------------------------------------------------------------------------------


def test_sgdr_snapshots_become_an_ensemble():
    learn = make_learner(metrics={"accuracy": cw.accuracy})
    history = learn.fit_sgdr(T_0=1, T_mult=2, num_cycles=3, max_lr=0.1, snapshots=True)
    assert history.num_steps == 5 + 10 + 20
    ensemble = learn.ensemble()
    assert len(ensemble) == 3
    assert len(ensemble.last(2)) == 2
    scores = ensemble.evaluate()
    assert set(scores) == {"loss", "accuracy", "calibration_error"}
    with pytest.raises(cw.ArgumentError, match=r"^ensemble\(\) needs snapshots, got none; call learn\.fit_sgdr\("):
        make_learner().ensemble()


def test_cyclical_rates_in_epochs():
    history = make_learner().fit_cyclical(cyc_len=2, num_cycles=2, max_lr=0.2, base_lr=0.05, moms=(0.95, 0.85))
    assert history.num_steps == 20
    assert (history.lr.min(), history.lr.max()) == (0.05, pytest.approx(0.2))
    assert (history.momentum.min(), history.momentum.max()) == (pytest.approx(0.85), 0.95)


def test_the_articles_momentum_differs_under_a_cycle_and_not_at_a_constant_rate():
    def losses(optimizer, policy):
        return make_learner(optimizer=lambda groups: optimizer(groups, lr=0.1, momentum=0.9)).fit(policy).loss

    constant = cw.Constant(lr=0.05, total_steps=20)
    cycle = cw.OneCycle(max_lr=0.2, total_steps=20)
    np.testing.assert_allclose(losses(torch.optim.SGD, constant), losses(cw.VelocitySGD, constant), rtol=1e-4)
    assert np.abs(losses(torch.optim.SGD, cycle) - losses(cw.VelocitySGD, cycle)).max() > 1e-3


def test_accumulation_averages_the_batches():
    batches = list(zip(*(part.split(16) for part in arrays()), strict=True))
    pairs = [tuple(map(torch.cat, zip(*batches[i : i + 2], strict=True))) for i in range(0, 6, 2)]
    accumulated = make_learner(accumulation_steps=2, model=nn.Linear(6, 2), data=cw.Data(batches))
    joined = make_learner(model=nn.Linear(6, 2), data=cw.Data(pairs))
    first, second = (learn.fit_one_cycle(1, max_lr=0.1).loss for learn in (accumulated, joined))
    np.testing.assert_allclose(first, second, rtol=1e-5)


# -- callbacks ------------------------------------------------------------------------------------------------------


def test_weight_averages_are_validated_and_left_in_the_model():
    learn = make_learner()
    trail = []

    class Trail(cw.Callback):
        def on_step_end(self, learner, step, loss):
            trail.append(weights(learner))

    start = weights(learn)
    learn.fit(cw.Constant(lr=0.1, total_steps=7), callbacks=[cw.WeightAverage(0.5), Trail()])
    average = start
    for step, now in enumerate(trail, 1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = [decay * a + (1 - decay) * w for a, w in zip(average, now, strict=True)]
    for a, b in zip(average, weights(learn), strict=True):
        torch.testing.assert_close(a, b)
    assert learn.history.epochs[-1].valid_loss == pytest.approx(learn.evaluate()["loss"])


def test_early_stopping_ends_the_fit_at_an_epoch():
    learn = make_learner(metrics={"accuracy": cw.accuracy})
    history = learn.fit(cw.Constant(lr=0.1, total_steps=500),
                        callbacks=[cw.EarlyStopping("accuracy", patience=2, min_delta=2.0)])  # fmt: skip
    assert history.num_steps == 15
    with pytest.raises(cw.ArgumentError) as caught:
        learn.fit(CONSTANT, callbacks=[cw.EarlyStopping("accurracy")])
    assert str(caught.value) == (
        "monitor must be one of ['accuracy', 'train_loss', 'valid_loss'], got 'accurracy'; pass one of them"
    )


# -- scores, predictions, records -----------------------------------------------------------------------------------


def test_metrics_are_streamed():
    from torchmetrics.classification import MulticlassAccuracy

    learn = make_learner(metrics={
        "function": cw.accuracy, "object": MulticlassAccuracy(num_classes=2, average="micro")})  # fmt: skip
    learn.fit(CONSTANT)
    scores = learn.evaluate()
    assert list(scores) == ["loss", "function", "object"]
    assert scores["function"] == pytest.approx(scores["object"])
    outputs = learn.predict()
    targets = torch.cat([y for _, y in learn.data.valid_loader])
    assert scores["loss"] == pytest.approx(F.cross_entropy(outputs, targets).item())


def test_a_metric_that_raises_is_named():
    def broken(outputs, targets):
        raise ZeroDivisionError("by zero")

    learn = make_learner(metrics={"mine": broken})
    with pytest.raises(ZeroDivisionError) as caught:
        learn.evaluate()
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == [
            "raised by metrics['mine'] for outputs torch.float32 of shape (16, 2) and "
            "targets torch.int64 of shape (16,)"
        ]
    learn = make_learner(metrics={"all": lambda outputs, targets: outputs})
    with pytest.raises(cw.ArgumentError, match=r"^metrics\['all'\] must return one number, got torch.float32 of shape"):
        learn.evaluate()


def test_predictions_of_whatever_is_given():
    learn = make_learner()
    inputs, targets = arrays()
    learn.model.eval()
    expected = learn.model(inputs).detach()
    learn.model.train()
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=10)
    for given in (inputs, inputs.numpy(), loader, [inputs]):
        torch.testing.assert_close(learn.predict(given), expected)
    assert learn.predict().shape == (19, 2)
    assert learn.model.training


def test_the_history_is_written(tmp_path):
    learn = make_learner(metrics={"accuracy": cw.accuracy})
    learn.fit_one_cycle(2, max_lr=0.1)
    learn.history.save(tmp_path / "history.json")
    learn.history.save(tmp_path / "history.csv")
    assert cw.History.from_dict(json.loads((tmp_path / "history.json").read_text())) == learn.history
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert len(rows) == 10
    assert float(rows[3]["loss"]) == learn.history.loss[3]
    assert float(rows[4]["accuracy"]) == learn.history.epochs[0].metrics["accuracy"]
    assert rows[3]["accuracy"] == ""
    with pytest.raises(cw.ArgumentError, match=r"^path must end in \.json or \.csv, got '.*history.txt'; name it for"):
        learn.history.save(tmp_path / "history.txt")


def test_log_files_get_a_line_per_epoch(capsys):
    learn = make_learner(progress=True, metrics={"accuracy": cw.accuracy})
    learn.fit_one_cycle(2, max_lr=0.1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 10 steps"
    assert len(lines) == 3
    assert all(re.fullmatch(r"epoch \d: train loss \S+  valid loss \S+  accuracy \S+  \(\d+\.\d s\)", line)
               for line in lines[1:])  # fmt: skip


def test_the_summary_and_the_loss_picture():
    learn = grouped()
    learn.freeze()
    lines = learn.summary().splitlines()
    assert lines[-1] == "298 parameters, 18 trained, 3 layer groups; SGD"
    assert len(lines) == 6
    with pytest.raises(cw.ArgumentError, match=r"^plot_loss\(\) needs a fit, got none; call learn\.fit_one_cycle\("):
        learn.sched.plot_loss()
    learn.fit(CONSTANT)
    assert len(learn.sched.plot_loss().axes) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_compiled_models_train_to_nearly_the_same():
    plain, compiled = make_learner(model=nn.Linear(6, 2)), make_learner(model=nn.Linear(6, 2), compile=True)
    plain.fit(CONSTANT), compiled.fit(CONSTANT)
    np.testing.assert_allclose(plain.history.loss, compiled.history.loss, rtol=1e-4)
    assert set(compiled.model.state_dict()) == {"weight", "bias"}


def test_an_empty_validation_loader_and_a_nan_metric():
    learn = make_learner(data=cw.Data([(torch.ones(2, 6), torch.ones(2).long())], []))
    with pytest.raises(cw.ArgumentError, match=r"^valid_loader must yield at least one batch, got an empty one; check"):
        learn.evaluate()
    learn = make_learner(metrics={"nan": lambda outputs, targets: math.nan})
    assert math.isnan(learn.fit(CONSTANT).epochs[-1].metrics["nan"])
