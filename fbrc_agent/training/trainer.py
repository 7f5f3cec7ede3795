"""The driver: trains the stages of an algorithm, evaluates, exports. Configured by gin.

On disk a run reads in the order in which it ran, with a directory for each stage:

    root_dir/run.json                which run this is: algorithm, task, seed, batch size, data
    root_dir/operative_config.gin    every value that was used
    root_dir/<stage>/train/          checkpoints and summaries of a stage
    root_dir/<stage>/eval/           summaries of its evaluations and diagnostics
    root_dir/<stage>/trained/        the network that it hands on, if it does
    root_dir/policies/greedy/STEP/   the exported policy, the last ones
    root_dir/policies/best/STEP/     the one with the best return so far
    root_dir/metrics.jsonl, result.json
    root_dir/lock                    held by the process that runs here
"""

import os
import shutil
from collections.abc import Mapping
from typing import Any, Optional

import gin

from fbrc_agent.agents.algorithm import Algorithm
from fbrc_agent.datasets import batches, offline_data
from fbrc_agent.environments import d4rl, gymnasium_environment
from fbrc_agent.networks import saved_network
from fbrc_agent.training import agents as run_agents
from fbrc_agent.training import run_directory, run_log, run_policies, stage
from fbrc_agent.training import strategy as strategies
from fbrc_agent.utils import atomic_files, checks, json_files, run_lock
from fbrc_agent.utils.errors import InputError


