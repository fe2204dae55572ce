"""A run that is resumed by two processes at once: the second is refused while the first lives, and only then."""

import errno
import os
import signal
import subprocess
import sys

import pytest

import cyclewise as cw
from tests.training.cut_off import bits, make_learner, same

POLICY = cw.Constant(lr=0.1, total_steps=8)
PROGRAM = """
import sys, time, warnings
import cyclewise as cw
from tests.training.cut_off import make_learner

warnings.simplefilter("ignore")
directory, at_step = sys.argv[1], int(sys.argv[2])

class Waits(cw.Callback):
    def on_step_end(self, learner, step, loss):
        if step == at_step:
            print("waits", flush=True)
            time.sleep(100)

learn = make_learner()
learn.resume(directory)
learn.fit(cw.Constant(lr=0.1, total_steps=8), callbacks=[Waits(), cw.Checkpoint(directory, every_steps=1)])
"""


@pytest.fixture
def training(tmp_path):
    """Return a function that starts a process which trains into `tmp_path`, and waits in the middle of a step."""
    processes = []

    def start(at_step):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(at_step)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        assert processes[-1].stdout.readline() == "waits\n"
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


class Waits(cw.Callback):
    """Of the same name as the other process's, which is what a resumed run is asked for."""


def fit(learn, directory):
    learn.fit(POLICY, callbacks=[Waits(), cw.Checkpoint(directory, every_steps=1)])
    return learn


def contents(directory):
    return sorted(path.name for path in directory.iterdir())


def test_the_second_is_refused_until_the_first_was_killed(tmp_path, training):
    process = training(at_step=4)
    before = contents(tmp_path)
    later = make_learner()
    assert later.resume(tmp_path) == 4
    with pytest.raises(cw.CheckpointError) as caught:
        fit(later, tmp_path)
    assert str(caught.value) == (
        f"directory must be that of one process at a time, got {str(tmp_path)!r}, into which process {process.pid} on "
        f"{os.uname().nodename} is training; wait until it has ended, or stop it, and resume from there again, or "
        "pass another directory"
    )
    assert contents(tmp_path) == before
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ".cyclewise-lock" in contents(tmp_path)
    later = make_learner()
    assert later.resume(tmp_path) == 4
    fit(later, tmp_path)
    assert same(bits(later), bits(fit(make_learner(), tmp_path / "whole")))
    assert ".cyclewise-lock" not in [*contents(tmp_path), *contents(tmp_path / "whole")]


def test_a_second_one_that_begins_is_refused_before_anything_is_written(tmp_path, training):
    training(at_step=0)
    with pytest.raises(cw.CheckpointError, match=r"^directory must be that of one process at a time, got "):
        fit(make_learner(), tmp_path)
    assert contents(tmp_path) == [".cyclewise-lock"]


def test_a_process_of_another_machine_is_told_of_but_keeps_nobody_from_training(tmp_path, training, monkeypatch):
    process = training(at_step=0)
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    with pytest.warns(UserWarning, match=r"^directory should be ") as caught:
        fit(make_learner(), tmp_path)
    assert str(caught[0].message) == (
        f"directory should be that of one process at a time, got {str(tmp_path)!r}, into which process {process.pid} "
        f"on {os.uname().nodename} is training; if it still is, stop one of the two, if not, remove "
        f"{str(tmp_path / '.cyclewise-lock')!r}"
    )


@pytest.mark.parametrize("left", ["process 1 on another", f"process 1 on {os.uname().nodename}", ""])
def test_what_a_crash_left_is_taken_over(tmp_path, left):
    path = tmp_path / ".cyclewise-lock"
    path.write_text(left)
    seen = []

    class Looks(cw.Callback):
        def on_step_end(self, learner, step, loss):
            seen.append(path.read_text())

    make_learner().fit(POLICY, callbacks=[Looks(), cw.Checkpoint(tmp_path)])
    assert seen == [f"process {os.getpid()} on {os.uname().nodename}"] * 8
    assert not path.exists()


def test_a_folder_that_cannot_be_locked_is_trained_into(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    assert fit(make_learner(), tmp_path).num_steps == 8
