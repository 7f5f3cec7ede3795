"""What happens between the updates of a stage, one class each; Keras calls such classes callbacks.

A stage calls the triggers in their order. What is written at a step comes before its checkpoint,
because a run resumes after the checkpoint.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Mapping
from typing import Any, Callable

import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import greedy_policy, tf_policy
from tf_agents.typing import types
from tf_agents.utils import common

from fbrc_agent.agents.algorithm import Algorithm
from fbrc_agent.environments.tasks import Task
from fbrc_agent.evaluation import rollouts
from fbrc_agent.policies import export, policy_versions
from fbrc_agent.training import report, run_log, run_policies, trust
from fbrc_agent.training.numerics import Numerics
from fbrc_agent.training.run_log import StageLog
from fbrc_agent.utils import signals

# Evaluations of one run start from the same states, so that its curve compares policies.
_EVALUATION_SEED = 1000


class Trigger:
    """Acts at the multiples of an interval, and at the ends of a stage if it says so.

    TF-Agents' `IntervalTrigger` counts from where the run was resumed.

    Attributes:
      interval: Updates between two actions; 0 for none.
    """

    def __init__(self, interval: int):
        self.interval = interval

    def is_due(self, step: int) -> bool:
        """Returns whether a step is a multiple of the interval."""
        return step > 0 and self.interval > 0 and step % self.interval == 0

    def act(self, step: int) -> None:
        """Does what the trigger is for."""
        raise NotImplementedError

    def at_start(self, step: int) -> None:
        """Called before the first update; `step` is that of the checkpoint, or 0."""

    def at_step(self, step: int) -> None:
        """Called after some updates; no call has passed over a multiple of the interval."""
        if self.is_due(step):
            self.act(step)

    def at_completion(self, step: int) -> None:
        """Called after the last update of the stage."""

    def at_exit(self, step: int) -> None:
        """Called at the end, after the last update or an interruption."""


class LogNumbers(Trigger):
    """Logs losses and diagnostics of a fixed batch; looks for NaN, infinity and divergence."""

    def __init__(
        self,
        interval: int,
        algorithm: Algorithm,
        agent: tf_agent.TFAgent,
        batch: types.NestedTensor,
        log: StageLog,
        numerics: Numerics,
        measurement: trust.Trust,
    ):
        super().__init__(interval)
        self._batch, self._log, self._numerics = batch, log, numerics
        self._measure_starts = measurement.measure
        self._has_diverged = False

        def measure(experience: types.NestedTensor) -> dict[str, tf.Tensor]:
            scalars = dict(agent.loss(experience).extra._asdict())
            if algorithm.diagnostics is not None:
                scalars.update(algorithm.diagnostics(agent, experience))
            return scalars

        self._measure = common.function(measure)

    def measure(self, experience: types.NestedTensor) -> Mapping[str, float]:
        """Returns losses and diagnostics of a batch, without an update."""
        return {name: float(value) for name, value in self._measure(experience).items()}

    def act(self, step: int) -> None:
        """Logs; raises NotFiniteError if a number is NaN or infinite."""
        scalars = {**self.measure(self._batch), **self._measure_starts()}
        self._log.write(step, scalars)
        self._numerics.check_losses(step, scalars)
        q, bound = self._numerics.largest_q(scalars), self._numerics.max_q
        if q > bound and not self._has_diverged:
            self._has_diverged = True
            self._log.write_event(step, "diverged", q=q, bound=bound)
            self._log.warn(
                f"the critic diverges: at step {step} of the {self._log.stage} stage its mean |Q| "
                f"is {q:.4g}, but rewards and gamma allow returns up to {bound:.4g} only; "
                + self._numerics.likely_cause()
            )


class Evaluate(Trigger):
    """Evaluates the policy in the task's environment and logs the scores."""

    def __init__(
        self,
        interval: int,
        policies: Mapping[str, tf_policy.TFPolicy],
        is_greedy: bool,
        task: Task,
        num_episodes: int,
        log: StageLog,
    ):
        """Creates the trigger.

        Args:
          interval: Updates between evaluations; the last update of a stage is always evaluated.
          policies: As `run_policies.of_agent` returns them.
          is_greedy: Whether the mode of the last policy is evaluated, not its samples.
          task: The task; one without environment cannot be evaluated.
          num_episodes: Episodes of an evaluation; 0 for none.
          log: The log.
        """
        super().__init__(interval)
        self._is_greedy, self._policy = is_greedy, policies[""]
        self._greedy = {
            prefix: rollouts.policy_action_fn(greedy_policy.GreedyPolicy(policy))
            for prefix, policy in policies.items()
        }
        self._task, self._num_episodes, self._log = task, num_episodes, log

    def at_start(self, step: int) -> None:
        """Evaluates what a signal kept an earlier start from evaluating."""
        if self.is_due(step):
            self.at_completion(step)

    def at_completion(self, step: int) -> None:
        """Evaluates the last update, unless it has been."""
        if run_log.scores(self._log.records, step) is None:
            self.act(step)

    def act(self, step: int) -> None:
        """Evaluates; a signal cuts it short, and the run makes up for it when it resumes."""
        if self._num_episodes < 1 or self._task.environment is None:
            return
        # A new function starts its random numbers again: those of an evaluation do not depend on
        # the evaluations before, which a resumed run has not made.
        sampled = {} if self._is_greedy else {"": rollouts.policy_action_fn(self._policy)}
        with contextlib.suppress(signals.Interruption):
            scores: dict[str, Any] = {}
            for prefix, action_fn in {**self._greedy, **sampled}.items():
                result = rollouts.evaluate(
                    action_fn, self._task.environment, self._num_episodes, _EVALUATION_SEED
                )
                scores.update({prefix + k: v for k, v in self._numbers(result).items()})
            score = scores["normalized_score"]
            text = "" if score is None else f", score {score:.1f}"
            self._log.write(step, scores, f"return {scores['return_mean']:.1f}{text}")

    def _numbers(self, result: rollouts.EvaluationResult) -> dict[str, Any]:
        return {
            "return_mean": result.return_mean,
            "return_std": result.return_std,
            "length_mean": float(np.mean(result.lengths)),
            "normalized_score": report.score(self._task, result.return_mean),
            "returns": [float(r) for r in result.returns],
            "lengths": [int(n) for n in result.lengths],
        }


