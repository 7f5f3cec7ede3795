"""TensorFlow Serving's layout, NAME/VERSION, of exported policies: numbering, publishing, pruning.

A server that watches NAME loads a version as soon as its directory exists. A version is therefore
written under a name that no server takes for a version, and renamed when it is complete.
"""

import os
import shutil
from typing import Callable, Optional

from fbrc_agent.utils import atomic_files, checks
from fbrc_agent.utils.errors import InputError


def versions(directory: str) -> list[int]:
    """Returns the versions in a directory of exports, in ascending order; none if there is none."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isdecimal())


def newest(directory: str) -> str:
    """Returns the newest NAME/VERSION below NAME; any other directory is returned as it is."""
    found = versions(directory) if os.path.isdir(directory) else []
    return os.path.join(directory, str(found[-1])) if found else directory


def publish(directory: str, version: Optional[int], write: Callable[[str], None]) -> str:
    """Writes a version of a model.

    Args:
      directory: NAME, the model's directory; made if there is none.
      version: The version, 0 or more; None for the one after the newest, from 1 on.
      write: Writes the model into the directory that it is given, which does not exist.

    Returns:
      NAME/VERSION.

    Raises:
      InputError: If the version exists, or NAME is itself the number of a version.
    """
    directory = directory.rstrip("/") or directory
    name = os.path.basename(os.path.abspath(directory))
    if name.isdecimal():
        raise InputError(
            f"{directory} ends in the number of a version; give the directory of the model, "
            f"{os.path.dirname(directory) or '.'}, and the version, {name}, by itself."
        )
    checks.check_integer(f"The version of {directory}", version, low=0, optional=True)
    _check_free(directory, version)
    os.makedirs(directory, exist_ok=True)
    temporary = atomic_files.temporary_name(os.path.join(directory, str(version or "next")))
    try:
        write(temporary)
        while True:
            number = version if version is not None else 1 + max(versions(directory), default=0)
            target = os.path.join(directory, str(number))
            try:
                os.rename(temporary, target)
                return target
            except OSError:  # Another process was faster; rename replaces empty directories only.
                if not os.path.exists(target):
                    raise
                _check_free(directory, version)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def prune(directory: str, keep: int) -> None:
    """Removes all but the newest `keep` versions below `directory`, NAME."""
    for version in versions(directory)[:-keep]:
        atomic_files.remove_directory(os.path.join(directory, str(version)))


def _check_free(directory: str, version: Optional[int]) -> None:
    target = os.path.join(directory, str(version))
    if version is not None and os.path.exists(target):
        raise InputError(f"{target} exists; give the export a version of its own.")
