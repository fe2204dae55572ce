import copy
import errno
import math
import os
import random
import re

import numpy as np
import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise.start import Missing, StopReason


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def batches(n=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(16 * n, 5, generator=generator)
    targets = inputs[:, :3].argmax(dim=1)
    return list(zip(inputs.split(16), targets.split(16), strict=True))


def size(model):
    """How far the first matrix is from a size of 2: quiet, and cheap."""
    return float((model[0].weight.detach().norm() - 2) ** 2)


def dying(model):
    if float(model[0].weight.detach().norm()) > 3:
        os._exit(1)
    return size(model)


def noisy(model):
    # Random numbers that are common to all candidates would add the same to all: each picks another one of them.
    value = size(model)
    return value + 0.1 * float(torch.randn(1000)[int(1e6 * value) % 1000])


def test_the_found_start_has_the_loss_that_it_says():
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    found = cw.search_start(cw.LayerGains(model), size, budget=40)
    assert found.num_evaluations == 40
    assert found.best_loss < 0.01 < found.baseline_loss == size(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    parameters = list(model.parameters())
    assert found.apply_to(model) is model
    assert size(model) == found.best_loss
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert str(found).startswith(f"loss {found.best_loss:.4g}; untouched ")


def test_the_objective_is_called_as_often_as_the_budget_says():
    calls = []

    def objective(model):
        calls.append(1)
        return size(model)

    found = cw.search_start(cw.LayerGains(mlp()), objective, budget=23)
    assert len(calls) == found.num_evaluations == 23


def test_no_start_is_worse_than_the_untouched_one():
    model = mlp()
    start = [p.detach().clone() for p in model.parameters()]

    def distance(candidate):
        pairs = zip(candidate.parameters(), start, strict=True)
        return float(sum((a.detach() - b).square().sum() for a, b in pairs))

    found = cw.search_start(cw.LayerGains(model), distance, budget=20)
    assert found.is_untouched
    assert found.best_loss == found.baseline_loss == 0
    assert str(found).startswith("no start better than the untouched one, loss 0; 20 evaluations by PSO")


def test_training_candidates_leaves_no_trace():
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3)).eval()
    model[0].weight.grad = torch.ones(8, 5)
    model[0].requires_grad_(False)
    model[0].weight.requires_grad_(True)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.Generator().manual_seed(3)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*map(torch.cat, zip(*batches(), strict=True))), 16, shuffle=True,
        generator=generator,
    )  # fmt: skip
    calls = []

    def objective(candidate):
        optimizer = torch.optim.SGD([p for p in candidate.parameters() if p.requires_grad], lr=0.1)
        candidate.train()
        for x, y in loader:
            loss = nn.functional.cross_entropy(candidate(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        calls.append(float(loss.detach()) + random.random() + np.random.rand())
        return calls[-1]

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    marks = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state(), generator.get_state()
    first = cw.search_start(cw.LayerGains(model), objective, budget=16)
    second = cw.search_start(cw.LayerGains(model), objective, budget=16)
    assert first == second
    assert random.getstate() == marks[0]
    assert (np.random.get_state()[1] == marks[1]).all()
    assert torch.equal(torch.get_rng_state(), marks[2])
    assert torch.equal(generator.get_state(), marks[3])
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones(8, 5))
    assert not model.training
    assert model[0].bias.requires_grad is False
    assert len(calls) == 32


def test_lost_candidates_cost_no_more_than_themselves():
    def objective(model):
        norm = float(model[0].weight.detach().norm())
        if norm > 4:
            raise RuntimeError("too large")
        return math.nan if norm < 0.5 else size(model)

    found = cw.search_start(cw.LayerGains(mlp()), objective, budget=40)
    assert found.best_loss < 0.05
    reasons = {e.lost for e in found.evaluations if e.lost}
    assert reasons == {"RuntimeError: too large", "the objective returned nan"}
    assert found.num_lost == sum(bool(e.lost) for e in found.evaluations)
    assert f", {found.num_lost} lost; " in str(found)


def test_all_lost_is_an_error_that_keeps_the_cause():
    def objective(model):
        raise RuntimeError("no such file")

    message = (
        "objective must return a finite number for at least one candidate, got none in 12; "
        "the last was lost because of RuntimeError: no such file"
    )
    with pytest.raises(cw.ArgumentError, match=re.escape(message)) as caught:
        cw.search_start(cw.LayerGains(mlp()), objective, budget=12)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_untouched_start_that_is_lost_has_a_reason():
    calls = []

    def objective(model):
        calls.append(1)
        return math.inf if len(calls) == 1 else size(model)

    found = cw.search_start(cw.LayerGains(mlp()), objective, budget=10)
    assert found.baseline_loss is None
    assert found.unavailable["baseline"] is Missing.LOST


def test_ctrl_c_returns_the_best_so_far():
    calls = []

    def objective(model):
        calls.append(1)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return size(model)

    found = cw.search_start(cw.LayerGains(mlp()), objective, budget=40, redraw=mlp)
    assert found.stop_reason is StopReason.INTERRUPTED
    assert found.num_evaluations == 14
    assert found.redraw is None
    assert found.unavailable["redraw"] is Missing.INTERRUPTED
    assert str(found).endswith("14 evaluations by PSO; stopped: interrupted by Ctrl-C")
    calls[:] = [1] * 14
    with pytest.raises(KeyboardInterrupt):
        cw.search_start(cw.LayerGains(mlp()), objective, budget=40)


def test_a_noisy_objective_is_seen_again():
    model = mlp()
    found = cw.search_start(cw.LayerGains(model), noisy, budget=60)
    assert found.num_evaluations == 60
    assert len(found.evaluations) == 52
    assert found.best.num_runs == 2
    assert found.baseline.num_runs == 2
    # What the leaders had by luck the first time is not counted: the best is not below what can be had.
    best_first = min(e.loss for e in found.evaluations if e.loss is not None)
    assert best_first < -0.1
    assert found.best_loss > best_first + 0.1
    assert found.best.std_error > 0


def test_what_a_found_start_is_held_against():
    found = cw.search_start(
        cw.LayerGains(mlp()), size, budget=20, redraw=mlp, validate=lambda m: size(m) + float(torch.rand(()))
    )
    draws = [size(mlp(seed)) for seed in range(1, 21)]
    assert found.redraw_loss == min(draws)
    assert found.num_evaluations == 20
    for spread in (found.best_validation, found.baseline_validation, found.redraw_validation):
        assert spread.num_runs == 3
        assert spread.std_error > 0
    # The same random numbers for all three: their differences are those of the starts.
    assert found.baseline_validation.value - found.best_validation.value == pytest.approx(
        found.baseline_loss - found.best_loss
    )
    assert not found.unavailable
    without = cw.search_start(cw.LayerGains(mlp()), size, budget=20)
    assert without.unavailable == {
        "redraw": Missing.NO_REDRAW,
        "redraw_validation": Missing.NO_VALIDATE,
        "best_validation": Missing.NO_VALIDATE,
        "baseline_validation": Missing.NO_VALIDATE,
    }


class Killed(BaseException):
    pass


@pytest.mark.parametrize("objective", [size, noisy])
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_search_that_was_killed_goes_on_with_nothing_lost(tmp_path, objective, deterministic):
    arguments = {"budget": 30, "redraw": mlp, "deterministic": deterministic}
    whole = cw.search_start(cw.LayerGains(mlp()), objective, **arguments)
    total = 0
    lives = 0
    for _ in range(20):
        lives += 1
        calls = []

        def killed(model, calls=calls):
            if len(calls) == 7:
                raise Killed
            value = objective(model)
            calls.append(1)
            return value

        try:
            found = cw.search_start(cw.LayerGains(mlp()), killed, checkpoint=tmp_path / "s.jsonl", **arguments)
        except Killed:
            total += len(calls)
            continue
        total += len(calls)
        break
    assert lives > 5
    assert found == whole
    plain = []
    cw.search_start(cw.LayerGains(mlp()), lambda m: plain.append(1) or objective(m), **arguments)
    assert total == len(plain)


def test_one_and_several_workers_give_the_same_when_asked_to():
    arguments = {"budget": 24, "deterministic": True, "redraw": mlp}
    one = cw.search_start(cw.LayerGains(mlp()), noisy, **arguments)
    two = cw.search_start(cw.LayerGains(mlp()), noisy, workers=2, **arguments)
    assert one.evaluations == two.evaluations
    assert one.best == two.best
    assert one.redraw == two.redraw


def test_an_algorithm_that_asks_for_one_at_a_time_may_be_deterministic():
    arguments = {"algorithm": "NelderMead", "budget": 20}
    one = cw.search_start(cw.LayerGains(mlp()), size, deterministic=True, **arguments)
    assert one.evaluations == cw.search_start(cw.LayerGains(mlp()), size, **arguments).evaluations
    message = "workers must be 1 for algorithm='NelderMead', which asks for one point at a time, got 8; pass workers=1"
    with pytest.raises(cw.ArgumentError, match=f"^{re.escape(message)}"):
        cw.search_start(cw.LayerGains(mlp()), size, workers=2, deterministic=True, **arguments)


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_evaluation():
    found = cw.search_start(space := cw.LayerGains(mlp(), upper=3.0), dying, budget=14, workers=2, seed=5)
    assert all(e.lost or e.loss == size(space.candidate(e.point)) for e in found.evaluations)
    assert {e.lost for e in found.evaluations} == {"", "WorkerError: the worker process died (exit status 1)"}
    assert found.settings["workers that died"] == found.num_lost >= 1


@pytest.mark.parametrize("kind", [cw.HeldOutLoss, cw.GradientBalance])
def test_candidates_scored_in_one_pass(kind):
    model = mlp()
    objective = kind(nn.functional.cross_entropy, batches())
    found = cw.search_start(cw.LayerGains(model), objective, budget=33, batched=8)
    for evaluation in found.evaluations:
        one = objective(cw.LayerGains(model).candidate(evaluation.point))
        assert evaluation.loss == pytest.approx(one, rel=1e-5, abs=1e-6)
    assert found.num_evaluations == 33
    assert objective(found.apply_to(model)) == pytest.approx(found.best_loss, rel=1e-5, abs=1e-6)


def test_a_short_run_sees_the_same_batches_every_time():
    train, valid = batches(5), batches(2, seed=2)
    objective = cw.short_run(nn.functional.cross_entropy, train, valid, max_lr=0.3, num_steps=20)
    model = mlp()
    torch.manual_seed(1)
    first = objective(copy.deepcopy(model))
    torch.manual_seed(1)
    assert objective(copy.deepcopy(model)) == first
    torch.manual_seed(2)
    assert objective(copy.deepcopy(model)) != first
    assert first < cw.HeldOutLoss(nn.functional.cross_entropy, valid)(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    test = cw.lr_find(model, optimizer, nn.functional.cross_entropy, train, progress=False)
    assert cw.short_run(nn.functional.cross_entropy, train, valid, max_lr=test).policy.max_lr == test.max_lr
    assert math.isfinite(cw.short_run(nn.functional.cross_entropy, train, valid, max_lr="each")(copy.deepcopy(model)))
    after = cw.loss_after(nn.functional.cross_entropy, train, valid, lr=0.1)
    assert after(copy.deepcopy(model)) < cw.HeldOutLoss(nn.functional.cross_entropy, valid)(model)
    assert math.isnan(
        cw.loss_after(nn.functional.mse_loss, [(torch.ones(4, 5), torch.ones(4, 3))], valid, lr=1e30)(model)
    )


def test_gradient_balance_knows_a_balanced_net():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(6, 6, bias=False) for _ in range(4)))
    for layer in model:
        nn.init.orthogonal_(layer.weight)
    data = [(torch.randn(200, 6), torch.randn(200, 6))]
    objective = cw.GradientBalance(nn.functional.mse_loss, data)
    even = objective(model)
    with torch.no_grad():
        model[1].weight.mul_(20)
    assert objective(model) > even + 1


