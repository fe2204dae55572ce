from pathlib import Path

import pytest
from typer.testing import CliRunner

from cyclewise.cli import app

EXAMPLE = f"{Path(__file__).parents[2] / 'examples' / 'mlp.py'}:make_learner"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        *(("epochs", value, f"--epochs must be a finite number above 0, got {float(value)!r}; it counts epochs, "
           "for example 5") for value in ("0", "-1", "nan", "inf")),
        ("pct-start", "30", "--pct-start must be a fraction in [0, 1], got 30.0; for 30 % pass 0.3"),
        ("max-lr", "-1", "--max-lr must be a finite number above 0, got -1.0; cyclewise.lr_find gives one"),
        ("wd", "-1", "--wd must be a finite number of at least 0, got -1.0; 1e-4 is usual; left out, it is the "
         "optimizer's own"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_the_range_test(option, value, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["fit", EXAMPLE, f"--{option}", value])
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {message}\n")
