"""Whether an objective is noisy is seen at the untouched start, or, where that is lost, at another candidate."""

import math

import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise.start import Missing


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


UNTOUCHED = mlp()[0].weight.detach()


def quiet(model):
    return float((model[0].weight.detach().norm() - 2) ** 2)


def noisy(model):
    # Random numbers that are common to all candidates would add the same to all: each picks another one of them.
    value = quiet(model)
    return value + 0.1 * float(torch.randn(1000)[int(1e6 * value) % 1000])


def lost_where_it_begins(objective):
    return lambda model: math.nan if torch.equal(model[0].weight, UNTOUCHED) else objective(model)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("budget", [15, 17, 23, 60])
def test_noise_is_noticed_where_the_untouched_start_is_lost(budget, deterministic):
    options = {"budget": budget, "deterministic": deterministic, "progress": False}
    found = cw.search_start(cw.LayerGains(mlp()), lost_where_it_begins(noisy), redraw=mlp, **options)
    assert found.unavailable["baseline"] is Missing.LOST
    assert found.num_evaluations == budget
    assert found.best.num_runs == 2 or budget < 23
    assert found.redraw.num_runs == 2


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_quiet_objective_spends_what_is_left_on_candidates(deterministic):
    objective = lost_where_it_begins(quiet)
    found = cw.search_start(cw.LayerGains(mlp()), objective, budget=60, deterministic=deterministic, progress=False)
    # All but the second looks at the untouched start and at the one that told.
    assert (found.num_evaluations, len(found.evaluations), found.best.num_runs) == (60, 58, 1)


def test_an_untouched_start_that_is_lost_now_and_then_is_noise():
    for is_lost in ([False, True], [True, False]):
        turns = iter(is_lost)

        def objective(model, turns=turns):
            at_start = torch.equal(model[0].weight, UNTOUCHED)
            return math.nan if at_start and next(turns, False) else noisy(model)

        found = cw.search_start(cw.LayerGains(mlp()), objective, budget=60, progress=False)
        assert (found.num_evaluations, found.best.num_runs) == (60, 2)


@pytest.mark.parametrize("objective", [quiet, noisy])
@pytest.mark.parametrize("kill_at", [1, 3, 30, 53, 55])
def test_a_search_without_its_untouched_start_goes_on_with_nothing_lost(tmp_path, objective, kill_at):
    class Killed(BaseException):
        pass

    calls = []

    def counted(model):
        calls.append(1)
        if len(calls) == kill_at:
            raise Killed
        return lost_where_it_begins(objective)(model)

    arguments = {"budget": 60, "progress": False}
    whole = cw.search_start(cw.LayerGains(mlp()), lost_where_it_begins(objective), **arguments)
    with pytest.raises(Killed):
        cw.search_start(cw.LayerGains(mlp()), counted, checkpoint=tmp_path / "search", **arguments)
    kill_at = -1
    resumed = cw.search_start(cw.LayerGains(mlp()), counted, checkpoint=tmp_path / "search", **arguments)
    assert resumed == whole
    assert len(calls) == 61  # the one that was killed is made again
