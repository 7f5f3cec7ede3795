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

from fbrc_agent.utils.errors import InputError

_LOCK = "lock"
# What file systems without locks answer.
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Lock:
    """A lock that is held."""

    def __init__(self, descriptor: int, path: str):
        self._descriptor, self._path = descriptor, path

    def sign(self) -> None:
        """Writes into the file, as JSON, that this process holds it."""
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        _write(self._descriptor, self._path, json.dumps(owner) + "\n")


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
    path = os.path.join(root_dir, _LOCK)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _lock(descriptor, root_dir, path)
        yield Lock(descriptor, path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, root_dir: str, path: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"{root_dir} is in use by {_owner(descriptor)}; wait until that run ends, or give "
            "another root_dir."
        ) from error
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise OSError(error.errno, error.strerror, path) from error
        print(
            f"{path} cannot be locked on this file system; start no second run in {root_dir}.",
            file=sys.stderr,
        )


def _owner(descriptor: int) -> str:
    """Returns the owner; the file is empty until the first one signs it."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {owner['pid']} on {owner['host']}, since {owner['started']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _write(descriptor: int, path: str, text: str) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
    except OSError as error:  # Those of a descriptor do not name the file.
        raise OSError(error.errno, error.strerror, path) from error
