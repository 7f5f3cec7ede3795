"""Networks that users bring: each kind trains, is penalized as eq. 7 says, acts and is saved.

One pair of agents is made and trained for each kind; the tests look at different sides of it.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.agents.ddpg import critic_network as ddpg_critic
from tf_agents.agents.ddpg import critic_rnn_network
from tf_agents.agents.sac import tanh_normal_projection_network
from tf_agents.networks import (
    actor_distribution_network,
    actor_distribution_rnn_network,
    encoding_network,
    nest_map,
    network,
    sequential,
)
from tf_agents.policies import greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from fbrc_agent.agents import behavior as behavior_agent
from fbrc_agent.agents import fbrc as fbrc_agent
from fbrc_agent.networks import actor_network, behavior_network

tfd = tfp.distributions
# Bounded, so that samples of the specs are numbers of ordinary size.
VECTOR = tensor_spec.BoundedTensorSpec([4], tf.float32, -2, 2, "observation")
DICT = {
    "place": tensor_spec.BoundedTensorSpec([3], tf.float32, -2, 2, "place"),
    "goal": tensor_spec.BoundedTensorSpec([2], tf.float32, -2, 2, "goal"),
}
IMAGE = tensor_spec.BoundedTensorSpec([8, 8, 3], tf.uint8, 0, 255, "image")
BATCH, STEPS = 5, 3
TANH = tf.keras.activations.tanh  # smooth, for the finite differences


def box(low, high, size=2):
    return tensor_spec.BoundedTensorSpec([size], tf.float32, low, high, "action")


def dense(units):
    return tf.keras.layers.Dense(units, TANH)


def one_value_each():
    return tf.keras.layers.Lambda(lambda x: tf.squeeze(x, axis=-1))


# Critics.


def sequential_critic(spec):
    """As in TF-Agents' examples/sac/haarnoja18."""
    return sequential.Sequential(
        [
            nest_map.NestMap((sequential.Sequential([dense(8)]), dense(6))),
            nest_map.NestFlatten(),
            tf.keras.layers.Concatenate(),
            dense(8),
            tf.keras.layers.Dense(1),
            one_value_each(),
        ],
        input_spec=spec,
        name="SequentialCritic",
    )


def functional_critic(spec):
    """A functional Keras model, which is built as soon as it is made."""
    observation, action = (tf.keras.Input(s.shape) for s in spec)
    hidden = dense(8)(tf.keras.layers.Concatenate()([observation, action]))
    model = tf.keras.Model((observation, action), tf.keras.layers.Dense(1)(hidden))
    return sequential.Sequential([model, one_value_each()], name="FunctionalCritic")


def layered_critic(spec):
    return ddpg_critic.CriticNetwork(spec, None, (8,), None, (6,), None, (8,), activation_fn=TANH)


def convolutional_critic(spec):
    return ddpg_critic.CriticNetwork(
        spec, [(4, 3, 2)], (8,), joint_fc_layer_params=(8,), activation_fn=TANH
    )


def nested_critic(spec):
    """Encodes nests of observations and actions; a network of TF-Agents and Keras layers."""
    flatten = [nest_map.NestFlatten(), tf.keras.layers.Concatenate()]
    encoders = tuple(
        sequential.Sequential([*flatten, dense(6)])
        if isinstance(s, dict)
        else sequential.Sequential([dense(6)])
        for s in spec
    )
    return sequential.Sequential(
        [nest_map.NestMap(encoders), *flatten, tf.keras.layers.Dense(1), one_value_each()],
        input_spec=spec,
        name="NestedCritic",
    )


def encoding_critic(spec):
    """The value of an `EncodingNetwork` over a dict observation and the action."""
    encoder = encoding_network.EncodingNetwork(
        spec,
        preprocessing_layers=({"place": dense(4), "goal": dense(4)}, dense(4)),
        preprocessing_combiner=tf.keras.layers.Concatenate(),
        fc_layer_params=(8,),
        activation_fn=TANH,
    )
    return sequential.Sequential(
        [encoder, tf.keras.layers.Dense(1), one_value_each()], input_spec=spec
    )


def recurrent_critic(spec):
    return critic_rnn_network.CriticRnnNetwork(
        spec, None, (6,), (6,), (6,), (4,), (6,), activation_fn=TANH
    )


# Actors.


def normal_actor(observation, action, **arguments):
    return actor_distribution_network.ActorDistributionNetwork(
        observation, action, fc_layer_params=(8,), **arguments
    )


