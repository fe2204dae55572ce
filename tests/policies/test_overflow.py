"""Settings whose rates no float could hold are refused; all others have finite rates at every step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cyclewise as cw
from cyclewise.policies import Rescaled

CASES = [
    (lambda: cw.OneCycle(max_lr=1, total_steps=10, div_factor=5e-324),
     "div_factor must leave a first rate of at most 1e+300, got 5e-324 with max_lr=1.0; 25 starts at max_lr / 25"),
    (lambda: cw.ThreePhaseOneCycle(max_lr=1e200, total_steps=10, div_factor=1e-200),
     "div_factor must leave a first rate of at most 1e+300, got 1e-200 with max_lr=1e+200; 25 starts at max_lr / 25"),
    (lambda: cw.OneCycle(max_lr=1, total_steps=10, final_div_factor=1e-320),
     "final_div_factor must leave a last rate of at most 1e+300, got 1e-320 with a first rate of 0.04; "
     "1e4 ends at a ten-thousandth of it"),
    (lambda: cw.OneCycle(max_lr=1.7e308, total_steps=10), "max_lr must be at most 1e+300, got 1.7e+308; "
     "cyclewise.lr_find gives one"),
    (lambda: cw.Linear(start_lr=1e301, end_lr=0, total_steps=10),
     "start_lr must be at most 1e+300, got 1e+301; cyclewise.lr_find gives one"),
    (lambda: cw.Exponential(start_lr=5e-324, end_lr=1e10, total_steps=10),
     "end_lr must be within a factor of 1e300 of start_lr=5e-324, got 10000000000.0; bring them closer together"),
    (lambda: cw.Exponential(start_lr=1e200, end_lr=1e-200, total_steps=10),
     "end_lr must be within a factor of 1e300 of start_lr=1e+200, got 1e-200; bring them closer together"),
    (lambda: Rescaled(original=cw.Constant(lr=1e200, total_steps=3), factor=1e200, at_step=0),
     "factor must leave rates of at most 1e+300, got 1e+200 for a highest rate of 1e+200; 0.5 halves the rates"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CASES)
def test_rates_that_overflow_are_refused(call, message):
    with pytest.raises(cw.PolicyError) as caught:
        call()
    assert str(caught.value) == message


numbers = st.floats(0, allow_nan=False)
few = st.integers(1, 20)
EVERY_KIND = [
    st.builds(
        dict, kind=st.sampled_from([cw.OneCycle, cw.ThreePhaseOneCycle]), max_lr=numbers, div_factor=numbers,
        final_div_factor=numbers, total_steps=few, anneal=st.sampled_from(["cosine", "linear"]),
    ),
    st.builds(dict, kind=st.sampled_from([cw.Linear, cw.Exponential]), start_lr=numbers, end_lr=numbers,
              total_steps=few),
    st.builds(dict, kind=st.sampled_from([cw.Cosine, cw.FlatCosine]), max_lr=numbers, min_lr=numbers, total_steps=few),
    st.builds(dict, kind=st.just(cw.Polynomial), max_lr=numbers, min_lr=numbers, power=numbers, total_steps=few),
    st.builds(dict, kind=st.just(cw.SGDR), max_lr=numbers, T_0=few, num_cycles=few, T_mult=st.floats(1, 1.5),
              peak_decay=st.floats(0, 1)),
    st.builds(dict, kind=st.just(cw.MultiStep), max_lr=numbers, milestones=st.just((1, 2)), gamma=st.floats(0, 1),
              total_steps=few),
    st.builds(dict, kind=st.just(cw.Cyclical), base_lr=numbers, max_lr=numbers, step_size_up=few,
              mode=st.sampled_from(["triangular", "triangular2", "exp_range"]), gamma=st.floats(0, 1), total_steps=few),
    st.builds(dict, kind=st.just(cw.InverseSqrt), max_lr=numbers, warmup_steps=few, total_steps=few),
]  # fmt: skip


@given(st.one_of(EVERY_KIND), numbers)
def test_whatever_is_not_refused_is_finite(arguments, factor):
    kind = arguments.pop("kind")
    try:
        policy = kind(**arguments)
        policy = Rescaled(original=policy, factor=factor, at_step=1)
    except cw.PolicyError:
        return
    for read in (policy, policy.extend(total_steps=30, at_step=2)):
        lr = read.lr(range(25))
        assert np.isfinite(lr).all()
        assert (lr >= 0).all()
        assert lr.tolist() == [read.lr(step) for step in range(25)]
