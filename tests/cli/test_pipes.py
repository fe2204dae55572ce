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


def test_a_note_to_a_standard_error_that_nobody_reads_leaves_the_document_whole(tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cyclewise", *POLICY, "--save", "out.svg", "--json"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=write, cwd=tmp_path)
    os.close(write)
    assert result.returncode == 0
    assert json.loads(result.stdout)["max_lr"] == 0.4
