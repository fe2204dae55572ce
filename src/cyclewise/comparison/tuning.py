"""Finding each policy's rate before the comparison, with the same effort for each, on seeds of its own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from cyclewise.comparison.crew import Crew
from cyclewise.comparison.runs import Job, Run
from cyclewise.errors import ArgumentError
from cyclewise.policies import Policy, Rescaled
from cyclewise.range_test import Refusal

# A policy that ends above this share of its peak is not annealed.
_ANNEALED = 0.5


@dataclass(frozen=True)
class Tuned:
    """A policy's rate, and what it cost to find.

    Attributes:
        policy: with the rate that was found; None where none was.
        lr: its peak.
        num_steps: optimizer updates spent.
        seconds: spent.
        candidates: rate and mean score of each rate of a grid; None for the score where a run diverged.
        refusals: why range tests gave no rate, one for each seed on which they gave none.
        is_at_edge: whether the best rate is the grid's lowest or highest, so that a better one may lie beyond.
    """

    policy: Policy | None
    lr: float | None
    num_steps: int = 0
    seconds: float = field(default=0.0, compare=False)
    candidates: tuple[tuple[float, float | None], ...] = ()
    refusals: tuple[Refusal, ...] = ()
    is_at_edge: bool = False


def peak(policy: Policy) -> float:
    """Return the highest rate of a policy.

    >>> from cyclewise import SGDR
    >>> peak(SGDR(max_lr=0.1, T_0=10, num_cycles=2))
    0.1
    """
    return float(policy.lr(policy.peak_step))


def with_peak(policy: Policy, lr: float) -> Policy:
    """Return a policy with all rates multiplied such that the highest is `lr`.

    Raises:
        ArgumentError: all its rates are 0.

    >>> from cyclewise import Cosine
    >>> with_peak(Cosine(max_lr=0.1, total_steps=3), 0.4).lr([0, 1, 2])
    array([0.4, 0.2, 0. ])
    """
    highest = peak(policy)
    if highest == 0.0:
        raise ArgumentError(f"policies must have a rate above 0 to be tuned, got {policy!r}; leave out tune")
    factor = lr / highest
    return policy if factor == 1.0 else Rescaled(original=policy, factor=factor, at_step=0)


def by_range_test(crew: Crew, policies: Mapping[str, Policy], seeds: Sequence[int]) -> dict[str, Tuned]:
    """Give each policy the rate of `lr_find`, the geometric mean over the seeds.

    A policy that anneals gets ``max_lr`` as its peak, one that does not gets ``constant_lr``. The range tests are made
    once for each length of run, which few samples bound the rate by; each policy counts the cost of those of its
    length, which whoever uses it alone would pay.
    """
    of_length = crew.run({
        f"range test for {total_steps} steps": [Job(seed, total_steps=total_steps) for seed in seeds]
        for total_steps in lengths(policies)
    })  # fmt: skip
    result = {}
    for name, policy in policies.items():
        found = of_length[f"range test for {policy.total_steps} steps"]
        num_steps, seconds = sum(run.num_steps for run in found), sum(run.seconds for run in found)
        refusals = tuple(Refusal(run.error) for run in found if run.error)
        if len(refusals) == len(found):
            result[name] = Tuned(None, None, num_steps, seconds, refusals=refusals)
            continue
        is_annealed = policy.lr(policy.total_steps - 1) < _ANNEALED * peak(policy)
        rates = [run.max_lr if is_annealed else run.constant_lr for run in found]
        lr = math.exp(fmean(math.log(rate) for rate in rates if rate is not None))
        result[name] = Tuned(with_peak(policy, lr), lr, num_steps, seconds, refusals=refusals)
    return result


def lengths(policies: Mapping[str, Policy]) -> list[int]:
    """Return the different lengths of the policies, in steps.

    >>> from cyclewise import Constant
    >>> lengths({"a": Constant(lr=0.1, total_steps=9), "b": Constant(lr=0.2, total_steps=9)})
    [9]
    """
    return list(dict.fromkeys(policy.total_steps for policy in policies.values()))


def by_grid(
    crew: Crew,
    policies: Mapping[str, Policy],
    grid: Sequence[float],
    seeds: Sequence[int],
    *,
    metric: str,
    lower_is_better: bool,
) -> dict[str, Tuned]:
    """Train each policy with each peak rate of the grid, and take the one with the best mean; a divergence loses."""
    jobs = {
        f"{name} at {lr:g}": [Job(seed, with_peak(policy, lr)) for seed in seeds]
        for name, policy in policies.items()
        for lr in grid
    }
    runs = crew.run(jobs)
    result = {}
    for name, policy in policies.items():
        own = {lr: runs[f"{name} at {lr:g}"] for lr in grid}
        scores = {lr: _mean(of_rate, metric) for lr, of_rate in own.items()}
        known = {lr: score for lr, score in scores.items() if score is not None}
        # Where every rate diverges the lowest is the least bad, and its row will say what became of it.
        best = (min if lower_is_better else max)(known, key=lambda lr: known[lr]) if known else min(grid)
        spent = [run for of_rate in own.values() for run in of_rate]
        result[name] = Tuned(
            with_peak(policy, best),
            best,
            sum(run.num_steps for run in spent),
            sum(run.seconds for run in spent),
            candidates=tuple(scores.items()),
            is_at_edge=len(grid) > 1 and best in (min(grid), max(grid)),
        )
    return result


def _mean(runs: Sequence[Run], metric: str) -> float | None:
    scores = [run.final(metric) for run in runs]
    known = [score for score in scores if score is not None]
    return fmean(known) if len(known) == len(scores) else None
