import copy
import errno
import io
import os
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.training.calibration import calibration_error
from cyclewise.training.callbacks import Callback
from cyclewise.training.ensemble import Ensemble
from cyclewise.training.snapshots import Snapshots

POLICY = cw.SGDR(max_lr=0.1, T_0=4, T_mult=2, num_cycles=3)


def arrays(n=100):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 6, generator=generator)
    return inputs, (inputs[:, 0] + 0.5 * torch.randn(n, generator=generator) > 0).long()


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))


def normalised():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def data(batch_size=16):
    return cw.Data.from_arrays(*arrays(), batch_size=batch_size, seed=0)


def random_states(model, num=3):
    states = []
    for _ in range(num):
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        states.append(copy.deepcopy(model.state_dict()))
    return states


def fitted(directory=None, model=None):
    learn = cw.Learner(plain() if model is None else model, data(), progress=False)
    snapshots = Snapshots(POLICY.cycle_ends, directory=directory)
    learn.fit(POLICY, callbacks=[snapshots])
    return learn, snapshots


def valid_arrays(loader):
    batches = [(inputs, targets) for inputs, targets in loader]
    return torch.cat([inputs for inputs, _ in batches]), torch.cat([targets for _, targets in batches])


def fingerprint(model):
    return (
        [tensor.clone() for tensor in (*model.parameters(), *model.buffers())],
        [(id(module), module.training, getattr(module, "momentum", None)) for module in model.modules()],
        torch.get_rng_state(),
    )


def assert_untouched(model, before):
    tensors, modes, generator = fingerprint(model)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before[0], strict=True))
    assert modes == before[1]
    assert torch.equal(generator, before[2])


def test_snapshots_are_the_weights_at_the_end_of_each_cycle():
    seen = []

    class Remembers(Callback):
        def on_step_end(self, learner, step, loss):
            if step + 1 in POLICY.cycle_ends:
                seen.append({name: value.clone() for name, value in learner.model.state_dict().items()})

    learn = cw.Learner(normalised(), data(), progress=False)
    snapshots = Snapshots(POLICY.cycle_ends)
    learn.fit(POLICY, callbacks=[snapshots, Remembers()])
    assert len(snapshots.states) == len(seen) == 3
    for kept, expected in zip(snapshots.states, seen, strict=True):
        torch.testing.assert_close(dict(kept), expected, rtol=0, atol=0)
    assert repr(snapshots.states[1:]) == "SnapshotStates(2 state dicts, 0 of them on disk)"


