"""The fitted density on disk: what the first stage leaves, and the second stage or a user takes.

A `behavior` directory holds `fitted/weights` (a TensorFlow checkpoint) and `fitted/behavior.json`
(data, architecture, result of the stage); both appear together or not at all.
"""

import hashlib
import os
import shutil
from typing import Any, Optional

import gin
import tensorflow as tf

from fbrc_agent.networks import behavior_network
from fbrc_agent.training import checkpoint_files, run_directory
from fbrc_agent.utils import atomic_files, json_files, os_errors
from fbrc_agent.utils.errors import InputError

_FITTED, _WEIGHTS, _DESCRIPTION = "fitted", "weights", "behavior.json"


def save_behavior_network(
    directory: str,
    behavior: behavior_network.MixtureBehaviorNetwork,
    data: dict[str, Any],
    result: dict[str, Any],
) -> None:
    """Writes a density beside `directory`/fitted and renames it.

    Args:
      directory: The `behavior` directory.
      behavior: The density.
      data: What it was fitted to, as `run_directory.describe_data` has it.
      result: The stage's entry of result.json.
    """
    fitted = os.path.join(directory, _FITTED)
    temporary = atomic_files.temporary_name(fitted)
    os.makedirs(temporary)
    try:
        checkpoint = tf.train.Checkpoint(behavior_network=behavior)
        checkpoint.write(os.path.join(temporary, _WEIGHTS))
        json_files.write_json(
            os.path.join(temporary, _DESCRIPTION),
            {"data": data, "architecture": behavior.architecture, "result": result},
        )
        os.rename(temporary, fitted)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_description(directory: str) -> Optional[dict[str, Any]]:
    """Returns data, architecture and result of the density in a `behavior` directory, or None."""
    path = os.path.join(directory, _FITTED, _DESCRIPTION)
    return json_files.read_json(path, ("data.source", "data.checksum", "architecture", "result"))


@gin.configurable
def load_behavior_network(directory: str) -> behavior_network.MixtureBehaviorNetwork:
    """Returns the density that a run left in its `behavior` directory.

    In gin: `FbrcAgent.behavior_network = @load_behavior_network()`, with
    `import fbrc_agent.training.fitted_behavior` at the top of the file.

    Args:
      directory: For example 'runs/quickstart/behavior'.

    Raises:
      InputError: If it holds no fitted density, or a damaged one.
    """
    description = read_description(directory)
    if description is None:
        raise InputError(
            f"{directory} holds no fitted density; give the 'behavior' directory of a run whose "
            "first stage is complete."
        )
    time_step_spec, action_spec = run_directory.specs(description["data"])
    behavior = behavior_network.MixtureBehaviorNetwork(
        time_step_spec.observation, action_spec, **description["architecture"]
    )
    behavior.create_variables()
    checkpoint = tf.train.Checkpoint(behavior_network=behavior)
    path = os.path.join(directory, _FITTED, _WEIGHTS)
    try:
        checkpoint.read(path).assert_consumed()
    except checkpoint_files.READ_ERRORS as error:
        raise InputError(
            f"{path} cannot be read ({os_errors.damage(error)}); remove "
            f"{os.path.dirname(path)}, and the run goes on from the checkpoints of its first stage."
        ) from error
    return behavior


def checksum(behavior: behavior_network.MixtureBehaviorNetwork) -> str:
    """Returns the SHA-256 of the shapes and contents of a density's variables, in hexadecimal."""
    digest = hashlib.sha256()
    for weight in behavior.get_weights():
        digest.update(f"{weight.shape}".encode() + weight.tobytes())
    return digest.hexdigest()
