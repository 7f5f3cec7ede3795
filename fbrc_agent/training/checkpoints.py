"""Checkpoints of a stage: checked against their checksums, and against the run, before a restore.

TF-Agents' Learner restores the newest checkpoint that the state file `checkpoint` of its directory
names. `prepare` makes it name one that is complete and of this run.
"""

import os
import sys
from typing import Any, Callable, Optional

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.train import learner

from fbrc_agent import __version__
from fbrc_agent.training import checkpoint_files
from fbrc_agent.utils import json_files
from fbrc_agent.utils.errors import InputError


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
    found = checkpoint_files.find(directory)
    if found.step is None:
        return None
    for damage in found.damaged:
        print(f"{damage}; ckpt-{found.step} is used instead.", file=sys.stderr)
    return checkpoint_files.path_prefix(directory, found.step)


def prepare(
    directory: str, agent: tf_agent.TFAgent, identity: dict[str, str]
) -> list[checkpoint_files.Damage]:
    """Makes the newest complete checkpoint the one that the Learner will restore.

    Newer ones that are damaged are renamed to `damaged-...` and named on stderr. One without a
    manifest, of a process that was killed before it wrote it, gets one after it was read. What a
    killed process left unfinished is removed.

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
    found = checkpoint_files.find(directory)
    if found.step is not None:
        prefix = checkpoint_files.path_prefix(directory, found.step)
        if found.has_manifest:
            _check_identity(prefix, identity)
        _check_networks(prefix, agent)
        for damage in found.damaged:
            quarantined = checkpoint_files.quarantine(directory, damage.step)
            print(
                f"{damage}; resuming from ckpt-{found.step}, what is left of ckpt-{damage.step} is "
                f"quarantined as {quarantined}.*.",
                file=sys.stderr,
            )
        checkpoint_files.write_state(directory, found.step)
    checkpoint_files.remove_unfinished(directory, found.step)
    if found.step is not None and not found.has_manifest:
        checkpoint_files.write_manifest(directory, found.step, identity)
    return found.damaged


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
        prefix = checkpoint_files.path_prefix(self._directory, step)
        if os.path.exists(checkpoint_files.manifest_path(prefix)):
            return
        self._save(step, force_trigger=True)
        if os.path.exists(prefix + ".index"):
            checkpoint_files.write_manifest(self._directory, step, self._identity)
            checkpoint_files.prune(self._directory, self._keep)


def _check_identity(prefix: str, identity: dict[str, str]) -> None:
    """Checks that a checkpoint is this run's.

    Raises:
      InputError: If it is not.
    """
    manifest: Any = json_files.read_json(checkpoint_files.manifest_path(prefix))
    if manifest["format"] != checkpoint_files.FORMAT:
        raise InputError(
            f"{prefix} was saved by fbrc_agent {manifest['version']} in format "
            f"{manifest['format']}, this is {__version__} with format {checkpoint_files.FORMAT}; "
            "resume with that version, or give another root_dir to start again."
        )
    differing = [
        f"{name} {manifest['identity'].get(name)!r}, this run's is {wanted!r}"
        for name, wanted in identity.items()
        if manifest["identity"].get(name) != wanted
    ]
    if differing:
        raise InputError(
            f"{prefix} has {'; '.join(differing)}; give another root_dir to start again."
        )


def _check_networks(prefix: str, agent: tf_agent.TFAgent) -> None:
    """Checks, by restoring it, that a checkpoint has what the agent has, of the same shapes.

    Raises:
      InputError: If it does not.
    """
    reason = ""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # It lists what such a restore leaves out.
    try:
        restored = tf.train.Checkpoint(agent=agent).read(prefix).expect_partial()
        restored.assert_existing_objects_matched()
    except (AssertionError, ValueError) as error:
        reason = str(error).strip().rstrip(".")
    finally:
        logger.setLevel(level)
    if reason:
        raise InputError(
            f"{prefix} does not fit the agent of this run ({reason}); give another root_dir to "
            "start again."
        )
