"""The specs of data whose observations and actions are float32 vectors."""

from collections.abc import Sequence
from typing import Union

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

_Bounds = Union[Sequence[float], np.ndarray]


def make_specs(
    observation_size: int, action_minimum: _Bounds, action_maximum: _Bounds
) -> tuple[ts.TimeStep, types.BoundedTensorSpec]:
    """Returns the `TimeStep` spec and the action spec of observations [S] and actions [A].

    Args:
      observation_size: S.
      action_minimum: [A].
      action_maximum: [A].
    """
    observation = tf.TensorSpec([observation_size], tf.float32, name="observation")
    action = tensor_spec.BoundedTensorSpec(
        [len(action_minimum)], tf.float32, action_minimum, action_maximum, name="action"
    )
    return ts.time_step_spec(observation), action
