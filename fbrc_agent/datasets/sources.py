"""`load_dataset`: finds the file that a data source names, and the reader that it gets."""

import os
from typing import Optional

import gin

from fbrc_agent.datasets import checks, download, hdf5
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.environments import tasks
from fbrc_agent.utils.errors import InputError

EMBEDDED_PREFIX = "embedded:"


@gin.configurable
def load_dataset(
    source: str,
    action_bounds: Optional[checks.ActionBounds] = None,
    max_episode_steps: Optional[int] = None,
) -> OfflineData:
    """Loads the transitions of a D4RL-layout HDF5 file.

    The transitions and their order are those of `d4rl.qlearning_dataset`: row i is paired with the
    observation of row i + 1; rows where a time limit cut the episode are left out, since their next
    observation is not in the file, and so is the last row. Like that function, this one does not
    read `next_observations`.

    A file without `timeouts` has its time limits inferred as that function infers them: a row is
    cut when `max_episode_steps` steps have been counted. (It counts the first step after a terminal
    as the second, so there an episode is cut one step early.)

    Args:
      source: Path of the file, a D4RL task id (downloaded if needed), or `embedded:NAME` for a
        file inside this package.
      action_bounds: (minimum, maximum) of the actions, scalars or [A]. Defaults to the file's
        attributes `action_minimum` and `action_maximum`, else to (-1, 1).
      max_episode_steps: Time limit of the environment, for a file without `timeouts`. Defaults to
        the file's attribute `max_episode_steps`, else to 1000.

    Returns:
      The data.

    Raises:
      InputError: If there is no such file or task, or the file is not usable.
    """
    return hdf5.read_d4rl_hdf5(_find_file(source), source, action_bounds, max_episode_steps)


def _find_file(source: str) -> str:
    if not isinstance(source, (str, os.PathLike)) or not str(source):
        raise InputError(
            f"The data source is {source!r}; it must be the path of an HDF5 file, a "
            f"D4RL task id or {EMBEDDED_PREFIX}NAME."
        )
    source = os.fspath(source)
    if source.startswith(EMBEDDED_PREFIX):
        return _find_embedded(source[len(EMBEDDED_PREFIX) :])
    if os.path.isfile(source):
        return source
    if os.sep in source or source.endswith((".hdf5", ".h5")):
        what = "is a directory" if os.path.isdir(source) else "there is no such file"
        raise InputError(f"{source}: {what}; the data source must be an HDF5 file.")
    task = tasks.find_task(source)
    if task is None:
        raise InputError(
            f"{source}: is neither a file nor a D4RL task; {tasks.suggestion(source)}."
        )
    return download.download(task)


def _find_embedded(name: str) -> str:
    directory = os.path.join(os.path.dirname(os.path.abspath(__file__)), "embedded")
    files = os.listdir(directory) if os.path.isdir(directory) else []
    names = sorted(file[: -len(".hdf5")] for file in files if file.endswith(".hdf5"))
    if name not in names:
        raise InputError(
            f"{EMBEDDED_PREFIX}{name}: this package has no such data file; it has "
            f"{', '.join(names) or 'none'}."
        )
    return os.path.join(directory, f"{name}.hdf5")
