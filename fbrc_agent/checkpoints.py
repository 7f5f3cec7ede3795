"""Checkpoints of a run: sealed with a manifest once saved, verified before one is restored.

TF-Agents' Learner restores the newest checkpoint that the state file `checkpoint` of its directory
names. `prepare` sees to it beforehand that this one is whole and this run's; beside `ckpt-20.index`
and `ckpt-20.data-00000-of-00001` the file `ckpt-20.manifest.json` says what they must be.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import sys
from typing import Any, Callable, Optional

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.networks import network

from fbrc_agent import __version__, faults, run_directory
from fbrc_agent.errors import InputError

# Of what a checkpoint holds; to be raised when this version cannot go on from older checkpoints.
_FORMAT = 1
_STATE = "checkpoint"
_FILE = re.compile(r"ckpt-(\d+)\.(index|data-\d{5}-of-\d{5}|manifest\.json)")
# What TensorFlow writes before it renames it.
_UNFINISHED = re.compile(r"ckpt-\d+_temp|.*\.tempstate\d+|checkpoint\.tmp.*")
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_HASH_BYTES = 1 << 20
# What TensorFlow raises when it reads a file that is not as it was written.
READ_ERRORS = (tf.errors.OpError, RuntimeError, ValueError, IndexError, TypeError)
# Differing variables that a message names.
_NAMED = 3


@dataclasses.dataclass
class _Found:
    """The newest checkpoint that is whole, and what is wrong with those that are newer."""

    step: Optional[int]
    is_sealed: bool
    faults: dict[int, str]


def newest_valid(directory: str) -> Optional[str]:
    """Returns the prefix of the newest checkpoint that is whole, or None if there is none at all.

    It changes nothing; a damaged one that is passed over is named on stderr.

    Args:
      directory: Directory of checkpoints.

    Raises:
      InputError: If there are checkpoints and all are damaged.
    """
    found = _find(directory)
    if found.step is None:
        return None
    for fault in found.faults.values():
        print(f"{fault}; ckpt-{found.step} is used instead.", file=sys.stderr)
    return _prefix(directory, found.step)


def prepare(directory: str, agent: tf_agent.TFAgent, identity: dict[str, Any]) -> None:
    """Makes the newest checkpoint that is whole the one that the Learner will restore.

    Newer ones that are damaged are renamed to `damaged-...` and named on stderr. One that was saved
    by a process killed before it could seal it is sealed once it was read. What a killed process
    left unfinished is removed.

    Args:
      directory: Directory of checkpoints of the Learner.
      agent: The agent, its networks built.
      identity: As of `sealing`.

    Raises:
      InputError: If all checkpoints are damaged, or the one to be restored is of another run, other
        networks or a version that this one cannot go on from; nothing is changed then.
    """
    if not os.path.isdir(directory):
        return
    found = _find(directory)
    if found.step is not None:
        prefix = _prefix(directory, found.step)
        if found.is_sealed:
            _check_identity(prefix, identity)
        _check_networks(prefix, agent)
        for step, fault in found.faults.items():
            aside = _move_aside(directory, step)
            print(
                f"{fault}; going on from ckpt-{found.step}, what is left of ckpt-{step} is "
                f"{aside}.* now.",
                file=sys.stderr,
            )
        _write_state(directory, found.step)
    _remove_unfinished(directory)
    if found.step is not None and not found.is_sealed:
        _seal(directory, found.step, identity)


def sealing(
    save: Callable[..., None], directory: str, identity: dict[str, Any], keep: int
) -> Callable[..., None]:
    """Returns a Learner's checkpoint trigger that also seals what was saved, and prunes.

    Args:
      save: The trigger, of (step, force_trigger).
      directory: Directory of checkpoints of the Learner, which keeps more than `keep` of them: an
        old one goes only when a new one is on the disk for good.
      identity: What the run is of, numbers and texts by name.
      keep: How many checkpoints are kept.
    """

    def save_and_seal(step: int, force_trigger: bool = False) -> None:
        save(step, force_trigger=force_trigger)
        prefix = _prefix(directory, step)
        if os.path.exists(prefix + ".index") and not os.path.exists(_manifest_path(prefix)):
            _seal(directory, step, identity)
            _prune(directory, keep)

    return save_and_seal


def _prefix(directory: str, step: int) -> str:
    return os.path.join(directory, f"ckpt-{step}")


def _manifest_path(prefix: str) -> str:
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


def _find(directory: str) -> _Found:
    files, named = _files(directory), _state_step(directory)
    faults: dict[int, str] = {}
    for step in sorted({*files, *([] if named is None else [named])}, reverse=True):
        kinds = {name.split(".")[1].split("-")[0] for name in files.get(step, [])}
        if step != named and kinds == {"data"}:
            continue  # The index comes last; the process was killed before.
        if "manifest" in kinds:
            fault, is_sealed = _sealed_fault(directory, step)
        else:
            fault, is_sealed = _unsealed_fault(directory, step), False
        if fault is None:
            return _Found(step, is_sealed, faults)
        faults[step] = fault
    if faults:
        raise InputError(
            f"No checkpoint in {directory} is whole ({'; '.join(faults.values())}); remove the "
            "directory to start this stage anew."
        )
    return _Found(None, False, {})


def _sealed_fault(directory: str, step: int) -> tuple[Optional[str], bool]:
    """Returns what is wrong with a checkpoint that has a manifest, and if the manifest is whole."""
    path = _manifest_path(_prefix(directory, step))
    try:
        manifest: Any = run_directory.read_json(path)
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
    prefix = _prefix(directory, step)
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
        return f"{prefix} cannot be read ({faults.damage(error)})"
    return None


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        # What is known by its checksum must also be on the disk.
        os.fsync(file.fileno())
        while chunk := file.read(_HASH_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _seal(directory: str, step: int, identity: dict[str, Any]) -> None:
    """Writes the manifest of a checkpoint."""
    prefix = _prefix(directory, step)
    paths = [os.path.join(directory, name) for name in _files(directory)[step]]
    shapes = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    manifest = {
        "format": _FORMAT,
        "version": __version__,
        "step": step,
        "identity": identity,
        "files": {
            os.path.basename(path): {"bytes": os.path.getsize(path), "sha256": _sha256(path)}
            for path in paths
            if path != _manifest_path(prefix)
        },
        "variables": {name: list(shape) for name, shape in sorted(shapes.items())},
    }
    run_directory.write_json(_manifest_path(prefix), manifest)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(directory: str, keep: int) -> None:
    """Removes all but the newest checkpoints, the manifest of each first."""
    files = _files(directory)
    for step in sorted(files)[:-keep]:
        for name in sorted(files[step], key=lambda name: not name.endswith(".json")):
            os.remove(os.path.join(directory, name))


def _move_aside(directory: str, step: int) -> str:
    """Renames the files of a checkpoint; returns the new prefix, without the directory."""
    existing, count = os.listdir(directory), 1
    prefix = f"damaged-ckpt-{step}"
    while any(name.startswith(f"{prefix}.") for name in existing):
        count += 1
        prefix = f"damaged-{count}-ckpt-{step}"
    for name in _files(directory).get(step, []):
        renamed = prefix + name[len(f"ckpt-{step}") :]
        os.rename(os.path.join(directory, name), os.path.join(directory, renamed))
    return prefix


def _write_state(directory: str, newest: int) -> None:
    """Writes the state file: a `CheckpointState` in protobuf's text form, with relative names."""
    steps = [s for s, names in _files(directory).items() if f"ckpt-{s}.index" in names]
    steps = sorted(step for step in steps if step <= newest)
    times = [os.path.getmtime(_prefix(directory, step) + ".index") for step in steps]
    lines = [
        f'model_checkpoint_path: "ckpt-{newest}"',
        *(f'all_model_checkpoint_paths: "ckpt-{step}"' for step in steps),
        *(f"all_model_checkpoint_timestamps: {time!r}" for time in times),
        "last_preserved_timestamp: 0.0",
    ]
    run_directory.write_text(os.path.join(directory, _STATE), "\n".join(lines) + "\n")


