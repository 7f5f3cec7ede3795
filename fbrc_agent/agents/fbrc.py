"""FbrcAgent: Fisher-BRC, as an agent that stands where `SacAgent` stood.

Kostrikov, Tompson, Fergus, Nachum, "Offline Reinforcement Learning with Fisher Divergence Critic
Regularization", 2021 (https://arxiv.org/abs/2103.08050). Equation numbers are the paper's.
"""

import collections
import math
from collections.abc import Mapping
from typing import Callable, Optional

import gin
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.agents.sac import sac_agent
from tf_agents.networks import network
from tf_agents.policies import actor_policy, tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.train.utils import train_utils
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types
from tf_agents.utils import common, nest_utils

from fbrc_agent.agents import algorithm, behavior, twin_critics, xla
from fbrc_agent.networks import actor_network, network_checks
from fbrc_agent.networks import critic_network as critic_networks
from fbrc_agent.utils import sampling

FbrcLossInfo = collections.namedtuple(
    "FbrcLossInfo",
    (
        "critic_loss",
        "actor_loss",
        "alpha_loss",  # the fields of SacLossInfo end here
        "gradient_penalty",
        "behavior_log_prob",
    ),
)

_PENALTY_ACTIONS = ("policy", "data")

# The draws of actions in a step: a' of the target, a of the penalty, of the actor's and of the
# temperature's loss, and of the diagnostics.
_TARGET, _PENALTY, _ACTOR, _TEMPERATURE, _DIAGNOSTICS = _DRAWS = range(5)

# What makes J of Q: an elementwise loss of (target, prediction), the target's discount and scale.
_TdError = collections.namedtuple("_TdError", ("loss_fn", "gamma", "reward_scale_factor"))

# Eq. 7, its two parts, and the twins' values and gradients at the penalty's actions.
_CriticTerms = collections.namedtuple(
    "_CriticTerms", ("loss", "gradient_penalty", "behavior_log_prob", "slopes")
)

# Time steps with pi(.|s) and mu(.|s), which the critic's and the actor's update have in common, and
# a ~ pi(.|s) with log pi(a|s) if they have that in common too.
_States = collections.namedtuple("_States", ("time_steps", "policy", "behavior", "sample"))