def test_disk_and_memory_keep_the_same_and_files_are_read_when_taken(tmp_path):
    learn, in_memory = fitted()
    _, on_disk = fitted(tmp_path / "deep" / "er")
    assert sorted(os.listdir(tmp_path / "deep" / "er")) == [f"snapshot-00{k}.pt" for k in (1, 2, 3)]
    assert repr(on_disk.states) == "SnapshotStates(3 state dicts, 3 of them on disk)"
    for a, b in zip(in_memory.states, on_disk.states, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    first, second = (Ensemble(learn.model, snapshots.states, learn.data) for snapshots in (in_memory, on_disk))
    assert first.evaluate() == second.evaluate()
    assert torch.equal(first.predict(), second.predict())

    path = tmp_path / "deep" / "er" / "snapshot-002.pt"
    path.write_bytes(path.read_bytes()[:100])
    assert len(on_disk.states) == 3
    with pytest.raises(cw.CheckpointError, match=re.escape(f"the snapshot {str(path)!r} cannot be read (")):
        on_disk.states[1]


def test_a_full_disk_is_a_warning_and_the_snapshot_stays_in_memory(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="the snapshot of step") as caught:
        _, snapshots = fitted(tmp_path)
    assert [str(warning.message) for warning in caught] == [
        f"the snapshot of step {end} could not be written ([Errno 28] No space left on device) and is kept in memory; "
        "make room in the directory, or pass another one"
        for end in POLICY.cycle_ends
    ]
    assert os.listdir(tmp_path) == []
    assert repr(snapshots.states) == "SnapshotStates(3 state dicts, 0 of them on disk)"


@pytest.mark.parametrize("is_on_disk", [True, False])
def test_snapshots_go_on_from_a_saved_state(tmp_path, is_on_disk):
    directory = tmp_path if is_on_disk else None
    learn, snapshots = fitted(directory)
    file = io.BytesIO()
    torch.save(snapshots.state_dict(), file)
    assert (len(file.getvalue()) < 2000) == is_on_disk
    file.seek(0)
    again = Snapshots(POLICY.cycle_ends, directory=directory)
    again.load_state_dict(torch.load(file, weights_only=True))
    for a, b in zip(again.states, snapshots.states, strict=True):
        torch.testing.assert_close(dict(a), dict(b), rtol=0, atol=0)
    # A cycle that runs again replaces its snapshot.
    again.on_step_end(learn, 11, torch.tensor(0.0))
    assert len(again.states) == 3
    assert torch.equal(again.states[1]["0.weight"], learn.model[0].weight)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"step": 1},
         "state must be that of Snapshots, got dict {'step': 1}; pass the callbacks of the run that was saved"),
        ({"snapshots": {5: {}}},
         "state must hold snapshots of the cycles that end at [4, 12, 28], got some of steps [5]; "
         "resume with the policy that was saved"),
        ({"snapshots": {4: "snapshot-001.pt"}},
         "directory must be the one with the snapshots of the saved run, got None for snapshot-001.pt; "
         "pass Snapshots(cycle_ends, directory=...)"),
    ],
)  # fmt: skip
def test_a_foreign_state_is_refused(state, message):
    with pytest.raises(cw.CheckpointError) as caught:
        Snapshots(POLICY.cycle_ends).load_state_dict(state)
    assert str(caught.value) == message


def test_a_missing_file_is_named_and_names_do_not_lead_out_of_the_directory(tmp_path):
    directory = tmp_path / "inside"
    directory.mkdir()
    torch.save({}, tmp_path / "snapshot-001.pt")
    with pytest.raises(cw.CheckpointError) as caught:
        Snapshots([4], directory=directory).load_state_dict({"snapshots": {4: "../snapshot-001.pt"}})
    assert str(caught.value) == (
        f"directory must hold the snapshots of the saved run, got none named snapshot-001.pt in {str(directory)!r}; "
        "put the file back, or start the run again"
    )


def test_averaged_probabilities_and_scores_are_those_of_a_loop_by_hand():
    model, parts = plain(), data()
    states = random_states(model)
    ensemble = Ensemble(model, states, parts, metrics={"accuracy": cw.accuracy})
    inputs, targets = valid_arrays(parts.valid_loader)
    by_hand, losses = [], []
    for state in states:
        member = plain().eval()
        member.load_state_dict(state)
        with torch.no_grad():
            by_hand.append(torch.softmax(member(inputs), dim=1))
            losses.append(F.cross_entropy(member(inputs), targets).item())
    mean = torch.stack(by_hand).mean(dim=0)
    torch.testing.assert_close(ensemble.predict(), mean)
    torch.testing.assert_close(ensemble.predict(inputs), mean)
    torch.testing.assert_close(ensemble.predict(inputs.numpy()), mean)
    torch.testing.assert_close(ensemble.predict((inputs,)), mean)
    torch.testing.assert_close(ensemble.predict([inputs[:3], inputs[3:]]), mean)
    expected = {
        "loss": -mean[range(len(targets)), targets].log().mean().item(),
        "accuracy": cw.accuracy(mean, targets),
        "calibration_error": calibration_error(mean, targets),
    }
    assert ensemble.evaluate() == pytest.approx(expected, abs=1e-5)
    assert list(ensemble.evaluate()) == list(expected)
    assert [member["loss"] for member in ensemble.members()] == pytest.approx(losses, rel=1e-5)
    assert ensemble.evaluate(parts.train_loader)["loss"] != ensemble.evaluate()["loss"]


def test_probabilities_that_underflow_do_not_make_the_loss_infinite():
    states = [{"weight": torch.tensor([[0.0], [size]])} for size in (2e3, 1e3)]
    parts = cw.Data([(torch.ones(2, 1), torch.zeros(2).long())], [(torch.ones(2, 1), torch.zeros(2).long())])
    ensemble = Ensemble(nn.Linear(1, 2, bias=False), states, parts)
    assert ensemble.evaluate()["loss"] == pytest.approx(1000 + np.log(2))