class Judge(Trigger):
    """Writes an event for each reason not to trust the policy, at the steps of its evaluations."""

    def __init__(self, interval: int, measurement: trust.Trust, log: StageLog):
        super().__init__(interval)
        self._measurement, self._log = measurement, log

    def act(self, step: int) -> None:
        """Judges the policy, unless a signal cut its evaluation short, or it has been judged."""
        if signals.requested() is not None or run_log.doubts(self._log.events, step):
            return
        doubts = self._measurement.doubts(self._log.records)
        for doubt in doubts:
            self._log.write_event(step, "untrusted", **doubt)
        warning = trust.sentence(doubts)
        if warning is not None:
            self._log.warn(f"at step {step} of the {self._log.stage} stage {warning}")

    at_start, at_completion = Trigger.at_step, act


class Export(Trigger):
    """Exports the policies after each evaluation, or what an earlier start has not exported."""

    def __init__(
        self,
        interval: int,
        root_dir: str,
        policies: Mapping[str, tf_policy.TFPolicy],
        run: Mapping[str, Any],
        done: Mapping[str, int],
        keep: int,
        log: StageLog,
    ):
        """Creates the trigger.

        Args:
          interval: Updates between exports; the last update of a stage is always exported.
          root_dir: Directory of the run.
          policies: As `run_policies.of_agent` returns them.
          run: The content of run.json.
          done: Updates of the stages before, by name.
          keep: How many policies stay, of the last, of the best and of the average.
          log: The log.
        """
        super().__init__(interval)
        self._root_dir, self._run, self._done, self._keep = root_dir, run, done, keep
        self._policies, self._log = policies, log

    def act(self, step: int) -> None:
        """Exports each policy, unless a signal cut its evaluation short, or it has been exported.

        A run that resumes from a checkpoint makes the same policies again, to the bit.
        """
        if signals.requested() is not None:
            return
        records, events = self._log.records, self._log.events
        steps = {**self._done, self._log.stage: step}
        for prefix, policy in self._policies.items():
            directory = os.path.join(self._root_dir, run_policies.DIRECTORIES[prefix])
            if step not in policy_versions.versions(directory):
                origin = run_policies.origin(self._run, steps, records, events, prefix)
                export.export_policy(policy, directory, step, origin=origin)
            policy_versions.prune(directory, self._keep)
        last, best = (
            os.path.join(self._root_dir, name) for name in (run_policies.LAST, run_policies.BEST)
        )
        if run_policies.best(records, events) == step and step not in policy_versions.versions(
            best
        ):
            source = os.path.join(last, str(step))
            policy_versions.publish(best, step, functools.partial(shutil.copytree, source))
        policy_versions.prune(best, self._keep)

    at_start, at_completion = Trigger.at_step, act


class SaveCheckpoint(Trigger):
    """Saves checkpoints, also at the end of a stage and of an interrupted run."""

    def __init__(self, interval: int, numerics: Numerics, save: Callable[[], None]):
        super().__init__(interval)
        self._numerics, self._save = numerics, save

    def act(self, step: int) -> None:
        """Saves weights, targets and temperature; raises NotFiniteError rather than save a NaN."""
        self._numerics.check_weights(step)
        self._save()

    at_exit = act
