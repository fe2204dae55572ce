"""State in unusual places: each is given back as it was, by every door that walks."""

import random
from collections import ChainMap, Counter, OrderedDict
from itertools import islice
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset

import cyclewise as cw
from cyclewise.state import Snapshot, preserve

INPUTS = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(INPUTS, INPUTS.sum(1, keepdim=True))
BATCHES = list(zip(INPUTS.split(16), INPUTS.sum(1, keepdim=True).split(16), strict=True))


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 1))


def find(model, loader=BATCHES, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return cw.lr_find(model, optimizer, F.mse_loss, loader, num_steps=20, progress=False, **options)


def diagnose(model, loader=BATCHES):
    return cw.diagnose(model, F.mse_loss, loader, budget=12)


DOORS = {"lr_find": find, "diagnose": diagnose}


class Counting(nn.Module):
    """Does something to its own state in every pass."""

    def __init__(self, on_forward, **state):
        super().__init__()
        self.net = small()
        self.on_forward = on_forward
        for name, value in state.items():
            setattr(self, name, value)

    def forward(self, inputs):
        self.on_forward(self)
        return self.net(inputs)


class Named(dict):
    """A dict with an attribute."""


class Listed(list):
    """A list with an attribute."""


def named(kind):
    made = kind()
    made.total = 0
    return made


def record():
    made = np.zeros(2, dtype=[("names", object), ("number", int)])
    made["names"] = [[], []]
    return made


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("on_forward", "state", "read"),
    [
        (lambda m: m.seen.update(["a", "b"]), {"seen": Counter(a=3)}, lambda m: m.seen),
        (lambda m: m.seen.__setitem__("b", 2), {"seen": ChainMap({}, {"a": 1})}, lambda m: m.seen.maps),
        (lambda m: m.seen.move_to_end("a"), {"seen": OrderedDict(a=1, b=2)}, lambda m: list(m.seen)),
        (lambda m: vars(m.seen).update(total=5), {"seen": named(Named)}, lambda m: m.seen.total),
        (lambda m: vars(m.seen).update(total=5), {"seen": named(Listed)}, lambda m: m.seen.total),
        (lambda m: setattr(m.net[0].weight, "calls", 1), {}, lambda m: hasattr(m.net[0].weight, "calls")),
        (lambda m: m.net[0].weight.register_hook(lambda g: None), {}, lambda m: m.net[0].weight._backward_hooks),
        (lambda m: m.mask.untyped_storage().fill_(0), {"mask": torch.ones(1, 3).expand(4, 3)}, lambda m: m.mask.sum()),
        (lambda m: m.noise.random(), {"noise": random.SystemRandom()}, lambda m: type(m.noise)),
        (lambda m: m.seen[0].append(1), {"seen": np.array([[], None], dtype=object)}, lambda m: m.seen),
        (lambda m: m.seen["names"][0].append(1), {"seen": record()}, lambda m: m.seen),
        (lambda m: m.seen["total"].add_(1), {"seen": MappingProxyType({"total": torch.zeros(2)})}, lambda m: m.seen),
        (lambda m: m.noise.random_raw(), {"noise": np.random.PCG64(0)}, lambda m: m.noise.state),
    ],
)
def test_what_a_forward_pass_does_to_its_own_state_is_undone(door, on_forward, state, read):
    model = Counting(on_forward, **state)
    before = str(read(model))
    DOORS[door](model)
    assert str(read(model)) == before
    # Whoever had one goes on with it.
    model(INPUTS)


def test_hooks_that_were_there_stay():
    weight = nn.Parameter(torch.ones(2))
    calls = []
    handle = weight.register_hook(lambda gradient: calls.append("first"))
    snapshot = Snapshot(weight)
    weight.register_hook(lambda gradient: calls.append("second"))
    weight.register_post_accumulate_grad_hook(lambda parameter: calls.append("third"))
    snapshot.restore()
    weight.sum().backward()
    assert calls == ["first"]
    handle.remove()
    snapshot.restore()
    weight.sum().backward()
    assert calls == ["first", "first"]


def test_a_tensor_that_a_parameter_holds_is_given_back_when_another_takes_its_place():
    weight = nn.Parameter(torch.ones(2))
    weight.average = average = torch.full((2,), 3.0)
    snapshot = Snapshot(weight)
    weight.average = weight.average * 0.9
    average.zero_()
    snapshot.restore()
    assert weight.average is average
    assert average.tolist() == [3.0, 3.0]


def test_an_expanded_buffer_gets_its_values_back():
    model = small()
    model.register_buffer("mask", torch.ones(1, 3).expand(4, 3))
    memory = model.mask.data_ptr()
    snapshot = Snapshot(model)
    model.mask.untyped_storage().fill_(0)
    snapshot.restore()
    assert bool((model.mask == 1.0).all())
    assert (model.mask.data_ptr(), model.mask.stride()) == (memory, (0, 1))


def test_a_nested_tensor_is_given_back():
    with pytest.warns(UserWarning, match="nested tensors"):
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    model = Counting(lambda m: m.parts.mul_(2.0), parts=nested)
    find(model)
    assert [part.tolist() for part in model.parts.unbind()] == [[1.0] * 2, [1.0] * 3]


