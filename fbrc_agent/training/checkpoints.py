"""Checkpoints of a stage: checked against their checksums, and against the run, before a restore.

Beside `ckpt-20.index` and `ckpt-20.data-00000-of-00001`, which TensorFlow writes, the manifest
`ckpt-20.manifest.json` has the size and SHA-256 of each. It is written last: a checkpoint without
one is complete if TensorFlow can read it, and gets one; the newest that cannot be read is a save
that a kill cut short. TF-Agents' Learner restores the checkpoint that the state file `checkpoint`
names; `prepare` makes it name one that is complete and of this run.
"""

import dataclasses
import hashlib
import os
import re
import shutil
import sys
from typing import Any, Callable, Optional

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.train import learner

from fbrc_agent import __version__
from fbrc_agent.utils import atomic_files, json_files, os_errors
from fbrc_agent.utils.errors import InputError

# Of what a checkpoint holds; to be raised when this version cannot resume from older checkpoints.
_FORMAT = 2

_FILE = re.compile(r"ckpt-(\d+)\.(index|data-\d{5}-of-\d{5}|manifest\.json)")
_QUARANTINED = "damaged-"
# What TensorFlow writes before it renames it, and the state file, which may name a removed one.
_UNFINISHED = re.compile(r"ckpt-\d+_temp|.*\.tempstate\d+|checkpoint(\.tmp.*)?")
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
    """Returns where the Learner of a stage keeps its checkpoints."""
    return os.path.join(stage_dir, learner.TRAIN_DIR, learner.POLICY_CHECKPOINT_DIR)


def newest_complete(directory: str) -> Optional[str]:
    """Returns the prefix of the newest complete checkpoint, or None if there is none at all.

    It changes nothing; newer ones that are damaged are named on stderr.

    Args:
      directory: Directory of checkpoints.

    Raises:
      InputError: If there are checkpoints and all are damaged.
    """
    step, damaged = _find(directory)
    for damage in damaged:
        print(f"{damage}; ckpt-{step} is used instead.", file=sys.stderr)
    return None if step is None else _prefix(directory, step)


def prepare(directory: str, agent: tf_agent.TFAgent, identity: dict[str, str]) -> list[Damage]:
    """Makes the newest complete checkpoint the one that the Learner will restore.

    Newer ones that are damaged are renamed to `damaged-...` and named on stderr. What a killed
    process left unfinished is removed.

    Args:
      directory: Directory of checkpoints of the Learner.
      agent: The agent, its networks built.
      identity: As of `Saver`.

    Returns:
      The damaged ones.

    Raises:
      InputError: If all checkpoints are damaged, or the one to be restored is of another run, other
        networks or a version that this one cannot resume from; nothing is changed then.
    """
    if not os.path.isdir(directory):
        return []
    step, damaged = _find(directory)
    if step is not None:
        prefix = _prefix(directory, step)
        has_manifest = _read_manifest(directory, step) is not None
        if has_manifest:
            _check_identity(prefix, identity)
        restore(prefix, agent)
    for damage in damaged:
        number = damage.checkpoint
        for name in _files(directory)[number]:
            os.replace(os.path.join(directory, name), os.path.join(directory, _QUARANTINED + name))
        print(
            f"{damage}; resuming from ckpt-{step}, what is left of ckpt-{number} is quarantined "
            f"as {_QUARANTINED}ckpt-{number}.*.",
            file=sys.stderr,
        )
    _remove_unfinished(directory, step)
    _write_state(directory)
    if step is not None and not has_manifest:
        _write_manifest(directory, step, identity)
    return damaged


