import json
import math

import numpy as np
import pytest

from cyclewise.experiments import claims
from cyclewise.experiments.claims import Claim
from cyclewise.training import History
from cyclewise.training.history import Epoch


def history(valid, *, train=None, accuracy=0.9, seconds=1.0):
    """A run of one step per epoch with these validation losses."""
    train = valid if train is None else train
    rows = zip(range(1, 999), valid, train, strict=False)
    return History(epochs=tuple(Epoch(i, t, v, {"accuracy": accuracy}, seconds) for i, v, t in rows))


def shaped(middle_noise, end):
    """Ninety epochs: a start at 1, a noisy level of 0.5 in the middle, then down to `end`."""
    noise = np.where(np.arange(30) % 2, 1 + middle_noise, 1 - middle_noise)
    return history([*np.linspace(1, 0.5, 30), *(0.5 * noise), *np.linspace(0.5, end, 21), *[end] * 9])


@pytest.mark.parametrize(("noise", "seen"), [(0.2, True), (0.03, True), (0.02, False), (0.0, False)])
def test_instability_is_the_change_from_epoch_to_epoch(noise, seen):
    claim = claims.unstable_in_the_middle("a", [shaped(noise, 0.3)])
    assert claim.seen is seen
    assert claim.outcome == ("seen" if seen else "not seen")


def test_a_loss_that_is_as_rough_at_the_end_is_not_unstable_in_the_middle():
    rough = history([1.0, 0.8] * 45)
    claim = claims.unstable_in_the_middle("a", [rough])
    assert claim.seen is False
    assert claim.numbers.endswith(" 22.5 % at the end")


@pytest.mark.parametrize(("end", "seen"), [(0.44, True), (0.46, False), (0.7, False)])
def test_the_fall_at_the_end(end, seen):
    claim = claims.falls_at_the_end("a", [shaped(0.0, end)])
    assert (claim.seen, claim.numbers) == (seen, f"0.5000 in the middle, {end:.4f} at the end")


@pytest.mark.parametrize(("train", "seen"), [(0.31, True), (0.29, False), (0.49, True), (0.51, False)])
def test_the_gap_has_two_sides(train, seen):
    claim = claims.small_gap("a", [history([1.0, 0.4], train=[1.0, train])])
    assert (claim.seen, claim.numbers) == (seen, f"training {train:.4f}, validation 0.4000")


def with_end(accuracy=0.9, loss=0.5, seconds=1.0):
    return [history([1.0, loss], accuracy=accuracy, seconds=seconds)]


@pytest.mark.parametrize(
    ("judge", "seen", "not_seen"),
    [
        (claims.higher_and_shorter, with_end(0.896), with_end(0.894)),
        (claims.near_in_accuracy, with_end(0.904), with_end(0.906)),
        (claims.near_in_accuracy, with_end(0.896), with_end(0.894)),
        (claims.longer_for_the_loss, with_end(loss=0.47), with_end(loss=0.48)),
        (claims.larger_loss, with_end(loss=0.506), with_end(loss=0.504)),
        (claims.less_time, with_end(seconds=0.97), with_end(seconds=0.99)),
    ],
)
def test_claims_about_two_settings_have_a_threshold(judge, seen, not_seen):
    assert judge("a against b", seen, with_end()).seen is True
    assert judge("a against b", not_seen, with_end()).seen is False


def test_lowering_the_momentum_is_held_against_the_best_of_the_others():
    others = [with_end(0.88), with_end(0.91)]
    assert claims.lowering_helps("a", with_end(0.92), others).seen is True
    claim = claims.lowering_helps("a", with_end(0.9), others)
    assert (claim.seen, claim.numbers) == (False, "90.00 % against 91.00 % at best")


def test_seeds_are_averaged():
    low, high = with_end(0.7)[0], with_end(1.1)[0]
    assert claims.near_in_accuracy("a", [low, high], with_end(0.9)).seen is True
    assert claims.near_in_accuracy("a", [low, low], with_end(0.9)).seen is False


def test_nothing_is_said_of_a_run_that_diverged():
    good = [shaped(0.2, 0.3)]
    for judge in (claims.unstable_in_the_middle, claims.falls_at_the_end, claims.small_gap):
        assert judge("a", [*good, None]).seen is None
    for judge in (claims.higher_and_shorter, claims.near_in_accuracy, claims.larger_loss, claims.less_time):
        assert judge("a", [None], good).seen is None
        assert judge("a", good, [None]).outcome == "diverged"
    assert claims.lowering_helps("a", good, [good, [None]]).seen is None


def test_a_loss_that_is_not_finite_at_the_end_is_not_seen_to_fall():
    claim = claims.falls_at_the_end("a", [history([1.0] * 10 + [math.nan])])
    assert claim.seen is False


def test_claims_go_to_json_and_come_back():
    claim = claims.small_gap("a", with_end())
    assert Claim.from_dict(json.loads(json.dumps(claim.to_dict()))) == claim
    assert claim.criterion == "the two differ by at most a quarter of the validation loss"
