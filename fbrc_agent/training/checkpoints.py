"""Checkpoints of a stage: checked against their checksums, and against the run, before a restore.

The directory `ckpt-20` holds what TensorFlow writes of the agent, `agent.index` and
`agent.data-00000-of-00001`, and manifest.json: the size and SHA-256 of each, and which run and
stage it is of. It is written under a temporary name and renamed when all of it is on the disk, so
that a kill leaves no half of one.
"""

import dataclasses
import hashlib
import os
import re
import sys
from typing import Any, Optional

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.train import learner

from fbrc_agent import __version__
from fbrc_agent.utils import atomic_files, json_files
from fbrc_agent.utils.errors import InputError

# Of what a checkpoint holds; to be raised when this version cannot resume from older checkpoints.
_FORMAT = 3

_AGENT, _MANIFEST, _QUARANTINED = "agent", "manifest.json", "damaged-"
_HASH_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Damage:
    """A checkpoint that cannot be used.

    Attributes:
      checkpoint: Its step.
      file: The file.
      problem: What is wrong with it, a phrase after the name of the file.
    """

    checkpoint: int
    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file} {self.problem}"


def directory_of(stage_dir: str) -> str:
    """Returns where a stage keeps its checkpoints."""
    return os.path.join(stage_dir, learner.TRAIN_DIR, learner.POLICY_CHECKPOINT_DIR)


def newest_complete(directory: str) -> Optional[str]:
    """Returns what the paths of the newest complete checkpoint's files begin with, or None.

    It changes nothing; newer ones that are damaged are named on stderr.

    Args:
      directory: Directory of checkpoints.

    Raises:
      InputError: If there are checkpoints and all are damaged.
    """
    step, damaged = _find(directory)
    for damage in damaged:
        print(f"{damage}; ckpt-{step} is used instead.", file=sys.stderr)
    return None if step is None else os.path.join(_path(directory, step), _AGENT)


def resume(directory: str, agent: tf_agent.TFAgent, identity: dict[str, str]) -> list[Damage]:
    """Restores an agent from the newest complete checkpoint, if there is one.

    Newer ones that are damaged are renamed to `damaged-...` and named on stderr.

    Args:
      directory: Directory of checkpoints.
      agent: The agent, with all variables of its networks and optimizers.
      identity: As of `save`.

    Returns:
      The damaged ones.

    Raises:
      InputError: If all checkpoints are damaged, or the one to be restored is of another run, other
        networks or a version that this one cannot resume from; nothing is changed then.
    """
    step, damaged = _find(directory)
    if step is not None:
        _check_identity(_path(directory, step), identity)
        restore(os.path.join(_path(directory, step), _AGENT), agent)
    for damage in damaged:
        quarantined = _path(directory, damage.checkpoint, _QUARANTINED)
        atomic_files.remove_directory(quarantined)  # Of an earlier start.
        os.rename(_path(directory, damage.checkpoint), quarantined)
        print(f"{damage}; resuming from ckpt-{step}, it is now {quarantined}.", file=sys.stderr)
    return damaged


def restore(prefix: str, agent: tf_agent.TFAgent) -> None:
    """Restores an agent from a checkpoint, which may hold more than the agent.

    Args:
      prefix: What `newest_complete` returns.
      agent: The agent, its networks built.

    Raises:
      InputError: If the checkpoint lacks a variable of the agent, or has another shape for it.
    """
    try:
        restored = tf.train.Checkpoint(agent=agent).read(prefix).expect_partial()
        restored.assert_existing_objects_matched()
    except (AssertionError, ValueError) as error:
        raise InputError(
            f"{prefix} does not fit the agent of this run ({str(error).strip().rstrip('.')}); give "
            "another root_dir to start again."
        ) from error


