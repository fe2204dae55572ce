"""What only a CUDA device can show: placing, loss scaling, resuming, and steps that do not wait for the device."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture(autouse=True)
def _new_precision():
    # Accelerate keeps one precision per process.
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()


def arrays(n=320):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 16, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


def make_learner(data=None, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 2)).cuda()
    data = cw.Data.from_arrays(*arrays(), batch_size=32) if data is None else data
    return cw.Learner(model, data, metrics={"accuracy": cw.accuracy}, progress=False, **options)


def loader():
    train = DataLoader(TensorDataset(*arrays()), batch_size=32, shuffle=True, pin_memory=True)
    return cw.Data(train, DataLoader(TensorDataset(*arrays(64)), batch_size=32))


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_it_finds_and_trains(precision):
    learn = make_learner(mixed_precision=precision)
    found = learn.lr_find(num_steps=100)
    history = learn.fit_one_cycle(10, max_lr=found.max_lr or 0.01)
    assert learn.evaluate()["accuracy"] > 0.8
    assert history.num_steps == 80
    assert {parameter.device.type for parameter in learn.model.parameters()} == {"cuda"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")  # the same, of its first recording
@pytest.mark.parametrize("options", [{}, {"mode": "reduce-overhead"}])
def test_a_compiled_learner_finds_trains_and_resumes(tmp_path, options):
    def make():
        return make_learner(compile=options or True, mixed_precision="bf16")

    learn = make()
    found = learn.lr_find(num_steps=100)
    learn.fit_one_cycle(10, max_lr=found.max_lr or 0.01, callbacks=[cw.Checkpoint(tmp_path)])
    scores = learn.evaluate()
    assert scores["accuracy"] > 0.8
    later = make()
    assert later.resume(tmp_path) == 80
    assert later.evaluate() == pytest.approx(scores)


def test_a_start_is_searched_on_the_device():
    pytest.importorskip("nevergrad")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2)).cuda()
    with torch.no_grad():
        model[0].weight *= 50.0
    inputs, targets = (tensor.cuda() for tensor in arrays())
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def objective(candidate):
        return nn.functional.cross_entropy(candidate(inputs), targets).item()

    search = cw.search_start(cw.LayerGains(model), objective, budget=40, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert search.best_loss < objective(model)
    search.apply_to(model)
    assert objective(model) == search.best_loss


class Dies(Exception):
    pass


OPTIMIZERS = [
    (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {"capturable": True}),
    (torch.optim.AdamW, {"fused": True}),
    (torch.optim.RAdam, {}), (torch.optim.Adagrad, {}), (torch.optim.RMSprop, {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
@pytest.mark.parametrize("dies_at", [None, 30])
def test_a_range_test_of_functions_leaves_no_trace(kind, options, dies_at):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 2)).cuda()
    optimizer = kind(model.parameters(), lr=1e-3, **options)
    batches = [(x.cuda(), y.cuda()) for x, y in DataLoader(TensorDataset(*arrays(1280)), batch_size=32)]
    for inputs, targets in batches[:3]:  # an optimizer with a state
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    optimizer.zero_grad()
    calls = []

    def loss_fn(outputs, targets):
        calls.append(1)
        if len(calls) == dies_at:
            raise Dies
        return nn.functional.cross_entropy(outputs, targets)

    before = [value.clone() for value in [*model.state_dict().values(), *tensors(optimizer.state_dict())]]
    generator = torch.cuda.get_rng_state()
    if dies_at:
        with pytest.raises(Dies):
            cw.lr_find(model, optimizer, loss_fn, batches, total_steps=400)
    else:
        assert cw.lr_find(model, optimizer, loss_fn, batches, total_steps=400).max_lr is not None
    after = [*model.state_dict().values(), *tensors(optimizer.state_dict())]
    assert all(torch.equal(new, old) and new.device == old.device for new, old in zip(after, before, strict=True))
    assert torch.equal(torch.cuda.get_rng_state(), generator)


def tensors(state):
    return [value for own in state["state"].values() for value in own.values() if isinstance(value, torch.Tensor)]


def test_the_range_test_leaves_no_trace():
    learn = make_learner(mixed_precision="fp16")
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    generator = torch.cuda.get_rng_state()
    learn.lr_find(num_steps=60)
    assert all(torch.equal(value, before[name]) for name, value in learn.model.state_dict().items())
    assert torch.equal(torch.cuda.get_rng_state(), generator)


class DiesAt(cw.Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, learner, step, loss):
        if learner.num_steps == self.step:
            raise Dies


@pytest.mark.parametrize("make_data", [None, loader])
@pytest.mark.parametrize("precision", ["no", "fp16"])
def test_a_run_that_was_cut_off_ends_with_the_same_bits(tmp_path, precision, make_data):
    def make():
        return make_learner(None if make_data is None else make_data(), mixed_precision=precision)

    def fit(learn, step=None):
        learn.fit_one_cycle(3, max_lr=0.01, callbacks=[DiesAt(step), cw.Checkpoint(tmp_path, every_steps=3)])
        return learn.model.state_dict()

    whole = make()
    whole.fit_one_cycle(3, max_lr=0.01)
    with pytest.raises(Dies):
        fit(make(), 14)
    learn = make()
    assert learn.resume(tmp_path) == 12
    assert all(torch.equal(value, whole.model.state_dict()[name]) for name, value in fit(learn).items())


def test_an_update_that_the_scaler_skips_is_no_step():
    learn = make_learner(mixed_precision="fp16", optimizer=torch.optim.AdamW)
    scaler = learn.runtime.scaler
    scaler.scale(torch.ones((), device="cuda"))
    scaler.update(2.0**40)  # overflows at once, until it has come down
    history = learn.fit(cw.Constant(lr=0.01, total_steps=16))
    assert history.num_steps == 16
    assert scaler.get_scale() < 2.0**30
    steps = {float(state["step"]) for state in learn.optimizer.state.values()}
    assert steps == {16.0}


def test_a_step_does_not_wait_for_the_device():
    learn = make_learner()
    learn.fit(cw.Constant(lr=0.01, total_steps=8))

    class Counts(cw.Callback):
        num = 0

        def on_step_end(self, learner, step, loss):
            assert loss.is_cuda
            self.num += 1

    counts = Counts()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            learn.fit(cw.Constant(lr=0.01, total_steps=64), callbacks=[counts])  # eight epochs
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "called a synchronizing" in str(warning.message)]
    assert counts.num == 64
    # An epoch's end reads its losses, and the scores of its two validation batches, a loss and a metric each.
    assert len(waits) <= 8 * 5, sorted({f"{warning.filename}:{warning.lineno}" for warning in waits})
