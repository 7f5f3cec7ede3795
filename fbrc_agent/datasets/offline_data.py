"""Transitions of an offline data set: read from D4RL's HDF5 layout, or given as arrays.

`load_dataset` returns the transitions that D4RL's own `d4rl.qlearning_dataset` returns, validated,
as float32 arrays. `save_d4rl_hdf5` writes the same layout.
"""

import dataclasses
import functools
import hashlib
import logging
import os
from collections.abc import Mapping
from typing import Any, Optional

import gin
import numpy as np

from fbrc_agent.datasets.array_checks import (
    ActionBounds,
    as_float32,
    check_actions,
    check_finite,
    check_lengths,
    resolve_bounds,
    to_array,
)
from fbrc_agent.datasets.hdf5 import open_d4rl_hdf5, save_d4rl_hdf5, select_rows
from fbrc_agent.environments import d4rl
from fbrc_agent.utils.errors import InputError

EMBEDDED_PREFIX = "embedded:"

# The limit of every D4RL locomotion task, for files of the first kind, without `timeouts`.
_DEFAULT_MAX_EPISODE_STEPS = 1000

__all__ = ["EMBEDDED_PREFIX", "load_dataset", "OfflineData", "save_d4rl_hdf5"]

_ARRAY_NAMES = ("observations", "actions", "rewards", "next_observations", "discounts")


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
    def from_arrays(
        cls,
        observations: Any,
        actions: Any,
        rewards: Any,
        next_observations: Any,
        discounts: Any,
        action_bounds: Optional[ActionBounds] = None,
        episode_returns: Optional[Any] = None,
        source: str = "arrays",
    ) -> "OfflineData":
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
            The data. Arrays that already are float32 and row-major are shared, not copied; do not
            change them as long as the data is in use.

        Raises:
            InputError: If an array has a wrong rank, length or type, holds NaN or Inf, or an action
                lies outside the bounds.
        """
        given = {
            "observations": observations,
            "actions": actions,
            "rewards": rewards,
            "next_observations": next_observations,
            "discounts": discounts,
        }
        arrays = {key: as_float32(to_array(source, key, value)) for key, value in given.items()}
        check_lengths(source, arrays)
        if arrays["next_observations"].shape != arrays["observations"].shape:
            raise InputError(
                f"{source}: next_observations has shape "
                f"{arrays['next_observations'].shape}; it must be that of "
                f"observations, {arrays['observations'].shape}."
            )
        for key, array in arrays.items():
            check_finite(source, key, array)
        outside = (arrays["discounts"] < 0) | (arrays["discounts"] > 1)
        if outside.any():
            row = int(outside.argmax())
            raise InputError(
                f"{source}: discounts has {arrays['discounts'][row]} in row {row}; "
                "discounts lie in [0, 1]."
            )
        minimum, maximum = resolve_bounds(source, arrays["actions"].shape[1], action_bounds)
        if check_actions(source, arrays["actions"], minimum, maximum):
            arrays["actions"] = as_float32(np.clip(arrays["actions"], minimum, maximum))
        returns = to_array(
            source, "episode_returns", np.zeros([0]) if episode_returns is None else episode_returns
        )
        check_finite(source, "episode_returns", returns)
        return cls(
            **arrays,
            episode_returns=as_float32(returns),
            action_minimum=minimum,
            action_maximum=maximum,
            source=source,
        )

    @property
    def num_transitions(self) -> int:
        """N."""
        return len(self.rewards)

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 of the shapes and contents of the five arrays, in hexadecimal."""
        digest = hashlib.sha256()
        for name in _ARRAY_NAMES:
            array = getattr(self, name)
            digest.update(f"{name}{array.shape}".encode())
            digest.update(array.data if array.size else b"")
        return digest.hexdigest()

    @property
    def time_step_spec(self) -> Any:
        """TF-Agents' `TimeStep` of specs; the observation is [S] float32."""
        import tensorflow as tf
        from tf_agents.trajectories import time_step as ts

        return ts.time_step_spec(
            tf.TensorSpec([self.observations.shape[1]], tf.float32, name="observation")
        )

    @property
    def action_spec(self) -> Any:
        """`BoundedTensorSpec` of an action, [A] float32."""
        import tensorflow as tf
        from tf_agents.specs import tensor_spec

        return tensor_spec.BoundedTensorSpec(
            [self.actions.shape[1]],
            tf.float32,
            minimum=self.action_minimum,
            maximum=self.action_maximum,
            name="action",
        )


@gin.configurable
def load_dataset(
    source: str,
    action_bounds: Optional[ActionBounds] = None,
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
    path = _find_file(source)
    with open_d4rl_hdf5(path) as file:
        if action_bounds is None:
            action_bounds = _recorded_bounds(path, file.attributes)
        minimum, maximum = resolve_bounds(path, file.shapes["actions"][1], action_bounds)
        terminals = file.read_vector("terminals")
        if "timeouts" in file.shapes:
            timeouts = file.read_vector("timeouts")
        else:
            limit = _episode_limit(path, max_episode_steps, file.attributes)
            timeouts = _infer_timeouts(terminals, limit)
        keep = ~timeouts
        keep[-1] = False
        if not keep.any():
            raise InputError(
                f"{path}: has no usable transition; it needs two consecutive rows of an "
                f"episode, but has {len(timeouts)} rows, {int(timeouts.sum())} of them "
                "cut by a time limit."
            )
        rewards = file.read_vector("rewards")
        observations, next_observations = file.read_observations(keep)
        return OfflineData(
            observations=as_float32(observations),
            actions=as_float32(file.read_actions(keep, minimum, maximum)),
            rewards=as_float32(select_rows(rewards, keep)),
            next_observations=as_float32(next_observations),
            discounts=as_float32(~terminals[keep]),
            episode_returns=as_float32(_episode_returns(rewards, terminals | timeouts)),
            action_minimum=minimum,
            action_maximum=maximum,
            source=source,
        )


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
    try:
        task = d4rl.get_task(source)
    except InputError as error:
        raise InputError(f"{source}: is neither a file nor a task ({error})") from error
    return d4rl.download(task)


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


def _infer_timeouts(terminals: np.ndarray, limit: int) -> np.ndarray:
    """`d4rl.qlearning_dataset`'s time limits for a file that does not record them.

    That function counts steps from 0 and cuts when the count is `limit` - 1; after a cut it counts
    from 0 again, after any other terminal from 1.
    """
    timeouts = np.zeros(len(terminals), bool)
    start, count = 0, 0
    for end in np.append(np.flatnonzero(terminals) + 1, len(terminals)):
        timeouts[start + limit - 1 - count : end : limit] = True
        start, count = end, int(not timeouts[end - 1])
    return timeouts


def _episode_returns(rewards: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Sums of rewards of the episodes that end in the file, in float64."""
    last = np.flatnonzero(ends)
    if not last.size:
        return np.zeros([0])
    starts = np.append(0, last[:-1] + 1)
    return np.add.reduceat(rewards[: last[-1] + 1].astype(np.float64), starts)
