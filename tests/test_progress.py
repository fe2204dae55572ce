"""Bars on standard error: what else is printed goes where it belongs, and odd streams break nothing."""

import io
import sys

import pytest
import torch

from cyclewise.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Logger:
    """What a program that logs its output puts in the place of a stream."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def at_a_terminal(monkeypatch):
    # Called in the test itself: pytest puts its own streams back between a fixture and the test.
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


@pytest.mark.parametrize("stream", [io.StringIO, Logger])
def test_what_is_printed_beside_a_bar_stays_on_a_standard_output_that_is_no_terminal(stream, monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    log = stream()
    monkeypatch.setattr(sys, "stdout", log)
    with progress_bar("training", 1) as bar:
        print("loss 0.5")
        assert bar.is_shown
    assert (log.text if stream is Logger else log.getvalue()) == "loss 0.5\n"
    assert "training" in terminal.getvalue()
    assert "loss" not in terminal.getvalue()


def test_what_is_printed_at_a_terminal_stands_above_the_bar(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdout", Terminal())
    with progress_bar("training", 1):
        print("loss 0.5")
    assert "loss 0.5\n" in terminal.getvalue()
    assert sys.stdout.getvalue() == ""


def test_a_program_without_standard_output_has_a_bar(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdout", None)
    with progress_bar("training", 1) as bar:
        bar.advance()
    assert "1/1" in terminal.getvalue()


@pytest.mark.parametrize("kind", [type(None), Logger])
@pytest.mark.parametrize("progress", ["auto", True])
def test_a_standard_error_that_is_no_stream_breaks_nothing(kind, progress, monkeypatch):
    out, stream = Logger(), kind()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("training", 2, progress) as bar:
        bar.advance()
        bar.tell("epoch 1")
    assert not bar.is_shown
    assert out.text == ""
    if stream is not None:
        assert stream.text == ("training: 2 steps\nepoch 1\n" if progress is True else "")


def test_a_closed_standard_error_breaks_nothing(monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("training", 2) as bar:
        assert not bar.is_shown


@pytest.mark.parametrize("progress", ["auto", True])
@pytest.mark.parametrize(("rank", "size", "shows"), [("0", "2", True), ("1", "2", False), ("1", "1", True)])
def test_of_the_processes_of_torchrun_the_first_one_has_a_bar(rank, size, shows, progress, monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with progress_bar("training", 2, progress) as bar:
        bar.tell("epoch 1")
    assert ("training" in terminal.getvalue()) == ("epoch 1" in terminal.getvalue()) == shows


def test_processes_that_have_met_know_their_ranks(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    with progress_bar("training", 2, True) as bar:
        bar.tell("epoch 1")
    assert terminal.getvalue() == ""


def test_a_bar_that_ends_early_is_full(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    with progress_bar("range test", 100) as bar:
        bar.move_to(72, "lr 0.1")
    assert "72/72" in terminal.getvalue()


def test_a_bar_that_an_error_ends_says_how_far_it_came(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    with pytest.raises(KeyboardInterrupt), progress_bar("range test", 100) as bar:
        bar.move_to(72)
        raise KeyboardInterrupt
    assert " 72/100" in terminal.getvalue()
    assert "72/72" not in terminal.getvalue()
