"""The path of a run: kept in bounds, drawn in the plane that shows most of it."""

import copy
import json
import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.positions import Positions, position_of, principal_directions

BATCH = torch.eye(6), torch.zeros(6, 1)


def at(*place):
    model = nn.Linear(len(place), 1, bias=False)
    model.weight.data.copy_(torch.tensor([place]))
    return model


def vector(*place):
    return torch.tensor(place, dtype=torch.float64)


@pytest.mark.parametrize("num_steps", [0, 1, 5, 16, 17, 100, 1000])
def test_positions_are_few_and_evenly_spaced(num_steps):
    model, positions = at(0.0), Positions(16)
    for step in range(1, num_steps + 1):
        model.weight.data.fill_(step)
        positions.note(model)
    steps = positions.steps
    assert len(steps) <= 16
    assert len(steps) == num_steps or len(steps) >= 8
    interval = steps[0] if steps else 1
    assert steps == list(range(interval, num_steps + 1, interval))
    assert [float(place["weight"]) for place in positions.path] == steps  # copies of their moment


def test_large_models_leave_no_positions():
    positions = Positions(2)
    positions.note(nn.Linear(1, 2**23 + 1, bias=False))
    assert positions.path == ()
    positions.note(nn.Linear(1, 2**22, bias=False))
    assert len(positions.path) == 1


def test_principal_directions_are_those_of_the_singular_values():
    torch.manual_seed(0)
    here = torch.randn(30, dtype=torch.float64)
    stations = [here + torch.randn(30, dtype=torch.float64) * torch.logspace(0, -3, 30) for _ in range(7)]
    expected = torch.linalg.svd(torch.stack(stations) - here)[2][:7]
    found = principal_directions(stations, here)
    assert len(found) == 7
    for ours, theirs in zip(found, expected, strict=True):
        assert abs(float(ours @ theirs)) == pytest.approx(1.0, abs=1e-6)
        assert float(ours @ (stations[0] - here)) >= 0.0
    assert len(principal_directions([here + 1.0, here + 2.0, here - 1.0], here)) == 1
    assert principal_directions([here, here], here) == []


def test_a_position_is_a_model_a_state_or_a_list_of_parameters():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    objective = Objective(model, F.mse_loss, [(torch.randn(4, 2), torch.randn(4, 1))])
    expected = objective.flatten(objective.parameters).double()
    forms = [model, model.state_dict(), dict(model.named_parameters()), list(model.parameters())]
    for form in forms:
        assert torch.equal(position_of(form, objective, name="path[0]"), expected)


def test_the_slice_is_the_plane_of_the_path():
    # A spiral in the plane of the first two of six coordinates, with little in the third.
    turns = [(2.0 - t / 5.0, t) for t in range(10)]
    path = [vector(r * math.cos(t), r * math.sin(t), 0.01 * t, 0.0, 0.0, 0.0) for r, t in turns]
    start = at(*path[0].tolist()).state_dict()
    model = at(0.0, 0.0, 0.0, 0.0, 0.0, 0.01)
    middle = [at(*place.tolist()) for place in path[1:]]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy([m.state_dict() for m in [model, *middle]])
    d = cw.diagnose(model, F.mse_loss, [BATCH], optimizer=optimizer, start=start, path=middle)
    after = [m.state_dict() for m in [model, *middle]]
    assert all(torch.equal(a["weight"], b["weight"]) for a, b in zip(before, after, strict=True))
    plane = d.plane
    assert plane.x_name == "the path's first direction"
    assert plane.y_name == "the path's second direction"
    assert len(plane.path) == 11
    assert plane.path[-1] == (0.0, 0.0)
    # A rotation of the plane keeps the distances in it.
    distances = torch.pdist(torch.tensor(plane.path[:-1]))
    assert torch.allclose(distances, torch.pdist(torch.stack(path)).float(), atol=0.06)
    assert all(plane.x[0] < x < plane.x[-1] and plane.y[0] < y < plane.y[-1] for x, y in plane.path)
    assert 0.99 < plane.path_share < 1.0
    legs = [math.dist(a.tolist(), b.tolist()) for a, b in pairwise(path)]
    assert d.journey.length == pytest.approx(sum(legs) + math.dist(path[-1].tolist(), [0, 0, 0, 0, 0, 0.01]), rel=1e-4)
    assert cw.Diagnosis.from_dict(json.loads(json.dumps(d.to_dict(), allow_nan=False))) == d
    assert "of the path&#39;s squared distances" in d._repr_html_()


def test_the_losses_of_the_slice_are_those_in_the_paths_plane():
    model = at(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    path = [at(4.0, 0.0, 0.0, 0.0, 0.0, 0.0), [torch.tensor([[1.0, 2.0, 0.0, 0.0, 0.0, 0.0]])]]
    plane = cw.diagnose(model, F.mse_loss, [BATCH], path=path).plane
    assert [value for point in plane.path for value in point] == pytest.approx([3, 0, 0, 2, 0, 0], abs=1e-6)
    for y, row in zip(plane.y, plane.losses, strict=True):
        for x, loss in zip(plane.x, row, strict=True):
            assert loss == pytest.approx(((1.0 + x) ** 2 + y**2) / 6.0, rel=1e-4)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (3, "path must be a list of positions, got int 3; gather them during training: "
            "path.append(copy.deepcopy(model.state_dict()))"),
        ([None], "path[0] must be a model, a state dict or a list of parameters, got NoneType None; "
                 "copy it during training: copy.deepcopy(model.state_dict())"),
        ([at(1.0)], "path[0] must have the model's parameters, got weight of shape (1, 1) instead of (1, 6); "
                    "give both the same architecture"),
        ([{}], "path[0] must have the model's parameters, got weight missing instead of (1, 6); "
               "give both the same architecture"),
        ([[]], "path[0] must have the model's 1 parameters, got 0; pass [p.detach().clone() for p in "
               "model.parameters()]"),
    ],
)  # fmt: skip
def test_refusals(path, message):
    with pytest.raises(cw.CyclewiseError) as caught:
        cw.diagnose(at(*[0.0] * 6), F.mse_loss, [BATCH], path=path, budget=10)
    assert str(caught.value) == message


def test_a_watched_fit_leaves_its_path_with_the_learner():
    torch.manual_seed(0)
    inputs = torch.randn(200, 4)
    data = cw.Data.from_arrays(inputs, (inputs[:, 0] > 0).long(), batch_size=20)
    learn = cw.Learner(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), data, progress=False)
    learn.fit_one_cycle(2, 0.05, callbacks=[cw.Watch()])
    first = list(learn.path)
    assert len(first) == 16  # as many as there were steps
    assert all(torch.equal(first[-1][name], p.cpu()) for name, p in learn.model.named_parameters())
    d = learn.diagnose(num_batches=2)
    assert len(d.plane.path) == 18
    assert d.journey.length >= d.journey.displacement
    assert d.journey.detour > 1.0
    learn.fit_one_cycle(2, 0.05, callbacks=[cw.Watch(num_positions=4)])
    assert len(learn.path) == 10
    learn.fit_one_cycle(1, 0.05)
    assert len(learn.path) == 10
    assert learn.diagnose(num_batches=2, path=None).plane.path[1:] == ((0.0, 0.0),)
