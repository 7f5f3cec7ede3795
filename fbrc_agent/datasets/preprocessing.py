"""What gin may do to a data set before training: all of it is off by default."""

import dataclasses
from typing import Any

import gin
import numpy as np

from fbrc_agent.datasets import checks
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.utils.errors import InputError

# A column whose standard deviation is below this share of its largest value is constant.
_CONSTANT = 1e-6


@gin.configurable
def preprocess(
    data: OfflineData,
    normalize_observations: bool = False,
    reward_scale: float = 1.0,
    reward_shift: float = 0.0,
    best_fraction: float = 1.0,
) -> OfflineData:
    """Returns data as an agent is to be trained on it.

    Args:
      data: The data.
      normalize_observations: Whether observations become (s - mean) / deviation, by column, of the
        observations that are left; a constant column is only shifted. A run's policies take raw
        observations all the same: the numbers are inside its exports, and in run.json.
      reward_scale: Multiplies the rewards.
      reward_shift: Added to the rewards, after that.
      best_fraction: Which episodes are left: this share of them, those with the greatest sums of
        rewards over their transitions, in their order; above 0 and up to 1.

    Returns:
      The data; `episode_returns` stay as they are. The same object if nothing is to be done.

    Raises:
      InputError: If an argument is not as above.
    """
    for name, value in (("reward_scale", reward_scale), ("reward_shift", reward_shift)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
            raise InputError(f"preprocess.{name} is {value!r}; it must be a finite number.")
    if not isinstance(normalize_observations, bool):
        raise InputError(
            f"preprocess.normalize_observations is {normalize_observations!r}; it must be True or "
            "False."
        )
    if not isinstance(best_fraction, (int, float)) or not 0 < best_fraction <= 1:
        raise InputError(
            f"preprocess.best_fraction is {best_fraction!r}; it must be a number above 0, up to 1."
        )
    if best_fraction < 1:
        data = _best(data, best_fraction)
    if (reward_scale, reward_shift) != (1.0, 0.0):
        rewards = checks.as_float32(reward_scale * data.rewards + np.float32(reward_shift))
        checks.check_finite(data.source, "rewards", rewards)
        data = dataclasses.replace(data, rewards=rewards)
    return _normalized(data) if normalize_observations else data


def _best(data: OfflineData, fraction: float) -> OfflineData:
    returns = np.add.reduceat(data.rewards.astype(np.float64), data.episode_starts)
    count = int(np.ceil(fraction * len(returns)))
    chosen = np.sort(np.argsort(-returns, kind="stable")[:count])
    kept = np.isin(np.repeat(np.arange(len(returns)), data.episode_lengths), chosen)
    arrays: dict[str, Any] = {
        name: checks.as_float32(array[kept]) for name, array in data.arrays.items()
    }
    starts = np.append(0, np.cumsum(data.episode_lengths[chosen])[:-1])
    # Not `rows_left_out`: those have no next observation.
    return dataclasses.replace(data, **arrays, episode_starts=starts, num_rows=int(kept.sum()))


def _normalized(data: OfflineData) -> OfflineData:
    mean = data.observations.mean(axis=0, dtype=np.float64)
    deviation = data.observations.std(axis=0, dtype=np.float64)
    is_constant = deviation <= _CONSTANT * np.abs(data.observations).max(axis=0)
    mean, scale = (
        checks.as_float32(array) for array in (mean, np.where(is_constant, 1.0, deviation))
    )

    def normalize(observations: np.ndarray) -> np.ndarray:
        normalized = checks.empty_float32(observations.shape)
        np.subtract(observations, mean, out=normalized)
        np.divide(normalized, scale, out=normalized)
        normalized.flags.writeable = False
        return normalized

    return dataclasses.replace(
        data,
        observations=normalize(data.observations),
        next_observations=normalize(data.next_observations),
        observation_mean=mean,
        observation_scale=scale,
    )
