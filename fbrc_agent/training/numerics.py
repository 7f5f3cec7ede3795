"""Numbers that go bad: NaN or infinity in losses and weights, a critic beyond any return."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent

from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.utils.errors import BadNumbersError

# Learning rates of Adam beyond this are named as a likely cause.
_HIGH_LEARNING_RATE = 1e-2
_ARRAYS = ("observations", "actions", "rewards", "next_observations", "discounts")


class Watch:
    """Tells when the numbers of an agent in training have gone bad, and why they may have."""

    def __init__(self, agent: tf_agent.TFAgent, stage: str, offline: OfflineData):
        """Creates the watch.

        Args:
          agent: The agent in training.
          stage: Its stage, for messages.
          offline: The data it is trained on.
        """
        self._agent, self._stage, self._offline = agent, stage, offline
        self._last: dict[str, float] = {}
        self._return_bound = _return_bound(agent, offline)
        self._warned = False

    def check_losses(self, step: int, scalars: Mapping[str, float]) -> Optional[str]:
        """Checks what is logged.

        Args:
          step: The training step.
          scalars: Losses and diagnostics.

        Returns:
          A warning, the first time that the mean |Q| of the data exceeds the largest return there
          can be, max |reward| / (1 - gamma): the critic diverges. Else None.

        Raises:
          BadNumbersError: If one of them is NaN or infinite.
        """
        for name, value in scalars.items():
            if not math.isfinite(value):
                raise self._error(name, value, step)
        self._last = {"step": step, **scalars}
        q = max(abs(scalars.get(name, 0.0)) for name in ("q_data", "q_policy"))
        if self._warned or q <= self._return_bound:
            return None
        self._warned = True
        return (
            f"the critic diverges: at step {step} of the {self._stage} stage its mean |Q| is "
            f"{q:.4g}, but rewards and gamma allow returns up to {self._return_bound:.4g} only; "
            + self._likely_cause()
        )

    def check_weights(self, step: int) -> None:
        """Checks weights, targets and temperature, before they are saved.

        Raises:
          BadNumbersError: If one of them is NaN or infinite.
        """
        variables = [v for v in self._agent.variables if v.dtype.is_floating]
        finite = tf.stack([tf.reduce_all(tf.math.is_finite(v)) for v in variables]).numpy()
        if not np.all(finite):
            bad = variables[int(np.argmin(finite))]
            value = float(bad.numpy()[~np.isfinite(bad.numpy())].flat[0])
            raise self._error(bad.name.split(":")[0], value, step)

    def explain(self, error: tf.errors.InvalidArgumentError, step: int) -> BadNumbersError:
        """Returns what to raise for the failure of a `check_numerics` in a training step."""
        first = str(error).split("\n", 1)[0]
        name = next((n for n in ("Critic", "Actor", "Alpha", "Behavior") if n in first), "a")
        return self._error(f"{name.lower()} loss", math.nan, step, "inf or nan")

    def _error(self, name: str, value: float, step: int, text: str = "") -> BadNumbersError:
        last = ", ".join(f"{k} {v:.4g}" for k, v in self._last.items()) or "none yet"
        return BadNumbersError(
            f"{name} is {text or value} at step {step} of the {self._stage} stage; last good "
            f"values: {last}; {self._likely_cause()}; the newest checkpoint is from before and was "
            "kept."
        )

    def _likely_cause(self) -> str:
        place = _first_bad_row(self._offline)
        if place is not None:
            return f"likely cause: {place}"
        high = [
            f"{name} has the learning rate {rate:g}"
            for name, rate in _learning_rates(self._agent)
            if rate > _HIGH_LEARNING_RATE
        ]
        if high:
            return "likely cause: " + " and ".join(high)
        if getattr(self._agent, "_gradient_penalty_weight", None) == 0:
            return (
                "likely cause: FbrcAgent.gradient_penalty_weight is 0, which lets the critic grow "
                "without bounds outside of the data"
            )
        return "likely causes: a learning rate that is too high, or outliers in the data"


def is_failed_check(error: tf.errors.InvalidArgumentError) -> bool:
    """Whether an error is that of `tf.debugging.check_numerics`."""
    return any(text in str(error) for text in ("inf or nan", "Tensor had NaN", "Tensor had Inf"))


def _return_bound(agent: tf_agent.TFAgent, offline: OfflineData) -> float:
    """Returns max |reward| / (1 - gamma) with the agent's scale and bonus; inf if unbounded."""
    gamma = getattr(agent, "_gamma", 1.0)
    entropy = getattr(agent, "_include_critic_entropy_term", True)  # Unbounded, and no reward.
    if entropy or gamma >= 1.0 or not offline.rewards.size:
        return math.inf
    scale, bonus = agent._reward_scale_factor, agent._reward_bonus
    ends = (float(np.min(offline.rewards)), float(np.max(offline.rewards)))
    return max(abs(scale * reward + bonus) for reward in ends) / (1.0 - gamma)


def _first_bad_row(offline: OfflineData) -> Optional[str]:
    for name in _ARRAYS:
        array = getattr(offline, name)
        finite = np.isfinite(array).reshape([len(array), -1]).all(axis=1)
        if not finite.all():
            return f"{name} of {offline.source} are not finite in row {int(np.argmin(finite))}"
    return None


def _learning_rates(agent: tf_agent.TFAgent) -> Sequence[tuple[str, float]]:
    """Returns (name of the optimizer, its learning rate) of each optimizer of an agent."""
    rates = []
    for attribute, value in vars(agent).items():
        rate: Any = getattr(value, "learning_rate", None)
        if rate is None or not attribute.endswith("optimizer"):
            continue
        if callable(rate) and not isinstance(rate, tf.Variable):
            rate = rate(value.iterations)
        rates.append((attribute.lstrip("_"), float(tf.convert_to_tensor(rate))))
    return rates