def test_a_member_that_diverged_gives_a_loss_that_is_not_a_number():
    parts = cw.Data([(torch.ones(2, 1), torch.zeros(2).long())], [(torch.ones(2, 1), torch.zeros(2).long())])
    scores = Ensemble(nn.Linear(1, 2, bias=False), [{"weight": torch.full((2, 1), torch.nan)}], parts).evaluate()
    assert np.isnan(list(scores.values())).all()


def test_all_else_has_its_outputs_averaged():
    inputs = torch.randn(40, 3)
    parts = cw.Data.from_arrays(inputs, inputs.sum(dim=1, keepdim=True), batch_size=5)
    model = nn.Linear(3, 1)
    states = random_states(model)
    distance = {"distance": lambda outputs, targets: (outputs - targets).abs().mean()}
    ensemble = Ensemble(model, states, parts, loss_fn=F.mse_loss, metrics=distance)
    held_out, targets = valid_arrays(parts.valid_loader)
    mean = sum(F.linear(held_out, state["weight"], state["bias"]) for state in states) / 3
    torch.testing.assert_close(ensemble.predict(), mean)
    assert ensemble.evaluate() == pytest.approx(
        {"loss": F.mse_loss(mean, targets).item(), "distance": (mean - targets).abs().mean().item()}, rel=1e-5
    )


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, pixels, labels=None):
        return {"logits": self.layer(pixels).transpose(1, 2)}


def test_dict_batches_with_logits_per_position_and_ignored_labels():
    model = Named()
    states = random_states(model, 2)
    pixels, labels = torch.randn(4, 5, 2), torch.randint(3, (4, 5))
    labels[0, 2:] = -100
    parts = cw.Data([{"pixels": pixels, "labels": labels}], [{"pixels": pixels, "labels": labels}])
    ensemble = Ensemble(model, states, parts)
    mean = sum(torch.softmax(F.linear(pixels, s["layer.weight"], s["layer.bias"]), dim=2) for s in states) / 2
    torch.testing.assert_close(ensemble.predict({"pixels": pixels}), mean.transpose(1, 2))
    loss = F.nll_loss(mean.log().reshape(-1, 3), labels.reshape(-1), ignore_index=-100)
    assert ensemble.evaluate()["loss"] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("shuffles", [False, True])
def test_batch_statistics_are_those_of_torchs_update_bn(shuffles):
    learn, snapshots = fitted(model=normalised())
    train = DataLoader(TensorDataset(*arrays()), batch_size=20, shuffle=shuffles)
    parts = cw.Data(train, learn.data.valid_loader)
    ensemble = Ensemble(learn.model, snapshots.states, parts)
    predicted = ensemble.predict()
    inputs, _ = valid_arrays(parts.valid_loader)
    by_hand = []
    for state in snapshots.states:
        member = normalised()
        member.load_state_dict(state)
        torch.manual_seed(0)
        torch.optim.swa_utils.update_bn(train, member)
        with torch.no_grad():
            by_hand.append(torch.softmax(member.eval()(inputs), dim=1))
    torch.testing.assert_close(predicted, torch.stack(by_hand).mean(dim=0))


class Counts:
    # On the class, since what an instance counts is put back like all of a loader.
    passes = 0

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        Counts.passes += 1
        return iter(self.loader)


def test_batch_statistics_are_computed_once_and_the_snapshots_stay():
    learn, snapshots = fitted(model=normalised())
    before = copy.deepcopy(list(snapshots.states))
    parts = cw.Data(Counts(learn.data.train_loader), learn.data.valid_loader)
    ensemble = Ensemble(learn.model, snapshots.states, parts)
    assert Counts.passes == 0
    first = ensemble.last(2).evaluate()
    assert Counts.passes == 2
    ensemble.members()
    assert Counts.passes == 3
    torch.manual_seed(5)
    assert ensemble.last(2).evaluate() == first
    ensemble.predict()
    assert Counts.passes == 3
    torch.testing.assert_close(list(snapshots.states), before, rtol=0, atol=0)


