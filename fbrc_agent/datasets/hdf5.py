"""D4RL's HDF5 layout: rows of consecutive episodes, one dataset per quantity."""

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import h5py
import numpy as np

from fbrc_agent.datasets import episodes
from fbrc_agent.datasets.checks import (
    MATRICES,
    PIECE_BYTES,
    ActionBounds,
    as_float32,
    check_actions,
    check_finite,
    check_flags,
    check_kind_and_rank,
    check_lengths,
    empty_float32,
    resolve_bounds,
    to_array,
)
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.utils import atomic_files
from fbrc_agent.utils.errors import InputError

# What D4RL's files hold; the older ones have no `timeouts`.
_REQUIRED = ("observations", "actions", "rewards", "terminals")
_FLAGS = ("terminals", "timeouts")

# Attributes of the file that our own collector writes.
_ATTRIBUTES = ("action_minimum", "action_maximum", "max_episode_steps")

# The limit of every D4RL locomotion task, for its first files, which have no `timeouts`.
_DEFAULT_MAX_EPISODE_STEPS = 1000


def read_d4rl_hdf5(
    path: str,
    source: str,
    action_bounds: Optional[ActionBounds] = None,
    max_episode_steps: Optional[int] = None,
) -> OfflineData:
    """Reads the transitions that `d4rl.qlearning_dataset` makes of a file.

    Args:
      path: Name of the file.
      source: What the data was asked for by, for records.
      action_bounds: As of `load_dataset`.
      max_episode_steps: As of `load_dataset`.

    Returns:
      The data. A row after a time limit begins an episode, as one after a terminal does.

    Raises:
      InputError: If the file is not usable.
    """
    with open_d4rl_hdf5(path) as file:
        if action_bounds is None:
            action_bounds = _recorded_bounds(path, file.attributes)
        minimum, maximum = resolve_bounds(path, file.shapes["actions"][1], action_bounds)
        terminals = file.read_vector("terminals")
        if "timeouts" in file.shapes:
            timeouts = file.read_vector("timeouts")
        else:
            limit = _episode_limit(path, max_episode_steps, file.attributes)
            timeouts = episodes.infer_timeouts(terminals, limit)
        keep = ~timeouts
        keep[-1] = False
        if not keep.any():
            raise InputError(
                f"{path}: has no usable transition; it must have two consecutive rows of an "
                f"episode, but has {len(timeouts)} rows, {int(timeouts.sum())} of them cut by a "
                "time limit."
            )
        ends = terminals | timeouts
        rewards = file.read_vector("rewards")
        observations, next_observations = file.read_observations(keep)
        return OfflineData(
            observations=as_float32(observations),
            actions=as_float32(file.read_actions(keep, minimum, maximum)),
            rewards=as_float32(np.compress(keep, rewards, out=empty_float32((keep.sum(),)))),
            next_observations=as_float32(next_observations),
            discounts=as_float32(~terminals[keep]),
            episode_starts=episodes.starts_of_rows(ends, keep),
            episode_returns=as_float32(episodes.complete_returns(rewards, ends)),
            action_minimum=minimum,
            action_maximum=maximum,
            source=source,
        )


def _recorded_bounds(path: str, attributes: Mapping[str, Any]) -> Optional[ActionBounds]:
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
        logging.warning(
            "%s: has no timeouts; episodes are taken to be cut after %d steps, pass "
            "max_episode_steps if that is wrong.",
            path,
            limit,
        )
    if not isinstance(limit, (int, np.integer)) or limit < 1:
        raise InputError(f"{path}: max_episode_steps is {limit!r}; it must be a positive integer.")
    return int(limit)


