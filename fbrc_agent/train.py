"""The driver: fit the behavior density, train F-BRC, evaluate, export. Configured by gin.

On disk a run reads as it ran:

    root_dir/run.json                what the run is of: task, data, seed, sizes
    root_dir/operative_config.gin    every value that was used
    root_dir/behavior/               checkpoints of the first stage; behavior/fitted, its result
    root_dir/train/                  checkpoints and summaries of the second stage
    root_dir/eval/                   summaries of evaluations and diagnostics
    root_dir/policies/greedy/1/      the exported policy
    root_dir/metrics.jsonl, result.json
"""

import functools
import json
import os
import shutil
from typing import Any, Callable, Dict, Optional

import gin
import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.networks import network
from tf_agents.policies import greedy_policy
from tf_agents.train import interval_trigger, learner
from tf_agents.train.utils import train_utils
from tf_agents.utils import common

from fbrc_agent import (
    actor_network,
    behavior_agent,
    behavior_network,
    critic_network,
    d4rl,
    dataset,
    export,
    fbrc_agent,
    offline_data,
    run_log,
)
from fbrc_agent import evaluate as evaluation
from fbrc_agent.errors import InputError

gin.external_configurable(tf.keras.optimizers.Adam, module="tf.keras.optimizers")
gin.external_configurable(
    tf.keras.optimizers.schedules.PiecewiseConstantDecay, module="tf.keras.optimizers.schedules"
)

# Updates per call of the Learner: short enough for a live progress bar, long enough that the call
# costs nothing beside them.
_UPDATES_PER_CALL = 100
# Evaluations of one run start from the same states, so that its curve compares policies.
_EVALUATION_SEED = 1000


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
    behavior_dir: Optional[str] = None,
) -> Dict[str, Any]:
    """Runs, or goes on with, one experiment.

    Args:
      root_dir: Directory of the run; an interrupted run in it is continued.
      task: D4RL task id or Gymnasium id: environment and reference scores, and the data unless
        `data` names it.
      data: None, or what replaces the task's file: an HDF5 path, a D4RL id or 'embedded:NAME'.
      seed: Seed of weights, batches and samples.
      batch_size: Transitions per update.
      behavior_steps: Updates of the behavior density.
      fbrc_steps: Updates of the agent.
      eval_interval: Updates between evaluations; the last update is always evaluated.
      num_eval_episodes: Episodes of an evaluation; 0 for none.
      log_interval: Updates between lines of metrics.jsonl.
      checkpoint_interval: Updates between checkpoints.
      behavior_dir: `behavior` directory of another run whose fitted density is taken; the first
        stage is then left out.

    Returns:
      The content of result.json.

    Raises:
      InputError: If task, data or root_dir do not fit.
    """
    experiment_task = d4rl.get_task(task)
    offline = offline_data.load_dataset(data or task)
    evaluate = _evaluator(experiment_task, num_eval_episodes)
    os.makedirs(root_dir, exist_ok=True)
    identity = {"task": task, "seed": seed, "batch_size": batch_size, "data": _describe(offline)}
    _check_identity(root_dir, identity)
    run_stage = functools.partial(
        _run_stage,
        root_dir,
        offline=offline,
        seed=seed,
        batch_size=batch_size,
        log_interval=log_interval,
        checkpoint_interval=checkpoint_interval,
        evaluate=evaluate,
    )
    fitted_dir = os.path.join(behavior_dir or os.path.join(root_dir, "behavior"), "fitted")
    if not os.path.isdir(fitted_dir):
        if behavior_dir is not None:
            raise InputError(
                f"behavior_dir {behavior_dir} holds no fitted density; give the 'behavior' "
                "directory of a run whose first stage is complete."
            )
        if behavior_steps < 1:
            raise InputError(
                f"behavior_steps is {behavior_steps} and there is no fitted density in {root_dir}; "
                "F-BRC needs one: give behavior_steps >= 1, or behavior_dir of another run."
            )
        _fit_behavior(run_stage, fitted_dir, offline, seed, behavior_steps)
    behavior, behavior_result = load_behavior(fitted_dir, offline)

    agent = create_fbrc_agent(offline.time_step_spec, offline.action_spec, behavior, seed)
    fbrc_result = run_stage("fbrc", root_dir, agent, fbrc_steps, eval_interval=eval_interval)
    policy_dir = os.path.join(root_dir, "policies", "greedy", "1")
    shutil.rmtree(policy_dir, ignore_errors=True)
    export.export_policy(agent.policy, policy_dir)
    result = {
        "task": task,
        "seed": seed,
        "data": identity["data"],
        "stages": {"behavior": behavior_result, "fbrc": fbrc_result},
        "policy": policy_dir,
    }
    run_log.write_json(os.path.join(root_dir, "result.json"), result)
    return result


