"""A trained network on disk: what one stage of a run leaves to another stage, run or user.

A stage's directory holds `trained/weights` (a TensorFlow checkpoint) and `trained/network.json`
(algorithm, data, architecture, result); both appear together or not at all.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any, Optional

import tensorflow as tf
from tf_agents.networks import network
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from fbrc_agent.networks import data_specs
from fbrc_agent.utils import atomic_files, json_files, os_errors
from fbrc_agent.utils.errors import InputError

DIRECTORY = "trained"

_WEIGHTS, _DESCRIPTION = "weights", "network.json"
_ENTRIES = ("algorithm", "data.source", "data.checksum", "architecture", "result")
_SPEC_ENTRIES = ("observation_size", "action_minimum", "action_maximum")
# What TensorFlow raises when it reads a file that is not as it was written, or of other shapes.
_READ_ERRORS = (
    *(tf.errors.OpError, RuntimeError, ValueError, IndexError, TypeError),
    AssertionError,  # From `assert_consumed`.
)


def save(directory: str, net: network.Network, description: Mapping[str, Any]) -> None:
    """Writes a network to `directory`/trained, atomically, in place of one that is there.

    Args:
      directory: The directory of the stage that trained it.
      net: The network. If it has an `architecture`, the arguments of its constructor, these are
        saved with it.
      description: "algorithm", its name; "data", as run.json describes it; "result", the stage's
        entry of result.json.
    """
    with atomic_files.replacing_directory(os.path.join(directory, DIRECTORY)) as temporary:
        tf.train.Checkpoint(network=net).write(os.path.join(temporary, _WEIGHTS))
        json_files.write_json(
            os.path.join(temporary, _DESCRIPTION),
            {**description, "architecture": getattr(net, "architecture", None)},
        )


def read_description(directory: str) -> Optional[dict[str, Any]]:
    """Returns algorithm, data, architecture and result of a stage's network; None if it has none.

    Raises:
      InputError: If network.json is not what `save` writes.
    """
    return json_files.read_json(os.path.join(directory, DIRECTORY, _DESCRIPTION), _ENTRIES)


def restore(directory: str, net: network.Network) -> None:
    """Gives a network the weights in `directory`/trained, in place.

    Args:
      directory: The directory of the stage that trained it.
      net: A network with variables of the same shapes.

    Raises:
      InputError: If the weights are missing, damaged, or of other shapes.
    """
    net.create_variables()
    path = os.path.join(directory, DIRECTORY, _WEIGHTS)
    try:
        tf.train.Checkpoint(network=net).read(path).assert_consumed()
    except _READ_ERRORS as error:
        raise InputError(
            f"{path} cannot be read ({os_errors.damage(error)}); remove "
            f"{os.path.dirname(path)}, and the run resumes from the checkpoints of this stage."
        ) from error


def specs_from_description(data: Mapping[str, Any]) -> tuple[ts.TimeStep, types.BoundedTensorSpec]:
    """Returns the `TimeStep` spec and the action spec of data as run.json describes it.

    Raises:
      InputError: If the description lacks an entry.
    """
    missing = [name for name in _SPEC_ENTRIES if name not in data]
    if missing:
        raise InputError(
            f"The run's description of {data.get('source')} has no entry '{missing[0]}'; restore "
            "it, or take another directory."
        )
    return data_specs.make_specs(*(data[name] for name in _SPEC_ENTRIES))


def checksum(net: network.Network) -> str:
    """Returns the SHA-256 of the shapes and contents of a network's variables, in hexadecimal."""
    digest = hashlib.sha256()
    for weight in net.get_weights():
        digest.update(f"{weight.shape}".encode() + weight.tobytes())
    return digest.hexdigest()
