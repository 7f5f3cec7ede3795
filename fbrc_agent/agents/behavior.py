"""BehaviorAgent: fits mu(a|s) to the data by maximum likelihood."""

import collections
from collections.abc import Mapping
from typing import Optional

import gin
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.agents import data_converter, tf_agent
from tf_agents.networks import network
from tf_agents.policies import actor_policy
from tf_agents.train.utils import train_utils
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types
from tf_agents.utils import common, eager_utils, nest_utils

from fbrc_agent.agents import algorithm, arguments
from fbrc_agent.networks import behavior_network, network_checks, saved_network
from fbrc_agent.utils import checks, sampling
from fbrc_agent.utils.errors import InputError

BehaviorLossInfo = collections.namedtuple(
    "BehaviorLossInfo", ("behavior_loss", "alpha_loss", "log_prob", "entropy")
)

PANELS = (
    algorithm.Panel(
        "Behavior policy",
        "nats",
        {"log_prob": "log-likelihood of the data", "entropy": "entropy"},
    ),
)


@gin.configurable
class BehaviorAgent(tf_agent.TFAgent):
    """Fits a behavior policy to the data (Kostrikov et al. 2021, section 4.3).

    The loss is the negative log-likelihood with an entropy bonus,

        L(mu) = -E_{(s,a)~D} [ log mu(a|s) + alpha_b H_b(s) ],

    H_b(s) = -log mu(a~|s) estimated by one sample a~ ~ mu(.|s), whose gradient flows through the
    sampled component (not through the choice of the component). The temperature minimizes

        L(alpha_b) = E_s [ alpha_b (H_b(s) - target_entropy) ].

    The paper has the likelihood alone; the entropy term is the authors' code. Give
    `alpha_optimizer=None` to leave it out.

    `policy` and `collect_policy` sample from mu; wrap them in a `GreedyPolicy` for its mode.
    """

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.NestedTensorSpec,
        behavior_network: network.Network,
        optimizer: types.Optimizer,
        alpha_optimizer: Optional[types.Optimizer] = None,
        initial_log_alpha: float = 0.0,
        target_entropy: Optional[float] = None,
        debug_summaries: bool = False,
        summarize_grads_and_vars: bool = False,
        train_step_counter: Optional[tf.Variable] = None,
        name: Optional[str] = None,
        seed: Optional[int] = None,
    ):
        """Creates the agent.

        Args:
          time_step_spec: A `TimeStep` spec of the expected time steps.
          action_spec: A nest of `BoundedTensorSpec` of the actions.
          behavior_network: mu, a stateless network from observations to action distributions.
          optimizer: Optimizer of mu.
          alpha_optimizer: Optimizer of the entropy temperature; None for no entropy term.
          initial_log_alpha: Initial log alpha_b.
          target_entropy: Target of H_b in nats; by default -|A|, minus the number of dimensions.
          debug_summaries: Unused, as in other agents without debug summaries.
          summarize_grads_and_vars: Whether to write summaries of gradients and variables.
          train_step_counter: Counts the training steps; the global step by default.
          name: Name of the agent.
          seed: As of `FbrcAgent`, for the sample of the entropy.

        Raises:
          ValueError: If `behavior_network` does not give a distribution over `action_spec`, a
            number is out of its range, or an optimizer is none.
        """
        arguments.check(locals())
        checks.check_optimizer("optimizer", optimizer)
        tf.Module.__init__(self, name=name)
        time_step_spec, action_spec = network_checks.checked_specs(time_step_spec, action_spec)
        network_checks.check_behavior_network(
            behavior_network, time_step_spec.observation, action_spec
        )
        self._behavior_network = behavior_network
        self._optimizer = _to_legacy(optimizer)
        self._alpha_optimizer = _to_legacy(alpha_optimizer)
        self._log_alpha = common.create_variable(
            "initial_log_alpha", initial_value=initial_log_alpha, dtype=tf.float32, trainable=True
        )
        if target_entropy is None:
            sizes = [spec.shape.num_elements() for spec in tf.nest.flatten(action_spec)]
            target_entropy = -float(sum(sizes))
        self._target_entropy = target_entropy
        self._seed = seed
        policy = actor_policy.ActorPolicy(
            time_step_spec, action_spec, _JointActionNetwork(behavior_network), training=False
        )
        super().__init__(
            time_step_spec,
            action_spec,
            policy=policy,
            collect_policy=policy,
            train_sequence_length=2,
            debug_summaries=debug_summaries,
            summarize_grads_and_vars=summarize_grads_and_vars,
            train_step_counter=train_step_counter,
        )
        self._as_transition = data_converter.AsTransition(self.data_context, squeeze_time_dim=True)

    @property
    def behavior_network(self) -> network.Network:
        """mu, the network that is fitted."""
        return self._behavior_network

    @property
    def alpha(self) -> tf.Tensor:
        """The entropy temperature alpha_b."""
        return tf.exp(self._log_alpha)

    def _terms(self, experience, weights, training: bool) -> BehaviorLossInfo:
        """Returns both losses, the mean log-likelihood and the mean entropy, scalars in nats."""
        time_steps, policy_steps, _ = transition = self._as_transition(experience)
        network_checks.check_batch(transition, weights)
        behavior, _ = self._behavior_network(
            time_steps.observation,
            step_type=time_steps.step_type,
            network_state=(),
            training=training,
        )

        def log_mu(action):
            return common.log_probability(behavior, action, self.action_spec)

        def mean(values, regularization_loss=None):
            return common.aggregate_losses(
                values, sample_weight=weights, regularization_loss=regularization_loss or None
            ).total_loss

        log_prob = log_mu(policy_steps.action)
        if self._alpha_optimizer is None:
            entropy = tf.zeros_like(log_prob)
        else:
            entropy = -log_mu(sampling.sample(behavior, self._seed, self.train_step_counter, 0, 1))
        alpha = tf.cast(self.alpha, log_prob.dtype)
        surplus = tf.stop_gradient(entropy) - self._target_entropy
        return BehaviorLossInfo(
            behavior_loss=mean(
                -(log_prob + tf.stop_gradient(alpha) * entropy), self._behavior_network.losses
            ),
            alpha_loss=mean(alpha * surplus),
            log_prob=mean(log_prob),
            entropy=mean(entropy),
        )

    def _train(self, experience, weights):
        network_variables = self._behavior_network.trainable_variables
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(network_variables + [self._log_alpha])
            terms = self._terms(experience, weights, training=True)
        tf.debugging.check_numerics(terms.behavior_loss, "Behavior loss is inf or nan.")
        self._minimize(tape, terms.behavior_loss, network_variables, self._optimizer)
        if self._alpha_optimizer is not None:
            self._minimize(tape, terms.alpha_loss, [self._log_alpha], self._alpha_optimizer)
        with tf.name_scope("Losses"):
            for name, value in terms._asdict().items():
                tf.summary.scalar(name, value, step=self.train_step_counter)
        self.train_step_counter.assign_add(1)
        return tf_agent.LossInfo(loss=terms.behavior_loss, extra=terms)

    def _loss(self, experience, weights=None, training: bool = False):
        terms = self._terms(experience, weights, training)
        return tf_agent.LossInfo(loss=terms.behavior_loss, extra=terms)

    def _minimize(self, tape, loss, variables, optimizer):
        grads_and_vars = list(zip(tape.gradient(loss, variables), variables))
        if self._summarize_grads_and_vars:
            eager_utils.add_variables_summaries(grads_and_vars, self.train_step_counter)
            eager_utils.add_gradients_summaries(grads_and_vars, self.train_step_counter)
        optimizer.apply_gradients(grads_and_vars)


