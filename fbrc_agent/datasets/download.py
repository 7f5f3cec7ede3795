"""The verified download of a task's data file."""

import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Optional

import h5py

from fbrc_agent.environments.tasks import Task
from fbrc_agent.utils import atomic_files, progress
from fbrc_agent.utils.errors import InputError

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60.0


def download(task: Task, cache_dir: Optional[str] = None) -> str:
    """Downloads the data file of a task, unless the cache already has it.

    The body goes to a temporary name, is checked against its announced length and opened as HDF5,
    and only then takes its final name, so that a file in the cache is complete. A failed download
    leaves nothing behind and starts over next time.

    Args:
      task: A task with a `data_url`.
      cache_dir: Directory of the data files; created if needed. Defaults to `$FBRC_DATA_DIR`,
        `$D4RL_DATASET_DIR` or `~/.d4rl/datasets`.

    Returns:
      Path of the file.

    Raises:
      InputError: If the task has no data, or the download or the writing fails.
    """
    if task.data_url is None:
        raise InputError(f"Task {task.id!r} has no D4RL data file; pass DATA=path of an HDF5 file.")
    url = urllib.parse.urlsplit(task.data_url)
    name = os.path.basename(url.path)
    if url.scheme not in ("http", "https") or not name:
        raise InputError(
            f"Data address {task.data_url!r} of task {task.id!r} is not an http or "
            "https address of a file; pass DATA=path of an HDF5 file."
        )
    directory = cache_dir or os.environ.get("FBRC_DATA_DIR") or os.environ.get("D4RL_DATASET_DIR")
    directory = directory or os.path.expanduser("~/.d4rl/datasets")
    path = os.path.join(directory, name)
    if os.path.exists(path) and _hdf5_problem(path) is None:
        return path
    try:
        os.makedirs(directory, exist_ok=True)
        with atomic_files.replacing(path) as temporary:
            with open(temporary, "xb") as file:
                file.writelines(_receive(task.data_url, name))
            problem = _hdf5_problem(temporary)
            if problem:
                raise _download_error(task.data_url, f"the body is not an HDF5 file: {problem}")
    except OSError as error:
        raise InputError(
            f"Cannot write {path!r} ({error}); set FBRC_DATA_DIR to a directory that "
            "can be written."
        ) from error
    return path


def _receive(url: str, name: str) -> Iterator[bytes]:
    """Yields the body of `url` in pieces; raises InputError unless it arrives completely."""
    received = 0
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            if urllib.parse.urlsplit(response.geturl()).scheme not in ("http", "https"):
                raise _download_error(url, f"it redirects to {response.geturl()}")
            length = response.headers.get("Content-Length")
            total = int(length) if length and length.isdigit() else None
            with progress.make_bar(total=total, desc=name, unit="B", unit_scale=True) as bar:
                while chunk := response.read(_CHUNK_BYTES):
                    received += len(chunk)
                    bar.update(len(chunk))
                    yield chunk
    except urllib.error.HTTPError as error:
        raise _download_error(url, f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise _download_error(url, reason) from error
    if total is not None and received != total:
        raise _download_error(url, f"the body ended after {received} of {total} bytes")


def _hdf5_problem(path: str) -> Optional[str]:
    """What keeps the file from being opened as HDF5, truncation included; None if nothing does."""
    try:
        with h5py.File(path, "r") as file:
            list(file)
    except OSError as error:
        return str(error)
    return None


def _download_error(url: str, reason: str) -> InputError:
    return InputError(
        f"Cannot download {url} ({reason}); try again later, or fetch the file by other means and "
        "pass DATA=path."
    )
