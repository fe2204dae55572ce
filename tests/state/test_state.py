import os
import random
import signal
import threading
from array import array
from collections import OrderedDict, deque
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from cyclewise import ArgumentError, preserve
from cyclewise.state import Snapshot, deferred_interrupts

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), capturable=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1),
}


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2))


def update(model, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = model(torch.randn(6, 4)).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)


def everything(model, optimizer):
    """All the bits of a model and an optimizer, and the identity of their tensors."""

    def bits(value):
        if isinstance(value, torch.Tensor):
            return id(value), value.data_ptr(), value.detach().clone().view(-1).tolist(), value.dtype
        if isinstance(value, dict):
            return {key if isinstance(key, str) else id(key): bits(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [bits(item) for item in value]
        return value

    return {
        "tensors": bits({**dict(model.named_parameters()), **dict(model.named_buffers())}),
        "gradients": {name: bits(p.grad) for name, p in model.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "modes": [module.training for module in model.modules()],
        "groups": bits(optimizer.param_groups),
        "state": bits(dict(optimizer.state)),
        "rng": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
    }


@pytest.mark.parametrize("has_trained", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_everything_comes_back_bit_for_bit(name, has_trained):
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    model[0].weight.requires_grad_(False)
    if has_trained:
        update(model, optimizer)
    before = everything(model, optimizer)
    with preserve(model, optimizer):
        for _ in range(3):
            update(model, optimizer)
        optimizer.param_groups[0]["lr"] = 7.0
        model.eval()
        model[0].weight.requires_grad_(True)
        random.random(), np.random.rand(), torch.rand(1)
        assert everything(model, optimizer) != before
    assert everything(model, optimizer) == before


@pytest.mark.parametrize("error", [ValueError("user's own"), KeyboardInterrupt()])
def test_an_exception_passes_unchanged_after_the_restore(error):
    model = network()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    before = everything(model, optimizer)
    with pytest.raises(type(error)) as caught, preserve(model, optimizer):
        update(model, optimizer)
        raise error
    assert caught.value is error
    assert everything(model, optimizer) == before


def test_tensor_rates_are_restored_in_place():
    model = network()
    rate = torch.tensor(0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with preserve(model, optimizer):
        rate.fill_(3.0)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.1)


def test_replaced_parameters_swapped_storage_hooks_and_counters_come_back():
    model = network()
    weight, pointer = model[0].weight, model[4].weight.data_ptr()
    model.calls = 0
    model.hidden = torch.zeros(3)
    model.window = deque([1, 2])
    with preserve(model):
        model[0].weight = nn.Parameter(torch.zeros(8, 4))
        model[4].weight.data = torch.zeros(2, 8)
        model.register_forward_hook(lambda *_: None)
        model.calls += 1
        model.hidden += 1
        model.window.append(3)
        model.late = "added"
        model.register_buffer("extra", torch.ones(1))
    assert model[0].weight is weight
    assert model[4].weight.data_ptr() == pointer
    assert not model._forward_hooks
    assert (model.calls, model.hidden.tolist(), list(model.window)) == (0, [0.0] * 3, [1, 2])
    assert not hasattr(model, "late")
    assert not hasattr(model, "extra")


def test_tied_parameters_stay_tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    value = model[0].weight.detach().clone()
    with preserve(model), torch.no_grad():
        model[0].weight.zero_()
    assert model[1].weight is model[0].weight
    assert torch.equal(model[0].weight, value)


class Noisy(torch.utils.data.Dataset):
    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.python_rng = random.Random(0)
        self.images = torch.zeros(100, 3)
        self.num_reads = 0

    def __len__(self):
        return 20

    def __getitem__(self, index):
        self.num_reads += 1
        return torch.tensor(self.rng.normal() + self.python_rng.random()), index


def test_a_loader_gives_the_same_batches_again():
    loader = torch.utils.data.DataLoader(
        Noisy(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(1)
    )
    with preserve(data=(loader,)):
        inside = [batch[0].tolist() for batch in loader]
    assert [batch[0].tolist() for batch in loader] == inside
    assert loader.dataset.num_reads == 20


def test_data_is_not_copied():
    loader = torch.utils.data.DataLoader(Noisy(), batch_size=4)
    snapshot = Snapshot(data=(loader, [(torch.zeros(2), torch.ones(2))]))
    loader.dataset.images += 1
    snapshot.restore()
    assert loader.dataset.images.sum() == 300


def test_a_scaler_that_was_never_used_is_unused_again():
    scaler = torch.amp.GradScaler("cpu")
    with preserve(scaler):
        scaler.scale(torch.ones(1))
        assert scaler._scale is not None
    assert scaler._scale is None


def test_a_snapshot_restores_any_number_of_times():
    model = network()
    before = model[0].weight.detach().clone()
    snapshot = Snapshot(model, {"ema": OrderedDict(shadow=[before])})
    for _ in range(3):
        nn.init.zeros_(model[0].weight)
        snapshot.restore()
        assert torch.equal(model[0].weight, before)


def test_lazy_layers_are_refused():
    with pytest.raises(ArgumentError) as caught, preserve(nn.LazyLinear(2)):
        pass
    assert str(caught.value) == (
        "model must have initialised parameters, got a lazy layer that has not seen a batch; "
        "run one batch through the model first"
    )


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_waits_for_the_restore():
    seen = []
    with pytest.raises(KeyboardInterrupt):
        with deferred_interrupts():
            interrupt()
            seen.append("went on")
        seen.append("never reached")
    assert seen == ["went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class InterruptsOnRestore(nn.Module):
    """Sends Ctrl-C while its first tensor is being given back."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.ones(2))
        self.second = nn.Parameter(torch.ones(2))


def test_ctrl_c_during_the_restore_leaves_it_complete(monkeypatch):
    model = InterruptsOnRestore()
    guard = preserve(model)
    snapshot = guard.__enter__()
    with torch.no_grad():
        model.first.zero_()
        model.second.zero_()
    snapshot._restorers.insert(0, interrupt)
    with pytest.raises(KeyboardInterrupt):
        guard.__exit__(None, None, None)
    assert model.first.tolist() == model.second.tolist() == [1.0, 1.0]


def test_ctrl_c_just_before_the_shield_leaves_it_complete(monkeypatch):
    model = InterruptsOnRestore()
    guard = preserve(model)
    guard.__enter__()
    with torch.no_grad():
        model.first.zero_()
    from cyclewise import state

    shield, calls = state.deferred_interrupts, []

    def late_shield():
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return shield()

    monkeypatch.setattr(state, "deferred_interrupts", late_shield)
    with pytest.raises(KeyboardInterrupt):
        guard.__exit__(None, None, None)
    assert model.first.tolist() == [1.0, 1.0]


def test_other_threads_restore_without_signals():
    model = network()
    errors = []

    def work():
        try:
            with preserve(model):
                nn.init.zeros_(model[0].weight)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
    assert model[0].weight.abs().sum() > 0


class Counter:
    """Counts its calls, as a loss with a running statistic would."""

    def __init__(self):
        self.calls = 0
        self.total = torch.zeros(1)

    def add(self, amount):
        self.calls += 1
        self.total += amount


class Slotted:
    """Keeps its state where there is no ``__dict__``."""

    __slots__ = ("calls", "total", "unset")

    def __init__(self):
        self.calls = 0
        self.total = torch.zeros(1)


@dataclass(frozen=True, slots=True)
class Frozen:
    """Cannot be written to, but by force."""

    total: torch.Tensor
    names: list


@pytest.mark.parametrize("hide", [lambda c: c.add, lambda c: partial(c.add, 2.0), lambda c: [partial(print, c)]])
def test_what_a_method_or_a_partial_carries_is_given_back(hide):
    counter = Counter()
    with preserve(hide(counter)):
        counter.add(1.0)
    assert (counter.calls, counter.total.item()) == (0, 0.0)


def test_attributes_in_slots_are_given_back():
    model = nn.Linear(1, 1)
    model.statistics = Slotted()
    model.frozen = Frozen(torch.zeros(1), [1])
    total = model.statistics.total
    with preserve(model):
        model.statistics.calls = 3
        model.statistics.total += 1.0
        model.statistics.total = torch.ones(1)
        model.frozen.names.append(2)
        object.__setattr__(model.frozen, "total", torch.ones(1))
    assert model.statistics.calls == 0
    assert model.statistics.total is total
    assert total.item() == 0.0
    assert (model.frozen.total.item(), model.frozen.names) == (0.0, [1])


def test_byte_arrays_are_given_back():
    model = nn.Linear(1, 1)
    model.seen, model.counts = bytearray(b"abc"), array("i", [1, 2])
    with preserve(model):
        model.seen.extend(b"d")
        model.counts[0] = 5
    assert (model.seen, model.counts) == (bytearray(b"abc"), array("i", [1, 2]))


class Hidden:
    """A slot behind a property that fails, one with a private name, and one that is set later."""

    __slots__ = ("__count", "later", "value")

    def __init__(self):
        self.__count = 0

    def count(self):
        self.__count += 1
        return self.__count


class Failing(Hidden):
    @property
    def value(self):
        raise RuntimeError


def test_slots_are_given_back_by_themselves_not_by_their_names():
    model = nn.Linear(1, 1)
    model.hidden = Failing()
    with preserve(model):
        model.hidden.count()
        model.hidden.later = 1
    assert not hasattr(model.hidden, "later")
    assert model.hidden.count() == 1


def test_a_buffer_that_somebody_looks_at_does_not_keep_the_rest_from_being_given_back():
    model = nn.Linear(1, 1)
    model.seen = bytearray(b"abc")
    weight = model.weight.item()
    with preserve(model.seen, model):
        model.seen.extend(b"d")
        view = memoryview(model.seen)
        nn.init.zeros_(model.weight)
    assert model.weight.item() == weight
    view.release()
