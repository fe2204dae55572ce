import re

import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise.start import Product, Subspace
from cyclewise.start.running import Plan


def space():
    torch.manual_seed(0)
    return cw.LayerGains(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))


def bowl(point):
    return sum((z - 0.4) ** 2 for z in point["gains"])


def run(search, n=3):
    while candidates := search.ask(n):
        for candidate in candidates:
            search.tell(candidate, bowl(candidate.point))
    return search


@pytest.mark.parametrize("name", ["PSO", "NGOpt", "OnePlusOne", "TwoPointsDE", "CMA", "RandomSearch", "DE"])
def test_any_algorithm_goes_down(name):
    search = run(cw.Search(space(), algorithm=name, budget=60), 1)
    assert len(search.evaluations) == 60
    assert search.evaluations[0].point == {"gains": (0.0, 0.0)}
    assert search.best.loss < (0.05 if name in ("RandomSearch", "DE", "TwoPointsDE") else 0.02)
    assert search.ask() == []


def test_an_algorithm_whose_library_is_missing_says_so():
    pytest.importorskip("nevergrad")
    message = (
        "algorithm='PCABO' needs bayes_optim, which is not installed; run: pip install bayes_optim, "
        'or pass another algorithm, for example "PSO"'
    )
    with pytest.raises(cw.MissingExtraError, match=f"^{re.escape(message)}$"):
        run(cw.Search(space(), algorithm="PCABO", budget=30), 1)


@pytest.mark.parametrize("name", ["PSO", "OnePlusOne", "CMA"])
def test_the_same_seed_asks_for_the_same_points_whatever_else_is_drawn(name):
    first = run(cw.Search(space(), algorithm=name, budget=30, seed=3))
    torch.manual_seed(9)
    import numpy as np

    np.random.seed(9)
    state = np.random.get_state()[1].copy()
    second = run(cw.Search(space(), algorithm=name, budget=30, seed=3))
    assert first.evaluations == second.evaluations
    assert (np.random.get_state()[1] == state).all()
    assert run(cw.Search(space(), algorithm=name, budget=30, seed=4)).evaluations != first.evaluations


def test_the_points_of_random_search_fill_the_range_evenly():
    search = cw.Search(space(), algorithm="RandomSearch", budget=2000)
    places = torch.tensor([candidate.point["gains"] for candidate in search.ask(2000)][1:])
    assert float(places.min()) > -1
    assert float(places.max()) < 1
    counts = torch.histc(places, bins=4, min=-1, max=1) / places.numel()
    assert torch.all((counts - 0.25).abs() < 0.03)


def test_a_swarm_has_fewer_particles_where_the_budget_is_small():
    sizes = {budget: cw.Search(space(), budget=budget).algorithm.population for budget in (10, 60, 239, 240, 1000)}
    assert sizes == {10: 4, 60: 10, 239: 39, 240: 40, 1000: 40}
    assert cw.Search(space(), budget=60, population=20, omega=0.5, phip=1.0, phig=2.0).algorithm.population == 20


def test_a_saved_search_goes_on_as_if_it_had_not_stopped(tmp_path):
    whole = run(cw.Search(space(), budget=40, seed=1), 4)
    search = cw.Search(space(), budget=40, seed=1)
    for _ in range(4):
        for candidate in search.ask(4):
            search.tell(candidate, bowl(candidate.point))
    asked = search.ask(4)
    search.tell(asked[0], bowl(asked[0].point))
    search.save(tmp_path / "search.jsonl")
    again = cw.Search.resume(tmp_path / "search.jsonl", space(), budget=40, seed=1)
    assert again.outstanding == asked[1:]
    for candidate in again.outstanding:
        again.tell(candidate, bowl(candidate.point))
    assert run(again, 4).evaluations == whole.evaluations


def test_a_line_that_was_cut_off_is_ignored(tmp_path):
    path = tmp_path / "search.jsonl"
    search = cw.Search(space(), budget=20)
    for candidate in search.ask(3):
        search.tell(candidate, bowl(candidate.point))
    search.save(path)
    path.write_bytes(path.read_bytes()[:-7])
    again = cw.Search.resume(path, space(), budget=20)
    assert [candidate.index for candidate in again.outstanding] == [2]


def refused(call, message, error=cw.ArgumentError):
    with pytest.raises(error, match=f"^{message if isinstance(message, str) else re.escape(message)}$"):
        call()


