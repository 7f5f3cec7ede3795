"""Losses and gradients of both agents against the float64 NumPy reference.

The agents' own samples are recorded, so that the reference sees the same noise.
"""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.ddpg import critic_network
from tf_agents.networks import network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from fbrc_agent.agents import behavior as behavior_agent
from fbrc_agent.agents import fbrc as fbrc_agent
from fbrc_agent.networks import action_gradient, behavior_network
from tests.helpers import numpy_reference as reference

OBSERVATIONS, ACTIONS, COMPONENTS, BATCH = 3, 2, 4, 7
LOW, HIGH = np.array([-1.0, -2.0]), np.array([1.0, 3.0])
GAMMA, BONUS, PENALTY_WEIGHT, SCALE = 0.9, 0.7, 0.3, 1.5
HIDDEN = (5, 4)
TOLERANCE = {tf.float64: 1e-5, tf.float32: 1e-4}


class DenseOffset(network.Network):
    """An offset network in any dtype; TF-Agents' CriticNetwork casts to float32."""

    def __init__(self, input_tensor_spec, name="DenseOffset"):
        super().__init__(input_tensor_spec, state_spec=(), name=name)
        dtype = input_tensor_spec[1].dtype
        self._hidden = [tf.keras.layers.Dense(n, "relu", dtype=dtype) for n in HIDDEN]
        self._out = tf.keras.layers.Dense(1, dtype=dtype)

    def call(self, inputs, step_type=(), network_state=(), training=False):
        x = tf.concat(inputs, axis=-1)
        for layer in self._hidden:
            x = layer(x)
        return self._out(x)[..., 0], network_state


def plain_offset(input_tensor_spec):
    """Returns TF-Agents' own network, whose penalty is taken in closed form."""
    return critic_network.CriticNetwork(input_tensor_spec, joint_fc_layer_params=HIDDEN)


class World:
    """Specs, networks with fixed weights, a batch, and an FbrcAgent in one dtype."""

    def __init__(self, dtype, make_offset=DenseOffset, **agent_arguments):
        self.dtype = dtype
        generator = np.random.default_rng(0)
        self.observation_spec = tensor_spec.TensorSpec([OBSERVATIONS], dtype, "observation")
        self.action_spec = tensor_spec.BoundedTensorSpec([ACTIONS], dtype, LOW, HIGH, "action")
        self.time_step_spec = ts.time_step_spec(
            self.observation_spec, reward_spec=tensor_spec.TensorSpec([], dtype, "reward")
        )
        self.behavior = self._mixture(COMPONENTS)
        self.agent = fbrc_agent.FbrcAgent(
            self.time_step_spec,
            self.action_spec,
            make_offset((self.observation_spec, self.action_spec)),
            self._mixture(1),
            *[tf.keras.optimizers.legacy.SGD() for _ in range(3)],
            self.behavior,
            gradient_penalty_weight=PENALTY_WEIGHT,
            reward_bonus=BONUS,
            gamma=GAMMA,
            reward_scale_factor=SCALE,
            critic_loss_weight=1.0,
            initial_log_alpha=-0.4,
            train_step_counter=tf.Variable(0, dtype=tf.int64),
            **agent_arguments,
        )
        # SacAgent keeps its temperature in float32 whatever the specs say.
        self.agent._log_alpha = tf.Variable(-0.4, dtype=dtype)
        for net in self.networks():
            for variable in net.variables:
                variable.assign(0.4 * generator.standard_normal(variable.shape))
        self.observations = generator.standard_normal((BATCH, 2, OBSERVATIONS))
        middle, half = (LOW + HIGH) / 2, (HIGH - LOW) / 2
        self.actions = middle + half * generator.uniform(-0.95, 0.95, (BATCH, 2, ACTIONS))
        self.rewards = generator.standard_normal((BATCH, 2))
        self.discounts = np.ones((BATCH, 2))
        self.discounts[2, 0] = 0.0
        self.samples = self._record_samples()

    def _mixture(self, num_components):
        return behavior_network.MixtureBehaviorNetwork(
            self.observation_spec, self.action_spec, num_components, fc_layer_params=HIDDEN
        )

    def networks(self):
        agent = self.agent
        return [
            agent._critic_network_1,
            agent._critic_network_2,
            agent._target_critic_network_1,
            agent._target_critic_network_2,
            agent._actor_network,
            self.behavior,
        ]

    def _record_samples(self):
        samples, draw = [], self.agent._sample

        def recorded(policy, number):
            actions, log_pi = draw(policy, number)
            samples.append(actions.numpy().astype(np.float64))
            return actions, log_pi

        self.agent._sample = recorded
        return samples

    def experience(self):
        step_type = np.full((BATCH, 2), ts.StepType.MID)
        next_step_type = np.where(self.discounts == 0.0, ts.StepType.LAST, ts.StepType.MID)
        return trajectory.Trajectory(
            tf.constant(step_type),
            tf.constant(self.observations, self.dtype),
            tf.constant(self.actions, self.dtype),
            (),
            tf.constant(next_step_type.astype(np.int32)),
            tf.constant(self.rewards, self.dtype),
            tf.constant(self.discounts, tf.float32),
        )

    def transition(self):
        return self.agent._as_transition(self.experience())

    def reference_log_mu(self, observations, actions, parameters=None):
        parameters = parameters or weights(self.behavior)
        mixture = reference.mixture_parameters(parameters, observations, ACTIONS, COMPONENTS)
        return reference.squashed_log_density(*mixture, actions, LOW, HIGH)

    def reference_log_pi(self, parameters, observations, actions):
        normal = reference.mixture_parameters(parameters, observations, ACTIONS, 1)
        return reference.squashed_log_density(*normal, actions, LOW, HIGH)