@gin.configurable
class FbrcAgent(sac_agent.SacAgent):
    """Fisher-BRC: offline actor-critic with a behavior-regularized critic.

    The critic is Q_i = O_i + log mu (eq. 5), twins i = 1, 2, mu fitted beforehand and fixed. With
    the squared TD error J (eq. 2), the critic loss (eq. 7) is

        sum_i J(O_i + log mu) + lambda * E_{s~D, a~pi(.|s)} [ sum_i ||grad_a O_i(s, a)||^2 ],

        J(Q_i) = E_{(s,a,r,s')~D} [ (r + bonus + gamma * d * min_j Q'_j(s', a') - Q_i(s, a))^2 ],

    a' ~ pi(.|s'), Q'_j = O'_j + log mu with the target offset networks, d the discount of the data
    (0 at a terminal). No gradient flows into the sampled actions, the target or mu. Actor and
    temperature are SAC's with that critic. `critic_loss_weight` multiplies the whole of eq. 7.

    The paper's variants are one argument each. `penalty_actions="data"` takes the penalty at the
    data's actions (section 4.2). Two values of `regularization` do without the offset (figure 4):
    Q_i is the network itself, log mu enters no value, and in place of ||grad_a O_i||^2 stands

        "gradient_penalty":  ||grad_a Q_i(s, a)||^2,
        "fisher":            ||grad_a Q_i(s, a) - grad_a log mu(a|s)||^2,

    the latter the integrand of the Fisher divergence between mu and the Boltzmann policy of Q_i.

    With log mu = 0, `gradient_penalty_weight=0`, `reward_bonus=0` and
    `include_critic_entropy_term=True` this is `SacAgent`.
    """

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
        share_critic_pass: bool = False,
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
          behavior_network: mu, fitted (see `BehaviorAgent`): a stateless network from observations
            to a nest of distributions like `action_spec`, of any kind that has a `log_prob`. It is
            never trained here, and saved with the agent.
          gradient_penalty_weight: lambda of eq. 7; the paper's value is 0.1.
          reward_bonus: Added to the reward of every step, after `reward_scale_factor`; the authors'
            code has 5.0, the paper does not name it.
          include_critic_entropy_term: Whether -alpha log pi(a'|s') enters the TD target, as in SAC;
            the authors' code leaves it out.
          share_actor_sample: Whether the temperature's loss takes the actions of the actor's loss,
            as in the authors' code, which saves a pass; `SacAgent` draws from the updated actor.
          share_critic_pass: Whether the actor's loss takes the penalty's actions, and the critics'
            values and gradients there, which are from before the critics' step: a pass through both
            critics less, a sixth of the update's products. Actor and critics then step at the same
            time; neither the paper nor the authors' code does so.
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
          seed: Makes the actions that are drawn in training a pure function of it and the training
            step, so that a run restored from a checkpoint goes on bit for bit; -2^31 to 2^31 - 1.
            None for TensorFlow's stateful generator, as in SacAgent.
          jit_compile: Whether XLA compiles the update; the summaries of losses are written all the
            same. Meant for accelerators: on CPUs it is slower (docs/performance.md).

        Raises:
          ValueError: If a network does not fit the specs (see `network_checks`), `behavior_network`
            does not give distributions over `action_spec`, or a wrapped critic holds another
            behavior network, or is given where there is no offset.
          ValueError: If `penalty_actions` or `regularization` is not one of the values above, or
            `td_errors_loss_fn` is no function.
          ValueError: If `share_critic_pass` meets `penalty_actions="data"`, a
            `gradient_penalty_weight` of 0 or a recurrent critic.
          ValueError: If `jit_compile` meets debug summaries, an optimizer that is not Keras', or a
            strategy of other than one device.
          NotImplementedError: If actions are discrete.
        """
        _check_choice("penalty_actions", penalty_actions, _PENALTY_ACTIONS)
        _check_choice("regularization", regularization, twin_critics.REGULARIZATIONS)
        _check_loss_function(td_errors_loss_fn)
        if jit_compile:
            xla.check_settings(debug_summaries, summarize_grads_and_vars)
        network_checks.check_specs(time_step_spec, action_spec)
        time_step_spec, action_spec = tensor_spec.from_spec((time_step_spec, action_spec))
        self._check_action_spec(action_spec)
        observation_spec = time_step_spec.observation
        network_checks.check_behavior_network(behavior_network, observation_spec, action_spec)
        if actor_network:
            network_checks.check_input_spec("actor_network", actor_network, observation_spec)
        critic_spec = (observation_spec, action_spec)
        q_networks = critic_networks.make_critics(
            {
                "critic_network": critic_network,
                "critic_network_2": critic_network_2,
                "target_critic_network": target_critic_network,
                "target_critic_network_2": target_critic_network_2,
            },
            critic_spec,
            behavior_network,
            has_offset=regularization == "offset",
        )
        if share_critic_pass:
            _check_shared_pass(critic_network, gradient_penalty_weight, penalty_actions)
        twin_of_built_critic = critic_network_2 is None and network_checks.has_weights(
            critic_network
        )
        super().__init__(
            time_step_spec,
            action_spec,
            critic_network=q_networks["critic_network"],
            actor_network=actor_network,
            actor_optimizer=actor_optimizer,
            critic_optimizer=critic_optimizer,
            alpha_optimizer=alpha_optimizer,
            actor_loss_weight=actor_loss_weight,
            critic_loss_weight=critic_loss_weight,
            alpha_loss_weight=alpha_loss_weight,
            actor_policy_ctor=actor_policy_ctor,
            critic_network_2=q_networks.get("critic_network_2"),
            target_critic_network=q_networks.get("target_critic_network"),
            target_critic_network_2=q_networks.get("target_critic_network_2"),
            target_update_tau=target_update_tau,
            target_update_period=target_update_period,
            td_errors_loss_fn=td_errors_loss_fn,
            gamma=gamma,
            reward_scale_factor=reward_scale_factor,
            initial_log_alpha=initial_log_alpha,
            use_log_alpha_in_alpha_loss=use_log_alpha_in_alpha_loss,
            target_entropy=target_entropy,
            gradient_clipping=gradient_clipping,
            debug_summaries=debug_summaries,
            summarize_grads_and_vars=summarize_grads_and_vars,
            train_step_counter=train_step_counter,
            name=name,
        )
        for argument, net in q_networks.items():
            network_checks.check_values(argument, critic_networks.learned(net), critic_spec)
        if twin_of_built_critic:
            network_checks.check_twins_differ(critic_network, self._critic_network_2)
        # The critics do not track mu; here it enters the agent's checkpoints.
        self._behavior_network = behavior_network
        self._gradient_penalty_weight = gradient_penalty_weight
        self._reward_bonus = reward_bonus
        self._include_critic_entropy_term = include_critic_entropy_term
        self._share_actor_sample = share_actor_sample
        self._share_critic_pass = share_critic_pass
        self._penalty_actions = penalty_actions
        self._seed = seed
        self._critics, self._target_critics = (
            twin_critics.TwinCritics(pair, behavior_network, action_spec, regularization)
            for pair in (
                (self._critic_network_1, self._critic_network_2),
                (self._target_critic_network_1, self._target_critic_network_2),
            )
        )
        self._update = self._update_networks
        if jit_compile:
            self._update = xla.compile_update(
                self._update_networks,
                {
                    "critic_optimizer": (self._critic_optimizer, self._critic_variables()),
                    "actor_optimizer": (
                        self._actor_optimizer,
                        self._actor_network.trainable_variables,
                    ),
                    "alpha_optimizer": (self._alpha_optimizer, [self._log_alpha]),
                },
            )

    @property
    def behavior_network(self) -> network.Network:
        """mu(a|s), fixed."""
        return self._behavior_network

    @property
    def alpha(self) -> tf.Tensor:
        """The temperature."""
        return tf.exp(self._log_alpha)

    def critic_loss(
        self,
        time_steps: ts.TimeStep,
        actions: types.Tensor,
        next_time_steps: ts.TimeStep,
        td_errors_loss_fn: types.LossFn,
        gamma: types.Float = 1.0,
        reward_scale_factor: types.Float = 1.0,
        weights: Optional[types.Tensor] = None,
        training: bool = False,
    ) -> types.Tensor:
        """Returns eq. 7, a scalar; arguments as in `SacAgent.critic_loss`."""
        return self._critic_terms(
            self._states(time_steps, training=False),
            actions,
            next_time_steps,
            weights,
            training,
            _TdError(td_errors_loss_fn, gamma, reward_scale_factor),
        ).loss

    def actor_loss(
        self,
        time_steps: ts.TimeStep,
        weights: Optional[types.Tensor] = None,
        training: Optional[bool] = True,
    ) -> types.Tensor:
        """Returns E_{s~D, a~pi} [ alpha log pi(a|s) - min_i Q_i(s, a) ], a scalar.

        Args:
          time_steps: A batch of time steps.
          weights: Optional scalar or per-example weights.
          training: Whether the loss is being used for training.
        """
        nest_utils.assert_same_structure(time_steps, self.time_step_spec)
        return self._actor_loss(self._states(time_steps, bool(training)), weights)[0]

    def _actor_loss(self, states: _States, weights, slopes=None) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the actor's loss and log pi(a|s) of its sample, `[B]`.

        Args:
          states: What it is taken at.
          weights: Optional weights.
          slopes: Each critic's values and gradients at the sample of `states`, instead of a pass.
        """
        time_steps = states.time_steps
        with tf.name_scope("actor_loss"):
            actions, log_pi = states.sample or self._sample(states.policy, _ACTOR)
            if slopes is None:
                outputs = self._critics.outputs(time_steps, actions)
            else:
                outputs = twin_critics.tangents(slopes, actions)
            q_values = self._critics.minimum(outputs, states.behavior, actions)
            regularization = self._actor_network.losses if self._actor_network else None
            loss = self._aggregate(
                self._alpha_as(log_pi) * log_pi - q_values, weights, regularization
            )
            self._actor_loss_debug_summaries(loss, actions, log_pi, q_values, time_steps)
            return loss, log_pi

    def _temperature_loss(self, time_steps, actor_log_pi, weights, training: bool) -> tf.Tensor:
        """Returns E [ alpha (-log pi(a|s) - target entropy) ], or log alpha for alpha, a scalar."""
        if not self._share_actor_sample:
            return self.alpha_loss(time_steps, weights=weights, training=training)
        surplus = tf.stop_gradient(-actor_log_pi - self._target_entropy)
        factor = self._log_alpha if self._use_log_alpha_in_alpha_loss else self.alpha
        loss = self._aggregate(tf.cast(factor, surplus.dtype) * surplus, weights)
        self._alpha_loss_debug_summaries(loss, surplus)
        return loss

    def diagnostics(self, experience: types.NestedTensor) -> dict:
        """Returns what the paper's figure 4 watches, as scalars, means over a batch.

        Args:
          experience: As for `train`.

        Returns:
          `offset_gradient_norm`: E ||grad_a O_i(s, a)||, mean of the twins, a ~ pi(.|s) whatever
            `penalty_actions` is. It is that of the network's own output: without the offset
            parameterization, E ||grad_a Q_i(s, a)||;
          `behavior_gradient_norm`: E ||grad_a log mu(a|s)||, at the same actions: what the offset's
            gradient is added to, what "fisher" draws grad_a Q_i to, and with "gradient_penalty"
            what no loss knows of;
          `q_policy`, `q_data`: E min_i Q_i at the policy's and at the data's actions;
          `entropy`: E -log pi(a|s), nats;
          `alpha`: the temperature.
        """
        time_steps, policy_steps, _ = self._as_transition(experience)
        behavior = self._critics.behavior(time_steps)
        actions, log_pi = self._actions_and_log_probs(time_steps, draw=_DIAGNOSTICS)
        norms, mu_norm = self._critics.gradient_norms(time_steps, behavior, actions)

        def min_q(a):
            return self._critics.minimum(self._critics.outputs(time_steps, a), behavior, a)

        return {
            "offset_gradient_norm": tf.reduce_mean(norms),
            "behavior_gradient_norm": tf.reduce_mean(mu_norm),
            "q_policy": tf.reduce_mean(min_q(actions)),
            "q_data": tf.reduce_mean(min_q(policy_steps.action)),
            "entropy": -tf.reduce_mean(log_pi),
            "alpha": self.alpha,
        }

    def max_q(self, min_reward: float, max_reward: float) -> float:
        """Returns max |reward_scale_factor r + bonus| / (1 - gamma), the largest |Q| there can be.

        It is inf without a discount, or with the entropy, which has no bound, in the target.
        """
        if self._include_critic_entropy_term or self._gamma >= 1.0:
            return math.inf
        rewards = (
            self._reward_scale_factor * r + self._reward_bonus for r in (min_reward, max_reward)
        )
        return max(map(abs, rewards)) / (1.0 - self._gamma)

    def likely_causes(self) -> list[str]:
        """Returns what in the agent's settings may let its critic diverge."""
        if _is_zero(self._gradient_penalty_weight):
            return [
                "FbrcAgent.gradient_penalty_weight is 0, which lets the critic grow without bounds "
                "outside of the data"
            ]
        return []

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
        step_type = tf.fill(tf.shape(observation)[:1], ts.StepType.FIRST)
        time_steps = ts.TimeStep(step_type, (), (), observation)
        log_mu = self._critics.log_mu(self._critics.behavior(time_steps), action)
        output = tf.minimum(*self._critics.outputs(time_steps, action))
        if self._critics.has_offset:
            return {"q": output + log_mu, "log_mu": log_mu, "offset": output}
        return {"q": output, "log_mu": log_mu, "offset": output - log_mu}

    def _train(self, experience, weights):
        time_steps, policy_steps, next_time_steps = self._checked_transition(experience, weights)
        losses = self._update(time_steps, policy_steps.action, next_time_steps, weights)
        for name, loss in zip(("Critic", "Actor", "Alpha"), losses):  # XLA drops the update's own.
            tf.debugging.check_numerics(loss, f"{name} loss is inf or nan.")
        loss_info = self._loss_info(*losses)
        self.train_step_counter.assign_add(1)
        self._update_target()
        return loss_info

    def _update_networks(self, time_steps, actions, next_time_steps, weights):
        """Steps critics, actor and temperature; returns the three losses and the critic's terms."""
        actor_variables = self._actor_network.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False) as actor_tape:
            actor_tape.watch(actor_variables)
            # The actor stays as it is until its own update: one pass over s serves both losses,
            # which draw actions of their own.
            states = self._states(time_steps, training=True)
            with actor_tape.stop_recording():
                critic_loss, terms = self._train_critic(states, actions, next_time_steps, weights)
            actor_loss, log_pi = self._actor_loss(states, weights, terms.slopes)
            actor_loss *= self._actor_loss_weight
        self._minimize(actor_tape, "Actor", actor_loss, actor_variables, self._actor_optimizer)

        alpha_variables = [self._log_alpha]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(alpha_variables)
            alpha_loss = self._alpha_loss_weight * self._temperature_loss(
                time_steps, log_pi, weights, training=True
            )
        self._minimize(tape, "Alpha", alpha_loss, alpha_variables, self._alpha_optimizer)
        return critic_loss, actor_loss, alpha_loss, terms._replace(slopes=None)

    def _critic_variables(self):
        return _unique(
            self._critic_network_1.trainable_variables + self._critic_network_2.trainable_variables
        )

    def _train_critic(self, states: _States, actions, next_time_steps, weights):
        variables = self._critic_variables()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            terms = self._critic_terms(states, actions, next_time_steps, weights, training=True)
            loss = self._critic_loss_weight * terms.loss
        self._minimize(tape, "Critic", loss, variables, self._critic_optimizer)
        return loss, terms

    def _loss(self, experience, weights=None, training: bool = False):
        time_steps, policy_steps, next_time_steps = self._checked_transition(experience, weights)
        states = self._states(time_steps, training)
        terms = self._critic_terms(states, policy_steps.action, next_time_steps, weights, training)
        actor_loss, log_pi = self._actor_loss(states, weights, terms.slopes)
        alpha_loss = self._temperature_loss(time_steps, log_pi, weights, training)
        return self._loss_info(
            self._critic_loss_weight * terms.loss,
            self._actor_loss_weight * actor_loss,
            self._alpha_loss_weight * alpha_loss,
            terms,
        )

    def _checked_transition(self, experience, weights):
        transition = self._as_transition(experience)
        network_checks.check_batch(transition, weights)
        return transition

    def _critic_terms(
        self, states: _States, actions, next_time_steps, weights, training, td_error=None
    ) -> _CriticTerms:
        """Returns eq. 7, its parts without weights, and what `_actor_loss` takes for `slopes`."""
        time_steps = states.time_steps
        td_error = td_error or _TdError(
            self._td_errors_loss_fn, self._gamma, self._reward_scale_factor
        )
        with tf.name_scope("critic_loss"):
            nest_utils.assert_same_structure(actions, self.action_spec)
            nest_utils.assert_same_structure(time_steps, self.time_step_spec)
            nest_utils.assert_same_structure(next_time_steps, self.time_step_spec)

            td_targets = tf.stop_gradient(self._td_targets(next_time_steps, td_error))
            log_mu = tf.stop_gradient(self._critics.log_mu(states.behavior, actions))
            q_values = self._critics.outputs(time_steps, actions, training)
            if self._critics.has_offset:
                q_values = [offset + log_mu for offset in q_values]
            td_loss = tf.add_n([td_error.loss_fn(td_targets, q) for q in q_values])
            penalty, slopes = self._gradient_penalty(states, actions, td_loss)
            loss = self._aggregate(
                td_loss + self._gradient_penalty_weight * penalty, weights, self._critics.losses
            )
            self._critic_loss_debug_summaries(td_targets, *q_values)
            return _CriticTerms(
                loss,
                self._aggregate(penalty, weights),
                self._aggregate(log_mu, weights),
                slopes if self._share_critic_pass else None,
            )

    def _td_targets(self, next_time_steps, td_error: _TdError) -> tf.Tensor:
        """Returns r + bonus + gamma * d * min_j Q'_j(s', a'), `[B]`."""
        rewards = td_error.reward_scale_factor * next_time_steps.reward + self._reward_bonus
        next_values = self._next_values(next_time_steps)
        discounts = tf.cast(td_error.gamma * next_time_steps.discount, next_values.dtype)
        return tf.cast(rewards, next_values.dtype) + discounts * next_values

    def _next_values(self, next_time_steps) -> tf.Tensor:
        """Returns min_j Q'_j(s', a'), a' ~ pi(.|s'), with the entropy term if asked for."""
        actions, log_pi = self._actions_and_log_probs(next_time_steps, draw=_TARGET)
        outputs = self._target_critics.outputs(next_time_steps, actions)
        behavior = self._target_critics.behavior(next_time_steps)
        values = self._target_critics.minimum(outputs, behavior, actions)
        if self._include_critic_entropy_term:
            values -= self._alpha_as(log_pi) * log_pi
        return values

    def _gradient_penalty(self, states: _States, data_actions, like: tf.Tensor):
        """Returns the sum over the twins of the variant's penalty, per example; 0 if lambda = 0.

        And what it was made of: each twin's value and its gradient in the action, or None.
        """
        if _is_zero(self._gradient_penalty_weight):
            return tf.zeros_like(like), None
        actions = data_actions
        if self._penalty_actions == "policy":
            actions, _ = states.sample or self._sample(states.policy, _PENALTY)
        actions = tf.nest.map_structure(tf.stop_gradient, actions)
        slopes = self._critics.slopes(states.time_steps, actions)
        outer_shape = states.time_steps.step_type.shape
        return self._critics.penalty(slopes, states.behavior, actions, outer_shape), slopes

    def _states(self, time_steps, training: bool) -> _States:
        policy = self._policy_distribution(time_steps, training)
        sample = self._sample(policy, _PENALTY) if self._share_critic_pass else None
        return _States(time_steps, policy, self._critics.behavior(time_steps), sample)

    def _policy_distribution(self, time_steps, training: bool):
        """Returns pi(.|s), a nest of distributions."""
        batch_size = nest_utils.get_outer_shape(time_steps, self.time_step_spec)[0]
        policy = self._train_policy if training else self._policy
        state = policy.get_initial_state(batch_size)
        return policy.distribution(time_steps, policy_state=state).action

    def _sample(self, policy, draw: int):
        """Returns a ~ pi(.|s) and log pi(a|s), `[B]`."""
        actions = sampling.sample(policy, self._seed, self.train_step_counter, draw, len(_DRAWS))
        return actions, common.log_probability(policy, actions, self.action_spec)

    def _actions_and_log_probs(self, time_steps, training=False, draw=_TEMPERATURE):
        return self._sample(self._policy_distribution(time_steps, training), draw)

    def _alpha_as(self, tensor: tf.Tensor) -> tf.Tensor:
        return tf.cast(self.alpha, tensor.dtype)

    def _aggregate(self, per_example, weights, regularization_loss=None) -> tf.Tensor:
        """Returns the mean over the global batch of `[B]`, or of `[B, T]` summed over time."""
        if per_example.shape.rank > 1:
            per_example = tf.reduce_sum(per_example, axis=range(1, per_example.shape.rank))
        return common.aggregate_losses(
            per_example_loss=per_example,
            sample_weight=weights,
            regularization_loss=regularization_loss or None,
        ).total_loss

    def _minimize(self, tape, name, loss, variables, optimizer):
        assert variables, f"No trainable {name.lower()} variables to optimize."
        tf.debugging.check_numerics(loss, f"{name} loss is inf or nan.")
        gradients = tape.gradient(loss, variables)
        # Orders what the loss reads before what the optimizer writes. tf.function does so too, but
        # its edges can get lost where TensorFlow's optimizer splits Keras' IdentityN of all
        # gradients: the penalty's biases were then sometimes read after their update.
        with tf.control_dependencies([loss]):
            gradients = [None if g is None else tf.identity(g) for g in gradients]
        self._apply_gradients(gradients, variables, optimizer)

    def _loss_info(self, critic_loss, actor_loss, alpha_loss, terms) -> tf_agent.LossInfo:
        extra = FbrcLossInfo(
            critic_loss, actor_loss, alpha_loss, terms.gradient_penalty, terms.behavior_log_prob
        )
        with tf.name_scope("Losses"):
            for name, value in extra._asdict().items():
                tf.summary.scalar(name, value, step=self.train_step_counter)
        return tf_agent.LossInfo(loss=critic_loss + actor_loss + alpha_loss, extra=extra)


