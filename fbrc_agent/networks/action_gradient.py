"""grad_a f(s, a) and ||grad_a f(s, a)||^2, the gradient penalty (Kostrikov et al. 2021, eq. 7).

The penalty is differentiated once more, in the weights of a critic. `of_critic` makes that cheap:
plain ReLU critics have a closed form, other networks with ReLU layers have constant masks.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Callable, Optional

import tensorflow as tf
from tf_agents.agents.ddpg import critic_network
from tf_agents.networks import network
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types


def of_function(
    function: Callable[[types.NestedTensor], tf.Tensor],
    actions: types.NestedTensor,
    outer_shape: tf.TensorShape,
) -> types.NestedTensor:
    """Returns grad_a f(a) per example, a nest like `actions`.

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
    is_recurrent = outer_shape.rank > 1
    if is_recurrent and outer_shape[1] is None:
        raise ValueError(
            f"The experience has the shape {outer_shape}; with a recurrent critic_network it must "
            "be [B, T] with T known: the gradient penalty takes one backward pass per step."
        )
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(flat)
        values = function(actions)
        steps = tf.unstack(values, num=outer_shape[1], axis=1) if is_recurrent else [values]
    zero = tf.UnconnectedGradients.ZERO
    gradients = [tape.gradient(step, flat, unconnected_gradients=zero) for step in steps]
    own = gradients[0]
    if is_recurrent:
        own = [tf.stack([g[:, t] for t, g in enumerate(leaf)], axis=1) for leaf in zip(*gradients)]
    return tf.nest.pack_sequence_as(actions, own)


def of_critic(
    critic: network.Network, time_steps: ts.TimeStep, actions: types.NestedTensor
) -> types.NestedTensor:
    """Returns grad_a of a critic's values in training, to be differentiated once more.

    Arguments and exceptions are as of `of_function`.
    """
    layers = plain_layers(critic)
    if layers:
        return in_closed_form(layers, time_steps.observation, actions)

    def values(a: types.NestedTensor) -> tf.Tensor:
        inputs = (time_steps.observation, a)
        return critic(inputs, step_type=time_steps.step_type, training=True)[0]

    with constant_relu_masks(critic):
        return of_function(values, actions, time_steps.step_type.shape)


def squared_norm(gradient: types.NestedTensor, outer_rank: int = 1) -> tf.Tensor:
    """Returns ||g||^2, summed over the action's dimensions and its nest; `outer_rank` axes stay."""
    squares = [g * g for g in tf.nest.flatten(gradient)]
    return tf.add_n([tf.reduce_sum(s, axis=list(range(outer_rank, s.shape.rank))) for s in squares])


def plain_layers(net: network.Network) -> Optional[Sequence[tf.keras.layers.Dense]]:
    """Returns the layers of TF-Agents' `CriticNetwork` if it is a plain one, else None.

    Plain is one observation and one action, joined as they are: no encoding of either, no dropout,
    hidden layers of TensorFlow's or Keras' ReLU, at least one, a linear value, one dtype.
    """
    if type(net) is not critic_network.CriticNetwork or not net.built:
        return None
    layers = [layer for layer in net.layers if not isinstance(layer, tf.keras.layers.Flatten)]
    *hidden, value = layers
    plain = (
        all(type(layer) is tf.keras.layers.Dense for layer in layers)
        and all(layer.compute_dtype == layer.dtype == tf.float32 for layer in layers)
        and all(_has_relu(layer) for layer in hidden)
        and value.activation is tf.keras.activations.linear
        and value.units == 1
    )
    if not hidden or not plain:
        return None
    # The layer of an encoding takes the observation or the action alone.
    inputs = [layer.kernel.shape[0] for layer in layers]
    joined = sum(spec.shape.num_elements() for spec in tf.nest.flatten(net.input_tensor_spec))
    return layers if inputs == [joined, *(layer.units for layer in hidden)] else None


def in_closed_form(
    layers: Sequence[tf.keras.layers.Dense],
    observation: types.NestedTensor,
    action: types.NestedTensor,
) -> types.NestedTensor:
    """Returns grad_a O(s, a) of `plain_layers`, a nest like `action`.

    With hidden layers h_l = relu(h_{l-1} W_l + b_l), l = 1 ... L, h_0 = (s, a), the value h_L w + b
    and the masks M_l = 1 where h_l > 0, which are constants,

        grad_a O = (... ((M_L (W_L diag w)^T) * M_{L-1}) W_{L-1}^T ... * M_1) (rows of a in W_1)^T.

    w is multiplied into W_L first. The gradient of a function of this one then comes to W_L and w
    by one product with M_L; in the order of differentiation, (M_L * w) W_L^T, the way to w goes
    through layer L once more.

    Args:
      layers: What `plain_layers` returns.
      observation: One tensor `[B, ...]`.
      action: One tensor `[B, ...]`.
    """
    inputs = [tf.cast(tf.nest.flatten(nest)[0], tf.float32) for nest in (observation, action)]
    flat = [tf.reshape(tensor, [-1, tensor.shape[1:].num_elements()]) for tensor in inputs]
    units = [tf.concat(flat, axis=1)]
    *hidden, last = layers
    for layer in hidden:
        units.append(layer(units[-1]))

    kernels = [tf.convert_to_tensor(layer.kernel) for layer in hidden]
    kernels[0] = kernels[0][flat[0].shape[1] :]
    kernels[-1] *= last.kernel[:, 0]
    gradient = tf.ones_like(units[-1])
    for kernel, active in zip(reversed(kernels), reversed(units)):
        masked = tf.raw_ops.ReluGrad(gradients=gradient, features=tf.stop_gradient(active))
        gradient = tf.linalg.matmul(masked, kernel, transpose_b=True)
    return tf.nest.map_structure(
        lambda a: tf.cast(tf.reshape(gradient, tf.shape(a)), a.dtype), action
    )


@contextlib.contextmanager
def constant_relu_masks(module: tf.Module) -> Iterator[None]:
    """Within it, the ReLU layers of a network are differentiated with their masks as constants.

    Values and gradients are the same: the derivative of ReLU is a step, whose own derivative is 0.
    TensorFlow differentiates ReluGrad by multiplying these zeros backwards through the network, two
    matrix products per hidden layer that this saves in the gradient of a gradient.
    """
    activations = {layer: layer.activation for layer in module.submodules if _has_relu(layer)}
    try:
        for layer in activations:
            layer.activation = _relu
        yield
    finally:
        for layer, activation in activations.items():
            layer.activation = activation


@tf.custom_gradient
def _relu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    y = tf.nn.relu(x)

    def gradient(dy: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.ReluGrad(gradients=dy, features=tf.stop_gradient(y))

    return y, gradient


def _has_relu(layer: tf.Module) -> bool:
    return getattr(layer, "activation", None) in (tf.nn.relu, tf.keras.activations.relu)
