"""Transitions of an offline data set: read from D4RL's HDF5 layout, or given as arrays.

`load_dataset` returns the transitions that D4RL's own `d4rl.qlearning_dataset` returns, validated,
as float32 arrays. `save_d4rl_hdf5` writes the same layout.
"""

import dataclasses
import functools
import hashlib
import logging
import os
from typing import Any, Dict, Mapping, Optional, Tuple
import uuid

import h5py
import numpy as np

from fbrc_agent import d4rl
from fbrc_agent.errors import InputError

ActionBounds = Tuple[Any, Any]

EMBEDDED_PREFIX = 'embedded:'

# Actions this far outside their bounds (relative to bounds above 1) are float32 rounding; they are
# clipped. Anything farther is an error.
_BOUND_TOLERANCE = 1e-6

# The limit of every D4RL locomotion task, for files of the first kind, without `timeouts`.
_DEFAULT_MAX_EPISODE_STEPS = 1000

_ARRAY_NAMES = ('observations', 'actions', 'rewards', 'next_observations', 'discounts')


@dataclasses.dataclass(frozen=True, eq=False)
class OfflineData:
    """N transitions (s, a, r, s', d), read-only float32 arrays in row-major order.

    Make one with `load_dataset` or `OfflineData.from_arrays`, which validate.

    Attributes:
        observations: s, [N, S].
        actions: a, [N, A], inside the action bounds.
        rewards: r, [N], raw.
        next_observations: s', [N, S].
        discounts: d, [N]; 0 where s' is terminal, else 1.
        episode_returns: [E] undiscounted raw returns of the complete episodes of the file.
        action_minimum: [A].
        action_maximum: [A].
        source: The path, task id or `embedded:NAME` that the data was loaded from.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    discounts: np.ndarray
    episode_returns: np.ndarray
    action_minimum: np.ndarray
    action_maximum: np.ndarray
    source: str

    @classmethod
    def from_arrays(cls,
                    observations: Any,
                    actions: Any,
                    rewards: Any,
                    next_observations: Any,
                    discounts: Any,
                    action_bounds: Optional[ActionBounds] = None,
                    episode_returns: Optional[Any] = None,
                    source: str = 'arrays') -> 'OfflineData':
        """Validates arrays that the caller already has.

        Args:
            observations: [N, S], numbers.
            actions: [N, A], numbers.
            rewards: [N], numbers.
            next_observations: [N, S], numbers.
            discounts: [N], in [0, 1]; 0 where the next observation is terminal.
            action_bounds: (minimum, maximum), scalars or [A]; defaults to (-1, 1).
            episode_returns: [E]; defaults to no episodes.
            source: Name used in messages and records.

        Returns:
            The data. Arrays that already are float32 and row-major are shared, not copied.

        Raises:
            InputError: If an array has a wrong rank, length or type, holds NaN or Inf, or an action
                lies outside the bounds.
        """
        given = {'observations': observations, 'actions': actions, 'rewards': rewards,
                 'next_observations': next_observations, 'discounts': discounts}
        arrays = {key: np.asarray(value) for key, value in given.items()}
        for key, array in arrays.items():
            _check_kind_and_rank(source, key, array, 2 if key in _MATRICES else 1)
            arrays[key] = _freeze(array if key in _MATRICES else array.reshape(len(array)))
        _check_lengths(source, arrays)
        if arrays['next_observations'].shape != arrays['observations'].shape:
            raise InputError(f"{source}: next_observations has shape "
                             f"{arrays['next_observations'].shape}; it must be that of "
                             f"observations, {arrays['observations'].shape}.")
        for key, array in arrays.items():
            _check_finite(source, key, array)
        outside = (arrays['discounts'] < 0) | (arrays['discounts'] > 1)
        if outside.any():
            row = int(outside.argmax())
            raise InputError(f"{source}: discounts has {arrays['discounts'][row]} in row {row}; "
                             'discounts lie in [0, 1].')
        minimum, maximum = _resolve_bounds(source, arrays['actions'], action_bounds)
        arrays['actions'] = _clip_actions(source, arrays['actions'], minimum, maximum)
        returns = np.zeros([0]) if episode_returns is None else np.asarray(episode_returns)
        _check_kind_and_rank(source, 'episode_returns', returns, 1)
        _check_finite(source, 'episode_returns', returns)
        return cls(**arrays, episode_returns=_freeze(returns), action_minimum=minimum,
                   action_maximum=maximum, source=source)

    @property
    def num_transitions(self) -> int:
        return len(self.rewards)

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 of the shapes and contents of the five arrays, in hexadecimal."""
        digest = hashlib.sha256()
        for name in _ARRAY_NAMES:
            array = getattr(self, name)
            digest.update(f'{name}{array.shape}'.encode())
            digest.update(array.data if array.size else b'')
        return digest.hexdigest()

    @property
    def time_step_spec(self) -> Any:
        """TF-Agents' `TimeStep` of specs; the observation is [S] float32."""
        import tensorflow as tf
        from tf_agents.trajectories import time_step as ts
        return ts.time_step_spec(
            tf.TensorSpec([self.observations.shape[1]], tf.float32, name='observation'))

    @property
    def action_spec(self) -> Any:
        """`BoundedTensorSpec` of an action, [A] float32."""
        import tensorflow as tf
        from tf_agents.specs import tensor_spec
        return tensor_spec.BoundedTensorSpec(
            [self.actions.shape[1]], tf.float32, minimum=self.action_minimum,
            maximum=self.action_maximum, name='action')


