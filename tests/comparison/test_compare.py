import itertools
import json
import math
import random
from itertools import pairwise

import numpy as np
import pytest
import torch

import cyclewise as cw
from cyclewise.comparison.rows import Missing, Question, make_rows
from cyclewise.comparison.runs import Run
from cyclewise.comparison.tuning import Tuned
from cyclewise.report import write_html
from cyclewise.training.history import Epoch, History
from tests.comparison.tasks import TWO, constant, local, make_learner, raises


def made(values, *, baseline="a", seeds=None, target=None, metric="accuracy"):
    """Rows from final values: name -> one per seed, None for a run that diverged."""
    seeds = seeds or tuple(range(len(next(iter(values.values())))))

    def run(seed, value):
        if value is None:
            return Run(seed, error="the training loss is nan", num_steps=3)
        epochs = (Epoch(10, 1.0, 0.9, {"accuracy": value / 2}, 2.0), Epoch(20, 0.5, 0.4, {"accuracy": value}, 3.0))
        return Run(seed, History(epochs=epochs), num_steps=20, seconds=5.0)

    runs = {name: [run(s, v) for s, v in zip(seeds, own, strict=True)] for name, own in values.items()}
    question = Question(metric, "loss" in metric, baseline, seeds, target)
    rows = make_rows(question, runs, {name: Tuned(constant(0.1, 20), 0.1) for name in values})
    return {row.name: row for row in rows}


# -- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_holds_the_paired_difference():
    rows = made({"a": [0.5, 0.6, 0.8, 0.7, 0.65, 0.6], "b": [0.52, 0.63, 0.84, 0.75, 0.71, 0.67]})
    differences = [0.02, 0.03, 0.04, 0.05, 0.06, 0.07]
    b = rows["b"]
    assert b.mean == pytest.approx(np.mean([0.52, 0.63, 0.84, 0.75, 0.71, 0.67]))
    assert b.std_error == pytest.approx(np.std(b.values, ddof=1) / math.sqrt(6))
    assert b.difference == pytest.approx(np.mean(differences))
    assert b.p_value == b.p_value_uncorrected == 2 / 2**6
    half = 2.5705818 * np.std(differences, ddof=1) / math.sqrt(6)
    assert b.interval == pytest.approx((0.045 - half, 0.045 + half), abs=1e-7)
    assert b.verdict == "better than a: accuracy +0.045 [+0.0254, +0.0646], p = 0.031"
    a = rows["a"]
    assert (a.difference, a.p_value, a.interval, a.verdict) == (0.0, None, None, "the baseline")
    assert a.unavailable["p_value"] is Missing.BASELINE


def test_the_direction_of_the_metric_decides_the_word():
    values = {"a": [0.5] * 6, "b": [0.6, 0.61, 0.62, 0.63, 0.64, 0.65]}
    assert made(values)["b"].verdict.startswith("better than a: accuracy +0.125")
    losses = {name: [value] * 6 for name, value in (("a", 0.4), ("b", 0.4))}
    assert made(losses, metric="loss")["b"].verdict == "no difference shown: loss +0 [+0, +0], p = 1"


def test_p_values_are_corrected_for_the_number_of_policies():
    rows = made({"a": [0.0] * 8, "b": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7], "c": [1.0] * 8, "d": [1.0, -1.0] * 4})
    assert rows["b"].p_value_uncorrected == 2 / 2**8
    assert rows["b"].p_value == 3 * 2 / 2**8
    assert rows["d"].p_value == 1.0


def test_differences_that_float32_alone_tells_apart_are_ties():
    # Accuracies on 5,000 images, as a float32 mean has them; on every seed the policies are 38 images apart.
    right = {"a": [4254, 4248, 4241, 4377, 4243, 4245, 4225], "b": [4216, 4286, 4279, 4415, 4281, 4207, 4263]}
    whole = {name: [count / 5000 for count in counts] for name, counts in right.items()}
    single = {name: [float(np.float32(value)) for value in values] for name, values in whole.items()}
    differences = [ours - theirs for ours, theirs in zip(right["b"], right["a"], strict=True)]
    flips = list(itertools.product((1, -1), repeat=7))
    reached = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in flips]
    expected = sum(total >= abs(sum(differences)) for total in reached) / len(flips)
    assert expected == 58 / 128
    assert made(single)["b"].p_value == made(whole)["b"].p_value == expected


def test_a_policy_that_has_no_answer_still_counts_in_the_correction():
    rows = made({"a": [0.0] * 8, "b": [1.0] * 8, "c": [1.0] * 7 + [None]})
    assert rows["b"].p_value == 2 * 2 / 2**8


def test_five_seeds_say_how_many_a_verdict_needs():
    rows = made({"a": [0.0] * 5, "b": [1.0, 1.1, 1.2, 1.3, 1.4], "c": [2.0] * 5, "d": [3.0] * 5})
    assert rows["b"].p_value == 3 * 0.0625
    assert rows["b"].verdict == (
        "no verdict: accuracy +1.2 [+1, +1.4], p = 0.19; 5 seeds cannot give a two-sided p below 0.0625; "
        "a verdict at 5 % needs at least 6 seeds (7 with the correction for 3 policies)"
    )


