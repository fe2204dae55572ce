import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cyclewise import ArgumentError
from cyclewise.cli import app
from cyclewise.comparison.named import NAMED, named_policies

ROOT = Path(__file__).parents[2]
EXAMPLE = f"{ROOT / 'examples' / 'mlp.py'}:make_learner"
LOCAL = ["--engine", "local", "--epochs", "1"]


def run(*arguments):
    return CliRunner().invoke(app, ["compare", *arguments])


def test_compare_says_who_is_better_and_writes_a_report():
    result = run(EXAMPLE, *LOCAL, "--seeds", "2", "--html", "out.html", "--target", "0.69")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("Over 2 seeds, constant has loss ")
    assert "2 seeds cannot give a two-sided p below 0.5; a verdict at 5 % needs at least 6 seeds." in result.stdout
    assert "one-cycle: no verdict: loss " in result.stdout
    assert "seconds to target" in re.sub(r"\s+", " ", Path("out.html").read_text())


def test_json_of_tuned_runs_that_are_kept():
    code = Path(EXAMPLE.rpartition(":")[0]).read_text()
    Path("mine.py").write_text(code.replace("    generator", "    print('noise')\n    generator"))
    arguments = ["--policies", "cosine", "--seeds", "1", *LOCAL, "--rates", "0.003,0.01"]
    result = run("mine.py:make_learner", *arguments, "--json", "--store", "kept")
    assert result.exit_code == 0, result.stderr
    assert "noise" in result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)["rows"]}
    assert [lr for lr, _ in rows["cosine"]["tuning"]] == [0.003, 0.01]
    assert rows["constant"]["difference"] == 0.0
    assert len(list(Path("kept").iterdir())) == 2 * 2 + 2
    assert run("mine.py:make_learner", *arguments, "--store", "kept").exit_code == 0
    assert len(list(Path("kept").iterdir())) == 2 * 2 + 2


@pytest.mark.parametrize(("option", "is_lower"), [("--lower-is-better", True), ("--higher-is-better", False)])
def test_the_direction_of_the_metric_can_be_told(option, is_lower):
    result = run(EXAMPLE, *LOCAL, "--seeds", "1", "--rates", "0.01", "--metric", "accuracy", option, "--json")
    assert json.loads(result.stdout)["question"]["lower_is_better"] is is_lower


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "x"], f"--policies must be names among {', '.join(NAMED)}, got 'x'; separate them by commas"),
        (["--rates", "a,b"], "--rates must be numbers by commas, got 'a,b'; for example 0.03,0.1,0.3"),
        (["--epochs", "0"], "--epochs must be a finite number above 0, got 0.0; it counts epochs, for example 5"),
        (
            ["--metric", "f1"],
            "--metric must be a name in evaluate(), got 'f1'; the Learner has 'loss', 'accuracy', "
            "more come with Learner(metrics=...)",
        ),
    ],
)
def test_bad_options_are_usage_errors(arguments, message):
    result = run(EXAMPLE, *LOCAL, *arguments)
    assert (result.exit_code, result.stderr) == (2, f"error: {message}\n")


def test_every_run_that_diverges_is_a_failure_and_every_refusal_a_refusal():
    assert run(EXAMPLE, *LOCAL, "--seeds", "1", "--rates", "1e30").exit_code == 1
    code = Path(EXAMPLE.rpartition(":")[0]).read_text()
    assert "return " in code
    Path("mine.py").write_text(code + "\n\ndef broken(seed):\n    learn = make_learner(seed)\n"
                               "    for p in learn.model.parameters():\n        p.data.fill_(float('nan'))\n"
                               "    return learn\n")  # fmt: skip
    result = run("mine.py:broken", *LOCAL, "--seeds", "1")
    assert result.exit_code == 3
    reason = (
        "not run: the range test refused to give a rate: the loss or its gradient is not finite before any training"
    )
    assert f"one-cycle: {reason}" in result.stdout
    assert "What to do: look for NaN or infinity" in result.stdout


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("total_steps", [1, 2, 3, 4, 7, 100, 1001])
def test_named_policies_have_the_length_that_is_asked_for(name, total_steps):
    policy = named_policies([name], total_steps)[name]
    rates = policy.lr(range(total_steps))
    assert policy.total_steps == total_steps
    assert rates.min() >= 0
    assert total_steps < 7 or 0.65 < rates.max() <= 1.0


def test_a_policy_without_a_name_is_refused():
    with pytest.raises(ArgumentError, match="policies must be names among one-cycle, "):
        named_policies(["adam"], 3)
