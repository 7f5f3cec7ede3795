"""Minari data sets, by id or by folder, in its HDF5 and its Arrow format.

Minari keeps each episode's last observation, so no step is left out.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import numpy as np

from fbrc_agent.datasets import checks, optional, rows, spaces
from fbrc_agent.utils.errors import InputError

PREFIX = "minari:"


def is_minari(path: str) -> bool:
    """Whether a folder, or the folder of a file, is a data set of Minari's."""
    return _data_path(path) is not None


def _data_path(path: str) -> Optional[str]:
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    is_main = os.path.isdir(path) or os.path.basename(path) == "main_data.hdf5"
    for data_path in (os.path.join(folder, "data"), folder) if is_main else ():
        if os.path.isfile(os.path.join(data_path, "metadata.json")):
            return data_path
    return None


def read(source: str, columns: Optional[Mapping[str, Any]] = None) -> rows.Rows:
    """Reads the rows of a data set.

    Args:
      source: `minari:` and the id, which is downloaded if it is not on this machine; or its folder.
      columns: `observations`, a list of keys, where an observation is a dict: their values are
        joined. No other name.

    Returns:
      The rows; numbers of rows count each episode's last observation as one.

    Raises:
      InputError: If the data set is not usable, or its actions are discrete.
    """
    library = optional.require("minari", "minari", f"{source}: a Minari data set")
    keys = spaces.observation_keys(source, columns)
    with _errors(source):
        if source.startswith(PREFIX):
            dataset = library.load_dataset(source[len(PREFIX) :], download=True)
        else:
            dataset = library.MinariDataset(_data_path(source))
        bounds = spaces.box_bounds(source, dataset.action_space)
        episodes = (_episode(source, episode, keys) for episode in dataset.iterate_episodes())
        result = rows.from_episodes(source, episodes, bounds)
        expected = int(dataset.total_steps)
    if len(result) != expected + np.count_nonzero(result.ends):
        raise InputError(
            f"{source}: has {len(result) - np.count_nonzero(result.ends)} steps; it must have as "
            f"many as its metadata says, {expected}."
        )
    return result


def _episode(source: str, episode: Any, keys: Optional[tuple[str, ...]]) -> tuple[Any, ...]:
    place = f"{source}: episode {episode.id}"
    flags = {"terminations": episode.terminations, "truncations": episode.truncations}
    for key, flag in flags.items():
        checks.check_flags(place, key, np.asarray(flag))
        if np.any(flag[:-1]):
            raise InputError(
                f"{place} has {key} before its last step, in step {int(np.argmax(flag))}; an "
                "episode must end where it is terminated or truncated."
            )
    observations = spaces.join(place, episode.observations, keys)
    return observations, episode.actions, episode.rewards, 1.0 - np.asarray(flags["terminations"])


@contextlib.contextmanager
def _errors(source: str) -> Iterator[None]:
    """Turns what Minari, its storage and its downloads raise into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Minari documents none; h5py, pyarrow and HTTP clients add theirs.
        raise InputError(
            f"{source}: cannot be read as a Minari data set ({checks.reason(error)})."
        ) from error