def test_what_cannot_be_given_back_does_not_keep_the_rest():
    layer = nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    snapshot = Snapshot(layer)

    def fails():
        raise RuntimeError("gone")

    snapshot._restorers.insert(0, fails)
    nn.init.zeros_(layer.weight)
    random_state = torch.get_rng_state()
    torch.rand(3)
    with pytest.raises(RuntimeError, match="gone"):
        snapshot.restore()
    assert torch.equal(layer.weight, before)
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        lambda model: nn.Sequential(torch.compile(model, backend="eager")),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_keeps_its_statistics_and_modes(wrap):
    model = small()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    find(wrap(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_model_keeps_its_mode():
    model = torch.jit.script(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))).eval()
    before = [buffer.clone() for buffer in model.buffers()]
    find(model)
    assert not model.training
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(now, then) for now, then in zip(model.buffers(), before, strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_frozen_script_has_no_mode():
    frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()))
    model = nn.Sequential(frozen, nn.Linear(4, 1))
    before = model[1].weight.detach().clone()
    find(model)
    assert torch.equal(model[1].weight, before)


class Refusing(dict):
    """Takes no items after it is made."""

    def __setitem__(self, key, value):
        raise TypeError("fixed")


def test_a_dict_that_refuses_items_is_given_back():
    fixed = Refusing(a=1)
    snapshot = Snapshot(fixed)
    dict.__setitem__(fixed, "a", 2)
    snapshot.restore()
    assert fixed == {"a": 1}


class Shuffled(Sampler):
    """Shuffles its own indices, and counts its passes, in place."""

    def __init__(self, indices):
        self.indices = indices
        self.passes = torch.zeros(())

    def __iter__(self):
        self.passes += 1
        order = np.random.default_rng(int(self.passes)).permutation(len(DATA))
        self.indices[:] = [self.indices[i] for i in order]
        return iter([int(i) for i in self.indices[: len(DATA)]])

    def __len__(self):
        return len(DATA)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("make", [lambda: np.arange(len(DATA)), lambda: list(range(len(DATA)))])
def test_a_sampler_is_given_back_with_its_arrays(door, make):
    sampler = Shuffled(make())
    loader = DataLoader(DATA, batch_size=16, sampler=sampler)
    DOORS[door](small(), loader)
    assert list(sampler.indices) == list(range(len(DATA)))
    assert sampler.passes == 0


def test_a_long_list_of_a_sampler_is_given_back():
    sampler = Shuffled(list(range(20_000)))
    snapshot = Snapshot(data=[DataLoader(DATA, sampler=sampler)])
    sampler.indices.reverse()
    snapshot.restore()
    assert sampler.indices == list(range(20_000))


def test_the_data_of_a_loader_are_not_copied():
    loader = DataLoader(DATA, batch_size=16, shuffle=True)
    snapshot = Snapshot(data=[loader])
    kept = INPUTS[0, 0].clone()
    INPUTS[0, 0] = 7.0
    snapshot.restore()
    assert INPUTS[0, 0] == 7.0
    INPUTS[0, 0] = kept


class Endless(IterableDataset):
    """Its own iterator, which goes on where it stopped."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        return INPUTS[self.position % 96], INPUTS[self.position % 96].sum(0, keepdim=True)


@pytest.mark.parametrize("door", DOORS)
def test_a_data_set_that_is_its_own_iterator_goes_on_where_it_was(door):
    data = Endless()
    loader = DataLoader(data, batch_size=8)
    next(iter(loader))
    batches = loader if door == "lr_find" else [batch for batch in islice(iter(loader), 3)]
    before = data.position
    DOORS[door](small(), batches)
    assert data.position == before


class Noisy(torch.utils.data.Dataset):
    """Adds noise that each worker draws."""

    def __len__(self):
        return len(DATA)

    def __getitem__(self, index):
        inputs, targets = DATA[index]
        return inputs + torch.randn(4), targets


@pytest.mark.slow
def test_a_diagnosis_does_not_disturb_persistent_workers():
    def epochs(between):
        model = small()
        torch.manual_seed(0)
        loader = DataLoader(Noisy(), batch_size=16, shuffle=True, num_workers=1, persistent_workers=True)
        first = [batch[0].sum() for batch in loader]
        between(model, loader)
        return torch.stack(first + [batch[0].sum() for batch in loader])

    untouched = epochs(lambda model, loader: None)
    assert torch.equal(epochs(diagnose), untouched)


def test_an_interrupt_at_the_end_of_a_block_without_gradients_leaves_them_on():
    with pytest.raises(KeyboardInterrupt), preserve(torch.nn.Linear(1, 1)):
        torch.set_grad_enabled(False)  # what no_grad has done when Ctrl-C comes before its last line
        raise KeyboardInterrupt
    assert torch.is_grad_enabled()
    with torch.no_grad(), preserve(torch.nn.Linear(1, 1)):
        pass
    assert torch.is_grad_enabled()