_MATRICES = ('observations', 'actions', 'next_observations')


def load_dataset(source: str,
                 action_bounds: Optional[ActionBounds] = None,
                 max_episode_steps: Optional[int] = None) -> OfflineData:
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
    path = _find_file(source)
    try:
        with h5py.File(path, 'r') as file:
            columns, attributes = _read_file(file, path)
    except OSError as error:
        raise InputError(f'{path}: cannot be read as HDF5, it may be truncated or of another '
                         f'format ({error}).') from error
    except MemoryError as error:
        raise InputError(f'{path}: does not fit into memory ({error}).') from error
    if action_bounds is None and 'action_minimum' in attributes:
        if 'action_maximum' not in attributes:
            raise InputError(f'{path}: has the attribute action_minimum but not action_maximum; '
                             'write both or neither.')
        action_bounds = attributes['action_minimum'], attributes['action_maximum']

    rewards, terminals = columns['rewards'], columns['terminals']
    timeouts = columns.get('timeouts')
    if timeouts is None:
        timeouts = _infer_timeouts(
            terminals, _episode_limit(path, max_episode_steps, attributes))
    keep = ~timeouts[:-1]
    if not keep.any():
        raise InputError(f'{path}: has no usable transition; it needs two consecutive rows of an '
                         f'episode, but has {len(rewards)} rows, {int(timeouts.sum())} of them '
                         'cut by a time limit.')
    minimum, maximum = _resolve_bounds(path, columns['actions'], action_bounds)
    actions = _clip_actions(path, columns['actions'], minimum, maximum)
    observations = columns['observations']
    return OfflineData(
        observations=_freeze(_select(observations[:-1], keep)),
        actions=_freeze(_select(actions[:-1], keep)),
        rewards=_freeze(_select(rewards[:-1], keep)),
        next_observations=_freeze(_select(observations[1:], keep)),
        discounts=_freeze(1.0 - _select(terminals[:-1], keep)),
        episode_returns=_freeze(_episode_returns(rewards, terminals | timeouts)),
        action_minimum=minimum,
        action_maximum=maximum,
        source=source)


def save_d4rl_hdf5(path: str,
                   observations: Any,
                   actions: Any,
                   rewards: Any,
                   terminals: Any,
                   timeouts: Any,
                   attributes: Mapping[str, Any],
                   next_observations: Optional[Any] = None) -> None:
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
    columns = {'observations': observations, 'actions': actions, 'rewards': rewards,
               'terminals': terminals, 'timeouts': timeouts}
    if next_observations is not None:
        columns['next_observations'] = next_observations
    arrays: Dict[str, np.ndarray] = {}
    for key, value in columns.items():
        array = np.asarray(value)
        _check_kind_and_rank(path, key, array, 2 if key in _MATRICES else 1)
        dtype = bool if key in ('terminals', 'timeouts') else np.float32
        arrays[key] = (array if key in _MATRICES else array.reshape(len(array))).astype(dtype)
    _check_lengths(path, arrays)
    temporary = f'{path}.{uuid.uuid4().hex}.part'
    try:
        with h5py.File(temporary, 'x') as file:
            for key, array in arrays.items():
                file.create_dataset(key, data=array, compression='gzip')
            file.attrs.update(attributes)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f'{path}: cannot be written ({error}).') from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def _find_file(source: str) -> str:
    if not isinstance(source, (str, os.PathLike)) or not str(source):
        raise InputError(f'The data source is {source!r}; it must be the path of an HDF5 file, a '
                         f'D4RL task id or {EMBEDDED_PREFIX}NAME.')
    source = os.fspath(source)
    if source.startswith(EMBEDDED_PREFIX):
        return _find_embedded(source[len(EMBEDDED_PREFIX):])
    if os.path.isdir(source):
        raise InputError(f'{source}: is a directory; the data source must be an HDF5 file.')
    if os.path.exists(source):
        return source
    if os.sep in source or source.endswith(('.hdf5', '.h5')):
        raise InputError(f'{source}: there is no such file.')
    try:
        task = d4rl.get_task(source)
    except InputError as error:
        raise InputError(f'{source}: is neither a file nor a task ({error})') from error
    return d4rl.download(task)


