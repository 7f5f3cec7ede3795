"""One stage of a run: trains an agent with TF-Agents' Learner, from its newest checkpoint on."""

import contextlib
import dataclasses
import functools
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.train import learner

from fbrc_agent.agents.algorithm import Algorithm
from fbrc_agent.datasets import batches
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.environments.tasks import Task
from fbrc_agent.training import checkpoints, run_directory, run_log, run_policies, triggers, trust
from fbrc_agent.training import strategy as strategies
from fbrc_agent.training.numerics import Numerics
from fbrc_agent.utils import signals
from fbrc_agent.utils.errors import NotFiniteError

# Long enough that a call costs nothing beside its updates, short enough for a live progress bar and
# for a process that waits after a Ctrl-C.
_SECONDS_PER_CALL = 0.5
_MOST_UPDATES = 100
# Workers reduce the loss in each call: their calls must be alike, whatever time they take.
_UPDATES_OF_WORKERS = 20

_SCORES = ("return_mean", "return_std", "returns", "normalized_score")
_AVERAGE_SCORES = [run_policies.AVERAGE_PREFIX + name for name in _SCORES]


@dataclasses.dataclass(frozen=True)
class Run:
    """What the stages of a run have in common.

    Attributes:
      root_dir: Directory of the run.
      description: The content of run.json.
      task: The task, for evaluations.
      offline: The data.
      strategy: The strategy under which the agents were created.
      num_eval_episodes, log_interval, checkpoint_interval, checkpoints_to_keep, policies_to_keep:
        As of `trainer.train`.
    """

    root_dir: str
    description: dict[str, Any]
    task: Task
    offline: OfflineData
    strategy: tf.distribute.Strategy
    num_eval_episodes: int
    log_interval: int
    checkpoint_interval: int
    checkpoints_to_keep: int
    policies_to_keep: int

    @property
    def batches(self) -> tuple[OfflineData, int, int]:
        """Data, batch size and seed: what makes the batches what they are."""
        return self.offline, self.description["batch_size"], self.description["seed"]

    def directory(self, stage: str) -> str:
        """Returns the directory of a stage."""
        return os.path.join(self.root_dir, stage)


def run_stage(
    run: Run,
    algorithm: Algorithm,
    agent: tf_agent.TFAgent,
    num_steps: int,
    eval_interval: Optional[int],
    done: Mapping[str, int],
) -> dict[str, Any]:
    """Trains one agent, from its newest checkpoint on.

    Args:
      run: The run.
      algorithm: The algorithm of the stage.
      agent: Its agent, which is restored.
      num_steps: Updates after which the stage ends.
      eval_interval: Updates between evaluations, each followed by an export of the policy; 0 for
        the last update only. None for a stage that is for another one: no exports either.
      done: Updates of the stages before, by name.

    Returns:
      The stage's entry of result.json.

    Raises:
      NotFiniteError: If training gives NaN or infinity.
      signals.Interruption: If a signal asked for it, after saving a checkpoint.
    """
    stage_dir = run.directory(algorithm.name)
    directory = checkpoints.directory_of(stage_dir)
    identity = {"run": run_directory.checksum(run.description), "stage": algorithm.name}
    stage_learner = learner.Learner(
        stage_dir,
        agent.train_step_counter,
        agent,
        checkpoint_interval=0,  # `SaveCheckpoint` saves.
        summary_interval=run.log_interval,
        strategy=run.strategy,
    )
    damaged = checkpoints.resume(directory, agent, identity)
    save = functools.partial(checkpoints.save, directory, agent, identity, run.checkpoints_to_keep)
    step = int(agent.train_step_counter.numpy())
    strategies.check_same_step(run.strategy, step)
    run_directory.write_operative_config(run.root_dir)
    stages = [part["name"] for part in run.description["stages"]]
    log = run_log.StageLog(run.root_dir, stages, algorithm.name, step, num_steps)
    with contextlib.closing(log):
        for damage in damaged:
            log.write_event(step, "checkpoint_damaged", **dataclasses.asdict(damage))
        if 0 < step < num_steps:
            log.write_event(step, "resumed")
        numerics = Numerics(algorithm, agent, run.offline)
        batch = batches.first_batch(*run.batches)
        measurement = trust.Trust(algorithm, agent, run.offline)
        numbers = triggers.LogNumbers(
            run.log_interval, algorithm, agent, batch, log, numerics, measurement
        )
        # Triggers act outside the scope of the strategy, where losses can only be taken by
        # replicas. Only the chief evaluates.
        episodes = run.num_eval_episodes if strategies.worker_index(run.strategy) == 0 else 0
        policies = run_policies.of_agent(algorithm, agent, run.description["data"])
        actions: list[triggers.Trigger] = [
            numbers,
            triggers.Evaluate(
                eval_interval or 0, policies, algorithm.is_greedy, run.task, episodes, log
            ),
        ]
        if eval_interval is not None:
            actions.append(triggers.Judge(eval_interval, measurement, log))
            origin, keep = (run.root_dir, policies, run.description, done), run.policies_to_keep
            actions.append(triggers.Export(eval_interval, *origin, keep, log))
        actions.append(triggers.SaveCheckpoint(run.checkpoint_interval, numerics, save))
        try:
            try:
                step = _train(run, stage_learner, step, num_steps, log, actions)
            except tf.errors.InvalidArgumentError:
                _find_not_finite(run, agent, numbers, numerics)
                raise
        except NotFiniteError as error:
            details = {"tensor": error.tensor, "value": str(error.value)}
            log.write_event(error.step, "not_finite", **details)
            raise
        return _result(algorithm, log, step)


