"""Models with a state that is no tensor, models that are written to, LSTMs with projections."""

import copy

import pytest
import torch
from torch import nn

import cyclewise as cw


class WithExtraState(nn.Module):
    def __init__(self, extra=None):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("mean", torch.zeros(2))
        self.seen = {"batches": [0]} if extra is None else extra

    def get_extra_state(self):
        return self.seen

    def set_extra_state(self, state):
        self.seen = state


def size(model):
    return float(model.layer.weight.detach().norm())


@pytest.mark.parametrize("extra", [None, torch.zeros(2)], ids=["dict", "tensor"])
def test_a_state_that_is_no_tensor_of_the_model_is_neither_searched_nor_set(extra, tmp_path):
    def objective(candidate):
        candidate.seen["batches"].append(1) if extra is None else candidate.seen.add_(1)
        return size(candidate)

    model = WithExtraState(extra)
    seen = copy.deepcopy(model.seen)
    found = cw.search_start(cw.LayerGains(model), objective, budget=8, progress=False)
    assert set(found.values) == {"layer.weight", "layer.bias", "mean"}
    found.save(tmp_path / "start.pt")
    for start in (found, cw.StartSearch.load(tmp_path / "start.pt")):
        other = WithExtraState(copy.deepcopy(extra))
        own = other.seen
        assert size(start.apply_to(other)) == found.best_loss
        assert other.seen is own
    for now in (model.seen, own):
        assert now == seen if extra is None else torch.equal(now, seen)


@pytest.mark.parametrize("batched", [0, 4])
def test_every_candidate_begins_where_the_model_was_though_the_objective_writes_into_it(batched):
    model = nn.Linear(3, 2)
    before = copy.deepcopy(model.state_dict())

    class Writing:
        def __call__(self, candidate):
            model.weight.data.mul_(1.5)
            return float((candidate.weight.detach().norm() - 2) ** 2)

        def losses(self, given, parameters):
            given.weight.data.mul_(1.5)
            return (parameters["weight"].flatten(1).norm(dim=1) - 2) ** 2

    found = cw.search_start(cw.LayerGains(model), Writing(), budget=12, batched=batched, progress=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    found.apply_to(model)
    assert float((model.weight.detach().norm() - 2) ** 2) == pytest.approx(found.best_loss, abs=1e-6)


@pytest.mark.parametrize("proj_size", [3, 4])
def test_the_projection_of_an_lstm_is_one_matrix(proj_size):
    torch.manual_seed(0)
    space = cw.InitScheme(nn.LSTM(5, 8, num_layers=2, proj_size=proj_size), vary_gain=False)
    drawn = space.candidate({"recurrent": "orthogonal"})
    for layer in range(2):
        weight = getattr(drawn, f"weight_hr_l{layer}").detach()
        assert torch.allclose(weight @ weight.T, torch.eye(proj_size), atol=1e-5)
        for gate in getattr(drawn, f"weight_hh_l{layer}").detach().chunk(4):
            assert torch.allclose(gate.T @ gate, torch.eye(proj_size), atol=1e-5)
