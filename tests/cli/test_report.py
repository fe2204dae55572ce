"""A run's folder is enough for its report: no model, no data, no code of the user's."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import cyclewise as cw
from cyclewise.cli import app

EXAMPLE = f"{Path(__file__).parents[2] / 'examples' / 'mlp.py'}:make_learner"


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_a_run_is_reported_from_its_folder():
    fitted = json.loads(run("fit", EXAMPLE, "--epochs", "2", "--run", "here", "--json").stdout)
    result = run("report", "here", "--html", "out.html")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("max_lr ")
    assert lines[1].startswith("26 steps in 2 epochs; ")
    assert lines[2:] == ["report: out.html"]
    page = Path("out.html").read_text()
    assert "Learning-rate range test" in page
    assert "Training" in page
    values = json.loads(run("report", "here", "--json").stdout)
    assert values == {"range_tests": [fitted["range_test"]], "history": fitted["history"]}
    assert Path("report.html").is_file()


def test_a_run_that_was_cut_off_has_its_losses():
    torch.manual_seed(0)
    data = cw.Data.from_arrays(torch.randn(64, 4), torch.arange(64) % 2, batch_size=16)
    learn = cw.Learner(torch.nn.Linear(4, 2), data, progress=False)
    learn.fit(cw.Constant(lr=0.1, total_steps=5))

    class StopError(Exception):
        pass

    class Stops(cw.Callback):
        def on_step_end(self, learner, step, loss):
            if step == 7:
                learner.save("here")
                raise StopError

    with pytest.raises(StopError):
        learn.fit(cw.Constant(lr=0.2, total_steps=50), callbacks=[Stops()])
    history = json.loads(run("report", "here", "--json").stdout)["history"]
    assert history["loss"] == learn.history.loss[:13].tolist()
    assert history["lr"] == [0.1] * 5 + [None] * 8
    assert history["policies"] == ["Constant(lr=0.1, total_steps=5)", "Constant(lr=0.2, total_steps=50)"]


@pytest.mark.parametrize(
    ("folder", "status", "message"),
    [
        ("nowhere", 2, "RUN_DIR must be a folder that exists, got 'nowhere'; pass that of `cyclewise fit --run`"),
        (
            "empty", 1, "directory must hold a checkpoint, got 'empty', which holds none; pass the folder of a "
            "Checkpoint, that of `cyclewise fit --run`, or what learn.save() has returned",
        ),
    ],
)  # fmt: skip
def test_a_folder_without_a_run_is_an_error(folder, status, message):
    Path("empty").mkdir()
    result = run("report", folder)
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", f"error: {message}\n")
    assert not Path("report.html").exists()
