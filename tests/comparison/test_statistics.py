import itertools
import math
import re

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cyclewise import ArgumentError
from cyclewise.comparison.statistics import (
    holm,
    seeds_for_verdict,
    sign_flip_p_value,
    smallest_p_value,
    t_interval,
    t_quantile,
)

# Multiples of 1/8 add up without rounding, so the reference may count exactly; ties are frequent among them.
EIGHTHS = st.lists(st.integers(-40, 40).map(lambda k: k / 8), min_size=1, max_size=9)


def by_enumeration(differences):
    observed = abs(sum(differences))
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    return sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed for signs in flips) / len(
        flips
    )


@given(EIGHTHS)
def test_all_signs_are_tried(differences):
    assert sign_flip_p_value(differences) == by_enumeration(differences)


@given(EIGHTHS, st.floats(1e-6, 1e6))
def test_the_unit_does_not_matter_though_sums_are_rounded(differences, unit):
    assert sign_flip_p_value([unit * value for value in differences]) == by_enumeration(differences)


def test_as_scipy_has_it():
    for n in (4, 8, 12):
        differences = np.random.default_rng(n).normal(0.4, 1.0, n)
        expected = scipy.stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        ).pvalue
        assert sign_flip_p_value(differences) == pytest.approx(expected, rel=1e-12)


def test_many_differences_are_drawn_and_agree_with_the_normal_limit():
    differences = np.random.default_rng(0).normal(0.2, 1.0, 60)
    z = differences.sum() / math.sqrt((differences**2).sum())
    expected = 2 * scipy.stats.norm.sf(abs(z))
    assert sign_flip_p_value(differences) == pytest.approx(expected, abs=0.01)
    assert sign_flip_p_value(differences) == sign_flip_p_value(differences)
    assert sign_flip_p_value([1.0] * 40) == 1 / 100_001


@given(st.integers(1, 20))
def test_no_p_value_is_below_the_smallest(n):
    assert sign_flip_p_value([1.0 + k for k in range(n)]) == smallest_p_value(n)


def test_under_the_null_it_rejects_no_more_than_it_says():
    generator = np.random.default_rng(3)
    rejected = sum(sign_flip_p_value(generator.standard_t(2, 8)) <= 0.05 for _ in range(2000))
    assert rejected <= 2000 * 0.05 + 3 * math.sqrt(2000 * 0.05 * 0.95)


@pytest.mark.parametrize(("num_comparisons", "seeds"), [(1, 6), (2, 7), (3, 7), (4, 8), (9, 9)])
def test_seeds_for_a_verdict(num_comparisons, seeds):
    assert seeds_for_verdict(num_comparisons) == seeds
    assert num_comparisons * 2 / 2**seeds <= 0.05 < num_comparisons * 2 / 2 ** (seeds - 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values):
    corrected = holm(p_values)
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if min(1.0, (len(p_values) - rank) * p_values[i]) > alpha:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(corrected) if p <= alpha} == rejected


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 7, 8, 19, 30])
@pytest.mark.parametrize("probability", [0.5, 0.75, 0.975, 0.995])
def test_quantiles_of_t(degrees, probability):
    assert t_quantile(probability, degrees) == pytest.approx(scipy.stats.t.ppf(probability, degrees), abs=1e-9)


def test_the_interval_is_scipys():
    differences = [0.1, 0.4, -0.2, 0.3, 0.25]
    expected = scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert t_interval(differences) == pytest.approx(tuple(expected), rel=1e-9)
    assert t_interval([0.5]) is None


@pytest.mark.parametrize("differences", [[], [1.0, math.nan], [math.inf]])
def test_what_is_no_difference_is_refused(differences):
    message = f"differences must be finite numbers, at least one, got {differences!r}; leave out what diverged"
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        sign_flip_p_value(differences)
