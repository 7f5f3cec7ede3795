"""D4RL's tasks: data file, environment, reference scores; the verified download of a data file.

A task is named by a D4RL id (`hopper-medium-v2`) or, when there is no D4RL data behind it, by a
Gymnasium id (`Hopper-v4`, `Pendulum-v1`). File addresses and reference scores are D4RL's own
(Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning", arXiv:2004.07219), read
from the table in the installed `d4rl` package.
"""

import dataclasses
import difflib
import functools
import http.client
import importlib.util
import os
import re
import types
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, BinaryIO, Optional, Union

import h5py
import numpy as np

from fbrc_agent.utils import atomic_files, progress
from fbrc_agent.utils.errors import InputError

# D4RL's locomotion tasks run on gym's -v2/-v3 robots; Gymnasium's -v4 are the same dynamics on the
# maintained `mujoco` bindings.
_ENVIRONMENTS = {
    "hopper": "Hopper-v4",
    "halfcheetah": "HalfCheetah-v4",
    "walker2d": "Walker2d-v4",
}

# Pendulum-v1 is not a D4RL task; these are ours, mean returns of 1000 episodes, reset with seeds 0
# to 999. Random: actions uniform in [-2, 2] (standard error 9.1). Expert: the greedy controller of
# a value function computed from the true dynamics by value iteration, discount 0.995, on 401 x 321
# points of angle and velocity (standard error 2.3).
_PENDULUM_REFERENCE_SCORES = (-1230.65, -136.15)

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Task:
    """What is known about a task.

    Attributes:
        id: D4RL or Gymnasium id.
        environment: Gymnasium id of the environment to evaluate in; None where there is none.
        data_url: Address of the HDF5 file; None for a task without D4RL data.
        reference_scores: Raw returns of (a random policy, an expert); None where D4RL has none.
    """

    id: str
    environment: Optional[str]
    data_url: Optional[str]
    reference_scores: Optional[tuple[float, float]]

    def normalized_score(self, returns: Any) -> Union[np.ndarray, np.float64]:
        """D4RL's normalized score, `100 * (return - random) / (expert - random)`.

        Args:
            returns: Raw undiscounted returns, a scalar or an array of any shape.

        Returns:
            Scores of the same shape in float64: 0 is the random policy, 100 the expert.

        Raises:
            InputError: If the task has no reference scores.
        """
        if self.reference_scores is None:
            raise InputError(
                f"Task {self.id!r} has no reference scores in D4RL, so its returns cannot be "
                "normalized; report raw returns."
            )
        random_score, expert_score = self.reference_scores
        returns = np.asarray(returns, np.float64)
        return 100.0 * (returns - random_score) / (expert_score - random_score)


def get_task(task_id: str) -> Task:
    """Looks a task up by its D4RL id or Gymnasium id.

    Args:
        task_id: For example 'hopper-medium-v2', 'Hopper-v4' or 'Pendulum-v1'.

    Returns:
        The task. D4RL tasks other than hopper, halfcheetah and walker2d have data and (mostly)
        reference scores, and None as environment.

    Raises:
        InputError: If the id is not known; the message lists the closest ones.
    """
    if task_id == "Pendulum-v1":
        return Task(task_id, task_id, None, _PENDULUM_REFERENCE_SCORES)
    infos = _d4rl_infos()
    for robot, environment in _ENVIRONMENTS.items():
        if task_id == environment:
            return Task(task_id, environment, None, _reference_scores(infos, f"{robot}-medium-v2"))
    if task_id in infos.DATASET_URLS:
        match = re.match(r"(hopper|halfcheetah|walker2d)-", task_id)
        environment_id = _ENVIRONMENTS[match.group(1)] if match else None
        return Task(
            task_id, environment_id, infos.DATASET_URLS[task_id], _reference_scores(infos, task_id)
        )
    raise InputError(f"Task {task_id!r} is not known; {_suggestion(str(task_id), infos)}.")


