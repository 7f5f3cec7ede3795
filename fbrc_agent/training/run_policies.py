"""The policies of a run: exported as it goes on, the last and the best, and on demand.

    root_dir/policies/greedy/STEP    the policy after STEP updates; the last few
    root_dir/policies/best/STEP      the one with the best mean return so far, and a few before it

Versions are numbers of updates, so that a server which watches one of the two always has the
newest, or the best.
"""

import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import gin
import tensorflow as tf
from tf_agents.train import learner

from fbrc_agent.agents import fbrc
from fbrc_agent.networks import behavior_network
from fbrc_agent.policies import export, policy_versions
from fbrc_agent.training import checkpoints, construction, fitted_behavior, run_directory
from fbrc_agent.utils.errors import InputError

_LAST = os.path.join("policies", "greedy")
_BEST = os.path.join("policies", "best")

FORMATS = ("serving", "tf_agents")

_SCORES = ("return_mean", "return_std", "normalized_score", "returns", "lengths")


class RunPolicies:
    """Exports the greedy policy of a run after each evaluation."""

    def __init__(
        self,
        root_dir: str,
        agent: fbrc.FbrcAgent,
        identity: Mapping[str, Any],
        behavior_steps: int,
        keep: int,
    ):
        """Creates what `run_stage` calls.

        Args:
          root_dir: Directory of the run.
          agent: Its agent.
          identity: The content of run.json.
          behavior_steps: Updates that the behavior density was fitted with.
          keep: How many policies stay, of the last and of the best.
        """
        self._root_dir = root_dir
        self._agent = agent
        self._identity = identity
        self._behavior_steps = behavior_steps
        self._keep = keep

    def write(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Exports the policy after an update, unless a start of this run has done so.

        A run that goes on from a checkpoint comes by the same policies again, to the bit.

        Args:
          step: Updates made.
          records: The stage's lines of metrics.jsonl so far.
        """
        last = os.path.join(self._root_dir, _LAST)
        if step not in policy_versions.versions(last):
            steps = {"behavior": self._behavior_steps, "fbrc": step}
            origin = _origin(self._identity, steps, records)
            export.export_policy(self._agent.policy, last, step, origin=origin)
        best_step = best(records)
        folder = os.path.join(self._root_dir, _BEST)
        if best_step == step and step not in policy_versions.versions(folder):
            source = os.path.join(last, str(step))
            policy_versions.publish(folder, step, functools.partial(shutil.copytree, source))
        for directory in (last, folder):
            policy_versions.prune(directory, self._keep)


def paths(step: int, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the entries of result.json, relative to root_dir.

    Args:
      step: Updates made.
      records: The second stage's lines of metrics.jsonl.

    Returns:
      `policy`, the last one, and `best_policy`, None if no return is known.
    """
    best_step = best(records)
    return {
        "policy": os.path.join(_LAST, str(step)),
        "best_policy": None if best_step is None else os.path.join(_BEST, str(best_step)),
    }


def best(records: Sequence[Mapping[str, Any]]) -> Optional[int]:
    """Returns the step with the greatest mean return, the first of equals; None without returns."""
    scored = [r for r in records if isinstance(r.get("return_mean"), float)]
    return max(scored, key=lambda r: r["return_mean"])["step"] if scored else None


def export_run(
    root_dir: str,
    output: str,
    version: Optional[int] = None,
    policy_format: str = "serving",
    with_value: bool = False,
) -> str:
    """Exports the greedy policy of a run's newest checkpoint.

    The data is not needed. gin must hold the run's operative_config.gin.

    Args:
      root_dir: Directory of the run.
      output: As `directory` of `export.export_policy`.
      version: As of `export.export_policy`.
      policy_format: 'serving', as `export.export_policy`, or 'tf_agents', as
        `export.export_tf_agents_policy`.
      with_value: Whether the model gets the signature `value`, of `FbrcAgent.values`.

    Returns:
      The directory that was written.

    Raises:
      InputError: If there is no run, no checkpoint of its second stage, the version exists, or
        `with_value` is asked of the format 'tf_agents'.
    """
    if policy_format not in FORMATS:
        raise InputError(f"The format is {policy_format!r}; it must be {' or '.join(FORMATS)}.")
    if with_value and policy_format != "serving":
        raise InputError("--with_value adds a signature to the format 'serving' alone.")
    identity = run_directory.read_identity(root_dir)
    time_step_spec, action_spec = run_directory.specs(identity["data"])
    directory = os.path.join(root_dir, learner.TRAIN_DIR, learner.POLICY_CHECKPOINT_DIR)
    newest = checkpoints.newest_valid(directory)
    if newest is None:
        raise InputError(f"There is no F-BRC checkpoint in {directory} yet; nothing to export.")
    density_dir = _density_dir(root_dir)
    if with_value:
        behavior = fitted_behavior.load_behavior_network(density_dir)
    else:
        behavior = behavior_network.MixtureBehaviorNetwork(time_step_spec.observation, action_spec)
    agent = construction.create_fbrc_agent(
        time_step_spec, action_spec, identity["seed"], {"behavior": behavior}
    )
    step = tf.Variable(0, dtype=tf.int64)
    # Without the value the actor will do: the density's directory may be gone.
    names = ["_actor_network"]
    if with_value:
        names += ["_critic_network_1", "_critic_network_2", "_behavior_network"]
    networks = tf.train.Checkpoint(**{name: getattr(agent, name) for name in names})
    restored = tf.train.Checkpoint(agent=networks, train_step=step).read(newest)
    restored.assert_existing_objects_matched().expect_partial()
    records = [r for r in run_directory.read_metrics(root_dir) if r["stage"] == "fbrc"]
    description = fitted_behavior.read_description(density_dir)
    steps = {
        "behavior": None if description is None else description["result"]["steps"],
        "fbrc": int(step.numpy()),
    }
    origin = _origin(identity, steps, records)
    if policy_format == "tf_agents":
        return export.export_tf_agents_policy(agent.policy, output, version, origin)
    value_fn = agent.values if with_value else None
    return export.export_policy(agent.policy, output, version, value_fn, origin)


def _density_dir(root_dir: str) -> str:
    """Returns the `behavior` directory that a run took its density from."""
    try:
        given = gin.query_parameter("train.behavior_dir")
    except ValueError:  # Not bound.
        given = None
    return given if isinstance(given, str) else os.path.join(root_dir, "behavior")


def _origin(
    identity: Mapping[str, Any], steps: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns what a model card tells of the run."""
    evaluated = [r for r in records if r["step"] == steps["fbrc"] and r.get("returns")]
    scores = {name: evaluated[-1].get(name) for name in _SCORES} if evaluated else None
    return {
        "task": identity["task"],
        "seed": identity["seed"],
        "data": identity["data"],
        "steps": steps,
        "scores": scores,
    }