@gin.configurable
def create_fbrc_agent(
    time_step_spec: Any,
    action_spec: Any,
    behavior: network.Network,
    seed: int,
    target_entropy_per_dimension: float = -1.0,
) -> fbrc_agent.FbrcAgent:
    """Returns the gin-configured `FbrcAgent` with the authors' actor and offset network.

    Args:
      time_step_spec: A `TimeStep` spec.
      action_spec: A `BoundedTensorSpec` of shape [A].
      behavior: The fitted density.
      seed: Seed of the weights and samples.
      target_entropy_per_dimension: The target entropy divided by A, nats; the authors' is -1.
    """
    # Each stage draws from the seed anew, so that a behavior taken from elsewhere changes nothing.
    tf.keras.utils.set_random_seed(seed)
    observation_spec = time_step_spec.observation
    return fbrc_agent.FbrcAgent(
        time_step_spec,
        action_spec,
        critic_network=critic_network.create_offset_network((observation_spec, action_spec)),
        actor_network=actor_network.create_actor_network(observation_spec, action_spec),
        behavior_network=behavior,
        target_entropy=target_entropy_per_dimension * action_spec.shape.num_elements(),
        train_step_counter=train_utils.create_train_step(),
    )


def load_behavior(fitted_dir: str, offline: offline_data.OfflineData) -> Any:
    """Loads a fitted density and its stage's result.

    Raises:
      InputError: If it was fitted to other data than `offline`.
    """
    with open(os.path.join(fitted_dir, "behavior.json"), encoding="utf-8") as file:
        description = json.load(file)
    given, wanted = description["data"]["checksum"], offline.checksum
    if given != wanted:
        raise InputError(
            f"The density in {fitted_dir} was fitted to {description['data']['source']} (checksum "
            f"{given[:12]}), not to {offline.source} (checksum {wanted[:12]})."
        )
    behavior = behavior_network.MixtureBehaviorNetwork(
        offline.time_step_spec.observation, offline.action_spec
    )
    behavior.create_variables()
    checkpoint = tf.train.Checkpoint(behavior_network=behavior)
    checkpoint.read(os.path.join(fitted_dir, "weights")).assert_consumed()
    return behavior, description["result"]


def _fit_behavior(run_stage, fitted_dir, offline, seed, num_steps) -> None:
    """The first stage; leaves the density and its result in `fitted_dir`."""
    tf.keras.utils.set_random_seed(seed)
    behavior = behavior_network.MixtureBehaviorNetwork(
        offline.time_step_spec.observation, offline.action_spec
    )
    agent = behavior_agent.BehaviorAgent(
        offline.time_step_spec,
        offline.action_spec,
        behavior,
        train_step_counter=train_utils.create_train_step(),
    )
    result = run_stage("behavior", os.path.dirname(fitted_dir), agent, num_steps, eval_interval=0)
    temporary = f"{fitted_dir}.{os.getpid()}.tmp"
    os.makedirs(temporary)
    tf.train.Checkpoint(behavior_network=behavior).write(os.path.join(temporary, "weights"))
    run_log.write_json(
        os.path.join(temporary, "behavior.json"), {"data": _describe(offline), "result": result}
    )
    os.rename(temporary, fitted_dir)


def _run_stage(
    root_dir: str,
    stage: str,
    learner_dir: str,
    agent: tf_agent.TFAgent,
    num_steps: int,
    offline: offline_data.OfflineData,
    seed: int,
    batch_size: int,
    log_interval: int,
    checkpoint_interval: int,
    eval_interval: int,
    evaluate: Callable[[tf_agent.TFAgent, str], Optional[Dict[str, Any]]],
) -> Dict[str, Any]:
    """Trains one agent to `num_steps` with TF-Agents' Learner; returns its entry of result.json."""
    train_step = agent.train_step_counter
    monitor_batch = next(iter(dataset.make_tf_dataset(offline, batch_size, seed)))[0]
    measure = common.function(functools.partial(_measure, agent))

    def write_metrics():
        log.stop_clock()
        log.write(int(train_step), {k: float(v) for k, v in measure(monitor_batch).items()})
        log.start_clock()

    def write_evaluation():
        log.stop_clock()
        scores = evaluate(agent, stage)
        if scores is not None:
            log.write(int(train_step), scores, _score_text(scores))
        log.start_clock()

    stage_learner = learner.Learner(
        learner_dir,
        train_step,
        agent,
        triggers=[
            interval_trigger.IntervalTrigger(log_interval, write_metrics),
            interval_trigger.IntervalTrigger(eval_interval, write_evaluation),
        ],
        checkpoint_interval=checkpoint_interval,
        summary_interval=log_interval,
    )
    step = int(train_step)
    log = run_log.StageLog(root_dir, stage, step, num_steps)
    _write_operative_config(root_dir)
    batches = iter(dataset.make_tf_dataset(offline, batch_size, seed, start=step))
    intervals = [i for i in (log_interval, eval_interval, checkpoint_interval) if i > 0]
    try:
        while step < num_steps:
            boundaries = [i - step % i for i in intervals]
            updates = min(_UPDATES_PER_CALL, num_steps - step, *boundaries)
            log.start_clock()
            stage_learner.run(iterations=updates, iterator=batches)
            log.stop_clock()
            step += updates
            log.advance(step)
        if not log.records or log.records[-1]["step"] < step or "returns" not in log.records[-1]:
            write_evaluation()
            log.stop_clock()
        for trigger in stage_learner.triggers[-1:]:
            trigger(step, force_trigger=True)
    finally:
        log.close()
    return _stage_result(log, step)


