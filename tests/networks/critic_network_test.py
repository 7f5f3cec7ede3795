"""Q = O + log mu, as a network of its own."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.sac import sac_agent
from tf_agents.networks import actor_distribution_rnn_network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from fbrc_agent.networks import actor_network, behavior_network, critic_network

OBSERVATION = tensor_spec.TensorSpec([4], tf.float32, "observation")
ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, [-1.0, -2.0], [1.0, 3.0], "action")


def wrapped():
    offset = critic_network.create_offset_network((OBSERVATION, ACTION), (16, 16))
    mu = behavior_network.MixtureBehaviorNetwork(OBSERVATION, ACTION, fc_layer_params=(8,))
    critic = critic_network.BehaviorRegularizedCriticNetwork(offset, mu)
    critic.create_variables()
    return critic


def inputs():
    return tensor_spec.sample_spec_nest((OBSERVATION, ACTION), seed=1, outer_dims=(6,))


def test_value_is_offset_plus_log_mu():
    critic = wrapped()
    observation, action = inputs()
    offset, _ = critic.offset_network((observation, action))
    behavior, _ = critic.behavior_network(observation)
    value, _ = critic((observation, action))
    np.testing.assert_allclose(value, offset + behavior.log_prob(action), rtol=1e-6)
    assert value.shape == (6,)


def test_a_log_mu_that_is_given_is_not_evaluated_again():
    critic, given = wrapped(), tf.range(6.0)
    pairs = (tf.ones([6, 4]), tf.zeros([6, 2]))
    offset, _ = critic.offset_network(pairs)
    value, _ = critic(pairs, log_mu=given)
    np.testing.assert_allclose(value, offset + given, rtol=1e-6)


def test_variables_are_the_offsets_alone():
    critic = wrapped()
    assert [id(v) for v in critic.variables] == [id(v) for v in critic.offset_network.variables]
    assert len(critic.trainable_variables) == 6


def test_copy_copies_the_offset_and_shares_mu():
    critic = wrapped()
    copy = critic.copy(name="Copy")
    copy.create_variables()
    assert copy.name == "Copy"
    assert copy.behavior_network is critic.behavior_network
    assert not {id(v) for v in copy.variables} & {id(v) for v in critic.variables}


def test_layers_of_equal_shape_start_with_different_weights():
    kernels = [v.numpy() for v in wrapped().variables if v.shape == (16, 16)]
    kernels += [v.numpy() for v in wrapped().variables if v.shape == (16, 16)]
    assert len(kernels) == 2 and not np.allclose(*kernels)
    net = critic_network.create_offset_network((OBSERVATION, ACTION), (16, 16, 16))
    net.create_variables()
    first, second = (v.numpy() for v in net.variables if v.shape == (16, 16))
    assert not np.allclose(first, second)


def test_offset_network_has_the_authors_initialization():
    net = critic_network.create_offset_network((OBSERVATION, ACTION))
    net.create_variables()
    kernels = [v.numpy() for v in net.variables if "kernel" in v.name]
    assert [k.shape for k in kernels] == [(6, 256), (256, 256), (256, 256), (256, 1)]
    # Orthogonal with gain g: K^T K = g^2 I (on the smaller side).
    np.testing.assert_allclose(kernels[1].T @ kernels[1], 2.0 * np.eye(256), atol=1e-4)
    np.testing.assert_allclose(kernels[0] @ kernels[0].T, 2.0 * np.eye(6), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(kernels[3]), 0.01, rtol=1e-4)


def test_actor_network_has_the_authors_initialization_and_clip():
    net = actor_network.create_actor_network(OBSERVATION, ACTION)
    net.create_variables()
    kernels = [v for v in net.variables if "kernel" in v.name]
    assert [tuple(k.shape) for k in kernels] == [(4, 256), (256, 256), (256, 256), (256, 4)]
    first, second = kernels[1].numpy(), kernels[2].numpy()
    assert not np.allclose(first, second)
    np.testing.assert_allclose(first.T @ first, 2.0 * np.eye(256), atol=1e-4)
    last = kernels[3].numpy()
    np.testing.assert_allclose(last.T @ last, 1e-4 * np.eye(4), atol=1e-7)
    bias = net.variables[-1]
    for log_std, expected in ((-30.0, np.exp(-20.0)), (5.0, np.exp(2.0))):
        bias.assign([0.0, 0.0, log_std, log_std])
        kernels[3].assign(tf.zeros_like(kernels[3]))
        distribution, _ = net(tf.zeros([1, 4]), step_type=(), network_state=())
        scale = distribution.input_distribution.stddev()
        np.testing.assert_allclose(scale, [[expected, expected]], rtol=1e-5)


def test_serves_tf_agents_own_sac():
    critic = wrapped()
    agent = sac_agent.SacAgent(
        ts.time_step_spec(OBSERVATION),
        ACTION,
        critic,
        actor_network.create_actor_network(OBSERVATION, ACTION, (8,)),
        *[tf.keras.optimizers.Adam() for _ in range(3)],
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )
    agent.initialize()
    assert agent._target_critic_network_2.behavior_network is critic.behavior_network


def test_refuses_a_behavior_network_with_a_state():
    recurrent = actor_distribution_rnn_network.ActorDistributionRnnNetwork(
        OBSERVATION, ACTION, lstm_size=(4,)
    )
    offset = critic_network.create_offset_network((OBSERVATION, ACTION))
    with pytest.raises(ValueError, match="must be stateless"):
        critic_network.BehaviorRegularizedCriticNetwork(offset, recurrent)
