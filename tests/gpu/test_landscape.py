"""Measurements of the landscape on a CUDA device: those of the CPU, for every kind of layer, and over two ranks."""

import copy
import json
import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cyclewise as cw
from tests.landscape.kinds_of_models import CLASSES, MODELS, batches_for
from tests.two_ranks import run_on_two_ranks

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def in_double(item):
    if isinstance(item, dict):
        return {key: in_double(value) for key, value in item.items()}
    if isinstance(item, tuple):
        return tuple(map(in_double, item))
    return item.double() if item.is_floating_point() else item


def answer(model, loss_fn, batches):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    d = cw.diagnose(model, loss_fn, batches, optimizer=optimizer)
    return {
        "loss": d.loss, "gradient_norm": d.gradient_norm, "sharpness": d.sharpness.value,
        "lambda_min": d.lambda_min.value, "trace": d.trace.value, "g'Hg": d.curvature_along_gradient,
        "best_step": d.best_step,
    }  # fmt: skip


# The CPU's masks of dropout cannot be had on the device.
@pytest.mark.parametrize("name", [name for name in MODELS if "dropout" not in name])
def test_the_device_measures_what_the_cpu_does(name):
    torch.manual_seed(0)
    model = MODELS[name]().double()
    batches = [in_double(batch) for batch in batches_for(name)]
    loss_fn = None if name == "dict" else F.cross_entropy
    expected = answer(copy.deepcopy(model), loss_fn, batches)
    assert answer(model.cuda(), loss_fn, batches) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_diagnosis_leaves_no_trace(name):
    torch.manual_seed(0)
    model = MODELS[name]().cuda()
    batches = batches_for(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    generator, flags = torch.cuda.get_rng_state(), torch.backends.cudnn.enabled
    diagnosis = cw.diagnose(model, None if name == "dict" else F.cross_entropy, batches, optimizer=optimizer)
    assert diagnosis.sharpness is not None
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.cuda.get_rng_state(), generator)
    assert torch.backends.cudnn.enabled == flags
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_memory_over_time_is_measured_on_the_device(kind):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = kind(3, 16, batch_first=True)
            self.head = nn.Linear(16, CLASSES)

        def forward(self, x):
            return self.head(self.cells(x)[0][:, -1])

    torch.manual_seed(0)
    model = Reader()
    batches = [(torch.randn(16, 40, 3), torch.randint(CLASSES, (16,))) for _ in range(2)]

    def memory(model):
        diagnosis = cw.diagnose(model, F.cross_entropy, batches)
        return {finding.kind for finding in diagnosis.findings}, diagnosis.to_dict()["recurrences"]

    kinds, expected = memory(copy.deepcopy(model))
    found, measured = memory(model.cuda())
    assert found == kinds
    assert numbers(measured) == pytest.approx(numbers(expected), rel=1e-2, abs=1e-6)


def numbers(value):
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [float(value)] if isinstance(value, (int, float)) else []


def test_a_watch_records_the_sharpness_of_a_fit():
    torch.manual_seed(0)
    inputs = torch.randn(256, 8)
    data = cw.Data.from_arrays(inputs.cuda(), (inputs[:, 0] > 0).long().cuda(), batch_size=32)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2)).cuda()
    learn = cw.Learner(model, data, progress=False)
    watch = cw.Watch(every=5, noise_every=10, sharpness_every=10)
    learn.fit_one_cycle(5, max_lr=0.1, callbacks=[watch])
    sharpness = [value for value in watch.record.sharpness if value == value]
    assert len(sharpness) >= 3
    assert min(sharpness) > 0


# Two ranks on one device can talk over gloo only: NCCL wants a device each.
PROGRAM = """
import json, os, sys
import torch, torch.distributed as dist
from torch import nn
import cyclewise as cw

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
inputs, targets = torch.randn(64, 6, dtype=torch.float64), torch.randint(2, (64,))
model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double().cuda()
share = slice(rank * 32, rank * 32 + 32)
d = cw.diagnose(model, nn.functional.cross_entropy, [(inputs[share], targets[share])])
with open(os.environ["ANSWER"] + str(rank), "w") as file:
    json.dump([d.loss, d.gradient_norm, d.sharpness.value, d.trace.value], file)
dist.barrier()
os._exit(0)
"""


def test_products_are_summed_over_two_ranks(tmp_path, monkeypatch):
    monkeypatch.setenv("ANSWER", str(tmp_path / "answer"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, ["src", os.environ.get("PYTHONPATH")])))
    run_on_two_ranks(PROGRAM, tmp_path)
    answers = [json.loads((tmp_path / f"answer{rank}").read_text()) for rank in range(2)]
    torch.manual_seed(0)
    inputs, targets = torch.randn(64, 6, dtype=torch.float64), torch.randint(2, (64,))
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double().cuda()
    d = cw.diagnose(model, F.cross_entropy, [(inputs[:32], targets[:32]), (inputs[32:], targets[32:])])
    expected = [d.loss, d.gradient_norm, d.sharpness.value, d.trace.value]
    assert answers[0] == answers[1] == pytest.approx(expected, rel=1e-6)
