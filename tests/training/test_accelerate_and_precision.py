"""Accelerate, precision, accumulated batches and compiled models, each against the plain loop."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.training import runtime
from tests.training.small_learner import CONSTANT, arrays, equal, make_learner, weights


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


@pytest.mark.slow
def test_learners_of_one_process_have_precisions_of_their_own():
    program = """
import torch, cyclewise as cw
from torch import nn
class Probe(nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        seen.append(y.dtype)
        return y
def fit(precision):
    seen.clear()
    torch.manual_seed(0)
    batches = [(torch.randn(8, 4), torch.arange(8) % 2)]
    learn = cw.Learner(nn.Sequential(Probe(4, 2)), batches, mixed_precision=precision, progress=False)
    loss = learn.fit(cw.Constant(lr=0.1, total_steps=3)).loss
    assert set(seen) == {EXPECTED[precision]}, (precision, seen)
    return loss.tolist()
seen, EXPECTED = [], {"no": torch.float32, None: torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
order = ["fp16", "bf16", "no", None, "fp16"]
losses = [fit(precision) for precision in order]
assert losses[0] == losses[4] != losses[1] != losses[2] == losses[3], losses
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("shared", "precision", "device", "scaler"), [
    ("fp16", "fp16", "cuda", "its own"), ("bf16", "fp16", "cuda", torch.amp.GradScaler),
    ("bf16", "fp16", "cpu", None), ("fp16", "bf16", "cuda", None), ("fp16", "no", "cuda", None),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:torch.cuda.amp.GradScaler is enabled, but CUDA is not available")
def test_the_scaler_is_that_of_the_learner_s_precision(shared, precision, device, scaler):
    accelerator = SimpleNamespace(mixed_precision=shared, scaler="its own", device=torch.device(device))
    made = runtime._scaler(accelerator, precision)
    assert made == scaler or type(made) is scaler


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


def test_accumulation_averages_the_batches():
    batches = list(zip(*(part.split(16) for part in arrays()), strict=True))
    pairs = [tuple(map(torch.cat, zip(*batches[i : i + 2], strict=True))) for i in range(0, 6, 2)]
    accumulated = make_learner(accumulation_steps=2, model=nn.Linear(6, 2), data=cw.Data(batches))
    joined = make_learner(model=nn.Linear(6, 2), data=cw.Data(pairs))
    first, second = (learn.fit_one_cycle(1, max_lr=0.1).loss for learn in (accumulated, joined))
    np.testing.assert_allclose(first, second, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_compiled_models_train_to_nearly_the_same():
    plain, compiled = make_learner(model=nn.Linear(6, 2)), make_learner(model=nn.Linear(6, 2), compile=True)
    plain.fit(CONSTANT), compiled.fit(CONSTANT)
    np.testing.assert_allclose(plain.history.loss, compiled.history.loss, rtol=1e-4)
    assert set(compiled.model.state_dict()) == {"weight", "bias"}
