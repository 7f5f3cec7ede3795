"""Whether a policy can be trusted, by what the data supports where its episodes begin.

There, where episodes of many policies begin alike, a critic can diverge unseen in the mean over the
data: values feed themselves along states that hardly change, and the policy leaves the data.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import greedy_policy

from fbrc_agent.agents.algorithm import Algorithm, Discounting
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.evaluation import rollouts

_MOST_STARTS = 256
# The policy's actions must be likelier under mu than this share of the data's own.
_UNLIKELY_SHARE = 0.1
# Of the largest |Q| there can be: what values may exceed the data's returns by.
_MARGIN = 0.01
_SENTENCES = {
    "value": "its values where episodes begin ({value:.4g}) are beyond the largest return that the "
    "data supports ({bound:.4g})",
    "actions": "its actions where episodes begin are less likely in the data (mean log mu "
    "{value:.3g}) than nine of ten of the data's own (log mu {bound:.3g})",
    "score": "its return ({value:.4g}) stays below the data's mean ({bound:.4g}), once exceeded",
}


class Trust:
    """Measures a policy at the data's start states, and names what speaks against it."""

    def __init__(self, algorithm: Algorithm, agent: tf_agent.TFAgent, offline: OfflineData):
        """Creates the measurement.

        Args:
          algorithm: The algorithm; one without `values` is judged by its scores alone.
          agent: Its agent.
          offline: The data.
        """
        self._values = None
        starts = offline.episode_starts
        starts = starts[np.linspace(0, len(starts) - 1, min(len(starts), _MOST_STARTS)).astype(int)]
        self._observations, self._actions = offline.observations[starts], offline.actions[starts]
        self._action_fn = rollouts.policy_action_fn(greedy_policy.GreedyPolicy(agent.policy))
        if algorithm.values is not None:
            values = algorithm.values
            self._values = tf.function(lambda s, a: values(agent, s, a), autograph=False)
        discounting = algorithm.discounting and algorithm.discounting(agent)
        self._q_bound = discounting and _q_bound(offline, discounting)
        returns = offline.episode_returns
        self._data_mean = float(returns.mean()) if len(returns) else None

    def measure(self) -> dict[str, float]:
        """Returns means over start states, at the mode of the policy.

        Returns:
          `q_start`, the value, and where there is a behavior policy mu, `log_mu_start`; nothing
          without a critic.
        """
        if self._values is None:
            return {}
        values = self._values(self._observations, self._action_fn(self._observations))
        return {
            f"{name}_start": float(tf.reduce_mean(values[name]))
            for name in ("q", "log_mu")
            if name in values
        }

    def doubts(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Returns what speaks against the policy as it is now; see `sentence` for the reasons.

        Args:
          records: The stage's lines of metrics.jsonl that hold numbers.

        Returns:
          For each reason `reason`, the number `value`, and `bound`, what it is beyond.
        """
        numbers, found = self.measure(), []
        if self._q_bound is not None and numbers.get("q_start", 0.0) > self._q_bound:
            found.append(("value", numbers["q_start"], self._q_bound))
        if self._values is not None and "log_mu_start" in numbers:
            log_mu = self._values(self._observations, self._actions)["log_mu"]
            bound = float(np.quantile(log_mu, _UNLIKELY_SHARE))
            if numbers["log_mu_start"] < bound:
                found.append(("actions", numbers["log_mu_start"], bound))
        returns = [r["return_mean"] for r in records if isinstance(r.get("return_mean"), float)]
        if self._data_mean is not None and len(returns) > 2:
            if max(returns[:-2]) > self._data_mean > max(returns[-2:]):
                found.append(("score", returns[-1], self._data_mean))
        return [dict(zip(("reason", "value", "bound"), each)) for each in found]


def sentence(doubts: Sequence[Mapping[str, Any]]) -> Optional[str]:
    """Returns a sentence on the doubts of a policy; None if there are none."""
    if not doubts:
        return None
    reasons = "; ".join(_SENTENCES[doubt["reason"]].format(**doubt) for doubt in doubts)
    return f"the policy cannot be trusted: {reasons}."


def _q_bound(offline: OfflineData, discounting: Discounting) -> Optional[float]:
    """Returns what no value should exceed: beyond 0, where a critic starts, and rounding."""
    largest = largest_supported_value(offline, discounting)
    margin = _MARGIN * discounting.largest_value(offline.rewards)
    return None if largest is None else max(largest, 0.0) + margin


def largest_supported_value(offline: OfflineData, discounting: Discounting) -> Optional[float]:
    """Returns the largest discounted return to go G anywhere in the data, in the critic's units.

    Where the data was cut k steps later, not at a terminal, G is of k steps only: G / (1 - gamma^k)
    assumes that rewards continue alike. Rows with gamma^k above 1/2 are left out: most of their sum
    would be assumed. Returns None if there are no others.
    """
    scale, bonus, gamma = discounting
    rewards = (scale * offline.rewards.astype(np.float64) + bonus).tolist()
    largest = -np.inf
    for rows in offline.episodes():
        is_cut = offline.discounts[rows.stop - 1] > 0
        value, weight = 0.0, 1.0
        for reward in reversed(rewards[rows]):
            value, weight = reward + gamma * value, weight * gamma
            if not is_cut:
                largest = max(largest, value)
            elif weight <= 0.5:
                largest = max(largest, value / (1.0 - weight))
    return float(largest) if np.isfinite(largest) else None
