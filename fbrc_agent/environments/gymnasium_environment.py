"""Gymnasium environments, alone and as TF-Agents environments.

TF-Agents 0.19 wraps Gym but not Gymnasium. `GymnasiumEnvironment` closes that gap, so that a policy
runs in TF-Agents' drivers and metrics on Gymnasium's environments, such as `Hopper-v4`.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any, Optional

import gin
import numpy as np
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from fbrc_agent.environments import tasks
from fbrc_agent.utils.errors import InputError


@contextlib.contextmanager
def _without_mujoco_py() -> Iterator[None]:
    """Hides mujoco_py, which d4rl brings and Gymnasium 0.29 imports for its `-v2` and `-v3` robots.

    Without MuJoCo 2.1 on disk that import raises more than the ImportError that Gymnasium expects.
    """
    hides = sys.modules.setdefault("mujoco_py", None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        if hides:
            del sys.modules["mujoco_py"]


def make(environment_id: str) -> Any:
    """Creates a Gymnasium environment with vectors of bounded actions.

    Args:
      environment_id: A Gymnasium id, such as 'Hopper-v4'.

    Returns:
      The `gymnasium.Env`, with its time limit.

    Raises:
      InputError: If Gymnasium cannot make it, its observations are not a vector, or its actions are
        not a vector with finite bounds.
    """
    with _without_mujoco_py():
        try:
            import gymnasium
        except ImportError as error:
            raise InputError(
                f"The environment '{environment_id}' needs Gymnasium, which is not installed: "
                "pip install 'gymnasium[mujoco]'."
            ) from error
        try:
            with warnings.catch_warnings():
                # That -v4 is out of date: it is what D4RL's data is of.
                warnings.simplefilter("ignore", DeprecationWarning)
                # The checker would inspect every step and print its findings as warnings.
                environment: Any = gymnasium.make(environment_id, disable_env_checker=True)
        except (gymnasium.error.Error, ImportError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise InputError(
                f"Gymnasium cannot make the environment '{environment_id}': {reason}; one of "
                "one's own is 'module:Id-v0', TASK=None evaluates nothing, or "
                f"{tasks.suggestion(environment_id)}."
            ) from error
    for name in ("observation", "action"):
        space = getattr(environment, f"{name}_space")
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise InputError(
                f"The {name} space of the environment '{environment_id}' is {space}; it must be a "
                "Box of rank 1."
            )
    space = environment.action_space
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise InputError(
            f"The action space of the environment '{environment_id}' is {space}; it must have "
            "finite bounds."
        )
    return environment


def sizes(environment_id: str) -> tuple[int, int]:
    """Returns S and A of an environment, the sizes of its observations and actions.

    Raises:
      InputError: If the environment cannot be used, see `make`.
    """
    environment = make(environment_id)
    environment.close()
    return environment.observation_space.shape[0], environment.action_space.shape[0]


def _spec(space: Any, name: str) -> array_spec.BoundedArraySpec:
    return array_spec.BoundedArraySpec(
        space.shape, np.float32, minimum=space.low, maximum=space.high, name=name
    )


@gin.configurable
class GymnasiumEnvironment(py_environment.PyEnvironment):
    """A Gymnasium environment behind TF-Agents' `PyEnvironment` interface.

    Observations, actions and rewards are float32. A terminal state ends the episode with discount
    0; the time limit ends it with discount 1, since the rewards would have continued.
    """

    def __init__(self, environment_id: str, seed: Optional[int] = None):
        """Creates the environment.

        Args:
          environment_id: A Gymnasium id, such as 'Hopper-v4'.
          seed: Seed of the first reset; later episodes continue its random stream.

        Raises:
          InputError: If the environment cannot be used, see `make`.
        """
        super().__init__(handle_auto_reset=True)
        self._environment = make(environment_id)
        self._next_seed = seed
        self._observation_spec = _spec(self._environment.observation_space, "observation")
        self._action_spec = _spec(self._environment.action_space, "action")

    @property
    def gymnasium(self) -> Any:
        """The `gymnasium.Env` inside."""
        return self._environment

    def observation_spec(self) -> array_spec.BoundedArraySpec:
        """Returns the spec of one observation: [S] float32."""
        return self._observation_spec

    def action_spec(self) -> array_spec.BoundedArraySpec:
        """Returns the spec of one action: [A] float32 with the environment's bounds."""
        return self._action_spec

    def seed(self, seed: Any) -> Any:
        """Seeds the next reset."""
        self._next_seed = seed
        return seed

    def close(self) -> None:
        """Frees the environment's resources."""
        self._environment.close()

    def _reset(self) -> ts.TimeStep:
        observation, _ = self._environment.reset(seed=self._next_seed)
        self._next_seed = None
        return ts.restart(np.asarray(observation, np.float32))

    def _step(self, action: Any) -> ts.TimeStep:
        observation, reward, terminated, truncated, _ = self._environment.step(action)
        observation = np.asarray(observation, np.float32)
        reward = np.asarray(reward, np.float32)
        if terminated:
            return ts.termination(observation, reward)
        if truncated:
            return ts.truncation(observation, reward)
        return ts.transition(observation, reward)
