import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import sequential
from tf_agents.specs import tensor_spec

from fbrc_agent.networks import action_gradient

BATCH, ACTIONS = 5, 3


def network(activation):
    def dense(units):
        return tf.keras.layers.Dense(units, activation)

    net = sequential.Sequential([dense(8), dense(7), tf.keras.layers.Dense(1)])
    net.create_variables(tensor_spec.TensorSpec([ACTIONS], tf.float32))
    return net


def penalty_gradients(net, actions):
    """The gradient of the mean of ||grad_a f||^2 in the weights."""
    with tf.GradientTape() as tape:
        gradient = action_gradient.of_function(
            lambda a: net(a)[0][:, 0], actions, tf.TensorShape([BATCH])
        )
        penalty = tf.reduce_mean(action_gradient.squared_norm(gradient))
    return tape.gradient(penalty, net.trainable_variables)


def actions():
    return tf.constant(np.random.default_rng(0).normal(size=(BATCH, ACTIONS)).astype(np.float32))


def matrix_products(function, *arguments):
    graph = tf.function(function).get_concrete_function(*arguments).graph
    return sum(operation.type == "MatMul" for operation in graph.get_operations())


@pytest.mark.parametrize("activation", ["relu", tf.nn.relu, "tanh"])
def test_constant_masks_give_the_same_gradients(activation):
    net = network(activation)
    expected = penalty_gradients(net, actions())
    with action_gradient.constant_relu_masks(net):
        gradients = penalty_gradients(net, actions())
    kernels = [i for i, v in enumerate(net.trainable_variables) if v.shape.rank == 2]
    assert len(kernels) == 3
    for i in kernels:
        assert np.any(gradients[i])
        np.testing.assert_allclose(gradients[i], expected[i], rtol=1e-6)


def test_constant_masks_save_matrix_products():
    net = network("relu")

    def products():
        return matrix_products(lambda a: penalty_gradients(net, a), actions())

    plain = products()
    with action_gradient.constant_relu_masks(net):
        # Each hidden layer's gradients in its kernel and its input; the first has no such input.
        assert products() == plain - 3


def test_the_activations_come_back():
    net = network("relu")
    activations = [layer.activation for layer in net.layers]
    with pytest.raises(RuntimeError), action_gradient.constant_relu_masks(net):
        assert net.layers[0].activation is not activations[0]
        raise RuntimeError
    assert [layer.activation for layer in net.layers] == activations