def _train(
    run: Run,
    stage_learner: learner.Learner,
    step: int,
    num_steps: int,
    log: run_log.StageLog,
    actions: Sequence[triggers.Trigger],
) -> int:
    """Makes updates in calls of the Learner, with the triggers between them; returns the step."""
    dataset = functools.partial(batches.make_tf_dataset, *run.batches, step)
    iterator = iter(
        run.strategy.distribute_datasets_from_function(lambda c: dataset(input_context=c))
    )
    intervals = [action.interval for action in actions if action.interval > 0]
    updates_per_call, is_first = 1, True
    any_worker = strategies.any_worker(run.strategy)
    is_stopping = False
    with contextlib.ExitStack() as stack:
        for action in actions:
            action.at_start(step)
        while step < num_steps and not is_stopping:
            boundaries = [interval - step % interval for interval in intervals]
            updates = min(updates_per_call, num_steps - step, *boundaries)
            seconds = log.seconds
            log.start_clock()
            stage_learner.run(iterations=updates, iterator=iterator)
            log.stop_clock()
            if strategies.has_workers(run.strategy):
                updates_per_call = _UPDATES_OF_WORKERS
            elif not is_first:  # The time of the first call is that of tracing.
                updates_per_call = fitting_updates(updates, log.seconds - seconds)
            if is_first:  # Until now there was only tracing, which a signal may cut short.
                stack.enter_context(signals.deferred())
                is_first = False
            step += updates
            for action in actions:
                action.at_step(step)
            log.advance(step)
            is_stopping = any_worker(signals.requested() is not None)
        if not is_stopping:
            for action in actions:
                action.at_completion(step)
            # Only the chief has scores: all workers ask, as often as each other.
            is_stopping = any_worker(signals.requested() is not None)
        for action in actions:
            action.at_exit(step)
        if is_stopping:
            number = signals.requested() or signal.SIGTERM
            log.write_event(step, "interrupted", signal=signal.Signals(number).name)
            raise signals.Interruption(number)
    return step


def fitting_updates(updates: int, seconds: float) -> int:
    """Returns how many updates a call should make, from the updates and seconds of the last one."""
    fitting = _SECONDS_PER_CALL * updates / max(seconds, 1e-9)
    return max(1, min(_MOST_UPDATES, int(fitting)))


def _find_not_finite(
    run: Run, agent: tf_agent.TFAgent, numbers: triggers.LogNumbers, numerics: Numerics
) -> None:
    """Looks for what made `check_numerics` fail: in the losses of the step's batch, in weights.

    Raises:
      NotFiniteError: If there is a NaN or an infinity.
    """
    step = int(agent.train_step_counter.numpy())
    dataset = batches.make_tf_dataset(*run.batches, start=step)
    with contextlib.suppress(tf.errors.InvalidArgumentError):
        numerics.check_losses(step, numbers.measure(next(iter(dataset))[0]))
    numerics.check_weights(step)


def _result(algorithm: Algorithm, log: run_log.StageLog, step: int) -> dict[str, Any]:
    scores = run_log.scores(log.records, step) or {}
    return {
        "label": algorithm.label,
        "steps": step,
        "updates_per_second": round(step / log.seconds, 2) if log.seconds else None,
        **{name: scores.get(name) for name in _SCORES},
        **{name: scores[name] for name in _AVERAGE_SCORES if name in scores},
        "doubts": run_log.doubts(log.events, step),
    }
