"""The files of checkpoints: which are complete, their checksums, what is quarantined or removed.

Beside `ckpt-20.index` and `ckpt-20.data-00000-of-00001` the manifest `ckpt-20.manifest.json` has
the size and SHA-256 of each. The state file `checkpoint` names the one that TensorFlow restores.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
from typing import Any, Optional

import tensorflow as tf

from fbrc_agent import __version__
from fbrc_agent.utils import atomic_files, json_files, os_errors
from fbrc_agent.utils.errors import InputError

# Of what a checkpoint holds; to be raised when this version cannot resume from older checkpoints.
FORMAT = 2
# What TensorFlow raises when it reads a file that is not as it was written.
READ_ERRORS = (tf.errors.OpError, RuntimeError, ValueError, IndexError, TypeError)

_STATE = "checkpoint"
_FILE = re.compile(r"ckpt-(\d+)\.(index|data-\d{5}-of-\d{5}|manifest\.json)")
_QUARANTINED = "damaged-"
# What TensorFlow writes before it renames it.
_UNFINISHED = re.compile(r"ckpt-\d+_temp|.*\.tempstate\d+|checkpoint\.tmp.*")
_HASH_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Damage:
    """A checkpoint that cannot be used.

    Attributes:
      step: Its step.
      file: The file, or what the names of its files begin with.
      problem: What is wrong with it, a phrase after the name of the file.
    """

    step: int
    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file} {self.problem}"


@dataclasses.dataclass(frozen=True)
class Found:
    """The newest complete checkpoint, and the newer ones that are damaged.

    Attributes:
      step: Its step; None if there is no checkpoint.
      has_manifest: Whether it has a readable manifest.
      damaged: The damaged ones, the newest first.
    """

    step: Optional[int]
    has_manifest: bool
    damaged: list[Damage]


def path_prefix(directory: str, step: int) -> str:
    """Returns what the paths of a checkpoint's files begin with."""
    return os.path.join(directory, f"ckpt-{step}")


def manifest_path(prefix: str) -> str:
    """Returns the path of a checkpoint's manifest."""
    return prefix + ".manifest.json"


def find(directory: str) -> Found:
    """Looks for the newest complete checkpoint; changes nothing.

    A save that a kill cut short is no damage: TensorFlow writes the index last, then the state file
    that names it, and this package the manifest after both.

    Raises:
      InputError: If there are checkpoints and all are damaged.
    """
    files, named = _files(directory), _state_step(directory)
    damaged: list[Damage] = []
    for step in sorted({*files, *([] if named is None else [named])}, reverse=True):
        if os.path.exists(manifest_path(path_prefix(directory, step))):
            is_finished, (damage, has_manifest) = True, _check_by_manifest(directory, step)
        else:
            is_finished = named is not None and step <= named
            damage, has_manifest = _check_by_reading(directory, step), False
        if damage is None:
            return Found(step, has_manifest, damaged)
        if is_finished:
            damaged.append(damage)
    if damaged:
        raise InputError(
            f"No checkpoint in {directory} is complete ({'; '.join(map(str, damaged))}); remove "
            "the directory to start this stage again."
        )
    return Found(None, False, [])


def write_manifest(directory: str, step: int, identity: dict[str, str]) -> None:
    """Writes the manifest of a checkpoint, after all of it is on the disk."""
    prefix = path_prefix(directory, step)
    paths = [os.path.join(directory, name) for name in _files(directory)[step]]
    manifest = {
        "format": FORMAT,
        "version": __version__,
        "step": step,
        "identity": identity,
        "files": {
            os.path.basename(path): {"bytes": os.path.getsize(path), "sha256": _sha256(path)}
            for path in paths
            if path != manifest_path(prefix)
        },
    }
    json_files.write_json(manifest_path(prefix), manifest)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_state(directory: str, newest: int) -> None:
    """Writes the state file, so that TensorFlow restores this checkpoint."""
    steps = [s for s, names in _files(directory).items() if f"ckpt-{s}.index" in names]
    steps = sorted(step for step in steps if step <= newest)
    state = tf.compat.v1.train.generate_checkpoint_state_proto(
        os.path.abspath(directory),  # With this the paths stay as they are, relative.
        f"ckpt-{newest}",
        [f"ckpt-{step}" for step in steps],
        [os.path.getmtime(path_prefix(directory, step) + ".index") for step in steps],
        last_preserved_timestamp=0.0,
    )
    atomic_files.write_text(os.path.join(directory, _STATE), str(state))


