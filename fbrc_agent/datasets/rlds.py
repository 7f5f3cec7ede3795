"""RLDS data sets of TensorFlow Datasets, by name or by folder.

An episode is a data set of steps. Its last step, `is_last`, holds its last observation, but no
valid action or reward; the step before is terminal where the last one has `is_terminal`.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import numpy as np

from fbrc_agent.datasets import checks, optional, rows, spaces
from fbrc_agent.utils.errors import InputError

PREFIX = "tfds:"

_BATCH = 4096
_FIELDS = ("observation", "action", "reward", "is_last", "is_terminal")


def is_tfds(path: str) -> bool:
    """Whether a folder is a prepared data set of TensorFlow Datasets."""
    return os.path.isfile(os.path.join(path, "features.json"))


def read(source: str, columns: Optional[Mapping[str, Any]] = None) -> rows.Rows:
    """Reads the rows of a data set.

    Args:
      source: `tfds:` and the name, such as `tfds:d4rl_mujoco_hopper/v2-medium`; or the folder of
        a prepared data set. All of its splits are read.
      columns: `observations`, a list of keys, where an observation is a dict: their values are
        joined. No other name.

    Returns:
      The rows; numbers of rows count each episode's last observation as one.

    Raises:
      InputError: If the data set is not usable.
    """
    library = optional.require("tensorflow_datasets", "rlds", f"{source}: an RLDS data set")
    keys = spaces.observation_keys(source, columns)
    try:
        if source.startswith(PREFIX):
            builder = library.builder(source[len(PREFIX) :])
            builder.download_and_prepare()
        else:
            builder = library.builder_from_directory(source)
        steps = builder.info.features["steps"] if "steps" in builder.info.features else None
        _check_features(source, steps)
        dataset = builder.as_dataset(split="all")
        episodes = (_episode(f"{source}: episode {i}", e, keys) for i, e in enumerate(dataset))
        return rows.from_episodes(source, episodes)
    except InputError:
        raise
    except Exception as error:  # TensorFlow Datasets documents none, and downloads add theirs.
        raise InputError(
            f"{source}: cannot be read as an RLDS data set ({checks.reason(error)})."
        ) from error


def _check_features(source: str, steps: Any) -> None:
    missing = [key for key in _FIELDS if steps is None or key not in steps.feature]
    if missing:
        raise InputError(
            f"{source}: its steps have no {', '.join(missing)}; an RLDS data set has `steps` with "
            f"{', '.join(_FIELDS)}."
        )
    spaces.box_bounds(source, steps.feature["action"])


def _episode(place: str, episode: Any, keys: Optional[tuple[str, ...]]) -> tuple[Any, ...]:
    steps = _stack(episode["steps"].batch(_BATCH).as_numpy_iterator())
    if not steps or not steps["is_last"][-1] or steps["is_last"][:-1].any():
        raise InputError(f"{place} has no last step, or steps after it; is_last must end it.")
    discounts = 1.0 - steps["is_terminal"][1:].astype(np.float32)
    observations = spaces.join(place, steps["observation"], keys)
    return observations, steps["action"][:-1], steps["reward"][:-1], discounts


def _stack(batches: Iterator[Any]) -> dict[str, Any]:
    """Returns the fields that are read, stacked [T + 1, ...]; nothing of an empty episode."""
    parts = [{key: batch[key] for key in _FIELDS} for batch in batches]
    if not parts:
        return {}

    def join(values: list[Any]) -> Any:
        if isinstance(values[0], Mapping):
            return {key: join([value[key] for value in values]) for key in values[0]}
        return np.concatenate(values)

    return {key: join([part[key] for part in parts]) for key in _FIELDS}