class Frozen(nn.Sequential):
    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


def test_a_frozen_batch_normalisation_keeps_the_statistics_of_the_snapshot():
    model = Frozen(*normalised())
    model[1].running_mean.fill_(0.5)
    parts = data()
    inputs, _ = valid_arrays(parts.valid_loader)
    with torch.no_grad():
        expected = torch.softmax(model.eval()(inputs), dim=1)
    torch.testing.assert_close(Ensemble(model, [copy.deepcopy(model.state_dict())], parts).predict(), expected)


def test_no_trace_is_left():
    learn, snapshots = fitted(model=normalised())
    learn.model.train()
    learn.model[1].eval()
    inputs = torch.randn(3, 6)
    before, passes = fingerprint(learn.model), learn.data.train_loader.num_passes
    ensemble = Ensemble(learn.model, snapshots.states, learn.data)
    ensemble.evaluate()
    ensemble.members()
    ensemble.predict(inputs)
    assert_untouched(learn.model, before)
    assert learn.data.train_loader.num_passes == passes


@pytest.mark.parametrize("where", ["loader", "metric", "states"])
def test_no_trace_is_left_by_an_exception_which_passes_unchanged(where):
    learn, snapshots = fitted(model=normalised())
    error = KeyboardInterrupt("stop")

    class Breaks:
        def __iter__(self):
            yield from list(learn.data.train_loader)[:2]
            raise error

    def metric(outputs, targets):
        torch.rand(1)
        raise error

    states = list(snapshots.states)
    if where == "states":
        states[1] = {"0.weight": torch.zeros(8, 6)}
    parts = cw.Data(Breaks() if where == "loader" else learn.data.train_loader, data().valid_loader)
    ensemble = Ensemble(learn.model, states, parts, metrics={"m": metric} if where == "metric" else {})
    passes, before = learn.data.train_loader.num_passes, fingerprint(learn.model)
    with pytest.raises(RuntimeError if where == "states" else KeyboardInterrupt) as caught:
        ensemble.evaluate()
    assert where == "states" or caught.value is error
    assert where == "loader" or learn.data.train_loader.num_passes == passes
    assert_untouched(learn.model, before)


def test_the_last_snapshots():
    model, parts = plain(), data()
    states = random_states(model, 4)
    ensemble = Ensemble(model, states, parts)
    last = ensemble.last(2)
    assert (len(ensemble), len(last), str(last)) == (4, 2, "ensemble of 2 snapshots of a Sequential")
    assert last.evaluate() == Ensemble(model, states[2:], parts).evaluate()
    assert last.members() == ensemble.members()[2:]
    assert last.last(1).evaluate() == ensemble.members()[3]


def test_an_ensemble_on_real_digits_is_at_least_as_good_as_the_mean_of_its_members(capsys):
    images, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    inputs = torch.tensor(images / 16.0, dtype=torch.float32)
    parts = cw.Data.from_arrays(inputs, torch.tensor(labels), batch_size=64, seed=0)
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    learn = cw.Learner(model, parts, metrics={"accuracy": cw.accuracy}, progress=False)
    policy = cw.SGDR(max_lr=0.3, T_0=2 * parts.steps_per_epoch, num_cycles=3)
    snapshots = Snapshots(policy.cycle_ends)
    learn.fit(policy, callbacks=[snapshots])
    ensemble = Ensemble(model, snapshots.states, parts, metrics=learn.metrics, progress=True)
    scores, members = ensemble.evaluate(), ensemble.members()
    # The logarithm is concave: the mean probability loses at most what the members lose on average.
    assert scores["loss"] <= np.mean([member["loss"] for member in members]) + 1e-6
    assert scores["accuracy"] > 0.9
    assert 0 <= scores["calibration_error"] < 0.1
    assert "ensemble" in capsys.readouterr().err


LINE = (torch.ones(2, 1), torch.ones(2, 1))


WEIGHT = {"weight": torch.ones(1, 1)}


