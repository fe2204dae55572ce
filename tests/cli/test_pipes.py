import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = f"{Path(__file__).parents[2] / 'examples' / 'mlp.py'}:make_learner"
POLICY = ("policy", "one-cycle", "--max-lr", "0.4", "--total-steps", "1000")


def into_a_pipe_that_nobody_reads(*arguments, folder):
    """What `| head -1` comes to, without waiting for head to go."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cyclewise", *arguments]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=folder)
    os.close(write)
    return result.returncode, result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "written"),
    [
        ((*POLICY, "--save", "out.svg"), 0, "out.svg"),
        ((*POLICY, "--json"), 0, None),
        (("--version",), 0, None),
        (("find", EXAMPLE, "--html", "out.html"), 0, "out.html"),
        (("find", EXAMPLE, "--end-lr", "1e-9", "--html", "out.html"), 3, "out.html"),
        (("compare", EXAMPLE, "--engine", "local", "--epochs", "1", "--seeds", "1", "--html", "out.html"), 0,
         "out.html"),
    ],
)  # fmt: skip
def test_a_reader_that_went_is_no_error_and_the_rest_of_the_work_is_done(arguments, status, written, tmp_path):
    assert into_a_pipe_that_nobody_reads(*arguments, folder=tmp_path) == (status, "")
    assert written is None or (tmp_path / written).stat().st_size > 0


CHATTY = """
import subprocess
import torch
from torch import nn
import cyclewise as cw

print("from the file", flush=True)

def make_learner(seed):
    for line in range(3):
        print("line", line, flush=True)
    subprocess.run(["echo", "from a child"])
    print("not flushed")
    torch.manual_seed(0)
    inputs = torch.randn(256, 4)
    return cw.Learner(nn.Linear(4, 2), cw.Data.from_arrays(inputs, inputs[:, 0].gt(0).long(), batch_size=16))
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_went_does_not_stop_code_that_prints(unbuffered, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    (tmp_path / "train.py").write_text(CHATTY)
    status, said = into_a_pipe_that_nobody_reads("find", "train.py:make_learner", "--html", "out.html", folder=tmp_path)
    assert (status, said) == (0, "")
    assert (tmp_path / "out.html").stat().st_size > 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_code_prints_keeps_its_order(unbuffered, tmp_path):
    (tmp_path / "train.py").write_text(CHATTY)
    command = [sys.executable, "-m", "cyclewise", "find", "train.py:make_learner"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    lines = result.stdout.splitlines()
    assert lines[:-1] == ["from the file", "line 0", "line 1", "line 2", "from a child", "not flushed"]
    assert lines[-1].startswith("max_lr ")


def test_a_note_to_a_standard_error_that_nobody_reads_leaves_the_document_whole(tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cyclewise", *POLICY, "--save", "out.svg", "--json"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=write, cwd=tmp_path)
    os.close(write)
    assert result.returncode == 0
    assert json.loads(result.stdout)["max_lr"] == 0.4