def prune(directory: str, keep: int) -> None:
    """Removes all but the newest checkpoints, and all but the newest quarantined ones."""
    for files in (_files(directory), _files(directory, _QUARANTINED)):
        for step in sorted(files)[:-keep]:
            for name in sorted(files[step], key=lambda name: not name.endswith(".json")):
                os.remove(os.path.join(directory, name))  # The manifest first.


def quarantine(directory: str, step: int) -> str:
    """Renames the files of a checkpoint; returns the new prefix, without the directory."""
    for name in _files(directory).get(step, []):
        os.replace(os.path.join(directory, name), os.path.join(directory, _QUARANTINED + name))
    return f"{_QUARANTINED}ckpt-{step}"


def remove_unfinished(directory: str, newest: Optional[int]) -> None:
    """Removes what saves that were cut short left: temporary files, and all after the newest."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if _UNFINISHED.fullmatch(name):
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    for step, names in _files(directory).items():
        if newest is None or step > newest:
            for name in names:
                os.remove(os.path.join(directory, name))


def _files(directory: str, prefix: str = "") -> dict[int, list[str]]:
    """Returns the names of the files of each checkpoint, by step; with a prefix of the names."""
    files: dict[int, list[str]] = {}
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        match = name.startswith(prefix) and _FILE.fullmatch(name[len(prefix) :])
        if match:
            files.setdefault(int(match.group(1)), []).append(name)
    return files


def _state_step(directory: str) -> Optional[int]:
    """Returns the step of the checkpoint that the state file names; None if it names none."""
    try:
        state = tf.train.get_checkpoint_state(directory)
    except ValueError:  # It is empty, or no text.
        return None
    match = state and _FILE.fullmatch(os.path.basename(state.model_checkpoint_path) + ".index")
    return int(match.group(1)) if match else None


def _check_by_manifest(directory: str, step: int) -> tuple[Optional[Damage], bool]:
    """Returns the damage of a checkpoint that has a manifest, and if the manifest is complete."""
    path = manifest_path(path_prefix(directory, step))
    try:
        manifest: Any = json_files.read_json(path)
        missing = {"format", "version", "step", "identity", "files"} - set(manifest)
        files = {name: (e["bytes"], e["sha256"]) for name, e in manifest["files"].items()}
        if missing or manifest["step"] != step:
            raise ValueError("not a manifest of this checkpoint")
    except (ValueError, KeyError, TypeError, AttributeError):
        # The checkpoint may be complete nevertheless: TensorFlow keeps checksums of tensors.
        damage = _check_by_reading(directory, step)
        return damage and Damage(step, path, f"is damaged and {damage}"), False
    for name, (size, checksum) in files.items():
        path = os.path.join(directory, name)
        if not os.path.isfile(path):
            return Damage(step, path, "is missing"), True
        if os.path.getsize(path) != size:
            return Damage(step, path, f"has {os.path.getsize(path)} bytes, not {size}"), True
        if _sha256(path) != checksum:
            return Damage(step, path, "is damaged: its SHA-256 is not that of what was saved"), True
    return None, True


def _check_by_reading(directory: str, step: int) -> Optional[Damage]:
    """Returns the damage of a checkpoint without a manifest; reads every tensor of it."""
    prefix = path_prefix(directory, step)
    if not os.path.isfile(prefix + ".index"):
        return Damage(step, f"{prefix}.index", "is missing")
    with contextlib.ExitStack() as stack:  # What the system refuses to open is not damaged.
        for name in _files(directory)[step]:
            stack.enter_context(open(os.path.join(directory, name), "rb"))
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except READ_ERRORS as error:
        return Damage(step, prefix, f"cannot be read ({os_errors.damage(error)})")
    return None


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        # What is known by its checksum must also be on the disk.
        os.fsync(file.fileno())
        while chunk := file.read(_HASH_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
