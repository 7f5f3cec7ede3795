"""The agents of a run's stages, and the networks that one stage hands on to another."""

from collections.abc import Mapping
from typing import Any, Optional

from tf_agents.agents import tf_agent
from tf_agents.networks import network

from fbrc_agent.agents.algorithm import Algorithm
from fbrc_agent.networks import saved_network
from fbrc_agent.utils import os_errors
from fbrc_agent.utils.errors import InputError


def create(
    algorithm: Algorithm, time_step_spec: Any, action_spec: Any, seed: int
) -> tuple[dict[str, tf_agent.TFAgent], dict[str, network.Network]]:
    """Makes the agents of all stages, with new weights.

    The agent of the last stage has the networks of the others, which train them in place.

    Args:
      algorithm: The algorithm of the last stage.
      time_step_spec: A `TimeStep` spec.
      action_spec: A spec of the actions.
      seed: Seed of the weights and samples.

    Returns:
      The agents, and the networks that they hand on, both by the names of the algorithms.

    Raises:
      InputError: If an agent cannot be made.
    """
    agents: dict[str, tf_agent.TFAgent] = {}
    networks: dict[str, network.Network] = {}
    for stage in algorithm.stages:
        try:
            agents[stage.name] = stage.create_agent(time_step_spec, action_spec, seed, networks)
        except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
            # The last error before the original one: in it gin names the configurable concerned.
            reason = " ".join(str(os_errors.gin_chain(error)[-2:][0]).split()).rstrip(".")
            raise InputError(f"The agent of '{stage.name}' cannot be made: {reason}.") from error
        if stage.trained_network is not None:
            networks[stage.name] = stage.trained_network(agents[stage.name])
    return agents, networks


def restore_network(
    name: str, directory: str, net: network.Network, data: Mapping[str, Any], num_steps: int = 0
) -> Optional[dict[str, Any]]:
    """Restores a network that a stage of this or another run has left, in place.

    Args:
      name: Name of the stage's algorithm.
      directory: Directory of the stage.
      net: The network.
      data: The description of the data.
      num_steps: Updates that it must have been trained with; 0 for any number.

    Returns:
      The stage's entry of result.json, or None if it has left no network.

    Raises:
      InputError: If the network is damaged, or of another algorithm, other data or another number
        of updates.
    """
    found = saved_network.read_description(directory)
    if found is None:
        return None
    if found["algorithm"] != name:
        raise InputError(
            f"The network in {directory} is of '{found['algorithm']}'; it must be of '{name}'."
        )
    given, wanted = found["data"]["checksum"], data["checksum"]
    if given != wanted:
        raise InputError(
            f"The network in {directory} was trained on {found['data']['source']} (checksum "
            f"{given[:12]}), not on {data['source']} (checksum {wanted[:12]})."
        )
    result: dict[str, Any] = found["result"]
    if num_steps > 0 and result["steps"] != num_steps:
        raise InputError(
            f"The network in {directory} was trained with {result['steps']} updates, not "
            f"{num_steps}; give another root_dir to train a new one."
        )
    saved_network.restore(directory, net)
    return result
