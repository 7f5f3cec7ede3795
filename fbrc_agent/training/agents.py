"""The agents of a run's stages, made from its gin settings."""

from collections.abc import Mapping

from tf_agents.agents import tf_agent
from tf_agents.networks import network
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from fbrc_agent.agents.algorithm import Algorithm
from fbrc_agent.utils import os_errors
from fbrc_agent.utils.errors import InputError


def create(
    algorithm: Algorithm,
    time_step_spec: ts.TimeStep,
    action_spec: types.NestedTensorSpec,
    seed: int,
) -> dict[str, tf_agent.TFAgent]:
    """Returns the agents of all stages by the names of their algorithms, with new weights.

    The agent of the last stage has the networks of the others, which train them in place.

    Args:
      algorithm: The algorithm of the last stage.
      time_step_spec: A `TimeStep` spec.
      action_spec: A spec of the actions.
      seed: Seed of the weights and samples.

    Raises:
      InputError: If an agent cannot be made.
    """
    agents: dict[str, tf_agent.TFAgent] = {}
    networks: dict[str, network.Network] = {}
    for stage in algorithm.stages:
        try:
            agents[stage.name] = stage.create_agent(time_step_spec, action_spec, seed, networks)
        except InputError:
            raise
        except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
            # The outermost error but one names, in gin's words, the configurable concerned.
            reason = " ".join(str(os_errors.gin_chain(error)[-2:][0]).split()).rstrip(".")
            raise InputError(
                f"The agent of '{stage.name}' cannot be made with its gin bindings ({reason}); "
                "correct those of the arguments concerned."
            ) from error
        if stage.trained_network is not None:
            networks[stage.name] = stage.trained_network(agents[stage.name])
    return agents


def trained_networks(
    algorithm: Algorithm, agents: Mapping[str, tf_agent.TFAgent]
) -> dict[str, network.Network]:
    """Returns the networks that the stages hand on, by the names of their algorithms."""
    return {
        stage.name: stage.trained_network(agents[stage.name])
        for stage in algorithm.stages
        if stage.trained_network is not None
    }
