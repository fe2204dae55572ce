"""A metric's direction decides who is better, which rate of a grid is taken and when a target is reached."""

import pytest

import cyclewise as cw
from cyclewise.comparison.pictures import charts
from tests.comparison.tasks import local, make_learner

KNOWN = {
    True: ["loss", "valid_loss", "error", "error_rate", "err", "rmse", "MSE", "mae", "perplexity", "nll", "bpc", "WER"],
    False: ["accuracy", "val_acc", "F1", "roc_auc", "r2", "mIoU", "top-1", "log_likelihood", "neg_mean_squared_error"],
}


def error(outputs, targets):
    return 1.0 - cw.accuracy(outputs, targets)


def judged_by(name):
    def make(seed):
        learn = make_learner(seed)
        return cw.Learner(learn.model, learn.data, metrics={name: error, "accuracy": cw.accuracy})

    return make


def test_what_the_names_tell():
    assert {direction: [cw.training.direction.lower_is_better(name) for name in names]
            for direction, names in KNOWN.items()} == {
        direction: [direction] * len(names) for direction, names in KNOWN.items()
    }  # fmt: skip


@pytest.mark.parametrize("name", ["error", "rmse"])
def test_what_is_known_to_fall_is_judged_as_the_opposite_of_accuracy(name):
    options = {"seeds": range(6), "tune": [0.001, 0.3], "make": judged_by(name)}
    by_error, by_accuracy = (local(metric=metric, **options) for metric in (name, "accuracy"))
    assert by_error.question.lower_is_better
    assert [row.tuned_lr for row in by_error.rows] == [row.tuned_lr for row in by_accuracy.rows]
    assert f"low has {name} " in by_error.section().conclusion
    assert "(lower is better). " in by_error.section().conclusion
    assert "(higher is better). " in by_accuracy.section().conclusion


def test_the_pictures_show_the_better_values_of_it():
    c = local(metric="error", make=judged_by("error"), seeds=range(6))
    values = sorted(value for row in c.rows for run in row.runs for value in run.scores("error")[1])
    (chart, *_) = [chart for chart in charts(c) if chart.title == "low: error (validation)"]
    margin = 0.05 * (values[-1 - len(values) // 10] - values[0])
    assert chart.y_limits == pytest.approx((values[0] - margin, values[-1 - len(values) // 10] + margin))


def test_a_name_that_tells_nothing_is_assumed_to_rise_and_that_is_said():
    message = (
        "metric must have a known direction, got 'gap', whose name tells none, so higher is taken to be better; "
        "pass lower_is_better=True or lower_is_better=False"
    )
    with pytest.warns(UserWarning, match=f"^{message}$"):
        c = local(metric="gap", make=judged_by("gap"))
    assert not c.question.lower_is_better
    assert "to rise was assumed" in c.section().conclusion
    assert cw.Comparison.from_dict(c.to_dict()) == c
    told = local(metric="gap", make=judged_by("gap"), lower_is_better=True)
    assert told.question.lower_is_better
    assert "assumed" not in told.section().conclusion