class D4rlFile:
    """The rows of an open D4RL-layout file, validated as they are read.

    Attributes:
      path: Name of the file.
      shapes: Shapes by key: `observations` [N, S], `actions` [N, A], `rewards` [N], `terminals`
        [N] and, where the file has it, `timeouts` [N].
      attributes: Those of `action_minimum`, `action_maximum` and `max_episode_steps` that the
        file has.
    """

    def __init__(self, file: h5py.File, path: str) -> None:
        self.path = path
        self._datasets: dict[str, h5py.Dataset] = {}
        for key in (*_REQUIRED, "timeouts") if "timeouts" in file.keys() else _REQUIRED:
            self._datasets[key] = _get_dataset(file, path, key)
            check_kind_and_rank(path, key, self._datasets[key], 2 if key in MATRICES else 1)
        check_lengths(path, self._datasets)
        # A vector may be a column [N, 1].
        self.shapes: dict[str, tuple[int, ...]] = {
            key: dataset.shape if key in MATRICES else dataset.shape[:1]
            for key, dataset in self._datasets.items()
        }
        self.attributes = {name: file.attrs[name] for name in _ATTRIBUTES if name in file.attrs}

    def read_blocks(self, key: str) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (number of the first row, rows in float32) of consecutive blocks.

        A block is of about `PIECE_BYTES`, or of as many rows as can be decompressed at once.

        Raises:
          InputError: If the file is damaged, or a value is NaN or Inf.
        """
        dataset, shape = self._datasets[key], self.shapes[key]
        block_size = max(1, PIECE_BYTES // (4 * math.prod(shape[1:])))
        if dataset.chunks:  # Complete chunks, so that none is decompressed twice.
            block_size = -(-block_size // dataset.chunks[0]) * dataset.chunks[0]
        for start in range(0, shape[0], block_size):
            with _reading(self.path):
                rows = dataset.astype(np.float32)[start : start + block_size]
            rows = rows.reshape(-1, *shape[1:])
            check_finite(self.path, key, rows, start)
            yield start, rows

    def read_vector(self, key: str) -> np.ndarray:
        """Returns `rewards` [N] in float32, `terminals` [N] or `timeouts` [N] in bool.

        Raises:
          InputError: As `read_blocks`, or if a value of the latter is neither 0 nor 1.
        """
        is_flag = key in _FLAGS
        vector = np.empty(self.shapes[key], bool if is_flag else np.float32)
        for start, rows in self.read_blocks(key):
            if is_flag:
                check_flags(self.path, key, rows, start)
            vector[start : start + len(rows)] = rows
        return vector

    def read_actions(self, keep: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Returns the actions of the rows to keep, [N] bool; those of all rows are checked.

        Raises:
          InputError: As `read_blocks`, or if an action lies outside its bounds, [A] each.
        """
        actions = empty_float32((np.count_nonzero(keep), *self.shapes["actions"][1:]))
        filled, is_rounded = 0, False
        for start, rows in self.read_blocks("actions"):
            is_rounded |= check_actions(self.path, rows, low, high, start)
            filled = _append(actions, filled, rows, keep[start:])
        return np.clip(actions, low, high, out=actions) if is_rounded else actions

    def read_observations(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the observations of the rows to keep, and those of the rows after them.

        Each block goes to both places while it is at hand, so that the file's own array, as large
        as either, is never in memory. `keep`, [N] bool, is false in the last row.

        Raises:
          InputError: As `read_blocks`.
        """
        shape = (np.count_nonzero(keep), *self.shapes["observations"][1:])
        observations, next_observations = empty_float32(shape), empty_float32(shape)
        follows = np.append(False, keep[:-1])
        filled, next_filled = 0, 0
        for start, rows in self.read_blocks("observations"):
            filled = _append(observations, filled, rows, keep[start:])
            next_filled = _append(next_observations, next_filled, rows, follows[start:])
        return observations, next_observations


def _append(array: np.ndarray, filled: int, rows: np.ndarray, mask: np.ndarray) -> int:
    """Copies rows, by a mask that may be longer, behind the `filled` ones; returns their end."""
    chosen = np.flatnonzero(mask[: len(rows)])
    end = filled + len(chosen)
    # In this mode `take` writes without a buffer; no index is out of range.
    np.take(rows, chosen, axis=0, out=array[filled:end], mode="clip")
    return end


@contextlib.contextmanager
def open_d4rl_hdf5(path: str) -> Iterator[D4rlFile]:
    """Opens a D4RL-layout file for a `with` block.

    Raises:
      InputError: If the file is not HDF5 or is truncated, lacks a key, or an array has a wrong
        rank, length or type or lies outside the file; or if memory ends in the `with` block.
    """
    try:
        with contextlib.ExitStack() as stack:
            with _reading(path):
                opened = D4rlFile(stack.enter_context(h5py.File(path, "r")), path)
            yield opened
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory ({error}).") from error


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns what h5py raises for damaged files into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as HDF5, it may be truncated or of another format ({error})."
        ) from error


def _get_dataset(file: h5py.File, path: str, key: str) -> h5py.Dataset:
    """Returns the dataset `key`, whose bytes must lie in this file."""
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
        array = to_array(path, key, value)
        if key in _FLAGS:
            check_flags(path, key, array)
        arrays[key] = array.astype(bool if key in _FLAGS else np.float32, copy=False)
    check_lengths(path, arrays)
    try:
        with atomic_files.replacing(path) as temporary, h5py.File(temporary, "x") as file:
            for key, array in arrays.items():
                file.create_dataset(
                    key, data=array, compression="gzip", compression_opts=9, shuffle=True
                )
            file.attrs.update(attributes)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}).") from error
