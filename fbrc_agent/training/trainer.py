"""The driver: trains the stages of an algorithm, evaluates, exports. Configured by gin.

On disk a run reads in the order in which it ran, with a directory for each stage:

    root_dir/run.json                which run this is: algorithm, task, seed, batch size, data
    root_dir/operative_config.gin    every value that was used
    root_dir/<stage>/train/          checkpoints and summaries of a stage
    root_dir/<stage>/eval/           summaries of its evaluations and diagnostics
    root_dir/<stage>/trained/        the network that it hands on, if it does
    root_dir/policies/greedy/STEP/   the exported policy, the last ones
    root_dir/policies/best/STEP/     the one with the best return so far
    root_dir/policies/average/STEP/  that of the averaged actor, if the agent keeps an average
    root_dir/metrics.jsonl, result.json
    root_dir/lock                    held by the process that runs here
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import gin

from fbrc_agent.agents.algorithm import Algorithm
from fbrc_agent.datasets import batches, preprocessing, sources
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.environments import gymnasium_environment, tasks
from fbrc_agent.networks import saved_network
from fbrc_agent.training import agents as run_agents
from fbrc_agent.training import run_directory, run_policies, stage
from fbrc_agent.training import strategy as strategies
from fbrc_agent.utils import atomic_files, checks, json_files, run_lock
from fbrc_agent.utils.errors import InputError

# Of run.json in result.json.
_RESULT_ENTRIES = ("algorithm", "task", "reference_scores", "seed", "data")


@gin.configurable
def train(
    root_dir: str,
    algorithm: Algorithm = gin.REQUIRED,
    task: Optional[str] = None,
    data: Union[str, OfflineData, None] = None,
    reference_scores: Optional[Sequence[float]] = None,
    seed: int = 0,
    batch_size: int = 256,
    steps: int = gin.REQUIRED,
    pretraining_steps: Optional[Mapping[str, int]] = None,
    pretrained: Optional[Mapping[str, str]] = None,
    eval_interval: int = 10_000,
    num_eval_episodes: int = 10,
    log_interval: int = 1_000,
    checkpoint_interval: int = 5_000,
    checkpoints_to_keep: int = 3,
    policies_to_keep: int = 3,
    strategy: str = "none",
    logical_cpus: Optional[int] = None,
) -> dict[str, Any]:
    """Trains an algorithm on a data set, or resumes an interrupted run.

    Under a strategy of several workers all of them call it with the same arguments; root_dir must
    be on a file system that they share. The chief alone evaluates and writes.

    Args:
      root_dir: Directory of the run; an interrupted run in it is resumed.
      algorithm: What to train; in gin, for example `@fbrc()`.
      task: D4RL task id, which names environment, reference scores and data; the id of any
        environment that `gymnasium.make` takes; or None, to evaluate nothing.
      data: The transitions, or `source` of `load_dataset`; None for the data of a D4RL task.
      reference_scores: Raw returns of (a random policy, an expert), for the normalized score of an
        environment of one's own.
      seed: Seed of weights, batches and samples.
      batch_size: Transitions per update, of all replicas together.
      steps: Updates of the algorithm.
      pretraining_steps: Updates of each algorithm that is trained first, by name.
      pretrained: Stage directories of other runs by algorithm, such as {'behavior':
        'runs/other/behavior'}, whose trained networks are taken; these stages are left out.
      eval_interval: Updates between evaluations, each followed by an export of the policy; the
        last update is always evaluated.
      num_eval_episodes: Episodes of an evaluation; 0 for none.
      log_interval: Updates between lines of metrics.jsonl.
      checkpoint_interval: Updates between checkpoints; 0 for those alone that end a stage or an
        interrupted run.
      checkpoints_to_keep: How many checkpoints of each stage stay, the newest ones; 1 or more.
      policies_to_keep: How many exported policies stay, of the last and of the best; 1 or more.
      strategy: As `name` of `strategy.create_strategy`. A run may resume under another one.
      logical_cpus: As of `strategy.create_strategy`.

    Returns:
      The content of result.json; of a run that is complete, without doing anything.

    Raises:
      InputError: If the arguments do not fit each other, the data or root_dir, or another process
        runs in root_dir; nothing is written then.
      NotFiniteError: If training gives NaN or infinity.
      signals.Interruption: If a signal asked for it; the run was saved.
    """
    _check_algorithm(algorithm)
    counts = (steps, eval_interval, num_eval_episodes, log_interval, checkpoint_interval)
    names = ("steps", "eval_interval", "num_eval_episodes", "log_interval", "checkpoint_interval")
    for name, count in zip(names, counts):
        checks.check_integer(f"train.{name}", count, 0)
    checks.check_integer("train.checkpoints_to_keep", checkpoints_to_keep, 1)
    checks.check_integer("train.policies_to_keep", policies_to_keep, 1)
    environment_task = tasks.get_task(task, reference_scores)
    distribution = strategies.create_strategy(strategy, logical_cpus)
    chief_dir, root_dir = root_dir, strategies.own_directory(distribution, root_dir)
    pretrained, pretraining_steps = pretrained or {}, pretraining_steps or {}
    _check_pretrained(algorithm, pretrained)
    updates = _check_updates(algorithm, root_dir, steps, pretraining_steps, pretrained)
    offline = preprocessing.preprocess(_load(data, task))
    batches.check_batches(offline, batch_size, seed, num_replicas=distribution.num_replicas_in_sync)
    if num_eval_episodes > 0:
        _check_sizes(environment_task, offline)
    described = offline.description()
    with distribution.scope():
        agents, networks = run_agents.create(
            algorithm, offline.time_step_spec, offline.action_spec, seed
        )
        results = _take_networks(pretrained, networks, described)
    run = stage.Run(
        root_dir=root_dir,
        description={
            "algorithm": algorithm.name,
            "stages": [part.description() for part in algorithm.stages],
            "task": task,
            "reference_scores": environment_task.reference_scores,
            "seed": seed,
            "batch_size": batch_size,
            "data": described,
            "pretrained": {name: saved_network.checksum(networks[name]) for name in results},
        },
        task=environment_task,
        offline=offline,
        num_eval_episodes=num_eval_episodes,
        log_interval=log_interval,
        checkpoint_interval=checkpoint_interval,
        checkpoints_to_keep=checkpoints_to_keep,
        policies_to_keep=policies_to_keep,
        strategy=distribution,
    )
    with run_lock.hold(root_dir) as lock:
        run_directory.check_identity(root_dir, run.description)
        with distribution.scope():
            for name in (part.name for part in algorithm.pretraining if part.name in updates):
                found = run_agents.restore_network(
                    name, run.directory(name), networks[name], described, updates[name]
                )
                if found is not None:
                    results[name] = found
        result_path = os.path.join(root_dir, "result.json")
        result = json_files.read_json(result_path, ["policy", f"stages.{algorithm.name}.steps"])
        if result and result["stages"][algorithm.name]["steps"] >= steps:
            if os.path.isdir(os.path.join(root_dir, result["policy"])):
                return _located(result, chief_dir)
        lock.sign()
        atomic_files.remove_leftovers(root_dir)
        run_directory.write_identity(root_dir, run.description)
        for part in (part for part in algorithm.stages if part.name not in results):
            name, interval = part.name, eval_interval if part is algorithm else None
            done = {before: result["steps"] for before, result in results.items()}
            results[name] = stage.run_stage(run, part, agents[name], updates[name], interval, done)
            if name in networks:
                left = {"algorithm": name, "data": described, "result": results[name]}
                saved_network.save(run.directory(name), networks[name], left)
        run_directory.write_operative_config(root_dir)
        last_step = results[algorithm.name]["steps"]
        result = {
            **{name: run.description[name] for name in _RESULT_ENTRIES},
            "stages": {part.name: results[part.name] for part in algorithm.stages},
            **run_policies.paths(root_dir, algorithm.name, last_step),
        }
        json_files.write_json(result_path, result)
        # A worker that leaves before the chief has written looks to it like one that failed.
        strategies.check_same_step(distribution, last_step)
        result = json_files.read_json(os.path.join(chief_dir, "result.json")) or result
        return _located(result, chief_dir)


def configured_algorithm() -> Algorithm:
    """Returns the algorithm that gin gives to `train`.

    Raises:
      InputError: If it gives none.
    """
    algorithm = gin.get_bindings(train).get("algorithm")
    _check_algorithm(algorithm)
    return algorithm


def _check_algorithm(algorithm: Any) -> None:
    if not isinstance(algorithm, Algorithm):
        raise InputError(f"train.algorithm is {algorithm!r}; it must be one, such as @fbrc().")


def _check_pretrained(algorithm: Algorithm, pretrained: Any) -> None:
    _check_dictionary("pretrained", pretrained)
    names = [part.name for part in algorithm.pretraining]
    for name, directory in pretrained.items():
        what = f"train.pretrained[{name!r}]"
        if not isinstance(directory, str):
            raise InputError(f"{what} is {directory!r}; it must be a directory.")
        if name not in names:
            raise InputError(
                f"{what} is {directory!r}, but '{algorithm.name}' takes the networks of "
                f"{names or 'no other algorithm'}; correct the name, or leave it out."
            )


def _check_updates(
    algorithm: Algorithm, root_dir: str, steps: int, given: Any, pretrained: Mapping[str, str]
) -> dict[str, int]:
    """Returns the number of updates of each stage that is this run's to train."""
    _check_dictionary("pretraining_steps", given)
    updates = {}
    for name in (part.name for part in algorithm.pretraining if part.name not in pretrained):
        what, directory = f"train.pretraining_steps[{name!r}]", os.path.join(root_dir, name)
        updates[name] = given.get(name, 0)
        checks.check_integer(what, updates[name], 0)
        if updates[name] < 1 and saved_network.read_description(directory) is None:
            raise InputError(
                f"{what} is {updates[name]} and {directory} holds no trained network, which "
                f"'{algorithm.name}' needs; it must be 1 or more, or train.pretrained given."
            )
    return {**updates, algorithm.name: steps}


