import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cyclewise as cw


@given(st.integers(10, 60), st.floats(0.0, 0.9), st.integers(1, 20), st.integers(0, 3))
def test_every_sample_is_in_exactly_one_part_and_once_a_pass(n, valid_fraction, batch_size, seed):
    data = cw.Data.from_arrays(
        np.arange(n), np.arange(n), valid_fraction=valid_fraction, batch_size=batch_size, seed=seed
    )
    train = torch.cat([x for x, _ in data.train_loader])
    valid = torch.cat([x for x, _ in data.valid_loader]) if data.valid_loader is not None else torch.zeros(0)
    assert sorted([*train.tolist(), *valid.tolist()]) == list(range(n))
    assert len(list(data.train_loader)) == data.steps_per_epoch
    assert all(torch.equal(x, y) for x, y in data.train_loader)


def test_the_order_changes_with_the_pass_and_repeats_with_the_seed():
    def orders():
        loader = cw.Data.from_arrays(torch.arange(50), torch.arange(50), valid_fraction=0.0, seed=7).train_loader
        return [torch.cat([x for x, _ in loader]).tolist() for _ in range(3)]

    first = orders()
    assert first[0] != first[1] != first[2]
    assert orders() == first


def test_no_validation_and_nested_inputs():
    data = cw.Data.from_arrays({"a": torch.zeros(10, 2), "b": (torch.ones(10), torch.ones(10))}, torch.zeros(10),
                               valid_fraction=0.0, batch_size=4)  # fmt: skip
    assert data.valid_loader is None
    inputs, targets = next(iter(data.train_loader))
    assert (inputs["a"].shape, inputs["b"][1].shape, targets.shape) == ((4, 2), (4,), (4,))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cw.Data.from_arrays(torch.zeros(3), torch.zeros(4)),
            "inputs must have as many samples as targets, got 3 and 4; the first dimension counts the samples",
        ),
        (
            lambda: cw.Data.from_arrays((torch.zeros(3), torch.zeros(4)), torch.zeros(4)),
            "inputs must all have the same number of samples, got [3, 4]; the first dimension counts the samples",
        ),
        (
            lambda: cw.Data.from_arrays(torch.zeros(0, 2), torch.zeros(0)),
            "targets must hold at least one sample, got shape (0,); the first dimension counts the samples",
        ),
        (
            lambda: cw.Data.from_arrays(torch.zeros(3), torch.zeros(3), valid_fraction=1.0),
            "valid_fraction must leave at least one sample to train on, got 1.0 of 3; pass a smaller fraction",
        ),
        (
            lambda: cw.Data.from_arrays(torch.zeros(3), torch.zeros(3), valid_fraction=20),
            "valid_fraction must be a fraction in [0, 1], got 20; for 20 % pass 0.2",
        ),
        (
            lambda: cw.Data(torch.utils.data.DataLoader(Stream())).steps_per_epoch,
            "train_loader must have a length where epochs are counted, got a DataLoader without one; "
            "give it a __len__, or train for a number of steps with fit(policy)",
        ),
    ],
)
def test_impossible_data_is_refused(call, message):
    with pytest.raises(cw.ArgumentError) as caught:
        call()
    assert str(caught.value) == message


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([1, 2])


def test_a_one_shot_loader_is_refused():
    with pytest.raises(cw.ArgumentTypeError, match=re.escape("valid_loader must be iterable more than once")):
        cw.Data([1], iter([1]))


class Frame:
    """Stands for a table of pandas: no array, and can be made one."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


VALUES = np.arange(12.0).reshape(6, 2)


@pytest.mark.parametrize("inputs", [
    VALUES, VALUES[::-1].copy()[::-1], VALUES.astype(">f4"), Frame(VALUES), VALUES.tolist(), list(VALUES),
    np.frombuffer(VALUES.tobytes()).reshape(6, 2),
])  # fmt: skip
def test_numbers_of_all_kinds_become_the_default_type(inputs):
    data = cw.Data.from_arrays(inputs, np.arange(6), valid_fraction=0.0, batch_size=6)
    batch, targets = next(iter(data.train_loader))
    assert batch.dtype == torch.float32
    assert torch.equal(batch, torch.tensor(VALUES, dtype=torch.float32)[targets])


def test_tensors_and_other_types_stay_what_they_are():
    inputs = torch.tensor(VALUES, requires_grad=True), VALUES.astype("f2"), np.arange(6, dtype="u2")
    data = cw.Data.from_arrays(inputs, VALUES[:, 0] > 2, valid_fraction=0.0)
    (double, half, number), targets = next(iter(data.train_loader))
    assert [part.dtype for part in (double, half, number, targets)] == [
        torch.float64, torch.float16, torch.int64, torch.bool]  # fmt: skip
    assert not double.requires_grad


def test_what_holds_no_numbers_is_refused():
    with pytest.raises(
        cw.ArgumentTypeError, match="targets must be an array of numbers, got an array of <U1; encode it"
    ):
        cw.Data.from_arrays(VALUES, np.array(list("abcdef")))
