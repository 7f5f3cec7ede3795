"""grad_a f(s, a) and ||grad_a f(s, a)||^2, the gradient penalty (Kostrikov et al. 2021, eq. 7)."""

import contextlib
from collections.abc import Iterator
from typing import Callable

import tensorflow as tf
from tf_agents.typing import types


def squared_action_gradient(
    function: Callable[[types.NestedTensor], tf.Tensor],
    actions: types.NestedTensor,
    outer_shape: tf.TensorShape,
) -> tf.Tensor:
    """Returns ||grad_a f(a)||^2, summed over the action's dimensions and its nest.

    Arguments and exceptions are those of `value_and_gradient`; the shape is the outer one.
    """
    _, gradient = value_and_gradient(function, actions, outer_shape)
    return inner(gradient, gradient, outer_shape.rank)


def value_and_gradient(
    function: Callable[[types.NestedTensor], tf.Tensor],
    actions: types.NestedTensor,
    outer_shape: tf.TensorShape,
) -> tuple[tf.Tensor, types.NestedTensor]:
    """Returns f(a), and grad_a f(a) per example, a nest like `actions`.

    For values of shape `[B, T]` each step's value is differentiated with respect to that step's
    action alone, the earlier ones fixed: a recurrent f depends on them too. That takes T passes.

    Args:
      function: f, from actions to values of the outer shape.
      actions: The actions.
      outer_shape: The static shape `[B]` or `[B, T]`.

    Raises:
      ValueError: If T is not known.
    """
    flat = tf.nest.flatten(actions)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(flat)
        value = function(actions)
        steps = [value] if outer_shape.rank == 1 else _steps(value, outer_shape)

    def of_all_actions(step_value: tf.Tensor) -> list[tf.Tensor]:
        return tape.gradient(step_value, flat, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    gradients = [of_all_actions(step_value) for step_value in steps]
    if outer_shape.rank == 1:
        return value, tf.nest.pack_sequence_as(actions, gradients[0])
    own = [
        tf.stack([g[:, step] for step, g in enumerate(of_leaf)], axis=1)
        for of_leaf in zip(*gradients)
    ]
    return value, tf.nest.pack_sequence_as(actions, own)


def inner(left: types.NestedTensor, right: types.NestedTensor, outer_rank: int = 1) -> tf.Tensor:
    """Returns the inner products of two nests of actions, in the shape of `outer_rank` axes."""
    return tf.add_n(
        [
            tf.reduce_sum(a * b, axis=list(range(outer_rank, a.shape.rank)))
            for a, b in zip(tf.nest.flatten(left), tf.nest.flatten(right))
        ]
    )


def has_relu(layer: tf.Module) -> bool:
    """Returns whether a layer's `activation` is TensorFlow's or Keras' ReLU."""
    return getattr(layer, "activation", None) in (tf.nn.relu, tf.keras.activations.relu)


@contextlib.contextmanager
def constant_relu_masks(module: tf.Module) -> Iterator[None]:
    """Within it, the ReLU layers of a network are differentiated with their masks as constants.

    Values and gradients are the same: the derivative of ReLU is a step, whose own derivative is 0.
    TensorFlow differentiates ReluGrad by multiplying these zeros backwards through the network, two
    matrix products per hidden layer that this saves in the gradient of a gradient.

    Args:
      module: A network; its layers that `has_relu` are meant.
    """
    layers = [layer for layer in module.submodules if has_relu(layer)]
    activations = [layer.activation for layer in layers]
    try:
        for layer in layers:
            layer.activation = _relu
        yield
    finally:
        for layer, activation in zip(layers, activations):
            layer.activation = activation


@tf.custom_gradient
def _relu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    y = tf.nn.relu(x)

    def gradient(dy: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.ReluGrad(gradients=dy, features=tf.stop_gradient(y))

    return y, gradient


def _steps(values: tf.Tensor, outer_shape: tf.TensorShape) -> list[tf.Tensor]:
    """Returns the columns of `[B, T]`."""
    if outer_shape[1] is None:
        raise ValueError(
            "A recurrent critic_network needs experience of a fixed number of time steps, [B, T] "
            f"with T known, got the shape {outer_shape}: its gradient penalty takes one backward "
            "pass per step."
        )
    return tf.unstack(values, num=outer_shape[1], axis=1)
