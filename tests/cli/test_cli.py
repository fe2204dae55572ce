import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import cyclewise as cw
from cyclewise.cli import app
from cyclewise.cli.outcome import exit_status
from cyclewise.experiments import digits_learner
from cyclewise.experiments.digits import NUM_EPOCHS

ROOT = Path(__file__).parents[2]
EXAMPLE = f"{ROOT / 'examples' / 'mlp.py'}:make_learner"


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def write(code):
    Path("train.py").write_text(code)
    return "train.py:make_learner"


def test_find_prints_one_line():
    result = run("find", EXAMPLE)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("max_lr ")


def test_json_is_the_only_thing_on_standard_output():
    target = write(
        Path(EXAMPLE.rpartition(":")[0]).read_text().replace("    generator", "    print('noise')\n    generator")
    )
    result = run("find", target, "--json")
    values = json.loads(result.stdout)
    assert values["record"] == "RangeTest"
    assert values["max_lr"] > 0
    assert "noise" in result.stderr


def test_the_range_test_is_told_the_length_of_the_run():
    found = json.loads(run("find", EXAMPLE, "--total-steps", "1234", "--json").stdout)
    assert dict(found["settings"])["total_steps"] == 1234
    fitted = json.loads(run("fit", EXAMPLE, "--epochs", "3", "--json").stdout)
    assert dict(fitted["range_test"]["settings"])["total_steps"] == len(fitted["history"]["loss"]) == 39


def test_fit_finds_a_rate_trains_and_writes_a_report():
    result = run("fit", EXAMPLE, "--epochs", "3", "--html", "out.html")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("max_lr ")
    assert "accuracy" in lines[1]
    assert lines[2] == "report: out.html"
    assert "Learning-rate range test" in Path("out.html").read_text()


def test_a_run_goes_on_from_its_checkpoint():
    arguments = ["fit", EXAMPLE, "--epochs", "2", "--json"]
    whole, first, again = (json.loads(run(*arguments, *more).stdout) for more in ([], *[["--run", "here"]] * 2))
    assert again == first
    assert first["range_test"] == whole["range_test"]
    assert first["history"]["loss"] == whole["history"]["loss"]
    assert run(*arguments[:-1], "--run", "here").stdout.startswith("resumed at step 26\n")


def test_a_run_of_another_model_is_refused():
    code = Path(EXAMPLE.rpartition(":")[0]).read_text()
    assert run("fit", EXAMPLE, "--epochs", "1", "--max-lr", "0.01", "--run", "here").exit_code == 0
    result = run("fit", write(code.replace("64)", "32)")), "--epochs", "1", "--max-lr", "0.01", "--run", "here")
    assert result.exit_code == 1
    assert "checkpoint" in result.stderr


def test_fit_as_json():
    values = json.loads(run("fit", EXAMPLE, "--epochs", "1", "--max-lr", "0.01", "--json").stdout)
    assert values["range_test"] is None
    assert len(values["history"]["loss"]) == 13


def test_a_fit_that_ends_early_is_a_json_document_too():
    result = run("fit", EXAMPLE, "--max-lr", "1e30", "--json")
    values = json.loads(result.stdout)
    assert result.exit_code == 1
    assert f"error: {values['error']}" in result.stderr
    assert values["history"]["record"] == "History"
    code = "import torch, cyclewise as cw\nfrom torch import nn\ndef make_learner(seed):\n"
    not_finite = "    data = [(torch.full((8, 2), torch.nan), torch.zeros(8).long())] * 4\n"
    result = run("fit", write(code + not_finite + "    return cw.Learner(nn.Linear(2, 2), data)\n"), "--json")
    values = json.loads(result.stdout)
    assert result.exit_code == 3
    assert values["history"] is None
    assert values["range_test"]["max_lr"] is None


def test_a_diagnosis_of_a_loss_that_is_not_finite_fails_and_says_so():
    code = "import torch, cyclewise as cw\nfrom torch import nn\n"
    target = write(
        code + "def make_learner(seed):\n    data = [(torch.full((8, 2), torch.nan), torch.zeros(8).long())] * 4\n"
        "    return cw.Learner(nn.Linear(2, 2), data)\n"
    )
    result = run("diagnose", target, "--html", "out.html")
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "Nothing could be measured, because the loss is not finite: look for NaN or infinity"
    )
    assert "Nothing stands in the way" not in Path("out.html").read_text()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.py:x", "FILE:FUNCTION must name a file that exists, got 'nowhere.py'; the path is relative to "),
        (
            "nowhere.py",
            "FILE:FUNCTION must name a file and a function in it, got 'nowhere.py'; for example train.py:make_learner",
        ),
        (
            EXAMPLE.replace("make_learner", "make"),
            f"FILE:FUNCTION must name a function of {EXAMPLE.rpartition(':')[0]}, got 'make'; it has: make_learner",
        ),
    ],
)
def test_a_target_that_is_not_there_is_a_usage_error(target, message):
    result = run("find", target)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {message}")
    assert "Traceback" not in result.stderr


