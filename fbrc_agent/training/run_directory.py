"""Which run a directory holds: run.json, and operative_config.gin, every value that was used."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import gin

from fbrc_agent.training import run_log
from fbrc_agent.utils import atomic_files, json_files
from fbrc_agent.utils.errors import InputError

# Longer than any binding, so that gin writes each on one line.
_LINE_LENGTH = 100_000

# What others read in run.json.
_DATA = ("source", "checksum", "transitions", "return_mean")
_ENTRIES = ("algorithm", "stages", "task", "seed", *(f"data.{name}" for name in _DATA))


def checksum(run: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of what identifies a run; its checkpoints carry it."""
    return hashlib.sha256(json.dumps(_identity(run), sort_keys=True).encode()).hexdigest()


def read_identity(root_dir: str) -> dict[str, Any]:
    """Returns the content of run.json.

    Raises:
      InputError: If there is none, or it is not what a run writes.
    """
    path = os.path.join(root_dir, "run.json")
    run = json_files.read_json(path, _ENTRIES)
    if run is None:
        raise InputError(f"{root_dir} holds no run: there is no {path}.")
    return run


def write_identity(root_dir: str, run: Mapping[str, Any]) -> None:
    """Writes run.json, unless it is there."""
    path = os.path.join(root_dir, "run.json")
    if not os.path.exists(path):
        json_files.write_json(path, run)


def check_identity(root_dir: str, run: Mapping[str, Any]) -> None:
    """Checks that root_dir holds this run or none, and one with the gin bindings now in force.

    The arguments of `train` that identify the run are in run.json; the others, numbers of updates
    and intervals, may differ from start to start.

    Raises:
      InputError: If it does not.
    """
    if not os.path.exists(os.path.join(root_dir, "run.json")):
        return
    found = _identity(read_identity(root_dir))
    run_log.read_metrics(root_dir)  # Refuses lines that the run could not resume from.
    pairs = {name: (found[name], wanted) for name, wanted in _identity(run).items()}
    used = _bindings(_read_text(os.path.join(root_dir, "operative_config.gin")))
    for name, value in _bindings(gin.config_str(max_line_length=_LINE_LENGTH)).items():
        pairs[name] = (used.get(name, value), value)
    for name, (there, wanted) in pairs.items():
        if there != wanted:
            raise InputError(
                f"{root_dir} holds a run with {name} = {there}, not {wanted}; give another "
                "root_dir to start again."
            )


def write_operative_config(root_dir: str) -> None:
    """Writes operative_config.gin: every value that this start of the run has used so far."""
    config = gin.operative_config_str(max_line_length=_LINE_LENGTH)
    # gin rules a heading off with a line of the full length.
    config = re.sub(r"^# =+$", "# " + "=" * 78, config, flags=re.MULTILINE)
    atomic_files.write_text(os.path.join(root_dir, "operative_config.gin"), config)


def _identity(run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what makes a run this one; paths and labels may change."""
    names = ("algorithm", "task", "seed", "batch_size")
    return {
        **{name: run.get(name) for name in names},
        "data checksum": run["data"]["checksum"],
        "pretrained networks": run.get("pretrained", {}),
    }


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except ValueError as error:
        raise InputError(
            f"{path} is not text ({error}); restore it, or take another directory."
        ) from error


def _bindings(config: str) -> dict[str, str]:
    """Returns the bindings that make a run what it is: all but `train`'s and their macros."""
    lines = [line for line in config.splitlines() if " = " in line and not line.startswith("#")]
    bindings = dict(line.split(" = ", 1) for line in lines)
    arguments = [name for name in bindings if name.startswith("train.")]
    macros = [macro for name in arguments for macro in re.findall(r"%(\w+)", bindings[name])]
    return {name: bindings[name] for name in bindings if name not in arguments + macros}
