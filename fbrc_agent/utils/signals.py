"""Ctrl-C and SIGTERM: what runs comes to a good end first, or at once if asked a second time.

Nothing here acts before the command line enters `handlers`.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Optional

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What sends one Ctrl-C to a group of processes may reach one of them twice, within this.
_ONE_PRESS_SECONDS = 0.3
_PLEASE_WAIT = (
    b"\nInterrupted: saving a checkpoint after the updates under way; Ctrl-C again ends at once.\n"
)

_handled: list[int] = []
_requested: Optional[int] = None
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

    For work that is given up without loss, in the middle of what `deferred` protects.
    """
    if _requested is not None:
        raise Interruption(_requested)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within it a signal raises nothing: whoever enters it looks at `requested` in time.

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
    """Handles SIGINT and SIGTERM, and leaves the handlers as they were.

    The first of them raises `Interruption` in the main thread, unless that has `deferred` it. A
    SIGINT after it ends the process with code 130, whatever it is doing, also if it is in a call of
    TensorFlow that does not return. A signal that was ignored, as it is below `nohup` or in a
    shell's background job, still is. Outside the main thread nothing is handled.
    """
    global _requested, _handled
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    # Python's handlers run in the main thread, when it comes back from TensorFlow. What has to
    # happen whether or not it does is for a thread that reads the numbers of the signals.
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(receiver,), daemon=True)
    watcher.start()
    descriptor = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    _handled = [number for number in _SIGNALS if before[number] not in (signal.SIG_IGN, None)]
    renew()
    try:
        yield
    finally:
        for number in _handled:
            signal.signal(number, before[number])
        _handled = []
        signal.set_wakeup_fd(descriptor)
        sender.close()
        watcher.join()
        receiver.close()
        _requested = None


def _handle(number: int, frame: Any) -> None:
    global _requested
    del frame
    if _requested is not None:
        return
    _requested = number
    if not _is_deferring:
        raise Interruption(number)
    with contextlib.suppress(OSError):
        os.write(2, _PLEASE_WAIT)  # `sys.stderr` may be in the middle of a write itself.


def _watch(receiver: socket.socket) -> None:
    first: Optional[float] = None
    while True:
        received = receiver.recv(1)
        if not received:
            return
        if received[0] not in _SIGNALS:
            continue
        if first is None:
            first = time.monotonic()
        elif received[0] == signal.SIGINT and time.monotonic() - first > _ONE_PRESS_SECONDS:
            os._exit(128 + signal.SIGINT)
