"""`load_dataset`: the one door to data; it chooses a reader by what the source is."""

import glob
import logging
import os
from collections.abc import Mapping
from typing import Any, Optional

import gin

from fbrc_agent.datasets import (
    checks,
    download,
    hdf5,
    inspection,
    minari,
    rlds,
    tables,
    transitions,
)
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.datasets.rows import Rows
from fbrc_agent.environments import tasks
from fbrc_agent.utils.errors import InputError

EMBEDDED_PREFIX = "embedded:"

_HDF5 = (".hdf5", ".h5")
_TABLES = (".csv", ".parquet", ".npz")
_TFRECORDS = (".tfrecord", ".tfrecords")

# What a folder is searched for.
_DATA_FILES = (*_HDF5, *_TABLES, *_TFRECORDS)

_KINDS = (
    "the path of a file (HDF5, npz, CSV, Parquet, TFRecords), a folder or a pattern of these, a "
    f"list of them, a D4RL task id, {EMBEDDED_PREFIX}NAME, {minari.PREFIX}ID, {rlds.PREFIX}NAME, a "
    "pandas frame or a dict of arrays"
)


@gin.configurable
def load_dataset(
    source: Any,
    action_bounds: Optional[checks.ActionBounds] = None,
    max_episode_steps: Optional[int] = None,
    columns: Optional[Mapping[str, Any]] = None,
    next_observations: str = "check",
    clip_actions: bool = False,
) -> OfflineData:
    """Loads transitions from a log of any format, and logs what in it may spoil training.

    The next observation of a row is the file's own where it has one, else the next row's of the
    same episode. A row that a time limit cut, or the end of the file, is left out where its next
    observation is not in the file. A terminal row needs none and is kept, with discount 0.

    D4RL's files have no next observations of their own, or are read as if they had none when they
    are named by their task: then the transitions and their order are those of
    `d4rl.qlearning_dataset`. A file of D4RL's layout without `timeouts` has its time limits
    inferred as that function infers them: a row is cut when `max_episode_steps` steps have been
    counted. (It counts the first step after a terminal as the second, so there an episode is cut
    one step early.)

    Args:
      source: Path of a file: D4RL-layout HDF5, npz, CSV, Parquet, or TF-Agents' TFRecords with the
        file of specs beside it. A folder or a pattern (`logs/*.csv`) of such files, or a list of
        sources: one data set, in which no episode continues from one file to the next. The folder
        of a Minari or RLDS data set. A D4RL task id (downloaded if needed), `embedded:NAME` for a
        file inside this package, `minari:ID`, `tfds:NAME`. A pandas frame or a dict of arrays.
      action_bounds: (minimum, maximum) of the actions, scalars or [A]. Defaults to those that the
        source records (HDF5's attributes `action_minimum` and `action_maximum`, the spaces or specs
        of Minari and TF-Agents), else to (-1, 1).
      max_episode_steps: Time limit of the environment, for a log that has terminals, but neither
        `timeouts`, episodes nor next observations. Defaults to the HDF5 file's attribute
        `max_episode_steps`, else to 1000 for HDF5, and to none for other formats.
      columns: What the source calls its columns, where its names are not `observations`, `actions`,
        `rewards`, `next_observations`, `terminals` (or `terminations`), `timeouts` (or
        `truncations`), `episodes`. Of a table: a column, a prefix that ends with *, or a list of
        columns, such as {'observations': 'state_*', 'actions': ['force'], 'episodes': 'run'}. Of
        observations that are dicts (Minari, RLDS, TF-Agents): the keys to join.
      next_observations: 'check' refuses a file whose own next observation is not the observation of
        the next row of the same episode; 'use' takes the file's own and begins an episode there, as
        rows in no order need; 'ignore' takes the next row's.
      clip_actions: Whether actions outside their bounds are clipped rather than refused.

    Returns:
      The data; `findings` are what was logged.

    Raises:
      InputError: If there is no such source, or it is not usable.
    """
    if next_observations not in ("check", "use", "ignore"):
        raise InputError(
            f"load_dataset.next_observations is {next_observations!r}; it must be 'check', 'use' "
            "or 'ignore'."
        )
    checks.check_limit("load_dataset", max_episode_steps)
    reader = _Reader(columns, max_episode_steps, next_observations != "ignore")
    name = _name(source)
    trust_next = next_observations == "use"
    try:
        parts = reader.read(source)
        data = transitions.pair(parts, name, action_bounds, clip_actions, trust_next)
    except MemoryError as error:
        raise InputError(f"{name}: does not fit into memory ({checks.reason(error)}).") from error
    for sentence in inspection.sentences(data.findings):
        logging.warning("%s: %s", name, sentence)
    return data


