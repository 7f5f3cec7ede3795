"""NaN and infinity in losses and weights, and a critic beyond any return: what, where and why."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent

from fbrc_agent.agents.algorithm import Algorithm
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.utils.errors import NotFiniteError

# Learning rates of Adam beyond this are named as a likely cause.
_HIGH_LEARNING_RATE = 1e-2


class Numerics:
    """Checks the numbers of an agent in training, and names likely causes of bad ones.

    Attributes:
      max_q: The largest return that rewards and discount allow; inf if there is none.
    """

    def __init__(self, algorithm: Algorithm, agent: tf_agent.TFAgent, offline: OfflineData):
        """Creates the checks.

        Args:
          algorithm: The algorithm of the stage.
          agent: Its agent.
          offline: The data it is trained on.
        """
        self._algorithm, self._agent = algorithm, agent
        self._last: Mapping[str, float] = {}
        self.max_q = math.inf
        discounting = algorithm.discounting and algorithm.discounting(agent)
        if discounting is not None and offline.rewards.size:
            self.max_q = discounting.largest_value(offline.rewards)

    def check_losses(self, step: int, scalars: Mapping[str, float]) -> None:
        """Checks losses and diagnostics.

        Raises:
          NotFiniteError: If one of them is NaN or infinite.
        """
        for name, value in scalars.items():
            if not math.isfinite(value):
                raise self._error(name, value, step)
        self._last = scalars

    def check_weights(self, step: int) -> None:
        """Checks weights, targets and temperature.

        Raises:
          NotFiniteError: If one of them is NaN or infinite.
        """
        variables = [v for v in self._agent.variables if v.dtype.is_floating]
        finite = tf.stack([tf.reduce_all(tf.math.is_finite(v)) for v in variables]).numpy()
        if not np.all(finite):
            bad = variables[int(np.argmin(finite))]
            value = float(bad.numpy()[~np.isfinite(bad.numpy())].flat[0])
            raise self._error(bad.name.split(":")[0], value, step)

    def largest_q(self, scalars: Mapping[str, float]) -> float:
        """Returns the largest mean |Q| of what is logged; beyond `max_q` the critic diverges."""
        return max([abs(scalars.get(name, 0.0)) for name in self._algorithm.q_names], default=0.0)

    def likely_cause(self) -> str:
        """Returns a phrase on learning rates or settings that may have caused it."""
        high = [f"{name} is {rate:g}" for name, rate in self._rates() if rate > _HIGH_LEARNING_RATE]
        if high:
            return "likely cause: the learning rate of " + " and of ".join(high)
        causes = self._algorithm.likely_causes
        settings = causes(self._agent) if causes is not None else ()
        if settings:
            return "likely cause: " + " and ".join(settings)
        return "likely causes: a learning rate that is too high, or outliers in the data"

    def _error(self, name: str, value: float, step: int) -> NotFiniteError:
        last = ", ".join(f"{k} {v:.4g}" for k, v in self._last.items()) or "none yet"
        explanation = (
            f"last finite values: {last}; {self.likely_cause()}; the newest checkpoint is from "
            "before and was kept."
        )
        return NotFiniteError(name, value, step, self._algorithm.name, explanation)

    def _rates(self) -> Iterator[tuple[str, float]]:
        """Yields (name of the optimizer, its learning rate) of each optimizer of the agent."""
        view = tf.train.TrackableView(self._agent)
        for name, part in view.children(self._agent).items():
            rate: Any = getattr(part, "learning_rate", None)
            if callable(rate) and not isinstance(rate, tf.Variable):
                rate = rate(part.iterations)
            if rate is not None:
                yield name.lstrip("_"), float(tf.convert_to_tensor(rate))
