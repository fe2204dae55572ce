"""`compare`: policies against a baseline on the same seeds, in as many processes as there are cores."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from cyclewise._validation import describe, instance, positive, random_seed, real, whole
from cyclewise.comparison.comparison import Comparison
from cyclewise.engines import check_engine, make_workers, portable
from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.policies import Policy
from cyclewise.progress import Progress, check_progress, progress_bar
from cyclewise.state import preserve
from cyclewise.training import Learner, direction

# What a comparison is made with is imported when one is made, so that importing cyclewise costs less.
if TYPE_CHECKING:
    from cyclewise.comparison.crew import Crew
    from cyclewise.comparison.rows import Question
    from cyclewise.comparison.runs import Run
    from cyclewise.comparison.tuning import Tuned

Tuning = Literal["lr_find"] | Sequence[float] | None


def compare(
    policies: Mapping[str, Policy],
    make_learner: Callable[[int], Learner],
    *,
    seeds: Iterable[int],
    metric: str,
    baseline: str,
    engine: str = "processes",
    workers: int | None = None,
    tune: Tuning = None,
    tuning_seeds: Iterable[int] | None = None,
    target: float | None = None,
    lower_is_better: bool | None = None,
    store: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress = "auto",
) -> Comparison:
    """Train with each policy on the same seeds, and hold the results against one of them.

    Every run gets a Learner of its own, ``make_learner(seed)``, called with the global generators seeded by the same
    seed: the runs of a seed have the same weights and the same batches, and differences between policies are taken seed
    by seed. Their test is exact and assumes no distribution; n seeds cannot give a two-sided p-value below 2/2^n, and
    the record says how many seeds a verdict needs.

    Args:
        policies: name -> policy; counted in steps, so all that are to have the same effort have equal `total_steps`.
        make_learner: returns an untrained Learner with validation data; makes model, data and optimizer itself.
        seeds: one run of each policy per seed, different whole numbers of at least 0.
        metric: a name in ``learn.evaluate()``, such as "loss" or "accuracy"; the value after the last step counts.
        baseline: name of the policy that the others are held against.
        engine: "processes": spawned local processes, one thread each; "local": this process; "ray"; or the address of a
            Ray cluster.
        workers: how many runs at a time; None: a process per core, one run at a time in this process.
        tune: find each policy's rate first, with the same effort for each: "lr_find", told the policy's length, or a
            list of peak rates to train with. A policy is multiplied as a whole, so that its highest rate is the one
            found.
        tuning_seeds: the seeds to tune on, others than `seeds`; None: the one after the largest.
        target: a value of `metric`; the rows say how many steps and seconds each policy needs for it.
        lower_is_better: direction of `metric`; None: what its name tells ("loss", "error", "rmse", "perplexity", ...
            are to fall, "accuracy", "f1", "auc", ... to rise). Where it tells nothing, higher is taken to be better,
            with a warning, and the conclusion says so.
        store: a folder for finished runs. What is there is not trained again: a comparison that was killed goes on with
            the runs that are missing, and another one with more seeds or policies takes these over. Runs of other code,
            in `make_learner` or the files that it imports, or with other values of the globals it reads, are others.
        seed: draws the signs of the test where there are more than 20 seeds.
        progress: True, False, or "auto": a bar where standard error is a terminal.

    Returns:
        the record; a policy that diverges is a row that says so.

    Raises:
        ArgumentError: an argument has an impossible value, or the Learner has no such metric.
        ArgumentTypeError: an argument is of a kind that cannot work.
        CheckpointError: `store` cannot be written; the runs in it are whole, and the same call goes on with them.
        WorkerError: workers cannot be started, or one died twice over the same run.
        MissingExtraError: Ray is asked for and not installed.

    Exceptions of `make_learner` and of training pass through, with a note of the run and the worker's traceback. After
    Ctrl-C finished runs are in the store.

    Example:
        >>> import torch, cyclewise as cw
        >>> def make_learner(seed):
        ...     inputs = torch.randn(200, 2)
        ...     data = cw.Data.from_arrays(inputs, (inputs[:, 0] > inputs[:, 1]).long(), seed=seed)
        ...     return cw.Learner(torch.nn.Linear(2, 2), data, metrics={"accuracy": cw.accuracy})
        >>> policies = {"low": cw.Constant(lr=1e-4, total_steps=9), "high": cw.Constant(lr=1.0, total_steps=9)}
        >>> c = compare(policies, make_learner, seeds=range(6), metric="loss", baseline="low", engine="local")
        >>> c.row("high").difference < 0, c.row("high").p_value
        (True, 0.03125)
    """
    from cyclewise.comparison.crew import Crew
    from cyclewise.comparison.rows import Question, make_rows
    from cyclewise.comparison.runs import Job, Runner
    from cyclewise.comparison.store import Store
    from cyclewise.comparison.tuning import lengths

    chosen = _policies(policies)
    told = direction.lower_is_better(_metric(metric)) if lower_is_better is None else bool(lower_is_better)
    question = Question(
        metric=metric,
        lower_is_better=bool(told),
        baseline=_baseline(baseline, chosen),
        seeds=_seeds("seeds", seeds),
        target=None if target is None else real("target", target, way_out="leave it out for none"),
        seed=random_seed("seed", seed),
        is_direction_assumed=told is None,
    )
    if not callable(make_learner):
        raise ArgumentTypeError(
            f"make_learner must be a function seed -> Learner, got {describe(make_learner)}; "
            "pass the function itself, which makes a new Learner for each run"
        )
    check_engine(engine)
    check_progress(progress)
    how = _how(tune)
    others = _tuning_seeds(tuning_seeds, question.seeds)
    at_a_time = num_workers(workers, engine)
    kept = None if store is None else Store(store, make_learner)
    if question.is_direction_assumed:
        warnings.warn(
            f"metric must have a known direction, got {metric!r}, whose name tells none, so higher is taken to be "
            "better; pass lower_is_better=True or lower_is_better=False",
            UserWarning,
            stacklevel=2,
        )
    num_rates = 0 if how is None else len(lengths(chosen)) if how == "lr_find" else len(how) * len(chosen)
    with (
        preserve(),
        portable(make_learner, *chosen.values()),
        progress_bar("comparing", len(others) * num_rates + len(question.seeds) * len(chosen), progress) as bar,
        make_workers(Runner(make_learner, metric), engine=engine, workers=at_a_time) as crew_workers,
    ):
        crew = Crew(crew_workers, kept, bar.advance)
        tuned = _tuned(crew, chosen, how, others, question)
        jobs = {
            name: [Job(own, found.policy) for own in question.seeds]
            for name, found in tuned.items()
            if found.policy is not None
        }
        runs = crew.run(jobs)
    is_paired = _is_paired(runs)
    if not is_paired:
        warnings.warn(
            "make_learner must give the same weights and batches to all runs of a seed, and did not; seed whatever it "
            "draws from with its argument, or the differences between policies are noisier than need be",
            UserWarning,
            stacklevel=2,
        )
    settings = {
        "policies": "; ".join(f"{name}: {policy!r}" for name, policy in chosen.items()),
        "seeds": ", ".join(map(str, question.seeds)),
        "metric": f"{metric}, {question.direction} is better",
        "tuning": "none" if how is None else f"{how} on seeds {', '.join(map(str, others))}",
        "engine": f"{engine}, {at_a_time} at a time",
    }
    return Comparison(make_rows(question, runs, tuned), question, is_paired, settings)


def _tuned(
    crew: "Crew", policies: Mapping[str, Policy], how: Any, seeds: Sequence[int], question: "Question"
) -> "dict[str, Tuned]":
    from cyclewise.comparison import tuning

    if how is None:
        return {name: tuning.Tuned(policy, tuning.peak(policy)) for name, policy in policies.items()}
    if how == "lr_find":
        return tuning.by_range_test(crew, policies, seeds)
    return tuning.by_grid(crew, policies, how, seeds, metric=question.metric, lower_is_better=question.lower_is_better)


def _is_paired(runs: "Mapping[str, Sequence[Run]]") -> bool:
    starts: dict[int, list[tuple[str, ...]]] = {}
    for own in runs.values():
        for run in own:
            starts.setdefault(run.seed, []).append(run.start)
    # A run that diverged at once has seen fewer batches; zip compares as far as both got.
    return all(
        all(ours == theirs for ours, theirs in zip(first, other, strict=False))
        for first, *others in starts.values()
        for other in others
    )


def _policies(policies: Any) -> dict[str, Policy]:
    instance(
        "policies", policies, Mapping, "a dict name -> policy", way_out='pass {"one-cycle": cw.OneCycle(...), ...}'
    )
    if not policies:
        raise ArgumentError("policies must hold at least one policy, got an empty dict; name the baseline and others")
    for name, policy in policies.items():
        instance("policies", name, str, "a dict with names as keys", way_out="the rows are called by them")
        instance(f"policies[{name!r}]", policy, Policy, "a policy", way_out="pass for example cw.OneCycle(...)")
    return dict(policies)


def _metric(metric: Any) -> str:
    instance("metric", metric, str, "a name in evaluate()", way_out='pass for example "loss" or "accuracy"')
    return str(metric)


def _baseline(baseline: Any, policies: Mapping[str, Policy]) -> str:
    if baseline not in policies:
        listed = ", ".join(repr(name) for name in policies)
        raise ArgumentError(f"baseline must be the name of one of the policies, got {baseline!r}; there are {listed}")
    return str(baseline)


def _seeds(name: str, seeds: Any) -> tuple[int, ...]:
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise ArgumentTypeError(f"{name} must be a list of whole numbers, got {describe(seeds)}; pass range(8)")
    result = tuple(random_seed(name, seed, way_out="pass for example range(8)") for seed in seeds)
    if not result or len(set(result)) < len(result):
        raise ArgumentError(
            f"{name} must be different whole numbers, at least one, got {list(result)!r}; pass range(8)"
        )
    return result


def _tuning_seeds(given: Any, seeds: Sequence[int]) -> tuple[int, ...]:
    if given is None:
        return (max(seeds) + 1,)
    result = _seeds("tuning_seeds", given)
    shared = sorted(set(result) & set(seeds))
    if shared:
        raise ArgumentError(
            f"tuning_seeds must be others than seeds, got {shared!r} in both; a rate that was picked on the runs that "
            "are compared is favoured by them"
        )
    return result


def _how(tune: Any) -> Any:
    if tune is None or (isinstance(tune, str) and tune == "lr_find"):
        return tune
    if isinstance(tune, str) or not isinstance(tune, Iterable):
        raise ArgumentError(
            f'tune must be "lr_find", a list of rates or None, got {tune!r}; pass for example [0.03, 0.1, 0.3]'
        )
    rates = sorted({positive("tune", rate, way_out="it lists peak rates to try") for rate in tune})
    if not rates:
        raise ArgumentError("tune must hold at least one rate, got an empty list; leave it out to tune nothing")
    return rates


def num_workers(workers: Any, engine: str) -> int:
    """Return how many runs to make at a time: as given, else one per core, and one in this process.

    >>> num_workers(3, "processes"), num_workers(None, "local")
    (3, 1)
    """
    if workers is not None:
        return whole("workers", workers, minimum=1, way_out="leave it out for one per core")
    if engine == "local":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
