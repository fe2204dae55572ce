"""Two equal calls give equal records: how long they took is no part of what they found."""

import torch

import cyclewise as cw
from cyclewise.comparison.rows import Question, Row
from cyclewise.comparison.runs import Run
from cyclewise.comparison.tuning import Tuned
from cyclewise.engines.outcome import Outcome
from cyclewise.experiments.experiment import Experiment
from cyclewise.training.history import Epoch, History
from tests.comparison.tasks import TWO, make_learner


def history(seconds, loss=1.0):
    return History(lr=[0.1], momentum=[0.9], loss=[loss], epochs=(Epoch(1, loss, 0.9, {"accuracy": 0.5}, seconds),))


def run(seconds, loss=1.0):
    return Run(0, history(seconds, loss), num_steps=1, seconds=seconds)


def row(seconds, loss=1.0):
    return Row("a", mean=loss, seconds=seconds, seconds_to_target=seconds, tuning_seconds=seconds,
               runs=(run(seconds, loss),))  # fmt: skip


def test_two_equal_comparisons_are_equal():
    first, second = (
        cw.compare(TWO, make_learner, seeds=range(2), metric="accuracy", baseline="low", engine="local", target=0.5)
        for _ in range(2)
    )
    assert first.rows[0].seconds != second.rows[0].seconds
    assert first == second
    assert hash(first) == hash(second)


def test_two_equal_fits_have_equal_histories():
    histories = []
    for _ in range(2):
        torch.manual_seed(3)
        histories.append(make_learner(3).fit(cw.Constant(lr=0.1, total_steps=8)))
    first, second = histories
    assert [epoch.seconds for epoch in first.epochs] != [epoch.seconds for epoch in second.epochs]
    assert first == second
    assert first.epochs == second.epochs


def test_records_differ_by_what_was_found_alone():
    question = Question("accuracy", False, "a", (0,))
    for make in (
        history,
        run,
        row,
        lambda *given: cw.Comparison((row(*given),), question),
        lambda *given: Experiment(9, {"setting": (run(*given),)}, (0,)),
        lambda seconds, loss=1.0: Tuned(None, loss, seconds=seconds),
        lambda seconds, loss=1.0: Outcome("key", loss, seconds=seconds),
        lambda seconds, loss=1.0: Epoch(1, loss, seconds=seconds),
    ):
        assert make(1.0) == make(2.0)
        assert make(1.0) != make(1.0, 2.0)


def test_a_diverged_history_that_was_read_back_is_equal():
    diverged = history(1.0, float("nan"))
    assert History.from_dict(diverged.to_dict()) == diverged


def test_times_are_still_written():
    assert history(1.5).epochs[0].seconds == 1.5
    assert history(1.5).to_dict()["epochs"][0]["seconds"] == 1.5
    assert Row.from_dict(row(1.5).to_dict()).tuning_seconds == 1.5
