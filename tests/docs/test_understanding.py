"""The article's pictures are drawn anew, show what the page says, and their captions hold the numbers of the runs."""

import re

import numpy as np
import pytest

from docs.pictures import cliff, conditioning, cycles, descent, one_cycle, powers, restarts, saddle, swarm, sweep
from docs.understanding import PAGE, PICTURES, TOPICS, caption_of, charts_of, figure_of, with_caption, written_captions

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def four_rates_are_too_low_good_high_and_far_too_high():
    low, good, high, highest = (descent.losses(rate) for rate in descent.RATES.values())
    assert good[-1] < 0.2 < 1.0 < low[-1] < low[0]
    # Where the high rate ends is chance; that it stays above half is not.
    assert good[-1] < 0.5 < min(high)
    assert high[0] < highest[-1]
    assert all(np.diff(low) < 0)
    # The page says that the high rate never gets below the good one.
    assert all(np.array(high[1:]) > np.array(good[1:]))


def test_a_rate_above_two_climbs_the_parabola():
    assert [abs(descent.weights(rate)[-1]) < 2.0 for rate in (0.1, 1.8, 2.1)] == [True, True, False]


def the_suggestion_lies_left_of_the_lowest_point():
    result = sweep.found()
    assert result.refusal is None
    assert result.max_lr < result.reading("minimum")


def the_raised_rate_leaves_the_saddle_first_and_both_end_in_a_minimum():
    assert 3 * saddle.steps_to_leave("cycle") < saddle.steps_to_leave("constant")
    assert saddle.heights("cycle")[-1] == pytest.approx(-0.25, abs=1e-3)
    assert saddle.heights("constant")[-1] == pytest.approx(-0.25, abs=1e-3)


def triangular2_halves_the_amplitude_of_every_cycle():
    assert cycles.peaks("triangular") == pytest.approx([0.09] * 4)
    assert cycles.peaks("triangular2") == pytest.approx([0.01 + 0.08 / 2**k for k in range(4)])
    assert cycles.peaks("exp_range") == pytest.approx([0.01 + 0.08 * 0.997**step for step in (100, 300, 500, 700)])


def restarts_raise_the_loss_and_the_run_ends_lowest():
    assert restarts.ends() == [90, 270, 630]
    for step in restarts.ends()[:2]:
        before, after = restarts.loss_around(step)
        assert after > before
        assert restarts.history().loss[-15:].mean() < before


def one_cycle_is_unsteady_while_the_rate_is_high():
    epoch, worst, valid, train = one_cycle.worst_and_last()
    assert 3 <= epoch <= 12
    assert worst > 1.5 * valid
    assert valid > 10 * train  # not close together, as the page says
    momentum = one_cycle.history().momentum
    assert momentum.max() == pytest.approx(0.95)
    assert momentum[one_cycle.history().lr.argmax()] == pytest.approx(0.85)


def the_two_equations_have_the_two_solutions():
    for entry, numbers in ((400.0, (-100.0, -200.0)), (401.0, (40_000.0, 79_800.0))):
        np.testing.assert_allclose(conditioning.solution(entry), numbers)
        np.testing.assert_allclose(conditioning.matrix(entry) @ numbers, conditioning.RIGHT)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0, 1.2])
def test_the_terms_of_a_step_are_those_of_the_loss(share):
    def loss(x):
        return (x[0] ** 2 + 100.0 * x[1] ** 2) / 2

    change = loss(np.ones(2) - share * 0.02 * np.array([1.0, 100.0])) - loss(np.ones(2))
    assert conditioning.step_terms(share)[2] == pytest.approx(change, abs=1e-9)
    if share > 1.0:
        assert change > 0


def the_cliff_throws_the_free_step_and_not_the_clipped_one():
    (weights, losses), (free, _) = cliff.descend(cliff.MAX_NORM), cliff.descend(None, num_steps=3)
    assert free[1] < -10.0
    assert all(0.5 < weight <= cliff.START for weight in weights)
    assert losses[15] < losses[0] / 1_000


def powers_explode_and_vanish():
    high, same, low = (powers.lengths(radius)[-1] for radius in powers.RADII)
    assert high > 1_000 > 10 > same > 0.1 > 1e-3 > low
    assert high / 1.1**100 == pytest.approx(low / 0.9**100)  # the same random matrix, scaled


def the_swarm_gets_out_of_the_valley_that_descent_rests_in():
    points, losses = swarm.descent()
    result = swarm.search("PSO")
    assert result.num_evaluations == swarm.BUDGET == len(losses)
    assert losses[0] > losses[-1] > 4 * result.best_loss
    np.testing.assert_allclose(points[-1], (3.0, -3.0), atol=0.05)  # the valley next to the start
    assert swarm.value(result.apply_to(swarm.Pair())) == pytest.approx(result.best_loss)
    # The lower picture's positions are those of the candidates.
    dots = swarm.charts()[1].lines[0]
    best = min(result.evaluations, key=lambda evaluation: evaluation.loss)
    assert (dots.x[best.index], dots.y[best.index]) == pytest.approx(swarm.found())


CHECKS = {
    "descent": four_rates_are_too_low_good_high_and_far_too_high,
    "sweep": the_suggestion_lies_left_of_the_lowest_point,
    "saddle": the_raised_rate_leaves_the_saddle_first_and_both_end_in_a_minimum,
    "cycles": triangular2_halves_the_amplitude_of_every_cycle,
    "restarts": restarts_raise_the_loss_and_the_run_ends_lowest,
    "one_cycle": one_cycle_is_unsteady_while_the_rate_is_high,
    "conditioning": the_two_equations_have_the_two_solutions,
    "cliff": the_cliff_throws_the_free_step_and_not_the_clipped_one,
    "powers": powers_explode_and_vanish,
    "swarm": the_swarm_gets_out_of_the_valley_that_descent_rests_in,
}


@pytest.mark.parametrize("topic", TOPICS)
def test_the_picture_shows_what_the_page_says(topic, tmp_path):
    """All about a topic in one test: its runs are made once in each process."""
    figure_of(topic).savefig(tmp_path / "picture.png", dpi=40)
    assert (tmp_path / "picture.png").stat().st_size > 2_000
    saved = PICTURES / f"{topic}.png"
    assert saved.read_bytes().startswith(b"\x89PNG")
    assert saved.stat().st_size < 100_000
    assert f"(pictures/understanding/{topic}.png)" in PAGE.read_text()
    assert all(np.isfinite(line.y).all() for chart in charts_of(topic) for line in chart.lines)
    CHECKS[topic]()

    # Real runs differ in their last digits from one processor to the next.
    written, computed = written_captions(PAGE.read_text())[topic], caption_of(topic)
    assert NUMBER.sub("#", written) == NUMBER.sub("#", computed), "run `make docs`"
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (written, computed)]
    np.testing.assert_allclose(*numbers, rtol=0.15, atol=2e-4, err_msg=computed)


def test_the_page_holds_one_caption_per_picture():
    assert list(written_captions(PAGE.read_text())) == list(TOPICS)
    assert "<!-- cliff -->\nnew\n<!-- /cliff -->" in with_caption(PAGE.read_text(), "cliff", "new")
