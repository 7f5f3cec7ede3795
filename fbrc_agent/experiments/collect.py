"""Collects an offline data set: trains SAC online and records what it does in D4RL's layout.

The levels are D4RL's (Fu et al., arXiv:2004.07219, section 5):

  random         actions drawn uniformly from the action box
  medium         rollouts of the policy when it first reaches `medium_return`
  medium-replay  every transition seen until then: the replay buffer
  medium-expert  half medium, half expert
  expert         rollouts of the policy when it first reaches `expert_return`

The return compared with a threshold is the mean over evaluation episodes of the stochastic policy,
which is the policy that also does the rollouts.
"""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
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

from fbrc_agent.datasets import batches, hdf5
from fbrc_agent.environments import gymnasium_environment, tasks
from fbrc_agent.evaluation import rollouts
from fbrc_agent.utils import atomic_files, checks, progress, provenance
from fbrc_agent.utils.errors import InputError

LEVELS = ("random", "medium", "medium-replay", "medium-expert", "expert")

# Far from the seed of training and from each other, so that evaluations and rollouts start from
# states of their own.
_EVALUATION_SEED_OFFSET, _ROLLOUT_SEED_OFFSET = 1_000_000, 2_000_000

ActFn = Callable[[np.ndarray], np.ndarray]


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


def random_action(environment: Any, generator: np.random.Generator) -> np.ndarray:
    """Draws an action [A] float32 uniformly from the action box."""
    space = environment.action_space
    return generator.uniform(space.low, space.high).astype(np.float32)


@gin.configurable("OnlineSac")
def train(
    environment_id: str,
    seed: int,
    thresholds: Mapping[str, float],
    max_steps: int = gin.REQUIRED,
    num_random_steps: int = 10_000,
    batch_size: int = 256,
    evaluation_interval: int = 2_500,
    num_evaluation_episodes: int = 10,
) -> Iterator[tuple[float, Recorder, ActFn]]:
    """Trains SAC in one environment, an update after every step, once the random steps are over.

    Args:
      environment_id: A Gymnasium id.
      seed: Seed of the environment, the networks, the exploration and the batches.
      thresholds: Mean returns of an evaluation by their names in messages, in the order in which
        they are to be reached.
      max_steps: Environment steps after which training gives up; there must be room for an
        evaluation after the random steps.
      num_random_steps: Uniformly random actions at the start, without updates.
      batch_size: Transitions of one update.
      evaluation_interval: Environment steps from one evaluation to the next.
      num_evaluation_episodes: Episodes of one evaluation.

    Yields:
      When a threshold is reached: the mean return; the recorder of every transition so far; and
      what draws actions [A] of the policy for observations [S].

    Raises:
      InputError: If a number is out of its range, or a threshold is not reached.
    """
    checks.check_integer("OnlineSac.num_random_steps", num_random_steps, 0)
    checks.check_integer("OnlineSac.batch_size", batch_size, 1)
    checks.check_integer("OnlineSac.evaluation_interval", evaluation_interval, 1)
    checks.check_integer("OnlineSac.num_evaluation_episodes", num_evaluation_episodes, 1)
    checks.check_integer("OnlineSac.max_steps", max_steps, num_random_steps + evaluation_interval)
    generator = np.random.default_rng(seed)
    recorder = Recorder(environment_id, seed, max_steps)
    environment = gymnasium_environment.GymnasiumEnvironment(environment_id)
    agent = make_sac_agent(
        tf.TensorSpec(environment.observation_spec().shape, tf.float32, "observation"),
        tensor_spec.from_spec(environment.action_spec()),
    )
    update = tf.function(lambda *batch: agent.train(batches.to_trajectory(*batch)).loss)
    action_fn = rollouts.policy_action_fn(agent.collect_policy)

    def act(observation: np.ndarray) -> np.ndarray:
        return action_fn(observation[np.newaxis])[0]

    best, names = -np.inf, list(thresholds)
    with progress.make_bar(desc="SAC", total=max_steps, unit="step") as bar:
        for size in range(1, max_steps + 1):
            bar.update()
            if size <= num_random_steps:
                recorder.step(random_action(recorder.environment, generator))
                continue
            recorder.step(act(recorder.observation))
            update(*recorder.sample(generator, batch_size))
            if size % evaluation_interval:
                continue
            evaluation = num_evaluation_episodes, seed + _EVALUATION_SEED_OFFSET
            latest = rollouts.evaluate(action_fn, environment_id, *evaluation).return_mean
            best = max(best, latest)
            bar.set_postfix_str(f"return {latest:.1f}", refresh=False)
            tqdm.tqdm.write(f"step {size}: return {latest:.1f}")
            if latest >= thresholds[names[0]]:
                yield latest, recorder, act
                names.pop(0)
            if not names:
                return
    raise InputError(
        f"The evaluation return reached {best:.1f} within OnlineSac.max_steps = {max_steps} steps; "
        f"{names[0]} = {thresholds[names[0]]:g} needs longer training or must be lower."
    )


