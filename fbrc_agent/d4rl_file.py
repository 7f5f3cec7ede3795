"""D4RL's HDF5 layout: rows of consecutive episodes, one dataset per quantity."""

import os
import uuid
from collections.abc import Mapping
from typing import Any, Optional

import h5py
import numpy as np

from fbrc_agent.array_checks import (
    MATRICES,
    check_finite,
    check_kind_and_rank,
    check_lengths,
    to_array,
)
from fbrc_agent.errors import InputError

# What D4RL's files hold, and the rank of each array.
_REQUIRED = {"observations": 2, "actions": 2, "rewards": 1, "terminals": 1}
_OPTIONAL = {"timeouts": 1}

# Attributes of the file that our own collector writes.
_ATTRIBUTES = ("action_minimum", "action_maximum", "max_episode_steps")


def read_d4rl_hdf5(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads and validates the rows of a D4RL-layout file.

    Args:
        path: Name of the file.

    Returns:
        (columns, attributes): columns are `observations` [N, S], `actions` [N, A] and `rewards` [N]
        in float32, `terminals` [N] and, where the file has it, `timeouts` [N] in bool;
        attributes are those of `action_minimum`, `action_maximum` and `max_episode_steps` that the
        file has.

    Raises:
        InputError: If the file is not HDF5 or is truncated, lacks a key, or an array has a wrong
            rank, length or type, holds NaN or Inf, or lies outside the file.
    """
    try:
        with h5py.File(path, "r") as file:
            return _read_file(file, path)
    except InputError:
        raise
    # What h5py raises for damaged files of one kind or another.
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as HDF5, it may be truncated or of another format ({error})."
        ) from error
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory ({error}).") from error


def _read_file(file: h5py.File, path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    datasets: dict[str, h5py.Dataset] = {}
    for key, rank in {**_REQUIRED, **_OPTIONAL}.items():
        if key in _OPTIONAL and key not in file.keys():
            continue
        datasets[key] = _get_dataset(file, path, key)
        check_kind_and_rank(path, key, datasets[key], rank)
    check_lengths(path, datasets)
    columns: dict[str, np.ndarray] = {}
    for key, dataset in datasets.items():
        array = dataset.astype(np.float32)[()]
        check_finite(path, key, array)
        if len(dataset.shape) == 2 and key not in MATRICES:
            array = array[:, 0]
        columns[key] = array if key not in ("terminals", "timeouts") else array != 0
    return columns, {name: file.attrs[name] for name in _ATTRIBUTES if name in file.attrs}


def _get_dataset(file: h5py.File, path: str, key: str) -> h5py.Dataset:
    """The dataset `key`, whose bytes must lie in this file."""
    link = file.get(key, getlink=True)
    if link is None:
        keys = ", ".join(sorted(map(str, file.keys()))) or "none"
        raise InputError(
            f"{path}: has no key {key!r}; it has {keys}, and a D4RL file has "
            f"{', '.join(_REQUIRED)}."
        )
    if not isinstance(link, h5py.HardLink):
        raise InputError(
            f"{path}: key {key!r} is a link to elsewhere ({type(link).__name__}); it "
            "must be a dataset in the file itself."
        )
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{path}: key {key!r} is a group; it must be a dataset.")
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
        InputError: If the arrays do not fit together or the file cannot be written.
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
        dtype = bool if key in ("terminals", "timeouts") else np.float32
        arrays[key] = to_array(path, key, value).astype(dtype)
    check_lengths(path, arrays)
    temporary = f"{path}.{uuid.uuid4().hex}.part"
    try:
        with h5py.File(temporary, "x") as file:
            for key, array in arrays.items():
                file.create_dataset(
                    key, data=array, compression="gzip", compression_opts=9, shuffle=True
                )
            file.attrs.update(attributes)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}).") from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