def tanh_actor(observation, action, **arguments):
    projection = tanh_normal_projection_network.TanhNormalProjectionNetwork
    return normal_actor(observation, action, continuous_projection_net=projection, **arguments)


def dict_encoder():
    return {
        "preprocessing_layers": {"place": dense(4), "goal": dense(4)},
        "preprocessing_combiner": tf.keras.layers.Add(),
    }


def image_encoder():
    scale = tf.keras.layers.Lambda(lambda pixels: tf.cast(pixels, tf.float32) / 255.0)
    return {"preprocessing_layers": scale, "conv_layer_params": [(4, 3, 2)]}


def recurrent_actor(observation, action):
    return actor_distribution_rnn_network.ActorDistributionRnnNetwork(
        observation,
        action,
        input_fc_layer_params=(6,),
        lstm_size=(4,),
        output_fc_layer_params=(6,),
        continuous_projection_net=tanh_normal_projection_network.TanhNormalProjectionNetwork,
    )


# Behavior networks.


def mixture(observation, action, **arguments):
    return behavior_network.MixtureBehaviorNetwork(
        observation, action, num_components=2, fc_layer_params=(8,), **arguments
    )


class UsersBehavior(network.Network):
    """A mu of a user's own: `distribution` of two layers' outputs for each action."""

    def __init__(self, input_tensor_spec, action_spec, distribution, name="UsersBehavior"):
        super().__init__(input_tensor_spec, state_spec=(), name=name)
        self._distribution = distribution
        self._first = tf.keras.layers.Dense(action_spec.shape[0])
        self._second = tf.keras.layers.Dense(action_spec.shape[0])

    def call(self, observation, step_type=(), network_state=(), training=False):
        return self._distribution(self._first(observation), self._second(observation)), ()


def uniform(first, second):
    """Uniform on a box that holds [0, 5]: its width is learned."""
    return tfd.Independent(tfd.Uniform(-tf.nn.softplus(first), 5.0 + tf.nn.softplus(second)), 1)


def normals(first, second):
    """A batch of scalars: the event shape is ()."""
    return tfd.Normal(first, tf.nn.softplus(second) + 0.1)


class BehaviorByStepType(network.Network):
    """Another density at the first step of an episode; `step_type` has no default."""

    def __init__(self, input_tensor_spec, action_spec, name="BehaviorByStepType"):
        super().__init__(input_tensor_spec, state_spec=(), name=name)
        self._loc = tf.keras.layers.Dense(action_spec.shape[0])

    def call(self, observation, step_type, network_state=(), training=False):
        first = tf.cast(step_type == ts.StepType.FIRST, tf.float32)[..., tf.newaxis]
        loc = self._loc(observation)
        return tfd.MultivariateNormalDiag(loc, tf.ones_like(loc) * (1.0 + first)), network_state


# The kinds.


@dataclasses.dataclass(frozen=True)
class Kind:
    observation: Any
    action: Any
    critic: Any
    actor: Any
    behavior: Any
    needs_second_critic: bool = False
    recurrent: bool = False


SCALAR, ARRAYS, POSITIVE = box(-1, 1), box([-1.0, -2.0], [1.0, 3.0]), box(0.0, 5.0)
ACTIONS = {"steer": box(-0.5, 0.5, 1), "pedals": box([0.0, -1.0], [2.0, 1.0])}
KINDS = {
    "sequential": Kind(VECTOR, SCALAR, sequential_critic, normal_actor, mixture),
    "functional Keras": Kind(
        VECTOR, ARRAYS, functional_critic, tanh_actor, tanh_actor, needs_second_critic=True
    ),
    "CriticNetwork": Kind(
        VECTOR,
        ARRAYS,
        layered_critic,
        functools.partial(actor_network.create_actor_network, fc_layer_params=(8,)),
        functools.partial(mixture, joint=True),
    ),
    "dict observation": Kind(
        DICT,
        ARRAYS,
        nested_critic,
        lambda o, a: tanh_actor(o, a, **dict_encoder()),
        lambda o, a: mixture(o, a, **dict_encoder()),
    ),
    "encoded dict observation": Kind(
        DICT,
        POSITIVE,
        encoding_critic,
        lambda o, a: normal_actor(o, a, **dict_encoder()),
        lambda o, a: tanh_actor(o, a, **dict_encoder()),
    ),
    "image": Kind(
        IMAGE,
        SCALAR,
        convolutional_critic,
        lambda o, a: tanh_actor(o, a, **image_encoder()),
        lambda o, a: mixture(o, a, **image_encoder()),
    ),
    "uniform mu": Kind(
        VECTOR,
        POSITIVE,
        sequential_critic,
        tanh_actor,
        lambda o, a: UsersBehavior(o, a, uniform),
    ),
    "mu of scalar normals": Kind(
        VECTOR, ARRAYS, layered_critic, tanh_actor, lambda o, a: UsersBehavior(o, a, normals)
    ),
    "mu with step_type": Kind(VECTOR, SCALAR, layered_critic, tanh_actor, BehaviorByStepType),
    "dict action": Kind(VECTOR, ACTIONS, nested_critic, tanh_actor, tanh_actor),
    "recurrent": Kind(VECTOR, ARRAYS, recurrent_critic, recurrent_actor, mixture, recurrent=True),
}


