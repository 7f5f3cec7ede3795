"""The driver: fit the behavior density, train F-BRC, evaluate, export. Configured by gin.

On disk a run reads as it ran:

    root_dir/run.json                what the run is of: task, seed, batch size, data
    root_dir/operative_config.gin    every value that was used
    root_dir/behavior/               checkpoints of the first stage; behavior/fitted, its result
    root_dir/train/                  checkpoints and summaries of the second stage
    root_dir/eval/                   summaries of evaluations and diagnostics
    root_dir/policies/greedy/STEP/   the exported policy, the last ones
    root_dir/policies/best/STEP/     the one with the best return so far
    root_dir/metrics.jsonl, result.json
    root_dir/lock                    held by the process that runs here
"""

import functools
import os
from typing import Any, Callable, Optional

import gin
import tensorflow as tf

from fbrc_agent.datasets import batches, offline_data
from fbrc_agent.environments import d4rl
from fbrc_agent.training import construction, fitted_behavior, run_directory, run_policies, stage
from fbrc_agent.training import strategy as strategies
from fbrc_agent.utils import atomic_files, json_files, run_lock
from fbrc_agent.utils.errors import InputError


@gin.configurable
def train(
    root_dir: str,
    task: str = gin.REQUIRED,
    data: Optional[str] = None,
    seed: int = 0,
    batch_size: int = 256,
    behavior_steps: int = gin.REQUIRED,
    fbrc_steps: int = gin.REQUIRED,
    eval_interval: int = 10_000,
    num_eval_episodes: int = 10,
    log_interval: int = 1_000,
    checkpoint_interval: int = 5_000,
    checkpoints_to_keep: int = 3,
    policies_to_keep: int = 3,
    behavior_dir: Optional[str] = None,
    strategy: str = "none",
    logical_cpus: Optional[int] = None,
) -> dict[str, Any]:
    """Runs, or goes on with, one experiment.

    Under a strategy of several workers all of them call it with the same arguments; root_dir must
    be on a file system that they share. The chief alone evaluates and writes.

    Args:
      root_dir: Directory of the run; an interrupted run in it is continued.
      task: D4RL task id or Gymnasium id: environment and reference scores, and the data unless
        `data` names it.
      data: None, or what replaces the task's file: an HDF5 path, a D4RL id or 'embedded:NAME'.
      seed: Seed of weights, batches and samples.
      batch_size: Transitions per update, of all replicas together.
      behavior_steps: Updates of the behavior density.
      fbrc_steps: Updates of the agent.
      eval_interval: Updates between evaluations, each followed by an export of the policy; the
        last update is always evaluated.
      num_eval_episodes: Episodes of an evaluation; 0 for none.
      log_interval: Updates between lines of metrics.jsonl.
      checkpoint_interval: Updates between checkpoints; 0 for those alone that end a stage or an
        interrupted run.
      checkpoints_to_keep: How many checkpoints of each stage stay, the newest ones; 1 or more.
      policies_to_keep: How many exported policies stay, of the last and of the best; 1 or more.
      behavior_dir: `behavior` directory of another run whose fitted density is taken; the first
        stage is then left out.
      strategy: As `name` of `strategy.create_strategy`. A run may go on under another one.
      logical_cpus: As of `strategy.create_strategy`.

    Returns:
      The content of result.json; of a run that is complete, without doing anything.

    Raises:
      InputError: If the arguments do not fit each other, the data or root_dir, or another process
        runs in root_dir; nothing is written then.
      interruption.Interruption: If a signal asked for it; the run was saved.
    """
    _check_counts(
        behavior_steps=behavior_steps,
        fbrc_steps=fbrc_steps,
        eval_interval=eval_interval,
        num_eval_episodes=num_eval_episodes,
        log_interval=log_interval,
        checkpoint_interval=checkpoint_interval,
        checkpoints_to_keep=checkpoints_to_keep,
        policies_to_keep=policies_to_keep,
    )
    for name, count in (("checkpoints", checkpoints_to_keep), ("policies", policies_to_keep)):
        if count < 1:
            raise InputError(f"train.{name}_to_keep is 0; it must be 1 or more.")
    if not (behavior_dir is None or isinstance(behavior_dir, str)):
        raise InputError(f"train.behavior_dir is {behavior_dir!r}; it must be a directory or None.")
    experiment_task = d4rl.get_task(task)
    distribution = strategies.create_strategy(strategy, logical_cpus)
    worker = strategies.worker_index(distribution)
    chief_dir, root_dir = root_dir, strategies.own_directory(distribution, root_dir)
    offline = offline_data.load_dataset(data or task)
    num_replicas = distribution.num_replicas_in_sync
    batches.check_batches(offline, batch_size, seed, num_replicas=num_replicas)
    evaluate = stage.make_evaluator(experiment_task, num_eval_episodes, offline)
    data_description = run_directory.describe_data(offline)
    identity = {"task": task, "seed": seed, "batch_size": batch_size, "data": data_description}
    checkpoint_identity = {**identity, "data": offline.checksum}
    own_behavior_dir = os.path.join(root_dir, "behavior")

    def look() -> Optional[dict[str, Any]]:
        run_directory.check_identity(root_dir, identity)
        return _fitted_result(
            behavior_dir or own_behavior_dir, offline, behavior_dir is None, behavior_steps
        )

    look()
    result_path = os.path.join(root_dir, "result.json")
    result = json_files.read_json(result_path, ["policy", "stages.fbrc.steps"])
    if result and result["stages"]["fbrc"]["steps"] >= fbrc_steps:
        if os.path.isdir(os.path.join(root_dir, result["policy"])):
            return _located(result, chief_dir)
    with distribution.scope():
        construction.rehearse(offline, seed, behavior_dir or own_behavior_dir)

    with run_lock.hold(root_dir):
        behavior_result = look()  # Another process may have been here in between.
        atomic_files.remove_leftovers(root_dir)
        run_directory.write_identity(root_dir, identity)
        run_stage = functools.partial(
            stage.run_stage,
            root_dir,
            offline=offline,
            seed=seed,
            batch_size=batch_size,
            log_interval=log_interval,
            checkpoint_interval=checkpoint_interval,
            evaluate=evaluate if worker == 0 else lambda agent, stage_name: None,
            strategy=distribution,
            identity=checkpoint_identity,
            checkpoints_to_keep=checkpoints_to_keep,
        )
        if behavior_result is None:
            behavior_result = _fit_behavior(
                run_stage, own_behavior_dir, offline, seed, behavior_steps, distribution
            )
        with distribution.scope():
            behavior = fitted_behavior.load_behavior_network(behavior_dir or own_behavior_dir)
            agent = construction.create_fbrc_agent(
                offline.time_step_spec, offline.action_spec, seed, {"behavior": behavior}
            )
        # The density is in the checkpoints of the agent, and a given one would give way to it.
        density = {"behavior density": fitted_behavior.checksum(behavior)}
        policies = run_policies.RunPolicies(
            root_dir, agent, identity, behavior_result["steps"], policies_to_keep
        )
        fbrc_result = run_stage(
            *("fbrc", root_dir, agent, fbrc_steps),
            eval_interval=eval_interval,
            identity={**checkpoint_identity, **density},
            after_evaluation=policies.write,
        )
        records = [r for r in run_directory.read_metrics(root_dir) if r["stage"] == "fbrc"]
        policies.write(fbrc_result["steps"], records)
        result = {
            "task": task,
            "seed": seed,
            "data": data_description,
            "stages": {"behavior": behavior_result, "fbrc": fbrc_result},
            **run_policies.paths(fbrc_result["steps"], records),
        }
        json_files.write_json(result_path, result)
        # Whoever leaves before the chief has written looks to it like one that failed.
        strategies.check_same_step(distribution, fbrc_result["steps"])
        result = json_files.read_json(os.path.join(chief_dir, "result.json")) or result
        return _located(result, chief_dir)


