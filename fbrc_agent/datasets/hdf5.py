"""HDF5 files in D4RL's layout: rows of consecutive episodes, one dataset per quantity."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import h5py
import numpy as np

from fbrc_agent.datasets import checks, rows
from fbrc_agent.datasets.inspection import Finding
from fbrc_agent.utils import atomic_files
from fbrc_agent.utils.errors import InputError

# What D4RL's files hold; the older ones have no `timeouts`.
_REQUIRED = ("observations", "actions", "rewards", "terminals")
_FLAGS = ("terminals", "timeouts")

# The limit of every D4RL locomotion task, for its first files, which have no `timeouts`.
_DEFAULT_MAX_EPISODE_STEPS = 1000


def read(
    path: str,
    columns: Optional[Mapping[str, Any]] = None,
    max_episode_steps: Optional[int] = None,
    use_next_observations: bool = True,
    as_d4rl: bool = False,
) -> rows.Rows:
    """Reads the rows of a file; its arrays stay in the file until they are paired.

    Args:
      path: Name of the file.
      columns: Keys of the file by the names of `rows.NAMES`, where they are others.
      max_episode_steps: As of `load_dataset`.
      use_next_observations: Whether the file's own next observations are read.
      as_d4rl: Whether rows become exactly the transitions of `d4rl.qlearning_dataset`, which reads
        neither next observations nor `episodes` and drops the last row.

    Returns:
      The rows. As in `d4rl.qlearning_dataset`, a row that is both terminal and cut by a time limit
      counts as cut, unless the file has next observations.

    Raises:
      InputError: If the file is not usable.
    """
    with _reading(path), h5py.File(path, "r") as file:
        keys = _find_keys(path, file, columns)
        for key in ("episodes", "next_observations") if as_d4rl else ():
            keys.pop(key, None)
        if not use_next_observations:
            keys.pop("next_observations", None)
        datasets = {key: _get_dataset(file, path, name) for key, name in keys.items()}
        for key, dataset in datasets.items():
            checks.check_kind_and_rank(path, key, dataset)
        checks.check_lengths(path, datasets)
        flags = {key: _read_flags(path, key, datasets[key]) for key in _FLAGS if key in keys}
        episodes = datasets["episodes"][()] if "episodes" in keys else None
        bounds = _recorded_bounds(path, file.attrs)
        findings: tuple[Finding, ...] = ()
        if not {"timeouts", "episodes", "next_observations"} & set(keys):
            limit = _episode_limit(path, max_episode_steps, file.attrs)
            if max_episode_steps is None and "max_episode_steps" not in file.attrs:
                findings = (Finding("assumed_time_limit", "timeouts", limit),)
            flags["timeouts"] = rows.cut_after(flags["terminals"], limit, count_after_terminal=1)
        stored = {
            key: _Hdf5Column(path, keys[key], datasets[key].shape, datasets[key].dtype)
            for key in (*rows.STEP_COLUMNS, "next_observations")
            if key in keys
        }
    result = rows.from_columns(path, stored, flags, episodes, action_bounds=bounds)
    result.findings += findings
    if "next_observations" not in keys and "timeouts" in flags:
        result.discounts |= flags["timeouts"]
    if as_d4rl:
        result.discounts[-1] = True
    return result


def _find_keys(path: str, file: h5py.File, columns: Optional[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the key of the file for each name of `rows.NAMES` that it has or must have."""
    given = rows.check_columns(columns)
    for name, key in given.items():
        if not isinstance(key, str) or key.endswith("*"):
            raise InputError(
                f"{path}: load_dataset.columns has {key!r} for {name}; of an HDF5 file it must be "
                "one key."
            )
    found = {
        name: next(key for key in (name, *others) if key in file)
        for name, others in rows.NAMES.items()
        if any(key in file for key in (name, *others))
    }
    required = {name: name for name in (_REQUIRED if not given else rows.STEP_COLUMNS)}
    return {**required, **found, **given}


def _read_flags(path: str, key: str, dataset: h5py.Dataset) -> np.ndarray:
    """Returns `terminals` or `timeouts`, [N] bool."""
    flags = dataset[()].reshape(-1)
    checks.check_flags(path, key, flags)
    return flags.astype(bool)


