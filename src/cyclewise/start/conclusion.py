"""From evaluations to a record: explore, see the leaders again, hold the best against what it must beat."""

from collections.abc import Sequence
from typing import Any

import torch

from cyclewise.errors import ArgumentError
from cyclewise.start.evaluation import Job
from cyclewise.start.missing import Missing, StopReason
from cyclewise.start.result import StartSearch
from cyclewise.start.running import Plan, Runner
from cyclewise.start.search import UNTOUCHED, Evaluation
from cyclewise.start.space import values_of
from cyclewise.start.spread import Spread, of_repetitions
from cyclewise.start.variables import position

# How often each start is validated, and the best few re-draws seen again, where the objective is noisy.
_REPETITIONS = 3
_LEADING_DRAWS = 3
_RIVALS = ("redraw", "best_validation", "baseline_validation", "redraw_validation")


def conclude(runner: Runner, plan: Plan, *, validates: bool, redraws: bool) -> StartSearch:
    """Run the search to its end, or to Ctrl-C, and return the record.

    Raises:
        ArgumentError: every candidate was lost.
        KeyboardInterrupt: it came before anything was known.
    """
    stop_reason = StopReason.BUDGET
    rivals: dict[str, Spread | None] = dict.fromkeys(_RIVALS)
    missing = {name: Missing.NO_REDRAW for name in _RIVALS if "redraw" in name and not redraws}
    missing |= {name: Missing.NO_VALIDATE for name in _RIVALS if "validation" in name and not validates}
    try:
        runner.explore(plan)
        runner.see_leaders_again(plan)
        if runner.search.best is None:
            raise _all_lost(runner)
        _hold_against(runner, rivals, validates=validates, redraws=redraws)
    except KeyboardInterrupt:
        stop_reason = StopReason.INTERRUPTED
        if runner.search.best is None:
            raise
    best = _best(runner)
    for name, spread in rivals.items():
        if spread is None and name not in missing:
            missing[name] = Missing.INTERRUPTED if stop_reason is StopReason.INTERRUPTED else Missing.LOST
    evaluations = runner.search.evaluations
    baseline = _spread_of(runner, evaluations[UNTOUCHED])
    if baseline is None:
        missing["baseline"] = Missing.LOST
    found = _spread_of(runner, best)
    assert found is not None
    space, algorithm = runner.search.space, runner.search.algorithm
    with torch.no_grad():
        values = values_of(space.candidate(best.point))
    return StartSearch(
        best=found,
        baseline=baseline,
        point=best.point,
        num_evaluations=runner.num_evaluations,
        num_lost=sum(bool(e.lost) for e in evaluations),
        stop_reason=stop_reason,
        algorithm=algorithm.name,
        population=algorithm.population,
        note=algorithm.note,
        **rivals,
        unavailable=missing,
        evaluations=tuple(evaluations),
        positions=tuple(tuple(position(e.point, space.variables)) for e in evaluations),
        settings=_settings(runner),
        values=values,
    )


def _best(runner: Runner) -> Evaluation:
    told = [e for e in runner.search.evaluations if e.loss is not None]
    # Of starts that were seen again, where there are any: a single evaluation may be luck.
    seen_again = [e for e in told if len(runner.repeated.get(e.index, ())) > 1]
    others = [e for e in seen_again if e.index != UNTOUCHED]
    pool = seen_again if others else told

    def loss(evaluation: Evaluation) -> tuple[float, int]:
        spread = _spread_of(runner, evaluation)
        assert spread is not None
        return spread.value, evaluation.index

    return min(pool, key=loss)


def _spread_of(runner: Runner, evaluation: Evaluation) -> Spread | None:
    if evaluation.loss is None:
        return None
    values = runner.repeated.get(evaluation.index, [evaluation.loss])
    is_noisy = any(value != values[0] for value in values)
    return of_repetitions(values) if is_noisy else Spread.of(values[:1])


def _hold_against(runner: Runner, rivals: dict[str, Spread | None], *, validates: bool, redraws: bool) -> None:
    starts: dict[str, Job] = {"best": Job(point=_best(runner).point)}
    starts["baseline"] = Job(point=runner.search.evaluations[UNTOUCHED].point)
    if redraws and (draw := _best_draw(runner, rivals)) is not None:
        starts["redraw"] = draw
    if validates:
        for name, job in starts.items():
            values = runner.values([job._replace(validates=True, repetition=r) for r in range(_REPETITIONS)])
            rivals[f"{name}_validation"] = _spread(values)


def _best_draw(runner: Runner, rivals: dict[str, Spread | None]) -> Job | None:
    first = runner.search.seed + 1
    jobs = [Job(draw=seed) for seed in range(first, first + runner.search.budget)]
    losses = dict(zip(jobs, runner.values(jobs), strict=True))
    order = sorted((job for job in jobs if losses[job] is not None), key=lambda job: losses[job] or 0.0)
    leaders = order[:_LEADING_DRAWS]
    spreads: dict[Job, Spread] = {}
    for job in leaders:
        values: list[float | None] = [losses[job]]
        if runner.is_noisy:
            values += runner.values([job._replace(repetition=r) for r in range(1, _REPETITIONS)])
        spread = _spread(values[1:] if runner.is_noisy else values)
        if spread is not None:
            spreads[job] = spread
    if not spreads:
        return None
    best = min(spreads, key=lambda job: spreads[job].value)
    rivals["redraw"] = spreads[best]
    return best


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return Spread.of(known[:1] if len(set(known)) == 1 else known)


def _settings(runner: Runner) -> dict[str, Any]:
    search = runner.search
    return {
        **{
            name: value
            for name, value in search.header.items()
            if value is not None and name not in ("version", "start")
        },
        "workers": runner.workers.num_workers,
        "deterministic": runner.deterministic,
        "batched": runner.batched,
        **({"workers that died": runner.died} if runner.died else {}),
    }


def _all_lost(runner: Runner) -> ArgumentError:
    lost = runner.search.evaluations[-1].lost
    error = ArgumentError(
        f"objective must return a finite number for at least one candidate, got none in {runner.num_evaluations}; "
        f"the last was lost because of {lost}"
    )
    error.__cause__ = runner.last_error
    return error
