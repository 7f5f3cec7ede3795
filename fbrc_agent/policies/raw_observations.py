"""A policy over normalized observations, as one over raw ones."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import tensorflow as tf
from tf_agents.policies import tf_policy

Normalization = Mapping[str, Sequence[float]]


def normalize(observation: tf.Tensor, normalization: Optional[Normalization]) -> tf.Tensor:
    """Returns (s - mean) / scale; s itself if `normalization`, of a data's description, is None."""
    if normalization is None:
        return observation
    mean, scale = (tf.constant(normalization[n], observation.dtype) for n in ("mean", "scale"))
    return (observation - mean) / scale


def over_raw(policy: Any, normalization: Optional[Normalization]) -> tf_policy.TFPolicy:
    """Returns a policy that takes observations as they are in the data's source.

    Args:
      policy: A policy over observations that the data was normalized to.
      normalization: "mean" and "scale" of each observation; None if the data was not normalized.
    """
    return policy if normalization is None else _RawObservationPolicy(policy, normalization)


class _RawObservationPolicy(tf_policy.TFPolicy):
    def __init__(self, policy: tf_policy.TFPolicy, normalization: Normalization):
        super().__init__(
            policy.time_step_spec,
            policy.action_spec,
            policy_state_spec=policy.policy_state_spec,
            info_spec=policy.info_spec,
            name="raw_observation_policy",
        )
        self._policy, self._normalization = policy, normalization

    def _variables(self) -> Sequence[tf.Variable]:
        return self._policy.variables()

    def _get_initial_state(self, batch_size: int) -> Any:
        return self._policy.get_initial_state(batch_size)

    def _distribution(self, time_step: Any, policy_state: Any) -> Any:
        observation = normalize(time_step.observation, self._normalization)
        return self._policy.distribution(time_step._replace(observation=observation), policy_state)
