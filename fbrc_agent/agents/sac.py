"""SAC on a fixed data set: the yardstick that collapses where the data does not support its actor.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018 (arXiv 1812.05905).
"""

from collections.abc import Mapping

import gin
from tf_agents.networks import network
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from fbrc_agent.agents import actor_critic, algorithm, offline_sac

# Not by a decorator: subclasses would call it too, and gin name it in their errors.
_configured = gin.external_configurable(offline_sac.OfflineSacAgent, "OfflineSacAgent")


@gin.configurable
def create_sac_agent(
    time_step_spec: ts.TimeStep,
    action_spec: types.BoundedTensorSpec,
    seed: int,
    pretrained: Mapping[str, network.Network],
    target_entropy_per_dimension: float = -1.0,
) -> offline_sac.OfflineSacAgent:
    """Returns the gin-configured `OfflineSacAgent`, which without more is `SacAgent`.

    Args:
      time_step_spec: A `TimeStep` spec.
      action_spec: A `BoundedTensorSpec` of shape [A].
      seed: Seed of the weights and samples.
      pretrained: Nothing.
      target_entropy_per_dimension: The target entropy divided by A, nats.
    """
    del pretrained
    return actor_critic.create_agent(
        _configured,
        time_step_spec,
        action_spec,
        seed,
        target_entropy_per_dimension,
    )


@gin.configurable
def sac() -> algorithm.Algorithm:
    """SAC as an algorithm."""
    return actor_critic.make_algorithm("sac", "SAC", create_sac_agent)
