"""Ctrl-C wherever it comes: what it leaves on the disk is a whole step, or what was there before."""

import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise.state import seed_everything
from cyclewise.training import bundle
from tests.training.cut_off import LOADERS, bits, records, same

FILES = {"run.py", "stepping.py", "place.py", "boundary.py", "averaging.py", "learner.py", "recorder.py"}
# Two epochs, the second cut short.
POLICY = cw.OneCycle(max_lr=0.1, total_steps=8, base_momentum=0.85, max_momentum=0.95)


class Counts(cw.Callback):
    """Has a state that every hook moves."""

    def __init__(self):
        self.calls = {}

    def _count(self, name):
        self.calls[name] = self.calls.get(name, 0) + 1

    def on_gradients(self, learner, batches):
        self._count("gradients")

    def on_step_end(self, learner, step, loss):
        self._count("step")

    def on_epoch_end(self, learner, epoch):
        self._count("epoch")

    def state_dict(self):
        return dict(self.calls)

    def load_state_dict(self, state):
        self.calls = dict(state)


class CountsValidations(Counts):
    def on_validation_start(self, learner):
        self._count("start")

    def on_validation_end(self, learner):
        self._count("end")


def make_learner(loader, **options):
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    return cw.Learner(model, LOADERS[loader](), progress=False, clip="auto", **options)


def fit(learn, counts, *callbacks):
    average = cw.WeightAverage(0.9)
    kept = [average, counts] if isinstance(counts, CountsValidations) else [counts]
    learn.fit(POLICY, callbacks=[*kept, *callbacks])
    return learn


class InterruptAtLine:
    """Raises KeyboardInterrupt at the n-th line that the training loop runs, as a second Ctrl-C does."""

    def __init__(self, line=sys.maxsize):
        self.left = line

    def __enter__(self):
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exception):
        sys.settrace(None)

    def _trace(self, frame, event, argument):
        path = Path(frame.f_code.co_filename)
        is_ours = path.name in FILES and "cyclewise" in path.parts
        return self._line if is_ours else None

    def _line(self, frame, event, argument):
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._line


@pytest.mark.parametrize("counts", [Counts, CountsValidations])
@pytest.mark.parametrize(("loader", "accumulation_steps"), [("arrays", 1), ("own generator", 3), ("augmented", 1)])
def test_an_interrupt_at_any_line_is_resumed_with_the_same_bits(tmp_path, loader, accumulation_steps, counts):
    def learner():
        return make_learner(loader, accumulation_steps=accumulation_steps)

    whole, expected = learner(), counts()
    with InterruptAtLine() as trace:
        fit(whole, expected, cw.Checkpoint(tmp_path / "whole", every_steps=1000))
    num_lines = sys.maxsize - trace.left
    num_written = num_missing = 0
    for line in range(num_lines // 4, num_lines, num_lines // 45):
        directory = tmp_path / str(line)
        learn = learner()
        with pytest.raises(KeyboardInterrupt), InterruptAtLine(line):
            fit(learn, counts(), cw.Checkpoint(directory, every_steps=1000))
        # The line may have been the end of a block, before what the block had set was put back.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_grad_enabled(True)
        if not bundle.find(directory):
            num_missing += 1
            continue
        num_written += 1
        later, found = learner(), counts()
        assert later.resume(directory) > 0
        fit(later, found, cw.Checkpoint(directory, every_steps=1000))
        assert records(later.history) == records(whole.history), line
        assert same(bits(later), bits(whole)), line
        assert found.calls in (expected.calls, {}), line  # a fit that had ended calls nobody
    assert min(num_written, num_missing) > 3, (num_written, num_missing)


class Raises(cw.Callback):
    def __init__(self, hook, at_call):
        self.left = at_call
        self.hook = hook

    def on_step_end(self, learner, step, loss):
        if self.hook == "step":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def on_epoch_end(self, learner, epoch):
        if self.hook == "epoch":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("hook", "at_call", "steps"), [("step", 2, 2), ("step", 5, 5), ("step", 8, 8), ("epoch", 1, 5)]
)
def test_a_callback_that_raises_it_stops_after_the_step_for_all(tmp_path, hook, at_call, steps):
    def fit(learn, raises, counts, directory):
        learn.fit(POLICY, callbacks=[raises, cw.WeightAverage(0.9), counts, cw.Checkpoint(directory, every_steps=1000)])

    whole, expected = make_learner("augmented"), Counts()
    fit(whole, Raises(hook, 0), expected, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(make_learner("augmented"), Raises(hook, at_call), Counts(), tmp_path / "cut")
    later, found = make_learner("augmented"), Counts()
    assert later.resume(tmp_path / "cut") == steps
    fit(later, Raises(hook, 0), found, tmp_path / "cut")
    assert same(bits(later), bits(whole))
    assert found.calls == expected.calls
