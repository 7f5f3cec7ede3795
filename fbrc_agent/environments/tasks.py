"""Tasks: the environment to evaluate in, the address of the data, the reference scores.

A task is named by a D4RL id (`hopper-medium-v2`), whose address and scores are in d4rl_tasks.json,
or by the id of any environment that `gymnasium.make` takes. There may be no task at all: then
nothing is evaluated.

References:
  Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning", arXiv:2004.07219.
"""

import dataclasses
import difflib
import functools
import json
import os
from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np

from fbrc_agent.utils.errors import InputError

D4RL_TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "d4rl_tasks.json")

# D4RL's locomotion tasks run on gym's -v2/-v3 robots; Gymnasium's -v4 are the same dynamics on the
# maintained `mujoco` bindings. Its -v5 are others, to which D4RL's scores do not apply.
_ENVIRONMENTS = {
    "hopper": "Hopper-v4",
    "halfcheetah": "HalfCheetah-v4",
    "walker2d": "Walker2d-v4",
}

# Pendulum-v1 is not a D4RL task; these are ours, mean returns of 1000 episodes, reset with seeds 0
# to 999. Random: actions uniform in [-2, 2] (standard error 9.1). Expert: the greedy controller of
# a value function computed from the true dynamics by value iteration, discount 0.995, on 401 x 321
# points of angle and velocity (standard error 2.3).
_PENDULUM_REFERENCE_SCORES = (-1230.65, -136.15)


@dataclasses.dataclass(frozen=True)
class Task:
    """What is known about a task.

    Attributes:
      id: D4RL or Gymnasium id; None where there is no task.
      environment: Gymnasium id of the environment to evaluate in; None where there is none.
      data_url: Address of the HDF5 file; None for a task without D4RL data.
      reference_scores: Raw returns of (a random policy, an expert); None where they are not known.
    """

    id: Optional[str]
    environment: Optional[str]
    data_url: Optional[str]
    reference_scores: Optional[tuple[float, float]]

    def normalized_score(self, returns: Any) -> Union[np.ndarray, np.float64]:
        """D4RL's normalized score, `100 * (return - random) / (expert - random)`.

        Args:
          returns: Raw undiscounted returns, a scalar or an array of any shape.

        Returns:
          Scores of the same shape in float64: 0 is the random policy, 100 the expert.

        Raises:
          InputError: If the task has no reference scores.
        """
        if self.reference_scores is None:
            raise InputError(
                f"Task {self.id!r} has no reference scores, so its returns cannot be normalized; "
                "bind train.reference_scores = (random, expert), or report raw returns."
            )
        random_score, expert_score = self.reference_scores
        returns = np.asarray(returns, np.float64)
        return 100.0 * (returns - random_score) / (expert_score - random_score)


def get_task(task_id: Optional[str], reference_scores: Optional[Sequence[float]] = None) -> Task:
    """Returns the task of an id.

    Args:
      task_id: For example 'hopper-medium-v2', 'Hopper-v4' or 'my_module:MyRobot-v0', or None.
      reference_scores: Raw returns of (a random policy, an expert); by default what is known.

    Returns:
      The task. D4RL tasks other than hopper, halfcheetah and walker2d have data and (mostly)
      reference scores, and None as environment. An id that is not known here is taken to be
      Gymnasium's.

    Raises:
      InputError: If the id is no text, or the references are not two numbers, the first smaller.
    """
    if task_id is not None and (not isinstance(task_id, str) or not task_id):
        raise InputError(f"The task is {task_id!r}; it must be an id such as 'Hopper-v4', or None.")
    task = find_task(task_id) or Task(task_id, task_id, None, None)
    if reference_scores is None:
        return task
    try:
        random_score, expert_score = map(float, reference_scores)
    except (TypeError, ValueError):
        random_score = expert_score = 0.0
    if not random_score < expert_score:
        raise InputError(
            f"train.reference_scores is {reference_scores!r}; it must be the returns of (a random "
            "policy, an expert), two numbers, the first one smaller, or None."
        )
    return dataclasses.replace(task, reference_scores=(random_score, expert_score))


def find_task(task_id: Optional[str]) -> Optional[Task]:
    """Returns a task whose data or reference scores are known here, D4RL's for example, or None."""
    if task_id == "Pendulum-v1":
        return Task(task_id, task_id, None, _PENDULUM_REFERENCE_SCORES)
    d4rl = _d4rl_tasks()
    for robot, environment in _ENVIRONMENTS.items():
        if task_id == environment:
            return Task(task_id, environment, None, d4rl[f"{robot}-medium-v2"].reference_scores)
    return None if task_id is None else d4rl.get(task_id)


@functools.cache
def _d4rl_tasks() -> dict[str, Task]:
    with open(D4RL_TABLE, encoding="utf-8") as file:
        table = json.load(file)["tasks"]
    tasks = {}
    for name, entry in table.items():
        scores = entry["reference_scores"]
        environment = _ENVIRONMENTS.get(name.split("-")[0])
        tasks[name] = Task(name, environment, entry["data_url"], scores and (scores[0], scores[1]))
    return tasks


def suggestion(task_id: str) -> str:
    """Returns a phrase with the ids that are known here and closest to a text."""
    known = ["Pendulum-v1", *_ENVIRONMENTS.values()]
    by_lower: dict[str, str] = {name.lower(): name for name in [*known, *_d4rl_tasks()]}
    close = difflib.get_close_matches(task_id.lower(), by_lower, n=4)
    if close:
        return "did you mean " + " or ".join(by_lower[name] for name in close)
    return "use a D4RL id such as hopper-medium-v2, or one of " + ", ".join(known)
