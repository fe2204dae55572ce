import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cyclewise as cw
from cyclewise.cli import app
from cyclewise.cli.policy import policy_app
from cyclewise.policies import registered_policies

SOURCE = Path(__file__).parents[2] / "src"


def run(*arguments):
    return CliRunner().invoke(app, ["policy", *arguments])


def test_a_policy_is_drawn_with_the_code_that_makes_it():
    result = run(
        "one-cycle", "--max-lr", "0.4", "--total-steps", "1000", "--base-momentum", "0.85", "--max-momentum", "0.95"
    )
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "Learning rate"
    assert "Momentum" in lines
    policy = cw.OneCycle(max_lr=0.4, total_steps=1000, base_momentum=0.85, max_momentum=0.95)
    assert eval(lines[-1], vars(cw) | {"OneCycle": cw.OneCycle}) == policy


def test_a_picture_is_saved(tmp_path):
    result = run("cosine", "--max-lr", "0.1", "--total-steps", "100", "--save", str(tmp_path / "cosine.png"))
    assert result.stdout.splitlines()[-1] == f"picture: {tmp_path / 'cosine.png'}"
    assert (tmp_path / "cosine.png").read_bytes().startswith(b"\x89PNG")


def test_json():
    values = json.loads(run("constant", "--lr", "0.1", "--total-steps", "5", "--json").stdout)
    assert cw.policy_from_dict(values) == cw.Constant(lr=0.1, total_steps=5)


def test_impossible_values_are_usage_errors():
    result = run("one-cycle", "--max-lr", "-1", "--total-steps", "10")
    assert result.exit_code == 2
    assert result.stderr == "error: --max-lr must be a finite number above 0, got -1.0; cyclewise.lr_find gives one\n"
    assert run("one-cycle", "--total-steps", "10").exit_code == 2


def test_every_policy_made_of_numbers_has_a_command():
    made_of_policies = {"Join", "Extended", "Rescaled", "Together"}
    ours = [policy for policy in registered_policies() if policy.__module__.startswith("cyclewise.")]
    names = {policy.__name__ for policy in ours} - made_of_policies
    commands = {"".join(part.title() for part in command.name.split("-")) for command in policy_app.registered_commands}
    assert {name.lower() for name in names} == {command.lower() for command in commands}


@pytest.mark.parametrize("width", [20, 72, 200])
def test_text_keeps_its_width(width):
    from cyclewise.drawing.terminal import text

    (chart,) = cw.OneCycle(max_lr=1e-3, total_steps=7).charts()
    lines = text(chart, width=width, height=6).splitlines()
    assert len(lines) == 8
    assert max(map(len, lines[1:-1])) <= width


@pytest.mark.parametrize("columns", [5, 40, 120])
def test_the_picture_is_as_wide_as_the_terminal(columns):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cyclewise", "policy", "constant", "--lr", "0.1", "--total-steps", "9"]
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "dumb", "PYTHONPATH": str(SOURCE)}
    subprocess.run(command, stdout=theirs, env=environment, check=True)
    os.close(theirs)
    lines = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert lines[0] == "Learning rate"
    assert max(len(line) for line in lines if "│" in line) == max(columns, len("0.10 │") + 8)


def test_text_draws_a_single_step_and_a_flat_line():
    from cyclewise.drawing.terminal import text

    for policy in (cw.OneCycle(max_lr=0.1, total_steps=1), cw.Constant(lr=0.1, total_steps=50)):
        (chart,) = policy.charts()
        assert "█" in text(chart) or "▄" in text(chart)


def test_a_picture_in_a_folder_that_is_not_there_is_a_usage_error():
    result = CliRunner().invoke(
        app, ["policy", "constant", "--lr", "0.1", "--total-steps", "3", "--save", "no/where.png"]
    )
    assert result.exit_code == 2
    assert result.stderr == (
        "error: --save must be a file in a folder that is there, got 'no/where.png'; make the folder 'no' first\n"
    )


@pytest.mark.parametrize("name", ["noext", "picture.xyz", ".png", "run.v1"])
def test_a_picture_of_another_kind_is_a_usage_error_before_anything_is_drawn(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("constant", "--lr", "0.1", "--total-steps", "3", "--save", name)
    assert list(tmp_path.iterdir()) == []
    example = {"noext": "noext.png", "picture.xyz": "picture.png", ".png": ".png.png", "run.v1": "run.png"}[name]
    message = f"--save must end in .png, .svg or .pdf, got {name!r}; for example {example!r}"
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {message}\n")


def test_a_picture_is_no_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    result = run("constant", "--lr", "0.1", "--total-steps", "3", "--save", str(tmp_path / "sub"))
    message = f"--save must be a file, got the folder '{tmp_path}/sub'; add a name: '{tmp_path}/sub/save.png'"
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["sub"]


@pytest.mark.parametrize(("name", "start"), [("a.PNG", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_a_picture_is_of_the_kind_that_its_ending_says(tmp_path, name, start):
    path = tmp_path / name
    assert run("constant", "--lr", "0.1", "--total-steps", "3", "--save", str(path)).exit_code == 0
    assert path.read_bytes().startswith(start)


def test_help_is_plain_text():
    pages = [run("--help").stdout, *(run(command.name, "--help").stdout for command in policy_app.registered_commands)]
    assert not any(mark in page for page in pages for mark in ("`", ":class:", ":meth:", ":func:"))
    words = " ".join(run("one-cycle", "--help").stdout.split())
    assert (
        "The rate rises from max_lr / div_factor to max_lr and falls to max_lr / div_factor / final_div_factor."
        in words
    )
