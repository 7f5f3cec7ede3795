"""TF-Agents' SAC, trained online in one Gymnasium environment, with every transition recorded."""

import dataclasses
import functools
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

from fbrc_agent.datasets import batches
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
        """Creates the environment, and room for `capacity` rows."""
        self.environment = gymnasium_environment.make(environment_id)
        observation = (np.float32, self.environment.observation_space.shape)
        action = (np.float32, self.environment.action_space.shape)
        fields = {"observations": observation, "actions": action, "rewards": np.float32}
        fields.update(terminals=bool, timeouts=bool, next_observations=observation)
        self._rows = np.zeros(capacity, list(fields.items()))
        self.size = 0
        self.observation = self._reset(seed)

    def _reset(self, seed: Optional[int] = None) -> np.ndarray:
        return np.asarray(self.environment.reset(seed=seed)[0], np.float32)

    def step(self, action: np.ndarray) -> None:
        """Takes one step with `action` [A] and resets the environment where the episode ends."""
        following, reward, terminated, truncated, _ = self.environment.step(action)
        following, timeout = np.asarray(following, np.float32), truncated and not terminated
        row = (self.observation, action, reward, terminated, timeout, following)
        self._rows[self.size] = row
        self.size += 1
        self.observation = self._reset() if terminated or truncated else following

    def sample(self, generator: np.random.Generator, batch_size: int) -> tuple[np.ndarray, ...]:
        """Draws transitions uniformly, as `batches.to_trajectory` takes them."""
        rows = self._rows[generator.integers(self.size, size=batch_size)]
        columns = [rows[name] for name in ("observations", "actions", "rewards")]
        return (*columns, rows["next_observations"], 1 - rows["terminals"].astype(np.float32))

    def columns(self) -> dict[str, np.ndarray]:
        """Returns the recorded rows in D4RL's layout.

        Where the recording stops within an episode, its last row is marked as a timeout: the next
        row in a file is not its next state.
        """
        names = ("observations", "actions", "rewards", "terminals", "timeouts")
        columns = {name: self._rows[name][: self.size].copy() for name in names}
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

    Raises:
      InputError: If an argument is not in its range.
    """
    checks.check_units("make_sac_agent.hidden_units", hidden_units)
    checks.check_number("make_sac_agent.learning_rate", learning_rate, above=0)
    checks.check_number("make_sac_agent.gamma", gamma, low=0, high=1)
    checks.check_number("make_sac_agent.target_update_tau", target_update_tau, above=0, high=1)
    projection = functools.partial(
        tanh_normal_projection_network.TanhNormalProjectionNetwork,
        std_transform=sac_agent.std_clip_transform,
    )
    actor = actor_distribution_network.ActorDistributionNetwork(
        *(observation_spec, action_spec),
        fc_layer_params=tuple(hidden_units),
        continuous_projection_net=projection,
    )
    critic = critic_network.CriticNetwork(
        (observation_spec, action_spec),
        joint_fc_layer_params=tuple(hidden_units),
        kernel_initializer="glorot_uniform",
        last_kernel_initializer="glorot_uniform",
    )
    optimizers = (tf.keras.optimizers.legacy.Adam(learning_rate) for _ in range(3))
    agent = sac_agent.SacAgent(
        *(ts.time_step_spec(observation_spec), action_spec, critic, actor, *optimizers),
        gamma=gamma,
        target_update_tau=target_update_tau,
        target_entropy=-float(action_spec.shape.num_elements()),
    )
    agent.initialize()
    return agent


def train_fn(agent: sac_agent.SacAgent) -> Callable[..., tf.Tensor]:
    """Returns one SAC update on a batch of `Recorder.sample`, as a TensorFlow function."""
    return tf.function(lambda *batch: agent.train(batches.to_trajectory(*batch)).loss)


@gin.configurable
@dataclasses.dataclass(eq=False)
class OnlineSac:
    """SAC in one environment: one update after every step, once the random steps are over.

    Attributes:
      environment_id: A Gymnasium id.
      seed: Seed of the environment, the networks, the exploration and the batches.
      max_steps: Environment steps after which training gives up.
      num_random_steps: Uniformly random actions at the start, without updates.
      batch_size: Transitions of one update.
      evaluation_interval: Environment steps from one evaluation to the next.
      num_evaluation_episodes: Episodes of one evaluation.
      recorder: The `Recorder` that holds every transition seen.
      evaluation_return: Mean return of the latest evaluation; None before the first.

    Raises:
      InputError: If a number is out of its range, or `max_steps` leaves no room for an evaluation
        after the random steps.
    """

    environment_id: str
    seed: int
    max_steps: int = gin.REQUIRED
    num_random_steps: int = 10_000
    batch_size: int = 256
    evaluation_interval: int = 2_500
    num_evaluation_episodes: int = 10
    evaluation_return: Optional[float] = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        checks.check_integer("OnlineSac.num_random_steps", self.num_random_steps, 0)
        for name in ("max_steps", "batch_size", "evaluation_interval", "num_evaluation_episodes"):
            checks.check_integer(f"OnlineSac.{name}", getattr(self, name), 1)
        shortest = self.num_random_steps + self.evaluation_interval
        if self.max_steps < shortest:
            raise InputError(
                f"OnlineSac.max_steps is {self.max_steps}; it must be num_random_steps + "
                f"evaluation_interval = {shortest} or more."
            )
        self._generator = np.random.default_rng(self.seed)
        self.recorder = Recorder(self.environment_id, self.seed, self.max_steps)
        environment = gymnasium_environment.GymnasiumEnvironment(self.environment_id)
        agent = make_sac_agent(
            tf.TensorSpec(environment.observation_spec().shape, tf.float32, "observation"),
            tensor_spec.from_spec(environment.action_spec()),
        )
        self._train = train_fn(agent)
        self.action_fn = rollouts.policy_action_fn(agent.collect_policy)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Draws an action [A] of the current policy for an observation [S]."""
        return self.action_fn(observation[np.newaxis])[0]

    def train_until(self, threshold: float, name: str) -> None:
        """Trains until an evaluation returns `threshold` or more.

        Args:
          threshold: The mean return wanted.
          name: What the threshold is called in messages.

        Raises:
          InputError: If it is not reached within `max_steps` environment steps.
        """
        best, first = -np.inf, self.recorder.size
        bar = progress.make_bar(desc=name, total=self.max_steps, initial=first, unit="step")
        with bar:
            for size in range(first + 1, self.max_steps + 1):
                self._step()
                bar.update()
                if size <= self.num_random_steps or size % self.evaluation_interval:
                    continue
                result = rollouts.evaluate(
                    *(self.action_fn, self.environment_id, self.num_evaluation_episodes),
                    self.seed + _EVALUATION_SEED_OFFSET,
                )
                self.evaluation_return = latest = result.return_mean
                best = max(best, latest)
                bar.set_postfix_str(f"return {latest:.1f}", refresh=False)
                tqdm.tqdm.write(f"step {size}: return {latest:.1f}")
                if latest >= threshold:
                    return
        raise InputError(
            f"The evaluation return reached {best:.1f} within OnlineSac.max_steps = "
            f"{self.max_steps} steps; {name} = {threshold:g} needs longer training or must be "
            "lower."
        )

    def _step(self) -> None:
        recorder = self.recorder
        if recorder.size < self.num_random_steps:
            recorder.step(random_action(recorder.environment, self._generator))
        else:
            recorder.step(self.act(recorder.observation))
            self._train(*recorder.sample(self._generator, self.batch_size))


def random_action(environment: Any, generator: np.random.Generator) -> np.ndarray:
    """Draws an action [A] float32 uniformly from the action box."""
    space = environment.action_space
    return generator.uniform(space.low, space.high).astype(np.float32)
