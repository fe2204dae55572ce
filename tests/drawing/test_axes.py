import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclewise.drawing.axes import fit_axis, linear_ticks, log_ticks, number

any_floats = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
positive = st.floats(min_value=0.0, exclude_min=True, allow_infinity=False, allow_subnormal=True)


def assert_sound(axis, most):
    positions = axis.ticks.positions
    assert math.isfinite(axis.low)
    assert math.isfinite(axis.high)
    assert axis.low < axis.high
    assert 2 <= len(positions) <= most
    assert all(axis.low <= position <= axis.high for position in positions)
    assert list(positions) == sorted(set(positions))
    assert len(set(axis.ticks.labels)) == len(axis.ticks.labels) == len(positions)
    fractions = axis.fraction([axis.low, axis.high, *positions])
    assert fractions[0] == pytest.approx(0.0)
    assert fractions[1] == pytest.approx(1.0)
    assert all(-1e-9 <= fraction <= 1 + 1e-9 for fraction in fractions)


@given(st.lists(any_floats, max_size=6), st.booleans(), st.sampled_from([0.0, 0.04]), st.integers(5, 9))
def test_every_axis_has_sound_ticks(values, log, margin, most):
    assert_sound(fit_axis(values, log=log, margin=margin, most=most), most)


@given(st.lists(positive, min_size=1, max_size=6), st.sampled_from([0.0, 0.04]))
def test_every_log_axis_of_positive_values_has_sound_ticks(values, margin):
    assert_sound(fit_axis(values, log=True, margin=margin), 7)


@given(st.floats(-1e300, 1e300), st.floats(0, 1))
def test_ticks_of_nearly_equal_values_are_sound(value, spread):
    assert_sound(fit_axis([value, value * (1 + spread * 1e-4)]), 7)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        [],
        [0.0],
        [1.0],
        [-3.0],
        [5e-324],
        [1.7e308],
        [-1.7e308, 1.7e308],
        [-1e300, 1e300],
        [1e-300, 1e300],
        [1e-310, 1e-309],
        [1.0, 1.0 + 2**-52],
        [math.nan, math.inf, -math.inf],
        [1e6, 1e6 + 10],
        [-2e-7, 3e-7],
    ],
)
def test_degenerate_ranges_have_sound_ticks(values, log):
    assert_sound(fit_axis(values, log=log), 7)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, "0.0 0.2 0.4 0.6 0.8 1.0"),
        (0.86, 0.95, "0.86 0.88 0.90 0.92 0.94"),
        (0, 2375, "0 500 1,000 1,500 2,000"),
        (0, 2e6, "0 5e5 1e6 1.5e6 2e6"),
        (0, 3e-5, "0 5e-6 1e-5 1.5e-5 2e-5 2.5e-5 3e-5"),
        (0, 3e-6, "0 5e-7 1e-6 1.5e-6 2e-6 2.5e-6 3e-6"),
        (-1, 1, "-1.0 -0.5 0.0 0.5 1.0"),
    ],
)
def test_linear_labels(low, high, labels):
    assert " ".join(linear_ticks(low, high).labels) == labels


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (1e-5, 3.0, "1e-5 1e-4 0.001 0.01 0.1 1"),
        (0.001, 1.0, "0.001 0.003 0.01 0.03 0.1 0.3 1"),
        (0.2, 0.9, "0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9"),
        (1, 1e9, "1 100 10,000 1e6 1e8"),
        (2.0, 2.5, "2.0 2.1 2.2 2.3 2.4 2.5"),
    ],
)
def test_log_labels(low, high, labels):
    assert " ".join(log_ticks(low, high, most=8).labels) == labels


def test_a_margin_does_not_cross_zero():
    assert fit_axis([0.0, 10.0], margin=0.1).low == 0.0
    assert fit_axis([-10.0, 0.0], margin=0.1).high == 0.0
    assert fit_axis([-1.0, 9.0], margin=0.1).low == -2.0


def test_limits_replace_the_values():
    axis = fit_axis([0.0, 1e9], margin=0.1, limits=(0.0, 2.0))
    assert (axis.low, axis.high) == (0.0, 2.0)


@pytest.mark.parametrize("limits", [(2.0, 1.0), (1.0, 1.0), (math.nan, 1.0), (0.0, math.inf), (-1.0, 1.0)])
def test_impossible_limits_are_ignored(limits):
    axis = fit_axis([1.0, 100.0], log=True, limits=limits)
    assert (axis.low, axis.high) == (1.0, 100.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (0.42, "0.42"),
        (0.001, "0.001"),
        (0.0009, "9e-4"),
        (1.2346e-7, "1.235e-7"),
        (-1234.56, "-1,235"),
        (123456, "123,456"),
        (1e6, "1e6"),
        (-2.5, "-2.5"),
        (math.inf, "not finite"),
    ],
)
def test_numbers_are_written_as_people_write_them(value, text):
    assert number(value) == text
