"""The agents of a run, made of its gin settings."""

from typing import Any

import gin
import tensorflow as tf
from tf_agents.networks import network
from tf_agents.train.utils import train_utils

from fbrc_agent.agents import behavior as behavior_agent
from fbrc_agent.agents import fbrc
from fbrc_agent.datasets import offline_data
from fbrc_agent.networks import actor_network, behavior_network, critic_network
from fbrc_agent.training import fitted_behavior
from fbrc_agent.utils import checks

gin.external_configurable(tf.keras.optimizers.Adam, module="tf.keras.optimizers")
gin.external_configurable(
    tf.keras.optimizers.schedules.PiecewiseConstantDecay, module="tf.keras.optimizers.schedules"
)


def create_behavior_agent(
    time_step_spec: Any, action_spec: Any, seed: int
) -> behavior_agent.BehaviorAgent:
    """Returns the gin-configured `BehaviorAgent` of a mixture density, unfitted.

    Args:
      time_step_spec: A `TimeStep` spec.
      action_spec: A `BoundedTensorSpec` of shape [A].
      seed: Seed of the weights and samples.
    """
    tf.keras.utils.set_random_seed(seed)
    return behavior_agent.BehaviorAgent(
        time_step_spec,
        action_spec,
        behavior_network.MixtureBehaviorNetwork(time_step_spec.observation, action_spec),
        train_step_counter=train_utils.create_train_step(),
        seed=seed,
    )


@gin.configurable
def create_fbrc_agent(
    time_step_spec: Any,
    action_spec: Any,
    behavior: network.Network,
    seed: int,
    target_entropy_per_dimension: float = -1.0,
) -> fbrc.FbrcAgent:
    """Returns the gin-configured `FbrcAgent` with the authors' actor and offset network.

    Args:
      time_step_spec: A `TimeStep` spec.
      action_spec: A `BoundedTensorSpec` of shape [A].
      behavior: The fitted density.
      seed: Seed of the weights and samples.
      target_entropy_per_dimension: The target entropy divided by A, nats; the authors' is -1.
    """
    # Each stage draws from the seed anew, so that a behavior taken from elsewhere changes nothing.
    tf.keras.utils.set_random_seed(seed)
    observation_spec = time_step_spec.observation
    return fbrc.FbrcAgent(
        time_step_spec,
        action_spec,
        critic_network=critic_network.create_offset_network((observation_spec, action_spec)),
        actor_network=actor_network.create_actor_network(observation_spec, action_spec),
        behavior_network=behavior,
        target_entropy=target_entropy_per_dimension * action_spec.shape.num_elements(),
        train_step_counter=train_utils.create_train_step(),
        seed=seed,
    )


def rehearse(offline: offline_data.OfflineData, seed: int, behavior_dir: str) -> None:
    """Makes, and throws away, the agents of both stages, to find mistakes in their settings.

    Each stage sets the seed before it makes its own, so that this leaves no trace in a run.

    Raises:
      InputError: If one cannot be made.
    """
    checks.check_bindings()
    with checks.construction():
        if fitted_behavior.read_description(behavior_dir) is None:
            fitting = create_behavior_agent(offline.time_step_spec, offline.action_spec, seed)
            behavior = fitting.behavior_network
            checks.check_optimizers(
                fitting, "optimizer", "alpha_optimizer", optional="alpha_optimizer"
            )
        else:
            behavior = fitted_behavior.load_behavior_network(behavior_dir)
        agent = create_fbrc_agent(offline.time_step_spec, offline.action_spec, behavior, seed)
        checks.check_optimizers(agent, "actor_optimizer", "critic_optimizer", "alpha_optimizer")
