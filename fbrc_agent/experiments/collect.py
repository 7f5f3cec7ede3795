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

import contextlib
import functools
import importlib.metadata
import os
from typing import Any, Callable, Optional

import gin
import numpy as np
import tensorflow as tf

from fbrc_agent.datasets import hdf5
from fbrc_agent.environments import gymnasium_environment, tasks
from fbrc_agent.experiments import online_sac
from fbrc_agent.utils import checks, progress, provenance
from fbrc_agent.utils.errors import InputError

LEVELS = ("random", "medium", "medium-replay", "medium-expert", "expert")

# Far from the seeds of training and evaluation, so that rollouts start from states of their own.
_ROLLOUT_SEED_OFFSET = 2_000_000

ActFn = Callable[[np.ndarray], np.ndarray]


def _rollout(environment_id: str, act: ActFn, num_steps: int, seed: int) -> dict[str, np.ndarray]:
    """Records `num_steps` steps of `act` in a fresh environment."""
    recorder = online_sac.Recorder(environment_id, seed, num_steps)
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
    _check_output(output)
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
        draw = functools.partial(online_sac.random_action, environment, np.random.default_rng(seed))
        parts.append(_rollout(environment_id, lambda _: draw(), num_transitions, first_seed))
    else:
        trainer = online_sac.OnlineSac(environment_id, seed)
        for index, (name, threshold) in enumerate(thresholds.items()):
            trainer.train_until(float(threshold), name)
            reached[name] = float(threshold)
            reached[f"{name}_reached"] = trainer.evaluation_return
            reached[f"{name}_environment_steps"] = trainer.recorder.size
            if level == "medium-replay":
                parts.append(trainer.recorder.columns())
            else:
                # Of an odd number, the expert part gets one row more.
                num_steps = (num_transitions + index) // len(thresholds)
                parts.append(_rollout(environment_id, trainer.act, num_steps, first_seed + index))
    attributes = {
        **reached,
        **_provenance(),
        "task": task,
        "environment": environment_id,
        "level": level,
        "seed": seed,
        "action_minimum": environment.action_space.low.astype(np.float32),
        "action_maximum": environment.action_space.high.astype(np.float32),
    }
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    hdf5.save_d4rl_hdf5(output, **columns, attributes=attributes)


def _check_output(output: str) -> None:
    directory = os.path.dirname(os.path.abspath(output))
    if os.path.exists(output):
        raise InputError(f"The output '{output}' exists already; name a new file.")
    if not os.path.isdir(directory) or not os.access(directory, os.W_OK):
        raise InputError(
            f"The output '{output}' cannot be written: its directory is missing or read-only."
        )


def _provenance() -> dict[str, str]:
    """Returns the configuration in force and the versions that a repetition needs."""
    versions = {**provenance.versions(), "gymnasium": importlib.metadata.version("gymnasium")}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["mujoco"] = importlib.metadata.version("mujoco")
    described = {f"{name}_version": version for name, version in versions.items()}
    return {"gin_config": gin.operative_config_str(), **described}