def _check_choice(argument, value, choices):
    if value not in choices:
        wanted = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
        raise ValueError(f"{argument} is {value!r}; it must be {wanted}.")


def _check_shared_pass(critic_network, gradient_penalty_weight, penalty_actions):
    missing = None
    if _is_zero(gradient_penalty_weight):
        missing = "gradient_penalty_weight is 0"
    elif penalty_actions != "policy":
        missing = f"penalty_actions is {penalty_actions!r}"
    elif critic_networks.learned(critic_network).state_spec:
        missing = "critic_network is recurrent"
    if missing:
        raise ValueError(
            "share_critic_pass=True takes the penalty's pass at the policy's actions, but "
            f"{missing}."
        )


def _is_zero(gradient_penalty_weight):
    return isinstance(gradient_penalty_weight, (int, float)) and gradient_penalty_weight == 0


def _check_loss_function(td_errors_loss_fn):
    if not callable(td_errors_loss_fn):
        raise ValueError(
            f"td_errors_loss_fn is {td_errors_loss_fn!r}; it must be a function of (target, "
            "prediction), such as tf.math.squared_difference."
        )


def _unique(variables):
    """Returns the variables without repetitions, in their order.

    All workers of a strategy must make the optimizer's slots in one order; that of the
    `ObjectIdentitySet` in `SacAgent` differs between processes.
    """
    return list({id(variable): variable for variable in variables}.values())


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
    # Each stage sets the seed, so that a behavior policy from another run changes nothing.
    tf.keras.utils.set_random_seed(seed)
    observation_spec = time_step_spec.observation
    return FbrcAgent(
        time_step_spec,
        action_spec,
        critic_network=critic_networks.create_offset_network((observation_spec, action_spec)),
        actor_network=actor_network.create_actor_network(observation_spec, action_spec),
        behavior_network=pretrained["behavior"],
        target_entropy=target_entropy_per_dimension * action_spec.shape.num_elements(),
        train_step_counter=train_utils.create_train_step(),
        seed=seed,
    )


