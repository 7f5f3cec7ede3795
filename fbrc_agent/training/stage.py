"""One stage of a run: trains an agent with TF-Agents' Learner, logs, evaluates, checkpoints."""

import contextlib
import functools
import os
import signal
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import greedy_policy
from tf_agents.train import learner
from tf_agents.utils import common

from fbrc_agent.datasets import batches, offline_data
from fbrc_agent.environments import d4rl, gymnasium_environment
from fbrc_agent.evaluation import rollouts as evaluation
from fbrc_agent.training import checkpoints, numerics, pace, run_directory, run_log
from fbrc_agent.training import strategy as strategies
from fbrc_agent.utils import signals
from fbrc_agent.utils.errors import InputError

# TF-Agents' Learner with an interval of 0 would not even save when it is told to.
_NEVER = 1 << 62
# Evaluations of one run start from the same states, so that its curve compares policies.
_EVALUATION_SEED = 1000


def run_stage(
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
    evaluate: Callable[[tf_agent.TFAgent, str], Optional[dict[str, Any]]],
    strategy: tf.distribute.Strategy,
    identity: dict[str, Any],
    checkpoints_to_keep: int,
    after_evaluation: Callable[[int, list[dict[str, Any]]], None] = lambda step, records: None,
) -> dict[str, Any]:
    """Trains one agent, from its newest checkpoint on.

    Args:
      root_dir: Directory of the run, for metrics.jsonl and operative_config.gin.
      stage: One of `run_log.STAGES`.
      learner_dir: Directory of the Learner, for checkpoints and summaries.
      agent: The agent; `Learner` restores it.
      num_steps: Updates after which the stage ends.
      offline: The data.
      seed: Seed of the batches.
      batch_size: Transitions per update, of all replicas together.
      log_interval: Updates between lines of losses, taken on the first batch.
      checkpoint_interval: Updates between checkpoints; 0 for those alone that end the stage or an
        interrupted run.
      eval_interval: Updates between evaluations; the last update is always evaluated.
      evaluate: What `make_evaluator` returns.
      strategy: The strategy under which the agent was created.
      identity: What the run is of, numbers and texts by name; its checkpoints carry it.
      checkpoints_to_keep: How many checkpoints stay, the newest ones.
      after_evaluation: Called with the updates made and the stage's lines of metrics.jsonl.

    Returns:
      The stage's entry of result.json.

    Raises:
      interruption.Interruption: If a signal asked for it, after saving a checkpoint.
    """
    train_step = agent.train_step_counter
    monitor_batch = batches.first_batch(offline, batch_size, seed)
    measure = common.function(functools.partial(_measure, agent))
    watch = numerics.Watch(agent, stage, offline)

    def write_metrics(step: int) -> None:
        scalars = {k: float(v) for k, v in measure(monitor_batch).items()}
        log.write(step, scalars)
        warning = watch.check_losses(step, scalars)
        if warning is not None:
            log.warn(warning)

    def write_evaluation(step: int) -> None:
        # One that is interrupted is made up for when the run goes on.
        with contextlib.suppress(signals.Interruption):
            scores = evaluate(agent, stage)
            if scores is not None:
                log.write(step, scores, _score_text(scores))
            after_evaluation(step, log.records)

    checkpoint_dir = os.path.join(learner_dir, learner.TRAIN_DIR, learner.POLICY_CHECKPOINT_DIR)
    identity = {"stage": stage, **identity}
    checkpoints.prepare(checkpoint_dir, agent, identity)
    stage_learner = learner.Learner(
        learner_dir,
        train_step,
        agent,
        checkpoint_interval=checkpoint_interval or _NEVER,
        summary_interval=log_interval,
        max_checkpoints_to_keep=checkpoints_to_keep + 1,  # `sealing` prunes.
        strategy=strategy,
    )
    # Triggers act within the scope of the strategy, where losses can only be taken by replicas.
    # What is written at a step comes before its checkpoint: a run goes on after the latter.
    save_checkpoint = checkpoints.sealing(
        stage_learner.triggers.pop(), checkpoint_dir, identity, checkpoints_to_keep
    )
    triggers: list[Callable[..., None]] = [
        _every(log_interval, write_metrics),
        _every(eval_interval, write_evaluation),
        _every(checkpoint_interval, watch.check_weights),
        save_checkpoint,
    ]
    step = int(train_step.numpy())
    strategies.check_same_step(strategy, step)
    log = run_log.StageLog(root_dir, stage, step, num_steps)
    run_directory.write_operative_config(root_dir)
    iterator = iter(
        strategy.distribute_datasets_from_function(
            lambda context: batches.make_tf_dataset(
                offline, batch_size, seed, start=step, input_context=context
            )
        )
    )
    intervals = [i for i in (log_interval, eval_interval, checkpoint_interval) if i > 0]
    calls = pace.Pace(strategies.num_workers(strategy))
    any_worker = strategies.any_worker(strategy)
    is_stopping = False
    with contextlib.ExitStack() as stack:
        stack.callback(log.close)
        is_due = step > 0 and eval_interval > 0 and step % eval_interval == 0
        if is_due and not _has_scores(log, step):
            write_evaluation(step)
        while step < num_steps and not is_stopping:
            boundaries = [i - step % i for i in intervals]
            updates = min(calls.updates, num_steps - step, *boundaries)
            seconds = log.seconds
            log.start_clock()
            try:
                stage_learner.run(iterations=updates, iterator=iterator)
            except tf.errors.InvalidArgumentError as error:
                if not numerics.is_failed_check(error):
                    raise
                raise watch.explain(error, int(train_step.numpy())) from error
            log.stop_clock()
            if calls.is_first:  # Until now there was only tracing, which a signal may cut short.
                stack.enter_context(signals.deferred())
            calls.took(updates, log.seconds - seconds)
            step += updates
            for trigger in triggers:
                trigger(step)
            log.advance(step)
            is_stopping = any_worker(signals.requested() is not None)
        if not is_stopping:
            if not _has_scores(log, step):
                write_evaluation(step)
            # Only the chief has scores: all workers ask, as often as each other.
            is_stopping = any_worker(signals.requested() is not None)
        watch.check_weights(step)
        save_checkpoint(step, force_trigger=True)
        if is_stopping:
            raise signals.Interruption(signals.requested() or signal.SIGTERM)
    return _stage_result(log, step)