def _check_dictionary(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or set(map(type, value)) - {str}:
        raise InputError(
            f"train.{name} is {value!r}; it must be a dictionary by names of algorithms, or None."
        )


def _load(data: Union[str, OfflineData, None], task: Optional[str]) -> OfflineData:
    if isinstance(data, OfflineData):
        return data
    if data is None and task is None:
        raise InputError(
            "train.data is None and train.task is None; give the data, such as DATA='mine.hdf5'."
        )
    return sources.load_dataset(task if data is None else data)


def _check_sizes(task: tasks.Task, offline: OfflineData) -> None:
    """Refuses data whose observations or actions are not of the environment's sizes."""
    if task.environment is None:
        return
    sizes = gymnasium_environment.sizes(task.environment)
    given = offline.observations.shape[1:] + offline.actions.shape[1:]
    if given != sizes:
        raise InputError(
            f"{offline.source} has observations and actions of the sizes {given}, but "
            f"{task.environment} has {sizes}; train.task must be the task of the data."
        )


def _take_networks(
    directories: Mapping[str, str], networks: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Restores the networks of other runs in place; returns the results of their stages."""
    results = {}
    for name, directory in directories.items():
        result = run_agents.restore_network(name, directory, networks[name], data)
        if result is None:
            raise InputError(
                f"train.pretrained[{name!r}] is {directory!r}, which holds no trained network; it "
                f"must be the directory '{name}' of a run whose stage of this name is complete."
            )
        results[name] = result
    return results


def _located(result: dict[str, Any], root_dir: str) -> dict[str, Any]:
    """Returns a result whose policies, named relative to root_dir in result.json, can be found."""
    names = ("policy", "best_policy", "average_policy")
    return {
        **result,
        **{n: result[n] and os.path.join(root_dir, result[n]) for n in names if n in result},
    }
