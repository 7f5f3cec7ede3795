"""What a run keeps on disk: run.json, operative_config.gin, metrics.jsonl; written whole or not."""

import json
import os
import re
from typing import Any

import gin

from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.utils import atomic_files, json_files
from fbrc_agent.utils.errors import InputError

# Longer than any binding, so that gin writes each on one line.
_LINE_LENGTH = 100_000

# What others read in run.json.
_DATA = ("source", "checksum", "transitions", "return_mean")
_SPECS = ("observation_size", "action_size", "action_minimum", "action_maximum")
_IDENTITY = ("task", "seed", *(f"data.{name}" for name in _DATA))


def read_metrics(root_dir: str) -> list[dict[str, Any]]:
    """Returns the lines of root_dir/metrics.jsonl; a line cut by a kill is left out."""
    path = os.path.join(root_dir, "metrics.jsonl")
    if not os.path.exists(path):
        return []
    records: list[dict[str, Any]] = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except ValueError:
                if not line.endswith(b"\n"):
                    break
                record = None
            if not _is_record(record):
                raise InputError(
                    f"{path}: line {number} is not one that a run writes; remove this line."
                )
            records.append(record)
    return records


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict):
        return False
    texts = [v for k, v in record.items() if k != "stage" and isinstance(v, str)]
    return (
        isinstance(record.get("stage"), str)
        and isinstance(record.get("step"), int)
        and ("event" in record or all(text in ("nan", "inf", "-inf") for text in texts))
    )


def describe_data(offline: OfflineData) -> dict[str, Any]:
    """Returns what run.json and result.json say of the data."""
    returns = offline.episode_returns
    return {
        "source": offline.source,
        "checksum": offline.checksum,
        "transitions": offline.num_transitions,
        "episodes": len(returns),
        "return_mean": float(returns.mean()) if len(returns) else None,
        "return_std": float(returns.std()) if len(returns) else None,
        "observation_size": int(offline.observations.shape[1]),
        "observation_minimum": offline.observations.min(axis=0).tolist(),
        "observation_maximum": offline.observations.max(axis=0).tolist(),
        "action_size": int(offline.actions.shape[1]),
        "action_minimum": [float(bound) for bound in offline.action_minimum],
        "action_maximum": [float(bound) for bound in offline.action_maximum],
    }


def specs(data: dict[str, Any]) -> tuple[Any, Any]:
    """Returns the `TimeStep` spec and the action spec of data described by `describe_data`.

    Raises:
      InputError: If the description lacks an entry.
    """
    missing = [name for name in _SPECS if name not in data]
    if missing:
        raise InputError(
            f"The run's description of {data.get('source')} has no entry '{missing[0]}'; restore "
            "it, or take another directory."
        )
    import tensorflow as tf
    from tf_agents.specs import tensor_spec
    from tf_agents.trajectories import time_step as ts

    observation = tf.TensorSpec([data["observation_size"]], tf.float32, name="observation")
    action = tensor_spec.BoundedTensorSpec(
        [data["action_size"]],
        tf.float32,
        minimum=data["action_minimum"],
        maximum=data["action_maximum"],
        name="action",
    )
    return ts.time_step_spec(observation), action


def read_identity(root_dir: str) -> dict[str, Any]:
    """Returns what run `root_dir` holds: the content of run.json.

    Raises:
      InputError: If it holds none.
    """
    path = os.path.join(root_dir, "run.json")
    identity = json_files.read_json(path, _IDENTITY)
    if identity is None:
        raise InputError(f"{root_dir} holds no run: there is no {path}.")
    return identity


def write_identity(root_dir: str, identity: dict[str, Any]) -> None:
    """Creates root_dir and marks it as this run's."""
    os.makedirs(root_dir, exist_ok=True)
    path = os.path.join(root_dir, "run.json")
    if not os.path.exists(path):
        json_files.write_json(path, identity)


def check_identity(root_dir: str, identity: dict[str, Any]) -> None:
    """Checks that root_dir holds this run or none, and one with the gin bindings now in force.

    The arguments of `train` that identify the run are in `identity`; the others, numbers of updates
    and intervals, may differ from start to start.

    Raises:
      InputError: If it does not.
    """
    found = json_files.read_json(os.path.join(root_dir, "run.json"), _IDENTITY)
    if found is None:
        return
    read_metrics(root_dir)  # Refuses lines that the run could not go on from.
    pairs = {key: (found.get(key), wanted) for key, wanted in identity.items() if key != "data"}
    pairs["data checksum"] = (found["data"]["checksum"], identity["data"]["checksum"])
    used = _bindings(_read_operative_config(root_dir))
    for name, value in _bindings(gin.config_str(max_line_length=_LINE_LENGTH)).items():
        pairs[name] = (used.get(name, value), value)
    for name, (there, wanted) in pairs.items():
        if there != wanted:
            raise InputError(
                f"{root_dir} holds a run with {name} = {there}, not {wanted}; give another "
                "root_dir to start anew."
            )


def write_operative_config(root_dir: str) -> None:
    """Writes operative_config.gin: every value that was used, by this start of the run or before.

    What an earlier start used and this one does not, such as the settings of a stage that is
    complete, is kept.
    """
    sections = _sections(_read_operative_config(root_dir))
    current = _sections(gin.operative_config_str(max_line_length=_LINE_LENGTH))
    for heading, lines in current.items():
        sections.setdefault(heading, {}).update(lines)
    paragraphs = ["\n".join([heading, *lines.values()]) for heading, lines in sections.items()]
    path = os.path.join(root_dir, "operative_config.gin")
    atomic_files.write_text(path, "\n\n".join(paragraphs) + "\n")


def _read_operative_config(root_dir: str) -> str:
    path = os.path.join(root_dir, "operative_config.gin")
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        try:
            return file.read()
        except ValueError as error:
            raise InputError(
                f"{path} is not text ({error}); restore it, or take another directory."
            ) from error


def _sections(config: str) -> dict[str, dict[str, str]]:
    """Returns the lines of a configuration that gin wrote, by heading and name."""
    # gin rules a heading off with a line of the full length.
    config = re.sub(r"^# =+$", "# " + "=" * 78, config, flags=re.MULTILINE)
    paragraphs = [text.strip().splitlines() for text in config.split("\n\n") if text.strip()]
    return {
        heading: {line.split(" = ")[0]: line for line in lines} for heading, *lines in paragraphs
    }


def _bindings(config: str) -> dict[str, str]:
    """Returns the bindings that make a run what it is: all but `train`'s and their macros."""
    lines = [line for line in config.splitlines() if " = " in line and not line.startswith("#")]
    bindings = dict(line.split(" = ", 1) for line in lines)
    arguments = [name for name in bindings if name.startswith("train.")]
    macros = [bindings[name][1:] for name in arguments if bindings[name].startswith("%")]
    return {name: bindings[name] for name in bindings if name not in arguments + macros}