def test_the_record_travels(tmp_path):
    model = mlp()
    found = cw.search_start(cw.LayerGains(model), noisy, budget=20, redraw=mlp, validate=size)
    import json

    again = cw.StartSearch.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    with pytest.raises(
        cw.ArgumentError, match=r"^this record must hold weights to be applied, got one made from plain"
    ):
        again.apply_to(model)
    loaded = cw.StartSearch.load(found.save(tmp_path / "start.pt"))
    assert loaded == found
    assert size(loaded.apply_to(mlp(3))) == size(found.apply_to(mlp(4)))
    with pytest.raises(
        cw.ArgumentError, match=r"got others at 0\.bias, 0\.weight, 2\.bias; pass the same architecture$"
    ):
        found.apply_to(nn.Linear(2, 2))
    section = found.section()
    assert section.conclusion.startswith("Loss ") or section.conclusion.startswith("No start better")
    assert "On data that the search never saw" in section.conclusion
    assert [chart.title for chart in section.charts] == ["Loss over evaluations", "Spread of the candidates"]
    assert len(found.plot().axes) == 2
    assert "Search for a starting point" in found._repr_html_()


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path, monkeypatch):
    found = cw.search_start(cw.LayerGains(mlp()), noisy, budget=5)
    path = found.save(tmp_path / "start.pt")
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(cw.CheckpointError) as caught:
        found.save(path)
    assert str(caught.value) == (
        f"path must be a place that can be written to, got {str(path)!r} (No space left on device); "
        "pass another path, or make room, and call it again"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["start.pt"]
    assert path.read_bytes() == before


def test_the_found_start_goes_into_a_learner_in_one_line():
    data = cw.Data(batches(6), batches(2, seed=2))
    found = cw.search_start(cw.LayerGains(mlp()), cw.HeldOutLoss(nn.functional.cross_entropy, batches()), budget=10)
    assert cw.Learner(found.apply_to(mlp()), data, progress=False).lr_find().max_lr is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": 3}, "objective must be a function candidate -> float, got int 3; pass for example "),
        ({"redraw": 3}, "redraw must be a function seed -> model, got int 3; pass a function seed -> model, or "),
        ({"engine": "dask"}, "engine must be one of 'local', 'processes', 'ray' or the address of a Ray cluster, "),
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0; pass how many candidates are "),
        ({"batched": 4}, "batched must be 0 for an objective without a method losses(model, parameters), got 4; "),
        ({"space": 3}, "space must be a space of starts, got int 3; pass for example LayerGains(model)"),
        ({"progress": 3}, 'progress must be "auto", True or False, got 3; pass False for silence'),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    call = {"space": cw.LayerGains(mlp()), "objective": size, "budget": 9, **arguments}
    with pytest.raises(cw.CyclewiseError, match=f"^{re.escape(message)}"):
        cw.search_start(call.pop("space"), call.pop("objective"), **call)