def test_a_function_that_returns_something_else_is_a_usage_error():
    result = run("find", write("def make_learner(seed):\n    return 3\n"))
    assert result.exit_code == 2
    assert result.stderr == (
        "error: train.py:make_learner must return a cyclewise.Learner, got int 3; "
        "end it with `return Learner(model, data)`\n"
    )


@pytest.mark.parametrize("parameters", ["()", "(seed, width)", "(*, seed)"])
@pytest.mark.parametrize("command", ["find", "fit", "diagnose", "search", "compare"])
def test_a_function_that_does_not_take_the_seed_is_a_usage_error(command, parameters):
    result = run(command, write(f"def make_learner{parameters}:\n    raise AssertionError\n"))
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: train.py:make_learner must be a function of the seed alone, got make_learner{parameters}; "
        "begin it with `def make_learner(seed):`\n"
    )


@pytest.mark.parametrize("parameters", ["(*arguments)", "(number, width=3, **options)"])
def test_what_can_be_called_with_the_seed_takes_it(parameters):
    result = run("find", write(f"def make_learner{parameters}:\n    raise ValueError('called')\n"))
    assert "train.py:make_learner raised ValueError: called" in result.stderr


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("def make_learner(seed):\n    raise ValueError('boom')\n", "train.py:make_learner raised ValueError: boom"),
        ("import nothing_of_the_kind\n", "train.py raised ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
    ],
)
def test_code_that_raises_fails_without_a_traceback_unless_asked_for(code, what):
    target = write(code)
    result = run("find", target)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {what} (")
    assert result.stderr.endswith("; run it again with --traceback to see how it got there\n")
    assert "Traceback" not in result.stderr
    assert "Traceback (most recent call last)" in run("find", target, "--traceback").stderr


def test_a_refusal_has_its_own_status_and_says_what_to_do():
    result = run("find", EXAMPLE, "--end-lr", "1e-9")
    assert result.exit_code == 3
    assert result.stdout.startswith("no learning rate: the loss was still falling at the highest rate")
    assert "what to do: " in result.stdout
    assert run("fit", EXAMPLE, "--max-lr", "1e30").exit_code == 1


def test_bad_options_are_usage_errors():
    for arguments in (["--num-steps", "3"], ["--sweep", "log"], ["--seed", "-1"], ["--html", "no/such/folder/x.html"]):
        result = run("find", EXAMPLE, *arguments)
        assert result.exit_code == 2, arguments
        assert "Traceback" not in result.stderr


def test_a_refused_option_is_called_what_was_typed_and_can_be_left_out():
    result = run("find", EXAMPLE, "--total-steps", "0")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: --total-steps must be a whole number of at least 1, got 0; "
        "pass epochs * len(train_loader), or leave it out\n"
    )


def test_help_version_and_module():
    assert "find" in run("--help").stdout
    assert run("--version").stdout.startswith("cyclewise 0.")
    result = subprocess.run(
        [sys.executable, "-m", "cyclewise", "find", EXAMPLE, "--json"], capture_output=True, text=True
    )
    assert result.returncode == 0
    assert json.loads(result.stdout)["stop_reason"]


def test_help_does_not_import_torch():
    code = "import sys, cyclewise.cli; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert result.stdout == "False\n"


def test_the_range_test_of_the_demo_is_told_the_length_of_its_runs(monkeypatch):
    def check_numbers(num_steps, total_steps, *others):
        raise RuntimeError(f"told {total_steps}")  # what comes then is slow

    monkeypatch.setattr("cyclewise.range_test.find.check_numbers", check_numbers)
    learn = digits_learner(0)
    assert f"told {NUM_EPOCHS * learn.data.steps_per_epoch} (" in run("demo").stderr


@pytest.mark.slow
def test_demo_runs_the_main_job():
    result = run("demo", "--seeds", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("range test: max_lr ")
    assert "one-cycle" in result.stdout
    assert "nan" not in result.stdout
    page = Path("report.html").read_text()
    for text in ("Loss against learning rate", "Learning rate", "Momentum", "Accuracy on validation data"):
        assert text in page
    values = json.loads(run("demo", "--seeds", "1", "--json").stdout)
    assert len(values["contest"]["grid"]) == 5


def test_a_worker_that_died_is_a_failure():
    with pytest.raises(typer.Exit) as caught, exit_status(show_traceback=False):
        raise cw.errors.WorkerError("a worker died")
    assert caught.value.exit_code == 1
