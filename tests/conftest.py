import os
import signal

# One thread: the same bits on every machine, and two test processes do not fight over two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch
from hypothesis import settings

# A shell that starts the tests in the background has SIGINT ignored, and the tests of Ctrl-C send it to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", max_examples=100, deadline=None)
settings.register_profile("long", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def _one_thread_a_seed_and_gradients():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    was_enabled = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert was_enabled, "this test, or what it tests, has left gradients off"
