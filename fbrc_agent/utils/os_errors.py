"""What the operating system refuses, such as a full disk, in a sentence that says what helps.

Python's errors carry the system's number, `errno`. Those of TensorFlow and HDF5 do not: TensorFlow
has one code, RESOURCE_EXHAUSTED, for a full disk and for too many open files, and HDF5 has none.
Their messages hold the system's words, so this module, and no other, looks for these.
"""

import errno
import os
import re
import shutil
from typing import Any, Optional

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
    errno.EIO: "check the disk, then give the same command again",
    errno.ESTALE: "mount the file system again and give the same command again",
}
# Where in the graph or in the sources TensorFlow met the error.
_PLACES = re.compile(r"\{\{.*?\}\}|\[Op:\w+\]|\[\[.*?\]\]|name:$", re.DOTALL)


def sentence(error: BaseException) -> Optional[str]:
    """Returns what the system refused, of which file, and what helps; None for other errors."""
    error = original(error)
    number = _number(error)
    if number is None:
        return None
    if isinstance(error, shutil.Error):  # Of a copied directory: (source, target, reason) each.
        _, target, _ = error.args[0][0]
        reason = f"{target}: {os.strerror(number)}"
    elif getattr(error, "errno", None) is None:
        text = _PLACES.sub(" ", str(getattr(error, "message", error)))
        reason = " ".join(text.split()).rstrip(".;")
    else:
        filename = getattr(error, "filename", None)
        place = "" if filename is None else f"{os.fsdecode(filename)}: "
        reason = place + os.strerror(number)
    return f"{reason}; {_ADVICE[number]}."


def damage(error: BaseException) -> str:
    """Returns the first line of what a library says of a damaged file.

    Raises:
      BaseException: The error itself, if the system refused to read: that file is not damaged.
    """
    if sentence(error) is not None:
        raise error
    return str(error).strip().split("\n")[0][:200]


def original(error: Any) -> Any:
    """Returns the error that gin caught."""
    return gin_chain(error)[-1]


def gin_chain(error: Any) -> list[Any]:
    """Returns an error, what gin caught to raise it, and so on to the original one.

    gin raises an error again in each configurable call that it leaves, as a subclass of the same
    name with one more line of text.
    """
    chain = [error]
    caught = error.__context__
    while caught is not None and _is_proxy(type(chain[-1]), type(caught)):
        chain.append(caught)
        caught = caught.__context__
    return chain


def _is_proxy(raised: type, caught: type) -> bool:
    return raised.__bases__ == (caught,) and raised.__qualname__ == caught.__qualname__


def _number(error: BaseException) -> Optional[int]:
    number = getattr(error, "errno", None)
    if number is not None:
        return number if number in _ADVICE else None
    has_words = isinstance(error, (OSError, RuntimeError)) or hasattr(error, "error_code")
    text = str(error) if has_words else ""
    return next((number for number in _ADVICE if os.strerror(number) in text), None)
