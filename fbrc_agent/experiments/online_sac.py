"""TF-Agents' SAC, trained online in one Gymnasium environment, with every transition recorded."""

from collections.abc import Sequence
from typing import Any, Callable, Optional

import gin
import numpy as np
import tensorflow as tf
import tqdm
from tf_agents.agents.ddpg import critic_network
from tf_agents.agents.sac import sac_agent, tanh_normal_projection_network
from tf_agents.networks import actor_distribution_network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from fbrc_agent.environments import gymnasium_environment
from fbrc_agent.evaluation import rollouts
from fbrc_agent.utils import checks, progress
from fbrc_agent.utils.errors import InputError

# Far from the seed of training, so that evaluations start from states that training did not.
_EVALUATION_SEED_OFFSET = 1_000_000


class Recorder:
    """Steps one environment and keeps every transition, in the order of time.

    Attributes:
      environment: The `gymnasium.Env`.
      observation: The current observation, [S] float32.
      size: Number of transitions recorded.
    """

    def __init__(self, environment_id: str, seed: int, capacity: int):
        """Creates the environment and empty columns of `capacity` rows."""
        self.environment = gymnasium_environment.make(environment_id)
        observation_shape = self.environment.observation_space.shape
        self._columns = {
            "observations": np.zeros((capacity, *observation_shape), np.float32),
            "actions": np.zeros((capacity, *self.environment.action_space.shape), np.float32),
            "rewards": np.zeros(capacity, np.float32),
            "terminals": np.zeros(capacity, bool),
            "timeouts": np.zeros(capacity, bool),
        }
        self._next_observations = np.zeros((capacity, *observation_shape), np.float32)
        self.size = 0
        self.observation = self._reset(seed)

    def _reset(self, seed: Optional[int] = None) -> np.ndarray:
        return np.asarray(self.environment.reset(seed=seed)[0], np.float32)

    def step(self, action: np.ndarray) -> None:
        """Takes one step with `action` [A] and resets the environment where the episode ends."""
        observation, reward, terminated, truncated, _ = self.environment.step(action)
        next_observation = np.asarray(observation, np.float32)
        row = self.size
        self._columns["observations"][row] = self.observation
        self._columns["actions"][row] = action
        self._columns["rewards"][row] = reward
        self._columns["terminals"][row] = terminated
        self._columns["timeouts"][row] = truncated and not terminated
        self._next_observations[row] = next_observation
        self.size += 1
        self.observation = self._reset() if terminated or truncated else next_observation

    def sample(self, generator: np.random.Generator, batch_size: int) -> tuple[np.ndarray, ...]:
        """Draws transitions uniformly: observations, actions, rewards, discounts, next ones."""
        rows = generator.integers(self.size, size=batch_size)
        columns = self._columns
        return (
            columns["observations"][rows],
            columns["actions"][rows],
            columns["rewards"][rows],
            1.0 - columns["terminals"][rows].astype(np.float32),
            self._next_observations[rows],
        )

    def columns(self) -> dict[str, np.ndarray]:
        """Returns the recorded rows in D4RL's layout.

        Where the recording stops within an episode, its last row is marked as a timeout: what comes
        next in a file is not the row's next state.
        """
        columns = {name: values[: self.size].copy() for name, values in self._columns.items()}
        columns["timeouts"][-1] = not columns["terminals"][-1]
        return columns


@gin.configurable
def make_sac_agent(
    observation_spec: tf.TensorSpec,
    action_spec: tensor_spec.BoundedTensorSpec,
    hidden_units: Sequence[int] = (256, 256),
    learning_rate: float = 3e-4,
    gamma: float = 0.99,
    target_update_tau: float = 0.005,
) -> sac_agent.SacAgent:
    """Makes TF-Agents' SAC with the settings of its paper (Haarnoja et al., arXiv:1812.05905).

    Args:
      observation_spec: Spec of one observation, [S] float32.
      action_spec: Spec of one action, [A] float32 with its bounds.
      hidden_units: Widths of the hidden layers of actor and critics.
      learning_rate: Adam's step size for actor, critics and temperature.
      gamma: Discount factor.
      target_update_tau: Share of the critics that enters their targets at every update.

    Returns:
      The initialized agent.

    Raises:
      InputError: If an argument is not in its range.
    """
    checks.check_units("make_sac_agent.hidden_units", hidden_units)
    checks.check_number("make_sac_agent.learning_rate", learning_rate, above=0)
    checks.check_number("make_sac_agent.gamma", gamma, low=0, high=1)
    checks.check_number("make_sac_agent.target_update_tau", target_update_tau, above=0, high=1)
    hidden_units = tuple(hidden_units)
    actor = actor_distribution_network.ActorDistributionNetwork(
        observation_spec,
        action_spec,
        fc_layer_params=hidden_units,
        continuous_projection_net=lambda spec: (
            tanh_normal_projection_network.TanhNormalProjectionNetwork(
                spec, std_transform=sac_agent.std_clip_transform
            )
        ),
    )
    critic = critic_network.CriticNetwork(
        (observation_spec, action_spec),
        joint_fc_layer_params=hidden_units,
        kernel_initializer="glorot_uniform",
        last_kernel_initializer="glorot_uniform",
    )
    agent = sac_agent.SacAgent(
        ts.time_step_spec(observation_spec),
        action_spec,
        critic_network=critic,
        actor_network=actor,
        actor_optimizer=tf.keras.optimizers.legacy.Adam(learning_rate),
        critic_optimizer=tf.keras.optimizers.legacy.Adam(learning_rate),
        alpha_optimizer=tf.keras.optimizers.legacy.Adam(learning_rate),
        gamma=gamma,
        target_update_tau=target_update_tau,
        target_entropy=-float(action_spec.shape.num_elements()),
    )
    agent.initialize()
    return agent