def weights(net):
    return [v.numpy().astype(np.float64) for v in net.variables]


def assert_gradients(found, expected, dtype):
    tolerance = TOLERANCE[dtype]
    assert len(found) == len(expected)
    for f, e in zip(found, expected):
        np.testing.assert_allclose(f.numpy(), e, rtol=tolerance, atol=tolerance * np.abs(e).max())


both_dtypes = pytest.mark.parametrize("dtype", [tf.float64, tf.float32])
all_offsets = pytest.mark.parametrize(
    "dtype, make_offset",
    [(tf.float64, DenseOffset), (tf.float32, DenseOffset), (tf.float32, plain_offset)],
)


@pytest.mark.parametrize("make_offset", [DenseOffset, plain_offset])
def test_the_plain_network_is_the_one_in_closed_form(make_offset):
    for net in World(tf.float32, make_offset).agent._learned:
        assert (action_gradient.plain_layers(net) is not None) == (make_offset is plain_offset)


@all_offsets
@pytest.mark.parametrize("entropy_term", [False, True])
def test_critic_loss_and_gradient_are_equation_7(dtype, make_offset, entropy_term):
    world = World(dtype, make_offset, include_critic_entropy_term=entropy_term)
    agent = world.agent
    time_steps, policy_steps, next_time_steps = world.transition()
    variables = agent._critic_network_1.variables + agent._critic_network_2.variables
    with tf.GradientTape() as tape:
        loss = agent.critic_loss(
            time_steps,
            policy_steps.action,
            next_time_steps,
            tf.math.squared_difference,
            GAMMA,
            SCALE,
            training=True,
        )
    next_actions, policy_actions = world.samples

    critics = [weights(agent._critic_network_1), weights(agent._critic_network_2)]
    targets = [weights(agent._target_critic_network_1), weights(agent._target_critic_network_2)]
    s, s_next = world.observations[:, 0], world.observations[:, 1]
    a = world.actions[:, 0]
    value = np.minimum(*[reference.offset(t, s_next, next_actions) for t in targets])
    value = value + world.reference_log_mu(s_next, next_actions)
    if entropy_term:
        actor = weights(agent._actor_network)
        value -= np.exp(-0.4) * world.reference_log_pi(actor, s_next, next_actions)
    target = SCALE * world.rewards[:, 0] + BONUS + GAMMA * world.discounts[:, 0] * value
    log_mu = world.reference_log_mu(s, a)

    def equation_7():
        total = 0.0
        for critic in critics:
            total += np.mean((target - reference.offset(critic, s, a) - log_mu) ** 2)
            gradient = reference.offset_action_gradient(critic, s, policy_actions)
            total += PENALTY_WEIGHT * np.mean(np.sum(gradient**2, axis=1))
        return total

    np.testing.assert_allclose(loss.numpy(), equation_7(), rtol=TOLERANCE[dtype])
    expected = reference.numerical_gradient(equation_7, critics[0] + critics[1])
    assert_gradients(tape.gradient(loss, variables), expected, dtype)


@all_offsets
@pytest.mark.parametrize("regularization", ["offset", "gradient_penalty", "fisher"])
def test_actor_loss_and_gradient(dtype, make_offset, regularization):
    world = World(dtype, make_offset, regularization=regularization)
    agent = world.agent
    with tf.GradientTape() as tape:
        loss = agent.actor_loss(world.transition().time_step)
    gradients = tape.gradient(loss, agent._actor_network.variables)

    s, sampled = world.observations[:, 0], world.samples[0]
    actor = weights(agent._actor_network)
    critics = [weights(agent._critic_network_1), weights(agent._critic_network_2)]
    middle, half = (LOW + HIGH) / 2, (HIGH - LOW) / 2
    _, loc, scale = reference.mixture_parameters(actor, s, ACTIONS, 1)
    noise = (np.arctanh((sampled - middle) / half) - loc[..., 0]) / scale[..., 0]

    def expected_loss():
        _, loc, scale = reference.mixture_parameters(actor, s, ACTIONS, 1)
        actions = middle + half * np.tanh(loc[..., 0] + scale[..., 0] * noise)
        q = np.minimum(*[reference.offset(c, s, actions) for c in critics])
        if regularization == "offset":
            q = q + world.reference_log_mu(s, actions)
        return np.mean(np.exp(-0.4) * world.reference_log_pi(actor, s, actions) - q)

    np.testing.assert_allclose(loss.numpy(), expected_loss(), rtol=TOLERANCE[dtype])
    assert_gradients(gradients, reference.numerical_gradient(expected_loss, actor), dtype)