def _recorded_bounds(path: str, attributes: Mapping[str, Any]) -> Optional[checks.ActionBounds]:
    names = [name for name in ("action_minimum", "action_maximum") if name in attributes]
    if len(names) == 1:
        raise InputError(
            f"{path}: of the attributes action_minimum and action_maximum it has only "
            f"{names[0]}; it must have both or neither."
        )
    return (attributes[names[0]], attributes[names[1]]) if names else None


def _episode_limit(path: str, given: Optional[int], attributes: Mapping[str, Any]) -> int:
    limit = attributes.get("max_episode_steps") if given is None else given
    if limit is None:
        limit = _DEFAULT_MAX_EPISODE_STEPS
    checks.check_limit(path, limit)
    return int(limit)


@dataclasses.dataclass(frozen=True)
class _Hdf5Column:
    """A dataset of a file, which is open only while blocks are read."""

    path: str
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def blocks(self, num_rows: Optional[int] = None) -> Iterator[np.ndarray]:
        """Yields rows in float32, by default about `PIECE_BYTES` at a time."""
        with _reading(self.path), h5py.File(self.path, "r") as file:
            dataset = file[self.key]
            step = num_rows or checks.piece_rows(self.shape)
            if dataset.chunks and not num_rows:  # Complete chunks: none is decompressed twice.
                step = -(-step // dataset.chunks[0]) * dataset.chunks[0]
            for start in range(0, self.shape[0], step):
                yield dataset.astype(np.float32)[start : start + step]


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns what h5py raises for damaged files, and a lack of memory, into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory ({error}).") from error
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as HDF5, it may be truncated or of another format "
            f"({checks.reason(error)})."
        ) from error


def _get_dataset(file: h5py.File, path: str, key: str) -> h5py.Dataset:
    """Returns the dataset `key`, whose bytes must lie in this file."""
    link = file.get(key, getlink=True)
    if link is None:
        keys = ", ".join(sorted(map(str, file.keys()))) or "none"
        if "episode_0" in file:
            keys = "episode_0 and so on, as Minari's files, which are read by their folder"
        raise InputError(
            f"{path}: has no key {key!r}; it has {keys}, and a D4RL file has "
            f"{', '.join(_REQUIRED)}; name others in load_dataset.columns, such as "
            "{'observations': 'obs'}."
        )
    if not isinstance(link, h5py.HardLink):
        raise InputError(
            f"{path}: key {key!r} is a link to elsewhere ({type(link).__name__}); it "
            "must be a dataset in the file itself."
        )
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(
            f"{path}: key {key!r} is a group; it must be a dataset, such as one in it: "
            f"load_dataset.columns = {{NAME: {key + '/...'!r}}}."
        )
    if dataset.external or dataset.is_virtual:
        raise InputError(
            f"{path}: the values of {key!r} are kept in other files; they must be in "
            "the file itself."
        )
    return dataset


def save_d4rl_hdf5(
    path: str,
    observations: Any,
    actions: Any,
    rewards: Any,
    terminals: Any,
    timeouts: Any,
    attributes: Mapping[str, Any],
    next_observations: Optional[Any] = None,
) -> None:
    """Writes the rows of consecutive episodes as a gzip-compressed D4RL-layout HDF5 file.

    The file appears under its name only once it is complete.

    Args:
      path: Name of the file; a file of that name is replaced.
      observations: [N, S].
      actions: [N, A].
      rewards: [N].
      terminals: [N], true where the action ended the episode in a terminal state.
      timeouts: [N], true where a time limit, or the end of the recording, cut the episode.
      attributes: HDF5 attributes of the file: `action_minimum` and `action_maximum`, provenance.
      next_observations: [N, S], optional; `load_dataset` does not need it.

    Raises:
      InputError: If the arrays do not fit together, a terminal or timeout is neither 0 nor 1, or
        the file cannot be written.
    """
    columns = {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "terminals": terminals,
        "timeouts": timeouts,
    }
    if next_observations is not None:
        columns["next_observations"] = next_observations
    arrays: dict[str, np.ndarray] = {}
    for key, value in columns.items():
        array = checks.to_array(path, key, value)
        if key in _FLAGS:
            checks.check_flags(path, key, array)
        arrays[key] = array.astype(bool if key in _FLAGS else np.float32, copy=False)
    checks.check_lengths(path, arrays)
    try:
        with atomic_files.replacing(path) as temporary, h5py.File(temporary, "x") as file:
            for key, array in arrays.items():
                file.create_dataset(
                    key, data=array, compression="gzip", compression_opts=9, shuffle=True
                )
            file.attrs.update(attributes)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}).") from error