def train_fn(agent: sac_agent.SacAgent) -> Callable[..., tf.Tensor]:
    """Returns one SAC update on a batch of `Recorder.sample`, as a TensorFlow function."""

    @tf.function
    def train(
        observation: tf.Tensor,
        action: tf.Tensor,
        reward: tf.Tensor,
        discount: tf.Tensor,
        next_observation: tf.Tensor,
    ) -> tf.Tensor:
        def pair(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
            return tf.stack([first, second], axis=1)

        step_type = tf.fill([tf.shape(reward)[0], 2], ts.StepType.MID)
        experience = trajectory.Trajectory(
            step_type=step_type,
            observation=pair(observation, next_observation),
            action=pair(action, action),  # SAC reads the first of each pair only.
            policy_info=(),
            next_step_type=step_type,
            reward=pair(reward, tf.zeros_like(reward)),
            discount=pair(discount, tf.ones_like(discount)),
        )
        return agent.train(experience).loss

    return train


@gin.configurable
class OnlineSac:
    """SAC in one environment: one update after every step, once the random steps are over.

    Attributes:
      recorder: The `Recorder` that holds every transition seen.
      evaluation_return: Mean return of the latest evaluation; None before the first.
    """

    def __init__(
        self,
        environment_id: str,
        seed: int,
        max_steps: int = gin.REQUIRED,
        num_random_steps: int = 10_000,
        batch_size: int = 256,
        evaluation_interval: int = 2_500,
        num_evaluation_episodes: int = 10,
    ):
        """Creates the environment and the agent.

        Args:
          environment_id: A Gymnasium id.
          seed: Seed of the environment, the networks, the exploration and the batches.
          max_steps: Environment steps after which training gives up.
          num_random_steps: Uniformly random actions at the start, without updates.
          batch_size: Transitions of one update.
          evaluation_interval: Environment steps from one evaluation to the next.
          num_evaluation_episodes: Episodes of one evaluation.

        Raises:
          InputError: If a number is out of its range, or `max_steps` leaves no room for an
            evaluation after the random steps.
        """
        counts = {
            "max_steps": (max_steps, 1),
            "num_random_steps": (num_random_steps, 0),
            "batch_size": (batch_size, 1),
            "evaluation_interval": (evaluation_interval, 1),
            "num_evaluation_episodes": (num_evaluation_episodes, 1),
        }
        for name, (value, least) in counts.items():
            checks.check_integer(f"OnlineSac.{name}", value, least)
        shortest = num_random_steps + evaluation_interval
        if max_steps < shortest:
            raise InputError(
                f"OnlineSac.max_steps is {max_steps}; it must be num_random_steps + "
                f"evaluation_interval = {shortest} or more."
            )
        self._environment_id = environment_id
        self._seed = seed
        self._max_steps = max_steps
        self._num_random_steps = num_random_steps
        self._batch_size = batch_size
        self._evaluation_interval = evaluation_interval
        self._num_evaluation_episodes = num_evaluation_episodes
        self._generator = np.random.default_rng(seed)
        self.recorder = Recorder(environment_id, seed, max_steps)
        self.evaluation_return: Optional[float] = None
        environment = gymnasium_environment.GymnasiumEnvironment(environment_id)
        agent = make_sac_agent(
            tf.TensorSpec(environment.observation_spec().shape, tf.float32, "observation"),
            tensor_spec.from_spec(environment.action_spec()),
        )
        self._train = train_fn(agent)
        self.action_fn = rollouts.policy_action_fn(agent.collect_policy)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Draws an action [A] of the current policy for an observation [S]."""
        return self.action_fn(observation[np.newaxis])[0]

    def _step(self) -> None:
        recorder = self.recorder
        if recorder.size < self._num_random_steps:
            recorder.step(random_action(recorder.environment, self._generator))
            return
        recorder.step(self.act(recorder.observation))
        self._train(*recorder.sample(self._generator, self._batch_size))

    def train_until(self, threshold: float, name: str) -> None:
        """Trains until an evaluation returns `threshold` or more.

        Args:
          threshold: The mean return wanted.
          name: What the threshold is called in messages.

        Raises:
          InputError: If it is not reached within `max_steps` environment steps.
        """
        best = -np.inf
        bar = progress.make_bar(
            desc=name, total=self._max_steps, initial=self.recorder.size, unit="step"
        )
        with bar:
            while self.recorder.size < self._max_steps:
                self._step()
                bar.update()
                if self._evaluation_is_due():
                    latest = self._evaluate()
                    best = max(best, latest)
                    bar.set_postfix_str(f"return {latest:.1f}", refresh=False)
                    tqdm.tqdm.write(f"step {self.recorder.size}: return {latest:.1f}")
                    if latest >= threshold:
                        return
        raise InputError(
            f"The evaluation return reached {best:.1f} within OnlineSac.max_steps = "
            f"{self._max_steps} steps; {name} = {threshold:g} needs longer training or must be "
            "lower."
        )

    def _evaluation_is_due(self) -> bool:
        size = self.recorder.size
        return size > self._num_random_steps and size % self._evaluation_interval == 0

    def _evaluate(self) -> float:
        result = rollouts.evaluate(
            self.action_fn,
            self._environment_id,
            self._num_evaluation_episodes,
            self._seed + _EVALUATION_SEED_OFFSET,
        )
        self.evaluation_return = result.return_mean
        return result.return_mean


def random_action(environment: Any, generator: np.random.Generator) -> np.ndarray:
    """Draws an action [A] float32 uniformly from the action box."""
    space = environment.action_space
    return generator.uniform(space.low, space.high).astype(np.float32)
