"""TF-Agents' `Trajectory` TFRecords, as its `TFRecordObserver` writes them.

The file of specs, NAME.spec, stands beside the file NAME. A frame of step type LAST holds an
episode's last observation; frames stand in the order in which one environment gave them.
"""

import os
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory
from tf_agents.utils import example_encoding, example_encoding_dataset

from fbrc_agent.datasets import checks, rows, spaces
from fbrc_agent.utils.errors import InputError

_BATCH = 4096

# Of a TFRecord beside its content: the length and two checksums.
_RECORD_BYTES = 16


def read(path: str, columns: Optional[Mapping[str, Any]] = None) -> rows.Rows:
    """Reads the rows of a file.

    Args:
      path: Name of the file.
      columns: `observations`, a list of keys, where an observation is a dict: their values are
        joined. No other name.

    Returns:
      The rows, frames of the file.

    Raises:
      InputError: If the file is not usable, or its actions are discrete.
    """
    keys = spaces.observation_keys(path, columns)
    spec, frames = _load(path)
    bounds = spaces.box_bounds(path, spec.action)
    is_last = frames.step_type == ts.StepType.LAST
    follows = np.append(frames.step_type[1:] != ts.StepType.FIRST, True)
    broken = ~is_last & ~follows
    ends = is_last | broken  # A driver that is stopped in an episode writes no last frame.
    return rows.Rows(
        name=path,
        observations=rows.ArrayColumn(spaces.join(path, frames.observation, keys)),
        actions=rows.ArrayColumn(frames.action),
        rewards=rows.ArrayColumn(frames.reward),
        discounts=np.where(is_last, 1.0, frames.discount),
        ends=ends,
        steps=~is_last,
        action_bounds=bounds,
    )


def _load(path: str) -> tuple[Any, Any]:
    """Returns the spec and the frames, stacked [N, ...], of a file."""
    if not os.path.isfile(f"{path}.spec"):
        raise InputError(
            f"{path}: the file of its specs, {path}.spec, is missing; it must stand beside it, as "
            "TF-Agents' TFRecordObserver writes it."
        )
    try:
        spec = example_encoding_dataset.parse_encoded_spec_from_file(f"{path}.spec")
        decode = example_encoding.get_example_decoder(spec)
        with tf.device("/CPU:0"):
            dataset = tf.data.TFRecordDataset(path).map(lambda r: (decode(r), tf.strings.length(r)))
            batches = list(dataset.batch(_BATCH).as_numpy_iterator())
    except (tf.errors.OpError, ValueError, TypeError, OSError, KeyError, StopIteration) as error:
        raise InputError(
            f"{path}: cannot be read as TF-Agents' TFRecords ({checks.reason(error)})."
        ) from error
    # The class of a spec that was read is another named tuple.
    if getattr(spec, "_fields", None) != trajectory.Trajectory._fields:
        raise InputError(
            f"{path}: holds {type(spec).__name__}; it must hold TF-Agents' Trajectory, one frame "
            "in each record."
        )
    # TensorFlow reads past a record that is cut off in its head.
    num_bytes = sum(int((lengths + _RECORD_BYTES).sum()) for _, lengths in batches)
    if num_bytes != os.path.getsize(path):
        raise InputError(
            f"{path}: cannot be read as TF-Agents' TFRecords (after {num_bytes} of "
            f"{os.path.getsize(path)} bytes a record is cut off)."
        )
    if not batches:
        raise InputError(f"{path}: is empty; it must have at least one transition.")
    frames = [batch for batch, _ in batches]
    return spec, tf.nest.map_structure(lambda *parts: np.concatenate(parts), *frames)
