"""A tracker that cannot write costs its log, with one warning, and not the run."""

import errno
import os
import subprocess
import sys

import pytest
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cyclewise as cw
from tests.training.small_learner import CONSTANT, equal, make_learner, weights

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
ADVICE = (
    "([Errno 28] No space left on device); training goes on, and learn.history holds them all; make room where the "
    "trackers write, or pass Track another directory, before the next fit"
)


class Listed(GeneralTracker):
    """Keeps what it is given; refuses at the calls and the starts of these numbers."""

    name = "listed"
    requires_logging_directory = False

    def __init__(self, fails_at=(), fails_to_start=()):
        super().__init__()
        self.fails_at, self.fails_to_start = fails_at, fails_to_start
        self.num_starts = self.num_calls = 0
        self.steps = []

    @property
    def tracker(self):
        return self

    def start(self):
        self.num_starts += 1
        if self.num_starts in self.fails_to_start:
            raise FULL

    def log(self, values, step=None, **kwargs):
        self.num_calls += 1
        if self.num_calls in self.fails_at:
            raise FULL
        self.steps.append(step)


def told(caught):
    return [str(warning.message) for warning in caught]


def test_it_is_said_once_a_fit_and_the_weights_are_those_of_a_run_without_trackers():
    plain, tracked = make_learner(), make_learner()
    plain.fit(CONSTANT)
    plain.fit(CONSTANT)
    tracker = Listed(fails_at=(3, 4, 5, 7))  # an epoch is of 5 steps, and a call of its own
    track = cw.Track(tracker, every_steps=1)
    with pytest.warns(UserWarning, match="logged") as caught:
        tracked.fit(CONSTANT, callbacks=[track])
    assert told(caught) == [f"the values of step 2 could not be logged, and later ones of this fit may not be {ADVICE}"]
    assert tracker.steps == [0, 1, 4, 6, 7, 8, 9, 9]
    tracked.fit(CONSTANT, callbacks=[track])
    assert equal(weights(tracked), weights(plain))
    assert tracker.num_starts == 1  # it had recovered
    assert tracker.steps[8:] == [10, 11, 12, 13, 14, 14, 15, 16, 17, 18, 19, 19]


def test_a_tracker_that_failed_to_the_end_is_started_anew_by_the_next_fit():
    tracker = Listed(fails_at=range(12), fails_to_start=(2,))
    learn, track = make_learner(), cw.Track(tracker, every_steps=1)
    for expected in (
        f"the values of step 0 could not be logged, and later ones of this fit may not be {ADVICE}",
        f"the trackers could not be started, and no values of this fit are logged {ADVICE}",
    ):
        tracker.num_calls = 0
        with pytest.warns(UserWarning, match="logged") as caught:
            learn.fit(cw.Constant(lr=0.1, total_steps=5), callbacks=[track])
        assert told(caught) == [expected]
    assert (tracker.num_starts, tracker.num_calls, tracker.steps) == (2, 0, [])
    tracker.num_calls = 100
    learn.fit(cw.Constant(lr=0.1, total_steps=5), callbacks=[track])
    assert tracker.num_starts == 3
    assert tracker.steps == [10, 11, 12, 13, 14, 14]  # once each: what was started before is not there beside it


def test_one_that_cannot_be_started_leaves_none_behind():
    accelerator = Accelerator(cpu=True)
    learn = make_learner(accelerator=accelerator)
    with pytest.warns(UserWarning, match="the trackers could not be started"):
        learn.fit(CONSTANT, callbacks=[cw.Track(Listed(fails_to_start=(1,)))])
    assert accelerator.trackers == []
    assert learn.num_steps == 10


def test_other_exceptions_of_a_tracker_pass_through():
    class Broken(Listed):
        def log(self, values, step=None, **kwargs):
            raise LookupError("no such run")

    with pytest.raises(LookupError, match="no such run"):
        make_learner().fit(CONSTANT, callbacks=[cw.Track(Broken())])


def test_tensorboard_on_a_disk_that_fills_up_goes_on_with_a_new_file(tmp_path):
    # A limit on the size of files is the nearest to a full disk that needs no disk of its own.
    program = (
        "import resource, signal, sys, warnings\n"
        "import cyclewise as cw\n"
        "from tests.training.small_learner import CONSTANT, make_learner\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "learn, track = make_learner(), cw.Track(directory=sys.argv[1], every_steps=1)\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    learn.fit(CONSTANT, callbacks=[track])\n"
        "print(sum('could not be logged' in str(warning.message) for warning in caught), learn.num_steps)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "learn.fit(CONSTANT, callbacks=[track])\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "1 10\n"), run.stderr
    newest = sorted((tmp_path / "cyclewise").iterdir())[-1]
    events = EventAccumulator(str(newest))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(10, 20))
