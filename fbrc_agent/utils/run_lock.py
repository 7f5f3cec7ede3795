"""One run at a time in a directory: an exclusive lock on the file `lock` in it."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from fbrc_agent.utils.errors import InputError

# What file systems without locks answer.
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Lock:
    """A lock that is held."""

    def __init__(self, file: TextIO):
        self._file = file

    def sign(self) -> None:
        """Writes into the file, as JSON, that this process holds it."""
        started = time.strftime("%Y-%m-%d %H:%M:%S %z")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
        self._file.truncate(0)
        self._file.write(json.dumps(owner) + "\n")
        self._file.flush()


@contextlib.contextmanager
def hold(root_dir: str) -> Iterator[Lock]:
    """Holds the lock of a run; makes its directory if needed. A file that is there stays as it is.

    The kernel releases the lock when the process ends, however it ends. The file stays, because a
    process that removed it could remove another one's lock.

    Args:
      root_dir: Directory of the run.

    Raises:
      InputError: If another process holds it.
      OSError: If the directory or the file cannot be written.
    """
    os.makedirs(root_dir, exist_ok=True)
    path = os.path.join(root_dir, "lock")
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{root_dir} is in use by {_owner(file)}; wait until that run ends, or give "
                "another root_dir."
            ) from error
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            print(
                f"{path} cannot be locked on this file system; start no second run in {root_dir}.",
                file=sys.stderr,
            )
        yield Lock(file)


def _owner(file: TextIO) -> str:
    """Returns the owner; the file is empty until the first one signs it."""
    file.seek(0)
    try:
        owner = json.load(file)
        return f"process {owner['pid']} on {owner['host']}, since {owner['started']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
