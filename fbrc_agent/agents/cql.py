"""CqlAgent: conservative Q-learning, SAC plus one term in the critic loss.

Kumar, Zhou, Tucker, Levine, "Conservative Q-Learning for Offline Reinforcement Learning", 2020
(arXiv 2006.04779). Equation numbers are the paper's.
"""

import collections
from collections.abc import Mapping
from typing import Any, Optional

import gin
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types
from tf_agents.utils import common, nest_utils

from fbrc_agent.agents import actor_critic, algorithm, offline_sac, updates
from fbrc_agent.utils import checks, sampling

CqlLossInfo = collections.namedtuple(
    "CqlLossInfo", ("critic_loss", "actor_loss", "alpha_loss", "cql_gap", "cql_multiplier")
)

# Draws of the uniform actions, and of those of the policy at the next states.
_UNIFORM, _NEXT = offline_sac.OfflineSacAgent.num_draws, offline_sac.OfflineSacAgent.num_draws + 1


@gin.configurable
class CqlAgent(offline_sac.OfflineSacAgent):
    """CQL(H): values of the data's actions are raised over those of all others (eq. 4).

    The critic loss is, with the squared TD error J of `OfflineSacAgent`,

        sum_i [ J(Q_i) + m w (log Z_i(s) - Q_i(s, a)) ],

        log Z_i(s) = T^-1 log sum_k exp(T Q_i(s, a_k) - log q_k(a_k)),

    a_k drawn N times each, with density q_k, from the uniform distribution on the action box, from
    pi(.|s) and (`include_next_actions`) from pi(.|s'), all valued at s; no gradient flows into the
    actor. The sum over k is not divided by its length, as in the authors' code.

    The multiplier m is 1, or with `lagrange_threshold` tau the solution of (eq. 30)

        max_{m >= 0} m (w mean_i (log Z_i - Q_i) - tau), by gradient steps in log m.

    With `include_next_actions=False` and w = 1 this is the loss of TF-Agents' `CqlSacAgent` where
    the bounds of the actions are scalars: for arrays of bounds the uniform log density there is
    multiplied by the number of dimensions once more. Unlike there, weights and replicas count in
    the term, and draws are a function of (seed, step).
    """

    loss_info_class = CqlLossInfo
    num_draws = offline_sac.OfflineSacAgent.num_draws + 2

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.BoundedTensorSpec,
        critic_network: network.Network,
        actor_network: network.Network,
        cql_weight: types.Float = 5.0,
        num_action_samples: int = 10,
        include_next_actions: bool = True,
        softmax_temperature: types.Float = 1.0,
        lagrange_threshold: Optional[types.Float] = None,
        lagrange_optimizer: Optional[types.Optimizer] = None,
        num_cloning_steps: int = 0,
        include_critic_entropy_term: bool = False,
        **sac_arguments: Any,
    ):
        """Creates the agent.

        Args:
          time_step_spec: A `TimeStep` spec of the expected time steps.
          action_spec: A `BoundedTensorSpec` of the actions, shape [A].
          critic_network: A stateless critic network over (observation, action), values `[B]`.
          actor_network: A network from observations to action distributions.
          cql_weight: w.
          num_action_samples: N.
          include_next_actions: Whether pi(.|s') is one of the three sources of actions.
          softmax_temperature: T.
          lagrange_threshold: tau; None for m = 1.
          lagrange_optimizer: Optimizer of log m, needed with a threshold.
          num_cloning_steps: Updates in which the actor maximizes log pi of the data's actions in
            place of Q.
          include_critic_entropy_term: As of `FbrcAgent`; the authors' code leaves it out.
          **sac_arguments: Those of `OfflineSacAgent`.

        Raises:
          ValueError: If a number, flag or optimizer is not as above, the actions are not one
            tensor, or the critic is recurrent.
        """
        checks.check_number("cql_weight", cql_weight, low=0)
        checks.check_integer("num_action_samples", num_action_samples, 1)
        checks.check_flag("include_next_actions", include_next_actions)
        checks.check_number("softmax_temperature", softmax_temperature, above=0)
        checks.check_number("lagrange_threshold", lagrange_threshold, low=0, optional=True)
        checks.check_integer("num_cloning_steps", num_cloning_steps, 0)
        if lagrange_threshold is not None:
            checks.check_optimizer("lagrange_optimizer", lagrange_optimizer)
        if not isinstance(action_spec, tf.TypeSpec):
            raise ValueError(f"action_spec is {action_spec}; CqlAgent takes one tensor of actions.")
        if critic_network.state_spec:
            raise ValueError("critic_network is recurrent; CqlAgent takes a stateless one.")
        self._cql_weight, self._num_action_samples = cql_weight, num_action_samples
        self._include_next_actions = include_next_actions
        self._softmax_temperature = softmax_temperature
        self._lagrange_threshold = lagrange_threshold
        self._num_cloning_steps = num_cloning_steps
        self._log_multiplier = tf.Variable(0.0, dtype=tf.float32, name="cql_log_multiplier")
        super().__init__(
            time_step_spec,
            action_spec,
            critic_network,
            actor_network,
            include_critic_entropy_term=include_critic_entropy_term,
            **sac_arguments,
        )
        self._lagrange_optimizer: Any = self._convert_optimizer_to_legacy(lagrange_optimizer)
        if lagrange_threshold is not None:
            self._lagrange_optimizer._create_all_weights([self._log_multiplier])  # XLA cannot.

    @property
    def cql_multiplier(self) -> tf.Tensor:
        """M."""
        return tf.exp(self._log_multiplier)

    def _critic_loss(self, states, actions, next_time_steps, td_error, training):
        """Returns sum_i [ J(Q_i) + m w (log Z_i(s) - Q_i(s, a)) ]."""
        td_loss, _ = super()._critic_loss(states, actions, next_time_steps, td_error, training)
        q_values = self._q_values(self._critics, states, actions, training)
        log_z = self._log_z(states, next_time_steps)
        gap = tf.add_n([z - q for z, q in zip(log_z, q_values)]) / len(q_values)
        weight = tf.cast(self.cql_multiplier, gap.dtype) * self._cql_weight * len(q_values)
        multiplier = tf.fill(tf.shape(gap), tf.cast(self.cql_multiplier, gap.dtype))
        return td_loss + weight * gap, {"cql_gap": gap, "cql_multiplier": multiplier}

    def _actor_loss(self, states, data_actions):
        """Returns `super()`'s; at first alpha log pi(a|s) - log pi of the data's action."""
        loss, log_pi = super()._actor_loss(states, data_actions)
        if self._num_cloning_steps and data_actions is not None:
            is_cloning = self.train_step_counter < self._num_cloning_steps
            log_data = common.log_probability(states.policy, data_actions, self.action_spec)
            cloning_loss = tf.cast(self.alpha, log_pi.dtype) * log_pi - log_data
            loss = tf.where(is_cloning, cloning_loss, loss)
        return loss, log_pi

    def _log_z(self, states, next_time_steps) -> list[tf.Tensor]:
        """Returns log Z_i(s) of each critic, `[B]`."""
        count = self._num_action_samples
        draws = [
            self._uniform(tf.shape(states.time_steps.step_type)),
            self._sample(states.policy, offline_sac.OWN_TERM, [count]),
        ]
        if self._include_next_actions:
            next_policy = self._pi(next_time_steps, training=False)
            draws.append(self._sample(next_policy, _NEXT, [count]))
        # [K, B, A] to [B K, A]: the rows of one state follow each other, as `tile_batch` has them.
        actions, log_q = (tf.stop_gradient(tf.concat(parts, axis=0)) for parts in zip(*draws))
        log_q = tf.transpose(log_q)
        total = log_q.shape[1]
        rows = tf.reshape(tf.transpose(actions, [1, 0, 2]), [-1, actions.shape[-1]])
        tiled = states._replace(time_steps=nest_utils.tile_batch(states.time_steps, total))
        temperature = self._softmax_temperature
        return [
            tf.reduce_logsumexp(temperature * tf.reshape(q, [-1, total]) - log_q, 1) / temperature
            for q in self._q_values(self._critics, tiled, rows)
        ]

    def _uniform(self, batch_shape) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns N actions of the uniform distribution on the box, `[N, B, A]`, log densities."""
        spec = self.action_spec
        low, high = (tf.broadcast_to(b, spec.shape) for b in (spec.minimum, spec.maximum))
        shape = tf.concat([[self._num_action_samples], batch_shape], axis=0)
        box = tfp.distributions.Independent(tfp.distributions.Uniform(low, high), 1)
        step, draws = self.train_step_counter, self.num_draws
        actions = sampling.sample(box, self._seed, step, _UNIFORM, draws, shape)
        return actions, tf.fill(shape, -tf.reduce_sum(tf.math.log(high - low)))

    def _update_networks(self, time_steps, actions, next_steps, weights):
        """Steps critics, actor, temperature and multiplier; returns as `super()`."""
        losses = super()._update_networks(time_steps, actions, next_steps, weights)
        if self._lagrange_threshold is not None:
            with updates.tape([self._log_multiplier]) as tape:
                # Replicas sum their gradients, and each has its share of the gap.
                replicas = tf.distribute.get_strategy().num_replicas_in_sync
                threshold = self._lagrange_threshold / replicas
                surplus = self._cql_weight * losses[-1]["cql_gap"] - threshold
                loss = -self.cql_multiplier * tf.cast(tf.stop_gradient(surplus), tf.float32)
            gradient = tape.gradient(loss, [self._log_multiplier])
            self._lagrange_optimizer.apply_gradients(zip(gradient, [self._log_multiplier]))
        return losses


@gin.configurable
def create_cql_agent(
    time_step_spec: ts.TimeStep,
    action_spec: types.BoundedTensorSpec,
    seed: int,
    pretrained: Mapping[str, network.Network],
    target_entropy_per_dimension: float = -1.0,
) -> CqlAgent:
    """Returns the gin-configured `CqlAgent`; arguments are as of `create_sac_agent`."""
    del pretrained
    return actor_critic.create_agent(
        CqlAgent,
        time_step_spec,
        action_spec,
        seed,
        target_entropy_per_dimension,
    )


@gin.configurable
def cql() -> algorithm.Algorithm:
    """CQL as an algorithm."""
    gap = algorithm.Panel("Gap to all actions", "log Z - Q", {"cql_gap": "mean of both critics"})
    multiplier = algorithm.Panel("CQL's multiplier", "m", {"cql_multiplier": "m"})
    return actor_critic.make_algorithm("cql", "CQL", create_cql_agent, panels=(gap, multiplier))