class _JointActionNetwork(network.Network):
    """mu with one event per action, as policies want it: a batch of scalars will do for mu."""

    def __init__(self, behavior_network, name="JointActionNetwork"):
        super().__init__(behavior_network.input_tensor_spec, state_spec=(), name=name)
        self._behavior_network = behavior_network

    def call(self, observation, step_type=(), network_state=(), training=False):
        behavior, _ = self._behavior_network(
            observation, step_type=step_type, network_state=(), training=training
        )
        outer_rank = nest_utils.get_outer_rank(observation, self.input_tensor_spec)

        def joint(distribution):
            extra = distribution.batch_shape.rank - outer_rank
            return tfp.distributions.Independent(distribution, extra) if extra else distribution

        return tf.nest.map_structure(joint, behavior), network_state


def _to_legacy(optimizer: Optional[types.Optimizer]) -> Optional[types.Optimizer]:
    """Returns the legacy form of a Keras optimizer, as `SacAgent` does with its own."""
    if isinstance(optimizer, tf.keras.optimizers.Optimizer):
        return tf.keras.__internal__.optimizers.convert_to_legacy_optimizer(optimizer)
    return optimizer


def create_behavior_agent(
    time_step_spec: ts.TimeStep,
    action_spec: types.BoundedTensorSpec,
    seed: int,
    pretrained: Mapping[str, network.Network],
) -> BehaviorAgent:
    """Returns the gin-configured `BehaviorAgent` of a `MixtureBehaviorNetwork`, not yet trained.

    Args:
      time_step_spec: A `TimeStep` spec.
      action_spec: A `BoundedTensorSpec` of shape [A].
      seed: Seed of the weights and samples.
      pretrained: Nothing.
    """
    del pretrained
    tf.keras.utils.set_random_seed(seed)
    return BehaviorAgent(
        time_step_spec,
        action_spec,
        behavior_network.MixtureBehaviorNetwork(time_step_spec.observation, action_spec),
        train_step_counter=train_utils.create_train_step(),
        seed=seed,
    )


@gin.configurable
def load_behavior_network(directory: str) -> behavior_network.MixtureBehaviorNetwork:
    """Returns the behavior network that a run has trained.

    In gin: `FbrcAgent.behavior_network = @load_behavior_network()`, with
    `import fbrc_agent.agents.behavior` at the top of the file.

    Args:
      directory: The directory of a run's behavior stage, for example 'runs/quickstart/behavior'.

    Raises:
      InputError: If it holds no behavior network, or a damaged one.
    """
    description = saved_network.read_description(directory)
    if description is None or description["architecture"] is None:
        raise InputError(
            f"{directory} holds no trained behavior network; give the directory of a behavior "
            "stage that is complete."
        )
    time_step_spec, action_spec = saved_network.specs_from_description(description["data"])
    net = behavior_network.MixtureBehaviorNetwork(
        time_step_spec.observation, action_spec, **description["architecture"]
    )
    saved_network.restore(directory, net)
    return net


def diagnostics(agent: BehaviorAgent, experience: types.NestedTensor) -> dict[str, tf.Tensor]:
    """Returns `alpha`, the entropy temperature."""
    del experience
    return {"alpha": agent.alpha}


@gin.configurable
def behavior() -> algorithm.Algorithm:
    """The behavior policy mu(a|s) as an algorithm, whose network others take."""
    return algorithm.Algorithm(
        name="behavior",
        label="behavior policy",
        create_agent=create_behavior_agent,
        trained_network=lambda agent: agent.behavior_network,
        is_greedy=False,  # As the data was made.
        diagnostics=diagnostics,
        panels=PANELS,
    )
