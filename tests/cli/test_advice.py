"""What the command line advises is typed there: options, not arguments of Python."""

import json
import re
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cyclewise.cli import app
from cyclewise.cli.advice import advice, of_error
from cyclewise.cli.commands import _OPTIONS, Switch

ROOT = Path(__file__).parents[2]
EXAMPLE = f"{ROOT / 'examples' / 'mlp.py'}:make_learner"
SWITCHES = {
    "max_lr": Switch("--max-lr"), "steps": Switch("--steps"), "rates": Switch("--rates"), "store": Switch("--store"),
    "engine": Switch("--engine"), "lower": Switch("--lower", "--higher"), "redraw": Switch("--redraw", "--no-redraw"),
}  # fmt: skip


@pytest.fixture
def _in_a_command():
    token = _OPTIONS.set(SWITCHES)
    yield
    _OPTIONS.reset(token)


@pytest.mark.usefixtures("_in_a_command")
@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("give it more steps (num_steps=300) or", "give it more steps (--steps 300) or"),
        ("raise num_steps to 300", "raise --steps to 300"),
        ("pass max_lr=, for example the rate", "pass --max-lr, for example the rate"),
        ('run it with engine="local" to see why', "run it with --engine local to see why"),
        ("pass tune=[0.03, 0.1]", "pass --rates 0.03,0.1"),
        ("lower=True says otherwise, lower=False too", "--lower says otherwise, --higher too"),
        ("leave out store, or max_lr", "leave out store, or --max-lr"),
        ("call max_lr() or wd=1e-4", "call max_lr() or wd=1e-4"),
        ("pass a rate, or None", "pass a rate, or leave it out"),
        ("start lower (start_lr=1e-9)", "start lower (`cyclewise find --start-lr 1e-9`)"),
        ("raise end_lr by a factor of 100", "raise `cyclewise find --end-lr` by a factor of 100"),
    ],
)
def test_arguments_become_options(said, typed):
    assert advice(said) == typed
    assert of_error(f"max_lr must be a rate, got None; {said}") == f"--max-lr must be a rate, got None; {typed}"


@pytest.mark.usefixtures("_in_a_command")
@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("max_lr must be above steps=3, got max_lr=1", "--max-lr must be above --steps 3, got max_lr=1"),
        ("rates must be numbers, got 'max_lr'", "--rates must be numbers, got 'max_lr'"),
        ("tune must be a list of num_steps, got 3", "--rates must be a list of --steps, got 3"),
        ("other must be rates, got 3", "other must be rates, got 3"),
        ("no max_lr was found", "no max_lr was found"),
    ],
)
def test_what_an_error_asks_for_is_an_option_and_what_it_got_stays_as_it_was_typed(said, typed):
    assert of_error(said) == typed


def test_outside_of_a_command_nothing_is_an_option():
    assert advice("raise num_steps, pass max_lr=0.1") == "raise num_steps, pass max_lr=0.1"


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_a_refusal_and_an_error_say_what_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = Path(EXAMPLE.rpartition(":")[0]).read_text()
    Path("mine.py").write_text(code + "\n\ndef noise(seed):\n    learn = make_learner(seed)\n"
                               "    for p in learn.model.parameters():\n        p.data.fill_(float('nan'))\n"
                               "    return learn\n")  # fmt: skip
    result = run("find", EXAMPLE, "--end-lr", "1e-9")
    assert result.exit_code == 3
    remedy = result.stdout.splitlines()[-1]
    assert re.search(r"--(num-steps|end-lr|start-lr) ", remedy), remedy
    assert "_" not in remedy
    result = run("search", "mine.py:noise", "--budget", "2", "--json")
    assert json.loads(result.stdout)["error"].endswith(
        "pass --max-lr, for example the rate that a healthy start would have"
    )


def test_a_refused_fit_says_what_to_type_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = Path(EXAMPLE.rpartition(":")[0]).read_text()
    Path("mine.py").write_text(code + "\n\ndef noise(seed):\n    torch.manual_seed(seed)\n"
                               "    inputs, targets = torch.randn(800, 20), torch.randint(2, (800,))\n"
                               "    return cw.Learner(nn.Linear(20, 2), cw.Data.from_arrays(inputs, targets))\n\n\n"
                               "def frozen(seed):\n    learn = make_learner(seed)\n"
                               "    learn.model.requires_grad_(False)\n    return learn\n")  # fmt: skip
    result = run("fit", "mine.py:noise")
    assert result.exit_code == 3
    assert re.search(r"`cyclewise find --num-steps( 300)?`", result.stderr), result.stderr
    assert result.stderr.endswith("; then pass the rate that it gives as --max-lr\n")
    result = run("fit", "mine.py:frozen")
    assert result.exit_code == 3
    assert result.stderr.endswith("or give the optimizer those parameters\n")
    result = run("compare", "mine.py:noise", "--engine", "local", "--epochs", "1", "--seeds", "1")
    assert "`cyclewise find --num-steps" in result.stdout


def test_a_warning_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = Path(EXAMPLE.rpartition(":")[0]).read_text()
    Path("mine.py").write_text(code.replace('"accuracy"', '"gap"'))
    arguments = ["--engine", "local", "--epochs", "1", "--seeds", "1", "--rates", "0.01", "--metric", "gap"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # the tests' own filters would make it an error
        result = run("compare", "mine.py:make_learner", *arguments)
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: --metric must have a known direction, got 'gap', whose name tells none, so higher is taken to be "
        "better; pass --lower-is-better or --higher-is-better\n"
    )
    assert "--lower-is-better says otherwise." in result.stdout
