"""Resuming with data of the same size and other values: what is told apart, and what is not."""

import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise.fingerprint import MOST_NUMBERS, fingerprint
from cyclewise.training import bundle
from tests.training.cut_off import DieAt, Dies, Quiet

INPUTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
CLASSES = (INPUTS[:, 0] > 0).long()
POLICY = cw.Constant(lr=0.1, total_steps=12)


def make_learner(inputs=INPUTS, targets=CLASSES, data=None):
    torch.manual_seed(0)
    data = data or cw.Data.from_arrays(inputs, targets, batch_size=16)
    return cw.Learner(nn.Linear(4, 2), data, progress=False)


def fit(learn, directory, death):
    return learn.fit(POLICY, callbacks=[cw.Checkpoint(directory, every_steps=1), death])


def cut(learn, directory):
    with pytest.raises(Dies):
        fit(learn, directory, DieAt(6))


def swapped():
    """Return the inputs with two samples exchanged."""
    order = torch.arange(64)
    order[3], order[4] = 4, 3
    return INPUTS[order]


@pytest.mark.parametrize(("inputs", "targets"), [
    (INPUTS, CLASSES.roll(1)),
    (INPUTS * 3, CLASSES),
    (INPUTS.flip(0), CLASSES.flip(0)),
    (swapped(), CLASSES),
    (INPUTS.double(), CLASSES),
    (INPUTS, CLASSES.int()),
])  # fmt: skip
@pytest.mark.parametrize("is_finished", [False, True])
def test_other_arrays_of_the_same_size_are_refused(tmp_path, inputs, targets, is_finished):
    if is_finished:
        fit(make_learner(), tmp_path, Quiet())
    else:
        cut(make_learner(), tmp_path)
    learn = make_learner(inputs, targets)
    with pytest.raises(cw.CheckpointError) as caught:
        learn.resume(tmp_path)
        fit(learn, tmp_path, Quiet())
    assert str(caught.value) == (
        "train_loader must hold the data of the saved run, got arrays with other values, types or shapes; "
        "pass the same data, or take weights and optimizer alone with learn.load(directory)"
    )
    assert make_learner(inputs, targets).load(tmp_path) > 0


def test_other_validation_arrays_are_refused(tmp_path):
    data = cw.Data.from_arrays(INPUTS, CLASSES, batch_size=16)
    cut(make_learner(data=data), tmp_path)
    other = cw.Data.from_arrays(INPUTS + 1, CLASSES, batch_size=16)
    learn = make_learner(data=cw.Data(data.train_loader, other.valid_loader))
    learn.resume(tmp_path)
    with pytest.raises(cw.CheckpointError, match=r"^valid_loader must hold the data of the saved run, got arrays "):
        fit(learn, tmp_path, Quiet())


def test_a_run_of_before_fingerprints_goes_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("cyclewise.training.place.Place.state_dict", without_contents(cw))
        cut(make_learner(), tmp_path)
    newest = bundle.find(tmp_path)[-1]
    assert all("contents" not in place for place in bundle.read(newest.path)["run"]["places"])
    learn = make_learner()
    assert learn.resume(tmp_path) == newest.step
    assert fit(learn, tmp_path, Quiet()).num_steps == 12


def without_contents(cw):
    from cyclewise.training.place import Place

    whole = Place.state_dict
    return lambda self: {name: value for name, value in whole(self).items() if name != "contents"}


def test_the_same_values_are_the_same_wherever_they_come_from():
    assert fingerprint({"b": INPUTS, "a": (CLASSES,)}) == fingerprint({"b": INPUTS.clone(), "a": (CLASSES.clone(),)})
    assert fingerprint(INPUTS.T) == fingerprint(INPUTS.T.contiguous()) != fingerprint(INPUTS.reshape(4, 64))
    assert fingerprint((INPUTS, CLASSES)) != fingerprint((CLASSES, INPUTS))
    assert fingerprint({"a": CLASSES}) != fingerprint({"b": CLASSES})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.complex64, torch.uint8])
def test_every_type_has_one(dtype):
    assert fingerprint(CLASSES.to(dtype)) != fingerprint(CLASSES.roll(1).to(dtype))
    assert fingerprint(torch.zeros(3, 0, dtype=dtype)) == fingerprint(torch.zeros(3, 0, dtype=dtype))


def test_large_arrays_are_looked_at_here_and_there():
    # A whole multiple of what is looked at: an even stride would see one column alone, here an empty one.
    inputs = torch.zeros(MOST_NUMBERS, 8)
    inputs[:, 5] = torch.arange(MOST_NUMBERS)
    before = fingerprint(inputs)
    assert fingerprint(inputs.clone()) == before
    assert len({before, fingerprint(inputs.flip(0)), fingerprint(inputs * 3), fingerprint(inputs.roll(1, 0))}) == 4
