"""Progress of long work: a bar in a terminal; in a log, a line every half minute."""

import sys
import time
from typing import Any, TextIO

import tqdm

_TERMINAL_SECONDS = 0.5  # Between two updates of a bar.
_LOG_SECONDS = 30.0  # Between two lines in a log.


def make_bar(**arguments: Any) -> tqdm.tqdm:
    """Returns a bar on standard error, drawn in place; if that is no terminal, as lines.

    The arguments are tqdm's: `total`, `initial`, `desc`, `unit` and others. The clock is monotonic;
    tqdm's own is the time of day, which may be set back.
    """
    if sys.stderr.isatty():
        arguments.update(dynamic_ncols=True, mininterval=_TERMINAL_SECONDS)
    else:
        arguments.update(file=_Lines(sys.stderr), mininterval=_LOG_SECONDS)
    bar: tqdm.tqdm = tqdm.tqdm(**arguments)
    if not bar.disable:
        bar._time = time.monotonic
        bar.start_t = bar.last_print_t = time.monotonic()
    return bar


class _Lines:
    """A text file that writes what tqdm draws in place as lines, equal ones once."""

    def __init__(self, file: TextIO):
        self._file = file
        self._last = ""
        self.encoding = file.encoding  # From which tqdm chooses its characters.

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line and line != self._last:
            self._file.write(line + "\n")
            self._last = line

    def flush(self) -> None:
        self._file.flush()
