"""Ctrl-C between two steps, and not in the middle of one."""

import signal
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """Whether somebody has pressed Ctrl-C since the fit began.

    Attributes:
        pending: yes.
    """

    def __init__(self) -> None:
        self.pending = False


@contextmanager
def interrupts_between_steps() -> Iterator[Interrupts]:
    """Note the first Ctrl-C for the loop to act on after its step; the second one raises at once.

    Does nothing outside the main thread, or where a program has a handler of its own.
    """
    interrupts = Interrupts()
    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not is_ours:
        yield interrupts
        return

    def note(number: int, frame: types.FrameType | None) -> None:
        if interrupts.pending:
            signal.default_int_handler(number, frame)
        interrupts.pending = True

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
