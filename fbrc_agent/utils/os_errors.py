"""What the machine refuses, such as a full disk, in one sentence that says what to do about it."""

import errno
import os
import re
from typing import Optional

_SPACE = "free some space and give the same command again"
_RIGHTS = "give a place that can be written"
_ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "raise the limit of a file's size (ulimit -f) and give the same command again",
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOTDIR: "give a path whose parents are directories",
    errno.EEXIST: "give another path",
    errno.EMFILE: "raise the limit of open files (ulimit -n) and give the same command again",
    errno.ENFILE: "close other programs and give the same command again",
    errno.EIO: "look after the disk, then give the same command again",
    errno.ESTALE: "mount the file system anew and give the same command again",
}
# Where in the graph or in the sources a library met the error.
_PLACES = re.compile(r"\{\{.*?\}\}|\[Op:\w+\]|\[\[.*?\]\]|name:$", re.DOTALL)


def sentence(error: BaseException) -> Optional[str]:
    """Returns what the machine refused, of which file, and what helps; None for other errors.

    TensorFlow and HDF5 have errors of their own; the system's words are in their messages.
    """
    error = _original(error)
    number = _number(error)
    if number is None:
        return None
    reason, advice = os.strerror(number), _ADVICE[number]
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {reason}; {advice}."
    text = " ".join(_PLACES.sub(" ", str(getattr(error, "message", error))).split())
    if isinstance(error, OSError) and error.errno == number and error.strerror == reason:
        text = reason
    return f"{text.rstrip('.;')}; {advice}."


def damage(error: BaseException) -> str:
    """Returns the beginning of what a library says of a damaged file; TensorFlow says many lines.

    Raises:
      BaseException: The error itself, if the machine refused to read: that file is not damaged.
    """
    if sentence(error) is not None:
        raise error
    return str(error).strip().split("\n")[0][:200]


def _original(error: BaseException) -> BaseException:
    """Returns what gin caught: it raises errors again as ones without arguments."""
    caught = error.__context__
    while caught is not None and _is_proxy(error, caught):
        error, caught = caught, caught.__context__
    return error


def _is_proxy(error: BaseException, caught: BaseException) -> bool:
    return type(caught) in type(error).__mro__[1:] and str(error).startswith(str(caught))


def _number(error: BaseException) -> Optional[int]:
    if isinstance(error, OSError) and error.errno in _ADVICE:
        return error.errno
    if not isinstance(error, Exception):
        return None
    text = str(error)
    return next((number for number in _ADVICE if os.strerror(number) in text), None)