def line(states=(WEIGHT,), parts=None):
    return Ensemble(nn.Linear(1, 1, bias=False), states, cw.Data([LINE], [LINE]) if parts is None else parts)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: line(states=[]), cw.ArgumentError,
         "states must hold at least one snapshot, got none; call fit_sgdr(..., snapshots=True) first"),
        (lambda: line(parts=[LINE]), cw.ArgumentTypeError,
         "data must be a Data, got a list; pass Data(train_loader, valid_loader)"),
        (lambda: line().last(2), cw.ArgumentError,
         "k must be at most the number of snapshots, got 2 of 1; pass a smaller one, or train for more cycles"),
        (lambda: line().last(0), cw.ArgumentError,
         "k must be a whole number of at least 1, got 0; it counts snapshots, from the end"),
        (lambda: line(parts=cw.Data([LINE])).evaluate(), cw.ArgumentError,
         "data must have a valid_loader to evaluate on, got None; "
         "pass Data(train_loader, valid_loader) or valid_fraction=0.2"),
        (lambda: line().evaluate(), cw.ArgumentError,
         "loss_fn must be given unless targets are class indices [N] for outputs [N, C], got None; "
         "pass for example loss_fn=torch.nn.functional.mse_loss"),
        (lambda: line().evaluate([torch.ones(2, 1)]), cw.ArgumentError,
         'loader must yield batches (inputs, targets), or dicts with "labels", to evaluate on, '
         "got one without targets; use predict()"),
        (lambda: line().evaluate(iter([LINE])), cw.ArgumentTypeError,
         "loader must be iterable more than once, got the one-shot iterator list_iterator, "
         "whose batches would be lost; pass the loader itself, or list(...) of a few batches"),
        (lambda: line().predict(torch.tensor(1.0)), cw.ArgumentError,
         "inputs_or_loader must be inputs whose first dimension counts the same samples, at least one, "
         "got shapes [()]; for a single sample pass sample[None]"),
        (lambda: line().predict((torch.ones(2, 1), torch.ones(3, 1))), cw.ArgumentError,
         "inputs_or_loader must be inputs whose first dimension counts the same samples, at least one, "
         "got shapes [(2, 1), (3, 1)]; for a single sample pass sample[None]"),
        (lambda: Ensemble(nn.LSTM(1, 1), [nn.LSTM(1, 1).state_dict()], cw.Data([LINE])).predict(torch.ones(1, 1)),
         cw.ArgumentError,
         "model must return a tensor with one row per sample, or an object with .logits, got a tuple; "
         "wrap it in a module that does"),
        (lambda: Snapshots([]), cw.ArgumentError,
         "cycle_ends must be at least one step, and rise, got []; pass policy.cycle_ends of the policy that is fitted"),
        (lambda: Snapshots([4, 4]), cw.ArgumentError,
         "cycle_ends must be at least one step, and rise, got [4, 4]; "
         "pass policy.cycle_ends of the policy that is fitted"),
        (lambda: Snapshots(4), cw.ArgumentTypeError,
         "cycle_ends must be a list of steps, got int 4; pass policy.cycle_ends of the policy that is fitted"),
        (lambda: Snapshots([4], directory=__file__), cw.ArgumentError,
         f"directory must be a folder, got the file {__file__!r}; pass another path, it is made if missing"),
        (lambda: cw.Learner(plain(), data()).fit(cw.Constant(lr=0.1, total_steps=3), callbacks=[Snapshots([2, 4])]),
         cw.ArgumentError,
         "cycle_ends must lie within the 3 steps of the fit, got 4; "
         "pass policy.cycle_ends of the policy that is fitted"),
    ],
)  # fmt: skip
def test_bad_calls_say_what_to_do(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_a_loader_that_changes_its_batches_is_refused():
    # Reachable from the loader, this list would be put back between the passes.
    others = [LINE, (torch.ones(2, 1), torch.zeros(2, 1))]

    class Restless:
        def __iter__(self):
            others.reverse()
            return iter(others)

    with pytest.raises(cw.ArgumentError) as caught:
        line(states=[WEIGHT] * 2).predict(Restless())
    assert str(caught.value) == (
        "loader must yield the same batches in every pass, got batches with other targets; "
        "pass one that does not shuffle"
    )