def test_a_policy_that_diverges_is_a_row_that_says_so():
    rows = made({"a": [0.5] * 6, "b": [0.6, None, 0.6, None, 0.6, 0.6]})
    b = rows["b"]
    assert (b.mean, b.std_error, b.difference, b.p_value, b.interval) == (None,) * 5
    assert {b.unavailable[name] for name in ("mean", "difference", "p_value")} == {Missing.DIVERGED}
    assert (b.num_diverged, b.values[1], b.verdict) == (2, None, "2 of 6 runs diverged")
    rows = made({"a": [0.5, None], "b": [0.6, 0.6]})
    assert rows["b"].mean == 0.6
    assert rows["b"].unavailable["difference"] is Missing.BASELINE_DIVERGED
    assert rows["b"].verdict == "not compared: a run of the baseline diverged"
    assert rows["a"].difference == 0.0


def test_one_seed_shows_no_spread():
    b = made({"a": [0.5], "b": [0.75]})["b"]
    assert (b.mean, b.difference, b.p_value, b.std_error, b.interval) == (0.75, 0.25, 1.0, None, None)
    assert b.unavailable["interval"] is b.unavailable["std_error"] is Missing.ONE_SEED


def test_steps_and_seconds_to_a_target():
    rows = made({"a": [0.5, 0.9], "b": [0.9, 1.0], "c": [0.8, 0.2]}, target=0.45)
    assert (rows["b"].steps_to_target, rows["b"].seconds_to_target) == (10.0, 2.0)
    assert (rows["a"].steps_to_target, rows["a"].seconds_to_target) == (15.0, 3.5)
    assert rows["c"].steps_to_target is None
    assert rows["c"].num_reached == 1
    assert rows["c"].unavailable["steps_to_target"] is Missing.NOT_REACHED
    assert made({"a": [0.5]})["a"].unavailable["steps_to_target"] is Missing.NO_TARGET


# -- real runs in this process ----------------------------------------------------------------------------------------


def test_every_policy_gets_the_same_seeds_and_data():
    c = local({**TWO, "again": constant(0.001)})
    assert c.is_paired
    assert [row.name for row in c.rows] == ["low", "high", "again"]
    starts = [[run.start for run in row.runs] for row in c.rows]
    assert starts[0] == starts[1] == starts[2]
    assert len(set(starts[0])) == 3
    assert c.row("again").values == c.row("low").values
    assert c.row("high").values != c.row("low").values


def test_a_run_is_what_its_learner_would_have_done():
    c = local(metric="accuracy", lower_is_better=True)
    random.seed(0), np.random.seed(0), torch.manual_seed(1)
    learn = make_learner(1)
    learn.fit(TWO["high"])
    assert c.row("high").values[1] == learn.evaluate()["accuracy"]
    assert c.question.lower_is_better
    assert local(metric="valid_loss").row("high").values[1] == learn.evaluate()["loss"]


def test_learners_that_ignore_their_seed_are_told_apart():
    calls = []

    def unseeded(seed):
        calls.append(seed)
        torch.manual_seed(len(calls))
        return make_learner(seed)

    with pytest.warns(UserWarning, match="make_learner must give the same weights and batches to all runs of a seed"):
        c = local(make=unseeded)
    assert not c.is_paired
    assert "did not begin with the same weights" in c.section().conclusion


def test_nothing_changes_here():
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    local(tune="lr_find")
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


def test_a_rate_far_too_high_diverges_in_its_row_alone():
    c = local({**TWO, "wild": constant(1e30)})
    assert c.row("wild").num_diverged == 3
    assert c.row("wild").mean is None
    assert "the training loss is" in c.row("wild").runs[0].error
    assert c.row("high").difference is not None


# -- the record -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def comparison():
    return local({**TWO, "wild": constant(1e30)}, metric="accuracy", seeds=range(6), target=0.6)


def test_it_is_one_line_and_comes_back_equal(comparison):
    text = json.dumps(comparison.to_dict(), allow_nan=False)
    assert cw.Comparison.from_dict(json.loads(text)) == comparison
    assert hash(comparison) == hash(cw.Comparison.from_dict(json.loads(text)))
    assert "\n" not in str(comparison)
    assert str(comparison).startswith(f"accuracy over 6 seeds: low {comparison.row('low').mean:.4g} ± ")
    assert str(comparison).endswith("wild 6 of 6 runs diverged")
    with raises(cw.ArgumentError, "name must be a policy of this comparison, got 'x'; it has 'low', 'high', 'wild'"):
        comparison.row("x")
    with pytest.raises(AttributeError):
        comparison.rows = ()


def test_its_page_names_whose_runs_diverged():
    c = local({"wild": constant(1e30), "low": constant(0.001)}, baseline="wild", seeds=[0])
    assert c.section().conclusion.startswith("Over 1 seed, wild: 1 of 1 runs diverged. ")
    assert ". low: not compared: a run of the baseline diverged." in c.section().conclusion


