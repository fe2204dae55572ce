"""Planted troubles and healthy runs, half of them to develop on, half to test on.

A trouble is a subject that was spoilt in one known way; :data:`RIGHT` says which kinds of finding name it. The two
halves share the kinds of trouble, but no variant (model, data and strength) and no seed: DEVELOPMENT uses seeds 0 and
1, TEST seeds 10 and 11. Healthy runs are the tasks of the range test's benchmark, with its own split into development
and test tasks, at the best rates that its oracle grids know; see :mod:`benchmarks.diagnosis.healthy`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.diagnosis import planted, planted_depth, planted_minima, planted_rates, planted_saddles
from benchmarks.diagnosis.subjects import Subject

SEEDS = {"development": (0, 1), "test": (10, 11)}

# Which kinds of finding count as right for which trouble.
RIGHT: dict[str, frozenset[str]] = {
    "badly scaled inputs": frozenset({"ill_conditioned"}),
    "rate far above the limit": frozenset({"unstable_step"}),
    # With all weights zero the units are constant and equal, and the first order says nothing: either name is right.
    "zero initialisation": frozenset({"saddle", "dead_units"}),
    "saddle start": frozenset({"saddle"}),
    "dead ReLUs": frozenset({"dead_units"}),
    "deep without normalisation, vanishing": frozenset({"vanishing_gradients"}),
    "deep without normalisation, exploding": frozenset({"exploding_gradients"}),
    "long recurrence, factor 0.9": frozenset({"fading_memory"}),
    "long recurrence, factor 1.1": frozenset({"exploding_memory"}),
    "tiny batch, noisy labels": frozenset({"noise_dominated"}),
    "cliff": frozenset({"cliff"}),
    "saturated plateau": frozenset({"plateau"}),
    "solution beyond a hump": frozenset({"distant_minimum"}),
    "two minima of one loss": frozenset({"distinct_minima"}),
}
# No trouble, but worth knowing: a finding of the severity "info" names it.
INFORMATION = frozenset({"two minima of one loss"})


@dataclass(frozen=True)
class Case:
    """One planted trouble.

    Attributes:
        trouble: a key of :data:`RIGHT`.
        variant: which one.
        seed: that weights and batches are drawn from.
        build: makes it from the seed.
    """

    trouble: str
    variant: str
    seed: int
    build: Callable[[int], Subject]


def cases(half: str) -> list[Case]:
    """Return the planted troubles of one half, "development" or "test"."""
    variants = {
        trouble: of_trouble
        for module in (planted, planted_saddles, planted_depth, planted_rates, planted_minima)
        for trouble, of_trouble in module.VARIANTS[half].items()
    }
    return [
        Case(trouble, variant, seed, build)
        for trouble in RIGHT
        for variant, build in variants[trouble].items()
        for seed in SEEDS[half]
    ]
