"""What a fit shows and leaves behind: callbacks, trackers, scores, predictions, history, pictures."""

import csv
import json
import math
import re
import sys

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.training import Epoch
from tests.training.small_learner import CONSTANT, arrays, grouped, make_learner, weights


def test_trackers_get_rates_and_scores(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    learn = make_learner(metrics={"accuracy": cw.accuracy})
    learn.fit_one_cycle(2, max_lr=0.1, callbacks=[cw.Track("tensorboard", directory=tmp_path, every_steps=2)])
    events = EventAccumulator(str(tmp_path / "cyclewise"))
    events.Reload()
    assert {"lr", "loss", "momentum", "train_loss", "valid_loss", "accuracy"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("lr")] == [0, 2, 4, 6, 8]
    assert events.Scalars("loss")[1].value == pytest.approx(learn.history.loss[2])
    with pytest.raises(
        cw.ArgumentError, match=r"^log_with must be one of aim, .*, got 'tensorbored'; pass one of them$"
    ):
        learn.fit(CONSTANT, callbacks=[cw.Track("tensorbored")])


def test_weight_averages_are_validated_and_left_in_the_model():
    learn = make_learner()
    trail = []

    class Trail(cw.Callback):
        def on_step_end(self, learner, step, loss):
            trail.append(weights(learner))

    start = weights(learn)
    learn.fit(cw.Constant(lr=0.1, total_steps=7), callbacks=[cw.WeightAverage(0.5), Trail()])
    average = start
    for step, now in enumerate(trail, 1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = [decay * a + (1 - decay) * w for a, w in zip(average, now, strict=True)]
    for a, b in zip(average, weights(learn), strict=True):
        torch.testing.assert_close(a, b)
    assert learn.history.epochs[-1].valid_loss == pytest.approx(learn.evaluate()["loss"])


def test_the_bar_of_a_fit_that_was_stopped_has_its_last_step(monkeypatch):
    moves = []
    monkeypatch.setattr("cyclewise.progress.Bar.is_shown", True)
    monkeypatch.setattr("cyclewise.progress.Bar.move_to", lambda bar, completed, note: moves.append((completed, note)))
    history = make_learner().fit(cw.Constant(lr=0.1, total_steps=500), callbacks=[cw.EarlyStopping(patience=1)])
    assert history.num_steps < 500
    assert moves[-1] == (history.num_steps, f"lr 0.1  loss {history.loss[-1]:.4g}")


def test_early_stopping_ends_the_fit_at_an_epoch():
    learn = make_learner(metrics={"accuracy": cw.accuracy})
    history = learn.fit(cw.Constant(lr=0.1, total_steps=500),
                        callbacks=[cw.EarlyStopping("accuracy", patience=2, min_delta=2.0)])  # fmt: skip
    assert history.num_steps == 15
    with pytest.raises(cw.ArgumentError) as caught:
        learn.fit(CONSTANT, callbacks=[cw.EarlyStopping("accurracy")])
    assert str(caught.value) == (
        "monitor must be one of ['accuracy', 'train_loss', 'valid_loss'], got 'accurracy'; pass one of them"
    )


@pytest.mark.parametrize(("name", "num_steps"), [("rmse", 50), ("accuracy", 15), ("gap", 15)])
def test_early_stopping_knows_which_scores_are_to_fall(name, num_steps):
    falling = iter(range(1000, 0, -1))
    learn = make_learner(metrics={name: lambda outputs, targets: float(next(falling))})
    history = learn.fit(cw.Constant(lr=0.1, total_steps=50), callbacks=[cw.EarlyStopping(name, patience=2)])
    assert history.num_steps == num_steps


def test_a_validation_loss_that_is_not_a_number_comes_back_as_one():
    epochs = (Epoch(1, 2.0, math.nan), Epoch(2, 2.0, None), Epoch(3, 2.0, 1.5))
    history = cw.History(lr=[0.1] * 3, momentum=[0.9] * 3, loss=[2.0] * 3, epochs=epochs)
    again = cw.History.from_dict(json.loads(json.dumps(history.to_dict(), allow_nan=False)))
    assert again == history
    assert math.isnan(again.epochs[0].valid_loss)
    assert [epoch.valid_loss for epoch in again.epochs[1:]] == [None, 1.5]
    assert again.to_csv() == history.to_csv()


def test_metrics_are_streamed():
    from torchmetrics.classification import MulticlassAccuracy

    learn = make_learner(metrics={
        "function": cw.accuracy, "object": MulticlassAccuracy(num_classes=2, average="micro")})  # fmt: skip
    learn.fit(CONSTANT)
    scores = learn.evaluate()
    assert list(scores) == ["loss", "function", "object"]
    assert scores["function"] == pytest.approx(scores["object"])
    outputs = learn.predict()
    targets = torch.cat([y for _, y in learn.data.valid_loader])
    assert scores["loss"] == pytest.approx(F.cross_entropy(outputs, targets).item())


def test_a_metric_that_raises_is_named():
    def broken(outputs, targets):
        raise ZeroDivisionError("by zero")

    learn = make_learner(metrics={"mine": broken})
    with pytest.raises(ZeroDivisionError) as caught:
        learn.evaluate()
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == [
            "raised by metrics['mine'] for outputs torch.float32 of shape (16, 2) and "
            "targets torch.int64 of shape (16,)"
        ]
    learn = make_learner(metrics={"all": lambda outputs, targets: outputs})
    with pytest.raises(cw.ArgumentError, match=r"^metrics\['all'\] must return one number, got torch.float32 of shape"):
        learn.evaluate()


def test_predictions_of_whatever_is_given():
    learn = make_learner()
    inputs, targets = arrays()
    learn.model.eval()
    expected = learn.model(inputs).detach()
    learn.model.train()
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=10)
    for given in (inputs, inputs.numpy(), loader, [inputs]):
        torch.testing.assert_close(learn.predict(given), expected)
    assert learn.predict().shape == (19, 2)
    assert learn.model.training


def test_the_history_is_written(tmp_path):
    learn = make_learner(metrics={"accuracy": cw.accuracy})
    learn.fit_one_cycle(2, max_lr=0.1)
    learn.history.save(tmp_path / "history.json")
    learn.history.save(tmp_path / "history.csv")
    assert cw.History.from_dict(json.loads((tmp_path / "history.json").read_text())) == learn.history
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert len(rows) == 10
    assert float(rows[3]["loss"]) == learn.history.loss[3]
    assert float(rows[4]["accuracy"]) == learn.history.epochs[0].metrics["accuracy"]
    assert rows[3]["accuracy"] == ""
    with pytest.raises(cw.ArgumentError, match=r"^path must end in \.json or \.csv, got '.*history.txt'; name it for"):
        learn.history.save(tmp_path / "history.txt")


def test_log_files_get_a_line_per_epoch(capsys):
    learn = make_learner(progress=True, metrics={"accuracy": cw.accuracy})
    learn.fit_one_cycle(2, max_lr=0.1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 10 steps"
    assert len(lines) == 3
    assert all(re.fullmatch(r"epoch \d: train loss \S+  valid loss \S+  accuracy \S+  \(\d+\.\d s\)", line)
               for line in lines[1:])  # fmt: skip


def test_the_summary_and_the_loss_picture():
    learn = grouped()
    learn.freeze()
    lines = learn.summary().splitlines()
    assert lines[-1] == "298 parameters, 18 trained, 3 layer groups; SGD"
    assert len(lines) == 6
    with pytest.raises(cw.ArgumentError, match=r"^plot_loss\(\) needs a fit, got none; call learn\.fit_one_cycle\("):
        learn.sched.plot_loss()
    learn.fit(CONSTANT)
    assert len(learn.sched.plot_loss().axes) == 1


def test_an_empty_validation_loader_and_a_nan_metric():
    learn = make_learner(data=cw.Data([(torch.ones(2, 6), torch.ones(2).long())], []))
    with pytest.raises(cw.ArgumentError, match=r"^valid_loader must yield at least one batch, got an empty one; check"):
        learn.evaluate()
    learn = make_learner(metrics={"nan": lambda outputs, targets: math.nan})
    assert math.isnan(learn.fit(CONSTANT).epochs[-1].metrics["nan"])