def _find_embedded(name: str) -> str:
    directory = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'data')
    files = os.listdir(directory) if os.path.isdir(directory) else []
    names = sorted(file[:-len('.hdf5')] for file in files if file.endswith('.hdf5'))
    if name not in names:
        raise InputError(f'{EMBEDDED_PREFIX}{name}: this package has no such data file; it has '
                         f"{', '.join(names) or 'none'}.")
    return os.path.join(directory, f'{name}.hdf5')


# What D4RL's files hold, and the rank of each array.
_REQUIRED = {'observations': 2, 'actions': 2, 'rewards': 1, 'terminals': 1}
_OPTIONAL = {'timeouts': 1}


def _read_file(file: h5py.File, path: str) -> Tuple[Dict[str, np.ndarray], Dict[str, Any]]:
    """Reads and validates the arrays; numbers as float32, terminals and timeouts as bool."""
    datasets: Dict[str, h5py.Dataset] = {}
    for key, rank in {**_REQUIRED, **_OPTIONAL}.items():
        if key in _OPTIONAL and key not in file.keys():
            continue
        datasets[key] = _get_dataset(file, path, key)
        _check_kind_and_rank(path, key, datasets[key], rank)
    _check_lengths(path, datasets)
    columns: Dict[str, np.ndarray] = {}
    for key, dataset in datasets.items():
        array = dataset.astype(np.float32)[()]
        _check_finite(path, key, array)
        if len(dataset.shape) == 2 and key not in _MATRICES:
            array = array[:, 0]
        columns[key] = array if key not in ('terminals', 'timeouts') else array != 0
    return columns, dict(file.attrs)


def _get_dataset(file: h5py.File, path: str, key: str) -> h5py.Dataset:
    """The dataset `key`, whose bytes must lie in this file."""
    link = file.get(key, getlink=True)
    if link is None:
        raise InputError(f"{path}: has no key {key!r}; it has "
                         f"{', '.join(sorted(file.keys())) or 'none'}, and a D4RL file has "
                         f"{', '.join(_REQUIRED)}.")
    if not isinstance(link, h5py.HardLink):
        raise InputError(f'{path}: key {key!r} is a link to elsewhere ({type(link).__name__}); it '
                         'must be a dataset in the file itself.')
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f'{path}: key {key!r} is a group; it must be a dataset.')
    if dataset.external or dataset.is_virtual:
        raise InputError(f'{path}: the values of {key!r} are kept in other files; they must be in '
                         'the file itself.')
    return dataset


def _check_kind_and_rank(source: str, key: str, array: Any, rank: int) -> None:
    if array.dtype.kind not in 'biuf':
        raise InputError(f'{source}: {key} has type {array.dtype}; it must hold real numbers.')
    shape = array.shape
    # D4RL accepts a column [N, 1] for a vector.
    if len(shape) != rank and not (rank == 1 and len(shape) == 2 and shape[1] == 1):
        wanted = '[rows, size]' if rank == 2 else '[rows]'
        raise InputError(f'{source}: {key} has shape {tuple(shape)}; it must be {wanted}.')
    if 0 in shape[1:]:
        raise InputError(f'{source}: {key} has shape {tuple(shape)}; its size must not be 0.')


