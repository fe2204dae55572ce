"""With --json standard output holds one document, whatever the user's own code prints, and how."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cyclewise.cli.streams import stdout_to_stderr

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the shell and the C library are those of POSIX")
SOURCE = Path(__file__).parents[2] / "src"

NOISY = """
import ctypes, os, subprocess, sys
import torch
from torch import nn
import cyclewise as cw

print("from the file")

def make_learner(seed):
    os.system("echo from a shell")
    subprocess.run([sys.executable, "-c", "print('from a child')"])
    os.write(1, b"from a descriptor\\n")
    print("from the old stream", file=sys.__stdout__)
    ctypes.CDLL(None).printf(b"from C\\n")
    torch.manual_seed(0)
    inputs = torch.randn(64, 4)
    data = cw.Data([(inputs, inputs[:, 0].gt(0).long())] * 4)
    return cw.Learner(nn.Linear(4, 2), data)
"""
SOURCES = "the file", "a shell", "a child", "a descriptor", "the old stream", "C"


def shell(command, folder):
    return subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(SOURCE)}
    )


def test_what_is_written_to_the_descriptor_goes_to_standard_error(tmp_path):
    (tmp_path / "train.py").write_text(NOISY)
    result = shell(f"{sys.executable} -m cyclewise diagnose train.py:make_learner --budget 10 --json", tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["record"] == "Diagnosis"
    for source in SOURCES:
        assert f"from {source}\n" in result.stderr


def test_a_process_without_standard_output_runs(tmp_path):
    code = "from cyclewise.cli.streams import stdout_to_stderr\nwith stdout_to_stderr():\n    print('inside')\n"
    (tmp_path / "quiet.py").write_text(code)
    result = shell(f"{sys.executable} quiet.py >&-", tmp_path)
    assert (result.returncode, result.stderr) == (0, "inside\n")


@pytest.mark.parametrize("arguments", ["policy one-cycle --max-lr 0.4 --total-steps 1000", "compare --help"])
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_a_stream_that_lacks_characters_gets_others(arguments, encoding, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "cyclewise", *arguments.split()]
    result = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment)
    assert (result.returncode, result.stderr) == (0, b"")
    shown = result.stdout.decode(encoding)
    assert "0.4 |" in shown or "step-decay, sgdr" in shown
    if arguments.startswith("policy"):
        assert "###" in shown
        assert "?" not in shown


class StopError(Exception):
    pass


def test_the_descriptor_is_given_back(capfd):
    with pytest.raises(StopError), stdout_to_stderr():
        os.write(1, b"inside\n")
        print("printed")
        raise StopError
    os.write(1, b"after\n")
    print("again")
    out, err = capfd.readouterr()
    assert sorted(out.split()) == ["after", "again"]
    assert sorted(err.split()) == ["inside", "printed"]


def test_what_was_printed_before_stays_where_it_was(capfd):
    sys.stdout.write("before ")
    with stdout_to_stderr():
        os.write(1, b"inside")
    out, err = capfd.readouterr()
    assert (out, err) == ("before ", "inside")


def test_a_stream_without_a_descriptor_works(capsys):
    with stdout_to_stderr():
        print("inside")
    print("after")
    out, err = capsys.readouterr()
    assert (out, err) == ("after\n", "inside\n")
