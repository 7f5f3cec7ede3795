"""Twin critics by hand: O_1 = s + w.a and O_2 = |a|^2, mu a standard normal."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from fbrc_agent.agents import twin_critics

OBSERVATION = tensor_spec.TensorSpec([1], tf.float32)
ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, -5.0, 5.0)
OBSERVATIONS = tf.constant([[1.0], [-2.0]])
ACTIONS = tf.constant([[0.5, -1.0], [2.0, 0.0]])
W = np.array([3.0, -4.0], np.float32)
LOG_MU = [-0.625 - np.log(2 * np.pi), -2.0 - np.log(2 * np.pi)]
OUTPUTS = [[1.0 + 1.5 + 4.0, -2.0 + 6.0], [1.25, 4.0]]


class _Network(network.Network):
    def __init__(self, function):
        super().__init__((OBSERVATION, ACTION), state_spec=(), name="Network")
        self._function = function

    def call(self, inputs, step_type=(), network_state=(), training=False):
        return self._function(*inputs), network_state


class _Normal(network.Network):
    def __init__(self):
        super().__init__(OBSERVATION, state_spec=(), name="Normal")

    def call(self, observation, step_type=(), network_state=(), training=False):
        loc = tf.zeros([tf.shape(observation)[0], 2])
        return tfp.distributions.MultivariateNormalDiag(loc, tf.ones_like(loc)), network_state


def make_twins(regularization="offset"):
    functions = [
        lambda s, a: s[:, 0] + tf.linalg.matvec(a, W),
        lambda s, a: tf.reduce_sum(a**2, axis=-1),
    ]
    return twin_critics.TwinCritics(map(_Network, functions), _Normal(), ACTION, regularization)


@pytest.fixture
def time_steps():
    return ts.restart(OBSERVATIONS, batch_size=2)


def test_outputs_are_the_networks(time_steps):
    np.testing.assert_allclose(make_twins().outputs(time_steps, ACTIONS), OUTPUTS, rtol=1e-6)


@pytest.mark.parametrize("regularization", twin_critics.REGULARIZATIONS)
def test_minimum_has_log_mu_with_the_offset_only(time_steps, regularization):
    twins = make_twins(regularization)
    outputs = twins.outputs(time_steps, ACTIONS)
    minimum = twins.minimum(outputs, twins.behavior(time_steps), ACTIONS)
    expected = np.min(OUTPUTS, axis=0) + (regularization == "offset") * np.array(LOG_MU)
    np.testing.assert_allclose(minimum, expected, rtol=1e-5)


# The gradients are w and 2 a, that of log mu is -a. |w|^2 = 25, |a|^2 = 1.25 and 4, w.a = 5.5, 6.
@pytest.mark.parametrize(
    "regularization, expected",
    [
        ("offset", [25.0 + 5.0, 25.0 + 16.0]),
        ("gradient_penalty", [25.0 + 5.0, 25.0 + 16.0]),
        ("fisher", [25.0 + 11.0 + 1.25 + 9 * 1.25, 25.0 + 12.0 + 4.0 + 9 * 4.0]),
    ],
)
def test_penalty_is_summed_over_twins_and_dimensions(time_steps, regularization, expected):
    twins = make_twins(regularization)
    slopes = twins.slopes(time_steps, ACTIONS)
    behavior = twins.behavior(time_steps)
    penalty = twins.penalty(slopes, behavior, ACTIONS, time_steps.step_type.shape)
    np.testing.assert_allclose(penalty, expected, rtol=1e-6)


def test_gradient_norms_are_those_of_each_network_and_of_log_mu(time_steps):
    twins = make_twins()
    norms, mu_norm = twins.gradient_norms(time_steps, twins.behavior(time_steps), ACTIONS)
    np.testing.assert_allclose(norms, [[5.0, 5.0], [5.0**0.5, 4.0]], rtol=1e-6)
    np.testing.assert_allclose(mu_norm, [1.25**0.5, 2.0], rtol=1e-6)


def test_tangents_have_the_values_and_gradients_of_the_twins(time_steps):
    twins = make_twins()
    slopes = twins.slopes(time_steps, ACTIONS)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(ACTIONS)
        first, second = twin_critics.tangents(slopes, ACTIONS)
    np.testing.assert_allclose([first, second], OUTPUTS, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(first, ACTIONS), [W, W], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(second, ACTIONS), 2 * ACTIONS, rtol=1e-6)