def save(directory: str, agent: tf_agent.TFAgent, identity: dict[str, str], keep: int) -> None:
    """Saves a checkpoint, unless that of this step has been saved; then removes old ones.

    Args:
      directory: Directory of checkpoints; made if there is none.
      agent: The agent; its `train_step_counter` is the step.
      identity: Which run and stage it is of, texts by name.
      keep: How many checkpoints are kept, and as many of the quarantined ones.
    """
    step = int(agent.train_step_counter.numpy())
    path = _path(directory, step)
    if os.path.exists(path):
        return
    with atomic_files.replacing_directory(path) as temporary:
        tf.train.Checkpoint(agent=agent).write(os.path.join(temporary, _AGENT))
        names = [name for name in sorted(os.listdir(temporary)) if name.startswith(f"{_AGENT}.")]
        manifest = {
            "format": _FORMAT,
            "version": __version__,
            "step": step,
            "identity": identity,
            "files": {name: _size_and_checksum(os.path.join(temporary, name)) for name in names},
        }
        json_files.write_json(os.path.join(temporary, _MANIFEST), manifest)
    for prefix in ("", _QUARANTINED):
        for old in _steps(directory, prefix)[:-keep]:
            atomic_files.remove_directory(_path(directory, old, prefix))


def _path(directory: str, step: int, prefix: str = "") -> str:
    return os.path.join(directory, f"{prefix}ckpt-{step}")


def _steps(directory: str, prefix: str = "") -> list[int]:
    """Returns the steps of checkpoints whose names begin with a prefix, in ascending order."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    matches = [re.fullmatch(rf"{prefix}ckpt-(\d+)(\.index)?", name) for name in names]
    found = [match for match in matches if match]
    for match in found:
        if match.group(2):
            raise InputError(
                f"{os.path.join(directory, match.string)} was saved by an older fbrc_agent, this "
                f"is {__version__}; resume with the older one, or give another root_dir to start "
                "again."
            )
    return sorted(int(match.group(1)) for match in found)


def _find(directory: str) -> tuple[Optional[int], list[Damage]]:
    """Returns the step of the newest complete checkpoint and the newer damaged ones."""
    damaged: list[Damage] = []
    for step in reversed(_steps(directory)):
        damage = _damage(directory, step)
        if damage is None:
            return step, damaged
        damaged.append(damage)
    if damaged:
        raise InputError(
            f"No checkpoint in {directory} is complete ({'; '.join(map(str, damaged))}); remove "
            "the directory to start this stage again."
        )
    return None, []


def _damage(directory: str, step: int) -> Optional[Damage]:
    """Compares a checkpoint with its manifest."""
    path = os.path.join(_path(directory, step), _MANIFEST)
    if not os.path.exists(path):
        return Damage(step, path, "is missing")
    try:
        manifest: Any = json_files.read_json(path, ("format", "version", "identity", "files"))
        files = {name: (e["bytes"], e["sha256"]) for name, e in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        files = {}
    if f"{_AGENT}.index" not in files:
        return Damage(step, path, "is damaged: it is not what was saved")
    for name, (size, checksum) in files.items():
        path = os.path.join(_path(directory, step), name)
        if not os.path.isfile(path):
            return Damage(step, path, "is missing")
        found = _size_and_checksum(path)
        if found["bytes"] != size:
            return Damage(step, path, f"has {found['bytes']} bytes, not {size}")
        if found["sha256"] != checksum:
            return Damage(step, path, "is damaged: its SHA-256 is not that of what was saved")
    return None


def _check_identity(path: str, identity: dict[str, str]) -> None:
    manifest: Any = json_files.read_json(os.path.join(path, _MANIFEST))
    if manifest["format"] != _FORMAT:
        raise InputError(
            f"{path} was saved by fbrc_agent {manifest['version']} in format "
            f"{manifest['format']}, this is {__version__} with format {_FORMAT}; resume with that "
            "version, or give another root_dir to start again."
        )
    for name, wanted in identity.items():
        found = manifest["identity"].get(name)
        if found != wanted:
            raise InputError(
                f"{path} has {name} {found!r}, this run's is {wanted!r}; give another root_dir "
                "to start again."
            )


def _size_and_checksum(path: str) -> dict[str, Any]:
    """Returns the size and SHA-256 of a file, after all of it is on the disk."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        while chunk := file.read(_HASH_BYTES):
            digest.update(chunk)
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}
