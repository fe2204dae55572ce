import json
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclewise import PolicyError
from cyclewise.policies.plateau import CycleOnPlateau, PlateauState

RULE = CycleOnPlateau(base_lr=0.1, max_lr=0.5, cycle_steps=10, patience=5, smoothing=0.0, decay=0.5)


def rates(rule, losses):
    state, seen = rule.initial_state(), []
    for loss in losses:
        state, lr = rule.next(state, loss)
        seen.append(lr)
    return seen, state


def test_an_improving_loss_holds_the_rate():
    seen, state = rates(RULE, [0.9**step for step in range(100)])
    assert set(seen) == {0.1}
    assert state.num_cycles == 0


def test_a_stuck_loss_cycles_and_comes_back_lower():
    seen, state = rates(RULE, [1.0] * 30)
    # The first loss is the best so far; five more without improvement begin the cycle.
    assert set(seen[:5]) == {0.1}
    assert seen[5:10] == pytest.approx([0.18, 0.26, 0.34, 0.42, 0.5])
    assert seen[10:15] == pytest.approx([0.41, 0.32, 0.23, 0.14, 0.05])
    assert set(seen[15:19]) == {0.05}
    assert state.num_cycles == 2


def test_small_improvements_do_not_count():
    rule = CycleOnPlateau(base_lr=0.1, max_lr=0.5, cycle_steps=4, patience=5, threshold=0.1, smoothing=0.0)
    assert rates(rule, [0.999**step for step in range(50)])[1].num_cycles > 0
    assert rates(rule, [0.8**step for step in range(50)])[1].num_cycles == 0


def test_negative_losses_improve_downwards():
    assert set(rates(RULE, [-1.0 - 0.1 * step for step in range(50)])[0]) == {0.1}


def test_a_loss_that_is_not_finite_counts_as_no_improvement_and_is_forgotten():
    state, _ = RULE.next(RULE.next(RULE.initial_state(), 1.0)[0], float("nan"))
    assert (state.smoothed, state.stale_steps) == (1.0, 1)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=200), st.integers(0, 199))
def test_it_resumes_anywhere_and_stays_within_its_bounds(losses, at):
    rule = CycleOnPlateau(base_lr=0.01, max_lr=0.5, cycle_steps=7, patience=3, decay=0.9)
    whole, _ = rates(rule, losses)
    _, state = rates(rule, losses[:at])
    state = PlateauState(*json.loads(json.dumps(state)))
    rest = []
    for loss in losses[at:]:
        state, lr = rule.next(state, loss)
        rest.append(lr)
    assert rest == whole[at:]
    assert all(0 < lr <= 0.5 for lr in whole)


def test_it_is_a_value():
    assert pickle.loads(pickle.dumps(RULE)) == RULE
    assert hash(RULE) == hash(
        CycleOnPlateau(**{k: v for k, v in RULE.to_dict().items() if k not in ("rule", "version")})
    )
    assert eval(repr(RULE)) == RULE
    json.dumps(RULE.to_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_lr": 0.05}, "max_lr must be above base_lr=0.1, got 0.05; swap them"),
        ({"cycle_steps": 1}, "cycle_steps must be a whole number of at least 2, got 1; a cycle goes up and down"),
        ({"patience": 0}, "patience must be a whole number of at least 1, got 0; it counts steps; "
                          "an epoch's worth is usual"),
        ({"smoothing": 1.0}, "smoothing must be below 1, got 1.0; 0.95 averages some 20 steps"),
        ({"decay": 0.0}, "decay must be above 0, got 0.0; 1 holds the same rate after each cycle"),
        ({"threshold": 5}, "threshold must be a fraction in [0, 1], got 5; for 5 % pass 0.05"),
    ],
)  # fmt: skip
def test_impossible_values_are_refused(changes, message):
    arguments = {"base_lr": 0.1, "max_lr": 0.5, "cycle_steps": 10, "patience": 5, **changes}
    with pytest.raises(PolicyError, match=re.escape(message)):
        CycleOnPlateau(**arguments)
