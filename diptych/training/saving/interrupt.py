"""Stopping between two steps, where everything fits together, and not inside one.

Exit codes of the command line: 130 after Ctrl-C (SIGINT), 143 after SIGTERM, which is what cluster managers send
before they take a machine away. In both cases the run has been saved and goes on with --resume.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM has ended the run, as Ctrl-C would have."""

    exit_code = 128 + signal.SIGTERM


class StopRequest:
    """Whether the run has been asked to stop, and by which signal.

    number: of the signal, 0 while there was none. Several processes stop at the same step when each of them acts on
    the largest number of all.
    """

    def __init__(self) -> None:
        self.number = 0

    @property
    def made(self) -> bool:
        return self.number != 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.made:
            raise interruption(number)
        self.number = number


def interruption(number: int) -> KeyboardInterrupt:
    """Return the exception that stands for a signal."""
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


@contextlib.contextmanager
def on_interrupt() -> Iterator[StopRequest]:
    """Give a context that notes the first SIGINT or SIGTERM for the loop to act on; the second interrupts at once.

    Outside the main thread, where Python has no signals, nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