def _remove_unfinished(directory: str) -> None:
    """Removes what a killed process had not yet renamed, and data that no index refers to."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if _UNFINISHED.fullmatch(name):
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    for step, names in _files(directory).items():
        if f"ckpt-{step}.index" not in names:
            for name in names:
                os.remove(os.path.join(directory, name))


def _check_identity(prefix: str, identity: dict[str, Any]) -> None:
    """Checks that a sealed checkpoint is this run's.

    Raises:
      InputError: If it is not.
    """
    manifest: Any = run_directory.read_json(_manifest_path(prefix))
    if manifest["format"] != _FORMAT:
        raise InputError(
            f"{prefix} was saved by fbrc_agent {manifest['version']} in format "
            f"{manifest['format']}, this is {__version__} with format {_FORMAT}; go on with that "
            "version, or give another root_dir to start anew."
        )
    saved = manifest["identity"]
    differing = [  # What a checkpoint does not say of itself cannot be compared.
        f"{name} {saved[name]!r}, this run's is {wanted!r}"
        for name, wanted in identity.items()
        if name in saved and saved[name] != wanted
    ]
    if differing:
        raise InputError(
            f"{prefix} has {'; '.join(differing)}; give another root_dir to start anew."
        )


def _check_networks(prefix: str, agent: tf_agent.TFAgent) -> None:
    """Checks that the networks in a checkpoint have the variables that the agent's have.

    Raises:
      InputError: If they do not.
    """
    view = tf.train.TrackableView(agent)
    parts = view.children(agent)
    networks = {n: part for n, part in parts.items() if isinstance(part, network.Network)}
    seen, differing = set(), []
    shapes = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    for key, saved in sorted(shapes.items()):
        path = key[: -len(_VALUE)].split("/")
        is_slot = ".OPTIMIZER_SLOT" in path  # An optimizer's, which makes it at its first update.
        if not key.endswith(_VALUE) or len(path) < 2 or path[1] not in networks or is_slot:
            continue
        variable = _follow(view, agent, path[1:])
        seen.add(id(variable))
        own = None if variable is None else tuple(variable.shape)
        if own != tuple(saved):
            name = "/".join(part.lstrip("_") for part in path[1:])
            differing.append(f"{name} {tuple(saved)}, this run's is {own or 'not there'}")
    for name, net in networks.items():
        for variable in net.variables:
            if id(variable) not in seen:
                differing.append(
                    f"no {name.lstrip('_')} {variable.name}, this run's is {tuple(variable.shape)}"
                )
    if differing:
        more = f"; and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
        raise InputError(
            f"{prefix} has {'; '.join(differing[:_NAMED])}{more}; give another root_dir to start "
            "anew."
        )


def _follow(view: tf.train.TrackableView, root: Any, path: list[str]) -> Any:
    """Returns what a checkpoint's key leads to from the agent, or None."""
    node = root
    for part in path:
        node = view.children(node).get(part.replace(".S", "/").replace("..", "."))
        if node is None:
            return None
    return node
