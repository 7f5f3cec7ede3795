"""The agents of a run, made of its gin settings."""

from fbrc_agent.agents.behavior import create_behavior_agent
from fbrc_agent.agents.fbrc import create_fbrc_agent
from fbrc_agent.datasets import offline_data
from fbrc_agent.training import fitted_behavior
from fbrc_agent.utils import checks


def rehearse(offline: offline_data.OfflineData, seed: int, behavior_dir: str) -> None:
    """Makes, and throws away, the agents of both stages, to find mistakes in their settings.

    Each stage sets the seed before it makes its own, so that this leaves no trace in a run.

    Raises:
      InputError: If one cannot be made.
    """
    checks.check_bindings()
    with checks.construction():
        if fitted_behavior.read_description(behavior_dir) is None:
            fitting = create_behavior_agent(offline.time_step_spec, offline.action_spec, seed, {})
            behavior = fitting.behavior_network
            checks.check_optimizers(
                fitting, "optimizer", "alpha_optimizer", optional="alpha_optimizer"
            )
        else:
            behavior = fitted_behavior.load_behavior_network(behavior_dir)
        pretrained = {"behavior": behavior}
        agent = create_fbrc_agent(offline.time_step_spec, offline.action_spec, seed, pretrained)
        checks.check_optimizers(agent, "actor_optimizer", "critic_optimizer", "alpha_optimizer")
