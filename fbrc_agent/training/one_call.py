"""Training in one call, from Python."""

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional, Union

import gin
import numpy as np

from fbrc_agent.agents.algorithm import Algorithm
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.policies import saved_policy
from fbrc_agent.training import configuration, trainer


class Trained(NamedTuple):
    """A run that is complete.

    Attributes:
      result: The content of result.json; "policy" is the directory of the exported SavedModel.
      policy: Its actions: from observations [N, S] to actions [N, A], float32.
    """

    result: dict[str, Any]
    policy: Callable[[np.ndarray], np.ndarray]


def train(
    data: Union[OfflineData, str],
    root_dir: str,
    algorithm: Union[str, Algorithm] = "fbrc",
    task: Optional[str] = None,
    steps: Optional[int] = None,
    seed: Optional[int] = None,
    bindings: Sequence[str] = (),
) -> Trained:
    """Trains an algorithm on data, or resumes the run in `root_dir`, as the command `train` does.

    With the name of a file, gin's configuration is cleared before and after.

    Args:
      data: The transitions, or `source` of `load_dataset`.
      root_dir: Directory of the run; what is in it is described in `training.trainer`.
      algorithm: Name of a gin file of this package, such as 'fbrc'; path of another gin file; or an
        `Algorithm`, which trains with what gin has been given so far.
      task: D4RL or Gymnasium id to evaluate in; the gin file's by default, in most files none.
      steps: Updates of the algorithm; the gin file's by default.
      seed: Seed of weights, batches and samples; the gin file's by default.
      bindings: Gin bindings, such as 'BEHAVIOR_STEPS = 50000'.

    Returns:
      The result and the policy.

    Raises:
      InputError, NotFiniteError: As of `trainer.train`.
    """
    if isinstance(algorithm, Algorithm):
        given = {"algorithm": algorithm, "task": task, "steps": steps, "seed": seed}
        with gin.unlock_config():
            configuration.parse([], bindings)
        options = {name: value for name, value in given.items() if value is not None}
        return _loaded(trainer.train(root_dir, data=data, **options))
    gin.clear_config()
    try:
        file = algorithm if algorithm.endswith(".gin") else f"{algorithm}.gin"
        configuration.parse([file], [*bindings, *configuration.common(task, None, steps, seed)])
        return _loaded(trainer.train(root_dir, data=data))
    finally:
        gin.clear_config()


def _loaded(result: dict[str, Any]) -> Trained:
    sizes = result["data"]["observation_size"], result["data"]["action_size"]
    return Trained(result, saved_policy.load_action_fn(result["policy"], *sizes))
