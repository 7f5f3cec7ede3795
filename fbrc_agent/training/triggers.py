"""What happens between the updates of a stage, one class each; Keras calls such classes callbacks.

A stage calls the triggers in their order. What is written at a step comes before its checkpoint,
because a run resumes after the checkpoint.
"""

import contextlib
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import greedy_policy
from tf_agents.typing import types
from tf_agents.utils import common

from fbrc_agent.agents.algorithm import Algorithm
from fbrc_agent.environments.tasks import Task
from fbrc_agent.evaluation import rollouts
from fbrc_agent.training.checkpoints import Saver
from fbrc_agent.training.numerics import Numerics
from fbrc_agent.training.run_log import StageLog, has_scores
from fbrc_agent.training.run_policies import RunPolicies
from fbrc_agent.utils import signals

# Evaluations of one run start from the same states, so that its curve compares policies.
_EVALUATION_SEED = 1000


class Trigger:
    """Does nothing, at the multiples of an interval.

    TF-Agents' `IntervalTrigger` counts from where the run was resumed.

    Attributes:
      interval: Updates between two actions; 0 for none.
    """

    def __init__(self, interval: int):
        self.interval = interval

    def is_due(self, step: int) -> bool:
        """Returns whether a step is a multiple of the interval."""
        return step > 0 and self.interval > 0 and step % self.interval == 0

    def at_start(self, step: int) -> None:
        """Called before the first update; `step` is that of the checkpoint, or 0."""

    def at_step(self, step: int) -> None:
        """Called after some updates; no call has passed over a multiple of the interval."""

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
    ):
        super().__init__(interval)
        self._batch, self._log, self._numerics = batch, log, numerics
        self._has_diverged = False

        def measure(experience: types.NestedTensor) -> dict[str, tf.Tensor]:
            scalars = dict(agent.loss(experience).extra._asdict())
            if algorithm.diagnostics is not None:
                scalars.update(algorithm.diagnostics(agent, experience))
            return scalars

        self._measure = common.function(measure)

    def at_step(self, step: int) -> None:
        """Logs.

        Raises:
          NotFiniteError: If a number is NaN or infinite.
        """
        if not self.is_due(step):
            return
        scalars = self.measure(self._batch)
        self._log.write(step, scalars)
        self._numerics.check_losses(step, scalars)
        q = self._numerics.excessive_q(scalars)
        if q is not None and not self._has_diverged:
            self._has_diverged = True
            bound = self._numerics.max_q
            self._log.write_event(step, "diverged", q=q, bound=bound)
            self._log.warn(
                f"the critic diverges: at step {step} of the {self._log.stage} stage its mean |Q| "
                f"is {q:.4g}, but rewards and gamma allow returns up to {bound:.4g} only; "
                + self._numerics.likely_cause()
            )

    def measure(self, experience: types.NestedTensor) -> Mapping[str, float]:
        """Returns losses and diagnostics of a batch, without an update."""
        return {name: float(value) for name, value in self._measure(experience).items()}


class Evaluate(Trigger):
    """Evaluates the policy in the task's environment and logs the scores."""

    def __init__(
        self,
        interval: int,
        algorithm: Algorithm,
        agent: tf_agent.TFAgent,
        task: Task,
        num_episodes: int,
        log: StageLog,
    ):
        """Creates the trigger.

        Args:
          interval: Updates between evaluations; the last update of a stage is always evaluated.
          algorithm: The algorithm, which decides between the mode of the policy and its samples.
          agent: Its agent.
          task: The task; one without environment cannot be evaluated.
          num_episodes: Episodes of an evaluation; 0 for none.
          log: The log.
        """
        super().__init__(interval)
        self._is_greedy, self._policy = algorithm.is_greedy, agent.policy
        self._greedy_action_fn = rollouts.policy_action_fn(greedy_policy.GreedyPolicy(agent.policy))
        self._task, self._num_episodes, self._log = task, num_episodes, log

    def at_start(self, step: int) -> None:
        """Evaluates what a signal kept an earlier start from evaluating."""
        if self.is_due(step):
            self.at_completion(step)

    def at_step(self, step: int) -> None:
        """Evaluates at the multiples of the interval."""
        if self.is_due(step):
            self._evaluate(step)

    def at_completion(self, step: int) -> None:
        """Evaluates the last update, unless it has been."""
        if not has_scores(self._log.records, step):
            self._evaluate(step)

    def _evaluate(self, step: int) -> None:
        if self._num_episodes < 1 or self._task.environment is None:
            return
        # A new function starts its random numbers again: those of an evaluation do not depend on
        # the evaluations before, which a resumed run has not made.
        action_fn = (
            self._greedy_action_fn if self._is_greedy else rollouts.policy_action_fn(self._policy)
        )
        with contextlib.suppress(signals.Interruption):
            result = rollouts.evaluate(
                action_fn, self._task.environment, self._num_episodes, _EVALUATION_SEED
            )
            score: Optional[float] = None
            if self._task.reference_scores is not None:
                score = float(self._task.normalized_score(result.return_mean))
            scores: dict[str, Any] = {
                "return_mean": result.return_mean,
                "return_std": result.return_std,
                "length_mean": float(np.mean(result.lengths)),
                "normalized_score": score,
                "returns": [float(r) for r in result.returns],
                "lengths": [int(n) for n in result.lengths],
            }
            text = "" if score is None else f", score {score:.1f}"
            self._log.write(step, scores, f"return {result.return_mean:.1f}{text}")


class Export(Trigger):
    """Exports the policy after each evaluation."""

    def __init__(self, interval: int, policies: RunPolicies, log: StageLog):
        super().__init__(interval)
        self._policies, self._log = policies, log

    def at_start(self, step: int) -> None:
        """Exports what a signal kept an earlier start from exporting."""
        self.at_step(step)

    def at_step(self, step: int) -> None:
        """Exports at the multiples of the interval."""
        if self.is_due(step):
            self.at_completion(step)

    def at_completion(self, step: int) -> None:
        """Exports the policy, unless a signal cut its evaluation short."""
        if signals.requested() is None:
            self._policies.write(step, self._log.records)


class WatchWeights(Trigger):
    """Checks weights, targets and temperature before each checkpoint."""

    def __init__(self, interval: int, numerics: Numerics):
        super().__init__(interval)
        self._numerics = numerics

    def at_step(self, step: int) -> None:
        """Checks at the multiples of the interval; raises NotFiniteError."""
        if self.is_due(step):
            self._numerics.check_weights(step)

    def at_exit(self, step: int) -> None:
        """Checks at the end; raises NotFiniteError."""
        self._numerics.check_weights(step)


class SaveCheckpoint(Trigger):
    """Saves checkpoints, also at the end of a stage and of an interrupted run."""

    def __init__(self, interval: int, saver: Saver):
        super().__init__(interval)
        self._saver = saver

    def at_step(self, step: int) -> None:
        """Saves at the multiples of the interval."""
        if self.is_due(step):
            self._saver.save(step)

    def at_exit(self, step: int) -> None:
        """Saves at the end."""
        self._saver.save(step)
