"""D4RL's HDF5 layout: rows of consecutive episodes, one dataset per quantity."""

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional

import h5py
import numpy as np

from fbrc_agent.datasets import checks
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.utils import atomic_files
from fbrc_agent.utils.errors import InputError

# What D4RL's files hold; the older ones have no `timeouts`.
_REQUIRED = ("observations", "actions", "rewards", "terminals")
_FLAGS = ("terminals", "timeouts")

# What a block is held against: path, key, rows, number of the first row.
_Check = Callable[[str, str, np.ndarray, int], None]

# The limit of every D4RL locomotion task, for its first files, which have no `timeouts`.
_DEFAULT_MAX_EPISODE_STEPS = 1000


def read_d4rl_hdf5(
    path: str,
    source: str,
    action_bounds: Optional[checks.ActionBounds] = None,
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
    with _reading(path), h5py.File(path, "r") as opened:
        file = _Rows(opened, path)
        if action_bounds is None:
            action_bounds = _recorded_bounds(path, opened.attrs)
        low, high = checks.resolve_bounds(path, file.shapes["actions"][1], action_bounds)
        terminals = file.read_flags("terminals")
        if "timeouts" in file.shapes:
            timeouts = file.read_flags("timeouts")
        else:
            limit = _episode_limit(path, max_episode_steps, opened.attrs)
            timeouts = _infer_timeouts(terminals, limit)
        keep = ~timeouts
        keep[-1] = False
        if not keep.any():
            raise InputError(
                f"{path}: has no usable transition; it must have two consecutive rows of an "
                f"episode, but has {len(timeouts)} rows, {int(timeouts.sum())} of them cut by a "
                "time limit."
            )
        ends = terminals | timeouts
        begins = np.append(True, ends[:-1])

        def check_and_clip(path: str, _: str, rows: np.ndarray, start: int) -> None:
            if checks.check_actions(path, rows, low, high, start):
                np.clip(rows, low, high, out=rows)

        rewards, all_rewards = file.read("rewards", [keep, np.ones_like(keep)])
        follows = np.append(False, keep[:-1])
        observations, next_observations = file.read("observations", [keep, follows])
        (actions,) = file.read("actions", [keep], check_and_clip)
        return OfflineData(
            observations=observations,
            actions=actions,
            rewards=rewards,
            next_observations=next_observations,
            discounts=checks.as_float32(~terminals[keep]),
            # An episode of which no row is kept has no place among them.
            episode_starts=np.flatnonzero(begins[keep]),
            episode_returns=checks.as_float32(_complete_returns(all_rewards, ends)),
            action_minimum=low,
            action_maximum=high,
            source=source,
        )


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
        logging.warning(
            "%s: has no timeouts; episodes are taken to be cut after %d steps, pass "
            "max_episode_steps if that is wrong.",
            path,
            limit,
        )
    if not isinstance(limit, (int, np.integer)) or limit < 1:
        raise InputError(f"{path}: max_episode_steps is {limit!r}; it must be a positive integer.")
    return int(limit)


def _infer_timeouts(terminals: np.ndarray, limit: int) -> np.ndarray:
    """Returns the rows, [N] bool, that `d4rl.qlearning_dataset` cuts where a file has no timeouts.

    It counts steps from 0 and cuts when the count is `limit` - 1; after a cut it counts from 0
    again, after any other terminal from 1.
    """
    timeouts = np.zeros(len(terminals), bool)
    start, count = 0, 0
    for end in np.append(np.flatnonzero(terminals) + 1, len(terminals)):
        timeouts[start + limit - 1 - count : end : limit] = True
        start, count = end, int(not timeouts[end - 1])
    return timeouts


def _complete_returns(rewards: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Returns the sums of rewards, in float64, of the episodes that end in the file."""
    last = np.flatnonzero(ends)
    if not last.size:
        return np.zeros([0])
    starts = np.append(0, last[:-1] + 1)
    return np.add.reduceat(rewards[: last[-1] + 1].astype(np.float64), starts)


class _Rows:
    """The rows of a D4RL-layout file, read in blocks and checked; `shapes` are the arrays'."""

    def __init__(self, file: h5py.File, path: str) -> None:
        self._path = path
        keys = (*_REQUIRED, "timeouts") if "timeouts" in file else _REQUIRED
        self._datasets = {key: _get_dataset(file, path, key) for key in keys}
        checks.check_lengths(path, self._datasets)
        # A vector may be a column [N, 1].
        self.shapes: dict[str, tuple[int, ...]] = {
            key: dataset.shape if key in checks.MATRICES else dataset.shape[:1]
            for key, dataset in self._datasets.items()
        }

    def read_flags(self, key: str) -> np.ndarray:
        """Returns `terminals` or `timeouts`, [N] bool."""
        blocks = self._blocks(key, checks.check_flags)
        return np.concatenate([rows.astype(bool) for _, rows in blocks])

    def read(
        self, key: str, masks: list[np.ndarray], check: Optional[_Check] = None
    ) -> list[np.ndarray]:
        """Returns, read-only, the rows of each mask, [N] bool; those of all rows are checked.

        Each block goes to its places while it is at hand, so that the file's own array, as large as
        each of these, is never in memory.
        """
        size = self.shapes[key][1:]
        arrays = [checks.empty_float32((int(np.count_nonzero(mask)), *size)) for mask in masks]
        filled = [0] * len(masks)
        for start, rows in self._blocks(key, check):
            for i, mask in enumerate(masks):
                chosen = np.flatnonzero(mask[start : start + len(rows)])
                end = filled[i] + len(chosen)
                # In this mode `take` writes without a buffer; no index is out of range.
                np.take(rows, chosen, axis=0, out=arrays[i][filled[i] : end], mode="clip")
                filled[i] = end
        return [checks.as_float32(array) for array in arrays]

    def _blocks(self, key: str, check: Optional[_Check]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (number of the first row, rows in float32), about `PIECE_BYTES` at a time."""
        dataset, shape = self._datasets[key], self.shapes[key]
        block_size = max(1, checks.PIECE_BYTES // (4 * math.prod(shape[1:])))
        if dataset.chunks:  # Complete chunks, so that none is decompressed twice.
            block_size = -(-block_size // dataset.chunks[0]) * dataset.chunks[0]
        for start in range(0, shape[0], block_size):
            rows = dataset.astype(np.float32)[start : start + block_size].reshape(-1, *shape[1:])
            checks.check_finite(self._path, key, rows, start)
            if check is not None:
                check(self._path, key, rows, start)
            yield start, rows


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
    checks.check_kind_and_rank(path, key, dataset)
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
