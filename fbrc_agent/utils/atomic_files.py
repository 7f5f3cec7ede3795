"""Atomic writes of files and directories: under a temporary name, then renamed."""

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator

from fbrc_agent.utils.errors import InputError

_TEMPORARY = re.compile(r".+\.(\d+)\.tmp")


def temporary_name(path: str) -> str:
    """Returns a unique name for a file or directory that will be `path`: `path`.ID.PID.tmp."""
    return f"{path}.{uuid.uuid4().hex[:8]}.{os.getpid()}.tmp"


def check_path(path: str) -> None:
    """Refuses a path at which no file can be written, before the work that makes the file.

    Raises:
      InputError: If it is a directory, or is in none that can be written.
    """
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(directory) or not os.access(directory, os.W_OK):
        raise InputError(
            f"{path}: cannot be written; it must be the name of a file in a directory that is "
            "there and can be written."
        )


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """Gives errors of the system that name no file, as those of a write to a full disk, `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yields the `temporary_name` of a file that becomes `path` when the block ends.

    If the block raises, the temporary file is removed and `path` stays as it was.

    Raises:
      InputError: If there is no directory for it.
    """
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise InputError(f"{path}: cannot be written (No such file or directory: {directory}).")
    temporary = temporary_name(path)
    try:
        with named(path):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


@contextlib.contextmanager
def replacing_directory(path: str) -> Iterator[str]:
    """Yields a new directory that becomes `path` when the block ends; removed if it raises."""
    temporary = temporary_name(path)
    os.makedirs(temporary)
    try:
        with named(path):
            yield temporary
        remove_directory(path)
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_directory(path: str) -> None:
    """Removes a directory, if it is there; renamed first, so that nobody finds half of it."""
    if os.path.isdir(path):
        temporary = temporary_name(path)
        os.rename(path, temporary)
        shutil.rmtree(temporary)


def write_text(path: str, content: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(content)


def remove_leftovers(directory: str) -> None:
    """Removes what killed processes wrote under temporary names, `NAME.PID.tmp`, below it."""
    for parent, subdirectories, files in os.walk(directory):
        for name in [*subdirectories, *files]:
            match = _TEMPORARY.fullmatch(name)
            if match and not _is_running(int(match.group(1))):
                path = os.path.join(parent, name)
                shutil.rmtree(path) if name in subdirectories else os.remove(path)
        subdirectories[:] = [n for n in subdirectories if not _TEMPORARY.fullmatch(n)]


def _is_running(pid: int) -> bool:
    """Returns whether another process has this number; the process that asks has not written."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid != os.getpid()
