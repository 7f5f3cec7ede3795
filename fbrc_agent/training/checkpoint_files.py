"""The files of checkpoints: which are whole, the seal of each, what is moved aside or removed.

Beside `ckpt-20.index` and `ckpt-20.data-00000-of-00001` the manifest `ckpt-20.manifest.json` says
what they must be, and the state file `checkpoint` names the one that TensorFlow restores.
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

# Of what a checkpoint holds; to be raised when this version cannot go on from older checkpoints.
FORMAT = 1
# What TensorFlow raises when it reads a file that is not as it was written.
READ_ERRORS = (tf.errors.OpError, RuntimeError, ValueError, IndexError, TypeError)

_STATE = "checkpoint"
_FILE = re.compile(r"ckpt-(\d+)\.(index|data-\d{5}-of-\d{5}|manifest\.json)")
_ASIDE = re.compile(r"damaged-(?:(\d+)-)?ckpt-(\d+)\..*")
# What TensorFlow writes before it renames it.
_UNFINISHED = re.compile(r"ckpt-\d+_temp|.*\.tempstate\d+|checkpoint\.tmp.*")
_HASH_BYTES = 1 << 20


@dataclasses.dataclass
class Found:
    """The newest checkpoint that is whole, and what is wrong with those that are newer."""

    step: Optional[int]
    is_sealed: bool
    faults: dict[int, str]


def path_prefix(directory: str, step: int) -> str:
    """Returns what the paths of a checkpoint's files begin with."""
    return os.path.join(directory, f"ckpt-{step}")


def manifest_path(prefix: str) -> str:
    """Returns the path of a checkpoint's manifest."""
    return prefix + ".manifest.json"


def _files(directory: str) -> dict[int, list[str]]:
    """Returns the names of the files of each checkpoint, by step."""
    files: dict[int, list[str]] = {}
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        match = _FILE.fullmatch(name)
        if match:
            files.setdefault(int(match.group(1)), []).append(name)
    return files


def _state_step(directory: str) -> Optional[int]:
    """Returns the step of the checkpoint that the state file names, if any."""
    try:
        with open(os.path.join(directory, _STATE), encoding="utf-8", errors="replace") as file:
            match = re.search(r'^model_checkpoint_path: "(?:.*/)?ckpt-(\d+)"', file.read(), re.M)
    except FileNotFoundError:
        return None
    return int(match.group(1)) if match else None


def find(directory: str) -> Found:
    """Looks for the newest checkpoint that is whole; changes nothing.

    A save that a kill cut short is no damage: TensorFlow writes the index last, in place, and only
    then the state file that names it; the manifest follows.

    Raises:
      InputError: If there are checkpoints and all are damaged.
    """
    files, named = _files(directory), _state_step(directory)
    faults: dict[int, str] = {}
    for step in sorted({*files, *([] if named is None else [named])}, reverse=True):
        if os.path.exists(manifest_path(path_prefix(directory, step))):
            is_finished, (fault, is_sealed) = True, _sealed_fault(directory, step)
        else:
            is_finished = named is not None and step <= named
            fault, is_sealed = _unsealed_fault(directory, step), False
        if fault is None:
            return Found(step, is_sealed, faults)
        if is_finished:
            faults[step] = fault
    if faults:
        raise InputError(
            f"No checkpoint in {directory} is whole ({'; '.join(faults.values())}); remove the "
            "directory to start this stage anew."
        )
    return Found(None, False, {})


