"""``search_start``: search a good starting point before training."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn

from cyclewise._validation import describe, whole
from cyclewise.engines import check_engine, make_workers
from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.progress import Progress, check_progress, progress_bar
from cyclewise.start.conclusion import conclude
from cyclewise.start.evaluation import Evaluate, Objective, generators_in
from cyclewise.start.journal import Journal
from cyclewise.start.result import StartSearch
from cyclewise.start.running import Plan, Runner, generation_size, known_values
from cyclewise.start.search import Search
from cyclewise.start.space import Space
from cyclewise.state import preserve


def search_start(
    space: Space,
    objective: Objective,
    *,
    algorithm: str = "PSO",
    budget: int,
    seed: int = 0,
    workers: int = 1,
    engine: str = "local",
    validate: Objective | None = None,
    redraw: Callable[[int], nn.Module] | None = None,
    deterministic: bool = False,
    batched: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    population: int | None = None,
    omega: float | None = None,
    phip: float | None = None,
    phig: float | None = None,
    progress: Progress = "auto",
) -> StartSearch:
    """Search a starting point for a model, before it is trained.

    Every candidate is a new model, made from the space's own, which stays as it is; the objective may train it. All
    candidates see the same random numbers. Where other random numbers give another value, the untouched start and the
    leaders are evaluated again; a fifth of the budget, at most nine evaluations, is kept for that. A candidate whose
    objective raises or returns no finite number is lost, and the search goes on. Ctrl-C ends the search early, with the
    best so far.

    Args:
        space: what may vary, for example ``LayerGains(model)``.
        objective: ``objective(candidate) -> float``, lower is better; see :func:`short_run` for one.
        algorithm: the name of any registered Nevergrad optimizer, such as "PSO", "NGOpt", "OnePlusOne", "TwoPointsDE",
            "CMA" or "RandomSearch".
        budget: evaluations of the objective, those of the untouched start and all repetitions included.
        seed: of the search, and of the random numbers that candidates see.
        workers: candidates under way at the same time, in processes of one thread each where there are several.
        engine: "local", "processes", "ray", or the address of a Ray cluster. With "local" and one worker closures and
            lambdas work as everywhere; beyond this process they work if what they hold can be pickled.
        validate: a second objective, on data that the search never sees, for the starts that are compared at the end.
        redraw: a function seed -> model: `budget` random re-draws are evaluated too, and the best of them is what a
            found start must beat.
        deterministic: ask for candidates by generations, so that the result is the same for every number of workers.
        batched: candidates to score in one pass, for an objective with a method ``losses``, such as
            :class:`HeldOutLoss`; 0: one by one. One process does it, in values equal to rounding.
        checkpoint: a file that is appended to after every evaluation. The same call goes on from there after a kill.
        population: particles of "PSO"; None: 40, or ``max(4, budget // 6)`` where that would leave fewer than six
            generations; the result's `note` says so.
        omega: inertia of "PSO"; None: 0.72.
        phip: pull of "PSO" towards a particle's own best; None: 1.19.
        phig: pull towards the swarm's best; None: 1.19.
        progress: True, False, or "auto": a bar where standard error is a terminal.

    Raises:
        ArgumentTypeError: an argument is of a kind that cannot work.
        ArgumentError: an argument has a value that cannot work, or every candidate was lost.
        CheckpointError: the checkpoint belongs to another search, or cannot be written.
        MissingExtraError: Nevergrad, or Ray where it is asked for, is not installed.
        WorkerError: worker processes cannot be started.

    Source: Nevergrad (Rapin and Teytaud); particle swarms after Kennedy and Eberhart, 1995.

    Example:
        >>> from cyclewise.start import LayerGains
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> found = search_start(LayerGains(model), lambda m: float(m[0].weight.detach().std()), budget=30)
        >>> found.best_loss <= found.baseline_loss
        True
    """
    _check(objective, validate, redraw, batched, workers, engine)
    check_progress(progress)
    search = Search(
        space,
        algorithm=algorithm,
        budget=budget,
        seed=seed,
        num_workers=max(batched, generation_size(algorithm, deterministic=deterministic, workers=workers)),
        population=population,
        omega=omega,
        phip=phip,
        phig=phig,
    )
    evaluate = Evaluate(space, objective, validate, redraw, search.seed)
    held = [generator for function in (objective, validate) for generator in generators_in(function)]
    with ExitStack() as stack:
        stack.enter_context(preserve(space.model, held, objective, validate))
        journal = None
        if checkpoint is not None:
            journal = stack.enter_context(Journal(checkpoint, {**search.header, "deterministic": deterministic}))
            search.replay(journal.events)
            search.on_event = journal.write
        total = search.budget + (search.budget if redraw is not None else 0)
        bar = stack.enter_context(progress_bar("search", total, progress))
        runner = Runner(
            search=search,
            evaluate=evaluate,
            workers=stack.enter_context(make_workers(evaluate, engine=engine, workers=workers)),
            deterministic=deterministic,
            batched=batched,
            bar=bar,
            write=(lambda event: None) if journal is None else journal.write,
            known={} if journal is None else known_values(journal.events),
        )
        plan = Plan.of(search.budget, repeats=not batched)
        return conclude(runner, plan, validates=validate is not None, redraws=redraw is not None)


def _check(objective: Any, validate: Any, redraw: Any, batched: Any, workers: Any, engine: Any) -> None:
    for name, function, way_out in (
        ("objective", objective, "pass for example short_run(...), or lambda model: …"),
        ("validate", validate, "pass a second objective, or leave it out"),
        ("redraw", redraw, "pass a function seed -> model, or leave it out"),
    ):
        if not callable(function) and (function is not None or name == "objective"):
            kind = "seed -> model" if name == "redraw" else "candidate -> float"
            raise ArgumentTypeError(f"{name} must be a function {kind}, got {describe(function)}; {way_out}")
    whole("workers", workers, minimum=1, way_out="pass how many candidates are evaluated at the same time")
    check_engine(engine)
    whole("batched", batched, minimum=0, way_out="pass the candidates per pass, for example 32, or 0")
    if batched and not hasattr(objective, "losses"):
        raise ArgumentError(
            f"batched must be 0 for an objective without a method losses(model, parameters), got {batched}; "
            "pass for example HeldOutLoss(loss_fn, batches)"
        )