@gin.configurable
def train(
    root_dir: str,
    algorithm: Optional[Algorithm] = None,
    task: Optional[str] = None,
    data: Optional[str] = None,
    seed: int = 0,
    batch_size: int = 256,
    steps: Optional[int] = None,
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
      algorithm: What to train; in gin, for example `@fbrc()`. Must be given.
      task: D4RL task id or Gymnasium id: environment and reference scores, and the data unless
        `data` names it. Must be given.
      data: None, or what replaces the task's file: an HDF5 path, a D4RL id or 'embedded:NAME'.
      seed: Seed of weights, batches and samples.
      batch_size: Transitions per update, of all replicas together.
      steps: Updates of the algorithm. Must be given.
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
    for name, count in (
        ("steps", steps),
        ("eval_interval", eval_interval),
        ("num_eval_episodes", num_eval_episodes),
        ("log_interval", log_interval),
        ("checkpoint_interval", checkpoint_interval),
    ):
        checks.check_count(f"train.{name}", count)
    checks.check_count("train.checkpoints_to_keep", checkpoints_to_keep, 1)
    checks.check_count("train.policies_to_keep", policies_to_keep, 1)
    experiment_task = d4rl.get_task(task)
    distribution = strategies.create_strategy(strategy, logical_cpus)
    chief_dir, root_dir = root_dir, strategies.own_directory(distribution, root_dir)
    pretraining = _check_pretraining(algorithm, root_dir, pretraining_steps or {}, pretrained or {})
    offline = offline_data.load_dataset(data or task)
    batches.check_batches(
        offline, batch_size, seed, num_replicas=distribution.num_replicas_in_sync
    )
    if num_eval_episodes > 0:
        _check_sizes(experiment_task, offline)
    with distribution.scope():
        agents = run_agents.create(algorithm, offline.time_step_spec, offline.action_spec, seed)
        networks = run_agents.trained_networks(algorithm, agents)
        results = {
            name: _take_network(name, directory, networks[name], offline)
            for name, directory in (pretrained or {}).items()
        }
    taken = {name: saved_network.checksum(networks[name]) for name in results}
    run = stage.Run(
        root_dir=root_dir,
        description=run_directory.describe(algorithm, task, seed, batch_size, offline, taken),
        stages=[part.name for part in algorithm.stages],
        task=experiment_task,
        offline=offline,
        seed=seed,
        batch_size=batch_size,
        num_eval_episodes=num_eval_episodes,
        log_interval=log_interval,
        checkpoint_interval=checkpoint_interval,
        checkpoints_to_keep=checkpoints_to_keep,
        strategy=distribution,
    )
    with run_lock.hold(root_dir) as lock:
        run_directory.check_identity(root_dir, run.description)
        with distribution.scope():
            for name, number in pretraining.items():
                found = _own_network(name, run.directory(name), networks[name], offline, number)
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
        for part in algorithm.pretraining:
            if part.name not in results:
                number = pretraining[part.name]
                results[part.name] = stage.run_stage(run, part, agents[part.name], number)
                _save_network(run, part.name, networks, results)
        policies = run_policies.RunPolicies(
            root_dir,
            agents[algorithm.name],
            run.description,
            {part.name: results[part.name]["steps"] for part in algorithm.pretraining},
            policies_to_keep,
        )
        results[algorithm.name] = last = stage.run_stage(
            run, algorithm, agents[algorithm.name], steps, eval_interval, policies
        )
        if algorithm.name in networks:
            _save_network(run, algorithm.name, networks, results)
        records = run_log.read_metrics(root_dir)
        own_records = [record for record in records if record["stage"] == algorithm.name]
        result = {
            **{name: run.description[name] for name in ("algorithm", "task", "seed", "data")},
            "stages": {part.name: results[part.name] for part in algorithm.stages},
            **run_policies.paths(last["steps"], own_records),
        }
        json_files.write_json(result_path, result)
        # A worker that leaves before the chief has written looks to it like one that failed.
        strategies.check_same_step(distribution, last["steps"])
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
    checks.check(
        "train.algorithm", algorithm, isinstance(algorithm, Algorithm), "one, such as @fbrc()"
    )


def _check_pretraining(
    algorithm: Algorithm, root_dir: str, steps: Any, pretrained: Any
) -> dict[str, int]:
    """Returns the number of updates of each algorithm that this run is to train first.

    Raises:
      InputError: If a number or a directory is missing or not usable.
    """
    names = [part.name for part in algorithm.pretraining]
    for argument, value in (("pretraining_steps", steps), ("pretrained", pretrained)):
        is_right = isinstance(value, Mapping) and set(map(type, value)) <= {str}
        checks.check(f"train.{argument}", value, is_right, "a dictionary by algorithm, or None")
    for name, directory in pretrained.items():
        what = f"train.pretrained[{name!r}]"
        checks.check(what, directory, isinstance(directory, str), "a directory")
        if name not in names:
            raise InputError(
                f"{what} is given, but '{algorithm.name}' is trained after {names or 'no other'}; "
                "correct the name, or leave it out."
            )
    own = {name: steps.get(name, 0) for name in names if name not in pretrained}
    for name, number in own.items():
        what = f"train.pretraining_steps[{name!r}]"
        checks.check_count(what, number)
        directory = os.path.join(root_dir, name)
        if number < 1 and saved_network.read_description(directory) is None:
            raise InputError(
                f"{what} is {number} and {directory} holds no trained network; '{algorithm.name}' "
                "needs one: give 1 or more updates, or train.pretrained of another run."
            )
    return own


def _check_sizes(task: d4rl.Task, offline: offline_data.OfflineData) -> None:
    """Refuses data whose observations or actions are not of the environment's sizes."""
    if task.environment is None:
        return
    environment = gymnasium_environment.GymnasiumEnvironment(task.environment)
    sizes = environment.observation_spec().shape + environment.action_spec().shape
    environment.close()
    given = offline.observations.shape[1:] + offline.actions.shape[1:]
    if given != sizes:
        raise InputError(
            f"{offline.source} has observations and actions of the sizes {given}, but "
            f"{task.environment} has {sizes}; train.task must be the task of the data."
        )


def _take_network(
    name: str, directory: str, net: Any, offline: offline_data.OfflineData
) -> dict[str, Any]:
    """Restores the network of another run in place; returns the result of its stage.

    Raises:
      InputError: If there is none, it is damaged, or it was trained on other data.
    """
    result = _own_network(name, directory, net, offline, 0)
    if result is None:
        raise InputError(
            f"train.pretrained[{name!r}] is {directory}, which holds no trained network; give the "
            f"directory '{name}' of a run whose stage of this name is complete."
        )
    return result


def _own_network(
    name: str, directory: str, net: Any, offline: offline_data.OfflineData, num_steps: int
) -> Optional[dict[str, Any]]:
    """Restores a stage's network in place; returns the stage's result, or None if there is none.

    Raises:
      InputError: If it is damaged, or was trained on other data or with another number of updates
        (0 for any).
    """
    description = saved_network.read_description(directory)
    if description is None:
        return None
    given, wanted = description["data"]["checksum"], offline.checksum
    if description["algorithm"] != name:
        raise InputError(
            f"The network in {directory} was trained by '{description['algorithm']}'; it must be "
            f"one of '{name}'."
        )
    if given != wanted:
        raise InputError(
            f"The network in {directory} was trained on {description['data']['source']} (checksum "
            f"{given[:12]}), not on {offline.source} (checksum {wanted[:12]})."
        )
    steps = description["result"]["steps"]
    if num_steps > 0 and steps != num_steps:
        raise InputError(
            f"The network in {directory} was trained with {steps} updates, not {num_steps}; give "
            "another root_dir to train a new one."
        )
    saved_network.restore(directory, net)
    return description["result"]


def _save_network(
    run: stage.Run, name: str, networks: Mapping[str, Any], results: Mapping[str, Any]
) -> None:
    """Leaves the network of a stage in its directory, in place of one with fewer updates."""
    directory = run.directory(name)
    found = saved_network.read_description(directory)
    if found is not None:
        if found["result"]["steps"] == results[name]["steps"]:
            return
        shutil.rmtree(os.path.join(directory, saved_network.DIRECTORY))
    description = {
        "algorithm": name,
        "data": run.description["data"],
        "result": results[name],
    }
    saved_network.save(directory, networks[name], description)


def _located(result: dict[str, Any], root_dir: str) -> dict[str, Any]:
    """Returns a result whose policies, named relative to root_dir in result.json, can be found."""
    names = ("policy", "best_policy")
    return {
        **result,
        **{n: result[n] and os.path.join(root_dir, result[n]) for n in names if n in result},
    }
