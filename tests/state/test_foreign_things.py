"""Things that other libraries and the system own: files behind mappings, memory for reading alone, dead references."""

import shelve
import weakref
from collections import UserDict

import numpy as np
import pytest
import torch
from torch import nn

from cyclewise.state import Snapshot, preserve


def test_a_mapping_that_lies_in_a_file_is_not_written_to(tmp_path):
    with shelve.open(str(tmp_path / "data"), "n") as shelf:
        shelf["rows"] = [1, 2, 3]
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for flag in "rw":
        model = nn.Linear(1, 1)
        with shelve.open(str(tmp_path / "data"), flag) as shelf:
            model.shelf = shelf
            with preserve(model):
                nn.init.zeros_(model.weight)
            assert bool((model.weight != 0).all())
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_mappings_that_are_no_dicts_get_their_items_back():
    user, key = UserDict(a=[1]), nn.Linear(1, 1)
    weak = weakref.WeakKeyDictionary({key: 1})
    with preserve([user, weak]):
        user["b"], weak[key] = 2, 3
        user["a"].append(4)
    assert (dict(user), dict(weak)) == ({"a": [1]}, {key: 1})


def test_a_buffer_in_memory_for_reading_alone_is_not_written_to(tmp_path):
    path = tmp_path / "table.npy"
    np.save(path, np.arange(4.0))
    model = nn.Linear(1, 1)
    with pytest.warns(UserWarning, match="not writable"):
        table = torch.from_numpy(np.load(path, mmap_mode="r"))
    model.register_buffer("table", table)
    # Writing there would be a segmentation fault.
    with preserve(model):
        nn.init.zeros_(model.weight)
    assert model.table.tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.complex64, np.complex128, np.int8, np.bool_])
def test_an_array_that_a_tensor_shares_is_given_back_bit_for_bit(kind):
    model, array = nn.Linear(1, 1), np.array([[0, 1], [0, 0], [1, 1]], kind)
    before = array.tobytes()
    model.register_buffer("table", torch.from_numpy(array.T))
    with preserve(model):
        array[:] = -array if kind is not np.bool_ else ~array  # of a zero with its sign alone
    assert array.tobytes() == before


def test_a_dead_proxy_is_passed_by():
    model, owner = nn.Linear(1, 1), nn.Linear(1, 1)
    model.owner = weakref.proxy(owner)
    del owner
    with preserve(model):
        nn.init.zeros_(model.weight)
    assert bool((model.weight != 0).all())


@pytest.mark.parametrize("module", ["queue_models", "logging_utils", "torch_utils", "asyncio"])
def test_only_the_packages_themselves_are_machinery(module):
    kind = type("Counter", (), {"__module__": module})
    counter = kind()
    counter.count = 1
    snapshot = Snapshot(counter)
    counter.count = 2
    snapshot.restore()
    assert counter.count == (2 if module == "asyncio" else 1)


def test_what_a_function_counts_on_itself_is_given_back():
    def loss_fn():
        loss_fn.calls += 1

    loss_fn.calls = 1
    with preserve(loss_fn):
        loss_fn()
    assert loss_fn.calls == 1