def _every(interval: int, action: Callable[[int], None]) -> Callable[[int], None]:
    """Returns a trigger at the multiples of an interval; 0 for never.

    TF-Agents' `IntervalTrigger` counts from where the run was resumed.
    """

    def trigger(step: int) -> None:
        if interval > 0 and step % interval == 0:
            action(step)

    return trigger


def _measure(agent: tf_agent.TFAgent, experience: Any) -> dict[str, tf.Tensor]:
    """Returns losses and diagnostics on a fixed batch, as scalars."""
    loss_info = agent.loss(experience)
    scalars = dict(loss_info.extra._asdict())
    if hasattr(agent, "diagnostics"):
        scalars.update(agent.diagnostics(experience))
    else:
        scalars["alpha"] = agent.alpha
    return scalars


def _has_scores(log: run_log.StageLog, step: int) -> bool:
    return any(record["step"] == step and "returns" in record for record in log.records)


def _stage_result(log: run_log.StageLog, step: int) -> dict[str, Any]:
    last = log.records[-1] if log.records and "returns" in log.records[-1] else {}
    scores = ("return_mean", "return_std", "returns", "normalized_score")
    return {
        "steps": step,
        "updates_per_second": round(step / log.seconds, 2) if log.seconds else None,
        **{name: last.get(name) for name in scores},
    }


def make_evaluator(
    task: d4rl.Task, num_episodes: int, offline: offline_data.OfflineData
) -> Callable[[tf_agent.TFAgent, str], Optional[dict[str, Any]]]:
    """Returns a function (agent, stage) -> scores, or None where nothing can be evaluated.

    The agent acts greedily; the behavior density is sampled, as the data was.

    Raises:
      InputError: If observations or actions of the data are not of the environment's size.
    """
    if num_episodes > 0 and task.environment is not None:
        _check_sizes(task.environment, offline)
    action_fns: dict[str, evaluation.ActionFn] = {}

    def evaluate(agent: tf_agent.TFAgent, stage: str) -> Optional[dict[str, Any]]:
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


def _check_sizes(environment_id: str, offline: offline_data.OfflineData) -> None:
    environment = gymnasium_environment.GymnasiumEnvironment(environment_id)
    sizes = environment.observation_spec().shape + environment.action_spec().shape
    environment.close()
    given = offline.observations.shape[1:] + offline.actions.shape[1:]
    if given != sizes:
        raise InputError(
            f"{offline.source} has observations and actions of the sizes {given}, but "
            f"{environment_id} has {sizes}; train.task must be the task of the data."
        )


def _score_text(scores: dict[str, Any]) -> str:
    text = f"return {scores['return_mean']:.1f}"
    if scores["normalized_score"] is not None:
        text += f", score {scores['normalized_score']:.1f}"
    return text
