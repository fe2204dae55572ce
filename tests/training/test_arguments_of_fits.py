"""What the calls in epochs refuse, by the names of their own arguments."""

import numpy as np
import pytest
import torch

import cyclewise as cw
from tests.training.small_learner import make_learner

PAIR = "pass (momentum at the ends, momentum at the peak), for example (0.95, 0.85)"
CASES = [
    (lambda learn: learn.fit_one_cycle(1e300, 0.1),
     "cyc_len must leave at most 2**53 steps, got 1e+300 epochs of 5; it counts epochs, for example 5"),
    (lambda learn: learn.fit_sgdr(T_0=1e308, num_cycles=1, max_lr=0.1),
     "T_0 must leave at most 2**53 steps, got 1e+308 epochs of 5; it counts epochs, for example 5"),
    (lambda learn: learn.fit_cyclical(cyc_len=2, num_cycles=10**400, max_lr=0.1),
     "num_cycles must leave at most 2**53 steps in all, got an int of 1329 bits of 10 each; ask for fewer"),
    (lambda learn: learn.fit_one_cycle(1, 0.1, moms=(0.95, 1.0)),
     "moms must lie in [0, 1), got (0.95, 1.0); 0.85 to 0.95 is usual"),
    (lambda learn: learn.fit_one_cycle(1, 0.1, moms=(-0.5, 0.85)),
     "moms must lie in [0, 1), got (-0.5, 0.85); 0.85 to 0.95 is usual"),
    (lambda learn: learn.fit_cyclical(cyc_len=1, num_cycles=2, max_lr=0.1, moms=(0.95, None)),
     f"moms must be two numbers, got (0.95, None); {PAIR}"),
    (lambda learn: learn.fit_one_cycle(1, 0.1, moms=(0.95, float("nan"))),
     f"moms must be two numbers, got (0.95, nan); {PAIR}"),
    (lambda learn: learn.fit_one_cycle(1, 0.1, moms=("0.95", True)),
     f"moms must be two numbers, got ('0.95', True); {PAIR}"),
    (lambda learn: learn.fit_one_cycle(1, 0.1, moms=0.9), f"moms must be two numbers, got 0.9; {PAIR}"),
]  # fmt: skip


@pytest.mark.parametrize("rate", [torch.tensor(0.125), np.array(0.125), np.float32(0.125), torch.tensor([0.125])])
def test_a_peak_may_be_a_number_of_any_kind(rate):
    history, expected = (make_learner().fit_one_cycle(1, one) for one in (rate, 0.125))
    assert history.lr.tolist() == expected.lr.tolist()


def test_two_momenta_of_none_leave_the_momentum_alone():
    history, expected = (make_learner().fit_one_cycle(1, 0.1, moms=moms) for moms in ((None, None), None))
    np.testing.assert_array_equal(history.momentum, expected.momentum)


@pytest.mark.parametrize(("call", "message"), CASES)
def test_impossible_values_are_refused_by_the_argument_that_was_given(call, message):
    with pytest.raises(cw.ArgumentError) as caught:
        call(make_learner())
    assert str(caught.value) == message