def _rollout(environment_id: str, act: ActFn, num_steps: int, seed: int) -> dict[str, np.ndarray]:
    """Records `num_steps` steps of `act` in a fresh environment."""
    recorder = Recorder(environment_id, seed, num_steps)
    for _ in progress.make_bar(iterable=range(num_steps), desc="rollout", unit="step"):
        recorder.step(act(recorder.observation))
    return recorder.columns()


@gin.configurable
def collect(
    output: str,
    task: str = gin.REQUIRED,
    level: str = gin.REQUIRED,
    seed: int = 0,
    num_transitions: int = 100_000,
    medium_return: Optional[float] = None,
    expert_return: Optional[float] = None,
) -> None:
    """Collects a data set and writes it as one HDF5 file in D4RL's layout.

    The file appears under its name when it is complete; an interruption leaves nothing behind. The
    last row of each part is a timeout, so that no pair of rows spans a cut. The file's attributes
    hold the action bounds and where the data comes from. The same seed, versions and machine give
    the same data.

    Args:
      output: Path of the file to write; it must not exist yet.
      task: A task id of `tasks.get_task` with an environment, such as 'Hopper-v4'.
      level: One of `LEVELS`, see the top of this module.
      seed: Seed of everything random; not negative.
      num_transitions: Rows to record; 'medium-replay' has as many as its replay buffer.
      medium_return: Evaluation return at which the policy is called medium.
      expert_return: Evaluation return at which the policy is called expert.

    Raises:
      InputError: If an argument is not usable or a return is not reached; nothing is written then.
    """
    if os.path.exists(output):
        raise InputError(f"The output '{output}' exists already; name a new file.")
    atomic_files.check_path(output)
    checks.check_choice("collect.level", level, LEVELS)
    checks.check_integer("collect.seed", seed, 0)
    checks.check_integer("collect.num_transitions", num_transitions, 2)
    environment_id = tasks.get_task(task).environment
    if environment_id is None:
        raise InputError(f"The task '{task}' has no Gymnasium environment to collect data in.")
    # A level is named for the policies that it needs, here in the order in which they are reached.
    given: dict[str, Any] = {"medium": medium_return, "expert": expert_return}
    thresholds = {f"{name}_return": value for name, value in given.items() if name in level}
    for name, threshold in thresholds.items():
        if threshold is None:
            raise InputError(f"collect.{name} is None; the level '{level}' needs a number.")
        checks.check_number(f"collect.{name}", threshold)
    tf.keras.utils.set_random_seed(seed)
    parts: list[dict[str, np.ndarray]] = []
    reached: dict[str, Any] = {}
    first_seed = seed + _ROLLOUT_SEED_OFFSET
    environment = gymnasium_environment.make(environment_id)
    if level == "random":
        draw = functools.partial(random_action, environment, np.random.default_rng(seed))
        parts.append(_rollout(environment_id, lambda _: draw(), num_transitions, first_seed))
    else:
        trained = train(environment_id, seed, thresholds)
        for index, ((mean_return, recorder, act), name) in enumerate(zip(trained, thresholds)):
            reached[name] = float(thresholds[name])
            reached[f"{name}_reached"] = mean_return
            reached[f"{name}_environment_steps"] = recorder.size
            if level == "medium-replay":
                parts.append(recorder.columns())
            else:
                # Of an odd number, the expert part gets one row more.
                num_steps = (num_transitions + index) // len(thresholds)
                parts.append(_rollout(environment_id, act, num_steps, first_seed + index))
    attributes = {
        **reached,
        **{f"{name}_version": version for name, version in provenance.versions().items()},
        "gin_config": gin.operative_config_str(),
        "task": task,
        "environment": environment_id,
        "level": level,
        "seed": seed,
        "action_minimum": environment.action_space.low.astype(np.float32),
        "action_maximum": environment.action_space.high.astype(np.float32),
    }
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    hdf5.save_d4rl_hdf5(output, **columns, attributes=attributes)
