import os
import pty
import subprocess
import sys

import pytest

from cyclewise.cli import tables
from cyclewise.cli.options import Output
from cyclewise.drawing import Table

WIDE = Table(
    ["policy", "highest rate", "loss", "95 % interval", "seconds to target"],
    [
        ["one-cycle", "0.0724", "0.5817 ± 0.0091", "-0.987 to +1.03", "0.0112"],
        ["constant", "0.0251", "0.5595 ± 0.079", "", "0.00812"],
    ],
    caption="Mean ± standard error over n=2 seeds.",
)
PROSE = Table(["candidate", "why it was lost"], [["3", "RuntimeError: " + "so many words " * 12 + "\nand lines"]])
MANY = Table(["policy", *(f"seed {i}" for i in range(40))], [["one-cycle", *(f"0.{1000 + i}" for i in range(40))]])


def words(table):
    return [word for row in table.rows for cell in row for word in cell.split()]


@pytest.mark.parametrize("table", [WIDE, PROSE, MANY], ids=["wide", "prose", "many"])
@pytest.mark.parametrize("width", [None, 400, 80, 72, 66, 60, 40, 20, 1])
def test_no_name_and_no_number_is_ever_cut(table, width):
    shown = tables.text(table, width=width)
    assert "…" not in shown
    for word in words(table):
        assert word in shown
    longest = max(len(word) for word in [*words(table), *table.caption.split(), *" ".join(table.columns).split()])
    assert width is None or max(map(len, shown.splitlines())) <= max(width, longest + 3)


def test_the_own_width_keeps_every_row_on_a_line():
    for table in (WIDE, MANY):
        lines = tables.text(table, width=None).splitlines()
        for row in table.rows:
            (line,) = [line for line in lines if row[0] in line]
            assert [cell.strip() for cell in line.strip("│").split("│")] == list(row)


def test_headings_are_broken_between_words_before_rows_become_blocks():
    lines = tables.text(WIDE, width=72).splitlines()
    assert max(map(len, lines)) <= 72
    assert "highest" in lines[2]
    assert "rate" in lines[3]
    assert tables.text(WIDE, width=40).splitlines() == [
        "policy: one-cycle",
        "  highest rate: 0.0724",
        "  loss: 0.5817 ± 0.0091",
        "  95 % interval: -0.987 to +1.03",
        "  seconds to target: 0.0112",
        "",
        "policy: constant",
        "  highest rate: 0.0251",
        "  loss: 0.5595 ± 0.079",
        "  seconds to target: 0.00812",
        "",
        "Mean ± standard error over n=2 seeds.",
    ]


def test_a_table_without_rows_has_its_headings_and_its_caption():
    empty = Table(["policy", "loss"], [], caption="None.")
    assert "policy" in tables.text(empty, width=None)
    assert tables.text(empty, width=3) == "None."


def test_a_file_or_a_pipe_gets_the_own_width_whatever_the_environment_says(capsys, monkeypatch):
    plain = tables.text(WIDE, width=None)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("FORCE_COLOR", "1")
    Output(as_json=False, html=None).show(WIDE)
    assert capsys.readouterr().out == f"{plain}\n"


def test_a_terminal_gets_what_fits_into_it():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_tables import WIDE, Output; Output(as_json=False, html=None).show(WIDE)"
    )
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "40", "TERM": "dumb"}
    command = [sys.executable, "-c", code, os.path.dirname(__file__)]
    subprocess.run(command, stdout=theirs, env=environment, check=True)
    os.close(theirs)
    written = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert written == tables.text(WIDE, width=40).splitlines()