def _suggestion(task_id: str, infos: types.ModuleType) -> str:
    known: list[str] = ["Pendulum-v1", *_ENVIRONMENTS.values(), *infos.DATASET_URLS]
    by_lower: dict[str, str] = {name.lower(): name for name in known}
    close = difflib.get_close_matches(task_id.lower(), by_lower, n=4)
    if close:
        return "did you mean " + " or ".join(by_lower[name] for name in close)
    return "use a D4RL id such as hopper-medium-v2, or one of " + ", ".join(
        ["Pendulum-v1", *_ENVIRONMENTS.values()]
    )


def _reference_scores(infos: types.ModuleType, task_id: str) -> Optional[tuple[float, float]]:
    if task_id not in infos.REF_MIN_SCORE or task_id not in infos.REF_MAX_SCORE:
        return None
    return float(infos.REF_MIN_SCORE[task_id]), float(infos.REF_MAX_SCORE[task_id])


@functools.cache
def _d4rl_infos() -> types.ModuleType:
    """D4RL's tables, `d4rl.infos`, without importing `d4rl`.

    `import d4rl` imports its simulators and fails where mujoco_py is installed without MuJoCo 2.1;
    the tables alone need neither.
    """
    package = importlib.util.find_spec("d4rl")
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "The package d4rl, which holds the table of tasks, is not installed; "
            "install it with: pip install d4rl==1.1"
        )
    path = os.path.join(list(package.submodule_search_locations)[0], "infos.py")
    spec = importlib.util.spec_from_file_location("fbrc_agent._d4rl_infos", path)
    assert spec is not None and spec.loader is not None
    infos = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(infos)
    return infos


def default_cache_dir() -> str:
    """Where data files are kept: $FBRC_DATA_DIR, $D4RL_DATASET_DIR or D4RL's own default."""
    return (
        os.environ.get("FBRC_DATA_DIR")
        or os.environ.get("D4RL_DATASET_DIR")
        or os.path.expanduser("~/.d4rl/datasets")
    )


def download(task: Task, cache_dir: Optional[str] = None) -> str:
    """Downloads the data file of a task, unless the cache already has it.

    The body goes to a temporary name, is checked against its announced length and opened as HDF5,
    and only then takes its final name, so that a file in the cache is a whole file. A failed
    download leaves nothing behind and starts over next time.

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
    cache_dir = cache_dir or default_cache_dir()
    path = os.path.join(cache_dir, name)
    if os.path.exists(path) and _hdf5_problem(path) is None:
        return path
    try:
        os.makedirs(cache_dir, exist_ok=True)
        with atomic_files.replacing(path) as temporary:
            with open(temporary, "xb") as file:
                _fetch(task.data_url, file, name)
            problem = _hdf5_problem(temporary)
            if problem:
                raise _download_error(task.data_url, f"the body is not an HDF5 file: {problem}")
    except OSError as error:
        raise InputError(
            f"Cannot write {path!r} ({error}); set FBRC_DATA_DIR to a directory that "
            "can be written."
        ) from error
    return path


def _fetch(url: str, file: BinaryIO, name: str) -> None:
    """Streams the body of `url` into `file`; raises InputError unless it arrives whole."""
    try:
        response = urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS)
    except (OSError, http.client.HTTPException) as error:
        raise _download_error(url, _reason(error)) from error
    with response:
        if urllib.parse.urlsplit(response.geturl()).scheme not in ("http", "https"):
            raise _download_error(url, f"it redirects to {response.geturl()}")
        length = response.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        received = 0
        with progress.make_bar(total=total, desc=name, unit="B", unit_scale=True) as bar:
            while True:
                try:
                    chunk = response.read(_CHUNK_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    raise _download_error(url, _reason(error)) from error
                if not chunk:
                    break
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
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


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", error)) or type(error).__name__


def _download_error(url: str, reason: str) -> InputError:
    return InputError(
        f"Cannot download {url} ({reason}); try again later, or fetch the file by "
        "other means and pass DATA=path."
    )