def _measure(agent: tf_agent.TFAgent, experience: Any) -> Dict[str, tf.Tensor]:
    """Returns losses and diagnostics on a fixed batch, as scalars."""
    loss_info = agent.loss(experience)
    scalars = dict(loss_info.extra._asdict())
    if hasattr(agent, "diagnostics"):
        scalars.update(agent.diagnostics(experience))
    else:
        scalars["alpha"] = agent.alpha
    return scalars


def _stage_result(log: run_log.StageLog, step: int) -> Dict[str, Any]:
    last = log.records[-1] if log.records and "returns" in log.records[-1] else {}
    scores = ("return_mean", "return_std", "returns", "normalized_score")
    return {
        "steps": step,
        "updates_per_second": round(step / log.seconds, 2) if log.seconds else None,
        **{name: last.get(name) for name in scores},
    }


def _evaluator(task: d4rl.Task, num_episodes: int):
    """Returns a function (agent, stage) -> scores, or None where nothing can be evaluated.

    The agent acts greedily; the behavior density is sampled, as the data was.
    """
    action_fns: Dict[str, evaluation.ActionFn] = {}

    def evaluate(agent: tf_agent.TFAgent, stage: str) -> Optional[Dict[str, Any]]:
        if num_episodes < 1 or task.environment is None:
            return None
        if stage not in action_fns:
            policy = agent.policy
            if stage != "behavior":
                policy = greedy_policy.GreedyPolicy(policy)
            action_fns[stage] = evaluation.policy_action_fn(policy)
        result = evaluation.evaluate(
            action_fns[stage], task.environment, num_episodes, _EVALUATION_SEED
        )
        has_reference = task.reference_scores is not None
        return {
            "return_mean": result.return_mean,
            "return_std": result.return_std,
            "length_mean": float(np.mean(result.lengths)),
            "normalized_score": (
                float(task.normalized_score(result.return_mean)) if has_reference else None
            ),
            "returns": [float(r) for r in result.returns],
            "lengths": [int(n) for n in result.lengths],
        }

    return evaluate


def _score_text(scores: Dict[str, Any]) -> str:
    text = f"return {scores['return_mean']:.1f}"
    if scores["normalized_score"] is not None:
        text += f", score {scores['normalized_score']:.1f}"
    return text


def _describe(offline: offline_data.OfflineData) -> Dict[str, Any]:
    """Returns what result.json says of the data."""
    num_episodes = len(offline.episode_returns)
    return {
        "source": offline.source,
        "checksum": offline.checksum,
        "transitions": offline.num_transitions,
        "episodes": num_episodes,
        "return_mean": float(np.mean(offline.episode_returns)) if num_episodes else None,
        "return_std": float(np.std(offline.episode_returns)) if num_episodes else None,
        "observation_size": int(offline.observations.shape[1]),
        "action_size": int(offline.actions.shape[1]),
    }


def _check_identity(root_dir: str, identity: Dict[str, Any]) -> None:
    """Marks root_dir as this run's, or checks that it is."""
    path = os.path.join(root_dir, "run.json")
    if not os.path.exists(path):
        run_log.write_json(path, identity)
        return
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    for key, wanted in identity.items():
        there = found.get(key)
        if key == "data":
            there, wanted = there["checksum"], wanted["checksum"]
        if there != wanted:
            raise InputError(
                f"{root_dir} holds a run with {key} = {there!r}, not {wanted!r}; give another "
                "root_dir to start anew."
            )


def _write_operative_config(root_dir: str) -> None:
    path = os.path.join(root_dir, "operative_config.gin")
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(gin.operative_config_str())
    os.replace(temporary, path)
