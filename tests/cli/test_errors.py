"""How a command ends when the user's own code does not: the exit status, and what a script gets to read."""

import json
from pathlib import Path

import pytest
from torch import nn
from typer.testing import CliRunner

from cyclewise.cli import app
from cyclewise.training import Learner

LEARNER = """
import sys
import torch
from torch import nn
import cyclewise as cw

def make_learner(seed):
    torch.manual_seed(0)
    inputs = torch.randn(64, 4)
    batches = [(inputs, inputs[:, 0].gt(0).long())] * 4
    return cw.Learner({model}, cw.Data(batches, batches))
"""
EXITING = """
class Exiting(nn.Linear):
    def forward(self, inputs):
        sys.exit(5)
"""


def run(command, code, *arguments):
    Path("train.py").write_text(code)
    return CliRunner().invoke(app, [command, "train.py:make_learner", *arguments])


@pytest.mark.parametrize(
    ("command", "call"),
    [
        *((command, "sys.exit()") for command in ("find", "fit", "diagnose", "search", "compare")),
        *(("find", call) for call in ("sys.exit(0)", "sys.exit(7)", "sys.exit('no data')")),
    ],
)
def test_sys_exit_is_a_failure(command, call):
    result = run(command, f"import sys\ndef make_learner(seed):\n    {call}\n")
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: train.py:make_learner called {call} ({Path('train.py').resolve()}, line 3); "
        "leave that out, or put it under if __name__ == '__main__'\n"
    )


def test_sys_exit_in_the_file_is_a_failure():
    result = run("find", "import sys\nsys.exit(0)\n")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: train.py called sys.exit(0) (")


def test_sys_exit_while_it_trains_is_a_failure():
    result = run("fit", LEARNER.format(model="Exiting(4, 2)") + EXITING, "--max-lr", "0.1")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the code that was run called sys.exit(5) (")


def test_a_syntax_error_is_reported_where_it_stands():
    """That is its own line, in the file or in one that it imports."""
    broken = "import math\n\ndef make_learner(seed)\n    pass\n"
    hint = "; run it again with --traceback to see how it got there\n"
    result = run("find", broken)
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: train.py raised SyntaxError: expected ':' ({Path('train.py').resolve()}, line 3){hint}"
    )
    Path("neighbour.py").write_text("x = (\n")
    result = run("find", "import neighbour\n")
    assert result.stderr == (
        f"error: train.py raised SyntaxError: '(' was never closed ({Path('neighbour.py').resolve()}, line 1){hint}"
    )


def test_a_syntax_error_of_a_text_is_reported_where_the_text_is_read():
    result = run("find", "def make_learner(seed):\n    return eval('1 +')\n")
    place = f"{Path('train.py').resolve()}, line 2"
    assert f" raised SyntaxError: invalid syntax (<string>, line 1) ({place});" in result.stderr


@pytest.mark.parametrize("command", ["find", "fit", "diagnose", "search", "compare"])
def test_an_error_is_a_json_document_too(command):
    code = "def make_learner(seed):\n    print('noise')\n    raise LookupError('no such data')\n"
    result = run(command, code, "--json")
    assert result.exit_code == 1
    values = json.loads(result.stdout)
    assert values["error_type"] == "LookupError"
    assert values["error"].startswith("train.py:make_learner raised LookupError: no such data (")
    assert result.stderr == f"noise\nerror: {values['error']}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "kind", "message"),
    [
        (
            ["find", "nowhere.py:x"],
            2,
            "ArgumentError",
            "FILE:FUNCTION must name a file that exists, got ",
        ),
        (
            ["find", "nowhere.py:x", "--html", "not/there.html"],
            2,
            "ArgumentError",
            "--html must be a file in a folder that ",
        ),
        (["experiment", "4"], 2, "ArgumentError", "the experiment must be 1, 2, 3 or all, got '4'; "),
        (
            ["policy", "one-cycle", "--max-lr", "-1", "--total-steps", "9"],
            2,
            "PolicyError",
            "--max-lr must be a finite ",
        ),
    ],
)
def test_every_command_has_a_document_for_its_errors(arguments, status, kind, message):
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == status
    values = json.loads(result.stdout)
    assert values["error_type"] == kind
    assert values["error"].startswith(message)
    assert result.stderr == f"error: {values['error']}\n"


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["find"], "MissingParameter", "Missing argument 'FILE:FUNCTION'."),
        (["find", "x.py:f", "--nope"], "NoSuchOption", "No such option: --nope"),
        (["find", "x.py:f", "--num-steps", "many"], "BadParameter", "Invalid value for '--num-steps': "),
        (["policy", "one-cycle", "--max-lr", "x"], "BadParameter", "Invalid value for '--max-lr': "),
        (["nope"], "UsageError", "No such command 'nope'."),
        (["--nope"], "NoSuchOption", "No such option: --nope"),
    ],
)
def test_what_the_parser_refuses_has_a_document_too(arguments, kind, message):
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 2
    values = json.loads(result.stdout)
    assert values["error"].startswith(message)
    assert values["error_type"] == kind
    assert message.partition("'")[0] in result.stderr
    assert CliRunner().invoke(app, arguments).stdout == ""


def test_a_sys_exit_has_a_document():
    result = run("find", "import sys\nsys.exit(0)\n", "--json")
    assert json.loads(result.stdout)["error_type"] == "SystemExit"


def test_a_fit_that_diverges_has_one_document():
    result = run(
        "fit", LEARNER.format(model="nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 2))"), "--max-lr", "1e30", "--json"
    )
    assert result.exit_code == 1
    values = json.loads(result.stdout)
    assert values["error_type"] == "DivergedError"
    assert values["history"]["loss"]
    assert result.stderr.endswith(f"error: {values['error']}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-lr", "0.1"], ""),
        (["--max-lr", "0.1", "--run", "run"], "stopped at step 4; the same command goes on from there\n"),
    ],
)
def test_an_interrupted_fit_says_so_and_what_goes_on(monkeypatch, arguments, said):
    steps = []

    def interrupted(outputs, targets):
        steps.append(1)
        if len(steps) == 7:
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(outputs, targets)

    monkeypatch.setattr("cyclewise.training.learner.Learner.fit_one_cycle", _with_loss(interrupted))
    result = run("fit", LEARNER.format(model="nn.Linear(4, 2)"), *arguments)
    assert (result.exit_code, result.stderr, result.stdout) == (130, "interrupted\n", said)


@pytest.mark.parametrize("command", ["find", "fit", "diagnose", "search", "compare"])
def test_an_interrupted_command_has_a_document_too(command):
    result = run(command, "def make_learner(seed):\n    raise KeyboardInterrupt\n", "--json")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
    assert json.loads(result.stdout) == {"error": "interrupted", "error_type": "KeyboardInterrupt"}


def _with_loss(loss_fn):
    original = Learner.fit_one_cycle

    def fit(learner, *arguments, **options):
        learner.loss_fn = loss_fn
        return original(learner, *arguments, **options)

    return fit