def _located(result: dict[str, Any], root_dir: str) -> dict[str, Any]:
    """Returns a result whose policies, named relative to root_dir in result.json, can be found."""
    names = ("policy", "best_policy")
    return {
        **result,
        **{n: result[n] and os.path.join(root_dir, result[n]) for n in names if n in result},
    }


def _fitted_result(
    directory: str, offline: offline_data.OfflineData, is_own: bool, num_steps: int
) -> Optional[dict[str, Any]]:
    """Returns the result of a fitted density, or None if this run is to fit its own.

    Raises:
      InputError: If there is none and none can be fitted, or it is not the one that is asked for.
    """
    description = fitted_behavior.read_description(directory)
    if description is None:
        if not is_own:
            raise InputError(
                f"behavior_dir {directory} holds no fitted density; give the 'behavior' directory "
                "of a run whose first stage is complete."
            )
        if num_steps < 1:
            raise InputError(
                f"behavior_steps is {num_steps} and {directory} holds no fitted density; F-BRC "
                "needs one: give behavior_steps >= 1, or behavior_dir of another run."
            )
        return None
    given, wanted = description["data"]["checksum"], offline.checksum
    if given != wanted:
        raise InputError(
            f"The density in {directory} was fitted to {description['data']['source']} (checksum "
            f"{given[:12]}), not to {offline.source} (checksum {wanted[:12]})."
        )
    steps = description["result"]["steps"]
    if is_own and num_steps > 0 and steps != num_steps:
        raise InputError(
            f"The density in {directory} was fitted with {steps} updates, not {num_steps}; give "
            "another root_dir to fit a new one."
        )
    return description["result"]


def _fit_behavior(
    run_stage: Callable[..., dict[str, Any]],
    behavior_dir: str,
    offline: offline_data.OfflineData,
    seed: int,
    num_steps: int,
    distribution: tf.distribute.Strategy,
) -> dict[str, Any]:
    """The first stage; leaves the density in `behavior_dir` and returns the stage's result."""
    with distribution.scope():
        agent = construction.create_behavior_agent(
            offline.time_step_spec, offline.action_spec, seed, {}
        )
    result = run_stage("behavior", behavior_dir, agent, num_steps, eval_interval=0)
    data = run_directory.describe_data(offline)
    fitted_behavior.save_behavior_network(behavior_dir, agent.behavior_network, data, result)
    return result


def _check_counts(**counts: Any) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"train.{name} is {value!r}; it must be an integer of 0 or more.")