@both_dtypes
@pytest.mark.parametrize("use_log_alpha", [False, True])
def test_temperature_loss_and_gradient(dtype, use_log_alpha):
    world = World(dtype, use_log_alpha_in_alpha_loss=use_log_alpha, target_entropy=-1.3)
    agent = world.agent
    with tf.GradientTape() as tape:
        loss = agent.alpha_loss(world.transition().time_step, training=True)
    log_pi = world.reference_log_pi(
        weights(agent._actor_network), world.observations[:, 0], world.samples[0]
    )
    surplus = np.mean(-log_pi + 1.3)
    tolerance = TOLERANCE[dtype]
    factor, slope = (-0.4, 1.0) if use_log_alpha else (np.exp(-0.4), np.exp(-0.4))
    np.testing.assert_allclose(loss.numpy(), factor * surplus, rtol=tolerance)
    gradient = tape.gradient(loss, agent._log_alpha)
    np.testing.assert_allclose(gradient.numpy(), slope * surplus, rtol=tolerance)


@both_dtypes
@pytest.mark.parametrize("use_log_alpha", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_the_temperature_is_trained_on_the_sample_it_is_asked_to(dtype, use_log_alpha, share):
    world = World(
        dtype,
        use_log_alpha_in_alpha_loss=use_log_alpha,
        target_entropy=-1.3,
        share_actor_sample=share,
    )
    loss = world.agent.loss(world.experience()).extra.alpha_loss
    assert len(world.samples) == (3 if share else 4)  # target, penalty, actor[, temperature]
    log_pi = world.reference_log_pi(
        weights(world.agent._actor_network), world.observations[:, 0], world.samples[-1]
    )
    factor = -0.4 if use_log_alpha else np.exp(-0.4)
    np.testing.assert_allclose(loss.numpy(), factor * np.mean(-log_pi + 1.3), rtol=TOLERANCE[dtype])


def behavior_agent_of(world, mixture, with_entropy):
    agent = behavior_agent.BehaviorAgent(
        world.time_step_spec,
        world.action_spec,
        mixture,
        optimizer=tf.keras.optimizers.legacy.SGD(),
        alpha_optimizer=tf.keras.optimizers.legacy.SGD() if with_entropy else None,
        initial_log_alpha=-0.4,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )
    return agent


@both_dtypes
def test_likelihood_and_gradient_of_the_behavior(dtype):
    world = World(dtype)
    agent = behavior_agent_of(world, world.behavior, with_entropy=False)
    with tf.GradientTape() as tape:
        loss = agent.loss(world.experience()).loss
    parameters = weights(world.behavior)

    def expected_loss():
        s, a = world.observations[:, 0], world.actions[:, 0]
        return -np.mean(world.reference_log_mu(s, a, parameters))

    np.testing.assert_allclose(loss.numpy(), expected_loss(), rtol=TOLERANCE[dtype])
    expected = reference.numerical_gradient(expected_loss, parameters)
    assert_gradients(tape.gradient(loss, world.behavior.variables), expected, dtype)


@both_dtypes
def test_entropy_term_and_temperature_of_the_behavior(dtype, monkeypatch):
    world = World(dtype)
    mixture = world._mixture(1)
    mixture.create_variables()
    generator = np.random.default_rng(1)
    for variable in mixture.variables:
        variable.assign(0.4 * generator.standard_normal(variable.shape))
    agent = behavior_agent_of(world, mixture, with_entropy=True)
    samples, draw = [], behavior_network.SquashedMixture.sample

    def recorded(self, *args, **kwargs):
        samples.append(draw(self, *args, **kwargs))
        return samples[-1]

    monkeypatch.setattr(behavior_network.SquashedMixture, "sample", recorded)
    with tf.GradientTape() as tape:
        info = agent.loss(world.experience())
    s, a = world.observations[:, 0], world.actions[:, 0]
    parameters = weights(mixture)
    middle, half = (LOW + HIGH) / 2, (HIGH - LOW) / 2
    _, loc, scale = reference.mixture_parameters(parameters, s, ACTIONS, 1)
    sampled = samples[0].numpy().astype(np.float64)
    noise = (np.arctanh((sampled - middle) / half) - loc[..., 0]) / scale[..., 0]

    def entropy():
        _, loc, scale = reference.mixture_parameters(parameters, s, ACTIONS, 1)
        actions = middle + half * np.tanh(loc[..., 0] + scale[..., 0] * noise)
        return -world.reference_log_pi(parameters, s, actions)

    def expected_loss():
        return -np.mean(world.reference_log_pi(parameters, s, a) + np.exp(-0.4) * entropy())

    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(info.loss.numpy(), expected_loss(), rtol=tolerance)
    np.testing.assert_allclose(
        info.extra.alpha_loss.numpy(), np.exp(-0.4) * np.mean(entropy() + ACTIONS), rtol=tolerance
    )
    expected = reference.numerical_gradient(expected_loss, parameters)
    gradients = tape.gradient(info.loss, mixture.variables)
    # One component: its logit has no influence, and no gradient.
    assert_gradients(gradients, expected, dtype)
