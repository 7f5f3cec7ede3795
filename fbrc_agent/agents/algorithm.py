"""What the driver knows of an algorithm."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

import gin
import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.networks import network
from tf_agents.policies import tf_policy
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

# What gin files name to make agents.
gin.external_configurable(tf.keras.optimizers.Adam, module="tf.keras.optimizers")
gin.external_configurable(
    tf.keras.optimizers.schedules.PiecewiseConstantDecay, module="tf.keras.optimizers.schedules"
)


@gin.configurable
def piecewise_decay(
    steps: int, boundaries: Sequence[float], values: Sequence[float]
) -> tf.keras.optimizers.schedules.PiecewiseConstantDecay:
    """Returns a piecewise constant learning rate in proportion to the length of a training.

    Args:
      steps: Updates of the training.
      boundaries: Where one value ends, as shares of `steps`, in ascending order.
      values: The learning rates, one more than boundaries.
    """
    ends = [max(1, round(share * steps)) for share in boundaries]
    return tf.keras.optimizers.schedules.PiecewiseConstantDecay(ends, list(values))


class Discounting(NamedTuple):
    """What a critic's values are: sums of gamma^t (reward_scale r_t + reward_bonus)."""

    reward_scale: float
    reward_bonus: float
    gamma: float

    def largest_value(self, rewards: np.ndarray) -> float:
        """Returns max |reward_scale r + reward_bonus| / (1 - gamma): no |Q| can be larger."""
        extremes = float(np.min(rewards)), float(np.max(rewards))
        largest = max(abs(self.reward_scale * r + self.reward_bonus) for r in extremes)
        return largest / (1.0 - self.gamma)


@dataclasses.dataclass(frozen=True)
class Panel:
    """A panel of a run's picture: numbers of metrics.jsonl against updates.

    Attributes:
      title: Its title.
      unit: Label of its vertical axis.
      lines: Labels by the names of the numbers.
      log_scale: Whether its vertical axis is logarithmic.
    """

    title: str
    unit: str
    lines: Mapping[str, str]
    log_scale: bool = False


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """An algorithm that a run can train: the only thing that the driver knows of it.

    A stage of a run trains one algorithm. Those in `pretraining` are stages of their own and come
    first; each hands on one network, by the name of its algorithm.

    Attributes:
      name: Name of the stage, of its directory, and of its lines in metrics.jsonl.
      label: What tables and legends call it.
      create_agent: `create_agent(time_step_spec, action_spec, seed, pretrained)` returns the agent
        with new weights, a function of the seed. `pretrained` holds the networks of the algorithms
        in `pretraining` by name; they are not trained yet when the agent is made.
      pretraining: Algorithms to train first.
      trained_network: Returns the network that an agent of this algorithm hands on; None for an
        algorithm that is not trained for another one.
      is_greedy: Whether a run evaluates the mode of the policy, not its samples. An export's
        signature `serving_default` is the mode in both cases; `sample`, where it has one, draws.
      diagnostics: `diagnostics(agent, experience)` returns scalars by name, logged with the losses.
      values: `values(agent, observation, action)` returns tensors `[B]` by name, the signature
        `value` of an export; None where there is no critic. `q` is its value, `log_mu` that of a
        behavior policy's log density.
      average_policy: Returns the policy of an agent's averaged actor, evaluated and exported beside
        the last one, or None if it keeps no average; None for an algorithm that never does.
      discounting: Returns the `Discounting` of an agent's values, which they are held against; None
        if they have no bound.
      q_names: Names of the logged mean values of Q.
      likely_causes: Returns what in an agent's settings may make its numbers diverge, in phrases.
      panels: Panels of its picture.
    """

    name: str
    label: str
    create_agent: Callable[
        [ts.TimeStep, types.NestedTensorSpec, int, Mapping[str, network.Network]], tf_agent.TFAgent
    ]
    pretraining: tuple["Algorithm", ...] = ()
    trained_network: Optional[Callable[[tf_agent.TFAgent], network.Network]] = None
    is_greedy: bool = True
    diagnostics: Optional[Callable[[Any, types.NestedTensor], Mapping[str, tf.Tensor]]] = None
    values: Optional[Callable[[Any, tf.Tensor, tf.Tensor], Mapping[str, tf.Tensor]]] = None
    average_policy: Optional[Callable[[Any], Optional[tf_policy.TFPolicy]]] = None
    discounting: Optional[Callable[[Any], Optional[Discounting]]] = None
    q_names: tuple[str, ...] = ()
    likely_causes: Optional[Callable[[Any], Sequence[str]]] = None
    panels: tuple[Panel, ...] = ()

    @property
    def stages(self) -> tuple["Algorithm", ...]:
        """The algorithms of a run of this one, in the order in which they are trained."""
        return (*self.pretraining, self)

    def averaged(self, agent: tf_agent.TFAgent) -> Optional[tf_policy.TFPolicy]:
        """Returns the policy of an agent's averaged actor; None if it keeps no average."""
        return None if self.average_policy is None else self.average_policy(agent)

    def description(self) -> dict[str, Any]:
        """Returns name, label and panels, what run.json keeps for tables and pictures."""
        return {
            "name": self.name,
            "label": self.label,
            "panels": [dataclasses.asdict(panel) for panel in self.panels],
        }
