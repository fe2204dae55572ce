"""An ensemble of snapshots against a loop by hand; what is refused, and why."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.training.calibration import calibration_error
from cyclewise.training.ensemble import Ensemble
from cyclewise.training.snapshots import Snapshots
from tests.training.three_cycles import data, plain, valid_arrays


def random_states(model, num=3):
    states = []
    for _ in range(num):
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        states.append(copy.deepcopy(model.state_dict()))
    return states


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


def test_arrays_of_numpy_are_taken_as_a_learner_takes_them():
    ensemble, inputs = line(), np.arange(6.0).reshape(3, 2)[:, ::-1][:, :1]
    assert inputs.dtype == np.float64
    expected = ensemble.predict(torch.tensor(inputs.copy(), dtype=torch.float32))
    for given in (inputs, (inputs,), {"input": inputs}):
        assert torch.equal(ensemble.predict(given), expected)


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
         "whose batches would be lost; pass the loader itself, with an __iter__ that makes a new "
            "iterator, or list(...) of a few batches"),
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