def test_its_page_begins_with_the_verdicts(comparison, tmp_path):
    section = comparison.section()
    assert section.conclusion.startswith("Over 6 seeds, low has accuracy ")
    assert "wild: 6 of 6 runs diverged" in section.conclusion
    titles = [chart.title for chart in section.charts]
    assert titles[0] == "Difference to low"
    assert titles[1:3] == ["low: accuracy (validation)", "high: accuracy (validation)"]
    assert {"low: validation loss", "high: validation loss"} <= set(titles)
    assert section.tables[0].rows[0][3] == "0"
    assert "6 of 6 runs diverged" in section.tables[0].rows[2]
    page = write_html(comparison, tmp_path / "report.html").read_text()
    assert "Comparison of policies" in page
    assert "<svg" in comparison._repr_html_()
    assert len(comparison.plot().axes) == len(section.charts)


def test_small_pictures_share_their_range(comparison):
    charts = [chart for chart in comparison.section().charts if chart.title.endswith("accuracy (validation)")]
    assert all(first.y_limits == second.y_limits for first, second in pairwise(charts))
    lowest, highest, mean = charts[0].lines
    row = comparison.row("low")
    assert (lowest.y[-1], highest.y[-1]) == (min(row.values), max(row.values))
    assert mean.y[-1] == pytest.approx(row.mean)
    assert list(mean.x) == [4, 8, 12]
    assert [line.name for line in charts[1].lines] == ["lowest seed", "highest seed", "low, mean", "high, mean"]


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"baseline": "x"},
            cw.ArgumentError,
            "baseline must be the name of one of the policies, got 'x'; there are 'low', 'high'",
        ),
        (
            {"metric": "f1"},
            cw.ArgumentError,
            "metric must be a name in evaluate(), got 'f1'; the Learner has 'loss', 'accuracy', "
            "more come with Learner(metrics=...)",
        ),
        (
            {"seeds": [1, 1]},
            cw.ArgumentError,
            "seeds must be different whole numbers, at least one, got [1, 1]; pass range(8)",
        ),
        ({"seeds": 3}, cw.ArgumentTypeError, "seeds must be a list of whole numbers, got int 3; pass range(8)"),
        (
            {"tuning_seeds": [2, 9]},
            cw.ArgumentError,
            "tuning_seeds must be others than seeds, got [2] in both; a rate that was picked on the runs that are "
            "compared is favoured by them",
        ),
        (
            {"tune": "grid"},
            cw.ArgumentError,
            "tune must be \"lr_find\", a list of rates or None, got 'grid'; pass for example [0.03, 0.1, 0.3]",
        ),
        ({"tune": []}, cw.ArgumentError,
         "tune must hold at least one rate, got an empty list; leave it out to tune nothing"),
        ({"workers": 0}, cw.ArgumentError,
         "workers must be a whole number of at least 1, got 0; leave it out for one per core"),
        (
            {"make": 3},
            cw.ArgumentTypeError,
            "make_learner must be a function seed -> Learner, got int 3; "
            "pass the function itself, which makes a new Learner for each run",
        ),
        (
            {"make": lambda seed: 3},
            cw.ArgumentTypeError,
            "make_learner must return a cyclewise.Learner, got int 3; end it with `return Learner(model, data)`",
        ),
        ({"policies": {}}, cw.ArgumentError,
         "policies must hold at least one policy, got an empty dict; name the baseline and others"),
        (
            {"policies": {"low": 0.1}},
            cw.ArgumentTypeError,
            "policies['low'] must be a policy, got float 0.1; pass for example cw.OneCycle(...)",
        ),
        (
            {"policies": {"low": constant(0.0)}, "tune": [0.1]},
            cw.ArgumentError,
            "policies must have a rate above 0 to be tuned, got Constant(lr=0.0, total_steps=12); leave out tune",
        ),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_with_the_way_out(options, kind, message):
    with raises(kind, message):
        local(**options)


def test_a_learner_that_was_trained_already_is_refused():
    learn = make_learner(0)
    message = (
        "make_learner must return an untrained Learner, got one with 12 steps behind it; "
        "make model, data and optimizer inside the function"
    )
    with raises(cw.ArgumentError, message):
        local(make=lambda seed: learn, seeds=[0])


def test_a_learner_without_validation_data_is_refused():
    def blind(seed):
        return cw.Learner(torch.nn.Linear(4, 2), [(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))])

    with pytest.raises(cw.ArgumentError, match="data must have a valid_loader to evaluate on"):
        local(make=blind)


def test_the_users_exception_is_the_same_object_with_a_note():
    error = LookupError("no such data")

    def broken(seed):
        if seed == 1:
            raise error
        return make_learner(seed)

    with pytest.raises(LookupError) as caught:
        local(make=broken)
    assert caught.value is error
    if hasattr(error, "__notes__"):
        assert error.__notes__[0].startswith("low, seed 1; in the worker:\nTraceback")
