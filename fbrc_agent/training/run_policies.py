"""The policies of a run: exported while it trains, the last and the best, and on demand.

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

import tensorflow as tf
from tf_agents.agents import tf_agent

from fbrc_agent.agents.algorithm import Algorithm
from fbrc_agent.networks import saved_network
from fbrc_agent.policies import export, policy_versions
from fbrc_agent.training import agents, checkpoints, run_directory, run_log
from fbrc_agent.utils import json_files
from fbrc_agent.utils.errors import InputError

_LAST = os.path.join("policies", "greedy")
_BEST = os.path.join("policies", "best")

FORMATS = ("serving", "tf_agents")

_SCORES = ("return_mean", "return_std", "normalized_score", "returns", "lengths")


class RunPolicies:
    """Exports the policy of a run after each evaluation."""

    def __init__(
        self,
        root_dir: str,
        agent: tf_agent.TFAgent,
        run: Mapping[str, Any],
        steps: Mapping[str, int],
        keep: int,
    ):
        """Creates what exports.

        Args:
          root_dir: Directory of the run.
          agent: Its agent.
          run: The content of run.json.
          steps: Updates of the stages before, by name.
          keep: How many policies stay, of the last and of the best.
        """
        self._root_dir, self._agent, self._run = root_dir, agent, run
        self._steps, self._keep = steps, keep

    def write(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Exports the policy after an update, unless an earlier start of this run has done so.

        A run that resumes from a checkpoint makes the same policies again, to the bit.

        Args:
          step: Updates made.
          records: The stage's lines of metrics.jsonl so far.
        """
        last, best_dir = (os.path.join(self._root_dir, name) for name in (_LAST, _BEST))
        if step not in policy_versions.versions(last):
            steps = {**self._steps, self._run["algorithm"]: step}
            origin = _origin(self._run, steps, records)
            export.export_policy(self._agent.policy, last, step, origin=origin)
        if best(records) == step and step not in policy_versions.versions(best_dir):
            source = os.path.join(last, str(step))
            policy_versions.publish(best_dir, step, functools.partial(shutil.copytree, source))
        for directory in (last, best_dir):
            policy_versions.prune(directory, self._keep)


def paths(step: int, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the entries of result.json, relative to root_dir.

    Args:
      step: Updates made.
      records: The last stage's lines of metrics.jsonl.

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
    algorithm: Algorithm,
    version: Optional[int] = None,
    policy_format: str = "serving",
    with_value: bool = False,
) -> str:
    """Exports the policy of a run's newest checkpoint.

    The data is not needed. gin must hold the run's operative_config.gin.

    Args:
      root_dir: Directory of the run.
      output: As `directory` of `export.export_policy`.
      algorithm: The algorithm of the run.
      version: As of `export.export_policy`.
      policy_format: 'serving', as `export.export_policy`, or 'tf_agents', as
        `export.export_tf_agents_policy`.
      with_value: Whether the model gets the signature `value`, of the algorithm's `values`.

    Returns:
      The directory that was written.

    Raises:
      InputError: If there is no run, no checkpoint of its last stage, the version exists, or
        `with_value` is asked of the format 'tf_agents' or of an algorithm without values.
    """
    if policy_format not in FORMATS:
        raise InputError(f"--format is {policy_format!r}; it must be {' or '.join(FORMATS)}.")
    if with_value and policy_format != "serving":
        raise InputError("--with_value adds a signature to the format 'serving' alone.")
    values = algorithm.values if with_value else None
    if with_value and values is None:
        raise InputError(f"--with_value needs a critic, and {algorithm.label} has none.")
    run = run_directory.read_identity(root_dir)
    time_step_spec, action_spec = saved_network.specs_from_description(run["data"])
    directory = checkpoints.directory_of(os.path.join(root_dir, algorithm.name))
    newest = checkpoints.newest_complete(directory)
    if newest is None:
        raise InputError(f"There is no checkpoint in {directory} yet; nothing to export.")
    created, _ = agents.create(algorithm, time_step_spec, action_spec, run["seed"])
    agent = created[algorithm.name]
    checkpoints.restore(newest, agent)
    records = run_log.read_metrics(root_dir)
    path = os.path.join(root_dir, "result.json")
    stages = (json_files.read_json(path, ["stages"]) or {"stages": {}})["stages"]
    steps = {stage.name: stages.get(stage.name, {}).get("steps") for stage in algorithm.pretraining}
    steps[algorithm.name] = int(agent.train_step_counter.numpy())
    own = [record for record in records if record["stage"] == algorithm.name]
    origin = _origin(run, steps, own)
    if policy_format == "tf_agents":
        return export.export_tf_agents_policy(agent.policy, output, version, origin)
    value_fn = None if values is None else functools.partial(values, agent)
    return export.export_policy(agent.policy, output, version, value_fn, origin)


def _origin(
    run: Mapping[str, Any],
    steps: Mapping[str, Optional[int]],
    records: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Returns what a model card says of the run."""
    step = steps[run["algorithm"]]
    evaluated = [r for r in records if r["step"] == step and r.get("returns")]
    scores = {name: evaluated[-1].get(name) for name in _SCORES} if evaluated else None
    return {
        "task": run["task"],
        "seed": run["seed"],
        "algorithm": run["stages"][-1]["label"],
        "data": run["data"],
        "steps": dict(steps),
        "scores": scores,
    }
