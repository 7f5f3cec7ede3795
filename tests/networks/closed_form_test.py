"""The closed form against differentiating twice."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.ddpg import critic_network
from tf_agents.networks import sequential
from tf_agents.specs import tensor_spec

from fbrc_agent.networks import action_gradient

BATCH = 6


def make_network(layers=(8, 7), observation_shape=(4,), action_shape=(3,), built=True, **arguments):
    specs = (
        tensor_spec.TensorSpec(observation_shape, tf.float32),
        tensor_spec.BoundedTensorSpec(action_shape, tf.float32, -1.0, 1.0),
    )
    net = critic_network.CriticNetwork(
        specs,
        joint_fc_layer_params=layers,
        kernel_initializer="glorot_normal",
        last_kernel_initializer="glorot_normal",
        **arguments,
    )
    if built:
        net.create_variables()
        generator = np.random.default_rng(1)
        for variable in net.variables:  # Biases too, and so that no gradient is 0 by chance.
            variable.assign(generator.normal(size=variable.shape))
    return net


def draw(net, batch=BATCH):
    generator = np.random.default_rng(0)
    return [
        tf.constant(generator.normal(size=(batch, *spec.shape)), tf.float32)
        for spec in net.input_tensor_spec
    ]


def in_closed_form(net, observation, action):
    return action_gradient.in_closed_form(action_gradient.plain_layers(net), observation, action)


def differentiated(net, observation, action):
    outer_shape = tf.TensorShape([action.shape[0]])
    with action_gradient.constant_relu_masks(net):
        return action_gradient.of_function(lambda a: net((observation, a))[0], action, outer_shape)


def penalty_gradients(net, of_network):
    observation, action = draw(net)
    weights = tf.range(1.0, BATCH + 1.0)  # An uneven mean.
    with tf.GradientTape() as tape:
        gradient = of_network(net, observation, action)
        penalty = tf.reduce_mean(weights * action_gradient.squared_norm(gradient))
    return tape.gradient(penalty, net.trainable_variables)


@pytest.mark.parametrize("layers", [(8,), (8, 7), (8, 7, 9)])
@pytest.mark.parametrize("activation", [tf.nn.relu, tf.keras.activations.relu])
def test_gradients_are_those_of_differentiation(layers, activation):
    net = make_network(layers, activation_fn=activation)
    gradient, expected = in_closed_form(net, *draw(net)), differentiated(net, *draw(net))
    assert gradient.shape == expected.shape == [BATCH, 3]
    assert np.all(np.any(expected, axis=0))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layers", [(8,), (8, 7), (8, 7, 9)])
def test_its_own_gradients_are_those_of_differentiating_twice(layers):
    net = make_network(layers)
    gradients = penalty_gradients(net, in_closed_form)
    expected = penalty_gradients(net, differentiated)
    for variable, one, other in zip(net.trainable_variables, gradients, expected):
        if variable.shape.rank == 1:
            assert one is None, variable.name  # The gradient does not depend on the biases.
            continue
        assert np.any(one), variable.name
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_it_saves_a_product_by_the_last_hidden_layer():
    net = make_network((8, 7, 9))

    def products(of_network):
        function = tf.function(lambda: penalty_gradients(net, of_network))
        graph = function.get_concrete_function().graph
        shapes = [
            {tuple(tensor.shape) for tensor in operation.inputs}
            for operation in graph.get_operations()
            if operation.type == "MatMul"
        ]
        through_last = [s for s in shapes if s & {(7, 9)}]
        return len(shapes), len(through_last)

    # Forward, and backward in the action; the chain of the tangents ends before the last layer.
    assert products(differentiated)[1] == 3
    assert products(in_closed_form)[1] == 2
    # Nor are there products by the vector of the value: forward, backward, and w's gradient.
    assert products(in_closed_form)[0] == products(differentiated)[0] - 4


def test_any_batch_and_shape():
    net = make_network(observation_shape=(2, 3), action_shape=(2, 2))
    observation, action = draw(net)
    expected = differentiated(net, observation, action)
    spec = [tf.TensorSpec([None, *t.shape[1:]], t.dtype) for t in (observation, action)]
    function = tf.function(lambda s, a: in_closed_form(net, s, a), input_signature=spec)
    gradient = function(observation, action)
    assert gradient.shape == [BATCH, 2, 2]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_actions_keep_their_structure_and_dtype():
    net = make_network()
    observation, action = draw(net)
    doubles = {"torque": tf.cast(action, tf.float64)}
    gradient = in_closed_form(net, {"state": observation}, doubles)
    assert gradient["torque"].dtype == tf.float64
    expected = in_closed_form(net, observation, action)
    np.testing.assert_allclose(gradient["torque"], expected, rtol=1e-6)


class _Subclass(critic_network.CriticNetwork):
    """Might do anything in `call`."""


def subclass_network():
    net = _Subclass(make_network(built=False).input_tensor_spec, joint_fc_layer_params=(8,))
    net.create_variables()
    return net


def sequential_network():
    net = sequential.Sequential([tf.keras.layers.Dense(8, "relu"), tf.keras.layers.Dense(1)])
    net.create_variables(tensor_spec.TensorSpec([3], tf.float32))
    return net


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_network(activation_fn=tf.nn.tanh),
        lambda: make_network(activation_fn=tf.nn.relu6),
        lambda: make_network(output_activation_fn=tf.nn.tanh),
        lambda: make_network(joint_dropout_layer_params=(0.1, None)),
        lambda: make_network(observation_fc_layer_params=(5,)),
        lambda: make_network(action_fc_layer_params=(5,)),
        lambda: make_network(observation_fc_layer_params=(7,), layers=(10,)),
        lambda: make_network(layers=None),
        lambda: make_network(built=False),
        subclass_network,
        sequential_network,
    ],
)
def test_other_networks_are_not_plain(make):
    assert action_gradient.plain_layers(make()) is None


def test_plain_networks_are():
    net = make_network((8, 7))
    assert [layer.units for layer in action_gradient.plain_layers(net)] == [8, 7, 1]
