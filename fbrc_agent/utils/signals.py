"""Ctrl-C and SIGTERM: a run saves a checkpoint first; a second Ctrl-C ends it without one.

Nothing here acts before the command line enters `handlers`.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, Optional

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What sends one Ctrl-C to a group of processes may reach one of them twice, within this.
_ONE_PRESS_SECONDS = 0.3
_PLEASE_WAIT = (
    b"\nInterrupted: saving a checkpoint after the updates under way; Ctrl-C again ends the run "
    b"without one.\n"
)

_handled: list[int] = []
_requested: Optional[int] = None
_requested_at = 0.0
_is_deferring = False


class Interruption(KeyboardInterrupt):
    """A signal asked this process to end.

    Attributes:
      number: The signal.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def requested() -> Optional[int]:
    """Returns the number of the signal that asked this process to end, or None."""
    return _requested


def check() -> None:
    """Raises `Interruption` if a signal has asked for it.

    For work that can be repeated, such as an evaluation, inside of what `deferred` protects.
    """
    if _requested is not None:
        raise Interruption(_requested)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within it the first signal raises nothing; the code inside reads `requested` in time.

    Raises:
      Interruption: At its beginning or end, if a signal has asked for it.
    """
    global _is_deferring
    check()
    renew()
    before, _is_deferring = _is_deferring, True
    try:
        yield
    finally:
        _is_deferring = before
    check()


def renew() -> None:
    """Handles again what a library has taken: TensorFlow takes SIGTERM when it meets a cluster."""
    if threading.current_thread() is threading.main_thread():
        for number in _handled:
            signal.signal(number, _handle)


@contextlib.contextmanager
def handlers() -> Iterator[None]:
    """Handles SIGINT and SIGTERM, and restores the handlers that were there.

    The first signal raises `Interruption` in the main thread, unless that has `deferred` it. A
    SIGINT after it raises KeyboardInterrupt, `deferred` or not. Python runs handlers between its
    own instructions, so a call of TensorFlow that is under way ends first. A signal that was
    ignored, as below `nohup` or in a shell's background job, stays ignored. Outside of the main
    thread nothing is handled.
    """
    global _requested, _handled
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    _handled = [number for number in _SIGNALS if before[number] not in (signal.SIG_IGN, None)]
    renew()
    try:
        yield
    finally:
        for number in _handled:
            signal.signal(number, before[number])
        _handled = []
        _requested = None


def _handle(number: int, frame: Any) -> None:
    global _requested, _requested_at
    del frame
    if _requested is None:
        _requested, _requested_at = number, time.monotonic()
        if not _is_deferring:
            raise Interruption(number)
        with contextlib.suppress(OSError):
            os.write(2, _PLEASE_WAIT)  # `sys.stderr` may be in the middle of a write itself.
    elif number == signal.SIGINT and time.monotonic() - _requested_at > _ONE_PRESS_SECONDS:
        raise KeyboardInterrupt
