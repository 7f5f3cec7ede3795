"""The policies of a run: exported while it trains, the last and the best, and on demand.

    root_dir/policies/greedy/STEP    the policy after STEP updates; the last few
    root_dir/policies/best/STEP      the one with the best mean return so far, and a few before it
    root_dir/policies/average/STEP   the averaged actor's, where the agent keeps an average

Versions are numbers of updates, so that a server which watches one of the two always has the
newest, or the best.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import tf_policy

from fbrc_agent.agents.algorithm import Algorithm
from fbrc_agent.networks import saved_network
from fbrc_agent.policies import export, raw_observations
from fbrc_agent.training import agents, checkpoints, run_directory, run_log, trust
from fbrc_agent.utils import json_files
from fbrc_agent.utils.errors import InputError

LAST = os.path.join("policies", "greedy")
BEST = os.path.join("policies", "best")
AVERAGE = os.path.join("policies", "average")
# Of the names of the average's scores in metrics.jsonl and result.json.
AVERAGE_PREFIX = "average_"
DIRECTORIES = {"": LAST, AVERAGE_PREFIX: AVERAGE}

FORMATS = ("serving", "tf_agents")

_SCORES = ("return_mean", "return_std", "normalized_score", "returns", "lengths")


def of_agent(
    algorithm: Algorithm, agent: tf_agent.TFAgent, data: Mapping[str, Any]
) -> dict[str, tf_policy.TFPolicy]:
    """Returns an agent's policies over raw observations, by the prefix of their scores.

    Args:
      algorithm: The algorithm.
      agent: Its agent.
      data: The description of the data that it is trained on.
    """
    policies = {"": agent.policy, AVERAGE_PREFIX: algorithm.averaged(agent)}
    normalization = data.get("normalization")
    return {
        prefix: raw_observations.over_raw(policy, normalization)
        for prefix, policy in policies.items()
        if policy is not None
    }


def paths(root_dir: str, stage: str, step: int) -> dict[str, Any]:
    """Returns the entries of result.json, relative to root_dir.

    Args:
      root_dir: Directory of the run.
      stage: Name of the last stage.
      step: Updates made.

    Returns:
      `policy`, the last one; `best_policy`, None if no return is known; and `average_policy`, where
      there is one.
    """
    best_step = best(run_log.read_metrics(root_dir, stage), run_log.read_events(root_dir, stage))
    average = os.path.join(AVERAGE, str(step))
    return {
        "policy": os.path.join(LAST, str(step)),
        "best_policy": None if best_step is None else os.path.join(BEST, str(best_step)),
        **({"average_policy": average} if os.path.isdir(os.path.join(root_dir, average)) else {}),
    }


def best(
    records: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]
) -> Optional[int]:
    """Returns the step with the greatest mean return, the first of equals; None without returns.

    Steps at which an event says not to trust the policy count only if there are no others.
    """
    scored = [r for r in records if isinstance(r.get("return_mean"), float)]
    trusted = [r for r in scored if not run_log.doubts(events, r["step"])]
    scored = trusted or scored
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
    path = os.path.join(root_dir, "result.json")
    stages = (json_files.read_json(path, ["stages"]) or {"stages": {}})["stages"]
    steps = {stage.name: stages.get(stage.name, {}).get("steps") for stage in algorithm.pretraining}
    steps[algorithm.name] = int(agent.train_step_counter.numpy())
    records = run_log.read_metrics(root_dir, algorithm.name)
    events = run_log.read_events(root_dir, algorithm.name)
    source = origin(run, steps, records, events)
    policy = of_agent(algorithm, agent, run["data"])[""]
    if policy_format == "tf_agents":
        return export.export_tf_agents_policy(policy, output, version, source)
    value_fn = None if values is None else _values_of_raw(values, agent, run["data"])
    return export.export_policy(policy, output, version, value_fn, source)


def _values_of_raw(
    values: Callable[..., Any], agent: tf_agent.TFAgent, data: Mapping[str, Any]
) -> export.ValueFn:
    """Returns the values of raw observations and actions."""

    def value_fn(observation: tf.Tensor, action: tf.Tensor) -> Mapping[str, tf.Tensor]:
        normalized = raw_observations.normalize(observation, data.get("normalization"))
        return values(agent, normalized, action)

    return value_fn


def origin(
    run: Mapping[str, Any],
    steps: Mapping[str, Optional[int]],
    records: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    prefix: str = "",
) -> dict[str, Any]:
    """Returns what a model card says of the run; `prefix` is that of the policy's scores."""
    step = steps[run["algorithm"]]
    evaluated = None if step is None else run_log.scores(records, step)
    return {
        "task": run["task"],
        "reference_scores": run.get("reference_scores"),
        "seed": run["seed"],
        "algorithm": run["stages"][-1]["label"],
        "data": run["data"],
        "steps": dict(steps),
        "warning": None if step is None else trust.sentence(run_log.doubts(events, step)),
        "scores": evaluated and {name: evaluated.get(prefix + name) for name in _SCORES},
    }
