"""Checkpoints of a run: sealed with a manifest once saved, verified before one is restored.

TF-Agents' Learner restores the newest checkpoint that the state file `checkpoint` of its directory
names. `prepare` sees to it beforehand that this one is whole and this run's.
"""

import os
import sys
from typing import Any, Callable, Optional

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.networks import network

from fbrc_agent import __version__
from fbrc_agent.training import checkpoint_files
from fbrc_agent.utils import json_files
from fbrc_agent.utils.errors import InputError

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# Differing variables that a message names.
_NAMED = 3


def newest_valid(directory: str) -> Optional[str]:
    """Returns the prefix of the newest checkpoint that is whole, or None if there is none at all.

    It changes nothing; a damaged one that is passed over is named on stderr.

    Args:
      directory: Directory of checkpoints.

    Raises:
      InputError: If there are checkpoints and all are damaged.
    """
    found = checkpoint_files.find(directory)
    if found.step is None:
        return None
    for fault in found.faults.values():
        print(f"{fault}; ckpt-{found.step} is used instead.", file=sys.stderr)
    return checkpoint_files.path_prefix(directory, found.step)


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
    found = checkpoint_files.find(directory)
    if found.step is not None:
        prefix = checkpoint_files.path_prefix(directory, found.step)
        if found.is_sealed:
            _check_identity(prefix, identity)
        _check_networks(prefix, agent)
        for step, fault in found.faults.items():
            aside = checkpoint_files.move_aside(directory, step)
            print(
                f"{fault}; going on from ckpt-{found.step}, what is left of ckpt-{step} is "
                f"{aside}.* now.",
                file=sys.stderr,
            )
        checkpoint_files.write_state(directory, found.step)
    checkpoint_files.remove_unfinished(directory, found.step)
    if found.step is not None and not found.is_sealed:
        checkpoint_files.seal(directory, found.step, identity)


def sealing(
    save: Callable[..., None], directory: str, identity: dict[str, Any], keep: int
) -> Callable[..., None]:
    """Returns a Learner's checkpoint trigger that also seals what was saved, and prunes.

    Args:
      save: The trigger, of (step, force_trigger).
      directory: Directory of checkpoints of the Learner, which keeps more than `keep` of them: an
        old one goes only when a new one is on the disk for good.
      identity: What the run is of, numbers and texts by name.
      keep: How many checkpoints are kept, and as many of the damaged ones that were moved aside.
    """

    def save_and_seal(step: int, force_trigger: bool = False) -> None:
        save(step, force_trigger=force_trigger)
        prefix = checkpoint_files.path_prefix(directory, step)
        is_sealed = os.path.exists(checkpoint_files.manifest_path(prefix))
        if os.path.exists(prefix + ".index") and not is_sealed:
            checkpoint_files.seal(directory, step, identity)
            checkpoint_files.prune(directory, keep)

    return save_and_seal


def _check_identity(prefix: str, identity: dict[str, Any]) -> None:
    """Checks that a sealed checkpoint is this run's.

    Raises:
      InputError: If it is not.
    """
    manifest: Any = json_files.read_json(checkpoint_files.manifest_path(prefix))
    if manifest["format"] != checkpoint_files.FORMAT:
        raise InputError(
            f"{prefix} was saved by fbrc_agent {manifest['version']} in format "
            f"{manifest['format']}, this is {__version__} with format {checkpoint_files.FORMAT}; "
            "go on with that version, or give another root_dir to start anew."
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