def test_a_search_from_other_weights_or_directions_is_another_search(tmp_path):
    model = nn.Linear(4, 3)
    starts = [
        (Subspace(model, 3), Subspace(model, 3, seed=1)),
        (Subspace(model, 3), Subspace(nn.Linear(4, 3), 3)),
        (cw.LayerGains(model), cw.LayerGains(nn.Linear(4, 3))),
        tuple(Product([cw.LayerGains(model), Subspace(model, 3, seed=seed)]) for seed in (0, 1)),
    ]
    for i, (own, other) in enumerate(starts):
        path = tmp_path / f"{i}.jsonl"
        cw.Search(own, budget=20).save(path)
        assert cw.Search.resume(path, own, budget=20).header == cw.Search(own, budget=20).header
        with pytest.raises(cw.CheckpointError, match="belongs to another search, with start="):
            cw.Search.resume(path, other, budget=20)


def test_files_that_belong_to_something_else_are_refused(tmp_path):
    path = tmp_path / "search.jsonl"
    cw.Search(space(), budget=20).save(path)
    refused(
        lambda: cw.Search.resume(path, space(), budget=30),
        re.escape(
            f"checkpoint {str(path)!r} belongs to another search, with budget=20 instead of 30; "
            "pass another path, or delete the file to start again"
        ),
        cw.CheckpointError,
    )
    path.write_text("no JSON\n")
    with pytest.raises(cw.CheckpointError, match=re.escape("cannot be used (JSONDecodeError")):
        cw.Search.resume(path, space(), budget=30)
    with pytest.raises(cw.CheckpointError, match=r"must be a file that a search wrote, got none; check it$"):
        cw.Search.resume(tmp_path / "none", space(), budget=30)


def test_bad_arguments_are_refused():
    refused(
        lambda: cw.Search(space(), algorithm="OnePlusOn", budget=9),
        re.escape(
            "algorithm must be the name of a Nevergrad optimizer, got 'OnePlusOn'; "
            "did you mean 'OnePlusOne' or 'RLSOnePlusOne' or 'NoisyOnePlusOne'?"
        ),
    )
    refused(
        lambda: cw.Search(space(), algorithm="zzzzqqq", budget=9),
        re.escape(
            'algorithm must be the name of a Nevergrad optimizer, got \'zzzzqqq\'; for example "PSO", "NGOpt" or "CMA"'
        ),
    )
    refused(
        lambda: cw.Search(space(), budget=20, population=21),
        re.escape(
            "population must be at most budget=20, got 21; each particle needs an evaluation: "
            "raise the budget, or leave population out"
        ),
    )
    refused(
        lambda: cw.Search(space(), algorithm="CMA", budget=20, population=5, omega=0.5),
        re.escape("population, omega must be left out for algorithm='CMA'; they are those of \"PSO\""),
    )
    refused(
        lambda: cw.Search(space(), budget=1),
        re.escape("budget must be a whole number of at least 2, got 1; pass the evaluations to spend, for example 60"),
    )
    refused(
        lambda: cw.Search(cw.Seeds(nn.Linear(2, 1)), budget=20),
        re.escape(
            "algorithm must be \"RandomSearch\" for a space of seeds, got 'PSO'; "
            "neighbouring seeds have nothing in common that another algorithm could learn"
        ),
    )
    refused(
        lambda: cw.Search(space(), algorithm="NelderMead", budget=20, num_workers=2),
        re.escape(
            "workers must be 1 for algorithm='NelderMead', which asks for one point at a time, got 2; "
            'pass workers=1, or an algorithm such as "PSO" or "TwoPointsDE"'
        ),
    )
    search = cw.Search(space(), budget=20)
    (candidate,) = search.ask()
    search.tell(candidate, 1.0)
    for wrong in (candidate, 5):
        index = 0 if wrong is candidate else 5
        refused(
            lambda wrong=wrong: search.tell(wrong, 1.0),
            re.escape(
                f"candidate must be one that was asked for and not told yet, got {index}; tell each of them once"
            ),
        )


@pytest.mark.parametrize("budget", range(2, 80))
def test_a_plan_spends_the_budget(budget):
    plan = Plan.of(budget, repeats=True)
    assert plan.explores + plan.repeats == budget
    assert plan.explores >= 2
