"""`OfflineData`: the validated transitions of an offline data set, and where its episodes begin."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np

from fbrc_agent.datasets import checks, inspection
from fbrc_agent.utils.errors import InputError

_ARRAY_NAMES = ("observations", "actions", "rewards", "next_observations", "discounts")


@dataclasses.dataclass(frozen=True, eq=False)
class OfflineData:
    """N transitions (s, a, r, s', d) of E episodes, as read-only arrays in row-major order.

    Make one with `load_dataset` or `OfflineData.from_arrays`, which validate. Arrays are float32
    unless their entry says otherwise.

    Attributes:
      observations: s, [N, S].
      actions: a, [N, A], inside the action bounds.
      rewards: r, [N], raw.
      next_observations: s', [N, S].
      discounts: d, [N]; 0 where s' is terminal, else 1.
      episode_starts: [E] int64, the transitions that begin an episode, in ascending order, the
        first 0. An episode lasts until the next one begins; the last may be cut by the end of the
        data.
      episode_returns: [C] undiscounted raw returns of the episodes that are complete in the source,
        with the rewards of those of its rows that are no transition here.
      action_minimum: [A].
      action_maximum: [A].
      source: The path, task id or `embedded:NAME` that the data was loaded from.
      observation_mean, observation_scale: [S]; observations were (s - mean) / scale made of raw
        ones, None if they are raw (see `preprocess`).
      num_rows: Steps of the source, N and those that are no transition; None for N.
      reading_findings: What reading the source met; `findings` has these and what the arrays show.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    discounts: np.ndarray
    episode_starts: np.ndarray
    episode_returns: np.ndarray
    action_minimum: np.ndarray
    action_maximum: np.ndarray
    source: str
    observation_mean: Optional[np.ndarray] = None
    observation_scale: Optional[np.ndarray] = None
    num_rows: Optional[int] = None
    reading_findings: tuple[inspection.Finding, ...] = ()

    def __post_init__(self) -> None:
        self.episode_starts.flags.writeable = False

    @classmethod
    def from_arrays(
        cls,
        observations: Any,
        actions: Any,
        rewards: Any,
        next_observations: Any,
        discounts: Any,
        action_bounds: Optional[checks.ActionBounds] = None,
        episode_returns: Optional[Any] = None,
        source: str = "arrays",
        episode_starts: Optional[Any] = None,
    ) -> "OfflineData":
        """Validates arrays that the caller already has.

        Args:
          observations: [N, S], numbers.
          actions: [N, A], numbers.
          rewards: [N], numbers.
          next_observations: [N, S], numbers.
          discounts: [N], in [0, 1]; 0 where the next observation is terminal.
          action_bounds: (minimum, maximum), scalars or [A]; defaults to (-1, 1).
          episode_returns: [C]; defaults to no episodes.
          source: Name used in messages and records.
          episode_starts: [E], integers. By default an episode begins after discount 0 and where an
            observation is not the next observation of the transition before.

        Returns:
          The data. Arrays that already are float32 and row-major are shared, not copied; do not
          change them as long as the data is in use.

        Raises:
          InputError: If an array has a wrong rank, length or type, holds NaN or Inf, an action lies
            outside the bounds, or `episode_starts` does not ascend from 0.
        """
        given = (observations, actions, rewards, next_observations, discounts)
        arrays: dict[str, Any] = {
            key: checks.as_float32(checks.to_array(source, key, value))
            for key, value in zip(_ARRAY_NAMES, given)
        }
        checks.check_lengths(source, arrays)
        checks.check_continuous(source, np.asarray(actions).dtype, action_bounds)
        if arrays["next_observations"].shape != arrays["observations"].shape:
            raise InputError(
                f"{source}: next_observations has shape {arrays['next_observations'].shape}; it "
                f"must be that of observations, {arrays['observations'].shape}."
            )
        for key, array in arrays.items():
            checks.check_finite(source, key, array)
        discounts = arrays["discounts"]
        outside = (discounts < 0) | (discounts > 1)
        wanted = "every value must be in [0, 1]"
        checks.check_rows(source, "discounts", discounts, outside, wanted)
        minimum, maximum = checks.resolve_bounds(source, arrays["actions"].shape[1], action_bounds)
        if checks.check_actions(source, arrays["actions"], minimum, maximum)[0]:
            arrays["actions"] = checks.as_float32(np.clip(arrays["actions"], minimum, maximum))
        given_returns = [] if episode_returns is None else episode_returns
        returns = checks.to_array(source, "episode_returns", given_returns)
        checks.check_finite(source, "episode_returns", returns)
        if episode_starts is None:
            episode_starts = _infer_starts(arrays)
        return cls(
            **arrays,
            episode_starts=checks.check_episode_starts(
                source, episode_starts, len(arrays["rewards"])
            ),
            episode_returns=checks.as_float32(returns),
            action_minimum=minimum,
            action_maximum=maximum,
            source=source,
        )

    @property
    def num_transitions(self) -> int:
        """N."""
        return len(self.rewards)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The five arrays of the transitions by name, from `observations` to `discounts`."""
        return {name: getattr(self, name) for name in _ARRAY_NAMES}

    @property
    def episode_lengths(self) -> np.ndarray:
        """[E] int64, the number of transitions of each episode."""
        return np.diff(self.episode_starts, append=self.num_transitions)

    @property
    def start_observations(self) -> np.ndarray:
        """[E, S], the first observation of each episode."""
        return self.observations[self.episode_starts]

    def episodes(self) -> Iterator[slice]:
        """Yields the rows of each episode: `data.rewards[rows]` are the rewards of one."""
        for start, length in zip(self.episode_starts.tolist(), self.episode_lengths.tolist()):
            yield slice(start, start + length)

    @functools.cached_property
    def findings(self) -> tuple[inspection.Finding, ...]:
        """What is likely to spoil training, as data; `inspection.sentences` puts it into words."""
        num_rows = self.num_transitions if self.num_rows is None else self.num_rows
        return (*self.reading_findings, *inspection.inspect(self.arrays, num_rows))

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 of the shapes and contents of the five arrays, in hexadecimal."""
        digest = hashlib.sha256()
        for name, array in self.arrays.items():
            digest.update(f"{name}{array.shape}".encode())
            digest.update(array.data if array.size else b"")
        return digest.hexdigest()

    def description(self) -> dict[str, Any]:
        """Returns what run.json, result.json and model cards say of the data, as JSON takes it.

        Ranges are those of raw observations.
        """
        returns = self.episode_returns
        low, high = self.observations.min(axis=0), self.observations.max(axis=0)
        normalization = None
        if self.observation_mean is not None and self.observation_scale is not None:
            mean, scale = self.observation_mean, self.observation_scale
            low, high = low * scale + mean, high * scale + mean
            normalization = {"mean": mean.tolist(), "scale": scale.tolist()}
        return {
            "source": self.source,
            "checksum": self.checksum,
            "transitions": self.num_transitions,
            "episodes": len(returns),
            "return_mean": float(returns.mean()) if len(returns) else None,
            "return_std": float(returns.std()) if len(returns) else None,
            "observation_size": int(self.observations.shape[1]),
            "observation_minimum": low.tolist(),
            "observation_maximum": high.tolist(),
            "normalization": normalization,
            "action_size": int(self.actions.shape[1]),
            "action_minimum": self.action_minimum.tolist(),
            "action_maximum": self.action_maximum.tolist(),
        }

    @property
    def time_step_spec(self) -> Any:
        """TF-Agents' `TimeStep` of specs; the observation is [S] float32."""
        return self._specs[0]

    @property
    def action_spec(self) -> Any:
        """`BoundedTensorSpec` of an action, [A] float32."""
        return self._specs[1]

    @functools.cached_property
    def _specs(self) -> tuple[Any, Any]:
        from fbrc_agent.networks import data_specs  # Here: reading data needs no TensorFlow.

        size = self.observations.shape[1]
        return data_specs.make_specs(size, self.action_minimum, self.action_maximum)


def _infer_starts(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the rows after discount 0, and those where s is not the s' of the row before."""
    begins = np.append(True, arrays["discounts"][:-1] == 0)
    for start, rows in checks.pieces(arrays["observations"][1:]):
        end = start + len(rows)
        differs = rows != arrays["next_observations"][start:end]
        begins[start + 1 : end + 1] |= differs.any(axis=1)
    return np.flatnonzero(begins)