def make_behavior(kind):
    return kind.behavior(kind.observation, kind.action)


def make_agent(kind, behavior, **changes):
    spec = kind.observation, kind.action
    if kind.needs_second_critic:
        # A functional model is always built: `Network.copy` copies its weights.
        changes = {"critic_network_2": kind.critic(spec), **changes}
    arguments = {
        "critic_network": kind.critic(spec),
        "actor_network": kind.actor(*spec),
        "actor_optimizer": tf.keras.optimizers.Adam(1e-2),
        "critic_optimizer": tf.keras.optimizers.Adam(1e-2),
        "alpha_optimizer": tf.keras.optimizers.Adam(1e-2),
        "behavior_network": behavior,
        "train_step_counter": tf.Variable(0, dtype=tf.int64),
        **changes,
    }
    agent = fbrc_agent.FbrcAgent(ts.time_step_spec(kind.observation), kind.action, **arguments)
    agent.initialize()
    return agent


def make_behavior_agent(kind, behavior, **changes):
    return behavior_agent.BehaviorAgent(
        ts.time_step_spec(kind.observation),
        kind.action,
        behavior,
        optimizer=tf.keras.optimizers.Adam(1e-2),
        train_step_counter=tf.Variable(0, dtype=tf.int64),
        **changes,
    )


def experience(kind, steps=None, seed=0):
    """A batch drawn from the specs, in the middle of an episode."""
    outer = [BATCH, steps or (STEPS if kind.recurrent else 2)]
    mid = tf.fill(outer, ts.StepType.MID)
    reward = tf.random.stateless_normal(outer, [seed, 1])
    observation, action = tensor_spec.sample_spec_nest(
        (kind.observation, kind.action), seed=seed, outer_dims=outer
    )
    return trajectory.Trajectory(mid, observation, action, (), mid, reward, tf.ones(outer))


def values(variables):
    return [v.numpy() for v in variables]


def changed(before, variables):
    return [not np.array_equal(b, v) for b, v in zip(before, variables)]


class Trained:
    """An agent, what it was before two steps of training, and what they returned."""

    def __init__(self, kind):
        tf.keras.utils.set_random_seed(1)
        self.behavior = make_behavior(kind)
        self.behavior_agent = make_behavior_agent(kind, self.behavior)
        self.behavior_before = values(self.behavior.variables)
        self.behavior_losses = [
            self.behavior_agent.train(experience(kind, 2, seed)).loss for seed in range(2)
        ]
        self.fitted_behavior = values(self.behavior.variables)
        self.agent = make_agent(kind, self.behavior)
        agent = self.agent
        self.trained = (agent._critic_network_1, agent._critic_network_2, agent._actor_network)
        self.before = [values(net.trainable_variables) for net in self.trained]
        self.losses = [agent.train(experience(kind, seed=seed)) for seed in range(2)]


@functools.cache
def trained(name):
    return Trained(KINDS[name])


every_kind = pytest.mark.parametrize("name", KINDS)


@every_kind
def test_the_behavior_agent_fits_mu(name):
    result = trained(name)
    assert np.all(np.isfinite(result.behavior_losses))
    assert all(changed(result.behavior_before, result.fitted_behavior))


@every_kind
def test_losses_are_finite(name):
    for info in trained(name).losses:
        assert np.all(np.isfinite([info.loss, *info.extra]))


