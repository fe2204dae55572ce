"""Commands that torchrun starts several times: one document and one report, those of the first rank."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cyclewise.cli import app

EXAMPLE = f"{Path(__file__).parents[2] / 'examples' / 'mlp.py'}:make_learner"

LEARNER = """
import torch
from torch import nn
import cyclewise as cw

def make_learner(seed):
    torch.manual_seed(seed)
    inputs = torch.randn(256, 4)
    return cw.Learner(nn.Linear(4, 2), cw.Data.from_arrays(inputs, inputs[:, 0].gt(0).long(), batch_size=16))
"""
MEETING = "import torch.distributed as dist\ndist.init_process_group('gloo')\n"
SLOW_DISK = """
import time
import cyclewise.report
write_html = cyclewise.report.write_html
cyclewise.report.write_html = lambda *arguments: (time.sleep(2), write_html(*arguments))[1]
"""


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_another_rank_than_the_first_prints_and_writes_nothing(arguments, monkeypatch):
    monkeypatch.setattr("cyclewise.ranks.is_first_rank", lambda: False)
    result = CliRunner().invoke(app, ["find", EXAMPLE, "--html", "out.html", *arguments])
    assert (result.exit_code, result.output) == (0, "")
    assert not Path("out.html").exists()
    result = CliRunner().invoke(app, ["find", "nowhere.py:x", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: FILE:FUNCTION must name a file that exists")


def test_before_the_processes_have_met_their_environment_tells(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    documents = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        result = CliRunner().invoke(app, ["find", "nowhere.py:x", "--json"])
        assert result.exit_code == 2
        documents.append(result.stdout)
    assert json.loads(documents[0])["error_type"] == "ArgumentError"
    assert documents[1] == ""


def on_two_ranks(folder, *arguments):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python",
        sys.executable, "-m", "cyclewise", *arguments, "--json", "--html", "out.html",
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize("beginning", ["", MEETING], ids=["the library", "the file"])
def test_two_ranks_have_one_document_and_one_report(beginning, tmp_path):
    """Whoever brings the processes together."""
    (tmp_path / "train.py").write_text(beginning + LEARNER)
    result = on_two_ranks(tmp_path, "find", "train.py:make_learner")
    # Of the status nothing is asked: gloo's own threads may abort the interpreter's exit.
    assert json.loads(result.stdout)["record"] == "RangeTest"
    assert result.stderr.count("report: out.html") == 1
    assert "Learning-rate range test" in (tmp_path / "out.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["find", "fit"])
def test_a_refusal_on_two_ranks_is_written_down_before_one_of_them_ends_the_other(command, tmp_path):
    code = LEARNER.replace("torch.randn(256, 4)", "torch.full((256, 4), torch.nan)")
    (tmp_path / "train.py").write_text(code + SLOW_DISK)
    result = on_two_ranks(tmp_path, command, "train.py:make_learner")
    values = json.loads(result.stdout)
    assert values["refusal" if command == "find" else "error"]
    assert "Learning-rate range test" in (tmp_path / "out.html").read_text()
