"""OfflineSacAgent: what the actor-critics of this package share.

It is `SacAgent` with draws that are a function of (seed, step), an update in which critic and actor
have one pass through the policy, and losses that an algorithm adds its terms to.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.agents.sac import sac_agent
from tf_agents.networks import network
from tf_agents.policies import actor_policy, tf_policy
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types
from tf_agents.utils import common, nest_utils

from fbrc_agent.agents import algorithm, arguments, average, updates
from fbrc_agent.agents.updates import States, TdError
from fbrc_agent.networks import network_checks
from fbrc_agent.utils import sampling

# The draws of actions in a step: a' of the target, a of an algorithm's own term, of the actor's and
# of the temperature's loss, and of the diagnostics.
TARGET, OWN_TERM, ACTOR, TEMPERATURE, DIAGNOSTICS = _DRAWS = range(5)


class OfflineSacAgent(sac_agent.SacAgent):
    """An offline actor-critic: `SacAgent`, and what its subclasses add to the three losses.

    A subclass overrides `_critic_loss`, `_actor_loss` or `_alpha_loss`, each a loss per example,
    `[B]` or with recurrent networks `[B, T]`, by "super() plus its terms". `train` steps the
    critics, the actor and the temperature, in this order. The actor stays as it is until its own
    step: one pass over s serves the losses of critic and actor, which draw actions of their own.
    """

    loss_info_class: Callable[..., Any] = sac_agent.SacLossInfo
    # How many draws a step has; a subclass that needs more has numbers of its own from here on.
    num_draws = len(_DRAWS)

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.NestedTensorSpec,
        critic_network: network.Network,
        actor_network: network.Network,
        reward_bonus: types.Float = 0.0,
        include_critic_entropy_term: bool = True,
        share_actor_sample: bool = False,
        actor_average_decay: Optional[types.Float] = None,
        seed: Optional[int] = None,
        jit_compile: bool = False,
        **sac_arguments: Any,
    ):
        """Creates the agent; arguments and exceptions are `SacAgent`'s and as of `FbrcAgent`."""
        arguments.check({**locals(), **sac_arguments})
        time_step_spec, action_spec = network_checks.checked_specs(time_step_spec, action_spec)
        self._check_action_spec(action_spec)
        critic_spec = (time_step_spec.observation, action_spec)
        if actor_network:
            network_checks.check_input_spec("actor_network", actor_network, critic_spec[0])
        given = {"critic_network": critic_network}
        for name in ("critic_network_2", "target_critic_network", "target_critic_network_2"):
            net = sac_arguments.pop(name, None)
            if net is not None:
                given[name] = net
        network_checks.check_critics(given, critic_spec)
        is_built = network_checks.has_weights(critic_network)
        super().__init__(
            time_step_spec,
            action_spec,
            actor_network=actor_network,
            **self._make_critics(given, critic_spec),
            **sac_arguments,
        )
        for argument, net in given.items():
            network_checks.check_values(argument, net, critic_spec)
        if is_built and "critic_network_2" not in given:
            network_checks.check_critics_differ(critic_network, self._critic_network_2)
        self._reward_bonus = reward_bonus
        self._include_critic_entropy_term = include_critic_entropy_term
        self._share_actor_sample = share_actor_sample
        self._seed = seed
        self._average = None
        if actor_average_decay is not None:
            # Its policies are made as `SacAgent` makes its own.
            make = sac_arguments.get("actor_policy_ctor", actor_policy.ActorPolicy)
            specs = (self.time_step_spec, self.action_spec)
            self._average = average.ActorAverage(
                self._actor_network,
                actor_average_decay,
                lambda net: make(*specs, actor_network=net, training=False),
            )
        self._update = self._update_networks
        if jit_compile:
            self._update = updates.compile_update(
                self._update_networks,
                critic_optimizer=(self._critic_optimizer, self._critic_variables()),
                actor_optimizer=(self._actor_optimizer, self._actor_network.trainable_variables),
                alpha_optimizer=(self._alpha_optimizer, [self._log_alpha]),
                has_summaries=self._debug_summaries or self._summarize_grads_and_vars,
            )

    @property
    def alpha(self) -> tf.Tensor:
        """The temperature."""
        return tf.exp(self._log_alpha)

    @property
    def average_policy(self) -> Optional[tf_policy.TFPolicy]:
        """The policy of the averaged actor (see `ActorAverage`), None without one."""
        return None if self._average is None else self._average.policy

    @property
    def _critics(self) -> tuple[network.Network, network.Network]:
        return self._critic_network_1, self._critic_network_2

    @property
    def _target_critics(self) -> tuple[network.Network, network.Network]:
        return self._target_critic_network_1, self._target_critic_network_2

    def _make_critics(self, given: Mapping[str, network.Network], critic_spec: Any):
        """Returns the critics Q, made of the networks given for them by `SacAgent`'s names."""
        return given

    def _behavior(self, time_steps: ts.TimeStep) -> Optional[types.NestedDistribution]:
        """Returns mu(.|s), or None without a behavior policy."""
        return None

    def _critic_loss(
        self,
        states: States,
        actions: types.NestedTensor,
        next_time_steps: ts.TimeStep,
        td_error: TdError,
        training: bool,
        **critic_arguments: Any,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns sum_i J(Q_i) = sum_i (y - Q_i(s, a))^2, y as of `_td_targets`; and its own terms.

        The latter are those fields of `loss_info_class`, by name, that `SacLossInfo` does not have.
        """
        targets = tf.stop_gradient(self._td_targets(next_time_steps, td_error))
        q_values = self._q_values(self._critics, states, actions, training, **critic_arguments)
        self._critic_loss_debug_summaries(targets, *q_values)
        return tf.add_n([td_error.loss_fn(targets, q) for q in q_values]), {}

    def _td_targets(self, next_time_steps: ts.TimeStep, td_error: TdError) -> tf.Tensor:
        """Returns y = r + bonus + gamma d (min_j Q'_j(s', a') [- alpha log pi(a'|s')])."""
        next_states = self._states(next_time_steps)
        actions, log_pi = self._sample(next_states.policy, TARGET)
        values = tf.minimum(*self._q_values(self._target_critics, next_states, actions))
        if self._include_critic_entropy_term:
            values -= tf.cast(self.alpha, log_pi.dtype) * log_pi
        rewards = td_error.reward_scale_factor * next_time_steps.reward + self._reward_bonus
        discounts = tf.cast(td_error.gamma * next_time_steps.discount, values.dtype)
        return tf.cast(rewards, values.dtype) + discounts * values

    def _actor_loss(
        self, states: States, data_actions: Optional[types.NestedTensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns alpha log pi(a|s) - min_i Q_i(s, a), a ~ pi(.|s), and log pi(a|s).

        `data_actions`, None in `actor_loss`, are for terms of subclasses.
        """
        actions, log_pi = self._sample(states.policy, ACTOR)
        q_values = self._min_q(states, actions)
        loss = tf.cast(self.alpha, log_pi.dtype) * log_pi - q_values
        self._actor_loss_debug_summaries(loss, actions, log_pi, q_values, states.time_steps)
        return loss, log_pi

    def _alpha_loss(self, log_pi: tf.Tensor) -> tf.Tensor:
        """Returns alpha (-log pi(a|s) - target entropy), or with log alpha in place of alpha."""
        surplus = tf.stop_gradient(-log_pi - self._target_entropy)
        factor = self._log_alpha if self._use_log_alpha_in_alpha_loss else self.alpha
        loss = tf.cast(factor, surplus.dtype) * surplus
        self._alpha_loss_debug_summaries(loss, surplus)
        return loss

    def _q_values(
        self,
        critics: Sequence[network.Network],
        states: States,
        actions: types.NestedTensor,
        training: bool = False,
        **critic_arguments: Any,
    ) -> list[tf.Tensor]:
        """Returns Q_i(s, a) of each critic."""
        inputs, step_type = (states.time_steps.observation, actions), states.time_steps.step_type
        return [
            critic(inputs, step_type=step_type, training=training, **critic_arguments)[0]
            for critic in critics
        ]

    def _states(self, time_steps: ts.TimeStep, training: bool = False) -> States:
        return States(time_steps, self._pi(time_steps, training), self._behavior(time_steps))

    def _pi(self, time_steps: ts.TimeStep, training: bool) -> types.NestedDistribution:
        batch_size = nest_utils.get_outer_shape(time_steps, self.time_step_spec)[0]
        policy = self._train_policy if training else self._policy
        state = policy.get_initial_state(batch_size)
        return policy.distribution(time_steps, policy_state=state).action

    def _sample(self, policy: types.NestedDistribution, draw: int, sample_shape=None):
        """Returns a ~ pi(.|s) and log pi(a|s)."""
        step, draws = self.train_step_counter, self.num_draws
        actions = sampling.sample(policy, self._seed, step, draw, draws, sample_shape)
        return actions, common.log_probability(policy, actions, self.action_spec)

    def _actions_and_log_probs(self, time_steps, training=False):
        return self._sample(self._pi(time_steps, training), TEMPERATURE)

    def critic_loss(
        self,
        time_steps,
        actions,
        next_time_steps,
        td_errors_loss_fn,
        gamma=1.0,
        reward_scale_factor=1.0,
        weights=None,
        training=False,
    ) -> tf.Tensor:
        """Returns the critic loss, a scalar; arguments as in `SacAgent.critic_loss`."""
        nest_utils.assert_same_structure(actions, self.action_spec)
        nest_utils.assert_same_structure(next_time_steps, self.time_step_spec)
        td_error = TdError(td_errors_loss_fn, gamma, reward_scale_factor)
        states = self._states(time_steps)
        batch = (states, actions, next_time_steps, weights)
        return self._mean_critic_loss(*batch, training, td_error)[0]

    def actor_loss(self, time_steps, weights=None, training=True) -> tf.Tensor:
        """Returns the actor loss, a scalar; arguments as in `SacAgent.actor_loss`."""
        nest_utils.assert_same_structure(time_steps, self.time_step_spec)
        return self._mean_actor_loss(self._states(time_steps, bool(training)), None, weights)[0]

    def alpha_loss(self, time_steps, weights=None, training=False) -> tf.Tensor:
        """Returns the temperature's loss, a scalar; arguments as in `SacAgent.alpha_loss`."""
        nest_utils.assert_same_structure(time_steps, self.time_step_spec)
        return self._mean_alpha_loss(time_steps, None, weights)

    def _mean_critic_loss(self, states, actions, next_steps, weights, training, td_error=None):
        own = TdError(self._td_errors_loss_fn, self._gamma, self._reward_scale_factor)
        with tf.name_scope("critic_loss"):
            loss, terms = self._critic_loss(states, actions, next_steps, td_error or own, training)
            regularization = [loss for critic in self._critics for loss in critic.losses]
            means = {name: self._mean(term, weights) for name, term in terms.items()}
            return self._mean(loss, weights, regularization), means

    def _mean_actor_loss(self, states, data_actions, weights) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.name_scope("actor_loss"):
            loss, log_pi = self._actor_loss(states, data_actions)
            regularization = self._actor_network.losses if self._actor_network else None
            return self._mean(loss, weights, regularization), log_pi

    def _mean_alpha_loss(self, time_steps, actor_log_pi, weights) -> tf.Tensor:
        with tf.name_scope("alpha_loss"):
            if actor_log_pi is None or not self._share_actor_sample:
                _, actor_log_pi = self._actions_and_log_probs(time_steps)
            return self._mean(self._alpha_loss(actor_log_pi), weights)

    def _mean(self, per_example, weights, regularization_loss=None) -> tf.Tensor:
        """Returns the mean over the global batch of `[B]`, or of `[B, T]` summed over time."""
        if per_example.shape.rank > 1:
            per_example = tf.reduce_sum(per_example, axis=range(1, per_example.shape.rank))
        return common.aggregate_losses(
            per_example_loss=per_example,
            sample_weight=weights,
            regularization_loss=regularization_loss or None,
        ).total_loss

    def _train(self, experience, weights):
        losses = self._update(*self._batch(experience, weights), weights)
        for name, loss in zip(("Critic", "Actor", "Alpha"), losses):  # XLA drops the update's own.
            tf.debugging.check_numerics(loss, f"{name} loss is inf or nan.")
        loss_info = self._loss_info(*losses)
        self.train_step_counter.assign_add(1)
        self._update_target()
        if self._average is not None:
            self._average.update()
        return loss_info

    def _initialize(self):
        """Starts targets and average at the weights of the critics and the actor."""
        super()._initialize()
        if self._average is not None:
            self._average.restart()

    def _update_networks(self, time_steps, actions, next_steps, weights):
        """Steps critics, actor and temperature; returns the three losses and the critic's terms."""
        actor_variables = self._actor_network.trainable_variables
        critic_variables = self._critic_variables()
        with updates.tape(actor_variables) as actor_tape:
            states = self._states(time_steps, training=True)
            with actor_tape.stop_recording():
                with updates.tape(critic_variables) as tape:
                    critic_loss, terms = self._mean_critic_loss(
                        states, actions, next_steps, weights, training=True
                    )
                    critic_loss *= self._critic_loss_weight
                self._minimize(tape, "Critic", critic_loss, critic_variables)
            actor_loss, log_pi = self._mean_actor_loss(states, actions, weights)
            actor_loss *= self._actor_loss_weight
        self._minimize(actor_tape, "Actor", actor_loss, actor_variables)
        with updates.tape([self._log_alpha]) as tape:
            alpha_loss = self._mean_alpha_loss(time_steps, log_pi, weights)
            alpha_loss *= self._alpha_loss_weight
        self._minimize(tape, "Alpha", alpha_loss, [self._log_alpha])
        return critic_loss, actor_loss, alpha_loss, terms

    def _critic_variables(self) -> list[tf.Variable]:
        """Returns the critics' variables without repetitions, in their order.

        All workers of a strategy must make the optimizer's slots in one order; that of the
        `ObjectIdentitySet` in `SacAgent` differs between processes.
        """
        variables = [v for critic in self._critics for v in critic.trainable_variables]
        return list({id(variable): variable for variable in variables}.values())

    def _minimize(self, tape, name: str, loss, variables):
        assert variables, f"No trainable {name.lower()} variables to optimize."
        tf.debugging.check_numerics(loss, f"{name} loss is inf or nan.")
        gradients = updates.ordered_gradients(tape, loss, variables)
        self._apply_gradients(gradients, variables, getattr(self, f"_{name.lower()}_optimizer"))

    def _loss(self, experience, weights=None, training: bool = False):
        time_steps, actions, next_steps = self._batch(experience, weights)
        states = self._states(time_steps, training)
        critic_loss, terms = self._mean_critic_loss(states, actions, next_steps, weights, training)
        actor_loss, log_pi = self._mean_actor_loss(states, actions, weights)
        alpha_loss = self._mean_alpha_loss(time_steps, log_pi, weights)
        return self._loss_info(
            self._critic_loss_weight * critic_loss,
            self._actor_loss_weight * actor_loss,
            self._alpha_loss_weight * alpha_loss,
            terms,
        )

    def _batch(self, experience, weights):
        """Returns time steps, actions and next time steps."""
        time_steps, policy_steps, next_steps = transition = self._as_transition(experience)
        network_checks.check_batch(transition, weights)
        return time_steps, policy_steps.action, next_steps

    def _loss_info(self, critic_loss, actor_loss, alpha_loss, terms) -> tf_agent.LossInfo:
        extra = self.loss_info_class(critic_loss, actor_loss, alpha_loss, **terms)
        with tf.name_scope("Losses"):
            for name, value in extra._asdict().items():
                tf.summary.scalar(name, value, step=self.train_step_counter)
        return tf_agent.LossInfo(loss=critic_loss + actor_loss + alpha_loss, extra=extra)

    def diagnostics(self, experience: types.NestedTensor) -> dict[str, tf.Tensor]:
        """Returns scalars, means over a batch.

        Args:
          experience: As for `train`.

        Returns:
          Those of the algorithm;
          `q_policy`, `q_data`: E min_i Q_i at the policy's and at the data's actions;
          `entropy`: E -log pi(a|s), nats;
          `alpha`: the temperature.
        """
        time_steps, policy_steps, _ = self._as_transition(experience)
        states = self._states(time_steps)
        actions, log_pi = self._sample(states.policy, DIAGNOSTICS)
        return {
            **self._own_diagnostics(states, actions),
            "q_policy": tf.reduce_mean(self._min_q(states, actions)),
            "q_data": tf.reduce_mean(self._min_q(states, policy_steps.action)),
            "entropy": -tf.reduce_mean(log_pi),
            "alpha": self.alpha,
        }

    def _own_diagnostics(self, states: States, actions: types.NestedTensor) -> dict:
        """Returns what an algorithm adds to `diagnostics`; `actions` are drawn from the policy."""
        return {}

    def values(self, observation: tf.Tensor, action: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `q`, min_i Q_i(s, a), `[B]`, in units of the (scaled) reward."""
        return {"q": self._min_q(self._first_states(observation), action)}

    def _first_states(self, observation: tf.Tensor) -> States:
        """Returns observations as first time steps, without the policy."""
        step_type = tf.fill(tf.shape(observation)[:1], ts.StepType.FIRST)
        time_steps = ts.TimeStep(step_type, (), (), observation)
        return States(time_steps, None, self._behavior(time_steps))

    def _min_q(self, states: States, actions: types.NestedTensor, **arguments: Any) -> tf.Tensor:
        return tf.minimum(*self._q_values(self._critics, states, actions, **arguments))

    def discounting(self) -> Optional[algorithm.Discounting]:
        """Returns what Q sums up; None without a discount, or with the entropy in the target."""
        if self._include_critic_entropy_term or self._gamma >= 1.0:
            return None
        return algorithm.Discounting(self._reward_scale_factor, self._reward_bonus, self._gamma)
