"""Both critics by hand: O_1 = s + w.a and O_2 = |a|^2, mu a standard normal."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from fbrc_agent.agents import fbrc
from fbrc_agent.networks import actor_network

OBSERVATION = tensor_spec.TensorSpec([1], tf.float32)
ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, -5.0, 5.0)
OBSERVATIONS = tf.constant([[1.0], [-2.0]])
ACTIONS = tf.constant([[0.5, -1.0], [2.0, 0.0]])
W = np.array([3.0, -4.0], np.float32)
LOG_MU = [-0.625 - np.log(2 * np.pi), -2.0 - np.log(2 * np.pi)]
OUTPUTS = [[1.0 + 1.5 + 4.0, -2.0 + 6.0], [1.25, 4.0]]


class _Network(network.Network):
    def __init__(self, function, name="Network"):
        super().__init__((OBSERVATION, ACTION), state_spec=(), name=name)
        self._function = function

    def call(self, inputs, step_type=(), network_state=(), training=False):
        return self._function(*inputs), network_state


class _Normal(network.Network):
    def __init__(self):
        super().__init__(OBSERVATION, state_spec=(), name="Normal")

    def call(self, observation, step_type=(), network_state=(), training=False):
        loc = tf.zeros([tf.shape(observation)[0], 2])
        return tfp.distributions.MultivariateNormalDiag(loc, tf.ones_like(loc)), network_state


def make_agent(regularization="offset"):
    functions = [
        lambda s, a: s[:, 0] + tf.linalg.matvec(a, W),
        lambda s, a: tf.reduce_sum(a**2, axis=-1),
    ]
    critics = [_Network(function) for function in functions]
    return fbrc.FbrcAgent(
        ts.time_step_spec(OBSERVATION),
        ACTION,
        critics[0],
        actor_network.create_actor_network(OBSERVATION, ACTION, (4,)),
        *[None] * 3,
        behavior_network=_Normal(),
        critic_network_2=critics[1],
        penalty_actions="data",
        regularization=regularization,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )


def states(agent):
    return agent._first_states(OBSERVATIONS)


@pytest.mark.parametrize("regularization", fbrc.REGULARIZATIONS)
@pytest.mark.parametrize("critics", ["_critics", "_target_critics"])
def test_values_have_log_mu_with_the_offset_only(regularization, critics):
    agent = make_agent(regularization)
    values = agent._q_values(getattr(agent, critics), states(agent), ACTIONS)
    expected = np.array(OUTPUTS) + (regularization == "offset") * np.array(LOG_MU)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("regularization", fbrc.REGULARIZATIONS)
def test_exported_values_are_those_of_the_lower_critic(regularization):
    values = make_agent(regularization).values(OBSERVATIONS, ACTIONS)
    log_mu, lower = np.array(LOG_MU), np.min(OUTPUTS, axis=0)
    q = lower + (regularization == "offset") * log_mu
    expected = {"q": q, "log_mu": log_mu, "offset": q - log_mu}
    assert set(values) == set(expected)
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5)


# The gradients are w and 2 a, that of log mu is -a. |w|^2 = 25, |a|^2 = 1.25 and 4, w.a = 5.5, 6.
@pytest.mark.parametrize(
    "regularization, expected",
    [
        ("offset", [25.0 + 5.0, 25.0 + 16.0]),
        ("gradient_penalty", [25.0 + 5.0, 25.0 + 16.0]),
        ("fisher", [25.0 + 11.0 + 1.25 + 9 * 1.25, 25.0 + 12.0 + 4.0 + 9 * 4.0]),
    ],
)
def test_penalty_is_summed_over_critics_and_dimensions(regularization, expected):
    agent = make_agent(regularization)
    penalty = agent._gradient_penalty(states(agent), ACTIONS, like=tf.zeros([2]))
    np.testing.assert_allclose(penalty, expected, rtol=1e-6)


def test_gradient_norms_are_those_of_each_network_and_of_log_mu():
    agent = make_agent()
    norms = agent._own_diagnostics(states(agent), ACTIONS)
    expected = np.mean([[5.0, 5.0], [5.0**0.5, 4.0]])
    np.testing.assert_allclose(norms["offset_gradient_norm"], expected, rtol=1e-6)
    expected = np.mean([1.25**0.5, 2.0])
    np.testing.assert_allclose(norms["behavior_gradient_norm"], expected, rtol=1e-6)
