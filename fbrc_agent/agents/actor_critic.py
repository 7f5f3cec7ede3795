"""What the gin-configured actor-critics have in common: networks, optimizers, record, panels."""

from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.train.utils import train_utils
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from fbrc_agent.agents import algorithm, offline_sac
from fbrc_agent.networks import actor_network, critic_network
from fbrc_agent.utils import checks

_LOSS_PANELS = (
    algorithm.Panel("Critic loss", "", {"critic_loss": "critic loss"}, log_scale=True),
    algorithm.Panel("Actor loss", "", {"actor_loss": "actor loss"}),
)
_POLICY_PANELS = (
    algorithm.Panel(
        "Value of actions",
        "Q, units of return",
        {
            "q_policy": "a ~ policy",
            "q_data": "a in the data",
            "q_start": "mode of the policy, where episodes begin",
        },
    ),
    algorithm.Panel("Policy entropy", "nats", {"entropy": "entropy"}),
    algorithm.Panel("Policy temperature", "alpha", {"alpha": "alpha"}),
)


def create_agent(
    agent_class: Callable[..., offline_sac.OfflineSacAgent],
    time_step_spec: ts.TimeStep,
    action_spec: types.BoundedTensorSpec,
    seed: int,
    target_entropy_per_dimension: float,
    **arguments: Any,
) -> Any:
    """Returns the gin-configured agent of a class, with F-BRC's authors' actor and critic networks.

    Args:
      agent_class: The class.
      time_step_spec: A `TimeStep` spec.
      action_spec: A `BoundedTensorSpec` of shape [A].
      seed: Seed of the weights and samples.
      target_entropy_per_dimension: The target entropy divided by A, nats.
      **arguments: More arguments of the class.

    Raises:
      InputError: If it has no optimizer of its actor, critics or temperature.
    """
    # Each stage sets the seed, so that a network from another run changes nothing.
    tf.keras.utils.set_random_seed(seed)
    observation_spec = time_step_spec.observation
    agent = agent_class(
        time_step_spec,
        action_spec,
        critic_network=critic_network.create_offset_network((observation_spec, action_spec)),
        actor_network=actor_network.create_actor_network(observation_spec, action_spec),
        target_entropy=target_entropy_per_dimension * action_spec.shape.num_elements(),
        train_step_counter=train_utils.create_train_step(),
        seed=seed,
        **arguments,
    )
    for name in ("actor_optimizer", "critic_optimizer", "alpha_optimizer"):
        checks.check_optimizer(name, getattr(agent, f"_{name}"))
    return agent


def make_algorithm(
    name: str,
    label: str,
    create_agent: Callable[..., tf_agent.TFAgent],
    panels: Sequence[algorithm.Panel] = (),
    **attributes: Any,
) -> algorithm.Algorithm:
    """Returns the record of an algorithm whose agent is an `OfflineSacAgent`.

    Args:
      name: As of `Algorithm`.
      label: As of `Algorithm`.
      create_agent: As of `Algorithm`.
      panels: Those of the algorithm's own numbers.
      **attributes: Other attributes of `Algorithm`.
    """
    shared = {
        "diagnostics": offline_sac.OfflineSacAgent.diagnostics,
        "values": lambda agent, observation, action: agent.values(observation, action),
        "average_policy": lambda agent: agent.average_policy,
        "discounting": offline_sac.OfflineSacAgent.discounting,
        "q_names": ("q_data", "q_policy"),
        "panels": (*_LOSS_PANELS, *panels, *_POLICY_PANELS),
    }
    return algorithm.Algorithm(name, label, create_agent, **{**shared, **attributes})