def _name(source: Any) -> str:
    """Returns what records call a source: as it was given, where that is text."""
    if isinstance(source, (list, tuple)):
        return ", ".join(map(_name, source))
    if isinstance(source, Mapping):
        return "arrays"
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else type(source).__name__


class _Reader:
    """Reads sources with the arguments of `load_dataset` that concern reading."""

    def __init__(
        self,
        columns: Optional[Mapping[str, Any]],
        max_episode_steps: Optional[int],
        use_next_observations: bool,
    ) -> None:
        self._columns = columns
        self._arguments = (columns, max_episode_steps, use_next_observations)

    def read(self, source: Any) -> list[Rows]:
        """Returns the rows of each file of a source."""
        if isinstance(source, (list, tuple)) and source:
            return [part for item in source for part in self.read(item)]
        if tables.is_table(source):
            return [tables.read(source, *self._arguments)]
        if not isinstance(source, (str, os.PathLike)) or not str(source):
            raise InputError(f"The data source is {source!r}; it must be {_KINDS}.")
        source = os.fspath(source)
        if source.startswith(EMBEDDED_PREFIX):
            path = _find_embedded(source[len(EMBEDDED_PREFIX) :])
            return [hdf5.read(path, *self._arguments)]
        if source.startswith(minari.PREFIX):
            return [minari.read(source, self._columns)]
        if source.startswith(rlds.PREFIX):
            return [rlds.read(source, self._columns)]
        path = os.path.expanduser(source)
        if os.path.isdir(path):
            return self._read_folder(path)
        if os.path.isfile(path):
            return [self._read_file(path)]
        if glob.has_magic(path):
            return self._read_files(sorted(filter(os.path.isfile, glob.glob(path))), source)
        return [hdf5.read(_download(source), *self._arguments, as_d4rl=True)]

    def _read_folder(self, path: str) -> list[Rows]:
        if minari.is_minari(path):
            return [minari.read(path, self._columns)]
        if rlds.is_tfds(path):
            return [rlds.read(path, self._columns)]
        if os.path.isfile(os.path.join(path, "meta", "info.json")):
            path = os.path.join(path, "data")  # LeRobot's; its other tables describe this one.
        files = glob.glob(os.path.join(glob.escape(path), "**"), recursive=True)
        return self._read_files(sorted(file for file in files if _is_data(file)), path)

    def _read_files(self, paths: list[str], source: str) -> list[Rows]:
        if not paths:
            what = "is a directory with" if os.path.isdir(source) else "matches"
            raise InputError(
                f"{source}: {what} no data file; it must have files that end with "
                f"{', '.join(_DATA_FILES)}."
            )
        return [self._read_file(path) for path in paths]

    def _read_file(self, path: str) -> Rows:
        if path.endswith(_TABLES):
            return tables.read(path, *self._arguments)
        if path.endswith(_TFRECORDS) or os.path.isfile(f"{path}.spec"):
            from fbrc_agent.datasets import trajectories  # Here: other data needs no TensorFlow.

            return trajectories.read(path, self._columns)
        if minari.is_minari(path):
            return minari.read(path, self._columns)
        return hdf5.read(path, *self._arguments)


def _is_data(path: str) -> bool:
    return os.path.isfile(path) and (path.endswith(_DATA_FILES) or os.path.isfile(f"{path}.spec"))


def _download(source: str) -> str:
    """Returns the path of the file of a D4RL task."""
    if os.sep in source or source.endswith(_DATA_FILES):
        raise InputError(f"{source}: there is no such file; the data source must be {_KINDS}.")
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