@gin.configurable
def fbrc() -> algorithm.Algorithm:
    """Fisher-BRC as an algorithm; the behavior policy is trained first."""
    return algorithm.Algorithm(
        name="fbrc",
        label="F-BRC",
        create_agent=create_fbrc_agent,
        pretraining=(behavior.behavior(),),
        diagnostics=FbrcAgent.diagnostics,
        values=FbrcAgent.values,
        max_q=FbrcAgent.max_q,
        q_names=("q_data", "q_policy"),
        likely_causes=FbrcAgent.likely_causes,
        panels=(
            algorithm.Panel("Critic loss", "", {"critic_loss": "critic loss"}, log_scale=True),
            algorithm.Panel("Actor loss", "", {"actor_loss": "actor loss"}),
            algorithm.Panel(
                "Action gradients",
                "mean norm, 1 / unit of action",
                {
                    "offset_gradient_norm": r"$\|\nabla_a O(s, a)\|$",
                    "behavior_gradient_norm": r"$\|\nabla_a \log\mu(a|s)\|$",
                },
                log_scale=True,
            ),
            algorithm.Panel(
                "Value of actions",
                "Q, units of return",
                {"q_policy": "a ~ policy", "q_data": "a in the data"},
            ),
            algorithm.Panel("Policy entropy", "nats", {"entropy": "entropy"}),
            algorithm.Panel("Policy temperature", "alpha", {"alpha": "alpha"}),
        ),
    )
