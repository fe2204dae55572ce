"""What every record's from_dict does with values that are damaged: a file cut by hand, or of another kind."""

import json
from contextlib import suppress

import pytest
import torch

import cyclewise as cw
from cyclewise.comparison.runs import Run
from cyclewise.experiments.experiment import Experiment
from cyclewise.experiments.settings import settings_of


def make_learner(seed=0):
    torch.manual_seed(seed)
    inputs = torch.randn(64, 3)
    data = cw.Data.from_arrays(inputs, inputs.sum(1, keepdim=True), batch_size=16)
    model = torch.nn.Linear(3, 1)
    return cw.Learner(model, data, loss_fn=torch.nn.MSELoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.fixture(scope="module")
def records():
    learn = make_learner()
    batches, loss = list(learn.data.train_loader), torch.nn.MSELoss()
    history = learn.fit(cw.Constant(lr=0.1, total_steps=6), callbacks=[cw.Watch(every=2)])
    policies = {"low": cw.Constant(lr=0.01, total_steps=3), "high": cw.Constant(lr=0.1, total_steps=3)}
    runs = {setting: (Run(0, history), Run(1, history)) for setting in settings_of(1)}
    return [
        cw.lr_find(learn.model, learn.optimizer, loss, batches, num_steps=20, progress=False),
        history,
        history.watched,
        cw.diagnose(learn.model, loss, batches, budget=20),
        cw.barrier(learn.model, make_learner(1).model, loss, batches, num_points=3),
        cw.search_start(cw.LayerGains(learn.model), lambda model: float(model.weight.norm()), budget=4, progress=False),
        cw.compare(policies, make_learner, seeds=[0, 1], metric="loss", engine="local", baseline="low", progress=False),
        Experiment(1, runs, (0, 1), {}),
    ]


def test_every_record_survives_json(records):
    for record in records:
        values = record.to_dict()
        assert type(record).from_dict(json.loads(json.dumps(values))).to_dict() == values


def test_a_missing_or_damaged_part_raises_nothing_but_argument_errors(records):
    for record in records:
        values = json.loads(json.dumps(record.to_dict()))
        for name in values.keys() - {"record", "version"}:
            rest = {other: value for other, value in values.items() if other != name}
            for damaged in (rest, {**rest, name: 7}, {**rest, name: "seven"}, {**rest, name: [{}]}):
                with suppress(cw.ArgumentError):
                    type(record).from_dict(damaged)


def test_the_message_names_the_record_and_the_part(records):
    for record in records:
        values = record.to_dict()
        kind, name = values["record"], list(values)[2]
        del values[name]
        with pytest.raises(cw.ArgumentError) as error:
            type(record).from_dict(values)
        assert str(error.value) == (
            f"values must describe a whole {kind}, got some that are missing or damaged (KeyError: {name!r}); "
            "pass what to_dict() returned"
        )