@every_kind
def test_critics_and_actor_train_and_mu_stays(name):
    result = trained(name)
    for before, net in zip(result.before, result.trained):
        assert all(changed(before, net.trainable_variables))
    assert not any(changed(result.fitted_behavior, result.behavior.variables))


@every_kind
def test_both_critics_start_apart(name):
    first, second, _ = trained(name).before
    assert len(first) == len(second)
    kernels = [(f, s) for f, s in zip(first, second) if f.ndim > 1]
    assert kernels and not any(np.allclose(f, s) for f, s in kernels)


def squared_slopes(offset, time_steps, actions, step=1e-2):
    """||grad_a O||^2 by central differences, `[B]` or `[B, T]`: each step's own action alone."""
    flat = [a.numpy() for a in tf.nest.flatten(actions)]

    def value(index, shift):
        moved = [a + shift if i == index else a for i, a in enumerate(flat)]
        inputs = time_steps.observation, tf.nest.pack_sequence_as(actions, moved)
        return offset(inputs, step_type=time_steps.step_type)[0].numpy().astype(np.float64)

    outer_shape = value(0, 0.0).shape
    total = np.zeros(outer_shape)
    for index, action in enumerate(flat):
        for place in np.ndindex(action.shape[1:]):  # ([t,] dimension)
            shift = np.zeros_like(action)
            shift[(slice(None), *place)] = step
            slope = (value(index, shift) - value(index, -shift)) / (2 * step)
            row = (slice(None), *place[:-1])
            total[row] += slope[row] ** 2
    return total


@every_kind
def test_penalty_is_the_squared_slope_of_the_offsets(name, monkeypatch):
    kind, agent = KINDS[name], trained(name).agent
    samples, draw = [], agent._sample

    def recorded(policy, number):
        samples.append(draw(policy, number))
        return samples[-1]

    monkeypatch.setattr(agent, "_sample", recorded)
    batch = experience(kind, seed=5)
    info = agent.loss(batch)
    time_steps, _, _ = agent._as_transition(batch)
    actions, _ = samples[1]  # the first sample is for the target
    expected = sum(squared_slopes(offset, time_steps, actions) for offset in agent._learned)
    expected = expected.reshape([BATCH, -1]).sum(axis=1).mean()
    assert expected > 0
    np.testing.assert_allclose(info.extra.gradient_penalty, expected, rtol=1e-2)


@every_kind
def test_greedy_policy_acts_within_the_bounds(name):
    kind, agent = KINDS[name], trained(name).agent
    policy = greedy_policy.GreedyPolicy(agent.policy)
    observation = tensor_spec.sample_spec_nest(kind.observation, outer_dims=[50])
    step = policy.action(ts.restart(observation, 50), policy.get_initial_state(50))
    for action, spec in zip(tf.nest.flatten(step.action), tf.nest.flatten(kind.action)):
        assert action.shape == [50, *spec.shape] and action.dtype == spec.dtype
        assert np.all(action >= spec.minimum) and np.all(action <= spec.maximum)


@every_kind
def test_checkpoint_brings_everything_back(name, tmp_path):
    kind, result = KINDS[name], trained(name)
    path = tf.train.Checkpoint(agent=result.agent).write(str(tmp_path / "checkpoint"))
    other = make_agent(kind, make_behavior(kind))
    other.train(experience(kind))  # makes the optimizers' variables
    tf.train.Checkpoint(agent=other).read(path).assert_consumed()
    nets = [(result.behavior, other.behavior_network)]
    for attribute in ("critic_network_1", "target_critic_network_2", "actor_network"):
        nets.append([getattr(a, f"_{attribute}") for a in (result.agent, other)])
    for saved, restored in nets:
        assert not any(changed(values(saved.variables), restored.variables))


def test_log_mu_of_scalar_normals_is_summed_over_the_dimensions():
    kind, result = KINDS["mu of scalar normals"], trained("mu of scalar normals")
    batch = experience(kind)
    first, second = result.behavior._first, result.behavior._second
    x = batch.observation.numpy()[:, 0].astype(np.float64)
    loc = x @ first.kernel.numpy() + first.bias.numpy()
    scale = np.log1p(np.exp(x @ second.kernel.numpy() + second.bias.numpy())) + 0.1
    u = (batch.action.numpy()[:, 0] - loc) / scale
    log_mu = np.sum(-0.5 * u**2 - np.log(scale) - 0.5 * np.log(2 * np.pi), axis=1)
    found = result.agent.loss(batch).extra.behavior_log_prob
    np.testing.assert_allclose(found, np.mean(log_mu), rtol=1e-5)
    found = result.behavior_agent.loss(batch).loss
    np.testing.assert_allclose(found, -np.mean(log_mu), rtol=1e-5)


