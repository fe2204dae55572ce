import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import cyclewise as cw
from cyclewise.cli import app

EXAMPLE = f"{Path(__file__).parents[2] / 'examples' / 'mlp.py'}:make_learner"
SHORT = ["--budget", "6", "--steps", "3", "--max-lr", "0.01"]


def run(*arguments):
    return CliRunner().invoke(app, ["search", EXAMPLE, *arguments])


def test_it_prints_what_was_found_and_keeps_it():
    result = run(*SHORT, "--save", "start.pt", "--html", "report.html", "--checkpoint", "search.jsonl")
    assert result.exit_code == 0, result.stderr
    assert "best re-draw" in result.stdout
    assert "untouched start" in result.stdout
    found = cw.StartSearch.load("start.pt")
    assert found.num_evaluations == 6
    assert "Search for a starting point" in Path("report.html").read_text()
    again = run(*SHORT, "--checkpoint", "search.jsonl", "--json")
    document = json.loads(again.stdout)
    assert document["best_loss"] == found.best_loss
    assert document["redraw_validation"] is not None


def test_a_start_that_cannot_be_written_costs_neither_the_report_nor_the_numbers(monkeypatch):
    def full(self, path):
        raise cw.CheckpointError("no room")

    monkeypatch.setattr(cw.StartSearch, "save", full)
    result = run(*SHORT, "--save", "start.pt", "--html", "report.html", "--json")
    assert result.exit_code == 1
    assert result.stderr.endswith("report: report.html\nerror: no room\n")
    document = json.loads(result.stdout)
    assert (document["record"], document["error"], document["error_type"]) == (
        "StartSearch", "no room", "CheckpointError"
    )  # fmt: skip
    assert "Search for a starting point" in Path("report.html").read_text()


@pytest.mark.parametrize("space", ["scheme", "both"])
def test_other_spaces(space):
    result = run(*SHORT, "--space", space, "--no-redraw", "--json", "--algorithm", "RandomSearch")
    assert result.exit_code == 0, result.stderr
    assert "the initial distribution of linear layers" in json.loads(result.stdout)["settings"]["space"]


def test_an_unknown_algorithm_is_a_usage_error():
    result = run(*SHORT, "--algorithm", "PSOO")
    assert result.exit_code == 2
    assert "did you mean" in result.stderr


def test_a_rate_that_is_none_is_refused_before_the_file_is_run():
    result = CliRunner().invoke(app, ["search", "nowhere.py:x", "--max-lr", "0"])
    assert (result.exit_code, result.stderr) == (
        2, "error: --max-lr must be a finite number above 0, got 0.0; leave it out to have it found\n"
    )  # fmt: skip


def test_the_found_start_is_searched_with_the_learners_optimizer():
    from cyclewise.training.starting import SameOptimizer

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    groups = [{"params": model[1].parameters(), "lr": 0.5}, {"params": model[0].parameters(), "weight_decay": 0.1}]
    factory = SameOptimizer.of(torch.optim.AdamW(groups, betas=(0.8, 0.9)), model)
    other = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    made = factory(other.parameters())
    assert isinstance(made, torch.optim.AdamW)
    first, second = made.param_groups
    assert first["params"] == list(other[1].parameters())
    assert (first["lr"], first["betas"], second["weight_decay"]) == (0.5, (0.8, 0.9), 0.1)
    assert second["params"] == list(other[0].parameters())
