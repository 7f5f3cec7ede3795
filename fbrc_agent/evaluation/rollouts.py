"""The undiscounted returns of a policy in TF-Agents environments, all episodes at once."""

import dataclasses
from typing import Any, Callable

import gin
import numpy as np
import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import time_step as ts

from fbrc_agent.environments import gymnasium_environment
from fbrc_agent.utils import checks, signals
from fbrc_agent.utils.errors import InputError

# Observations [N, S] float32 to actions [N, A], as arrays or tensors.
ActionFn = Callable[[np.ndarray], Any]


# An environment without a time limit may never end.
_MOST_STEPS = 1_000_000


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """Episodes of one evaluation.

    Attributes:
      returns: [N] float64, the sum of the raw rewards of each episode.
      lengths: [N] int64, the number of steps of each episode.
    """

    returns: np.ndarray
    lengths: np.ndarray

    @property
    def return_mean(self) -> float:
        """Mean of the returns."""
        return float(np.mean(self.returns))

    @property
    def return_std(self) -> float:
        """Standard deviation of the returns: of these N episodes, `ddof` 0."""
        return float(np.std(self.returns))


@gin.configurable
def evaluate(
    action_fn: ActionFn, environment_id: str, num_episodes: int, seed: int
) -> EvaluationResult:
    """Runs one episode in each of `num_episodes` environments, side by side.

    One call of `action_fn` serves all episodes of a step. Environment i is seeded with `seed + i`,
    so that a policy without randomness gives the same episodes whether they run together or one by
    one. The batch stays N rows until the last episode has ended: the rows of ended episodes keep
    their last observation and are no longer stepped.

    Args:
      action_fn: Observations [N, S] float32 to actions [N, A].
      environment_id: A Gymnasium id, such as 'Hopper-v4'; it must end its episodes.
      num_episodes: N.
      seed: Seed of the first environment; not negative.

    Returns:
      The returns and lengths of the N episodes, in the order of their seeds.

    Raises:
      InputError: If the environment cannot be made or does not end its episodes, or the actions are
        not finite or not [N, A].
      signals.Interruption: If a signal asked for it.
    """
    checks.check_integer("num_episodes", num_episodes, low=1)
    checks.check_integer("seed", seed, low=0)
    vector: list[gymnasium_environment.GymnasiumEnvironment] = []
    try:
        for i in range(num_episodes):
            signals.check()
            vector.append(gymnasium_environment.GymnasiumEnvironment(environment_id, seed=seed + i))
        return _run(action_fn, vector)
    finally:
        for environment in vector:
            environment.close()


def _run(
    action_fn: ActionFn, vector: list[gymnasium_environment.GymnasiumEnvironment]
) -> EvaluationResult:
    observations = np.zeros((len(vector), *vector[0].observation_spec().shape), np.float32)
    for i, environment in enumerate(vector):
        signals.check()
        observations[i] = environment.reset().observation
    returns = np.zeros(len(vector), np.float64)
    lengths = np.zeros(len(vector), np.int64)
    running = list(range(len(vector)))
    while running:
        actions = np.asarray(action_fn(observations), np.float32)
        shape = (len(vector), *vector[0].action_spec().shape)
        _check_actions(actions, shape, running, int(lengths.max()))
        if lengths.max() >= _MOST_STEPS:
            raise InputError(
                f"An episode of {vector[0].gymnasium.spec.id} has not ended after {_MOST_STEPS} "
                "steps; register the environment with max_episode_steps."
            )
        for i in tuple(running):
            signals.check()
            time_step = vector[i].step(actions[i])
            observations[i] = time_step.observation
            returns[i] += time_step.reward
            lengths[i] += 1
            if time_step.is_last():
                running.remove(i)
    return EvaluationResult(returns, lengths)


def _check_actions(
    actions: np.ndarray, shape: tuple[int, ...], running: list[int], step: int
) -> None:
    """Raises InputError unless the actions fit; rows of ended episodes may hold any numbers."""
    if actions.shape != shape:
        raise InputError(
            f"The shape of the policy's actions at step {step} is {actions.shape}; it must be "
            f"{shape}."
        )
    if not np.isfinite(actions[running]).all():
        row = next(i for i in running if not np.isfinite(actions[i]).all())
        raise InputError(
            f"The policy's action at step {step} of episode {row} is {actions[row]}; it must be "
            "finite."
        )


@gin.configurable
def policy_action_fn(policy: tf_policy.TFPolicy) -> ActionFn:
    """Makes an action function of a TF-Agents policy; one trace per number of episodes.

    Args:
      policy: A stateless policy over observations [S] float32. It acts as it is: wrap it in a
        `GreedyPolicy` to evaluate the mode of a stochastic policy.

    Returns:
      A function from observations [N, S] to actions [N, A].

    Raises:
      InputError: If the policy has a state.
    """
    if tf.nest.flatten(policy.policy_state_spec):
        raise InputError(
            f"The state of the policy {policy.name} is {policy.policy_state_spec}; it must have "
            "none."
        )

    @tf.function(autograph=False)
    def action(observation: tf.Tensor) -> tf.Tensor:
        time_step = ts.restart(observation, batch_size=observation.shape[0])
        return policy.action(time_step).action

    return lambda observations: action(tf.convert_to_tensor(observations)).numpy()