def restore(prefix: str, agent: tf_agent.TFAgent) -> None:
    """Restores an agent from a checkpoint, which may hold more than the agent.

    Args:
      prefix: What the paths of the checkpoint's files begin with.
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


class Saver:
    """Saves checkpoints with manifests, and removes old ones."""

    def __init__(
        self, save: Callable[..., None], directory: str, identity: dict[str, str], keep: int
    ):
        """Creates the saver.

        Args:
          save: The checkpoint trigger of a Learner, of (step, force_trigger).
          directory: Directory of checkpoints of the Learner, which keeps more than `keep` of them:
            an old one is removed only when a new one is on the disk.
          identity: Which run and stage it is of, texts by name; manifests carry it.
          keep: How many checkpoints are kept, and as many of the quarantined ones.
        """
        self._save, self._directory = save, directory
        self._identity, self._keep = identity, keep

    def save(self, step: int) -> None:
        """Saves a checkpoint, unless that of this step has been saved."""
        path = _manifest(self._directory, step)
        if os.path.exists(path):
            return
        self._save(step, force_trigger=True)
        _write_manifest(self._directory, step, self._identity)
        for prefix in ("", _QUARANTINED):
            files = _files(self._directory, prefix)
            for old in sorted(files)[: -self._keep]:
                for name in reversed(files[old]):  # The manifest first.
                    os.remove(os.path.join(self._directory, name))


def _prefix(directory: str, step: int) -> str:
    return os.path.join(directory, f"ckpt-{step}")


def _manifest(directory: str, step: int) -> str:
    return _prefix(directory, step) + ".manifest.json"


def _write_manifest(directory: str, step: int, identity: dict[str, str]) -> None:
    """Writes the manifest of a checkpoint, after all of it is on the disk."""
    path = _manifest(directory, step)
    names = [name for name in _files(directory)[step] if name != os.path.basename(path)]
    manifest = {
        "format": _FORMAT,
        "version": __version__,
        "step": step,
        "identity": identity,
        "files": {name: _size_and_checksum(os.path.join(directory, name)) for name in names},
    }
    json_files.write_json(path, manifest)


def _find(directory: str) -> tuple[Optional[int], list[Damage]]:
    """Returns the step of the newest complete checkpoint and the newer damaged ones."""
    damaged: list[Damage] = []
    steps = sorted(_files(directory), reverse=True)
    for step in steps:
        damage = _damage(directory, step)
        if damage is None:
            return step, damaged
        # A kill leaves no more than one without a manifest.
        if step != steps[0] or os.path.exists(_manifest(directory, step)):
            damaged.append(damage)
    if damaged:
        raise InputError(
            f"No checkpoint in {directory} is complete ({'; '.join(map(str, damaged))}); remove "
            "the directory to start this stage again."
        )
    return None, []


def _damage(directory: str, step: int) -> Optional[Damage]:
    """Compares a checkpoint with its manifest; without one it must be readable."""
    path = _manifest(directory, step)
    files = _read_manifest(directory, step)
    if files is None:
        if _is_readable(_prefix(directory, step)):
            return None
        problem = "is damaged: it is not what was saved" if os.path.exists(path) else "is missing"
        return Damage(step, path, problem)
    for name, (size, checksum) in files.items():
        path = os.path.join(directory, name)
        if not os.path.isfile(path):
            return Damage(step, path, "is missing")
        found = _size_and_checksum(path)
        if found["bytes"] != size:
            return Damage(step, path, f"has {found['bytes']} bytes, not {size}")
        if found["sha256"] != checksum:
            return Damage(step, path, "is damaged: its SHA-256 is not that of what was saved")
    return None


def _read_manifest(directory: str, step: int) -> Optional[dict[str, tuple[int, str]]]:
    """Returns size and SHA-256 of each file of a checkpoint; None without a usable manifest."""
    try:
        manifest: Any = json_files.read_json(
            _manifest(directory, step), ("format", "version", "identity", "files")
        )
        files = {name: (e["bytes"], e["sha256"]) for name, e in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return files if f"ckpt-{step}.index" in files else None  # A save that wrote nothing has none.


def _is_readable(prefix: str) -> bool:
    """Whether TensorFlow, which keeps checksums of tensors, reads all of a checkpoint."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError, TypeError) as error:
        os_errors.damage(error)  # What the system refuses to open is not damaged.
        return False
    return True


def _check_identity(prefix: str, identity: dict[str, str]) -> None:
    manifest: Any = json_files.read_json(prefix + ".manifest.json")
    if manifest["format"] != _FORMAT:
        raise InputError(
            f"{prefix} was saved by fbrc_agent {manifest['version']} in format "
            f"{manifest['format']}, this is {__version__} with format {_FORMAT}; resume with that "
            "version, or give another root_dir to start again."
        )
    for name, wanted in identity.items():
        found = manifest["identity"].get(name)
        if found != wanted:
            raise InputError(
                f"{prefix} has {name} {found!r}, this run's is {wanted!r}; give another root_dir "
                "to start again."
            )


def _remove_unfinished(directory: str, newest: Optional[int]) -> None:
    """Removes the state file, what saves left that were cut short, and all after the newest."""
    for name in os.listdir(directory):
        match, path = _FILE.fullmatch(name), os.path.join(directory, name)
        if match and (newest is None or int(match.group(1)) > newest):
            os.remove(path)
        elif _UNFINISHED.fullmatch(name):
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def _write_state(directory: str) -> None:
    """Writes the state file, so that TensorFlow restores the newest checkpoint, if there is one."""
    names = [f"ckpt-{step}" for step in sorted(_files(directory))]
    if names:
        # With an absolute directory the paths stay as they are, relative.
        state = tf.compat.v1.train.generate_checkpoint_state_proto(
            os.path.abspath(directory), names[-1], names
        )
        atomic_files.write_text(os.path.join(directory, "checkpoint"), str(state))


def _files(directory: str, prefix: str = "") -> dict[int, list[str]]:
    """Returns the sorted names of each checkpoint's files, by step, that have a prefix."""
    files: dict[int, list[str]] = {}
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        match = name.startswith(prefix) and _FILE.fullmatch(name[len(prefix) :])
        if match:
            files.setdefault(int(match.group(1)), []).append(name)
    return files


def _size_and_checksum(path: str) -> dict[str, Any]:
    """Returns the size and SHA-256 of a file, after all of it is on the disk."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        while chunk := file.read(_HASH_BYTES):
            digest.update(chunk)
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}
