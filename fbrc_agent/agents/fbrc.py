"""FbrcAgent: Fisher-BRC, as an agent that stands where `SacAgent` stood.

Kostrikov, Tompson, Fergus, Nachum, "Offline Reinforcement Learning with Fisher Divergence Critic
Regularization", 2021 (https://arxiv.org/abs/2103.08050). Equation numbers are the paper's.
"""

import collections
from collections.abc import Mapping
from typing import Callable, Optional

import gin
import tensorflow as tf
from tf_agents.networks import network
from tf_agents.policies import actor_policy, tf_policy
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types
from tf_agents.utils import common

from fbrc_agent.agents import actor_critic, algorithm, arguments, behavior, offline_sac
from fbrc_agent.networks import action_gradient, network_checks
from fbrc_agent.networks import critic_network as critic_networks
from fbrc_agent.utils import checks

FbrcLossInfo = collections.namedtuple(
    "FbrcLossInfo",
    # The first three are those of `SacLossInfo`.
    ("critic_loss", "actor_loss", "alpha_loss", "gradient_penalty", "behavior_log_prob"),
)

PENALTY_ACTIONS = ("policy", "data")
REGULARIZATIONS = ("offset", "gradient_penalty", "fisher")


@gin.configurable
class FbrcAgent(offline_sac.OfflineSacAgent):
    """Fisher-BRC: offline actor-critic with a behavior-regularized critic.

    The critic is Q_i = O_i + log mu (eq. 5), critics i = 1, 2, mu trained before and fixed. With
    the squared TD error J (eq. 2), the critic loss (eq. 7) is

        sum_i J(O_i + log mu) + lambda * E_{s~D, a~pi(.|s)} [ sum_i ||grad_a O_i(s, a)||^2 ],

        J(Q_i) = E_{(s,a,r,s')~D} [ (r + bonus + gamma * d * min_j Q'_j(s', a') - Q_i(s, a))^2 ],

    a' ~ pi(.|s'), Q'_j = O'_j + log mu with the target offset networks, d the discount of the data
    (0 at a terminal). No gradient flows into the sampled actions, the target or mu. Actor and
    temperature are SAC's with that critic. `critic_loss_weight` multiplies all of eq. 7.

    The paper's variants are one argument each. `penalty_actions="data"` takes the penalty at the
    data's actions (section 4.2). Two values of `regularization` do without the offset (figure 4):
    Q_i is the network itself, log mu enters no value, and in place of ||grad_a O_i||^2 stands

        "gradient_penalty":  ||grad_a Q_i(s, a)||^2,
        "fisher":            ||grad_a Q_i(s, a) - grad_a log mu(a|s)||^2,

    the latter the integrand of the Fisher divergence between mu and the Boltzmann policy of Q_i.

    With log mu = 0, `gradient_penalty_weight=0`, `reward_bonus=0` and
    `include_critic_entropy_term=True` this is `SacAgent`.
    """

    loss_info_class = FbrcLossInfo

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.NestedTensorSpec,
        critic_network: network.Network,
        actor_network: network.Network,
        actor_optimizer: types.Optimizer,
        critic_optimizer: types.Optimizer,
        alpha_optimizer: types.Optimizer,
        behavior_network: network.Network,
        gradient_penalty_weight: types.Float = 0.1,
        reward_bonus: types.Float = 0.0,
        include_critic_entropy_term: bool = False,
        share_actor_sample: bool = False,
        penalty_actions: str = "policy",
        regularization: str = "offset",
        actor_loss_weight: types.Float = 1.0,
        critic_loss_weight: types.Float = 0.5,
        alpha_loss_weight: types.Float = 1.0,
        actor_policy_ctor: Callable[..., tf_policy.TFPolicy] = actor_policy.ActorPolicy,
        critic_network_2: Optional[network.Network] = None,
        target_critic_network: Optional[network.Network] = None,
        target_critic_network_2: Optional[network.Network] = None,
        target_update_tau: types.Float = 1.0,
        target_update_period: types.Int = 1,
        td_errors_loss_fn: types.LossFn = tf.math.squared_difference,
        gamma: types.Float = 1.0,
        reward_scale_factor: types.Float = 1.0,
        initial_log_alpha: types.Float = 0.0,
        use_log_alpha_in_alpha_loss: bool = True,
        target_entropy: Optional[types.Float] = None,
        gradient_clipping: Optional[types.Float] = None,
        debug_summaries: bool = False,
        summarize_grads_and_vars: bool = False,
        train_step_counter: Optional[tf.Variable] = None,
        name: Optional[str] = None,
        actor_average_decay: Optional[types.Float] = None,
        seed: Optional[int] = None,
        jit_compile: bool = False,
    ):
        """Creates the agent: `SacAgent`'s arguments and defaults, and ten of its own.

        Args:
          time_step_spec: A `TimeStep` spec of the expected time steps.
          action_spec: A nest of `BoundedTensorSpec` of the actions.
          critic_network: The offset network O, any critic network over (observation, action) with
            values of shape `[B]`; it is wrapped into Q = O + log mu here. A
            `BehaviorRegularizedCriticNetwork` is taken as is. A recurrent one is trained on
            `[B, T]`, T known; its penalty is taken at each step, the steps before it fixed.
            Without the offset (see `regularization`) it is Q, and not wrapped.
          actor_network: A network from observations to action distributions.
          actor_optimizer: Optimizer of the actor.
          critic_optimizer: Optimizer of both offset networks.
          alpha_optimizer: Optimizer of the temperature.
          behavior_network: mu, trained (see `BehaviorAgent`): a stateless network from observations
            to a nest of distributions like `action_spec`, of any kind that has a `log_prob`. It is
            never trained here, and saved with the agent.
          gradient_penalty_weight: lambda of eq. 7; the paper's value is 0.1.
          reward_bonus: Added to the reward of every step, after `reward_scale_factor`; the authors'
            code has 5.0, the paper does not name it.
          include_critic_entropy_term: Whether -alpha log pi(a'|s') enters the TD target, as in SAC;
            the authors' code leaves it out.
          share_actor_sample: Whether the temperature's loss takes the actions of the actor's loss,
            as in the authors' code, which saves a pass; `SacAgent` draws from the updated actor.
          penalty_actions: Where the penalty is taken: "policy", at actions of pi, as in eq. 7; or
            "data", at the actions of the data.
          regularization: "offset", eq. 7; or "gradient_penalty" or "fisher", without the offset, as
            above. mu is needed all the same, for the diagnostics if for nothing else.
          actor_loss_weight: Weight of the actor loss.
          critic_loss_weight: Weight of the critic loss, eq. 7.
          alpha_loss_weight: Weight of the temperature loss.
          actor_policy_ctor: The policy class.
          critic_network_2: O_2, or its wrapper; by default a copy of `critic_network` with weights
            of its own. Needed if a copy would have the same weights, as that of a `Sequential`
            around a functional Keras model has.
          target_critic_network: Target of the first critic, plain or wrapped.
          target_critic_network_2: Target of the second critic; used with `critic_network_2` only.
          target_update_tau: Factor of the soft update of the targets.
          target_update_period: Steps between updates of the targets.
          td_errors_loss_fn: Elementwise loss of (target, prediction); squared difference is eq. 2.
          gamma: Discount factor.
          reward_scale_factor: Multiplies the rewards.
          initial_log_alpha: Initial log of the temperature.
          use_log_alpha_in_alpha_loss: Whether the temperature loss is linear in log alpha (SAC's
            default here) or in alpha (the authors' code).
          target_entropy: Target entropy in nats; -|A|/2 by default, as `SacAgent`; the authors'
            code has -|A|.
          gradient_clipping: Norm to clip gradients to; each replica clips its own, as in SacAgent.
          debug_summaries: Whether to write debug summaries.
          summarize_grads_and_vars: Whether to write summaries of gradients and variables.
          train_step_counter: Counts the training steps; the global step by default.
          name: Name of the agent.
          actor_average_decay: Decay, from 0 to 1, of an exponential average of the actor's weights:
            `average_policy`. It changes nothing in training. None for no average.
          seed: Makes the actions that are drawn in training a pure function of it and the training
            step, so that a run restored from a checkpoint continues bit for bit; -2^31 to 2^31 - 1.
            None for TensorFlow's stateful generator, as in SacAgent.
          jit_compile: Whether XLA compiles the update; the summaries of losses are written all the
            same. Meant for accelerators: on CPUs it is slower (docs/performance.md).

        Raises:
          ValueError: If a number, flag, name, optimizer or loss function is not as above; a network
            does not fit the specs (see `network_checks`); a wrapped critic holds another behavior
            network, or is given where there is no offset; or XLA cannot compile the update (see
            `updates.compile_update`).
          NotImplementedError: If actions are discrete.
        """
        given = dict(locals())  # The arguments by name.
        checks.check_number("gradient_penalty_weight", gradient_penalty_weight, low=0)
        checks.check_choice("penalty_actions", penalty_actions, PENALTY_ACTIONS)
        checks.check_choice("regularization", regularization, REGULARIZATIONS)
        # The critics do not track mu; here it enters the agent's checkpoints.
        self._behavior_network = behavior_network
        self._gradient_penalty_weight = gradient_penalty_weight
        self._penalty_actions = penalty_actions
        self._regularization = regularization
        super().__init__(**{name: given[name] for name in arguments.NAMES})

    @property
    def behavior_network(self) -> network.Network:
        """mu(a|s), fixed."""
        return self._behavior_network

    def _make_critics(self, given, critic_spec):
        network_checks.check_behavior_network(self._behavior_network, *critic_spec)
        has_offset = self._regularization == "offset"
        return critic_networks.make_critics(given, self._behavior_network, has_offset)

    # The losses, per example: `[B]`, or `[B, T]` of recurrent networks.

    def _critic_loss(self, states, actions, next_time_steps, td_error, training):
        """Returns eq. 7, and its parts by the names of fields of `FbrcLossInfo`.

            sum_i (y - O_i(s, a) - log mu(a|s))^2 + lambda sum_i ||grad_a O_i(s, a~)||^2,

            y = r + bonus + gamma d min_j Q'_j(s', a'),  a' ~ pi(.|s'),  a~ ~ pi(.|s).

        The first sum is `super()`'s; another `regularization` has another penalty.
        """
        log_mu = tf.stop_gradient(self._log_mu(states, actions))
        td_loss, _ = super()._critic_loss(
            states, actions, next_time_steps, td_error, training, log_mu=log_mu
        )
        penalty = self._gradient_penalty(states, actions, like=td_loss)
        loss = td_loss + self._gradient_penalty_weight * penalty
        return loss, {"gradient_penalty": penalty, "behavior_log_prob": log_mu}

    def _actor_loss(self, states, data_actions):
        """Returns alpha log pi(a|s) - min_i [ O_i(s, a) + log mu(a|s) ], a ~ pi(.|s)."""
        return super()._actor_loss(states, data_actions)

    def _alpha_loss(self, log_pi):
        """Returns alpha (-log pi(a|s) - target entropy), or with log alpha in place of alpha."""
        return super()._alpha_loss(log_pi)

    def _gradient_penalty(self, states, data_actions, like: tf.Tensor) -> tf.Tensor:
        """Returns sum_i ||grad_a O_i(s, a)||^2, or the variant's; 0 if lambda = 0."""
        if _is_zero(self._gradient_penalty_weight):
            return tf.zeros_like(like)
        actions = data_actions
        if self._penalty_actions == "policy":
            actions, _ = self._sample(states.policy, offline_sac.OWN_TERM)
        actions = tf.nest.map_structure(tf.stop_gradient, actions)
        gradients = [
            action_gradient.of_critic(net, states.time_steps, actions) for net in self._learned
        ]
        outer_shape = states.time_steps.step_type.shape
        if self._regularization == "fisher":
            of_log_mu = action_gradient.of_function(
                lambda a: self._log_mu(states, a), actions, outer_shape
            )
            of_log_mu = tf.nest.map_structure(tf.stop_gradient, of_log_mu)
            gradients = [tf.nest.map_structure(tf.subtract, g, of_log_mu) for g in gradients]
        return tf.add_n([action_gradient.squared_norm(g, outer_shape.rank) for g in gradients])

    def _q_values(self, critics, states, actions, training=False, log_mu=None):
        """Returns Q_i(s, a) = O_i(s, a) + log mu(a|s); one evaluation of mu serves all critics."""
        if self._regularization != "offset":
            return super()._q_values(critics, states, actions, training)
        if log_mu is None:
            log_mu = self._log_mu(states, actions)
        return super()._q_values(critics, states, actions, training, log_mu=log_mu)

    def _behavior(self, time_steps):
        observation, step_type = time_steps.observation, time_steps.step_type
        return self._behavior_network(observation, step_type=step_type, network_state=())[0]

    def _log_mu(self, states, actions) -> tf.Tensor:
        return common.log_probability(states.behavior, actions, self.action_spec)

    @property
    def _learned(self) -> list[network.Network]:
        """O_1 and O_2, or without the offset Q_1 and Q_2."""
        return [critic_networks.learned(critic) for critic in self._critics]

    def _own_diagnostics(self, states, actions):
        """Returns what the paper's figure 4 watches, as scalars, means over a batch.

        Returns:
          `offset_gradient_norm`: E ||grad_a O_i(s, a)||, mean of both critics, a ~ pi(.|s) for any
            `penalty_actions`. It is that of the network's own output: without the offset
            parameterization, E ||grad_a Q_i(s, a)||;
          `behavior_gradient_norm`: E ||grad_a log mu(a|s)||, at the same actions: what the offset's
            gradient is added to, what "fisher" draws grad_a Q_i to, and with "gradient_penalty"
            what no loss knows of.
        """
        observation, step_type = states.time_steps.observation, states.time_steps.step_type

        def norm(function):
            gradient = action_gradient.of_function(function, actions, step_type.shape)
            return tf.sqrt(action_gradient.squared_norm(gradient, step_type.shape.rank))

        norms = [
            norm(lambda a, net=net: net((observation, a), step_type=step_type, training=False)[0])
            for net in self._learned
        ]
        return {
            "offset_gradient_norm": tf.reduce_mean(norms),
            "behavior_gradient_norm": tf.reduce_mean(norm(lambda a: self._log_mu(states, a))),
        }

    def values(self, observation: tf.Tensor, action: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the critic holds of actions, and how far they are from the data.

        Args:
          observation: Observations s, `[B, ...]`.
          action: Actions a, `[B, ...]`.

        Returns:
          `q`: min_i Q_i(s, a), in units of the (scaled) reward;
          `log_mu`: log mu(a|s), nats per unit of the action's volume, high where the data is;
          `offset`: q - log_mu, with the offset parameterization min_i O_i(s, a). Each `[B]`.
        """
        states = self._first_states(observation)
        log_mu = self._log_mu(states, action)
        q = self._min_q(states, action, log_mu=log_mu)
        return {"q": q, "log_mu": log_mu, "offset": q - log_mu}

    def likely_causes(self) -> list[str]:
        """Returns what in the agent's settings may let its critic diverge."""
        if _is_zero(self._gradient_penalty_weight):
            return [
                "FbrcAgent.gradient_penalty_weight is 0, which lets the critic grow without bounds "
                "outside of the data"
            ]
        return []


def _is_zero(gradient_penalty_weight):
    return isinstance(gradient_penalty_weight, (int, float)) and gradient_penalty_weight == 0


@gin.configurable
def create_fbrc_agent(
    time_step_spec: ts.TimeStep,
    action_spec: types.BoundedTensorSpec,
    seed: int,
    pretrained: Mapping[str, network.Network],
    target_entropy_per_dimension: float = -1.0,
) -> FbrcAgent:
    """Returns the gin-configured `FbrcAgent` with the authors' actor and offset network.

    Args:
      time_step_spec: A `TimeStep` spec.
      action_spec: A `BoundedTensorSpec` of shape [A].
      seed: Seed of the weights and samples.
      pretrained: mu by the name "behavior".
      target_entropy_per_dimension: The target entropy divided by A, nats; the authors' is -1.
    """
    return actor_critic.create_agent(
        FbrcAgent,
        time_step_spec,
        action_spec,
        seed,
        target_entropy_per_dimension,
        behavior_network=pretrained["behavior"],
    )


@gin.configurable
def fbrc() -> algorithm.Algorithm:
    """Fisher-BRC as an algorithm; the behavior policy is trained first."""
    gradients = algorithm.Panel(
        "Action gradients",
        "mean norm, 1 / unit of action",
        {
            "offset_gradient_norm": r"$\|\nabla_a O(s, a)\|$",
            "behavior_gradient_norm": r"$\|\nabla_a \log\mu(a|s)\|$",
        },
        log_scale=True,
    )
    return actor_critic.make_algorithm(
        "fbrc",
        "F-BRC",
        create_fbrc_agent,
        panels=(gradients,),
        pretraining=(behavior.behavior(),),
        likely_causes=FbrcAgent.likely_causes,
    )