def _check_lengths(source: str, arrays: Mapping[str, Any]) -> None:
    lengths = {key: array.shape[0] for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ', '.join(f'{key} {length}' for key, length in lengths.items())
        raise InputError(f'{source}: arrays have different numbers of rows ({listed}); they must '
                         'be equal.')
    if not all(lengths.values()):
        raise InputError(f'{source}: is empty; it must have at least one transition.')


def _check_finite(source: str, key: str, array: np.ndarray) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        index = np.unravel_index(int(finite.argmin()), array.shape)
        raise InputError(f'{source}: {key} has {array[index]} in row {int(index[0])}; every value '
                         'must be a finite float32.')


def _resolve_bounds(source: str, actions: np.ndarray,
                    bounds: Optional[ActionBounds]) -> Tuple[np.ndarray, np.ndarray]:
    """Bounds as two arrays [A]."""
    shape = actions.shape[1:]
    try:
        minimum, maximum = (-1.0, 1.0) if bounds is None else bounds
        minimum, maximum = (np.broadcast_to(np.asarray(bound, np.float32), shape).copy()
                            for bound in (minimum, maximum))
    except (TypeError, ValueError) as error:
        raise InputError(f'{source}: action_bounds is {bounds!r}; it must be (minimum, maximum), '
                         f'each a number or {shape[0]} numbers.') from error
    if not (np.isfinite(minimum).all() and np.isfinite(maximum).all() and (minimum < maximum).all()):
        raise InputError(f'{source}: action bounds are {minimum.tolist()} and {maximum.tolist()}; '
                         'each minimum must be finite and below its maximum.')
    if bounds is None:
        row = _first_row_outside(actions, minimum, maximum)
        if row is not None:
            raise InputError(f'{source}: actions has {actions[row].tolist()} in row {row}, outside '
                             '[-1, 1]; pass action_bounds=(minimum, maximum).')
    return _freeze(minimum), _freeze(maximum)


def _first_row_outside(actions: np.ndarray, minimum: np.ndarray,
                       maximum: np.ndarray) -> Optional[int]:
    low = minimum - _BOUND_TOLERANCE * np.maximum(1.0, np.abs(minimum))
    high = maximum + _BOUND_TOLERANCE * np.maximum(1.0, np.abs(maximum))
    outside = ((actions < low) | (actions > high)).any(axis=1)
    return int(outside.argmax()) if outside.any() else None


def _clip_actions(source: str, actions: np.ndarray, minimum: np.ndarray,
                  maximum: np.ndarray) -> np.ndarray:
    if (actions >= minimum).all() and (actions <= maximum).all():
        return actions
    row = _first_row_outside(actions, minimum, maximum)
    if row is not None:
        raise InputError(f'{source}: actions has {actions[row].tolist()} in row {row}, outside the '
                         f'bounds {minimum.tolist()} to {maximum.tolist()}; correct the data or '
                         'pass other action_bounds.')
    return _freeze(np.clip(actions, minimum, maximum))


def _episode_limit(path: str, given: Optional[int], attributes: Mapping[str, Any]) -> int:
    limit = attributes.get('max_episode_steps') if given is None else given
    if limit is None:
        limit = _DEFAULT_MAX_EPISODE_STEPS
        logging.warning('%s: has no timeouts; episodes are taken to be cut after %d steps, pass '
                        'max_episode_steps if that is wrong.', path, limit)
    if not isinstance(limit, (int, np.integer)) or limit < 1:
        raise InputError(f'{path}: max_episode_steps is {limit!r}; it must be a positive integer.')
    return int(limit)


def _infer_timeouts(terminals: np.ndarray, limit: int) -> np.ndarray:
    """`d4rl.qlearning_dataset`'s time limits for a file that does not record them.

    That function counts steps from 0 and cuts when the count is `limit` - 1; after a cut it counts
    from 0 again, after any other terminal from 1.
    """
    timeouts = np.zeros(len(terminals), bool)
    start, count = 0, 0
    for end in np.append(np.flatnonzero(terminals) + 1, len(terminals)):
        if count < limit:
            timeouts[start + limit - 1 - count:end:limit] = True
        start, count = end, int(not timeouts[end - 1])
    return timeouts


def _select(array: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Rows to keep; a view where that is all of them."""
    return array if keep.all() else array[keep]


def _episode_returns(rewards: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Sums of rewards of the episodes that end in the file, in float64."""
    last = np.flatnonzero(ends)
    if not last.size:
        return np.zeros([0])
    starts = np.append(0, last[:-1] + 1)
    return np.add.reduceat(rewards[:last[-1] + 1].astype(np.float64), starts)


def _freeze(array: np.ndarray) -> np.ndarray:
    """A read-only, row-major float32 view, or copy where the array is not that already."""
    view = np.ascontiguousarray(array, np.float32).view()
    view.flags.writeable = False
    return view