def test_log_mu_of_a_dict_of_actions_is_summed_over_the_nest():
    kind, result = KINDS["dict action"], trained("dict action")
    batch = experience(kind)
    steps, _, _ = result.agent._as_transition(batch)
    mu, _ = result.behavior(steps.observation, step_type=steps.step_type, network_state=())
    log_mu = sum(mu[name].log_prob(action[:, 0]) for name, action in batch.action.items())
    found = result.agent.loss(batch).extra.behavior_log_prob
    np.testing.assert_allclose(found, np.mean(log_mu), rtol=1e-5)


def test_mu_reads_the_step_type():
    """At first steps the scale is 2 instead of 1: log mu differs in a known way."""
    kind, result = KINDS["mu with step_type"], trained("mu with step_type")
    batch = experience(kind)
    first = batch._replace(step_type=tf.zeros_like(batch.step_type))
    x, a = (t.numpy()[:, 0].astype(np.float64) for t in (batch.observation, batch.action))
    loc = x @ result.behavior._loc.kernel.numpy() + result.behavior._loc.bias.numpy()
    for given, scale in ((batch, 1.0), (first, 2.0)):
        log_mu = -0.5 * ((a - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
        found = result.agent.loss(given).extra.behavior_log_prob
        np.testing.assert_allclose(found, np.mean(np.sum(log_mu, axis=1)), rtol=1e-5)
        loss = result.behavior_agent.loss(given).loss
        np.testing.assert_allclose(loss, -np.mean(np.sum(log_mu, axis=1)), rtol=1e-5)


@pytest.mark.parametrize("name", ["functional Keras", "CriticNetwork", "mu of scalar normals"])
def test_actions_of_the_data_may_lie_on_the_bounds(name):
    """mu is a SquashToSpecNormal, a joint mixture, normals."""
    kind, result = KINDS[name], trained(name)
    batch = experience(kind)
    on_bounds = tf.where(batch.action > 0, kind.action.maximum, kind.action.minimum)
    batch = batch._replace(action=on_bounds)
    mu = make_behavior(kind)
    losses = [make_behavior_agent(kind, mu).train(batch).loss, result.agent.loss(batch).loss]
    assert np.all(np.isfinite(losses))
    assert all(np.all(np.isfinite(v)) for v in values(mu.variables))


@pytest.mark.parametrize("name", ["functional Keras", "uniform mu", "dict action"])
def test_entropy_term_of_the_behavior_agent(name):
    """It samples from mu, whatever mu returns."""
    kind = KINDS[name]
    mu = make_behavior(kind)
    agent = make_behavior_agent(kind, mu, alpha_optimizer=tf.keras.optimizers.Adam(1e-2))
    sizes = sum(spec.shape[0] for spec in tf.nest.flatten(kind.action))
    assert agent._target_entropy == -sizes
    info = agent.train(experience(kind))
    assert np.all(np.isfinite([info.loss, *info.extra])) and info.extra.entropy != 0.0


@pytest.mark.parametrize("name", KINDS)
def test_policy_of_the_behavior_agent_gives_whole_actions(name):
    kind, result = KINDS[name], trained(name)
    observation = tensor_spec.sample_spec_nest(kind.observation, outer_dims=[50])
    step = ts.restart(observation, 50)
    distribution = result.behavior_agent.policy.distribution(step).action
    action = result.behavior_agent.policy.action(step).action
    for d, a, spec in zip(*map(tf.nest.flatten, (distribution, action, kind.action))):
        assert d.log_prob(a).shape == [50] and a.shape == [50, *spec.shape]
        assert np.all(a >= spec.minimum) and np.all(a <= spec.maximum)


@pytest.mark.parametrize("method", ["loss", pytest.param("train", marks=pytest.mark.slow)])
def test_recurrent_networks_in_a_graph_with_any_batch_size(method):
    kind, behavior = KINDS["recurrent"], trained("recurrent").behavior
    batch = experience(kind)
    signature = tf.nest.map_structure(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), batch)
    agent = make_agent(kind, behavior)
    compute = tf.function(getattr(agent, method), input_signature=[signature])
    assert np.isfinite(compute(batch).loss)