def _sealed_fault(directory: str, step: int) -> tuple[Optional[str], bool]:
    """Returns what is wrong with a checkpoint that has a manifest, and if the manifest is whole."""
    path = manifest_path(path_prefix(directory, step))
    try:
        manifest: Any = json_files.read_json(path)
        missing = {"format", "version", "step", "identity", "files"} - set(manifest)
        files = {
            name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()
        }
        if missing or manifest["step"] != step:
            raise ValueError("not a manifest of this checkpoint")
    except (ValueError, KeyError, TypeError, AttributeError):
        # The checkpoint may be whole nevertheless: TensorFlow keeps checksums of tensors.
        fault = _unsealed_fault(directory, step)
        return (f"{path} is damaged and {fault}" if fault else None), False
    for name, (size, checksum) in files.items():
        path = os.path.join(directory, name)
        if not os.path.isfile(path):
            return f"{path} is missing", True
        if os.path.getsize(path) != size:
            return f"{path} has {os.path.getsize(path)} bytes, not {size}", True
        if _sha256(path) != checksum:
            return f"{path} is damaged: its bytes are not those that were saved (SHA-256)", True
    return None, True


def _unsealed_fault(directory: str, step: int) -> Optional[str]:
    """Returns what is wrong with a checkpoint without a manifest; reads every tensor of it."""
    prefix = path_prefix(directory, step)
    if not os.path.isfile(prefix + ".index"):
        return f"{prefix}.index is missing"
    with contextlib.ExitStack() as stack:  # What the machine refuses to open is not damaged.
        for name in _files(directory)[step]:
            stack.enter_context(open(os.path.join(directory, name), "rb"))
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except READ_ERRORS as error:
        return f"{prefix} cannot be read ({os_errors.damage(error)})"
    return None


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        # What is known by its checksum must also be on the disk.
        os.fsync(file.fileno())
        while chunk := file.read(_HASH_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def seal(directory: str, step: int, identity: dict[str, Any]) -> None:
    """Writes the manifest of a checkpoint, once all of it is on the disk."""
    prefix = path_prefix(directory, step)
    paths = [os.path.join(directory, name) for name in _files(directory)[step]]
    shapes = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
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
        "variables": {name: list(shape) for name, shape in sorted(shapes.items())},
    }
    json_files.write_json(manifest_path(prefix), manifest)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(directory: str, keep: int) -> None:
    """Removes all but the newest checkpoints, and all but the newest of those moved aside."""
    files, aside = _files(directory), _aside(directory)
    for step in sorted(files)[:-keep]:
        for name in sorted(files[step], key=lambda name: not name.endswith(".json")):
            os.remove(os.path.join(directory, name))  # The manifest first.
    for step_and_count in sorted(aside)[:-keep]:
        for name in aside[step_and_count]:
            os.remove(os.path.join(directory, name))


def move_aside(directory: str, step: int) -> str:
    """Renames the files of a checkpoint; returns the new prefix, without the directory."""
    count = 1 + max((count for other, count in _aside(directory) if other == step), default=0)
    prefix = f"damaged-ckpt-{step}" if count == 1 else f"damaged-{count}-ckpt-{step}"
    for name in _files(directory).get(step, []):
        renamed = prefix + name[len(f"ckpt-{step}") :]
        os.rename(os.path.join(directory, name), os.path.join(directory, renamed))
    return prefix


def _aside(directory: str) -> dict[tuple[int, int], list[str]]:
    """Returns the names of what was moved aside, by step and how often that step was damaged."""
    files: dict[tuple[int, int], list[str]] = {}
    for name in os.listdir(directory):
        match = _ASIDE.fullmatch(name)
        if match:
            files.setdefault((int(match.group(2)), int(match.group(1) or 1)), []).append(name)
    return files


def write_state(directory: str, newest: int) -> None:
    """Writes the state file: a `CheckpointState` in protobuf's text form, with relative names."""
    steps = [s for s, names in _files(directory).items() if f"ckpt-{s}.index" in names]
    steps = sorted(step for step in steps if step <= newest)
    times = [os.path.getmtime(path_prefix(directory, step) + ".index") for step in steps]
    lines = [
        f'model_checkpoint_path: "ckpt-{newest}"',
        *(f'all_model_checkpoint_paths: "ckpt-{step}"' for step in steps),
        *(f"all_model_checkpoint_timestamps: {time!r}" for time in times),
        "last_preserved_timestamp: 0.0",
    ]
    atomic_files.write_text(os.path.join(directory, _STATE), "\n".join(lines) + "\n")


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
